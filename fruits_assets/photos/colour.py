"""Colours as the photo's own profile means them, in sRGB."""

from __future__ import annotations

import functools
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

# Modes of Pillow by the colour space that a profile is for (ICC.1:2022, table 19).
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_STEPS = np.linspace(0, 255, 9).astype(np.uint8)
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

    @functools.cached_property
    def of_samples(self) -> NDArray[np.uint8]:
        """What becomes of colours from all over the profile's space, (n, 3)."""
        samples = _samples(len(Image.new(self.mode, (1, 1)).getbands()))
        image = Image.fromarray(samples.squeeze(2) if samples.shape[2] == 1 else samples, self.mode)
        return np.asarray(self.to_srgb(image)).reshape(-1, 3)

    def changes(self) -> bool:
        """Whether colours become others at all."""
        if self.mode != "RGB":
            return True
        samples = _samples(3).reshape(-1, 3)
        return bool((np.abs(self.of_samples.astype(int) - samples) > _NO_CHANGE).any())


def _samples(n_channels: int) -> NDArray[np.uint8]:
    """A grid of all combinations, as an image is: (rows, columns, n_channels)."""
    axes = np.meshgrid(*[_STEPS] * n_channels)
    return np.stack(axes, axis=-1).reshape(_STEPS.size, -1, n_channels)


def have_the_same_colours(one: Profile | None, other: Profile | None) -> bool:
    """Whether two profiles, or none, mean the same by the same numbers."""
    if one is None or other is None:
        return one is other
    return one is other or (one.mode == other.mode and bool((one.of_samples == other.of_samples).all()))


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
