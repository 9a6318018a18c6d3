"""Colours of photos with a profile, against a conversion of the whole picture by LittleCMS."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from fruits_assets.photos.decoding import decode
from fruits_assets_tests.photos import profiles
from fruits_assets_tests.photos.pictures import encoded, scene

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SIZE = (224, 224)


def converted_whole(image: Image.Image, profile: bytes) -> NDArray[np.uint8]:
    """What the whole picture becomes in sRGB, before it is resized."""
    srgb = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), srgb, outputMode="RGB"
    )
    assert converted
    return np.asarray(converted.resize(SIZE, Image.Resampling.BICUBIC))


def differences(content: bytes, expected: NDArray[np.uint8]) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.asarray(decode(content).rgb(SIZE)).astype(np.int64) - expected
    return np.abs(found)


@pytest.mark.parametrize("size", [(400, 300), (2000, 1500)], ids=["exact", "scaled"])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_photo_in_display_p3_gets_its_colours(image_format: str, size: tuple[int, int]) -> None:
    profile = profiles.display_p3()
    options = {"quality": 95} if image_format in ("JPEG", "WEBP") else {}
    content = encoded(scene(*size), image_format, icc_profile=profile, **options)
    with Image.open(io.BytesIO(content)) as image:
        expected = converted_whole(image.convert("RGB"), profile)
        without = np.asarray(image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC))
    assert differences(content, expected).mean() < 1
    assert differences(content, without).mean() > 3


def test_grey_gets_its_gamma() -> None:
    profile = profiles.grey(1.2)
    grey = scene(300, 200).convert("L")
    found = differences(encoded(grey, "PNG", icc_profile=profile), converted_whole(grey, profile))
    assert found.mean() < 1


def test_a_photo_for_print_gets_the_colours_of_its_inks() -> None:
    profile = profiles.cmyk()
    inks = scene(300, 200).convert("CMYK")
    content = encoded(inks, "TIFF", icc_profile=profile)
    # The test's table of inks is all steps, so that it matters that the picture is resized first.
    assert not differences(content, converted_whole(inks.resize(SIZE), profile)).any()
    assert differences(content, np.asarray(inks.convert("RGB").resize(SIZE))).mean() > 3


@pytest.mark.parametrize("profile", [SRGB, b"", b"no profile at all", profiles.cmyk()[:300]])
def test_with_srgb_or_a_profile_that_says_nothing_the_numbers_stay(profile: bytes) -> None:
    image = scene(300, 200)
    content = encoded(image, "PNG", icc_profile=profile)
    assert not differences(content, np.asarray(image.resize(SIZE, Image.Resampling.BICUBIC))).any()


def test_a_profile_of_other_inks_than_the_picture_has_is_not_used() -> None:
    image = scene(300, 200)
    content = encoded(image, "PNG", icc_profile=profiles.cmyk())
    assert not differences(content, np.asarray(image.resize(SIZE, Image.Resampling.BICUBIC))).any()
