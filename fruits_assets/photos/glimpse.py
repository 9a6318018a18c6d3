"""What can be seen of a file that is of no use as a photo: the part before the damage, say."""

from __future__ import annotations

import io

from PIL import Image, ImageFile

from fruits_assets.photos.formats import FORMATS, MAX_PIXELS_OF_JPEG

# What is not decoded scaled, to hold its pixels for a moment.
_MAX_PIXELS = 4_000_000


def glimpse(content: bytes, size: int) -> bytes | None:
    """A JPEG of at most `size` x `size` pixels, in whatever colours; None if there is nothing to be seen.

    For one file at a time in a process: that pictures may end early is a switch of Pillow's for all.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            is_scaled = image.format == "JPEG" and not image.info.get("progressive")
            if image.width * image.height > (MAX_PIXELS_OF_JPEG if is_scaled else _MAX_PIXELS):
                return None
            image.draft("RGB", (size, size))
            seen = image.convert("RGB")
            seen.thumbnail((size, size))
            buffer = io.BytesIO()
            seen.save(buffer, "JPEG", quality=80)
            return buffer.getvalue()
    except Exception:  # Pillow's decoders raise whatever the damage happens to hit
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
