"""Windows bitmaps: header, masks, palette and pixels, with nothing between, behind or linked to.

Source: "Bitmap Storage" and "BITMAPV5HEADER" of the Windows documentation.
"""

from __future__ import annotations

import struct

from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.photos.personal_metadata import icc
from fruits_assets.photos.personal_metadata.parts import part

_FILE_HEADER, _CORE, _INFO, _V2, _V3, _OS2, _V4, _V5 = 14, 12, 40, 52, 56, 64, 108, 124
_RAW, _RLE8, _RLE4, _BITFIELDS = 0, 1, 2, 3
_DEPTHS = (1, 4, 8, 16, 24, 32)
# As stored: four letters backwards.
_SRGB, _WINDOWS, _EMBEDDED = b"BGRs", b" niW", b"DEBM"
_MASKS_END = {_V2: 52, _V3: 56, _OS2: 56, _V4: 56, _V5: 56}
_MAX_PIXELS_PER_METRE = 1_000_000
_MAX_INTENT = 8


def stripped(content: bytes) -> bytes:
    """The picture of a file, with its resolution and an embedded profile.

    Raises:
        UnusableImageError: an unknown header or compression, or pixels that are not all there.
    """
    (offset,) = struct.unpack_from("<I", content, 10)
    (header_size,) = struct.unpack_from("<I", content, _FILE_HEADER)
    if header_size == _CORE:
        width, height, planes, depth = struct.unpack_from("<HHHH", content, _FILE_HEADER + 4)
        compression, n_stated, entry_size = _RAW, 0, 3
    elif header_size == _INFO or header_size in _MASKS_END:
        width, height, planes, depth, compression = struct.unpack_from("<IiHHI", content, _FILE_HEADER + 4)
        (n_stated,) = struct.unpack_from("<I", content, _FILE_HEADER + 32)
        entry_size = 4
    else:
        raise UnusableImageError(f"its structure is damaged: BMP header of {header_size:,} bytes")
    height = abs(height)
    if not width or not height or planes != 1 or depth not in _DEPTHS:
        raise UnusableImageError("its structure is damaged: size or depth in its header")
    header = part(content, _FILE_HEADER, header_size)
    behind_header = _FILE_HEADER + header_size
    masks = part(content, behind_header, 12) if header_size == _INFO and compression == _BITFIELDS else b""
    n_colours = (n_stated or 1 << depth) if depth <= 8 else 0
    palette_start = behind_header + len(masks)
    palette = part(content, palette_start, n_colours * entry_size)
    # Some writers point to the palette instead of the pixels, which Pillow puts right.
    if offset == behind_header and palette:
        offset += len(palette)
    start = offset or palette_start + len(palette)
    if start < behind_header:
        raise UnusableImageError("its structure is damaged: pixels inside its header")
    length = _pixels_length(content, start, width, height, depth, compression)
    pixels = part(content, start, length)
    palette = palette[: entry_size << depth]
    if entry_size == 4:
        palette = _without_reserved(palette)
    if header_size == _CORE:
        header = header[:4] + struct.pack("<HHHH", width, height, 1, depth)
        profile = b""
    else:
        header = _info(header, compression, length, n_stated and len(palette) // 4)
        profile = _profile(content, header)
    new_offset = _FILE_HEADER + header_size + len(masks) + len(palette)
    if header_size == _V5:
        header = _with_profile(header, new_offset - _FILE_HEADER + length, profile)
    size = new_offset + length + len(profile)
    file_header = b"BM" + struct.pack("<IHHI", size, 0, 0, new_offset)
    return b"".join([file_header, header, masks, palette, pixels, profile])


def _info(header: bytes, compression: int, length: int, n_colours: int) -> bytes:
    """The header with what says how to read the pixels; its other fields are zero."""
    size_stated, x_density, y_density = struct.unpack_from("<III", header, 20)
    (n_important,) = struct.unpack_from("<I", header, 36)
    if size_stated != length and (size_stated or compression != _RAW):
        size_stated = length
    if max(x_density, y_density) > _MAX_PIXELS_PER_METRE:
        x_density = y_density = 0
    clean = header[:20] + struct.pack("<III", size_stated, x_density, y_density)
    clean += struct.pack("<II", n_colours, n_important if n_important <= n_colours else 0)
    masks_end = _MASKS_END.get(len(header), 0)
    if compression == _BITFIELDS:
        clean += header[_INFO:masks_end]
    clean = clean.ljust(masks_end, b"\0")
    if len(header) in (_V4, _V5):
        # Primaries and gamma, 48 bytes, are of no use beside these.
        kind = header[56:60] if header[56:60] in (_SRGB, _WINDOWS) else _SRGB
        if len(header) == _V5 and header[56:60] == _EMBEDDED:
            kind = _EMBEDDED
        clean += kind
    if len(header) == _V5:
        (intent,) = struct.unpack_from("<I", header, 108)
        place = header[112:120] if header[56:60] == _EMBEDDED else bytes(8)
        clean = clean.ljust(108, b"\0") + struct.pack("<I", intent if intent <= _MAX_INTENT else 0) + place
    return clean.ljust(len(header), b"\0")


def _profile(content: bytes, header: bytes) -> bytes:
    """The embedded profile without text. One that is linked to is a path on somebody's computer."""
    if len(header) != _V5 or header[56:60] != _EMBEDDED:
        return b""
    start, length = struct.unpack_from("<II", header, 112)
    return icc.neutral(content[_FILE_HEADER + start : _FILE_HEADER + start + length]) or b""


def _with_profile(header: bytes, start: int, profile: bytes) -> bytes:
    if profile:
        return header[:112] + struct.pack("<III", start, len(profile), 0)
    kind = _SRGB if header[56:60] == _EMBEDDED else header[56:60]
    return header[:56] + kind + header[60:112] + bytes(12)


def _without_reserved(palette: bytes) -> bytes:
    clean = bytearray(palette)
    clean[3::4] = bytes(len(palette) // 4)
    return bytes(clean)


def _pixels_length(content: bytes, start: int, width: int, height: int, depth: int, compression: int) -> int:
    if compression == _RAW or (compression == _BITFIELDS and depth > 8):
        return (width * depth + 31) // 32 * 4 * height
    if (compression, depth) in ((_RLE8, 8), (_RLE4, 4)):
        if start % 2:
            raise UnusableImageError("its structure is damaged: its pixels begin between two words")
        return _run_lengths_end(content, start, width, height, compression == _RLE4) - start
    raise UnusableImageError(f"its structure is damaged: compression {compression} with {depth} bits")


def _run_lengths_end(content: bytes, position: int, width: int, height: int, is_rle4: bool) -> int:
    """Where the runs of all pixels end, or their end mark stands; as Pillow reads them."""
    n_pixels, n_seen, x = width * height, 0, 0
    while n_seen < n_pixels:
        count, value = part(content, position, 2)
        position += 2
        if count:
            count = min(count, max(0, width - x))
            n_seen, x = n_seen + count, x + count
        elif value == 0:
            n_seen, x = -(-n_seen // width) * width, 0
        elif value == 1:
            return position
        elif value == 2:
            right, up = part(content, position, 2)
            position += 2
            n_seen = min(n_pixels, n_seen + right + up * width)
            x = n_seen % width
        else:
            value = min(n_pixels - n_seen, value)
            length = (value + 1) // 2 if is_rle4 else value
            part(content, position, length)
            n_seen, x = n_seen + value, x + value
            position = min(position + length + length % 2, len(content))
    for mark in (b"\0\0", b"\0\1"):  # end of the line, end of the picture
        if content[position : position + 2] == mark:
            position += 2
    return position
