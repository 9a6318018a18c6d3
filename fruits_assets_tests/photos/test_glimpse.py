"""Of a file that is no use, what can be seen is seen, and what would take much memory is not tried."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from fruits_assets.photos import glimpse as module
from fruits_assets.photos.glimpse import glimpse


def encoded(size: tuple[int, int], kind: str, **options: Any) -> bytes:
    """Noise, red in the upper half and green in the lower."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 60, (size[1], size[0], 3), np.uint8)
    pixels[: size[1] // 2, :, 0] += 190
    pixels[size[1] // 2 :, :, 1] += 190
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def seen(content: bytes) -> Image.Image:
    found = glimpse(content, 64)
    assert found
    return Image.open(io.BytesIO(found)).convert("RGB")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_of_a_truncated_file_the_part_before_its_end_is_seen(kind: str) -> None:
    whole = encoded((300, 200), kind)
    picture = seen(whole[: int(0.7 * len(whole))])
    assert picture.size == (64, 43)
    red, green, _ = picture.getpixel((30, 5))  # type: ignore[misc]
    assert red > 150 > green
    assert picture.getpixel((30, 41)) != seen(whole).getpixel((30, 41))


def test_pictures_that_end_early_are_refused_by_others_as_before() -> None:
    whole = encoded((100, 100), "JPEG")
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    glimpse(whole[:-500], 64)
    glimpse(b"no image", 64)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(whole[: len(whole) // 2])).load()


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_of_what_is_no_picture_nothing_is_seen(content: bytes) -> None:
    assert glimpse(content, 64) is None


def test_only_what_is_decoded_scaled_may_be_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_PIXELS", 200 * 200 - 1)
    assert seen(encoded((200, 200), "JPEG")).size == (64, 64)
    assert glimpse(encoded((200, 200), "JPEG", progressive=True), 64) is None
    assert glimpse(encoded((200, 200), "PNG"), 64) is None
    monkeypatch.setattr(module, "MAX_PIXELS_OF_JPEG", 200 * 200 - 1)
    assert glimpse(encoded((200, 200), "JPEG"), 64) is None
