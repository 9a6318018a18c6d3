"""The bytes of an image file in, an upright picture in sRGB out."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fruits_assets.photos.colour import Profile, have_the_same_colours, profile_of
from fruits_assets.photos.formats import (
    FORMATS,
    MAX_PIXELS_OF_JPEG,
    UnusableImageError,
    is_heif,
    max_pixels,
    what_it_is,
)
from fruits_assets.photos.heif.decoding import heif_pixels
from fruits_assets.photos.plausibility import refuse_claims, refuse_wrong_values, why_unidentified

IMAGE_SIZE = 224  # of the network's input
# Twice that: the resize then averages as it would have done over all pixels.
DECODED_SIZE = 2 * IMAGE_SIZE
# What a decoder cannot scale is averaged to no less than this, so that rounding twice changes nothing.
_AVERAGED_SIZE = 2 * DECODED_SIZE
_BAND_PIXELS = 1024 * 1024

_ORIENTATION_TAG = 0x0112
# EXIF 2.32, table 4: what turns the stored pixels upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THEIR_SIDE = {5, 6, 7, 8}


@dataclass(frozen=True)
class Photo:
    """A decoded photo, upright.

    `width` and `height` are those of the whole photo, in pixels; `picture` is all of it, or where it is
    large, scaled to fewer pixels, and its colours are as `profile` means them, sRGB if there is none.
    """

    picture: Image.Image
    width: int
    height: int
    profile: Profile | None = None

    def rgb(self, size: tuple[int, int] | None = None, reducing_gap: float | None = None) -> Image.Image:
        """The picture in sRGB, 8 bits each; resized by Pillow's bicubic filter if a size is given.

        Args:
            reducing_gap: as Pillow has it: average to so many times the size first, which is faster and for
                the eye the same.
        """
        picture = self.picture
        if size:
            picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=reducing_gap)
        return self.profile.to_srgb(picture) if self.profile else picture

    def shows_the_same_as(self, other: Photo) -> bool:
        """Whether every pixel is the same, and of the same colour."""
        if (self.width, self.height, self.picture.size) != (other.width, other.height, other.picture.size):
            return False
        return self.picture.tobytes() == other.picture.tobytes() and have_the_same_colours(
            self.profile, other.profile
        )


def decode(content: bytes) -> Photo:
    """Decode an image file; of an animation, the first frame, of a file with several pictures the main one.

    **Large photos are scaled while they are decoded.** What uses a picture here resizes it to 224 x 224
    or less, so most pixels of a phone's photo would be decoded to be averaged away. A JPEG that is at least
    twice 448 pixels on both sides is decoded at 1/2, 1/4 or 1/8 (its decoder leaves frequencies out, which is
    that average), to the smallest size of at least 448 on both sides; what is at least twice 896 pixels on a
    side after that, of any format, is averaged over whole pixels to no less than 896. Smaller pictures are
    decoded exactly. For photos of 12 megapixels this takes a third of the time; the network's input
    differs by less than 0.5 of 255 on the mean, and the features' cosine is at least 0.9999.

    **Colours**: transparent pixels become white, 16-bit grey is scaled to 8 bits. An embedded ICC profile is
    kept beside the picture and applied to what `Photo.rgb` returns: after the resize, where it is cheap. The
    gain map of an HDR photo is not looked at: this is the picture that every screen shows.

    Raises:
        UnusableImageError: empty, no image, damaged, too many pixels, or pixels that cannot be understood.
    """
    if not content:
        raise UnusableImageError("empty file (0 bytes)")
    if is_heif(content):
        return _decoded_heif(content)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > (limit := max_pixels(image)):
                raise UnusableImageError(
                    f"{image.width:,} x {image.height:,} pixels, more than {limit:,} in all"
                )
            refuse_claims(content, image)
            return _decoded(image)
    except (UnusableImageError, MemoryError):
        raise  # the second is a fault of the machine, not of the file
    except Image.DecompressionBombError as error:
        raise UnusableImageError(f"more than {MAX_PIXELS_OF_JPEG:,} pixels") from error
    except UnidentifiedImageError as error:
        raise UnusableImageError(why_unidentified(content) or what_it_is(content)) from error
    except Exception as error:  # Pillow's decoders raise whatever the damage happens to hit
        raise UnusableImageError(f"damaged image: {type(error).__name__}: {error}") from error


def decode_rgb(content: bytes) -> Image.Image:
    """The picture of an image file in sRGB; see `decode`."""
    return decode(content).rgb()


def fitting(width: int, height: int, longest: int) -> tuple[int, int]:
    """The size of a picture whose longer side is to have at most so many pixels; no side has none."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def model_input(photo: Photo) -> NDArray[np.uint8]:
    """A photo as the network's input, (224, 224, 3) uint8, by Pillow's bicubic filter.

    The scaling to -1..1 is part of the flatbuffer.
    """
    return np.asarray(photo.rgb((IMAGE_SIZE, IMAGE_SIZE)))


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; unreadable EXIF data says nothing, so 1."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata does not make a picture unusable
        return 1
    return int(value) if value in _UPRIGHT else 1


def _decoded(image: Image.Image) -> Photo:
    size = image.size
    is_scaled = image.draft(None, (DECODED_SIZE, DECODED_SIZE)) is not None
    image.load()
    if not is_scaled:
        size = image.size  # a TIFF is turned upright while it is loaded
    refuse_wrong_values(image)
    turn = orientation(image)
    profile = profile_of(image.info.get("icc_profile"))
    if profile and (profile.mode == "CMYK") != (image.mode == "CMYK"):
        profile = None  # of another picture
    convert = _conversion(image, profile)

    def band(top: int, bottom: int) -> Image.Image:
        is_whole = (top, bottom) == (0, image.height)
        return convert(image if is_whole else image.crop((0, top, image.width, bottom)))

    picture = _averaged(image.size, band)
    if turn in _UPRIGHT:
        picture = picture.transpose(_UPRIGHT[turn])
    # Pillow takes comments along, and writes them into whatever is made of the picture.
    picture.info = {}
    return Photo(picture, *(size[::-1] if turn in _ON_THEIR_SIDE else size), profile)


def _decoded_heif(content: bytes) -> Photo:
    pixels, icc_profile = heif_pixels(content)
    height, width = pixels.shape[:2]
    picture = _averaged(
        (width, height),
        lambda top, bottom: _to_rgb(Image.fromarray(np.ascontiguousarray(pixels[top:bottom]))),
    )
    profile = profile_of(icc_profile)
    return Photo(picture, width, height, profile if profile and profile.mode == "RGB" else None)


def _averaged(size: tuple[int, int], band: Callable[[int, int], Image.Image]) -> Image.Image:
    """A picture of that size, averaged if it is large; a band at a time, so that it is never there twice.

    Args:
        band: gives the rows from one number to another.
    """
    width, height = size
    across, down = max(1, width // _AVERAGED_SIZE), max(1, height // _AVERAGED_SIZE)
    if across == down == 1:
        return band(0, height)
    rows = down * max(1, _BAND_PIXELS // (width * down))
    bands = [band(top, min(top + rows, height)).reduce((across, down)) for top in range(0, height, rows)]
    averaged = Image.new(bands[0].mode, (bands[0].width, sum(part.height for part in bands)))
    top = 0
    for part in bands:
        averaged.paste(part, (0, top))
        top += part.height
    return averaged


def _conversion(image: Image.Image, profile: Profile | None) -> Callable[[Image.Image], Image.Image]:
    """What brings a part of an image to the mode that its profile is for, without one to RGB."""
    if image.mode == "CMYK" and profile:
        return lambda part: part
    if profile and profile.mode == "L":
        return lambda part: _to_rgb(part).convert("L")
    return _to_rgb


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _grey_of_16_bits(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _grey_of_16_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips at 255, which turns a 16-bit photo white.
    grey = np.asarray(image).astype(np.uint32)
    grey[grey == image.info.get("transparency", -1)] = 65535  # a PNG may declare one grey transparent
    return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8))
