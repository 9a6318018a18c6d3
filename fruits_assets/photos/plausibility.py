"""What Pillow would accept although the picture is not what the file was meant to show, or takes minutes."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from fruits_assets.photos.formats import UnusableImageError

# Cameras write one to three scans, encoders that squeeze out the last byte some dozens.
_MAX_SCANS = 100
_NEXT_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_ZEROS = bytes(512)
_SOF, _DHT, _SOS, _EOI = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}, 0xC4, 0xDA, 0xD9

# What an image decoder makes of a byte: deflate at most 1032, and no photo comes near that.
_MAX_BYTES_PER_BYTE = 2000
_MAX_GREY_OF_12_BITS = 4095
# TIFF 6.0, the tags' numbers.
_NEW_SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _SUB_IFDS, _DNG_VERSION = (
    322,
    323,
    324,
    325,
    330,
    50706,
)
_REDUCED = 1
_WHITE_IS_ZERO = 0
_NONE, _OLD_JPEG, _JPEG = 1, 6, 7
_READABLE = {_NONE, 2, 3, 4, 5, _OLD_JPEG, _JPEG, 8, 32773, 32946, 34925, 50000}
_OTHER_COMPRESSIONS = {
    34712: "JPEG 2000",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34892: "lossy JPEG of raw photos",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}


def refuse_claims(content: bytes, image: Image.Image) -> None:
    """Raise for an opened, not yet decoded file whose picture would come out wrong or take too long.

    Raises:
        UnusableImageError: says what is wrong.
    """
    if image.mode == "F":
        raise UnusableImageError("floating-point pixels have no defined white")
    if image.format in {"JPEG", "MPO"}:
        _refuse_jpeg(content, image)
    elif isinstance(image, TiffImageFile):
        _refuse_tiff(content, image.tag_v2)


def refuse_wrong_values(image: Image.Image) -> None:
    """Raise for a decoded grey picture with values that would come out nearly black, or all white.

    Raises:
        UnusableImageError: says what is wrong.
    """
    if not image.mode.startswith("I"):
        return
    low, high = _extremes(image)
    if low < 0 or high > 65535:
        raise UnusableImageError("32-bit integer pixels have no defined white")
    if 0 < high <= _MAX_GREY_OF_12_BITS:
        raise UnusableImageError(
            f"16-bit grey whose brightest value is {high:,} of 65,535: values of 12 bits or fewer that "
            "were not scaled. Save it with the full range, or as 8-bit grey"
        )


def _extremes(image: Image.Image) -> tuple[int, int]:
    if image.mode == "I;16B":  # which Pillow has no extremes of
        grey = np.asarray(image)
        return int(grey.min()), int(grey.max())
    low, high = image.getextrema()
    return int(low), int(high)  # type: ignore[arg-type]  # a pair only for an image of several bands


def why_unidentified(content: bytes) -> str | None:
    """Why Pillow does not know a JPEG or TIFF, as far as their headers say."""
    if content.startswith(b"\xff\xd8"):
        for marker, start, _ in _jpeg_segments(content):
            if marker in _SOF and content[start : start + 1] not in (b"\x08", b""):
                return f"a JPEG of {content[start]} bits a sample: only 8 can be read"
    elif content[:4] in (b"II*\0", b"MM\0*"):
        try:
            tags = ImageFileDirectory_v2(content[:8])
            file = io.BytesIO(content)
            file.seek(tags.next)
            tags.load(file)
            _refuse_tiff(content, tags)
        except UnusableImageError as error:
            return str(error)
        except Exception:  # whatever damage in a header does
            return None
        bits, samples = tags.get(_BITS, (1,)), tags.get(_SAMPLES, 1)
        return (
            f"a TIFF of {samples} sample(s) of {max(bits)} bits and photometric interpretation "
            f"{tags.get(_PHOTOMETRIC)}, which cannot be read: save it as 8- or 16-bit grey or 8-bit RGB"
        )
    return None


def _refuse_jpeg(content: bytes, image: Image.Image) -> None:
    # The marker can be in an embedded thumbnail, too, but nowhere hundreds of times.
    if image.info.get("progressive") and (n_scans := content.count(b"\xff\xda")) > _MAX_SCANS:
        raise UnusableImageError(f"progressive JPEG of {n_scans:,} scans, more than {_MAX_SCANS}")
    if _ZEROS not in content:
        return
    # Huffman codes of zeros alone stand for "nothing more here" where an encoder made its own tables;
    # with everybody's they are a wild pattern, which no camera writes.
    ends_with_zeros = True
    for marker, start, end in _jpeg_segments(content):
        if marker == _DHT:
            ends_with_zeros &= _zeros_mean_the_end(content[start:end])
        elif marker == _SOS and not ends_with_zeros and content.find(_ZEROS, start, end) >= 0:
            raise UnusableImageError(
                "damaged image: zeros where a part of the picture was, as an interrupted copy leaves them"
            )


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of what is in each segment, a scan's coded pixels included, until the end."""
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker == _EOI:
            return
        start = position + 4
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4])
        if marker == _SOS:
            found = _NEXT_JPEG_MARKER.search(content, end)
            end = found.start() if found else len(content)
        yield marker, start, end
        position = end


def _zeros_mean_the_end(tables: bytes) -> bool:
    """Whether the first code of every AC table, which is all zeros, ends a block.

    ISO/IEC 10918-1, B.2.4.2 and F.1.2.2.
    """
    position = 0
    while position + 17 < len(tables):
        is_ac, n_codes = tables[position] >> 4, sum(tables[position + 1 : position + 17])
        first = tables[position + 17]
        if is_ac and (first & 0x0F or first == 0xF0):
            return False
        position += 17 + n_codes
    return True


def _refuse_tiff(content: bytes, tags: Mapping[int, Any]) -> None:
    if _DNG_VERSION in tags:
        raise UnusableImageError("a raw photo (DNG): export it as JPEG or TIFF")
    if _number(tags, _NEW_SUBFILE, 0) & _REDUCED and _SUB_IFDS in tags:
        raise UnusableImageError(
            "a raw photo, of which only a small preview could be read: export it as JPEG"
        )
    compression = _number(tags, _COMPRESSION, _NONE)
    if compression not in _READABLE:
        name = _OTHER_COMPRESSIONS.get(compression, f"method {compression}")
        raise UnusableImageError(f"a TIFF compressed by {name}, which cannot be read: save it with deflate")
    bits, n_samples = max(tags.get(_BITS, (1,))), _number(tags, _SAMPLES, 1)
    is_planar = _number(tags, _PLANAR, 1) == 2 and n_samples > 1
    if bits not in {1, 2, 4, 8, 16, 32}:
        raise UnusableImageError(f"a TIFF of {bits} bits a sample: save it with 8 or 16")
    if bits > 8 and is_planar:
        raise UnusableImageError(f"a TIFF of {bits} bits a sample in separate planes: save it interleaved")
    if bits > 8 and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise UnusableImageError(f"a TIFF of {bits} bits whose white is 0: save it with black as 0")
    _refuse_missing_parts(content, tags, bits, n_samples, n_samples if is_planar else 1)


def _number(tags: Mapping[int, Any], tag: int, default: int) -> int:
    """A tag's value; one of a wrong type says nothing, as libtiff sees it."""
    value = tags.get(tag, default)
    return value if isinstance(value, int) else default


def _refuse_missing_parts(
    content: bytes, tags: Mapping[int, Any], bits: int, n_samples: int, n_planes: int
) -> None:
    """Compare the strips or tiles that there are with the size that the header claims."""
    width, height = tags[_WIDTH], tags[_LENGTH]
    compression = _number(tags, _COMPRESSION, _NONE)
    if is_tiled := _TILE_OFFSETS in tags:
        part_width, part_height = tags[_TILE_WIDTH], tags[_TILE_LENGTH]
        offsets, counts = tags[_TILE_OFFSETS], tags[_TILE_COUNTS]
    else:
        part_width, part_height = width, min(_number(tags, _ROWS_PER_STRIP, height), height)
        offsets, counts = tags[_STRIP_OFFSETS], tags.get(_STRIP_COUNTS, ())
    across, down = math.ceil(width / part_width), math.ceil(height / part_height)
    what = "tiles" if is_tiled else "strips"
    if len(offsets) < across * down * n_planes:
        raise UnusableImageError(
            f"damaged image: {len(offsets):,} {what} of pixels, {across * down * n_planes:,} needed for "
            f"{width:,} x {height:,}"
        )
    if any(offset + count > len(content) for offset, count in zip(offsets, counts, strict=False)):
        raise UnusableImageError(f"damaged image: {what} of pixels beyond the end of the file")
    row_bytes = math.ceil(part_width * bits * n_samples / n_planes / 8)
    claimed = row_bytes * part_height * across * down * n_planes
    if claimed > _MAX_BYTES_PER_BYTE * len(content):
        raise UnusableImageError(
            f"claims {width:,} x {height:,} pixels, more than its {len(content):,} bytes can hold"
        )
    for number, (offset, count) in enumerate(zip(offsets, counts, strict=False)):
        first_row = number // across % down * part_height
        rows = part_height if is_tiled else min(part_height, height - first_row)
        if compression == _NONE and count < row_bytes * rows:
            raise UnusableImageError(
                f"damaged image: {count:,} bytes of pixels where {row_bytes * rows:,} belong"
            )
        if compression == _JPEG and _jpeg_rows(content[offset : offset + count]) < rows:
            raise UnusableImageError(f"damaged image: fewer rows of pixels than the {height:,} it claims")


def _jpeg_rows(content: bytes) -> int:
    for marker, start, _ in _jpeg_segments(content):
        if marker in _SOF:
            return int.from_bytes(content[start + 1 : start + 3])
    return 0
