"""What lies in a HEIF or AVIF file: items, their properties and how they refer to each other.

Items and properties are those of ISO/IEC 23008-12 (HEIF). Nothing here is decoded. Whatever a file says about
places and sizes is checked against the bytes that are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.photos.heif.boxes import (
    Box,
    Reader,
    boxes,
    checked_version,
    next_box,
    top_level_boxes,
    unique_boxes,
)

CODED_KINDS = {b"hvc1", b"av01"}
DERIVED_KINDS = {b"grid", b"iovl", b"iden"}
ALPHA_KINDS = {b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1"}
# A picture made of pictures made of pictures: each step may multiply what there is to decode by 65,536.
_MAX_DERIVATIONS = 4


class Extent(NamedTuple):
    start: int
    length: int


class Reference(NamedTuple):
    kind: bytes
    source: int
    targets: tuple[int, ...]


class Association(NamedTuple):
    property_index: int
    """From 0."""
    is_essential: bool


@dataclass(frozen=True)
class Item:
    kind: bytes
    is_hidden: bool
    is_protected: bool


@dataclass(frozen=True)
class Location:
    construction_method: int
    data_reference: int
    extents: tuple[Extent, ...]


@dataclass(frozen=True)
class HeifItems:
    """The meta box of a file, and the bytes that it points to."""

    content: memoryview
    major_brand: bytes
    brands: frozenset[bytes]
    primary: int
    items: dict[int, Item]
    locations: dict[int, Location]
    references: tuple[Reference, ...]
    properties: tuple[Box, ...]
    associations: dict[int, tuple[Association, ...]]
    idat: memoryview

    def properties_of(self, number: int) -> Iterator[Box]:
        for association in self.associations.get(number, ()):
            yield self.properties[association.property_index]

    def extents(self, number: int) -> tuple[memoryview, ...]:
        """The bytes of an item, in the parts that the file keeps them in.

        Raises:
            UnusableImageError: they lie in another file, in another item, or outside of this file.
        """
        location = self.locations.get(number)
        if location is None:
            if self.items[number].kind == b"iden":
                return ()
            raise UnusableImageError(f"damaged image: nothing says where item {number} lies")
        if location.data_reference != 0:
            raise UnusableImageError(f"item {number} lies in another file")
        if location.construction_method not in (0, 1):
            raise UnusableImageError(
                f"item {number} is put together in a way that is not known ({location.construction_method})"
            )
        source = self.idat if location.construction_method == 1 else self.content
        for start, length in location.extents:
            if length == 0 or start + length > len(source):
                raise UnusableImageError(
                    f"damaged image: item {number} takes {length:,} bytes from byte {start:,} on,"
                    f" of {len(source):,}"
                )
        return tuple(source[start : start + length] for start, length in location.extents)

    def derived_from(self, number: int) -> tuple[int, ...]:
        """The items that a derived picture is made of, in its order; none for a coded picture."""
        if self.items[number].kind not in DERIVED_KINDS:
            return ()
        found = self._made_of.get(number, [])
        if len(found) != 1:
            raise UnusableImageError(f"damaged image: {len(found)} lists of what picture {number} is made of")
        return found[0]

    @cached_property
    def _made_of(self) -> dict[int, list[tuple[int, ...]]]:
        made_of: dict[int, list[tuple[int, ...]]] = {}
        for kind, source, targets in self.references:
            if kind == b"dimg":
                made_of.setdefault(source, []).append(targets)
        return made_of

    def auxiliary_kind(self, number: int) -> bytes:
        """What an auxiliary picture is for; empty where nothing says so."""
        for kind, payload in self.properties_of(number):
            if kind == b"auxC":
                reader = Reader(payload, "auxC")
                reader.version_and_flags()
                return reader.text()
        return b""

    def shown_pictures(self) -> tuple[int, ...]:
        """The primary picture, what it is made of, and their alpha planes; numbers in rising order.

        Raises:
            UnusableImageError: one of them is missing, of a kind that is not known, protected, or made of
                itself.
        """
        alphas: dict[int, list[int]] = {}
        for kind, source, targets in self.references:
            if kind == b"auxl" and self.auxiliary_kind(source) in ALPHA_KINDS:
                for target in targets:
                    alphas.setdefault(target, []).append(source)
        shown: set[int] = set()
        waiting = [self.primary]
        while waiting:
            number = waiting.pop()
            if number in shown:
                continue
            item = self.items.get(number)
            if item is None:
                raise UnusableImageError(f"damaged image: picture {number} is missing")
            if item.is_protected:
                raise UnusableImageError(f"picture {number} is protected")
            if item.kind not in CODED_KINDS | DERIVED_KINDS:
                raise UnusableImageError(f"picture {number} is of kind {item.kind!r}, which is not known")
            shown.add(number)
            waiting += self.derived_from(number) + tuple(alphas.get(number, ()))
        self._check_derivations(shown)
        return tuple(sorted(shown))

    def _check_derivations(self, shown: set[int]) -> None:
        """Level by level from the coded pictures up: what is left then leads to itself or too deep."""
        made_of = {number: set(self.derived_from(number)) for number in shown}
        for _ in range(_MAX_DERIVATIONS):
            left = {number: parts & made_of.keys() for number, parts in made_of.items()}
            made_of = {number: parts for number, parts in left.items() if parts}
        if made_of:
            raise UnusableImageError(
                f"damaged image: picture {min(made_of)} is made of itself, or too deeply nested"
            )


def parse_heif(content: bytes) -> HeifItems:
    """Read what a HEIF or AVIF file says about its items.

    Raises:
        UnusableImageError: damaged, ambiguous, or not a file of still pictures.
    """
    view = memoryview(content)
    top = top_level_boxes(view)
    brands = top[b"ftyp"].reader()
    major_brand = bytes(brands.take(4))
    brands.take(4)
    compatible = {bytes(brands.take(4)) for _ in range(brands.left // 4)}
    meta = top[b"meta"].reader()
    meta.version_and_flags()
    parts = unique_boxes(boxes(meta.take(meta.left)), "meta")
    missing = {b"hdlr", b"pitm", b"iinf", b"iloc", b"iprp"} - parts.keys()
    if missing:
        raise UnusableImageError(f"no still picture: no {sorted(missing)} in its meta box")
    handler = bytes(parts[b"hdlr"].payload[8:12])
    if handler != b"pict":
        raise UnusableImageError(f"no still picture: its meta box is for {handler!r}")
    if b"ipro" in parts:
        raise UnusableImageError("the file has protected items")
    properties, associations = _properties(parts[b"iprp"])
    return HeifItems(
        content=view,
        major_brand=major_brand,
        brands=frozenset(compatible | {major_brand}),
        primary=_primary(parts[b"pitm"]),
        items=_items(parts[b"iinf"]),
        locations=_locations(parts[b"iloc"]),
        references=_references(parts[b"iref"]) if b"iref" in parts else (),
        properties=properties,
        associations=associations,
        idat=parts[b"idat"].payload if b"idat" in parts else view[:0],
    )


def _primary(box: Box) -> int:
    reader = box.reader()
    version, _ = checked_version(reader, box, 1)
    return reader.number(4 if version == 1 else 2)


def _items(box: Box) -> dict[int, Item]:
    reader = box.reader()
    version, _ = checked_version(reader, box, 1)
    n_items = reader.number(4 if version == 1 else 2)
    items: dict[int, Item] = {}
    for _ in range(n_items):
        entry = next_box(reader)
        if entry.kind != b"infe":
            raise UnusableImageError(f"damaged image: box {entry.kind!r} in the list of items")
        info = entry.reader()
        version, flags = checked_version(info, entry, 3)
        if version < 2:
            raise UnusableImageError("no still picture: items without a type")
        number = info.number(4 if version == 3 else 2)
        protection = info.number(2)
        if number in items:
            raise UnusableImageError(f"damaged image: more than one item {number}")
        items[number] = Item(bytes(info.take(4)), bool(flags & 1), protection != 0)
    return items


def _locations(box: Box) -> dict[int, Location]:
    reader = box.reader()
    version, _ = checked_version(reader, box, 2)
    sizes = reader.number(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    index_size = 0 if version == 0 else index_size
    if {offset_size, length_size, base_size, index_size} - {0, 4, 8}:
        raise UnusableImageError("damaged image: sizes of places in box b'iloc'")
    n_items = reader.number(4 if version == 2 else 2)
    locations: dict[int, Location] = {}
    for _ in range(n_items):
        number = reader.number(4 if version == 2 else 2)
        method = 0 if version == 0 else reader.number(2) & 15
        data_reference = reader.number(2)
        base = reader.number(base_size)
        n_extents = reader.number(2)
        if n_extents and not index_size + offset_size + length_size:
            raise UnusableImageError("damaged image: extents without a size in box b'iloc'")
        extents = []
        for _ in range(n_extents):
            reader.take(index_size)
            extents.append(Extent(base + reader.number(offset_size), reader.number(length_size)))
        if number in locations:
            raise UnusableImageError(f"damaged image: more than one place of item {number}")
        locations[number] = Location(method, data_reference, tuple(extents))
    return locations


def _references(box: Box) -> tuple[Reference, ...]:
    reader = box.reader()
    version, _ = checked_version(reader, box, 1)
    size = 4 if version == 1 else 2
    references = []
    for entry in boxes(reader.take(reader.left)):
        numbers = entry.reader()
        source, n_targets = numbers.number(size), numbers.number(2)
        references.append(
            Reference(entry.kind, source, tuple(numbers.number(size) for _ in range(n_targets)))
        )
    return tuple(references)


def _properties(box: Box) -> tuple[tuple[Box, ...], dict[int, tuple[Association, ...]]]:
    properties: tuple[Box, ...] | None = None
    associations: dict[int, tuple[Association, ...]] = {}
    for part in boxes(box.payload):
        if part.kind == b"ipco":
            if properties is not None:
                raise UnusableImageError("damaged image: more than one list of properties")
            properties = tuple(boxes(part.payload))
        elif part.kind == b"ipma":
            if properties is None:
                raise UnusableImageError("damaged image: properties are used before they are listed")
            for number, found in _associations(part, len(properties)):
                if number in associations:
                    raise UnusableImageError(
                        f"damaged image: more than one list of properties of item {number}"
                    )
                associations[number] = found
    if properties is None:
        raise UnusableImageError("damaged image: no list of properties")
    return properties, associations


def _associations(box: Box, n_properties: int) -> Iterator[tuple[int, tuple[Association, ...]]]:
    reader = box.reader()
    version, flags = checked_version(reader, box, 1)
    n_bytes = 2 if flags & 1 else 1
    essential = 0x80 << 8 * (n_bytes - 1)
    for _ in range(reader.number(4)):
        number = reader.number(4 if version == 1 else 2)
        found = []
        for _ in range(reader.number(1)):
            value = reader.number(n_bytes)
            index = value & ~essential
            if index > n_properties:
                raise UnusableImageError(f"damaged image: item {number} has a property that is missing")
            if index > 0:  # 0 stands for none
                found.append(Association(index - 1, bool(value & essential)))
        yield number, tuple(found)
