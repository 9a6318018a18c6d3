"""A sheet has every thumbnail in its cell, and is as small as asked."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fruits_assets.report.sprites import Sheets, sheets
from fruits_assets_tests.report.made_up import color, jpeg


def picture(uri: str) -> Image.Image:
    kind, encoded = uri.split(",", 1)
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")


def middle_of(found: Sheets, number: int) -> NDArray[np.int64]:
    at = number % (found.columns * found.rows)
    sheet = picture(found.uris[number // (found.columns * found.rows)])
    left, top = at % found.columns * found.cell, at // found.columns * found.cell
    return np.array(sheet.getpixel((left + found.cell // 2, top + found.cell // 2)))


def test_each_photo_is_in_its_cell_on_whichever_sheet() -> None:
    n = 32 * 64 + 40
    found = sheets([jpeg(color(i, n)) for i in range(n)], 10**7)
    assert len(found.uris) == 2
    for number in (0, 31, 32, 2047, 2048, n - 1):
        np.testing.assert_allclose(middle_of(found, number), color(number, n), atol=25)


def test_a_narrow_photo_stands_in_the_middle_whole() -> None:
    found = sheets([jpeg((200, 0, 0), (64, 20)), jpeg((0, 0, 200), (20, 64))], 10**6)
    sheet = picture(found.uris[0])
    assert np.array(sheet.getpixel((32, 4))).min() > 200  # above the first
    np.testing.assert_allclose(np.array(sheet.getpixel((3, 32))), (200, 0, 0), atol=40)
    np.testing.assert_allclose(np.array(sheet.getpixel((64 + 32, 3))), (0, 0, 200), atol=40)


def test_noise_is_made_to_fit() -> None:
    """The worst there is for compression."""
    rng = np.random.default_rng(1)

    def noise() -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "JPEG", quality=95)
        return buffer.getvalue()

    thumbnails = [noise() for _ in range(300)]
    assert sum(map(len, sheets(thumbnails, 400_000).uris)) <= 400_100
    small = sheets(thumbnails, 60_000)
    assert sum(map(len, small.uris)) <= 60_100
    assert small.cell < 64


def test_no_photos_are_no_sheets() -> None:
    assert sheets([], 100).uris == []
