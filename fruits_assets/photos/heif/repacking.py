"""HEIC, HEIF and AVIF files, put together anew from the picture that they show.

Kept are the primary picture, the tiles or layers it is made of and its alpha plane, with the properties
that say how to decode and turn them. Exif, XMP, thumbnails (which may show what was cropped away), depth
and gain maps, other pictures, videos, names and whatever else lies in the file have no place in the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.photos.heif.boxes import Box, Reader
from fruits_assets.photos.heif.coded_pictures import (
    av1_configuration,
    av1_picture,
    hevc_configuration,
    hevc_picture,
)
from fruits_assets.photos.heif.items import HeifItems, parse_heif

# HEIF (ISO/IEC 23008-12) annex B and AVIF section 8: brands that say what a decoder of a still picture needs.
_STILL_BRANDS = (b"mif1", b"miaf", b"heic", b"heix", b"heim", b"heis", b"avif", b"MA1B", b"MA1A")
_MAJOR_BRANDS = {b"mif1", b"heic", b"heix", b"heim", b"heis", b"avif"}
# HEIF 6.5 and AVIF 2.3: properties of a fixed size, in bytes, that say how to decode, turn or crop, or what
# the numbers of the pixels mean. Those of other sizes are below; others again describe the scene.
_FIXED_SIZES = {b"clap": 32, b"pasp": 8, b"a1op": 1, b"lsel": 2, b"mdcv": 24, b"clli": 4}
_LAYER_SIZES = b"a1lx"
_COLOUR_PROFILES = {b"prof", b"rICC"}
_KEPT_REFERENCES = {b"dimg", b"auxl", b"prem"}
_MAX_OFFSET = 0xFFFFFFFF

_ProfileChange = Callable[[bytes], bytes | None]


class _Picture(NamedTuple):
    """An item of the new file."""

    kind: bytes
    is_hidden: bool
    content: bytes
    properties: tuple[tuple[int, bool], ...]
    """Indices from 0 into the properties of the new file, and whether they are essential."""


class _Property(NamedTuple):
    old_index: int
    content: bytes
    """The whole box."""


def repacked(content: bytes, neutral_profile: _ProfileChange | None = None) -> bytes:
    """The picture that a HEIC, HEIF or AVIF file shows, in a file of its own.

    Compressed pixels stay as they are, byte for byte; a file that this function has written comes out
    unchanged.

    Args:
        neutral_profile: what becomes of the bytes of an ICC profile, None where it is to go; without it,
            profiles stay.

    Raises:
        UnusableImageError: the file cannot be taken apart safely; the message says why.
    """
    try:
        return _rewritten(parse_heif(content), neutral_profile or bytes)
    except UnusableImageError:
        raise
    except (ArithmeticError, LookupError, ValueError) as error:
        # Every number is checked where it is read; should one slip through, it must not stop a whole run.
        raise UnusableImageError(f"damaged image: {type(error).__name__}: {error}") from error


def _rewritten(file: HeifItems, neutral_profile: _ProfileChange) -> bytes:
    shown = file.shown_pictures()
    numbers = {old: new for new, old in enumerate(shown, 1)}
    if len(numbers) > 0xFFFF:
        raise UnusableImageError(f"damaged image: {len(numbers):,} pictures make up one")
    properties = _kept_properties(file, shown, neutral_profile)
    indices = {kept.old_index: i for i, kept in enumerate(properties)}
    contents = _contents(file, shown)
    pictures = [
        _Picture(
            file.items[number].kind,
            file.items[number].is_hidden,
            contents[number],
            tuple(
                (indices[index], is_essential)
                for index, is_essential in file.associations.get(number, ())
                if index in indices
            ),
        )
        for number in shown
    ]
    return _written(file, numbers, pictures, properties)


def _kept_properties(
    file: HeifItems, shown: Sequence[int], neutral_profile: _ProfileChange
) -> list[_Property]:
    essential = {index for n in shown for index, is_essential in file.associations.get(n, ()) if is_essential}
    used = {index for n in shown for index, _ in file.associations.get(n, ())}
    kept = []
    for index in sorted(used):
        box = file.properties[index]
        payload = _property(box, neutral_profile)
        if payload is not None:
            kept.append(_Property(index, _box(box.kind, payload)))
        elif index in essential and not _is_profile(box):
            raise UnusableImageError(f"its picture cannot be shown without {box.kind!r}, which is not known")
    return kept


def _is_profile(box: Box) -> bool:
    return box.kind == b"colr" and bytes(box.payload[:4]) in _COLOUR_PROFILES


def _property(box: Box, neutral_profile: _ProfileChange) -> bytes | None:
    """The payload of a property, as long as it ought to be; None for one that is not kept."""
    reader = box.reader()
    if box.kind in _FIXED_SIZES:
        return bytes(reader.take(_FIXED_SIZES[box.kind]))
    if box.kind == b"ispe":
        reader.take(4)
        return bytes(4) + bytes(reader.take(8))
    if box.kind == b"irot":
        return bytes([reader.number(1) & 3])
    if box.kind == b"imir":
        return bytes([reader.number(1) & 1])
    if box.kind == b"hvcC":
        return hevc_configuration(box.payload).payload
    if box.kind == b"av1C":
        return av1_configuration(box.payload)
    if box.kind == _LAYER_SIZES:
        flags = reader.number(1) & 1
        return bytes([flags]) + bytes(reader.take(12 if flags else 6))
    if box.kind == b"pixi":
        reader.take(4)
        n_channels = reader.number(1)
        return bytes(4) + bytes([n_channels]) + bytes(reader.take(n_channels))
    if box.kind == b"auxC":
        reader.take(4)
        return bytes(4) + reader.text() + b"\0"
    if box.kind == b"colr":
        kind = bytes(reader.take(4))
        if kind == b"nclx":
            return kind + bytes(reader.take(7))
        profile = neutral_profile(bytes(reader.take(reader.left))) if _is_profile(box) else None
        return kind + profile if profile else None
    return None


def _contents(file: HeifItems, shown: Sequence[int]) -> dict[int, bytes]:
    """What the items consist of. Items that share their bytes do so in the new file as well."""
    parts = {number: file.extents(number) for number in shown}
    places = {number: file.locations.get(number) for number in shown}
    n_bytes = {places[number]: sum(map(len, parts[number])) for number in shown}
    if sum(n_bytes.values()) > len(file.content):
        raise UnusableImageError("damaged image: its items overlap")
    known: dict[object, bytes] = {}
    contents = {}
    for number in shown:
        # The same bytes are read in another way where the number of layers or of tiles is another.
        key = (places[number], file.items[number].kind, file.associations.get(number))
        if key not in known:
            known[key] = _content(file, number, parts[number])
        contents[number] = known[key]
    return contents


def _content(file: HeifItems, number: int, extents: tuple[memoryview, ...]) -> bytes:
    kind = file.items[number].kind
    if kind == b"hvc1":
        configuration = hevc_configuration(_one_property(file, number, b"hvcC").payload)
        return hevc_picture(extents, configuration.length_bytes)
    if kind == b"av01":
        _one_property(file, number, b"av1C")
        picture = av1_picture(extents)
        has_layers = any(box.kind == _LAYER_SIZES for box in file.properties_of(number))
        if has_layers and len(picture) != sum(map(len, extents)):
            raise UnusableImageError("AV1 layers of a stated size, with messages in between")
        return picture
    n_parts = len(file.derived_from(number))
    reader = Reader(memoryview(b"".join(extents)), f"item {number}")
    if kind == b"grid":
        flags = _derivation_flags(reader)
        shape = bytes(reader.take(2))
        n_tiles = (shape[0] + 1) * (shape[1] + 1)
        if n_tiles != n_parts:
            raise UnusableImageError(f"damaged image: a grid of {n_tiles} tiles is made of {n_parts}")
        return bytes([0, flags]) + shape + bytes(reader.take(8 if flags else 4))
    if kind == b"iovl":
        flags = _derivation_flags(reader)
        fill = bytes(reader.take(8))
        return bytes([0, flags]) + fill + bytes(reader.take((8 if flags else 4) * (1 + n_parts)))
    return b""


def _derivation_flags(reader: Reader) -> int:
    """1 where sizes and places take 32 bits instead of 16 (HEIF, 6.6.2)."""
    if reader.number(1) != 0:
        raise UnusableImageError("its picture is put together in a later version's way")
    return reader.number(1) & 1


def _one_property(file: HeifItems, number: int, kind: bytes) -> Box:
    found = [box for box in file.properties_of(number) if box.kind == kind]
    if len(found) != 1:
        raise UnusableImageError(f"damaged image: picture {number} has {len(found)} {kind!r} properties")
    return found[0]


def _written(
    file: HeifItems, numbers: dict[int, int], pictures: Sequence[_Picture], properties: Sequence[_Property]
) -> bytes:
    idat = b"".join(dict.fromkeys(p.content for p in pictures if not _is_coded(p)))
    mdat = dict.fromkeys(p.content for p in pictures if _is_coded(p))
    file_type = _file_type(file, pictures[numbers[file.primary] - 1].kind)

    def meta(mdat_start: int) -> bytes:
        return _full_box(
            b"meta",
            _full_box(b"hdlr", bytes(4), b"pict", bytes(12), b"\0"),
            _full_box(b"pitm", numbers[file.primary].to_bytes(2, "big")),
            _locations(pictures, mdat_start),
            _information(pictures),
            _references(file, numbers),
            _box(b"iprp", _box(b"ipco", *(p.content for p in properties)), _associations(pictures)),
            _box(b"idat", idat) if idat else b"",
        )

    # The size of the box does not depend on the places that are written in it.
    mdat_start = len(file_type) + len(meta(0)) + 8
    if mdat_start + sum(map(len, mdat)) > _MAX_OFFSET:
        raise UnusableImageError("more than 4 GiB of pictures")
    return file_type + meta(mdat_start) + _box(b"mdat", *mdat)


def _is_coded(picture: _Picture) -> bool:
    return picture.kind in (b"hvc1", b"av01")


def _file_type(file: HeifItems, primary_kind: bytes) -> bytes:
    is_av1 = b"avif" in file.brands or b"avis" in file.brands or primary_kind == b"av01"
    major = file.major_brand
    if major not in _MAJOR_BRANDS:
        major = b"avif" if is_av1 else b"mif1"
    brands = file.brands | {major, b"mif1"}
    return _box(b"ftyp", major, bytes(4), *(brand for brand in _STILL_BRANDS if brand in brands))


def _locations(pictures: Sequence[_Picture], mdat_start: int) -> bytes:
    entries = [b"\x44\0", len(pictures).to_bytes(2, "big")]
    places: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
    ends = [mdat_start, 0]
    for number, picture in enumerate(pictures, 1):
        method = 0 if _is_coded(picture) else 1
        entries.append(number.to_bytes(2, "big") + method.to_bytes(2, "big") + bytes(2))
        if not picture.content:
            entries.append(bytes(2))
            continue
        if picture.content not in places[method]:
            places[method][picture.content] = ends[method]
            ends[method] += len(picture.content)
        start = min(places[method][picture.content], _MAX_OFFSET)
        entries.append(b"\0\1" + start.to_bytes(4, "big") + len(picture.content).to_bytes(4, "big"))
    return _full_box(b"iloc", *entries, version=1)


def _information(pictures: Sequence[_Picture]) -> bytes:
    entries = [
        _full_box(b"infe", number.to_bytes(2, "big"), bytes(2), p.kind, b"\0", version=2, flags=p.is_hidden)
        for number, p in enumerate(pictures, 1)
    ]
    return _full_box(b"iinf", len(entries).to_bytes(2, "big"), *entries)


def _references(file: HeifItems, numbers: dict[int, int]) -> bytes:
    entries = []
    for kind, source, targets in file.references:
        kept = [numbers[target] for target in targets if target in numbers]
        if kind not in _KEPT_REFERENCES or source not in numbers or not kept:
            continue
        if kind == b"dimg" and not file.derived_from(source):
            continue
        entries.append(_box(kind, *(n.to_bytes(2, "big") for n in (numbers[source], len(kept), *kept))))
    return _full_box(b"iref", *entries) if entries else b""


def _associations(pictures: Sequence[_Picture]) -> bytes:
    described = [(number, p.properties) for number, p in enumerate(pictures, 1) if p.properties]
    highest = max((index + 1 for _, used in described for index, _ in used), default=0)
    n_bytes = 1 if highest < 0x80 else 2
    essential = 0x80 << 8 * (n_bytes - 1)
    entries = [len(described).to_bytes(4, "big")]
    for number, used in described:
        entries.append(number.to_bytes(2, "big") + len(used).to_bytes(1, "big"))
        for index, is_essential in used:
            entries.append((index + 1 | (essential if is_essential else 0)).to_bytes(n_bytes, "big"))
    return _full_box(b"ipma", *entries, flags=n_bytes - 1)


def _box(kind: bytes, *payload: bytes) -> bytes:
    size = 8 + sum(map(len, payload))
    return b"".join((size.to_bytes(4, "big"), kind, *payload))


def _full_box(kind: bytes, *payload: bytes, version: int = 0, flags: int = 0) -> bytes:
    return _box(kind, bytes([version]) + flags.to_bytes(3, "big"), *payload)
