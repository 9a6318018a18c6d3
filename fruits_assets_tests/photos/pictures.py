"""Pictures that photos of any kind are made of."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fruits_assets.photos.decoding import decode_rgb

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, image_format: str, **save_options: Any) -> bytes:
    if image_format == "PNG":
        save_options = {"compress_level": 1} | save_options
    buffer = io.BytesIO()
    image.save(buffer, image_format, **save_options)
    return buffer.getvalue()


def pixels(content: bytes) -> NDArray[np.uint8]:
    image = decode_rgb(content)
    assert image.mode == "RGB"
    return np.asarray(image)


@functools.cache
def _scene(width: int, height: int, seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    edges = np.asarray(coarse.resize((width, height), Image.Resampling.NEAREST)).astype(np.int16)
    grain = rng.integers(-6, 7, (height, width, 1), np.int16)
    return Image.fromarray(np.clip((2 * smooth + edges) // 3 + grain, 0, 255).astype(np.uint8))


def scene(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with edges and some grain, as photos have them."""
    return _scene(width, height, seed).copy()
