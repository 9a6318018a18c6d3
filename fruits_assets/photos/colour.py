"""Colours as the photo's own profile means them, in sRGB."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms

# Modes of Pillow by the colour space that a profile is for (ICC.1:2022, table 19).
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_STEPS = 9
# What a conversion changes by rounding alone; sRGB comes in many profiles.
_NO_CHANGE = 2


class Profile:
    """What an ICC profile does to pixels: `mode` is that of Pillow which it takes them in."""

    def __init__(self, content: bytes) -> None:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        self.mode = _MODES[profile.profile.xcolor_space.strip()]
        srgb = ImageCms.createProfile("sRGB")
        self._transform = ImageCms.buildTransform(profile, srgb, self.mode, "RGB")

    def to_srgb(self, image: Image.Image) -> Image.Image:
        """An image of the profile's mode in sRGB, RGB with 8 bits."""
        converted = ImageCms.applyTransform(image, self._transform)
        assert converted
        return converted

    def changes(self) -> bool:
        """Whether colours become others at all."""
        if self.mode != "RGB":
            return True
        steps = np.linspace(0, 255, _STEPS).astype(np.uint8)
        colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(_STEPS, -1, 3)
        converted = np.asarray(self.to_srgb(Image.fromarray(colours)))
        return bool((np.abs(converted.astype(int) - colours) > _NO_CHANGE).any())


@functools.lru_cache(maxsize=64)
def profile_of(content: bytes | None) -> Profile | None:
    """What an embedded profile says, if that is anything but sRGB; one that cannot be read says nothing."""
    if not content:
        return None
    try:
        profile = Profile(content)
        return profile if profile.changes() else None
    except (ImageCms.PyCMSError, OSError, KeyError, ValueError, TypeError):
        return None
