"""The bytes of an image file in, an upright 8-bit RGB picture out."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from fruits_assets.photos.formats import FORMATS, MAX_PIXELS, UnusableImageError

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


def decode_rgb(content: bytes) -> Image.Image:
    """Decode an image file to 8-bit RGB, upright; of an animation, the first frame.

    Transparent pixels become white, 16-bit grey is scaled to 8 bits, every other mode is converted
    by Pillow.

    Raises:
        UnusableImageError: empty, no image, damaged, too many pixels, or floating-point pixels.
    """
    if not content:
        raise UnusableImageError("empty file (0 bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnusableImageError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
            image.load()
            return _upright(_to_rgb(image), orientation(image))
    except UnusableImageError:
        raise
    except Image.DecompressionBombError as error:
        raise UnusableImageError(f"more than {MAX_PIXELS:,} pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise UnusableImageError(f"not an image ({len(content):,} bytes)") from error
    except MemoryError:
        raise  # a fault of the machine, not of the file
    except Exception as error:  # Pillow's decoders raise whatever the damage happens to hit
        raise UnusableImageError(f"damaged image: {type(error).__name__}: {error}") from error


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; unreadable EXIF data says nothing, so 1."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata does not make a picture unusable
        return 1
    return int(value) if value in _UPRIGHT else 1


def _upright(image: Image.Image, stored: int) -> Image.Image:
    return image.transpose(_UPRIGHT[stored]) if stored in _UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode == "F":
        raise UnusableImageError("floating-point pixels have no defined white")
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255, which turns a 16-bit photo white.
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise UnusableImageError("32-bit integer pixels have no defined white")
        grey[grey == image.info.get("transparency", -1)] = 65535  # a PNG may declare one grey transparent
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
