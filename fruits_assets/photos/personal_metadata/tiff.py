"""TIFF 6.0 and BigTIFF: one directory of the first page's tags about the picture, and its strips or tiles."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.photos.personal_metadata import exif, icc, jpeg
from fruits_assets.photos.personal_metadata.parts import inflated_sizes, part

_BYTE, _SHORT, _LONG, _RATIONAL, _UNDEFINED, _LONG8 = 1, 3, 4, 5, 7, 16
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_INTEGERS = {_BYTE: "B", _SHORT: "H", _LONG: "I", _LONG8: "Q"}
_WIDTH, _HEIGHT, _DEPTH, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 259, 262, 274
_STRIPS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES, _PLANES = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 322, 323, 324, 325
_COLOUR_MAP, _JPEG_TABLES, _XMP, _PROFILE = 320, 347, 700, 34675
_PLACES = {_STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES}
# TIFF 6.0, sections 3 to 22. One integer each, or one for each sample; the picture cannot be read without.
_NUMBERS = {
    _WIDTH,
    _HEIGHT,
    _COMPRESSION,
    _PHOTOMETRIC,
    266,
    _SAMPLES,
    _ROWS_PER_STRIP,
    _PLANES,
    292,
    293,
    317,
}
_NUMBERS |= {_TILE_WIDTH, _TILE_HEIGHT}
_NUMBERS_OF_SAMPLES = {_DEPTH, 338, 339}
# Kind of page, screening, unit of the resolution, inks: nothing is lost where one of these is malformed.
_REMARKS, _RESOLUTIONS = {254, 255, 263, 264, 265, 296, 332, 334}, {282, 283}
# How YCbCr becomes RGB: coefficients, subsampling, positions, reference black and white.
_YCBCR_COUNTS = {529: (_RATIONAL, 3), 530: (_SHORT, 2), 531: (_SHORT, 1), 532: (_RATIONAL, 6)}
_YCBCR = 6
_RAW, _OLD_JPEG, _JPEG = 1, 6, 7
_DEFLATE = {8, 32946}
# Those that Pillow reads, with Huffman, LZW, PackBits, LZMA and Zstandard.
_COMPRESSIONS = {_RAW, 2, 3, 4, 5, _JPEG, *_DEFLATE, 32773, 32809, 34676, 34677, 34925, 50000}
_MAX_SAMPLES, _MAX_TAGS, _MAX_DENOMINATOR = 8, 4096, 10_000_000


@dataclass(frozen=True)
class _Field:
    kind: int
    count: int
    data: bytes


@dataclass
class _Page:
    """The first page as it lies in a file.

    `covered` has start and end of all that has been read, and `is_plain` is false as soon as anything was met
    that does not go into the stripped file as it is.
    """

    content: bytes
    order: str
    fields: dict[int, _Field]
    covered: list[tuple[int, int]]
    is_plain: bool

    def integers(self, tag: int) -> tuple[int, ...]:
        field = self.fields[tag]
        if field.kind not in _INTEGERS:
            raise UnusableImageError(f"its structure is damaged: type of TIFF tag {tag}")
        return struct.unpack(f"{self.order}{field.count}{_INTEGERS[field.kind]}", field.data)

    def integer(self, tag: int, default: int | None = None) -> int:
        if tag not in self.fields and default is not None:
            return default
        values = self.integers(tag)
        if len(values) != 1:
            raise UnusableImageError(f"its structure is damaged: count of TIFF tag {tag}")
        return values[0]


def stripped(content: bytes) -> bytes:
    """The first page of a file, with its profile, resolution and orientation.

    Raises:
        UnusableImageError: a tag of the picture that is not as it should be, strips that are not in the file,
            not as many as the picture needs, or on top of each other, or JPEG data of the old style.
    """
    page = _read(content)
    samples = page.integer(_SAMPLES, 1)
    compression = page.integer(_COMPRESSION, 1)
    if compression == _OLD_JPEG:
        raise UnusableImageError("TIFF with JPEG data of the old style, which cannot be taken apart")
    if compression not in _COMPRESSIONS:
        raise UnusableImageError(f"TIFF compression {compression} is unknown")
    if not 1 <= samples <= _MAX_SAMPLES:
        raise UnusableImageError(f"its structure is damaged: {samples} samples per pixel")
    strips = _strips(page, compression, samples)
    fields = {
        tag: kept
        for tag, field in page.fields.items()
        if tag not in _PLACES and (kept := _kept(page, tag, field, compression, samples))
    }
    _keep_orientation(page, fields)
    if fields != {tag: field for tag, field in page.fields.items() if tag not in _PLACES}:
        page.is_plain = False
    if page.is_plain and _is_nothing_else(content, page.covered):
        return content
    return _packed(page, fields, strips)


# Reading -----------------------------------------------------------------------------------------


def _read(content: bytes) -> _Page:
    order = "<" if content.startswith(b"II") else ">"
    (version,) = struct.unpack_from(f"{order}H", content, 2)
    if version == 42:
        (start,) = struct.unpack_from(f"{order}I", content, 4)
        return _directory(content, order, start, 8, "H", "I")
    if version == 43 and content[4:8] == struct.pack(f"{order}HH", 8, 0):
        (start,) = struct.unpack_from(f"{order}Q", content, 8)
        return _directory(content, order, start, 16, "Q", "Q")
    raise UnusableImageError(f"its structure is damaged: TIFF version {version}")


def _directory(content: bytes, order: str, start: int, header: int, number: str, pointer: str) -> _Page:
    """Args: formats of the number of tags, and of what points to somewhere."""
    word = struct.calcsize(f"={pointer}")
    (n_tags,) = struct.unpack(f"{order}{number}", part(content, start, struct.calcsize(f"={number}")))
    if n_tags > _MAX_TAGS:
        raise UnusableImageError(f"its structure is damaged: {n_tags} tags")
    first = start + struct.calcsize(f"={number}")
    end = first + n_tags * (4 + 2 * word)
    (next_page,) = struct.unpack(f"{order}{pointer}", part(content, end, word))
    page = _Page(content, order, {}, [(0, header), (start, end + word)], is_plain=not next_page)
    n_bytes = 0
    for entry in range(first, end, 4 + 2 * word):
        tag, kind, count = struct.unpack_from(f"{order}HH{pointer}", content, entry)
        if kind not in _SIZES:
            page.is_plain = False  # Pillow and libtiff, too, pass over these
            continue
        size = count * _SIZES[kind]
        value = content[entry + 4 + word : entry + 4 + 2 * word]
        if size <= word:
            page.is_plain &= not any(value[size:])
            value = value[:size]
        else:
            (place,) = struct.unpack(f"{order}{pointer}", value)
            # Also of tags that are to go: where Pillow cannot read one, it reads none of those behind it.
            value = part(content, place, size)
            n_bytes += size
        if tag not in _KNOWN:
            page.is_plain = False
            continue
        if size > word:
            page.covered.append((place, place + size))
        if tag in page.fields:
            raise UnusableImageError(f"its structure is damaged: TIFF tag {tag} comes twice")
        page.fields[tag] = _Field(kind, count, value)
    if n_bytes > len(content):
        # Pillow leaves tags out from there on, so as not to read the same bytes again and again.
        raise UnusableImageError("its structure is damaged: tags of more bytes than the file")
    return page


def _kept(page: _Page, tag: int, field: _Field, compression: int, samples: int) -> _Field | None:
    """The field if it is as its tag demands; None for what the picture does without."""
    is_integer, is_rational = field.kind in _INTEGERS, field.kind == _RATIONAL
    if tag in _NUMBERS:
        page.integer(tag)
        return field
    if tag in _NUMBERS_OF_SAMPLES:
        if not is_integer or not 1 <= field.count <= samples:
            raise UnusableImageError(f"its structure is damaged: type or count of TIFF tag {tag}")
        return field
    if tag in _REMARKS:
        return field if is_integer and field.count == 1 else None
    if tag in _RESOLUTIONS:
        return _plain_fraction(page.order, field) if is_rational and field.count == 1 else None
    if tag == _COLOUR_MAP:
        if page.integer(_PHOTOMETRIC, 0) != 3:
            return None
        if field.kind != _SHORT or field.count != 3 << page.integers(_DEPTH)[0]:
            raise UnusableImageError("its structure is damaged: TIFF palette")
        return field
    if tag in _YCBCR_COUNTS:
        if page.integer(_PHOTOMETRIC, 0) != _YCBCR:
            return None
        if (field.kind, field.count) != _YCBCR_COUNTS[tag]:
            raise UnusableImageError(f"its structure is damaged: type or count of TIFF tag {tag}")
        return field
    if tag == _JPEG_TABLES:
        if compression != _JPEG:
            return None
        tables = jpeg.abbreviated(field.data)
        return _Field(_UNDEFINED, len(tables), tables)
    if tag == _PROFILE:
        profile = icc.neutral(field.data) if field.kind in (_BYTE, _UNDEFINED) else None
        return _Field(field.kind, len(profile), profile) if profile else None
    return None


def _plain_fraction(order: str, field: _Field) -> _Field | None:
    """A resolution whose denominator is not eight letters' second half."""
    numerator, denominator = struct.unpack(f"{order}II", field.data)
    if not denominator:
        return None
    if denominator <= _MAX_DENOMINATOR:
        return field
    plain = Fraction(numerator, denominator).limit_denominator(1000)
    return _Field(_RATIONAL, 1, struct.pack(f"{order}II", plain.numerator, plain.denominator))


def _keep_orientation(page: _Page, fields: dict[int, _Field]) -> None:
    """As it is where it is plain; otherwise what Pillow makes of the tag, or of XMP where there is none."""
    stored = page.fields.get(_ORIENTATION)
    if stored and stored.kind == _SHORT and stored.count == 1 and 1 <= page.integer(_ORIENTATION) <= 8:
        fields[_ORIENTATION] = stored
    elif stored or _XMP in page.fields:
        value = exif.stored_orientation(page.content)
        if value != 1:
            fields[_ORIENTATION] = _Field(_SHORT, 1, struct.pack(f"{page.order}H", value))


_KNOWN = {*_PLACES, *_NUMBERS, *_NUMBERS_OF_SAMPLES, *_REMARKS, *_RESOLUTIONS, *_YCBCR_COUNTS}
_KNOWN |= {_COLOUR_MAP, _JPEG_TABLES, _PROFILE, _ORIENTATION, _XMP}


# Strips and tiles --------------------------------------------------------------------------------


def _strips(page: _Page, compression: int, samples: int) -> list[bytes]:
    """The compressed pixels, strip by strip or tile by tile."""
    is_tiled = _TILES in page.fields
    if is_tiled == (_STRIPS in page.fields):
        raise UnusableImageError("its structure is damaged: neither strips nor tiles, or both")
    starts = page.integers(_TILES if is_tiled else _STRIPS)
    sizes_tag = _TILE_SIZES if is_tiled else _STRIP_SIZES
    raw_sizes = _raw_sizes(page, samples, is_tiled)
    if len(starts) != len(raw_sizes):
        raise UnusableImageError(
            f"its structure is damaged: {len(starts)} strips instead of {len(raw_sizes)}"
        )
    if sizes_tag in page.fields:
        sizes = page.integers(sizes_tag)
    elif compression == _RAW:
        sizes, page.is_plain = tuple(raw_sizes), False
    else:
        raise UnusableImageError("its structure is damaged: the sizes of its strips are missing")
    if len(sizes) != len(starts) or not all(sizes):
        raise UnusableImageError("its structure is damaged: sizes of its strips")
    strips = []
    most = max(raw_sizes)
    for start, size, raw_size in zip(starts, sizes, raw_sizes, strict=True):
        strip = part(page.content, start, size)
        clean = _clean_strip(strip, compression, raw_size, most)
        page.is_plain &= clean == strip
        strips.append(clean)
    places = list(zip(starts, sizes, strict=True))
    _refuse_overlap(page.covered, places)
    page.covered += [(start, start + size) for start, size in places]
    return strips


def _raw_sizes(page: _Page, samples: int, is_tiled: bool) -> list[int]:
    """Bytes of each strip or tile before compression, in their order; sizes in pixels are never zero."""
    width, height = page.integer(_WIDTH), page.integer(_HEIGHT)
    depths = page.integers(_DEPTH) if _DEPTH in page.fields else (1,)
    depths = depths * samples if len(depths) == 1 else depths[:samples]
    across, down = width, page.integer(_ROWS_PER_STRIP, height)
    if is_tiled:
        across, down = page.integer(_TILE_WIDTH), page.integer(_TILE_HEIGHT)
    if not min(width, height, across, down, *depths) or len(depths) != samples:
        raise UnusableImageError("its structure is damaged: size or depth of the picture")
    n_columns, n_rows = -(-width // across), -(-height // down)
    planes = [sum(depths)] if page.integer(_PLANES, 1) == 1 else list(depths)
    if n_columns * n_rows * len(planes) > len(page.content):
        raise UnusableImageError("its structure is damaged: more strips than bytes")
    sizes = []
    for bits in planes:
        for row in range(n_rows):
            n_lines = down if is_tiled else min(down, height - row * down)
            sizes += [n_lines * ((across * bits + 7) // 8)] * n_columns
    return sizes


def _clean_strip(strip: bytes, compression: int, raw_size: int, most: int) -> bytes:
    """Args: bytes of this strip before compression, and of a whole one: some writers fill the last up."""
    if compression == _RAW:
        return part(strip, 0, raw_size)
    if compression == _JPEG:
        return jpeg.abbreviated(strip)
    if compression in _DEFLATE:
        return _without_tail(strip, most)
    return strip


def _without_tail(strip: bytes, most: int) -> bytes:
    """A zlib stream without what lies behind its end."""
    inflating, n_bytes = zlib.decompressobj(), 0
    for n_more in inflated_sizes(inflating, strip):
        n_bytes += n_more
        if n_bytes > most:
            raise UnusableImageError("its structure is damaged: a strip of more pixels than it should have")
    return strip[: len(strip) - len(inflating.unused_data)]


def _refuse_overlap(covered: Iterable[tuple[int, int]], places: Iterable[tuple[int, int]]) -> None:
    """Strips that share bytes, with each other or with the directory, would multiply when they are copied."""
    intervals = sorted(
        [(start, end, False) for start, end in covered] + [(s, s + n, True) for s, n in places]
    )
    reached, reached_by_strips = 0, 0
    for start, end, is_strip in intervals:
        if start < (reached if is_strip else reached_by_strips):
            raise UnusableImageError("its structure is damaged: strips on top of something else")
        reached = max(reached, end)
        reached_by_strips = max(reached_by_strips, end) if is_strip else reached_by_strips


def _is_nothing_else(content: bytes, covered: Sequence[tuple[int, int]]) -> bool:
    """Whether all in no interval is zero, as what aligns blocks is, and no byte is in two."""
    reached = 0
    for start, end in [*sorted(covered), (len(content), len(content))]:
        if start < reached or any(content[reached:start]):
            return False
        reached = end
    return True


# Writing -----------------------------------------------------------------------------------------


def _packed(page: _Page, fields: dict[int, _Field], strips: Sequence[bytes]) -> bytes:
    """Header, directory, values and strips; in the byte order of the pixels, of which some are 16-bit."""
    order, is_tiled = page.order, _TILES in page.fields
    places_tag, sizes_tag = (_TILES, _TILE_SIZES) if is_tiled else (_STRIPS, _STRIP_SIZES)
    sizes = _longs(order, list(map(len, strips)))
    long8 = {tag for tag, field in fields.items() if field.kind == _LONG8}
    classic = {tag: _longs(order, page.integers(tag)) for tag in long8}
    all_fields = {**fields, **classic, places_tag: sizes, sizes_tag: sizes}
    end = 8 + 2 + 12 * len(all_fields) + 4
    end += sum(len(_even(field.data)) for field in all_fields.values() if len(field.data) > 4)
    starts, position = [], end
    for strip in strips:
        starts.append(position)
        position += len(_even(strip))
    all_fields[places_tag] = _longs(order, starts)
    directory, values = b"", b""
    values_start = 8 + 2 + 12 * len(all_fields) + 4
    for tag, field in sorted(all_fields.items()):
        value = field.data.ljust(4, b"\0")
        if len(field.data) > 4:
            value = struct.pack(f"{order}I", values_start + len(values))
            values += _even(field.data)
        directory += struct.pack(f"{order}HHI", tag, field.kind, field.count) + value
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(all_fields))
    return b"".join([head, directory, bytes(4), values, *map(_even, strips)])


def _longs(order: str, values: Sequence[int]) -> _Field:
    return _Field(_LONG, len(values), struct.pack(f"{order}{len(values)}I", *values))


def _even(data: bytes) -> bytes:
    return data + bytes(len(data) % 2)
