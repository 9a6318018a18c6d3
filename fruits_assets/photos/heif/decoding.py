"""HEIC, HEIF and AVIF files in, upright 8-bit pixels out.

HEVC pictures are decoded by libheif (pi-heif), AV1 pictures by libavif (Pillow). Both get one thread, as a
task of Spark has one core, and both see a file only after its sizes have been read from its headers.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pi_heif
from numpy.typing import NDArray
from PIL import AvifImagePlugin, ExifTags, Image

from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.photos.heif.boxes import Reader
from fruits_assets.photos.heif.coded_pictures import (
    Size,
    av1_sizes,
    hevc_configuration,
    hevc_parameters_within,
    hevc_sizes,
)
from fruits_assets.photos.heif.items import ALPHA_KINDS, CODED_KINDS, HeifItems, parse_heif
from fruits_assets.photos.heif.repacking import repacked

# A worker that weighs 200 MB is to stay below 900 MB. Measured on top of that, per pixel: 5 to 10 bytes for
# HEIC and 12 for AVIF (by Pillow), which makes 610 MB at most; 16 with alpha, or where more than 8 bits are
# coded in anything larger than small tiles. Phones reach 8192 x 6144; cameras 33 million pixels of 10 bits.
MAX_HEIF_PIXELS = 51_000_000
MAX_COSTLY_HEIF_PIXELS = 37_500_000
_SMALL_TILE = 1024 * 1024
# What is decoded for a picture at the limit that is a grid of tiles with an alpha plane of the same make:
# four times its pixels, and a part of the tiles lies outside of it.
_MAX_DECODED_PIXELS = 5 * MAX_HEIF_PIXELS

pi_heif.options.DECODE_THREADS = 1
pi_heif.options.THUMBNAILS = False
pi_heif.options.DEPTH_IMAGES = False
pi_heif.options.AUX_IMAGES = False
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

# EXIF 2.32, table 4: (rows and columns change places, rows are reversed, columns are reversed) afterwards.
_UPRIGHT = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


class HeifPixels(NamedTuple):
    pixels: NDArray[np.uint8]
    """Shape (height, width, 3) or, with (straight) alpha, (height, width, 4); not always contiguous."""
    icc_profile: bytes | None


def heif_pixels(content: bytes) -> HeifPixels:
    """Decode the primary picture of a HEIC, HEIF or AVIF file to 8-bit RGB or RGBA, upright.

    The turns and mirrors of the file's properties are applied, once; an orientation in its Exif data is
    for information only in these formats (HEIF, 6.5.10 and A.2.1), so it is not.

    Raises:
        UnusableImageError: damaged, no still picture, too many pixels, or coded in a way that is not known.
    """
    try:
        # What the decoders would stumble over beside the picture (of all that a file may hold) stays away
        # from them, and a photo with and without its personal metadata is decoded in the same way.
        content = repacked(content)
        file = parse_heif(content)
        kinds = {file.items[number].kind for number in _checked_pictures(file)} & CODED_KINDS
        if kinds == {b"hvc1"}:
            return _hevc_pixels(content)
        if kinds == {b"av01"}:
            return _av1_pixels(content)
    except (UnusableImageError, MemoryError):
        raise
    except Exception as error:  # the decoders raise whatever the damage happens to hit
        raise UnusableImageError(f"damaged image: {type(error).__name__}: {error}") from error
    raise UnusableImageError(f"a picture coded as {sorted(kinds)}, which no one decoder knows")


def _hevc_pixels(content: bytes) -> HeifPixels:
    """What libheif hands out is turned and mirrored already."""
    file = pi_heif.open_heif(content)
    image = file[file.primary_index]
    if not image.info["primary"]:  # libheif could not use that one, and pi-heif offers another
        raise UnusableImageError("damaged image: libheif does not find its primary picture")
    image.load()
    return HeifPixels(_rgb_or_rgba(_lent_pixels(image), image.mode), image.info.get("icc_profile") or None)


class _Lender:
    """Keeps decoded pixels as long as an array shows them: pi-heif's own buffer does not, and dangles."""

    def __init__(self, image: Any) -> None:
        self._image = image
        n_channels, n_bits = pi_heif.heif.MODE_INFO[image.mode][:2]
        self.__array_interface__ = {
            "version": 3,
            "shape": (image.size[1], image.size[0], n_channels),
            "strides": (image.stride, n_channels * (1 if n_bits <= 8 else 2), 1 if n_bits <= 8 else 2),
            "typestr": "|u1" if n_bits <= 8 else "<u2",
            "data": (np.frombuffer(image.data, np.uint8).ctypes.data, True),
        }


def _lent_pixels(image: Any) -> NDArray[Any]:
    return np.asarray(_Lender(image))


def _rgb_or_rgba(pixels: NDArray[Any], mode: str) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8:
        pixels = (pixels >> 8).astype(np.uint8)  # grey of 10 or 12 bits, which comes stretched to 16
    if pixels.shape[2] < 3:
        pixels = pixels[:, :, [0] * 3 if pixels.shape[2] == 1 else [0, 0, 0, 1]]
    if "a" in mode:
        return np.asarray(Image.frombytes("RGBa", pixels.shape[1::-1], pixels.tobytes()).convert("RGBA"))
    return pixels


def _av1_pixels(content: bytes) -> HeifPixels:
    with Image.open(io.BytesIO(content), formats=("AVIF",)) as image:
        image.load()
        # Pillow states the turns and mirrors of the properties as this tag, whatever the file's Exif says.
        exif = Image.Exif()
        exif.load(image.info.get("exif", b""))
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        picture = image if image.mode in ("RGB", "RGBA") else image.convert("RGB")
        pixels = np.asarray(picture)
        icc_profile = image.info.get("icc_profile") or None
    transposed, rows_reversed, columns_reversed = _UPRIGHT.get(orientation, (False, False, False))
    if transposed:
        pixels = pixels.swapaxes(0, 1)
    return HeifPixels(pixels[:: -1 if rows_reversed else 1, :: -1 if columns_reversed else 1], icc_profile)


def _checked_pictures(file: HeifItems) -> tuple[int, ...]:
    """The pictures that are decoded, after a look at how large they are said to be, wherever it is said."""
    shown = file.shown_pictures()
    sizes = {number: list(_sizes(file, number)) for number in shown}
    is_costly = any(file.auxiliary_kind(number) in ALPHA_KINDS for number in shown) or any(
        size.bit_depth > 8 and size.width * size.height > _SMALL_TILE
        for found in sizes.values()
        for size in found
    )
    limit = MAX_COSTLY_HEIF_PIXELS if is_costly else MAX_HEIF_PIXELS
    areas: dict[int, int] = {}
    for number, found in sizes.items():
        if not found:
            raise UnusableImageError(f"damaged image: picture {number} has no size")
        largest = max(found, key=lambda size: size.width * size.height)
        areas[number] = largest.width * largest.height
        if areas[number] > limit:
            raise UnusableImageError(f"{largest.width} x {largest.height} pixels, more than {limit:,}")

    decoded: dict[int, int] = {}

    def n_decoded(number: int) -> int:
        if number not in decoded:
            decoded[number] = areas[number] + sum(map(n_decoded, file.derived_from(number)))
        return decoded[number]

    made_from = {part for number in shown for part in file.derived_from(number)}
    n_pixels = sum(n_decoded(number) for number in shown if number not in made_from)
    if n_pixels > _MAX_DECODED_PIXELS:
        raise UnusableImageError(f"{n_pixels:,} pixels of parts, more than {_MAX_DECODED_PIXELS:,}")
    return shown


def _sizes(file: HeifItems, number: int) -> Iterator[Size]:
    """Every size that the file states for a picture: decoders make room for one or the other."""
    kind = file.items[number].kind
    length_bytes = 4
    for box in file.properties_of(number):
        if box.kind == b"ispe":
            reader = box.reader()
            reader.take(4)
            yield Size(reader.number(4), reader.number(4))
        elif box.kind == b"hvcC":
            configuration = hevc_configuration(box.payload)
            length_bytes = configuration.length_bytes
            yield from hevc_sizes(configuration.parameter_sets)
        elif box.kind == b"av1C":
            yield from av1_sizes(file.extents(number), box.payload)
    if kind == b"hvc1":
        yield from hevc_sizes(hevc_parameters_within(file.extents(number), length_bytes))
    elif kind in (b"grid", b"iovl"):
        reader = Reader(memoryview(b"".join(file.extents(number))), f"item {number}")
        _, flags = reader.number(1), reader.number(1)
        reader.take(2 if kind == b"grid" else 8)
        n_bytes = 4 if flags & 1 else 2
        yield Size(reader.number(n_bytes), reader.number(n_bytes))
