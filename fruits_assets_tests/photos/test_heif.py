from __future__ import annotations

import dataclasses
import gc
import io
import random
import struct
from typing import Any

import numpy as np
import pi_heif
import pytest
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, ImageOps

from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.photos.heif import decoding
from fruits_assets.photos.heif.coded_pictures import av1_sizes
from fruits_assets.photos.heif.decoding import heif_pixels
from fruits_assets.photos.heif.items import parse_heif
from fruits_assets_tests.photos import hevc_pictures
from fruits_assets_tests.photos.heic_files import (
    ALPHA,
    Item,
    Property,
    auxc,
    box,
    clap,
    coded_item,
    coded_photo,
    colr_icc,
    colr_nclx,
    exif_item,
    grid_item,
    heif_file,
    irot,
    ispe,
    orientation_properties,
    photo_pixels,
    tiled_photo,
)
from fruits_assets_tests.photos.hevc_pictures import hevc_picture

ORIENTATION = 0x0112
ICC = b"an ICC profile" * 20


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """What Pillow makes of a picture with this EXIF orientation."""
    image = Image.fromarray(pixels)
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def orientation_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes().removeprefix(b"Exif\0\0")


def avif(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "AVIF", quality=100, subsampling="4:4:4", **options)
    return buffer.getvalue()


def assert_close(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """The same picture but for what colour conversion and subsampling cost."""
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected)
    assert difference.mean() < 4  # some 60 where the picture is turned the wrong way


def test_pixels_of_hevc_are_those_that_were_coded() -> None:
    luma = np.random.default_rng(0).integers(0, 256, (122, 206), np.uint8)
    luma[:40] = 0  # runs that look like start codes
    neutral = np.full((61, 103), 128, np.uint8)
    content = heif_file([coded_item(hevc_picture(luma, (neutral, neutral)), colr_nclx())])
    assert np.array_equal(heif_pixels(content).pixels, np.repeat(luma[..., None], 3, axis=2))


def test_colours_of_hevc_are_those_that_were_coded() -> None:
    photo = photo_pixels((74, 58))
    assert_close(heif_pixels(heif_file([coded_item(coded_photo(photo), colr_nclx())])).pixels, photo)


def test_a_picture_of_several_slices_is_decoded_as_a_whole() -> None:
    luma = np.random.default_rng(0).integers(0, 256, (2080, 2080), np.uint8)
    picture = hevc_picture(luma)
    assert picture.slice_units.count(b"\x28\x01") >= 2
    assert np.array_equal(heif_pixels(heif_file([coded_item(picture)])).pixels[..., 1], luma)


@pytest.mark.parametrize("bit_depth", [10, 12])
@pytest.mark.parametrize("is_grey", [False, True], ids=["colour", "grey"])
def test_deep_pixels_are_scaled_to_8_bits(bit_depth: int, is_grey: bool) -> None:
    luma = np.random.default_rng(0).integers(0, 1 << bit_depth, (64, 96))
    neutral = np.full((32, 48), 1 << (bit_depth - 1))
    picture = hevc_picture(luma, None if is_grey else (neutral, neutral), bit_depth=bit_depth)
    pixels = heif_pixels(heif_file([coded_item(picture, colr_nclx())])).pixels
    assert pixels.dtype == np.uint8
    assert pixels.shape == (64, 96, 3)
    assert np.abs(pixels[..., 0] - luma / (1 << (bit_depth - 8))).max() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_and_mirrors_of_heic_are_applied_once(orientation: int) -> None:
    photo = photo_pixels((74, 58))
    item = coded_item(coded_photo(photo), colr_nclx(), *orientation_properties(orientation))
    # Phones write the orientation twice: as properties, and in the Exif data, where it must not count.
    content = heif_file([item, exif_item(orientation_exif(orientation))])
    assert_close(heif_pixels(content).pixels, upright(photo, orientation))


def test_orientation_of_heic_that_is_only_in_its_exif_data_does_not_count() -> None:
    photo = photo_pixels((74, 58))
    content = heif_file([coded_item(coded_photo(photo), colr_nclx()), exif_item(orientation_exif(6))])
    assert_close(heif_pixels(content).pixels, photo)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_and_mirrors_of_avif_are_applied_once(orientation: int) -> None:
    photo = photo_pixels((74, 58))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert_close(heif_pixels(avif(photo, exif=exif)).pixels, upright(photo, orientation))


def test_orientation_of_avif_that_is_only_in_its_xmp_does_not_count() -> None:
    photo = photo_pixels((74, 58))
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    assert_close(heif_pixels(avif(photo, xmp=xmp)).pixels, photo)


def test_a_grid_of_tiles_is_put_together_turned_and_cropped() -> None:
    photo = photo_pixels((300, 220))
    crop = clap(200, 160, (10, 1), (-6, 1))
    items = tiled_photo(photo, 128, colr_nclx(), crop, irot(3))
    assert len(items) == 1 + 3 * 2
    # The aperture is centred 10 right of and 6 above the centre of the picture.
    expected = np.rot90(photo[24:184, 60:260], -1)
    assert_close(heif_pixels(heif_file(items)).pixels, expected)


def test_primary_picture_is_decoded_wherever_it_lies() -> None:
    first, second = photo_pixels((64, 64)), photo_pixels((74, 58), seed=1)
    items = [coded_item(coded_photo(first), colr_nclx()), coded_item(coded_photo(second), colr_nclx())]
    assert_close(heif_pixels(heif_file(items, primary=2)).pixels, second)


@pytest.mark.parametrize("prem", [[], [(b"prem", [2])]], ids=["straight", "premultiplied"])
def test_alpha_plane_of_heic_becomes_the_fourth_channel(prem: list[tuple[bytes, list[int]]]) -> None:
    photo = photo_pixels((64, 64))
    alpha = np.tile(np.arange(64, dtype=np.uint8) + 192, (64, 1))
    stored = (photo * (alpha[..., None] / 255)).astype(np.uint8) if prem else photo
    colour, plane = coded_item(coded_photo(stored), colr_nclx()), coded_item(hevc_picture(alpha), auxc(ALPHA))
    plane.references.append((b"auxl", [1]))
    colour.references += prem
    pixels = heif_pixels(heif_file([colour, plane])).pixels
    assert np.array_equal(pixels[..., 3], alpha)
    assert_close(pixels[..., :3], photo)


def test_alpha_plane_of_avif_becomes_the_fourth_channel() -> None:
    rgba = np.dstack([photo_pixels((64, 64)), np.tile(np.arange(64, dtype=np.uint8), (64, 1))])
    pixels = heif_pixels(avif(rgba)).pixels
    assert np.abs(pixels[..., 3].astype(int) - rgba[..., 3]).max() <= 1


def test_grey_pictures_have_three_channels() -> None:
    luma = photo_pixels((64, 64))[..., 0]
    for content in (heif_file([coded_item(hevc_picture(luma))]), avif(luma)):
        assert_close(heif_pixels(content).pixels, np.repeat(luma[..., None], 3, axis=2))


def test_colour_profile_is_handed_over() -> None:
    photo = photo_pixels((64, 64))
    assert heif_pixels(heif_file([coded_item(coded_photo(photo), colr_icc(ICC))])).icc_profile == ICC
    assert heif_pixels(heif_file([coded_item(coded_photo(photo), colr_nclx())])).icc_profile is None
    assert heif_pixels(avif(photo, icc_profile=ICC)).icc_profile == ICC
    assert heif_pixels(avif(photo)).icc_profile is None
    assert heif_pixels(heif_file([coded_item(coded_photo(photo), colr_icc(b""))])).icc_profile is None


def test_pixels_outlive_the_decoder() -> None:
    photo = photo_pixels((2048, 1024))
    content = heif_file([coded_item(coded_photo(photo), colr_nclx())])
    pixels = heif_pixels(content).pixels
    gc.collect()
    heif_pixels(heif_file([coded_item(hevc_picture(np.zeros((1024, 2048), np.uint8)))]))
    assert_close(pixels, photo)


def test_decoders_use_one_thread() -> None:
    assert pi_heif.options.DECODE_THREADS == 1
    assert AvifImagePlugin.DEFAULT_MAX_THREADS == 1


def test_the_first_picture_of_an_avif_animation_is_decoded() -> None:
    photo = photo_pixels((64, 64))
    more = Image.fromarray(photo[::-1])
    content = avif(photo, save_all=True, append_images=[more])
    assert content[8:12] == b"avis"
    assert_close(heif_pixels(content).pixels, photo)


# Refused -----------------------------------------------------------------------------------------


def with_size(picture: hevc_pictures.HevcPicture, width: int, height: int) -> hevc_pictures.HevcPicture:
    """The same units, but parameters that speak of another size."""
    parameters = hevc_pictures._sequence_parameters(width, height, picture.n_channels, picture.bit_depth)
    sps = (33, hevc_pictures._nal_unit(33, parameters))
    return dataclasses.replace(
        picture, parameter_sets=(picture.parameter_sets[0], sps, picture.parameter_sets[2])
    )


def too_large_files() -> dict[str, bytes]:
    picture = coded_photo(photo_pixels((64, 64)))
    configuration = Property(box(b"hvcC", picture.configuration()), is_essential=True)
    by_property = Item(b"hvc1", picture.slice_units, [configuration, ispe(10_000, 5_101)])
    by_parameters = coded_item(with_size(picture, 9_984, 5_120))
    by_parameters.properties[1] = ispe(64, 64)
    within = coded_item(picture)
    unit = with_size(picture, 9_984, 5_120).parameter_sets[1][1]
    within.content = hevc_pictures.with_length(unit) + within.content
    tile = coded_item(picture)
    grid = grid_item((1, 1), (10_000, 5_101), [2])
    grid.properties = [ispe(64, 64)]
    return {
        "stated by its property": heif_file([by_property]),
        "stated by its HEVC parameters": heif_file([by_parameters]),
        "stated by parameters next to the slices": heif_file([within]),
        "stated by the grid": heif_file([grid, tile]),
    }


@pytest.mark.parametrize("name", list(too_large_files()))
def test_too_many_pixels_are_refused_before_they_are_decoded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(*_: object) -> None:
        pytest.fail("decoded")

    monkeypatch.setattr(decoding, "_hevc_pixels", decoded)
    with pytest.raises(UnusableImageError, match="pixels, more than 51,000,000"):
        heif_pixels(too_large_files()[name])


def test_size_of_an_avif_picture_is_read_from_its_frames_too(monkeypatch: pytest.MonkeyPatch) -> None:
    content = avif(photo_pixels((300, 200)))
    size = struct.pack(">II", 300, 200)
    assert content.count(size) == 1
    monkeypatch.setattr(decoding, "MAX_HEIF_PIXELS", 59_999)
    with pytest.raises(UnusableImageError, match="300 x 200 pixels"):
        heif_pixels(content.replace(size, struct.pack(">II", 30, 20)))


@pytest.mark.parametrize("is_animation", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (300, 200), (1, 1000)])
def test_size_of_av1_frames_is_read_from_their_header(is_animation: bool, size: tuple[int, int]) -> None:
    photo = photo_pixels(size)
    more = {"save_all": True, "append_images": [Image.fromarray(photo)]} if is_animation else {}
    file = parse_heif(avif(photo, **more))
    (configuration,) = (p.payload for p in file.properties_of(file.primary) if p.kind == b"av1C")
    assert {found[:2] for found in av1_sizes(file.extents(file.primary), configuration)} == {size}


def test_limit_is_lower_with_alpha(monkeypatch: pytest.MonkeyPatch) -> None:
    rgba = np.dstack([photo_pixels((64, 64)), np.zeros((64, 64), np.uint8)])
    monkeypatch.setattr(decoding, "MAX_COSTLY_HEIF_PIXELS", 4095)
    heif_pixels(avif(rgba[..., :3]))
    with pytest.raises(UnusableImageError, match="64 x 64 pixels, more than 4,095"):
        heif_pixels(avif(rgba))


def test_limit_is_lower_where_more_than_8_bits_are_coded_in_large_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def of_10_bits(width: int, height: int) -> Item:
        return coded_item(hevc_picture(np.zeros((height, width), np.uint16), bit_depth=10), colr_nclx())

    monkeypatch.setattr(decoding, "MAX_COSTLY_HEIF_PIXELS", 6000)
    monkeypatch.setattr(decoding, "_SMALL_TILE", 4096)
    tiles = [of_10_bits(64, 64), of_10_bits(64, 64)]
    heif_pixels(heif_file([grid_item((1, 2), (128, 64), [2, 3]), *tiles]))
    heif_pixels(heif_file([coded_item(coded_photo(photo_pixels((96, 64))), colr_nclx())]))
    with pytest.raises(UnusableImageError, match="96 x 64 pixels, more than 6,000"):
        heif_pixels(heif_file([of_10_bits(96, 64)]))


def test_a_few_tiles_that_are_decoded_time_and_again_are_refused() -> None:
    tile = coded_item(coded_photo(photo_pixels((512, 512))))
    inner = grid_item((16, 16), (512, 512), [3] * 256)
    outer = grid_item((16, 16), (512, 512), [2] * 256)
    with pytest.raises(UnusableImageError, match="pixels of parts, more than"):
        heif_pixels(heif_file([outer, inner, tile]))


@pytest.mark.parametrize("made_of", [[1], [2]], ids=["directly", "through another"])
def test_a_picture_made_of_itself_is_refused(made_of: list[int]) -> None:
    items = [grid_item((1, 1), (64, 64), made_of), grid_item((1, 1), (64, 64), [1])]
    with pytest.raises(UnusableImageError, match="made of itself"):
        heif_pixels(heif_file(items))


def test_a_picture_that_libheif_does_not_find_is_not_replaced_by_another() -> None:
    grid, *tiles = tiled_photo(photo_pixels((128, 64)), 64)
    grid.properties = []  # nothing says how large it is, but for the grid itself
    for tile in tiles:
        tile.is_hidden = False  # so that each is a picture that can be shown
    with pytest.raises(UnusableImageError, match="does not find its primary picture"):
        heif_pixels(heif_file([grid, *tiles]))


def test_what_is_no_still_picture_is_refused() -> None:
    video = box(b"ftyp", b"isom", bytes(4)) + box(b"moov", b"") + box(b"mdat", b"frames")
    with pytest.raises(UnusableImageError, match="no still picture"):
        heif_pixels(video)


def test_a_picture_of_an_unknown_codec_is_refused() -> None:
    item = Item(b"vvc1", b"pixels", [ispe(64, 64)])
    with pytest.raises(UnusableImageError, match="kind b'vvc1', which is not known"):
        heif_pixels(heif_file([item]))


def test_lack_of_memory_is_not_the_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(pi_heif, "open_heif", out_of_memory)
    with pytest.raises(MemoryError):
        heif_pixels(heif_file([coded_item(coded_photo(photo_pixels((64, 64))))]))


def damaged(content: bytes, generator: random.Random) -> bytes:
    """Cut, or with some bytes changed, most of them in the boxes, which come first."""
    if generator.random() < 0.3:
        return content[: generator.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        reach = len(changed) if generator.random() < 0.3 else min(len(changed), 900)
        changed[generator.randrange(reach)] = generator.choice((0, 1, 255, generator.randrange(256)))
    return bytes(changed)


def files_of_all_kinds() -> list[bytes]:
    photo = photo_pixels((74, 58))
    rgba = np.dstack([photo, photo[..., 0]])
    colour = coded_item(coded_photo(photo), colr_nclx(), irot(1))
    plane = coded_item(hevc_picture(photo[..., 0]), auxc(ALPHA))
    plane.references.append((b"auxl", [1]))
    tiles = tiled_photo(photo_pixels((150, 110)), 64, colr_icc(ICC), clap(100, 90, (0, 1), (0, 1)))
    return [
        heif_file([colour, plane, exif_item(orientation_exif(6))]),
        heif_file(tiles),
        avif(rgba, icc_profile=ICC, exif=orientation_exif(6)),
    ]


def test_damaged_files_are_decoded_or_refused_and_never_stop_a_run() -> None:
    generator = random.Random(0)
    reasons = set()
    for content in files_of_all_kinds():
        for _ in range(120):
            try:
                heif_pixels(damaged(content, generator))
            except UnusableImageError as error:
                reasons.add(str(error)[:40])
    assert len(reasons) > 20
