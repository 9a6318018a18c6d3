"""Take personal metadata out of image files without touching a pixel.

EXIF (with its GPS position), XMP, IPTC, comments and whatever follows the picture in the file go. What
a picture needs to look right stays: colour profile, transparency and, as the only tag of an otherwise
empty EXIF block, its orientation.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from fruits_assets.photos.decoding import orientation
from fruits_assets.photos.formats import FORMATS

_JPEG, _PNG, _RIFF, _WEBP = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP"
# ISO/IEC 10918-1, table B.1: inside a scan, FF is followed by 00, a restart marker or fill bytes.
_NEXT_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# PNG (third edition), sections 11.2 and 11.3: what is about the picture. Others are text, times or private.
_PNG_PICTURE = {
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"tRNS", b"bKGD", b"hIST", b"sPLT"),
    *(b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs"),
}
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
_LOOKS = ("icc_profile", "transparency")
_WEBP_PICTURE = {b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"ANIM", b"ANMF"}
_WEBP_XMP_FLAG, _WEBP_EXIF_FLAG = 0x04, 0x08
# TIFF 6.0, sections 3 to 22, and ICC.1 annex B: layout, compression and colours of a picture. Others are
# about its maker, or lead to blocks that are (EXIF, GPS, XMP, IPTC, further pictures).
_TIFF_PICTURE = {
    *(254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283),
    *(284, 290, 291, 292, 293, 296, 301, 317, 318, 319, 320, 322, 323, 324, 325, 332, 334, 336, 338, 339),
    *(340, 341, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 34675),
}
# GIF89a, sections 24 and 26; Pillow does not tell of those that follow the first frame.
_GIF_COMMENT, _GIF_XMP = b"!\xfe", b"!\xff\x0bXMP DataXMP"


def strip_personal_metadata(content: bytes) -> bytes:
    """The same picture without personal metadata; the same bytes where there was none.

    JPEG, PNG and WebP lose the blocks and keep their compressed pixels. TIFF and GIF, where metadata is
    interwoven with the picture, are written anew without loss.

    Args:
        content: an image file that `decode_rgb` accepts.
    """
    try:
        if content.startswith(_JPEG):
            return b"".join(_jpeg_without(content))
        if content.startswith(_PNG):
            return b"".join(_png_without(content))
        if content.startswith(_RIFF) and content[8:12] == _WEBP:
            return _webp_without(content)
    except (struct.error, IndexError):
        # Pillow reads files whose block structure is broken; what it reads can be written well-formed.
        return _rewritten(content)
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if image.format == "GIF":
            is_personal = _GIF_COMMENT in content or _GIF_XMP in content
        elif isinstance(image, TiffImageFile):
            has_more_pages = bool(getattr(image.tag_v2, "next", 0))
            is_personal = has_more_pages or not _TIFF_PICTURE.issuperset(image.tag_v2)
        else:
            is_personal = False
    return _rewritten(content) if is_personal else content


def _orientation_exif(content: bytes) -> bytes:
    """A TIFF header and one tag, byte by byte as Pillow writes them, or nothing for an upright image."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        value = orientation(image)
    if value == 1:
        return b""
    return b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", 0x0112, 3, 1, value, 0, 0)


def _jpeg_without(content: bytes) -> Iterator[bytes]:
    yield _JPEG
    exif = _orientation_exif(content)
    if exif:
        exif = b"Exif\0\0" + exif
        yield b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    position = 2
    while True:
        while content[position : position + 2] == b"\xff\xff":
            position += 1
        marker = content[position + 1]
        if content[position] != 0xFF:
            raise IndexError(f"no JPEG marker at byte {position}")
        if marker == 0xD9:
            yield content[position : position + 2]
            return
        (length,) = struct.unpack_from(">H", content, position + 2)
        end = position + 2 + length
        if marker == 0xDA:
            found = _NEXT_JPEG_MARKER.search(content, end)
            if found is None:
                raise IndexError("JPEG without end marker: nothing says where the picture stops")
            end = found.start()
        if _jpeg_segment_is_the_picture(marker, content[position + 4 : position + 16]):
            yield content[position:end]
        position = end


def _jpeg_segment_is_the_picture(marker: int, start: bytes) -> bool:
    if marker == 0xE0:
        return start.startswith(b"JFIF\0")
    if marker == 0xE2:
        return start.startswith(b"ICC_PROFILE\0")
    if marker == 0xEE:
        return start.startswith(b"Adobe")  # says how the colours are coded
    return not (0xE0 <= marker <= 0xEF or marker == 0xFE)


def _png_without(content: bytes) -> Iterator[bytes]:
    yield _PNG
    exif = _orientation_exif(content)
    position = len(_PNG)
    while True:
        (length,) = struct.unpack_from(">I", content, position)
        kind = content[position + 4 : position + 8]
        end = position + 12 + length
        if kind == b"IDAT" and exif:
            chunk = b"eXIf" + exif
            yield struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
            exif = b""
        if kind in _PNG_PICTURE:
            yield content[position:end]
        elif content[end - 4 : end] != struct.pack(">I", zlib.crc32(content[position + 4 : end - 4])):
            raise IndexError(f"damaged PNG chunk at byte {position}: it may have been part of the picture")
        if kind == b"IEND":
            return
        position = end


def _webp_without(content: bytes) -> bytes:
    exif = _orientation_exif(content)
    (size,) = struct.unpack_from("<I", content, 4)
    chunks = bytearray()
    position = 12
    while position < min(len(content), size + 8):
        kind = content[position : position + 4]
        (length,) = struct.unpack_from("<I", content, position + 4)
        end = position + 8 + length + length % 2
        if end > len(content):
            raise IndexError(f"WebP chunk at byte {position} reaches beyond the end of the file")
        if kind == b"VP8X":
            flags = content[position + 8] & ~(_WEBP_XMP_FLAG | _WEBP_EXIF_FLAG)
            flags |= _WEBP_EXIF_FLAG if exif else 0
            chunks += content[position : position + 8] + bytes([flags])
            chunks += content[position + 9 : end]
        elif kind in _WEBP_PICTURE:
            chunks += content[position:end]
        position = end
    if exif:
        chunks += b"EXIF" + struct.pack("<I", len(exif)) + exif
    return _RIFF + struct.pack("<I", len(chunks) + 4) + _WEBP + bytes(chunks)


def _rewritten(content: bytes) -> bytes:
    """The first frame, pixel by pixel the same: as PNG, or as TIFF where it was one or PNG lacks the mode."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        image.load()
        exif = Image.Exif()
        if (value := orientation(image)) != 1:
            exif[0x0112] = value
        picture = image.copy()
        picture.info = {name: image.info[name] for name in _LOOKS if name in image.info}
    buffer = io.BytesIO()
    if image.format == "TIFF" or picture.mode not in _PNG_MODES:
        picture.save(buffer, "TIFF", compression="tiff_adobe_deflate", exif=exif)
    else:
        picture.save(buffer, "PNG", exif=exif)
    return buffer.getvalue()
