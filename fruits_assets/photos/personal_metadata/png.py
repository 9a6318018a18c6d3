"""PNG (third edition): header, palette, transparency, pixels and frames, and how colours are meant."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.photos.personal_metadata import exif, icc
from fruits_assets.photos.personal_metadata.parts import inflated_sizes, part

_MAGIC = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR, _PALETTE, _GREY_ALPHA, _COLOUR_ALPHA = 0, 2, 3, 4, 6
_CHANNELS = {_GREY: 1, _COLOUR: 3, _PALETTE: 1, _GREY_ALPHA: 2, _COLOUR_ALPHA: 4}
_DEPTHS = {
    _GREY: (1, 2, 4, 8, 16),
    _COLOUR: (8, 16),
    _PALETTE: (1, 2, 4, 8),
    _GREY_ALPHA: (8, 16),
    _COLOUR_ALPHA: (8, 16),
}
# Section 8.1: start and step, in x and y, of the seven passes of an interlaced picture.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# Those by which the picture is read. Palettes that are suggestions, histograms and what a studio's screen
# could show are not among them, nor are text, times and anything private.
_READ_BY = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"acTL", b"fcTL", b"fdAT", b"iCCP"}
_AT_MOST_ONCE = {b"IHDR", b"PLTE", b"tRNS", b"acTL", b"iCCP"}
_ONLY_BEFORE_PIXELS = {b"PLTE", b"tRNS", b"acTL", b"iCCP"}
_BACKGROUND_SIZE = {_GREY: 2, _COLOUR: 6, _PALETTE: 1, _GREY_ALPHA: 2, _COLOUR_ALPHA: 6}
_SIGNIFICANT_BITS_SIZE = {_GREY: 1, _COLOUR: 3, _PALETTE: 3, _GREY_ALPHA: 2, _COLOUR_ALPHA: 4}
_MAY_TELL_ORIENTATION = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}
# Pillow's name for any profile.
_PROFILE_NAME = b"ICC Profile\0\0"
_MAX_PROFILE = 64 * 1024**2
# In 100,000ths: no chromaticity is above 1, a little more with imaginary primaries. Letters are far above.
_MAX_CHROMATICITY = 200_000
_MAX_PIXELS_PER_METRE = 1_000_000


@dataclass(frozen=True)
class Chunk:
    """A kind of four letters and its data; length and check sum follow from them."""

    kind: bytes
    data: bytes

    def __bytes__(self) -> bytes:
        checked = self.kind + self.data
        return struct.pack(">I", len(self.data)) + checked + struct.pack(">I", zlib.crc32(checked))


@dataclass(frozen=True)
class _Header:
    width: int
    height: int
    depth: int
    colours: int
    is_interlaced: bool


def stripped(content: bytes) -> bytes:
    """The picture or frames of a file, with profile, transparency, resolution and orientation.

    Raises:
        UnusableImageError: a wrong check sum, no end, a critical chunk that is unknown, in the wrong place
            or of the wrong length, or pixels that are fewer or more than the header says.
    """
    chunks = list(_chunks(content))
    header = _header(chunks)
    _refuse_disorder(chunks)
    first_pixels = next(i for i, chunk in enumerate(chunks) if chunk.kind == b"IDAT")
    block = b""
    telling = [i for i, chunk in enumerate(chunks) if chunk.kind in _MAY_TELL_ORIENTATION]
    if telling:
        block = exif.orientation_block(exif.stored_orientation(content, telling[-1] > first_pixels))
    palette = next((chunk.data for chunk in chunks if chunk.kind == b"PLTE"), b"")
    settings = {chunk.kind: chunk for chunk in reversed(chunks[:first_pixels])}  # the first of a kind counts
    result = [_MAGIC]
    for chunk in _with_clean_pixels(chunks, header):
        if chunk.kind == b"IDAT" and block:
            result.append(bytes(Chunk(b"eXIf", block)))
            block = b""
        if chunk.kind == b"iCCP":
            chunk = _neutral_profile(chunk)
        is_picture = chunk.kind in _READ_BY or settings.get(chunk.kind) is chunk
        if is_picture and (kept := _checked(chunk, header, palette)):
            result.append(bytes(kept))
    return b"".join([*result, bytes(Chunk(b"IEND", b""))])


def _chunks(content: bytes) -> Iterator[Chunk]:
    """All before the end."""
    position = len(_MAGIC)
    while True:
        if position >= len(content):
            raise UnusableImageError("its structure is damaged: its end chunk is missing")
        (length,) = struct.unpack_from(">I", content, position)
        kind = part(content, position + 4, 4)
        data = part(content, position + 8, length)
        (checksum,) = struct.unpack_from(">I", content, position + 8 + length)
        if kind == b"IEND":
            return
        if not kind.isalpha() or checksum != zlib.crc32(data, zlib.crc32(kind)):
            # It may have been part of the picture, or a text that is to go.
            raise UnusableImageError(f"its structure is damaged: check sum of the chunk at byte {position:,}")
        is_critical = kind[:1].isupper()
        if is_critical and kind not in _READ_BY:
            raise UnusableImageError(f"its structure is damaged: critical chunk {kind.decode()} is unknown")
        yield Chunk(kind, data)
        position += 12 + length


def _header(chunks: Sequence[Chunk]) -> _Header:
    if not chunks or chunks[0].kind != b"IHDR":
        raise UnusableImageError("its structure is damaged: it does not begin with its header")
    width, height, depth, colours, compression, filters, interlace = struct.unpack(">IIBBBBB", chunks[0].data)
    if not width or not height or depth not in _DEPTHS.get(colours, ()):
        raise UnusableImageError("its structure is damaged: size or depth in its header")
    if compression or filters or interlace > 1:
        raise UnusableImageError("its structure is damaged: unknown compression, filter or interlace method")
    return _Header(width, height, depth, colours, bool(interlace))


def _refuse_disorder(chunks: Sequence[Chunk]) -> None:
    kinds = [chunk.kind for chunk in chunks]
    for kind in _AT_MOST_ONCE:
        if kinds.count(kind) > 1:
            raise UnusableImageError(f"its structure is damaged: more than one chunk {kind.decode()}")
    if b"IDAT" not in kinds:
        raise UnusableImageError("its structure is damaged: it has no pixels")
    first = kinds.index(b"IDAT")
    behind = kinds[first + kinds.count(b"IDAT") :]
    if b"IDAT" in behind:
        raise UnusableImageError("its structure is damaged: other chunks lie between its pixels")
    for kind in _ONLY_BEFORE_PIXELS:
        if kind in behind:
            raise UnusableImageError(f"its structure is damaged: chunk {kind.decode()} behind the pixels")


def _checked(chunk: Chunk, header: _Header, palette: bytes) -> Chunk | None:
    """The chunk, if it has the length that its kind has; None for what says nothing about the picture."""
    data, size = chunk.data, len(chunk.data)
    match chunk.kind:
        case b"IHDR" | b"IDAT" | b"acTL" | b"fcTL" | b"fdAT":
            is_kept = True
        case b"PLTE":
            # For other pictures it is a suggestion.
            is_kept = header.colours == _PALETTE
            if is_kept and (size % 3 or not 0 < size <= 3 * 2**header.depth):
                raise UnusableImageError("its structure is damaged: length of its palette")
        case b"tRNS":
            # Readers differ in what they make of another length.
            is_kept = header.colours in (_GREY, _COLOUR, _PALETTE)
            expected = {_GREY: size == 2, _COLOUR: size == 6, _PALETTE: 0 < size <= len(palette) // 3}
            if is_kept and not expected[header.colours]:
                raise UnusableImageError("its structure is damaged: length of its transparency")
        case b"iCCP":
            is_kept = size > 0
        case b"bKGD":
            is_kept = size == _BACKGROUND_SIZE[header.colours]
        case b"sBIT":
            is_kept = size == _SIGNIFICANT_BITS_SIZE[header.colours]
        case b"gAMA":
            is_kept = size == 4
        case b"sRGB":
            is_kept = size == 1
        case b"cICP":
            is_kept = size == 4
        case b"cHRM":
            is_kept = size == 32 and max(struct.unpack(">8I", data)) <= _MAX_CHROMATICITY
        case b"pHYs":
            is_kept = (
                size == 9 and max(struct.unpack(">II", data[:8])) <= _MAX_PIXELS_PER_METRE and data[8] <= 1
            )
        case _:
            is_kept = False
    return chunk if is_kept else None


def _neutral_profile(chunk: Chunk) -> Chunk:
    """The profile without text; no data where it cannot be understood."""
    name, _, compressed = chunk.data.partition(b"\0")
    inflating = zlib.decompressobj()
    try:
        profile = inflating.decompress(compressed[1:], _MAX_PROFILE)
    except zlib.error:
        return Chunk(b"iCCP", b"")
    neutral = icc.neutral(profile) if compressed[:1] == b"\0" else None
    if neutral is None:
        return Chunk(b"iCCP", b"")
    # Pillow, too, takes what there is of a stream without an end.
    is_plain = name + b"\0\0" == _PROFILE_NAME and neutral == profile
    is_plain = is_plain and inflating.eof and not inflating.unused_data
    return chunk if is_plain else Chunk(b"iCCP", _PROFILE_NAME + zlib.compress(neutral))


# Pixels ------------------------------------------------------------------------------------------


def _with_clean_pixels(chunks: Sequence[Chunk], header: _Header) -> Iterator[Chunk]:
    """The chunks, those of each picture cut where its compressed stream ends.

    Frames are those of APNG (chapter 11.3.2 of the third edition): numbered in order, each inside the canvas.
    """
    n_frames = sum(chunk.kind == b"fcTL" for chunk in chunks)
    stated = [chunk for chunk in chunks if chunk.kind == b"acTL"]
    if n_frames or stated:
        if not stated or len(stated[0].data) != 8 or struct.unpack(">I", stated[0].data[:4])[0] != n_frames:
            raise UnusableImageError("its structure is damaged: number of its frames")
        _refuse_frames_out_of_order(chunks)
    frame: tuple[int, int] | None = None
    position, is_behind_pixels = 0, False
    while position < len(chunks):
        chunk = chunks[position]
        if chunk.kind == b"fcTL":
            frame = _frame_size(chunk, header)
            if not is_behind_pixels and frame != (header.width, header.height):
                raise UnusableImageError("its structure is damaged: its first frame is not the picture")
        if chunk.kind not in (b"IDAT", b"fdAT"):
            yield chunk
            position += 1
            continue
        end = position
        while end < len(chunks) and chunks[end].kind == chunk.kind:
            end += 1
        if chunk.kind == b"IDAT":
            is_behind_pixels, size, prefix = True, (header.width, header.height), 0
        elif frame is None or not is_behind_pixels:
            raise UnusableImageError("its structure is damaged: a frame's pixels without the frame")
        else:
            size, prefix = frame, 4
        frame = None
        yield from _cut(chunks[position:end], prefix, _raw_size(*size, header))
        position = end
    if frame is not None:
        raise UnusableImageError("its structure is damaged: a frame without pixels")


def _refuse_frames_out_of_order(chunks: Sequence[Chunk]) -> None:
    numbers = [chunk.data[:4] for chunk in chunks if chunk.kind in (b"fcTL", b"fdAT")]
    if numbers != [struct.pack(">I", i) for i in range(len(numbers))]:
        raise UnusableImageError("its structure is damaged: order of its frames")


def _frame_size(chunk: Chunk, header: _Header) -> tuple[int, int]:
    _, width, height, x, y, _, _, disposal, blending = struct.unpack(">IIIIIHHBB", chunk.data)
    is_inside = 0 < width <= header.width - x and 0 < height <= header.height - y
    if not is_inside or disposal > 2 or blending > 1:
        raise UnusableImageError("its structure is damaged: a frame that does not fit")
    return width, height


def _raw_size(width: int, height: int, header: _Header) -> int:
    """Bytes of the picture before compression: a filter byte and packed pixels for every row."""
    passes = _ADAM7 if header.is_interlaced else ((0, 0, 1, 1),)
    size = 0
    for x, y, step_x, step_y in passes:
        columns, rows = -(-(width - x) // step_x), -(-(height - y) // step_y)
        if columns > 0 and rows > 0:
            size += rows * (1 + (columns * header.depth * _CHANNELS[header.colours] + 7) // 8)
    return size


def _cut(chunks: Sequence[Chunk], prefix: int, raw_size: int) -> Iterator[Chunk]:
    """The chunks of one compressed stream without what lies behind it.

    Args:
        prefix: bytes of every chunk before the stream goes on.
        raw_size: how many bytes must come out; more would be hidden below the last row.
    """
    inflating, inflated = zlib.decompressobj(), 0
    for chunk in chunks:
        if inflating.eof:
            break
        data = part(chunk.data, prefix, len(chunk.data) - prefix)
        for n_bytes in inflated_sizes(inflating, data):
            inflated += n_bytes
            if inflated > raw_size:
                raise UnusableImageError("its structure is damaged: more pixels than its header says")
        end = len(chunk.data) - len(inflating.unused_data)
        yield chunk if end == len(chunk.data) else Chunk(chunk.kind, chunk.data[:end])
    if not inflating.eof or inflated != raw_size:
        raise UnusableImageError("its structure is damaged: fewer pixels than its header says")
