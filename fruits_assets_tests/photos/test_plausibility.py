"""What Pillow would decode to a wrong picture, or for minutes, is refused with the reason."""

from __future__ import annotations

import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from fruits_assets.photos.decoding import decode
from fruits_assets.photos.formats import UnusableImageError
from fruits_assets_tests.photos.pictures import RED, encoded, pixels, scene

LENGTH, ROWS_PER_STRIP = 257, 278


def tiff(strips: list[bytes], **tags: list[int]) -> bytes:
    """A TIFF of these strips; tags by their number after a `t`, as values of 32 bits."""
    values = {int(name[1:]): value for name, value in tags.items()}
    offsets, position = [], 8
    for strip in strips:
        offsets.append(position)
        position += len(strip)
    values |= {273: offsets, 279: [len(strip) for strip in strips]}
    extra, entries = b"", b""
    start_of_extra = position + 2 + 12 * len(values) + 4
    for tag in sorted(values):
        data = struct.pack(f"<{len(values[tag])}I", *values[tag])
        if len(data) > 4:
            data, extra = struct.pack("<I", start_of_extra + len(extra)), extra + data
        entries += struct.pack("<HHI", tag, 4, len(values[tag])) + data
    ifd = struct.pack("<H", len(values)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", position) + b"".join(strips) + ifd + extra


def of_size(width: int, height: int, bits: list[int], photometric: int, **more: list[int]) -> dict[str, Any]:
    base = {"t256": [width], "t257": [height], "t258": bits, "t262": [photometric], "t277": [len(bits)]}
    return base | {"t259": [1], "t278": [height]} | more


def reason(content: bytes) -> str:
    with pytest.raises(UnusableImageError) as error:
        decode(content)
    return str(error.value)


# TIFF --------------------------------------------------------------------------------------------


@pytest.fixture
def grey16() -> NDArray[np.uint16]:
    return np.linspace(0, 65535, 40 * 30, dtype=np.uint16).reshape(30, 40)


def test_the_tests_own_tiff_is_one(grey16: NDArray[np.uint16]) -> None:
    found = pixels(tiff([grey16.tobytes()], **of_size(40, 30, [16], 1)))
    assert np.abs(found[:, :, 0].astype(int) - grey16 // 257).max() <= 1


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (of_size(40, 30, [16, 16, 16], 2, t284=[2]), "16 bits a sample in separate planes"),
        (of_size(40, 30, [16], 0), "16 bits whose white is 0"),
        (of_size(40, 30, [12], 1), "12 bits a sample"),
        (of_size(40, 30, [16], 1, t50706=[4]), "a raw photo (DNG)"),
        (of_size(40, 30, [8, 8, 8], 2, t254=[1], t330=[8]), "only a small preview"),
        (of_size(40, 30, [8, 8, 8], 2, t259=[34712]), "compressed by JPEG 2000"),
        (of_size(40, 30, [8, 8, 8], 2, t259=[50001]), "compressed by WebP"),
        (of_size(40, 30, [8, 8, 8], 2, t259=[99]), "compressed by method 99"),
        (of_size(40, 90, [16], 1), "bytes of pixels where"),
        (of_size(40, 60, [16], 1, t278=[30]), "1 strips of pixels, 2 needed"),
        (of_size(7000, 7000, [8, 8, 8], 2, t259=[8]), "more than its"),
        (of_size(40, 30, [64], 1, t339=[3]), "64 bits"),
        (of_size(40, 30, [16, 16, 16], 8), "photometric interpretation 8"),
    ],
)
def test_a_tiff_that_would_come_out_wrong_is_refused(
    grey16: NDArray[np.uint16], tags: dict[str, list[int]], expected: str
) -> None:
    needs_less = "where" in expected  # what is refused for its size must not have enough
    strip = grey16.tobytes() * (1 if needs_less else 3)
    assert expected in reason(tiff([strip], **tags))


@pytest.mark.parametrize("n_strips", ["one strip", "many strips"])
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "raw"])
def test_a_tiff_that_claims_more_rows_than_it_has_is_refused(
    compression: str, n_strips: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if n_strips == "one strip":
        monkeypatch.setattr(TiffImagePlugin, "STRIP_SIZE", 2**24)
    content = encoded(scene(300, 200), "TIFF", compression=compression)
    assert pixels(content).shape == (200, 300, 3)
    for claimed in (201, 400, 2000):
        # Numbers of 16 bits, or of 32, whose second half is 0 either way.
        longer = with_tag(with_tag(content, LENGTH, claimed), ROWS_PER_STRIP, claimed)
        assert reason(longer)


def with_tag(content: bytes, tag: int, value: int) -> bytes:
    for kind in (3, 4):
        if (at := content.find(struct.pack("<HHI", tag, kind, 1))) >= 0:
            return content[: at + 8] + struct.pack("<I", value) + content[at + 12 :]
    raise AssertionError(f"no tag {tag}")


@pytest.mark.parametrize("high", [255, 1023, 4095])
@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_16_bit_grey_that_holds_fewer_bits_is_refused_rather_than_black(image_format: str, high: int) -> None:
    grey = Image.fromarray(np.linspace(0, high, 1200, dtype=np.uint16).reshape(30, 40))
    assert f"brightest value is {high:,} of 65,535" in reason(encoded(grey, image_format))


def test_a_black_16_bit_picture_is_black() -> None:
    assert not pixels(encoded(Image.fromarray(np.zeros((3, 3), np.uint16)), "PNG")).any()


def test_a_tiff_is_not_kept_at_for_seconds_that_a_few_bytes_claim() -> None:
    rows = zlib.compress(bytes(3 * 6000), 9)
    claims = tiff([rows], **of_size(6000, 7000, [8, 8, 8], 2, t259=[8]))
    started = time.monotonic()
    assert "more than its" in reason(claims)
    assert time.monotonic() - started < 5


# JPEG --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.4, 0.6, 0.9])
@pytest.mark.parametrize("ending", [b"", b"\xff\xd9"], ids=["cut", "with its end"])
def test_a_jpeg_whose_rest_is_zeros_is_refused(kept: float, ending: bytes) -> None:
    content = encoded(scene(640, 480), "JPEG", quality=90)
    n_kept = int(len(content) * kept)
    assert "zeros where a part of the picture was" in reason(
        content[:n_kept] + bytes(len(content) - n_kept - len(ending)) + ending
    )


@pytest.mark.parametrize("color", [RED, (255, 255, 255), (0, 0, 0), (128, 128, 128)])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}])
def test_a_plain_surface_is_no_damage(color: tuple[int, int, int], options: dict[str, Any]) -> None:
    """An encoder with tables of its own writes zeros for it."""
    found = pixels(encoded(Image.new("RGB", (1500, 890), color), "JPEG", **options))
    assert np.abs(found.astype(int) - color).max() <= 2


def test_zeros_in_its_metadata_are_no_damage() -> None:
    assert pixels(encoded(scene(64, 48), "JPEG", comment=bytes(5000))).shape == (48, 64, 3)


def test_a_progressive_jpeg_of_many_scans_is_refused_before_it_takes_minutes() -> None:
    content = encoded(scene(640, 480), "JPEG", progressive=True)
    scan = content.rindex(b"\xff\xda")
    again = content[scan:-2]
    started = time.monotonic()
    assert "scans, more than 100" in reason(content[:-2] + again * 5000 + content[-2:])
    assert time.monotonic() - started < 5


# What it is --------------------------------------------------------------------------------------


def test_a_jpeg_of_12_bits_says_so() -> None:
    content = bytearray(encoded(scene(64, 48), "JPEG"))
    content[content.index(b"\xff\xc0") + 4] = 12
    assert "12 bits a sample: only 8 can be read" in reason(bytes(content))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\x0a" + bytes(40), "a JPEG XL picture, not JPEG, HEIC"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "a JPEG XL picture"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "a JPEG 2000 picture"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(40), "a film"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom" + bytes(40), "a raw photo"),
        (b"%PDF-1.7" + bytes(40), "a PDF document"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"oops", "not an image (4 bytes)"),
    ],
)
def test_what_is_no_photo_is_named(content: bytes, expected: str) -> None:
    assert expected in reason(content)


def test_a_floating_point_tiff_says_so() -> None:
    grey = Image.fromarray(np.linspace(0, 1, 1200, dtype=np.float32).reshape(30, 40))
    assert "floating-point pixels" in reason(encoded(grey, "TIFF"))
