"""HEIF files of any make: boxes (ISO/IEC 14496-12), items and their properties (ISO/IEC 23008-12)."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fruits_assets_tests.photos.hevc_pictures import HevcPicture, hevc_picture

ALPHA = "urn:mpeg:hevc:2015:auxid:1"
GAIN_MAP = "urn:com:apple:photo:2020:aux:hdrgainmap"
DEPTH = "urn:mpeg:hevc:2015:auxid:2"


def box(kind: bytes, *payload: bytes) -> bytes:
    content = b"".join(payload)
    return struct.pack(">I", len(content) + 8) + kind + content


def full_box(kind: bytes, version: int, flags: int, *payload: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *payload)


@dataclass(frozen=True)
class Property:
    content: bytes
    """The whole box."""
    is_essential: bool = False


@dataclass
class Item:
    kind: bytes
    content: bytes
    properties: list[Property] = field(default_factory=list)
    references: list[tuple[bytes, Sequence[int]]] = field(default_factory=list)
    name: bytes = b""
    is_hidden: bool = False
    in_idat: bool = False
    n_extents: int = 1
    more_info: bytes = b""
    """What follows the name in `infe`: the content type of a `mime` item."""
    protection: int = 0
    data_reference: int = 0
    construction_method: int | None = None
    """As the file says, where that is to differ from where the content is."""


def ispe(width: int, height: int) -> Property:
    return Property(full_box(b"ispe", 0, 0, struct.pack(">II", width, height)))


def pixi(n_channels: int, bit_depth: int = 8) -> Property:
    return Property(full_box(b"pixi", 0, 0, bytes([n_channels, *[bit_depth] * n_channels])))


def colr_icc(profile: bytes, kind: bytes = b"prof") -> Property:
    return Property(box(b"colr", kind, profile))


def colr_nclx(primaries: int = 1, transfer: int = 13, matrix: int = 6, full_range: bool = True) -> Property:
    numbers = struct.pack(">HHHB", primaries, transfer, matrix, full_range << 7)
    return Property(box(b"colr", b"nclx", numbers))


def irot(quarter_turns: int) -> Property:
    """Anticlockwise."""
    return Property(box(b"irot", bytes([quarter_turns])), is_essential=True)


def imir(axis: int) -> Property:
    """0: top and bottom change places; 1: left and right."""
    return Property(box(b"imir", bytes([axis])), is_essential=True)


def clap(width: int, height: int, offset_x: tuple[int, int], offset_y: tuple[int, int]) -> Property:
    """Offsets of the aperture's centre from the picture's, as fractions."""
    numbers = struct.pack(">IIIIiIiI", width, 1, height, 1, *offset_x, *offset_y)
    return Property(box(b"clap", numbers), is_essential=True)


def auxc(kind: str, more: bytes = b"") -> Property:
    return Property(full_box(b"auxC", 0, 0, kind.encode() + b"\0" + more), is_essential=True)


def orientation_properties(orientation: int) -> list[Property]:
    """What turns and mirrors like an EXIF orientation: the turn comes first, then the mirror."""
    return {
        1: [],
        2: [imir(1)],
        3: [irot(2)],
        4: [imir(0)],
        5: [irot(3), imir(1)],
        6: [irot(3)],
        7: [irot(1), imir(1)],
        8: [irot(1)],
    }[orientation]


def coded_item(
    picture: HevcPicture, *properties: Property, more_sets: tuple[tuple[int, bytes], ...] = ()
) -> Item:
    return Item(
        b"hvc1",
        picture.slice_units,
        [
            Property(box(b"hvcC", picture.configuration(*more_sets)), is_essential=True),
            ispe(picture.width, picture.height),
            pixi(picture.n_channels, picture.bit_depth),
            *properties,
        ],
    )


def grid_item(
    shape: tuple[int, int], size: tuple[int, int], tiles: Sequence[int], *properties: Property
) -> Item:
    """Rows and columns of tiles (their numbers); width and height of what is shown of them."""
    content = struct.pack(">BBBBHH", 0, 0, shape[0] - 1, shape[1] - 1, *size)
    return Item(b"grid", content, [ispe(*size), *properties], [(b"dimg", tiles)], in_idat=True)


def exif_item(tiff: bytes, about: int = 1) -> Item:
    return Item(b"Exif", struct.pack(">I", 6) + b"Exif\0\0" + tiff, [], [(b"cdsc", [about])], is_hidden=True)


def xmp_item(text: bytes, about: int = 1) -> Item:
    kind = b"application/rdf+xml\0"
    return Item(b"mime", text, [], [(b"cdsc", [about])], is_hidden=True, more_info=kind)


def heif_file(
    items: Sequence[Item],
    *,
    primary: int = 1,
    brand: bytes = b"heic",
    compatible: Sequence[bytes] = (b"mif1", b"heic"),
    meta_boxes: Sequence[bytes] = (),
    behind_meta: Sequence[bytes] = (),
    trailing: bytes = b"",
    gap: bytes = b"",
    iloc_version: int = 1,
    handler_name: bytes = b"",
) -> bytes:
    """Write a file whose items are numbered from 1; what is the same in two of them is written once.

    Args:
        gap: bytes in `mdat`, in front of each item, that belong to none.
        behind_meta: boxes between `meta` and `mdat`.
    """
    if iloc_version == 0:
        assert not any(item.in_idat for item in items)
    idat, placed = b"", []
    mdat = bytearray()
    known: dict[bytes, int] = {}
    for item in items:
        if item.in_idat:
            placed.append(len(idat))
            idat += item.content
        else:
            if gap or item.content not in known:
                mdat += gap
                known[item.content] = len(mdat)
                mdat += item.content
            placed.append(known[item.content])
    ftyp = box(b"ftyp", brand, bytes(4), *compatible)
    rest = b"".join(behind_meta)

    def meta(mdat_start: int) -> bytes:
        return full_box(
            b"meta",
            0,
            0,
            full_box(b"hdlr", 0, 0, bytes(4), b"pict", bytes(12), handler_name + b"\0"),
            full_box(b"pitm", 0, 0, struct.pack(">H", primary)),
            _iloc(items, placed, mdat_start, iloc_version),
            full_box(b"iinf", 0, 0, struct.pack(">H", len(items)), *map(_infe, itertools.count(1), items)),
            _iref(items),
            _iprp(items),
            *([box(b"idat", idat)] if idat else []),
            *meta_boxes,
        )

    start = len(ftyp) + len(meta(0)) + len(rest) + 8
    return ftyp + meta(start) + rest + box(b"mdat", bytes(mdat)) + trailing


def _infe(number: int, item: Item) -> bytes:
    head = struct.pack(">HH", number, item.protection) + item.kind
    return full_box(b"infe", 2, int(item.is_hidden), head, item.name + b"\0", item.more_info)


def _iloc(items: Sequence[Item], placed: Sequence[int], mdat_start: int, version: int) -> bytes:
    entries = [struct.pack(">BB", 0x44, 0x00)]
    entries.append(struct.pack(">I" if version == 2 else ">H", len(items)))
    for number, (item, start) in enumerate(zip(items, placed, strict=True), 1):
        entries.append(struct.pack(">I" if version == 2 else ">H", number))
        if version > 0:
            method = item.construction_method
            entries.append(struct.pack(">H", int(item.in_idat) if method is None else method))
        entries.append(struct.pack(">HH", item.data_reference, item.n_extents))
        if not item.in_idat:
            start += mdat_start
        length = -(-len(item.content) // max(item.n_extents, 1))
        for i in range(item.n_extents):
            part = min(length, len(item.content) - i * length)
            entries.append(struct.pack(">II", start + i * length, part))
    return full_box(b"iloc", version, 0, *entries)


def _iref(items: Sequence[Item]) -> bytes:
    references = []
    for number, item in enumerate(items, 1):
        for kind, others in item.references:
            numbers = struct.pack(f">HH{len(others)}H", number, len(others), *others)
            references.append(box(kind, numbers))
    return full_box(b"iref", 0, 0, *references) if references else b""


def _iprp(items: Sequence[Item]) -> bytes:
    contents = list(dict.fromkeys(p.content for item in items for p in item.properties))
    described = [(number, item) for number, item in enumerate(items, 1) if item.properties]
    is_wide = len(contents) > 127
    code, essential = (">H", 0x8000) if is_wide else (">B", 0x80)
    entries = [struct.pack(">I", len(described))]
    for number, item in described:
        entries.append(struct.pack(">HB", number, len(item.properties)))
        indices = [contents.index(p.content) + 1 for p in item.properties]
        entries += [
            struct.pack(code, index | essential * p.is_essential)
            for index, p in zip(indices, item.properties, strict=True)
        ]
    return box(b"iprp", box(b"ipco", *contents), full_box(b"ipma", 0, int(is_wide), *entries))


def coded_photo(rgb: NDArray[np.uint8]) -> HevcPicture:
    """A colour picture, shape (height, width, 3) with even sides, coded as 4:2:0 YCbCr of full range."""
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    height, width, _ = ycc.shape
    blocks = ycc[..., 1:].reshape(height // 2, 2, width // 2, 2, 2).mean(axis=(1, 3))
    cb, cr = np.moveaxis(np.round(blocks).astype(np.uint8), 2, 0)
    return hevc_picture(ycc[..., 0], (cb, cr))


def photo_pixels(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours, shape (height, width, 3): hardly changed by 4:2:0 subsampling."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR))


def tiled_photo(pixels: NDArray[np.uint8], tile: int, *properties: Property) -> list[Item]:
    """A grid and its square tiles, as phones write a photo; numbered from 1 on."""
    height, width, _ = pixels.shape
    rows, columns = -(-height // tile), -(-width // tile)
    edges = ((0, rows * tile - height), (0, columns * tile - width), (0, 0))
    padded = np.pad(pixels, edges, "edge")
    tiles = []
    for top in range(0, rows * tile, tile):
        for left in range(0, columns * tile, tile):
            item = coded_item(coded_photo(padded[top : top + tile, left : left + tile]), colr_nclx())
            item.is_hidden = True
            tiles.append(item)
    numbers = range(2, len(tiles) + 2)
    return [grid_item((rows, columns), (width, height), numbers, *properties), *tiles]
