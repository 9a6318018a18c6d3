from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from fruits_assets.photos.personal_metadata.icc import neutral
from fruits_assets_tests.photos import profiles

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
PROFILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "sRGB": (lambda: SRGB.tobytes() + b"JaneDoe", "RGB"),
    "Display P3": (profiles.display_p3, "RGB"),
    "Display P3, version 2": (lambda: profiles.display_p3(2), "RGB"),
    "grey": (profiles.grey, "L"),
    "CMYK, 16-bit table": (profiles.cmyk, "CMYK"),
    "CMYK, 8-bit table": (lambda: profiles.cmyk(b"mft1"), "CMYK"),
    "elements": (profiles.elements, "RGB"),
}


def opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


def stripped(profile: bytes) -> bytes:
    result = neutral(profile)
    assert result is not None
    return result


@pytest.mark.parametrize("name", PROFILES)
def test_neutral_profile_gives_the_same_colours_and_no_name(name: str) -> None:
    build, mode = PROFILES[name]
    profile = build()
    assert b"Jane" in profile
    result = stripped(profile)
    assert all(text not in result for text in (b"Jane", b"iMac", "Jane".encode("utf-16-be")))
    assert stripped(result) == result
    assert len(result) <= len(profile) + 300

    channels = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, channels), np.uint8)
    image = Image.fromarray(noise.squeeze(), mode)
    for intent in (ImageCms.Intent.PERCEPTUAL, ImageCms.Intent.RELATIVE_COLORIMETRIC):
        seen = [
            ImageCms.profileToProfile(image, opened(content), SRGB, outputMode="RGB", renderingIntent=intent)
            for content in (profile, result)
        ]
        assert np.array_equal(np.asarray(seen[0]), np.asarray(seen[1]))
    assert not np.array_equal(np.asarray(seen[0]), np.asarray(image.convert("RGB"))) or name == "sRGB"


def test_neutral_printer_profile_gives_the_same_colours_backwards() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    profile = profiles.cmyk()
    seen = [
        np.asarray(ImageCms.profileToProfile(image, SRGB, opened(content), outputMode="CMYK"))
        for content in (profile, stripped(profile))
    ]
    assert np.array_equal(seen[0], seen[1])


@pytest.mark.parametrize("major", [2, 4])
def test_profile_says_what_it_is_only_by_a_standard_name(major: int) -> None:
    profile = profiles.display_p3(major)
    assert ImageCms.getProfileDescription(opened(stripped(profile))).strip() == "RGB profile"
    if major == 2:
        named = profile.replace(b"JaneDoe iMac\0", b"Display P3\0\0\0")
        assert ImageCms.getProfileDescription(opened(stripped(named))).strip() == "Display P3"
    assert ImageCms.getProfileDescription(opened(stripped(SRGB.tobytes()))).strip() == "sRGB built-in"


def test_two_strippings_of_profiles_that_differ_in_names_only_are_the_same() -> None:
    profile = profiles.display_p3()
    assert stripped(profile.replace(b"Jane", b"John")) == stripped(profile)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"JaneDoe" * 100,
        profiles.display_p3()[:200],
        profiles.display_p3().replace(b"acsp", b"acsq"),
        profiles.display_p3().replace(b"mntr", b"link"),
        profiles.display_p3().replace(b"para", b"Jane"),
        profiles.display_p3().replace(b"XYZ \0", b"Jane\0"),
        profiles.cmyk().replace(b"mft2", b"Jane"),
        profiles.packed(b"mntr", b"RGB ", b"XYZ ", {}, 4),
    ],
    ids=["empty", "text", "cut", "signature", "device link", "curve", "primaries", "table", "no colours"],
)
def test_what_is_no_profile_is_dropped(damaged: bytes) -> None:
    assert neutral(damaged) is None


def test_damaged_tags_that_no_colour_here_needs_are_left_out() -> None:
    """LittleCMS goes on without them, so the profile must not be lost with them."""
    profile = profiles.cmyk()
    at = profile.rindex(b"mft2")
    damaged = profile[:at] + b"Jane" + profile[at + 4 :]
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8), "CMYK")
    seen = [
        np.asarray(ImageCms.profileToProfile(image, opened(content), SRGB, outputMode="RGB"))
        for content in (profile, damaged, stripped(damaged))
    ]
    assert np.array_equal(seen[0], seen[1])
    assert np.array_equal(seen[0], seen[2])
