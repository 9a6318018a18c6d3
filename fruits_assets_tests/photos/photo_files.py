"""Small photos of every format, and what they are put together from."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from fruits_assets.photos.personal_metadata.icc import neutral
from fruits_assets_tests.photos import profiles

ICC = neutral(profiles.large())
SOI, APP0, APP1, APP2, APP13, APP14, COM = 0xD8, 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE


def photo(mode: str = "RGB", size: tuple[int, int] = (37, 29)) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    image = Image.fromarray(noise).resize(size)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(size))
    return image.convert(mode)


def encoded(image: Image.Image, image_format: str, **save_options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **save_options)
    return buffer.getvalue()


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def jpeg_with(*segments: bytes, jpeg: bytes | None = None) -> bytes:
    plain = jpeg or encoded(photo(), "JPEG")
    return plain[:2] + b"".join(segments) + plain[2:]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(*chunks: bytes, png: bytes | None = None) -> bytes:
    """Chunks right after the header."""
    plain, header_end = png or encoded(photo(), "PNG"), 8 + 12 + 13
    return plain[:header_end] + b"".join(chunks) + plain[header_end:]


def grey_of_16_bits() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 65536, (7, 9), np.uint16))


def turned_exif(orientation: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# As Pillow writes them, without anything personal.
ORDINARY: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: encoded(photo(), "JPEG", icc_profile=ICC),
    "turned jpeg": lambda: encoded(photo(), "JPEG", exif=turned_exif(), dpi=(300, 300)),
    "progressive": lambda: encoded(photo(), "JPEG", progressive=True),
    "jpeg with restart markers": lambda: encoded(photo(), "JPEG", restart_marker_blocks=1),
    "grey jpeg": lambda: encoded(photo("L"), "JPEG"),
    "cmyk jpeg": lambda: encoded(photo("CMYK"), "JPEG", icc_profile=neutral(profiles.cmyk())),
    "png": lambda: encoded(photo("RGBA"), "PNG", icc_profile=ICC, dpi=(72, 72)),
    "turned png": lambda: encoded(photo(), "PNG", exif=turned_exif()),
    "palette png": lambda: encoded(photo("P"), "PNG", transparency=3),
    "black and white png": lambda: encoded(photo("1"), "PNG"),
    "grey png": lambda: encoded(photo("LA"), "PNG"),
    "16-bit png": lambda: encoded(grey_of_16_bits(), "PNG"),
    "apng": lambda: encoded(photo(), "PNG", save_all=True, append_images=[photo().rotate(180)]),
    "webp": lambda: encoded(photo(), "WEBP"),
    "webp alpha": lambda: encoded(photo("RGBA"), "WEBP", icc_profile=ICC),
    "turned webp": lambda: encoded(photo(), "WEBP", exif=turned_exif().tobytes()[6:]),
    "webp lossless": lambda: encoded(photo(), "WEBP", lossless=True),
    "awebp": lambda: encoded(photo(), "WEBP", save_all=True, append_images=[photo().rotate(180)]),
    "tiff": lambda: encoded(photo(), "TIFF", icc_profile=ICC),
    "turned tiff": lambda: encoded(photo(), "TIFF", tiffinfo={0x0112: 6}, dpi=(72, 72)),
    "big tiff": lambda: encoded(photo(), "TIFF", big_tiff=True),
    "16-bit tiff": lambda: encoded(grey_of_16_bits(), "TIFF"),
    "cmyk tiff": lambda: encoded(photo("CMYK"), "TIFF", compression="packbits"),
    "palette tiff": lambda: encoded(photo("P"), "TIFF", compression="tiff_adobe_deflate"),
    "tiff lzw": lambda: encoded(photo(), "TIFF", compression="tiff_lzw"),
    "tiff jpeg": lambda: encoded(photo(), "TIFF", compression="jpeg"),
    "tiff in strips": lambda: encoded(photo(size=(300, 300)), "TIFF", compression="jpeg", strip_size=9000),
    "fax tiff": lambda: encoded(photo("1"), "TIFF", compression="group4"),
    "bmp": lambda: encoded(photo(), "BMP"),
    "palette bmp": lambda: encoded(photo("P"), "BMP"),
    "grey bmp": lambda: encoded(photo("L"), "BMP", dpi=(300, 300)),
    "bmp alpha": lambda: encoded(photo("RGBA"), "BMP"),
    "black and white bmp": lambda: encoded(photo("1"), "BMP"),
    "gif": lambda: encoded(photo("P"), "GIF"),
    "grey gif": lambda: encoded(photo("L", (300, 200)), "GIF"),
    "interlaced gif": lambda: encoded(photo("P"), "GIF", interlace=1, transparency=3),
    "agif": lambda: encoded(photo(), "GIF", save_all=True, append_images=[photo().rotate(180)], loop=0),
}


def personal_exif() -> Image.Exif:
    exif = turned_exif(6)
    exif[0x010F] = "JaneDoe's camera"
    exif.get_ifd(0x8825)[29] = "2026:01:02"
    return exif


_XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="8" dc:creator="JaneDoe"/></x:xmpmeta>'
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0" + _XMP


def bmp_with_profile(profile: bytes) -> bytes:
    bmp = encoded(photo(), "BMP")
    pixels = bmp[54:]
    header = struct.pack("<I", 124) + bmp[18:54] + bytes(16) + b"DEBM" + bytes(48)
    header += struct.pack("<IIII", 4, 124 + len(pixels), len(profile), 0)
    start = 14 + 124
    size = start + len(pixels) + len(profile)
    return b"BM" + struct.pack("<IHHI", size, 0, 0, start) + header + pixels + profile


# With something personal wherever the format has a place for it.
PERSONAL: dict[str, Callable[[], bytes]] = {
    "jpeg of a camera": lambda: jpeg_with(
        segment(COM, b"JaneDoe"),
        segment(APP1, _JPEG_XMP),
        jpeg=encoded(photo(), "JPEG", exif=personal_exif(), icc_profile=profiles.display_p3()),
    ),
    "jpeg with XMP": lambda: jpeg_with(segment(APP1, _JPEG_XMP), segment(APP14, b"Adobe\0\x64\0\0\0\0\1")),
    "multi-picture jpeg": lambda: encoded(photo(), "MPO", save_all=True, append_images=[photo().rotate(180)]),
    "png of a screen": lambda: png_with(
        chunk(b"tEXt", b"Author\0JaneDoe"),
        chunk(b"pHYs", b"\0\0\x0b\x13\0\0\x0b\x13\1"),
        chunk(b"gAMA", b"\0\0\xb1\x8f"),
        chunk(b"tRNS", b"\0\1\0\2\0\3"),
        png=encoded(photo(), "PNG", exif=personal_exif(), icc_profile=profiles.display_p3(2)),
    ),
    "png with XMP": lambda: (
        encoded(photo("L"), "PNG")[:-12]
        + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _XMP)
        + chunk(b"IEND", b"")
    ),
    "personal webp": lambda: encoded(
        photo("RGBA"), "WEBP", exif=personal_exif(), xmp=_XMP, icc_profile=profiles.display_p3()
    ),
    "personal awebp": lambda: encoded(
        photo(), "WEBP", save_all=True, append_images=[photo().rotate(180)], exif=personal_exif(), xmp=_XMP
    ),
    "personal tiff": lambda: encoded(
        photo(),
        "TIFF",
        save_all=True,
        append_images=[photo("L")],
        tiffinfo={315: "JaneDoe", 700: _XMP},
        icc_profile=profiles.display_p3(),
    ),
    "personal tiff of strips": lambda: encoded(
        photo(size=(60, 50)),
        "TIFF",
        compression="tiff_lzw",
        strip_size=2000,
        tiffinfo={274: 6, 315: "JaneDoe"},
        dpi=(72, 72),
    ),
    "personal gif": lambda: encoded(
        photo(), "GIF", save_all=True, append_images=[photo().rotate(180)], loop=3, comment=b"JaneDoe"
    ),
    "bmp with a profile": lambda: bmp_with_profile(profiles.display_p3()),
}
