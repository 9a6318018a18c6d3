"""EXIF blocks that say how a picture is turned, and nothing else."""

from __future__ import annotations

import io
import struct

from PIL import Image

from fruits_assets.photos.decoding import orientation
from fruits_assets.photos.formats import FORMATS

_ORIENTATION, _SHORT = 0x0112, 3


def stored_orientation(content: bytes, look_behind_picture: bool = False) -> int:
    """The orientation that `decode_rgb` finds in a file, 1 to 8, wherever it is told.

    PNG may tell behind the picture; finding that costs decoding it.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if look_behind_picture:
            image.load()
        return orientation(image)


def orientation_block(value: int) -> bytes:
    """A TIFF header and one tag, byte by byte as Pillow writes them, or nothing for an upright picture."""
    if value == 1:
        return b""
    return b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", _ORIENTATION, _SHORT, 1, value, 0, 0)
