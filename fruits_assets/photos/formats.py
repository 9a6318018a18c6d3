"""Which files are photos, how large one may be, and what a file is that is none."""

from __future__ import annotations

import warnings

from PIL import Image

# What a worker decodes in less than 900 MB, all its else included. A baseline JPEG is never there whole; for
# it Pillow's own definition of a decompression bomb holds. Pillow only warns up to twice that; `decode`
# refuses, and so its warning would say everything twice.
MAX_PIXELS, MAX_PIXELS_OF_JPEG = 51_000_000, 89_478_485
# WebP is there several times over while it is decoded; to find the end of a GIF's pixels takes long.
_MAX_PIXELS_OF = {"WEBP": 24_000_000, "GIF": 16_000_000}
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# Pillow knows many more, some of which start other programs: a photo is one of these, or HEIF.
# JPEG includes the multi-picture files of phones (MPO, which is not openable by that name).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".heic", ".heif", ".hif", ".avif"),
    *(".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
)
ACCEPTED = "JPEG, HEIC, AVIF, PNG, WebP, TIFF, BMP or GIF"

_HEIF_BRANDS = {
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1", b"avif", b"avis"),
}
# By what they begin with: what people take for photos, or give the name of one.
_OTHERS = {
    b"\xff\x0a": "a JPEG XL picture",
    b"\0\0\0\x0cJXL \r\n\x87\n": "a JPEG XL picture",
    b"\0\0\0\x0cjP  \r\n\x87\n": "a JPEG 2000 picture",
    b"\xff\x4f\xff\x51": "a JPEG 2000 picture",
    b"%PDF": "a PDF document",
    b"8BPS": "a Photoshop document",
    b"FUJIFILMCCD-RAW": "a raw photo",
    b"IIU\0": "a raw photo",
    b"IIRO": "a raw photo",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML document",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x1aE\xdf\xa3": "a film",
}


def max_pixels(image: Image.Image) -> int:
    """The most pixels that an opened image may have."""
    if image.format in {"JPEG", "MPO"} and not image.info.get("progressive"):
        return MAX_PIXELS_OF_JPEG
    return _MAX_PIXELS_OF.get(image.format or "", MAX_PIXELS)


class UnusableImageError(ValueError):
    """The bytes are no image that features can be taken from; the message is the reason."""


def is_jpeg(content: bytes) -> bool:
    """Whether it begins as a JPEG does."""
    return content.startswith(b"\xff\xd8\xff")


def is_heif(content: bytes) -> bool:
    """Whether it says that it can be read as HEIC, another HEIF or AVIF."""
    return bool(_brands(content) & _HEIF_BRANDS)


def what_it_is(content: bytes) -> str:
    """What a file is that is no photo, as far as its beginning tells, and what would be one."""
    for start, name in _OTHERS.items():
        if content.startswith(start):
            return f"{name}, not {ACCEPTED}"
    if content[4:8] == b"ftyp":
        brand = content[8:12].decode("latin-1").strip()
        name = "a raw photo" if brand == "crx" else f"a film or another file of the kind '{brand}'"
        return f"{name}, not {ACCEPTED}"
    return f"not an image ({len(content):,} bytes): not {ACCEPTED}"


def _brands(content: bytes) -> set[bytes]:
    """Of an ISO base media file (ISO/IEC 14496-12, 4.3), those it says it can be read as."""
    if content[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(content[:4]), 256)
    return {content[8:12], *(content[at : at + 4] for at in range(16, end, 4))}
