from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from fruits_assets.photos.decoding import decode_rgb
from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.photos.personal_metadata import strip_personal_metadata
from fruits_assets_tests.photos.photo_files import (
    APP0,
    APP1,
    APP2,
    APP13,
    COM,
    ICC,
    ORDINARY,
    chunk,
    encoded,
    jpeg_with,
    photo,
    png_with,
    segment,
)

SECRET = b"SECRET"
MAKER, ORIENTATION, GPS_IFD, GPS_DATE = 0x010F, 0x0112, 0x8825, 29


def secret_exif(orientation: int | None = None) -> Image.Exif:
    exif = Image.Exif()
    exif[MAKER] = "SECRET maker"
    exif.get_ifd(GPS_IFD)[GPS_DATE] = "SECRET"
    if orientation:
        exif[ORIENTATION] = orientation
    return exif


def frames(content: bytes, n_frames: int) -> list[NDArray[Any]]:
    """The first frames as stored: neither upright nor converted."""
    pixels = []
    with Image.open(io.BytesIO(content)) as image:
        for i in range(n_frames):
            image.seek(i)
            pixels.append(np.asarray(image).copy())
    return pixels


def count_frames(content: bytes) -> int:
    with Image.open(io.BytesIO(content)) as image:
        return getattr(image, "n_frames", 1)


def info(content: bytes) -> dict[str | tuple[int, int], Any]:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return image.info


def exif_of(content: bytes) -> dict[int, Any]:
    with Image.open(io.BytesIO(content)) as image:
        return dict(image.getexif())


def assert_only_the_picture_is_left(content: bytes, secret: bytes = SECRET, n_frames: int = 1) -> bytes:
    """Strip, compare all there is to compare, and return the stripped file."""
    assert secret in content
    stripped = strip_personal_metadata(content)
    assert secret not in stripped
    assert np.array_equal(np.asarray(decode_rgb(stripped)), np.asarray(decode_rgb(content)))
    for before, after in zip(frames(content, n_frames), frames(stripped, n_frames), strict=True):
        assert np.array_equal(before, after)
    assert strip_personal_metadata(stripped) == stripped
    return stripped


# JPEG --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "personal",
    [
        segment(APP1, secret_exif().tobytes()),
        segment(APP1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>SECRET</x:xmpmeta>"),
        segment(APP1, b"http://ns.adobe.com/xmp/extension/\0SECRET"),
        segment(APP13, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x06SECRET"),
        segment(APP2, b"MPF\0SECRET"),
        segment(APP0, b"JFXX\0\x13SECRET"),
        segment(0xEB, b"JP\0\0SECRET"),  # JUMBF: who made it and with what
        segment(COM, b"SECRET"),
        segment(COM, b"SECRET") + b"\xff\xff\xff" + segment(COM, b"SECRET\xff\xd9\xff\xd8"),
    ],
    ids=["EXIF", "XMP", "extended XMP", "IPTC", "MPF", "JFXX", "JUMBF", "comment", "fill bytes"],
)
@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")
def test_jpeg_loses_personal_segment(personal: bytes) -> None:
    plain = encoded(photo(), "JPEG")
    assert assert_only_the_picture_is_left(jpeg_with(personal)) == plain


def test_jpeg_loses_what_follows_its_end() -> None:
    plain = encoded(photo(), "JPEG")
    assert assert_only_the_picture_is_left(plain + b"SECRET" + jpeg_with(segment(COM, b"SECRET"))) == plain


def test_multi_picture_jpeg_keeps_the_first_picture() -> None:
    second = photo().rotate(180)
    content = encoded(photo(), "MPO", save_all=True, append_images=[second], comment=SECRET)
    assert count_frames(content) == 2
    stripped = assert_only_the_picture_is_left(content)
    assert count_frames(stripped) == 1
    assert len(stripped) < 0.7 * len(content)


def test_progressive_jpeg_keeps_all_scans() -> None:
    plain = encoded(photo(), "JPEG", progressive=True)
    assert plain.count(b"\xff\xda") > 3
    second_scan = plain.index(b"\xff\xc4", plain.index(b"\xff\xda"))
    between_scans = plain[:second_scan] + segment(COM, b"SECRET") + plain[second_scan:]
    assert assert_only_the_picture_is_left(between_scans) == plain


@pytest.mark.parametrize("options", [{"restart_marker_blocks": 1}, {"restart_marker_rows": 1}])
def test_jpeg_keeps_its_restart_markers(options: dict[str, int]) -> None:
    plain = encoded(photo(size=(97, 83)), "JPEG", quality=95, **options)
    assert all(bytes([0xFF, 0xD0 + i]) in plain for i in range(4))
    assert assert_only_the_picture_is_left(jpeg_with(segment(COM, SECRET), jpeg=plain)) == plain


def test_jpeg_keeps_its_colour_profile() -> None:
    content = encoded(photo(), "JPEG", icc_profile=ICC, exif=secret_exif(), comment=SECRET)
    assert info(assert_only_the_picture_is_left(content))["icc_profile"] == ICC


@pytest.mark.parametrize("orientation", range(2, 9))
def test_jpeg_keeps_its_orientation_and_no_other_tag(orientation: int) -> None:
    content = encoded(photo(), "JPEG", exif=secret_exif(orientation))
    assert exif_of(assert_only_the_picture_is_left(content)) == {ORIENTATION: orientation}


def test_orientation_found_in_xmp_is_kept() -> None:
    xmp = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="6" dc:creator="SECRET"/>'
    stripped = assert_only_the_picture_is_left(jpeg_with(segment(APP1, xmp)))
    assert decode_rgb(stripped).size == (29, 37)


@pytest.mark.parametrize("behind", [b"", SECRET * 1000, segment(COM, SECRET * 1000)])
def test_jpeg_without_end_marker_is_refused(behind: bytes) -> None:
    unfinished = encoded(photo(), "JPEG", exif=secret_exif(6)).removesuffix(b"\xff\xd9")
    with pytest.raises(UnusableImageError, match="its end marker is missing"):
        strip_personal_metadata(unfinished + behind)


@pytest.mark.parametrize("end", [2, 20, -2])
def test_jpeg_that_ends_before_its_picture_is_refused(end: int) -> None:
    plain = encoded(photo(), "JPEG")
    before_scan = plain.index(b"\xff\xda") if end == -2 else end
    with pytest.raises(UnusableImageError, match="no picture before its end marker"):
        strip_personal_metadata(plain[:before_scan] + b"\xff\xd9" + plain[before_scan:])


def test_cmyk_jpeg_keeps_the_marker_that_codes_its_colours() -> None:
    content = encoded(photo("CMYK"), "JPEG", comment=SECRET)
    stripped = assert_only_the_picture_is_left(content)
    assert info(stripped)["adobe_transform"] == info(content)["adobe_transform"]


@pytest.mark.parametrize(
    "garbage", [b"\x01\xc8\0\x08SECRET", b"\xff\xd8", b"\xff\xd3", b"\xff\x01", b"\xff\xf0\0\x02"]
)
def test_jpeg_with_garbage_between_segments_is_refused(garbage: bytes) -> None:
    start = encoded(photo(), "JPEG")
    first_table = start.index(b"\xff\xdb")
    with pytest.raises(UnusableImageError, match="JPEG marker"):
        strip_personal_metadata(start[:first_table] + garbage + start[first_table:])


def test_jpeg_with_a_marker_cut_by_its_end_is_refused() -> None:
    plain = encoded(photo(), "JPEG", comment=SECRET)
    with pytest.raises(UnusableImageError, match="its structure is damaged"):
        strip_personal_metadata(plain[:-30] + b"\xff\xe5\xff\xff" + plain[-30:])


# PNG ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("personal", "secret"),
    [
        (chunk(b"tEXt", b"Author\0SECRET"), SECRET),
        (chunk(b"zTXt", b"Author\0\0" + zlib.compress(SECRET)), zlib.compress(SECRET)),
        (chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0SECRET"), SECRET),
        (chunk(b"eXIf", secret_exif().tobytes().removeprefix(b"Exif\0\0")), SECRET),
        (chunk(b"tIME", b"\x07\xea\x01\x02\x03\x04\x05"), b"tIME"),
        (chunk(b"caBX", b"SECRET"), SECRET),  # C2PA: who made it and with what
        (chunk(b"prVt", b"SECRET"), SECRET),
    ],
    ids=["tEXt", "zTXt", "iTXt", "eXIf", "tIME", "caBX", "unknown"],
)
def test_png_loses_personal_chunk_before_and_after_the_picture(personal: bytes, secret: bytes) -> None:
    plain = encoded(photo("RGBA"), "PNG")
    assert assert_only_the_picture_is_left(png_with(personal, png=plain), secret) == plain
    after = plain.removesuffix(chunk(b"IEND", b"")) + personal + chunk(b"IEND", b"")
    assert assert_only_the_picture_is_left(after, secret) == plain


def test_png_loses_what_follows_its_end() -> None:
    plain = encoded(photo(), "PNG")
    assert assert_only_the_picture_is_left(plain + b"SECRET") == plain


def test_png_keeps_profile_transparency_and_resolution() -> None:
    content = encoded(
        photo("P"), "PNG", icc_profile=ICC, transparency=3, dpi=(300, 300), exif=secret_exif(6), gamma=0.5
    )
    stripped = assert_only_the_picture_is_left(content)
    kept = info(stripped)
    assert kept["icc_profile"] == ICC
    assert kept["transparency"] == info(content)["transparency"]
    assert kept["dpi"] == info(content)["dpi"]
    assert exif_of(stripped) == {ORIENTATION: 6}


def test_animated_png_keeps_its_frames() -> None:
    others = [photo().rotate(90), photo().rotate(180)]
    content = encoded(photo(), "PNG", save_all=True, append_images=others, exif=secret_exif(8))
    assert exif_of(assert_only_the_picture_is_left(content, n_frames=3)) == {ORIENTATION: 8}


def test_png_with_a_damaged_chunk_is_refused() -> None:
    others = [photo().rotate(180)]
    animated = encoded(photo(), "PNG", save_all=True, append_images=others, exif=secret_exif())
    head, last_control, tail = animated.rpartition(b"fcTL")
    assert last_control
    with pytest.raises(UnusableImageError, match="check sum of the chunk at byte"):
        strip_personal_metadata(head + b"f\xffTL" + tail)
    with pytest.raises(UnusableImageError, match="check sum of the chunk at byte"):
        strip_personal_metadata(head + b"fdTL" + tail)


def test_png_without_end_is_refused() -> None:
    content = png_with(chunk(b"tEXt", b"Author\0SECRET")).removesuffix(chunk(b"IEND", b""))
    with pytest.raises(UnusableImageError, match="its end chunk is missing"):
        strip_personal_metadata(content)


# WebP --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", [None, 6])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("lossless", [False, True])
def test_webp_loses_exif_and_xmp(lossless: bool, mode: str, orientation: int | None) -> None:
    content = encoded(
        photo(mode),
        "WEBP",
        lossless=lossless,
        icc_profile=ICC,
        exif=secret_exif(orientation),
        xmp=b"<x:xmpmeta>SECRET</x:xmpmeta>",
    )
    stripped = assert_only_the_picture_is_left(content)
    assert info(stripped)["icc_profile"] == ICC
    assert "xmp" not in info(stripped)
    assert exif_of(stripped) == ({ORIENTATION: orientation} if orientation else {})


def test_animated_webp_keeps_its_frames() -> None:
    content = encoded(
        photo(),
        "WEBP",
        save_all=True,
        append_images=[photo().rotate(90), photo().rotate(180)],
        exif=secret_exif(3),
        icc_profile=ICC,
    )
    stripped = assert_only_the_picture_is_left(content, n_frames=3)
    assert info(stripped)["icc_profile"] == ICC
    assert exif_of(stripped) == {ORIENTATION: 3}


def test_webp_loses_unknown_chunks_and_what_follows_its_end() -> None:
    plain = encoded(photo(), "WEBP", icc_profile=ICC)
    unknown = b"C2PA" + struct.pack("<I", 6) + SECRET
    longer = b"RIFF" + struct.pack("<I", len(plain) - 8 + len(unknown)) + plain[8:] + unknown
    assert assert_only_the_picture_is_left(longer) == plain
    assert assert_only_the_picture_is_left(plain + b"SECRET") == plain


# TIFF and GIF ------------------------------------------------------------------------------------


def tiff_of(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.random.default_rng(0).integers(0, 65536, (7, 9), np.uint16))
    return photo(mode)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_tiff_loses_its_personal_tags_and_no_pixel(mode: str) -> None:
    tags = ImageFileDirectory_v2()
    tags[315] = "SECRET artist"
    tags[0x8769] = {36867: "SECRET date"}
    tags[GPS_IFD] = {GPS_DATE: "SECRET"}
    content = encoded(tiff_of(mode), "TIFF", tiffinfo=tags, icc_profile=ICC)
    stripped = assert_only_the_picture_is_left(content)
    assert info(stripped)["icc_profile"] == ICC
    assert exif_of(stripped).keys().isdisjoint({315, 0x8769, GPS_IFD})


@pytest.mark.parametrize(
    "tag",
    [269, 270, 271, 272, 305, 315, 316, 33432, 37510, 0x9C9D, 65000],
    ids=str,  # document name to copyright, user comment, Windows' author, private
)
def test_tiff_loses_any_tag_that_is_not_about_the_picture(tag: int) -> None:
    tags = ImageFileDirectory_v2()
    tags.tagtype[tag] = 2
    tags[tag] = "SECRET"
    assert tag not in exif_of(assert_only_the_picture_is_left(encoded(photo(), "TIFF", tiffinfo=tags)))


def test_tiff_loses_what_only_a_later_page_tells() -> None:
    tags = ImageFileDirectory_v2()
    tags[315] = "SECRET"
    later = photo().rotate(180)
    later.encoderinfo = {"tiffinfo": tags}
    content = encoded(photo(), "TIFF", save_all=True, append_images=[later])
    assert count_frames(content) == 2
    assert 315 not in exif_of(content)
    assert_only_the_picture_is_left(content)


def test_tiff_stays_upright() -> None:
    tags = ImageFileDirectory_v2()
    tags[ORIENTATION], tags[315] = 6, "SECRET"
    stripped = assert_only_the_picture_is_left(encoded(photo(), "TIFF", tiffinfo=tags))
    assert decode_rgb(stripped).size == (29, 37)


@pytest.mark.parametrize("position", ["before", "after"])
def test_gif_loses_its_comment(position: str) -> None:
    content = encoded(photo("P"), "GIF")
    comment = b"!\xfe" + bytes([len(SECRET)]) + SECRET + b"\0"
    image = content.index(b",", 13 + 3 * 256) if position == "before" else len(content) - 1
    assert_only_the_picture_is_left(content[:image] + comment + content[image:])


# All formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORDINARY)
def test_image_without_personal_metadata_stays_as_it_is(name: str) -> None:
    content = ORDINARY[name]()
    assert strip_personal_metadata(content) == content


def shuffled(random_numbers: random.Random, blocks: Iterable[bytes]) -> list[bytes]:
    chosen = [block for block in blocks if random_numbers.random() < 0.6]
    random_numbers.shuffle(chosen)
    return chosen


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")
def test_any_mix_of_blocks_leaves_only_the_picture(seed: int) -> None:
    random_numbers = random.Random(seed)
    noise = bytes(random_numbers.choices([0x00, 0xD9, 0xDA, 0xE1, 0xFF], k=99)) + SECRET
    jpeg_blocks = [
        segment(APP1, b"Exif\0\0" + noise),
        segment(APP1, b"http://ns.adobe.com/xap/1.0/\0" + noise),
        segment(APP2, b"MPF\0" + noise),
        segment(APP13, b"Photoshop 3.0\0" + noise),
        b"\xff\xff" + segment(COM, noise),
        segment(0xE7, noise),
    ]
    jpeg = encoded(photo(), "JPEG", progressive=random_numbers.random() < 0.5)
    mixed = jpeg_with(segment(COM, SECRET), *shuffled(random_numbers, jpeg_blocks), jpeg=jpeg) + noise
    assert assert_only_the_picture_is_left(mixed) == jpeg

    png_blocks = [
        chunk(b"tEXt", b"Comment\0" + noise),
        chunk(b"iTXt", b"Comment\0\0\0\0\0SECRET"),
        chunk(b"eXIf", noise),
        chunk(b"prVt", noise),
    ]
    png = encoded(photo(), "PNG")
    mixed = png_with(chunk(b"tEXt", b"a\0SECRET"), *shuffled(random_numbers, png_blocks), png=png) + noise
    assert assert_only_the_picture_is_left(mixed) == png
