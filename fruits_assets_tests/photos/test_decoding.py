"""What an image file becomes: an upright RGB picture, or a reason."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from fruits_assets.photos.decoding import DECODED_SIZE, decode, decode_rgb
from fruits_assets.photos.formats import MAX_PIXELS, MAX_PIXELS_OF_JPEG, UnusableImageError
from fruits_assets_tests.photos.pictures import BLUE, GREEN, RED, WHITE, encoded, pixels, scene


def row(*colors: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    """An image one pixel high."""
    image = Image.new(mode, (len(colors), 1))
    image.putdata(colors if len(colors[0]) > 1 else [color[0] for color in colors])
    return image


def palette_row(n_transparent: int) -> bytes:
    """Red, green and blue by palette; the first `n_transparent` entries are transparent."""
    image = row((0,), (1,), (2,), mode="P")
    image.putpalette([*RED, *GREEN, *BLUE])
    options = {"transparency": b"\0" * n_transparent + b"\xff" * (3 - n_transparent)} if n_transparent else {}
    return encoded(image, "PNG", **options)


# Modes -------------------------------------------------------------------------------------------


def test_cmyk_jpeg_gets_its_colours() -> None:
    red = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(pixels(red).astype(int) - RED).max() <= 3


def test_cmyk_tiff_gets_its_colours() -> None:
    content = encoded(row((0, 255, 255, 0), (0, 0, 0, 0), (0, 0, 0, 255), mode="CMYK"), "TIFF")
    assert pixels(content).tolist() == [[list(RED), list(WHITE), [0, 0, 0]]]


def test_palette_becomes_its_colours() -> None:
    assert pixels(palette_row(n_transparent=0)).tolist() == [[list(RED), list(GREEN), list(BLUE)]]


def test_transparent_palette_entry_becomes_white() -> None:
    assert pixels(palette_row(n_transparent=1)).tolist() == [[list(WHITE), list(GREEN), list(BLUE)]]


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(image_format: str) -> None:
    grey = Image.fromarray(np.array([[0, 300, 32768, 65535]], np.uint16))
    assert pixels(encoded(grey, image_format))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_big_endian_16_bit_grey_tiff_is_scaled() -> None:
    grey = Image.fromarray(np.array([[0, 300, 32768, 65535]], ">u2"))
    assert grey.mode == "I;16B"
    assert pixels(encoded(grey, "TIFF"))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", (77,), (77, 77, 77)),
        ("LA", (77, 255), (77, 77, 77)),
        ("LA", (77, 0), WHITE),
        ("RGBA", (*RED, 255), RED),
        ("RGBA", (*RED, 0), WHITE),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("1", (1,), WHITE),
        ("1", (0,), (0, 0, 0)),
    ],
)
def test_other_modes_become_rgb_on_white(
    mode: str, color: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert pixels(encoded(row(color, mode=mode), "PNG")).tolist() == [[list(expected)]]


@pytest.mark.parametrize(
    ("mode", "color", "transparency", "expected"),
    [
        ("RGB", RED, RED, [WHITE, GREEN]),
        ("L", (9,), 9, [WHITE, (200, 200, 200)]),
        ("1", (0,), 0, [WHITE, WHITE]),
    ],
)
def test_png_colour_declared_transparent_becomes_white(
    mode: str, color: tuple[int, ...], transparency: Any, expected: list[tuple[int, ...]]
) -> None:
    other = {"RGB": GREEN, "L": (200,), "1": (255,)}[mode]
    content = encoded(row(color, other, mode=mode), "PNG", transparency=transparency)
    assert pixels(content).tolist() == [[list(rgb) for rgb in expected]]


def test_transparent_16_bit_grey_becomes_white() -> None:
    grey = Image.fromarray(np.array([[0, 32768]], np.uint16))
    plain = encoded(grey, "PNG")
    header_end = 8 + 12 + 13
    declared = plain[:header_end] + png_chunk(b"tRNS", struct.pack(">H", 0)) + plain[header_end:]
    assert pixels(declared)[0, :, 0].tolist() == [255, 128]


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_animation_becomes_its_first_frame(image_format: str) -> None:
    first, *others = (Image.new("RGB", (16, 16), color) for color in (RED, GREEN, BLUE))
    options = {"lossless": True} if image_format == "WEBP" else {}
    content = encoded(first, image_format, save_all=True, append_images=others, duration=100, **options)
    with Image.open(io.BytesIO(content)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert (pixels(content) == RED).all()


# Orientation -------------------------------------------------------------------------------------

# EXIF 2.32, section 4.6.5, Orientation: which sides the stored 0th row and 0th column show.
STORED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda upright: upright,  # top, left
    2: lambda upright: upright[:, ::-1],  # top, right
    3: lambda upright: upright[::-1, ::-1],  # bottom, right
    4: lambda upright: upright[::-1],  # bottom, left
    5: lambda upright: upright.swapaxes(0, 1),  # left, top
    6: lambda upright: np.rot90(upright),  # right, top
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda upright: np.rot90(upright, -1),  # left, bottom
}


def quadrants() -> NDArray[np.uint8]:
    """32 x 48 pixels, another colour in each corner."""
    upright = np.empty((32, 48, 3), np.uint8)
    upright[:16, :24], upright[:16, 24:] = RED, GREEN
    upright[16:, :24], upright[16:, 24:] = BLUE, WHITE
    return upright


def turned(stored_orientation: int, image_format: str, **save_options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = stored_orientation
    stored = np.ascontiguousarray(STORED[stored_orientation](quadrants()))
    return encoded(Image.fromarray(stored), image_format, exif=exif, **save_options)


@pytest.mark.parametrize("stored_orientation", range(1, 9))
def test_jpeg_is_turned_upright(stored_orientation: int) -> None:
    found = pixels(turned(stored_orientation, "JPEG", quality=95, subsampling=0))
    assert found.shape == (32, 48, 3)
    assert np.abs(found.astype(int) - quadrants()).max() <= 12


@pytest.mark.parametrize("stored_orientation", [5, 6])
@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_other_formats_are_turned_upright(image_format: str, stored_orientation: int) -> None:
    options = {"lossless": True} if image_format == "WEBP" else {}
    assert np.array_equal(pixels(turned(stored_orientation, image_format, **options)), quadrants())


def with_exif(exif: bytes) -> bytes:
    jpeg = noise("JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif
    return jpeg[:2] + segment + jpeg[2:]


def orientation_entry(field_type: int, count: int, value: int) -> bytes:
    return b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIII", 0x0112, field_type, count, value, 0)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of each
@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"no TIFF header",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff\x12\x01",
        orientation_entry(3, 1, 99),
        orientation_entry(3, 1, 0),
        orientation_entry(2, 4, 0x00363636),
        orientation_entry(3, 1000, 0x7FFFFFFF),
    ],
    ids=["empty", "no header", "far", "cut", "99", "0", "text", "far array"],
)
def test_malformed_exif_does_not_spoil_the_picture(exif: bytes) -> None:
    with Image.open(io.BytesIO(noise("JPEG"))) as expected:
        assert np.array_equal(pixels(with_exif(exif)), np.asarray(expected))


@pytest.mark.parametrize(
    ("kind", "data"),
    [(b"eXIf", b"no TIFF header"), (b"tEXt", b"Raw profile type exif\0\n\n\nno hexadecimal digits")],
)
def test_malformed_exif_does_not_spoil_a_png(kind: bytes, data: bytes) -> None:
    plain, header_end = noise("PNG"), 8 + 12 + 13
    content = plain[:header_end] + png_chunk(kind, data) + plain[header_end:]
    assert np.array_equal(pixels(content), pixels(plain))


# Unusable ----------------------------------------------------------------------------------------


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_that_claims(width: int, height: int) -> bytes:
    """A few bytes long, one bit per pixel."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
        + png_chunk(b"IDAT", zlib.compress(b""))
        + png_chunk(b"IEND", b"")
    )


def noise(image_format: str) -> bytes:
    random = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    return encoded(Image.fromarray(random), image_format)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as the product does
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"A banana is an elongated, edible fruit.", "not an image"),
        (noise("JPEG")[:300], "damaged image.*truncated|damaged image.*Truncated"),
        (noise("JPEG")[: len(noise("JPEG")) // 2], "damaged image.*truncated"),
        (noise("PNG")[: len(noise("PNG")) // 2], "damaged image.*truncated"),
        (png_that_claims(10_000, 9_000), f"10,000 x 9,000 pixels, more than {MAX_PIXELS:,}"),
        (png_that_claims(60_000, 60_000), f"more than {MAX_PIXELS_OF_JPEG:,} pixels"),
        (encoded(Image.new("F", (2, 2), 0.5), "TIFF"), "floating-point"),
        (encoded(Image.new("I", (2, 2), 2**30), "TIFF"), "32-bit"),
        (encoded(Image.new("RGB", (2, 2)), "ICO"), "not an image"),
    ],
    ids=[
        "empty",
        "text",
        "jpeg start",
        "half jpeg",
        "half png",
        "bomb",
        "big bomb",
        "float",
        "32 bit",
        "icon",
    ],
)
def test_unusable_image_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(UnusableImageError, match=reason):
        decode_rgb(content)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_truly_huge_one_bit_image_is_refused() -> None:
    content = encoded(Image.new("1", (10_000, 10_000)), "PNG", compress_level=1)
    assert len(content) < 1_000_000
    with pytest.raises(UnusableImageError, match="10,000 x 10,000 pixels"):
        decode_rgb(content)


# Scaled decoding ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "decoded_size"),
    [
        ((895, 2000), (895, 1000)),
        ((2000, 895), (1000, 895)),
        ((895, 895), (895, 895)),
        ((896, 896), (448, 448)),
        ((1792, 896), (896, 448)),
        ((1800, 2400), (450, 600)),
        ((4000, 3000), (1000, 750)),
        ((3584, 3584), (448, 448)),
        ((897, 8971), (449, 898)),
    ],
)
def test_a_large_jpeg_is_decoded_to_the_smallest_size_of_at_least_448(
    size: tuple[int, int], decoded_size: tuple[int, int]
) -> None:
    photo = decode(encoded(Image.new("RGB", size, RED), "JPEG"))
    assert photo.picture.size == decoded_size
    assert (photo.width, photo.height) == size
    assert min(photo.picture.size) >= DECODED_SIZE


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP", "WEBP", "GIF"])
def test_what_no_decoder_can_scale_is_averaged_to_no_less_than_896(image_format: str) -> None:
    photo = decode(encoded(Image.new("RGB", (2700, 1800), RED), image_format, **_lossless(image_format)))
    assert photo.picture.size == (900, 900)
    assert (photo.width, photo.height) == (2700, 1800)
    assert photo.rgb().getcolors() == [(900 * 900, RED)]


def _lossless(image_format: str) -> dict[str, Any]:
    return {"lossless": True} if image_format == "WEBP" else {}


@pytest.mark.parametrize("size", [(100, 100), (640, 480), (895, 895), (1791, 890)])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_a_picture_that_is_not_larger_is_decoded_exactly(image_format: str, size: tuple[int, int]) -> None:
    content = encoded(scene(*size), image_format)
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(pixels(content), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("size", [(2400, 1800), (1500, 1100), (896, 900), (1000, 4000)])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_scaling_hardly_changes_what_the_network_sees(image_format: str, size: tuple[int, int]) -> None:
    content = encoded(scene(*size), image_format, **({"quality": 90} if image_format == "JPEG" else {}))
    found = np.asarray(decode(content).rgb((224, 224))).astype(int)
    with Image.open(io.BytesIO(content)) as image:
        whole = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))
    assert np.abs(found - whole).mean() < 0.5


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "L", "I;16"])
def test_a_large_picture_of_any_mode_is_averaged_after_it_has_become_rgb(mode: str) -> None:
    """Averaging numbers of a palette, or colours that nobody sees, would give others."""
    large = scene(1800, 1801)
    if mode == "RGBA":
        large.putalpha(Image.linear_gradient("L").resize(large.size))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(large.convert("L")).astype(np.uint16) * 257)
    else:
        image = large.convert(mode)
    photo = decode(encoded(image, "PNG"))
    assert photo.picture.size == (900, 901)
    expected = np.asarray(_on_white(image).reduce(2)).astype(int)
    assert np.abs(np.asarray(photo.rgb()).astype(int) - expected).max() <= 1


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "I;16":
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)).convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


@pytest.mark.parametrize("stored_orientation", range(1, 9))
def test_a_large_photo_is_turned_upright(stored_orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = stored_orientation
    photo = decode(encoded(scene(1800, 900), "JPEG", exif=exif, quality=95))
    upright = stored_orientation < 5
    assert (photo.width, photo.height) == ((1800, 900) if upright else (900, 1800))
    assert photo.picture.size == ((900, 450) if upright else (450, 900))


@pytest.mark.parametrize("share", [0.3, 0.99])
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_large_jpeg_that_is_cut_is_found_though_it_is_decoded_scaled(
    options: dict[str, Any], share: float
) -> None:
    content = encoded(scene(1000, 900), "JPEG", quality=90, **options)
    with pytest.raises(UnusableImageError, match="damaged image"):
        decode(content[: int(len(content) * share)])


def test_a_shortage_of_memory_is_no_fault_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", no_memory)
    with pytest.raises(MemoryError):
        decode(encoded(Image.new("RGB", (9, 9)), "PNG"))
