"""A photo's bytes to the network's input, by Pillow."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

SIZE = (224, 224)


def pixels(content: bytes, draft: bool) -> NDArray[np.uint8]:
    """Decode a photo, turn it upright, resize it: (224, 224, 3).

    Args:
        draft: have libjpeg scale it down by 2, 4 or 8 while it decodes, as long as it stays twice the size.
    """
    image = Image.open(io.BytesIO(content))
    if draft:
        image.draft("RGB", (2 * SIZE[0], 2 * SIZE[1]))
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.asarray(upright.resize(SIZE, Image.Resampling.BICUBIC))
