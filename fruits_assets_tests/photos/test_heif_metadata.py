from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pi_heif
import pytest
from numpy.typing import NDArray
from PIL import Image

from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.photos.heif.boxes import boxes
from fruits_assets.photos.heif.decoding import heif_pixels
from fruits_assets.photos.heif.items import parse_heif
from fruits_assets.photos.personal_metadata import icc
from fruits_assets.photos.personal_metadata.heif import stripped
from fruits_assets_tests.photos import profiles
from fruits_assets_tests.photos.heic_files import (
    ALPHA,
    DEPTH,
    GAIN_MAP,
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
    full_box,
    grid_item,
    heif_file,
    irot,
    ispe,
    orientation_properties,
    photo_pixels,
    tiled_photo,
    xmp_item,
)
from fruits_assets_tests.photos.hevc_pictures import hevc_picture, sei_unit, with_length
from fruits_assets_tests.photos.test_heif import avif, damaged, files_of_all_kinds

SECRET = b"SECRET"
ICC = icc.neutral(profiles.display_p3()) or b""
MAKER, ORIENTATION = 0x010F, 0x0112


def photo_item(*properties: Property, size: tuple[int, int] = (74, 58), seed: int = 0) -> Item:
    return coded_item(coded_photo(photo_pixels(size, seed)), colr_nclx(), *properties)


def secret_pixels() -> NDArray[np.uint8]:
    """Grey samples that read SECRET wherever a picture of them is stored."""
    return np.tile(np.frombuffer(SECRET * 11, np.uint8)[:64], (64, 1))


def auxiliary_item(kind: str, about: int = 1) -> Item:
    more = b"" if kind == DEPTH else SECRET  # libheif reads what is behind this kind
    item = coded_item(hevc_picture(secret_pixels()), auxc(kind, more))
    item.references.append((b"auxl", [about]))
    return item


def thumbnail_item(about: int = 1) -> Item:
    item = coded_item(hevc_picture(secret_pixels()))
    item.references.append((b"thmb", [about]))
    return item


def assert_only_the_picture_is_left(content: bytes) -> bytes:
    """Strip, compare all there is to compare, and return the stripped file."""
    assert SECRET in content
    result = stripped(content)
    assert SECRET not in result
    assert stripped(result) == result
    for before, after in zip(decoded_as_it_is(content), decoded_as_it_is(result), strict=True):
        assert np.array_equal(before, after)
    assert np.array_equal(heif_pixels(content).pixels, heif_pixels(result).pixels)
    return result


def decoded_as_it_is(content: bytes) -> tuple[Any, ...]:
    """Pixels, colour profile and orientation as the decoders state them for the whole file."""
    if content[8:11] == b"avi":
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            turned = image.getexif().get(ORIENTATION, 1)
            return np.asarray(image), image.info.get("icc_profile", b""), turned
    file = pi_heif.open_heif(content)
    return np.array(file), file.info.get("icc_profile", b""), 1


def secret_exif(orientation: int | None = None) -> Image.Exif:
    exif = Image.Exif()
    exif[MAKER] = "SECRET"
    if orientation:
        exif[ORIENTATION] = orientation
    return exif


def kinds_of_items(content: bytes) -> list[bytes]:
    return [item.kind for _, item in sorted(parse_heif(content).items.items())]


PLAIN = stripped(heif_file([photo_item()]))


@pytest.mark.parametrize(
    "personal",
    [
        exif_item(b"MM\0*SECRET"),
        xmp_item(b"<x:xmpmeta>SECRET</x:xmpmeta>"),
        Item(b"uri ", SECRET, [], [(b"cdsc", [1])], more_info=b"urn:SECRET\0"),
        Item(b"mime", SECRET, [], [(b"cdsc", [1])], is_hidden=True, more_info=b"text/SECRET\0"),
        thumbnail_item(),
        auxiliary_item(GAIN_MAP),
        auxiliary_item(DEPTH),
        auxiliary_item("urn:com:apple:photo:2018:aux:portraiteffectsmatte"),
        auxiliary_item("urn:com:apple:photo:2019:aux:semanticskinmatte"),
        coded_item(hevc_picture(secret_pixels())),
        Item(b"tmap", b"\0SECRET", [ispe(74, 58)], [(b"dimg", [1])], in_idat=True),
        Item(b"grid", SECRET, [], [(b"dimg", [1])], construction_method=2),
        Item(b"hvc1", SECRET, protection=1),
        Item(b"Exif", SECRET, data_reference=1),
    ],
    ids=[
        *("Exif", "XMP", "URI", "text", "thumbnail", "gain map", "depth", "portrait matte", "skin matte"),
        *("second picture", "tone map", "item of items", "protected item", "item elsewhere"),
    ],
)
def test_heic_loses_item(personal: Item) -> None:
    assert assert_only_the_picture_is_left(heif_file([photo_item(), personal])) == PLAIN


@pytest.mark.parametrize(
    "options",
    [
        {"handler_name": SECRET},
        {"gap": SECRET},
        {"trailing": SECRET},
        {"trailing": box(b"free", SECRET)},
        {"trailing": box(b"mdat", SECRET)},
        {"trailing": struct.pack(">I", 0) + b"mdat" + SECRET},
        {"behind_meta": [box(b"uuid", b"0123456789abcdef", SECRET)]},
        {
            "meta_boxes": [
                box(b"free", SECRET),
                box(b"uuid", b"0123456789abcdef", SECRET),
                box(b"free", SECRET),
            ]
        },
        {"meta_boxes": [box(b"xml ", SECRET)]},
        {"meta_boxes": [box(b"grpl", full_box(b"altr", 0, 0, SECRET))]},
        {"compatible": [b"mif1", b"heic", b"SECR", b"ET  "], "trailing": SECRET},
    ],
    ids=lambda options: "+".join(options),
)
def test_heic_loses_what_is_no_item(options: dict[str, Any]) -> None:
    assert assert_only_the_picture_is_left(heif_file([photo_item()], **options)) == PLAIN


def test_heic_loses_videos() -> None:
    assert stripped(heif_file([photo_item()], behind_meta=[box(b"moov", box(b"trak", SECRET))])) == PLAIN


def test_heic_loses_names_of_items() -> None:
    item = photo_item()
    item.name = SECRET
    assert assert_only_the_picture_is_left(heif_file([item])) == PLAIN


@pytest.mark.parametrize(
    "personal",
    [
        Property(full_box(b"udes", 0, 0, b"en\0SECRET\0\0")),
        Property(full_box(b"crtt", 0, 0, b"SECRET..")),
        Property(box(b"uuid", b"0123456789abcdef", SECRET)),
    ],
    ids=["description", "time", "uuid"],
)
def test_heic_loses_property(personal: Property) -> None:
    assert assert_only_the_picture_is_left(heif_file([photo_item(personal)])) == PLAIN


@pytest.mark.parametrize(
    ("plain", "longer"),
    [
        (irot(1), box(b"irot", b"\1SECRET")),
        (ispe(74, 58), full_box(b"ispe", 0, 0, struct.pack(">II", 74, 58), SECRET)),
        (colr_nclx(), box(b"colr", b"nclx", struct.pack(">HHHB", 1, 13, 6, 128), SECRET)),
    ],
    ids=["turn", "size", "colours"],
)
def test_properties_lose_what_is_behind_their_fields(plain: Property, longer: bytes) -> None:
    item = photo_item(irot(1))
    expected = stripped(heif_file([item]))
    item.properties = [Property(longer) if p.content == plain.content else p for p in item.properties]
    assert_only_the_picture_is_left(heif_file([item]))
    assert len(stripped(heif_file([item]))) == len(expected)


def test_hevc_pictures_lose_their_messages() -> None:
    picture = coded_photo(photo_pixels((74, 58)))
    kind, message = sei_unit(SECRET)
    item = coded_item(picture, colr_nclx(), more_sets=((kind, message),))
    item.content = with_length(message) + item.content + with_length(message)
    assert assert_only_the_picture_is_left(heif_file([item])) == PLAIN


def test_avif_pictures_lose_their_messages() -> None:
    content = avif(photo_pixels((74, 58)))
    message = bytes([5 << 3 | 2, len(SECRET) + 1, 4]) + SECRET  # a metadata unit
    file = parse_heif(content)
    (location,) = file.locations.values()
    (extent,) = location.extents
    old_place = struct.pack(">II", *extent)
    assert content.count(old_place) == 1
    longer = content.replace(old_place, struct.pack(">II", extent.start, extent.length + len(message)))
    # The picture is the last thing in the file; its own units come first, each with its length.
    assert len(content) == extent.start + extent.length
    longer = longer.replace(
        struct.pack(">I", extent.length + 8) + b"mdat",
        struct.pack(">I", extent.length + 8 + len(message)) + b"mdat",
    )
    assert assert_only_the_picture_is_left(longer + message) == stripped(content)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_keeps_its_orientation(orientation: int) -> None:
    exif = secret_exif(orientation)
    item = photo_item(*orientation_properties(orientation))
    assert_only_the_picture_is_left(heif_file([item, exif_item(exif.tobytes())]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_keeps_its_orientation(orientation: int) -> None:
    exif = secret_exif(orientation)
    result = assert_only_the_picture_is_left(avif(photo_pixels((74, 58)), exif=exif))
    with Image.open(io.BytesIO(result)) as image:
        assert dict(image.getexif()) == ({} if orientation == 1 else {ORIENTATION: orientation})


@pytest.mark.parametrize("iloc_version", [0, 1, 2])
def test_items_are_found_in_every_version_of_their_list(iloc_version: int) -> None:
    content = heif_file([photo_item(), exif_item(SECRET)], iloc_version=iloc_version)
    assert assert_only_the_picture_is_left(content) == PLAIN


@pytest.mark.parametrize("in_idat", [False, True])
def test_pictures_in_several_parts_are_put_together(in_idat: bool) -> None:
    item = photo_item()
    item.n_extents, item.in_idat = 5, in_idat
    assert assert_only_the_picture_is_left(heif_file([item, exif_item(SECRET)])) == PLAIN


def test_a_photo_as_phones_write_it_keeps_its_tiles_and_how_they_are_shown() -> None:
    crop = clap(200, 160, (10, 1), (-6, 1))
    items = tiled_photo(photo_pixels((300, 220)), 128, colr_icc(ICC), crop, irot(3))
    items += [exif_item(b"MM\0*SECRET"), xmp_item(SECRET), thumbnail_item(), auxiliary_item(GAIN_MAP)]
    result = assert_only_the_picture_is_left(heif_file(items, gap=SECRET))
    assert kinds_of_items(result) == [b"grid"] + [b"hvc1"] * 6
    assert heif_pixels(result).pixels.shape == (200, 160, 3)
    assert heif_pixels(result).icc_profile == ICC


@pytest.mark.parametrize("first", [True, False], ids=["ahead of", "behind"])
def test_items_are_kept_in_their_order_and_numbered_anew(first: bool) -> None:
    others = [thumbnail_item(7 if first else 1), exif_item(SECRET, 7 if first else 1)]
    tiles = tiled_photo(photo_pixels((128, 128)), 64)
    if first:  # the grid is the last item of all
        grid, tiles = tiles[0], tiles[1:]
        grid.references = [(b"dimg", [3, 4, 5, 6])]
        content = heif_file([*others, *tiles, grid], primary=7)
        assert kinds_of_items(stripped(content)) == [b"hvc1"] * 4 + [b"grid"]
    else:
        content = heif_file([*tiles, *others])
        assert kinds_of_items(stripped(content)) == [b"grid"] + [b"hvc1"] * 4
    assert_only_the_picture_is_left(content)


def test_layers_laid_over_each_other_are_kept() -> None:
    places = struct.pack(">BBHHHHIIiiii", 0, 1, 0, 0, 0, 65535, 96, 80, 0, 0, 10, 20)
    overlay = Item(b"iovl", places + SECRET, [ispe(96, 80)], [(b"dimg", [2, 3])], in_idat=True)
    layers = [photo_item(), photo_item(seed=1, size=(64, 48))]
    result = assert_only_the_picture_is_left(heif_file([overlay, *layers]))
    assert kinds_of_items(result) == [b"iovl", b"hvc1", b"hvc1"]


def test_a_picture_that_is_another_one_turned_is_kept() -> None:
    turned = Item(b"iden", b"", [ispe(74, 58), irot(1)], [(b"dimg", [2])])
    turned.n_extents = 0
    result = assert_only_the_picture_is_left(heif_file([turned, photo_item(), exif_item(SECRET)]))
    assert kinds_of_items(result) == [b"iden", b"hvc1"]


@pytest.mark.parametrize("is_premultiplied", [False, True])
def test_heic_keeps_its_alpha_plane(is_premultiplied: bool) -> None:
    photo, alpha = (
        photo_item(size=(64, 64)),
        coded_item(hevc_picture(secret_pixels() | 128), auxc(ALPHA, SECRET)),
    )
    alpha.references.append((b"auxl", [1]))
    photo.references += [(b"prem", [2])] if is_premultiplied else []
    result = assert_only_the_picture_is_left(heif_file([photo, alpha]))
    assert heif_pixels(result).pixels.shape == (64, 64, 4)


@pytest.mark.parametrize("options", [{}, {"alpha_premultiplied": True}, {"tile_rows": 1, "tile_cols": 1}])
def test_avif_keeps_its_alpha_plane(options: dict[str, Any]) -> None:
    rgba = np.dstack([photo_pixels((140, 90)), photo_pixels((140, 90), seed=1)[..., 0]])
    assert_only_the_picture_is_left(avif(rgba, xmp=SECRET, exif=secret_exif(), icc_profile=ICC, **options))


def test_avif_animation_keeps_its_picture() -> None:
    photo = photo_pixels((64, 64))
    more = Image.fromarray(photo[::-1])
    result = assert_only_the_picture_is_left(avif(photo, xmp=SECRET, save_all=True, append_images=[more]))
    assert result[8:12] == b"avif"
    with Image.open(io.BytesIO(result)) as image:
        assert getattr(image, "n_frames", 1) == 1


def test_compressed_pixels_are_carried_over_byte_for_byte() -> None:
    picture = coded_photo(photo_pixels((74, 58)))
    assert picture.slice_units in stripped(heif_file([coded_item(picture), exif_item(SECRET)]))


@pytest.mark.parametrize("neutral", [b"a profile of colours only", None], ids=["changed", "dropped"])
def test_colour_profiles_are_neutralised(neutral: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(icc, "neutral", lambda _: neutral)
    result = stripped(heif_file([photo_item(colr_icc(SECRET))]))
    assert SECRET not in result
    assert heif_pixels(result).icc_profile == neutral


@pytest.mark.parametrize(("brand", "kept"), [(b"heix", b"heix"), (b"msf1", b"mif1"), (b"SECR", b"mif1")])
def test_brands_of_still_pictures_are_kept(brand: bytes, kept: bytes) -> None:
    assert stripped(heif_file([photo_item()], brand=brand))[8:12] == kept


def test_tiles_that_share_their_bytes_share_them_still() -> None:
    tiles = [coded_item(coded_photo(photo_pixels((64, 64))), colr_nclx()) for _ in range(4)]
    content = heif_file([grid_item((2, 2), (128, 128), [2, 3, 4, 5]), *tiles, exif_item(SECRET)])
    result = assert_only_the_picture_is_left(content)
    assert result.count(tiles[0].content) == 1


def neutral_grey(number: int) -> bytes:
    return icc.neutral(profiles.grey(1 + number / 50)) or b""


def test_many_properties_take_two_bytes_each_to_name() -> None:
    sizes = [
        coded_item(coded_photo(photo_pixels((64, 64), seed)), colr_icc(neutral_grey(seed)))
        for seed in range(66)
    ]
    turned = [
        coded_item(coded_photo(photo_pixels((64, 64), i)), clap(64, 64, (0, 1), (0, i))) for i in range(1, 67)
    ]
    tiles = [*sizes, *turned]  # more than libheif reads (100 properties), but others do
    content = heif_file([grid_item((11, 12), (768, 704), range(2, 134)), *tiles])
    result = stripped(content)
    assert stripped(result) == result
    before, after = parse_heif(content), parse_heif(result)
    assert len(after.properties) > 127
    for number in range(1, 134):
        assert list(after.properties_of(number)) == list(before.properties_of(number))


# Refused -----------------------------------------------------------------------------------------


def unknown_essential() -> bytes:
    return heif_file([photo_item(Property(box(b"sfhe", SECRET), is_essential=True))])


def essential_colours() -> Property:
    return Property(box(b"colr", b"nclc", bytes(6)), is_essential=True)


def primary_with(**changes: Any) -> bytes:
    item = photo_item()
    for name, value in changes.items():
        setattr(item, name, value)
    return heif_file([item])


def two_pictures_in_one_item() -> bytes:
    item = photo_item()
    item.content += item.content
    return heif_file([item])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (unknown_essential, "cannot be shown without b'sfhe', which is not known"),
        (lambda: heif_file([photo_item(essential_colours())]), "cannot be shown without b'colr'"),
        (lambda: primary_with(protection=1), "picture 1 is protected"),
        (lambda: primary_with(data_reference=1), "item 1 lies in another file"),
        (lambda: primary_with(construction_method=2), "put together in a way that is not known"),
        (lambda: primary_with(kind=b"tmap"), "is of kind b'tmap', which is not known"),
        (lambda: primary_with(properties=[ispe(74, 58)]), "has 0 b'hvcC' properties"),
        (lambda: primary_with(content=b"\0\0\0\x7f" + bytes(9)), "HEVC picture ends"),
        (two_pictures_in_one_item, "2 HEVC pictures in one item"),
        (lambda: heif_file([photo_item()], meta_boxes=[full_box(b"ipro", 0, 0)]), "protected items"),
        (lambda: heif_file([photo_item()], primary=2), "picture 2 is missing"),
        (lambda: heif_file([grid_item((2, 2), (64, 64), [2]), photo_item()]), "4 tiles is made of 1"),
        (lambda: heif_file([photo_item()], meta_boxes=[box(b"iref", bytes(4))] * 2), "more than one b'iref'"),
        (lambda: PLAIN + PLAIN, "more than one b'ftyp'"),
        (lambda: PLAIN[:-1], "takes"),
        (lambda: box(b"ftyp", b"heic", bytes(4)), "no meta box in the file"),
        (lambda: b"", "box|file"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(make: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(UnusableImageError, match=reason):
        stripped(make())


def test_items_that_overlap_are_refused() -> None:
    """A small file would become a large one: each of its pictures names the same bytes once more."""
    items = tiled_photo(photo_pixels((256, 256)), 64)
    content = bytearray(heif_file(items))
    file = parse_heif(bytes(content))
    first = file.locations[2].extents[0]
    for number in range(3, 18):
        old = struct.pack(">II", *file.locations[number].extents[0])
        at = content.index(old)
        content[at : at + 8] = struct.pack(">II", first.start, len(content) - first.start - number)
    with pytest.raises(UnusableImageError, match="items overlap"):
        stripped(bytes(content))


def test_damaged_files_are_stripped_or_refused_and_never_stop_a_run() -> None:
    generator = random.Random(1)
    n_refused = 0
    for content in files_of_all_kinds():
        for _ in range(300):
            try:
                result = stripped(damaged(content, generator))
            except UnusableImageError:
                n_refused += 1
            else:
                assert stripped(result) == result
                assert [found.kind for found in boxes(memoryview(result))] == [b"ftyp", b"meta", b"mdat"]
    assert 300 < n_refused < 850
