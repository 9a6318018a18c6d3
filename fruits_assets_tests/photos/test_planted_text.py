"""Text planted where no reader looks: gone after stripping, or the photo is refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from fruits_assets.photos.decoding import decode_rgb
from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.photos.personal_metadata import strip_personal_metadata
from fruits_assets_tests.photos import profiles
from fruits_assets_tests.photos.photo_files import (
    APP0,
    APP14,
    COM,
    chunk,
    encoded,
    grey_of_16_bits,
    jpeg_with,
    photo,
    png_with,
    segment,
    turned_exif,
)

TEXT = b"JaneDoe was here"
SOF0, DHT, SOS, DQT, DRI, DAC = 0xC0, 0xC4, 0xDA, 0xDB, 0xDD, 0xCC


def assert_text_is_gone(content: bytes) -> bytes:
    assert b"JaneDoe" in content
    stripped = strip_personal_metadata(content)
    assert b"Jane" not in stripped
    assert np.array_equal(np.asarray(decode_rgb(stripped)), np.asarray(decode_rgb(content)))
    assert strip_personal_metadata(stripped) == stripped
    assert len(stripped) <= len(content) + 300
    return stripped


def assert_refused(content: bytes, reason: str = "its structure is damaged") -> None:
    assert b"JaneDoe" in content
    with pytest.raises(UnusableImageError, match=reason):
        strip_personal_metadata(content)


# JPEG --------------------------------------------------------------------------------------------


def without_jfif(jpeg: bytes) -> bytes:
    return jpeg[:2] + jpeg[20:]


def longer(jpeg: bytes, marker: int) -> bytes:
    """The first such segment with the text at its end."""
    at = jpeg.index(bytes([0xFF, marker]))
    (length,) = struct.unpack_from(">H", jpeg, at + 2)
    return jpeg[:at] + segment(marker, jpeg[at + 4 : at + 2 + length] + TEXT) + jpeg[at + 2 + length :]


def jpeg_of_other_tables() -> bytes:
    """With tables of a number that no component refers to."""
    quantization = b"\x03" + (TEXT * 4)
    huffman = b"\x03" + bytes(7) + bytes([16]) + bytes(8) + TEXT
    return jpeg_with(segment(DQT, quantization), segment(DHT, huffman))


@pytest.mark.parametrize(
    "build",
    [
        lambda: jpeg_with(
            segment(APP0, b"JFIF\0\1\1\1\0\x48\0\x48\2\2" + TEXT), jpeg=without_jfif(encoded(photo(), "JPEG"))
        ),
        lambda: longer(encoded(photo(), "JPEG"), APP0),
        lambda: longer(encoded(photo("CMYK"), "JPEG"), APP14),
        lambda: jpeg_with(segment(APP14, b"Adobe\0\x64" + b"Jane" + b"\1" + TEXT)),
        lambda: jpeg_with(segment(APP0, b"JFXX\0\x10" + TEXT)),
        jpeg_of_other_tables,
        lambda: jpeg_with(segment(DAC, b"\0\x10"), segment(COM, TEXT)),
        lambda: encoded(photo(), "JPEG") + TEXT,
        lambda: encoded(photo(), "JPEG", icc_profile=profiles.display_p3()),
    ],
    ids=["preview", "JFIF", "Adobe", "Adobe flags", "JFXX", "other tables", "DAC", "trailer", "profile"],
)
def test_jpeg_loses_text_planted_in_it(build: Callable[[], bytes]) -> None:
    assert_text_is_gone(build())


@pytest.mark.parametrize("marker", [DQT, DHT, SOF0, SOS], ids=["DQT", "DHT", "SOF", "SOS"])
def test_jpeg_with_an_overlong_table_or_header_is_refused(marker: int) -> None:
    assert_refused(longer(encoded(photo(), "JPEG"), marker))


def test_jpeg_with_an_overlong_restart_interval_is_refused() -> None:
    assert_refused(jpeg_with(segment(DRI, b"\0\0" + TEXT)))


def test_jpeg_with_a_second_scan_of_the_same_components_is_refused() -> None:
    jpeg = encoded(photo(), "JPEG")
    scan = jpeg[jpeg.index(b"\xff\xda") : -2]
    assert_refused(jpeg[:-2] + scan + TEXT + b"\xff\xd9", "scanned twice")


def test_jpeg_keeps_its_resolution_and_loses_its_preview() -> None:
    jpeg = without_jfif(encoded(photo(), "JPEG"))
    stripped = assert_text_is_gone(
        jpeg_with(segment(APP0, b"JFIF\0\1\2\1\1\x2c\1\x2c\4\4" + TEXT * 3), jpeg=jpeg)
    )
    assert stripped == encoded(photo(), "JPEG", dpi=(300, 300)).replace(b"JFIF\0\1\1", b"JFIF\0\1\2", 1)


def test_jpeg_profile_of_several_segments_stays_whole() -> None:
    content = encoded(photo(), "JPEG", icc_profile=profiles.large())
    with Image.open(io.BytesIO(assert_text_is_gone(content))) as image:
        profile = image.info["icc_profile"]
    assert len(profile) > 65_533
    assert ImageCms.ImageCmsProfile(io.BytesIO(profile))


# PNG ---------------------------------------------------------------------------------------------


def png_with_longer_pixels(behind: bytes) -> bytes:
    png = encoded(photo(), "PNG")
    at = png.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", png, at)
    return png[:at] + chunk(b"IDAT", png[at + 8 : at + 8 + length] + behind) + png[at + 12 + length :]


def png_with_more_rows() -> bytes:
    png = encoded(photo(), "PNG")
    at = png.index(b"IDAT") - 4
    rows = zlib.decompress(png[at + 8 : at + 8 + struct.unpack_from(">I", png, at)[0]])
    return png[:at] + chunk(b"IDAT", zlib.compress(rows + TEXT, 0)) + chunk(b"IEND", b"")


def png_with_fewer_rows() -> bytes:
    """And more pixels of their own behind the end of the others."""
    png = encoded(photo(), "PNG")
    at = png.index(b"IDAT") - 4
    return png[:at] + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IDAT", TEXT) + png[at:]


PLANTED_IN_PNG: dict[str, Callable[[], bytes]] = {
    "end": lambda: encoded(photo(), "PNG")[:-12] + chunk(b"IEND", TEXT),
    "behind the pixels": lambda: png_with_longer_pixels(TEXT),
    "chunk behind the pixels": lambda: (
        encoded(photo(), "PNG")[:-12] + chunk(b"IDAT", TEXT) + chunk(b"IEND", b"")
    ),
    "background": lambda: png_with(chunk(b"bKGD", bytes(6) + TEXT)),
    "gamma": lambda: png_with(chunk(b"gAMA", bytes(4) + TEXT)),
    "second gamma": lambda: png_with(
        chunk(b"gAMA", b"\0\0\xb1\x8f"), chunk(b"gAMA", b"Jane"), chunk(b"tEXt", TEXT)
    ),
    "sRGB": lambda: png_with(chunk(b"sRGB", b"\0" + TEXT)),
    "significant bits": lambda: png_with(chunk(b"sBIT", b"\x08\x08\x08" + TEXT)),
    "code points": lambda: png_with(chunk(b"cICP", b"\x01\x0d\0\x01" + TEXT)),
    "behind primaries": lambda: png_with(chunk(b"cHRM", bytes(32) + TEXT)),
    "primaries": lambda: png_with(chunk(b"cHRM", TEXT + TEXT)),
    "behind resolution": lambda: png_with(chunk(b"pHYs", bytes(9) + TEXT)),
    "resolution": lambda: png_with(chunk(b"pHYs", TEXT[:8] + b"\1")),
    "resolution behind the pixels": lambda: (
        encoded(photo(), "PNG")[:-12] + chunk(b"pHYs", TEXT[:9]) + chunk(b"IEND", b"")
    ),
    "mastering display": lambda: png_with(chunk(b"mDCV", TEXT + TEXT[:8])),
    "histogram": lambda: png_with(chunk(b"hIST", TEXT)),
    "suggested palette": lambda: png_with(chunk(b"PLTE", TEXT + b"12")),
    "other suggested palette": lambda: png_with(chunk(b"sPLT", TEXT + b"\0\x08" + bytes(6))),
    "name of the profile": lambda: png_with(
        chunk(b"iCCP", TEXT + b"\0\0" + zlib.compress(profiles.display_p3()))
    ),
    "behind the profile": lambda: png_with(
        chunk(b"iCCP", b"x\0\0" + zlib.compress(profiles.display_p3()) + TEXT)
    ),
    "no profile": lambda: png_with(chunk(b"iCCP", b"x\0\0" + TEXT)),
}


@pytest.mark.parametrize("place", PLANTED_IN_PNG)
def test_png_loses_text_planted_in_it(place: str) -> None:
    assert_text_is_gone(PLANTED_IN_PNG[place]())


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: png_with(chunk(b"tRNS", bytes(6) + TEXT)), "length of its transparency"),
        (
            lambda: encoded(photo("P"), "PNG").replace(
                chunk(b"IEND", b""), chunk(b"tRNS", TEXT) + chunk(b"IEND", b"")
            ),
            "behind",
        ),
        (lambda: png_with(chunk(b"JAnE", TEXT)), "critical chunk JAnE is unknown"),
        (lambda: png_with(chunk(b"tEXt", TEXT)[:-1] + b"\0"), "check sum"),
        (png_with_more_rows, "more pixels"),
        (png_with_fewer_rows, "fewer pixels"),
        (lambda: png_with(chunk(b"acTL", b"\0\0\0\1\0\0\0\0" + TEXT)), "number of its frames"),
        (lambda: png_with(chunk(b"fcTL", TEXT + TEXT[:10])), "number of its frames"),
        (lambda: png_with(chunk(b"fdAT", bytes(4) + TEXT)), "without the frame"),
    ],
)
def test_png_that_cannot_be_taken_apart_is_refused(build: Callable[[], bytes], reason: str) -> None:
    assert_refused(build(), reason)


def test_png_of_many_pixels_that_take_little_space_is_known_to_its_end() -> None:
    """It is taken in a megabyte at a time."""
    png = encoded(Image.new("L", (2500, 2000)), "PNG")
    assert strip_personal_metadata(png) == png
    assert assert_text_is_gone(png + TEXT) == png


def test_png_profile_whose_compressed_data_lack_their_end_stays() -> None:
    compressed = zlib.compress(profiles.display_p3())[:-4]
    stripped = assert_text_is_gone(png_with(chunk(b"iCCP", b"JaneDoe\0\0" + compressed)))
    with Image.open(io.BytesIO(stripped)) as image:
        assert ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))


def test_animated_png_loses_what_lies_behind_the_pixels_of_a_frame() -> None:
    png = encoded(photo(), "PNG", save_all=True, append_images=[photo().rotate(180)])
    at = png.index(b"fdAT") - 4
    (length,) = struct.unpack_from(">I", png, at)
    planted = png[:at] + chunk(b"fdAT", png[at + 8 : at + 8 + length] + TEXT) + png[at + 12 + length :]
    assert assert_text_is_gone(planted) == png


# WebP --------------------------------------------------------------------------------------------


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP"
    for kind, data in chunks:
        body += kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff_chunks(webp: bytes) -> list[tuple[bytes, bytes]]:
    chunks, position = [], 12
    while position < len(webp):
        (length,) = struct.unpack_from("<I", webp, position + 4)
        chunks.append((webp[position : position + 4], webp[position + 8 : position + 8 + length]))
        position += 8 + length + length % 2
    return chunks


@pytest.mark.parametrize("kind", [b"VP8X", b"ANIM", b"ANMF", b"ICCP"])
def test_webp_loses_text_at_the_end_of_a_chunk(kind: bytes) -> None:
    others = [photo("RGBA").rotate(180)]
    webp = encoded(
        photo("RGBA"), "WEBP", save_all=True, append_images=others, icc_profile=profiles.display_p3()
    )
    # In a frame, the text is a chunk of its own.
    text = b"Jane" + struct.pack("<I", len(TEXT)) + TEXT if kind == b"ANMF" else TEXT
    planted = riff(*((k, data + text if k == kind else data) for k, data in riff_chunks(webp)))
    stripped = strip_personal_metadata(planted)
    assert b"Jane" not in stripped
    assert stripped == strip_personal_metadata(webp)
    with Image.open(io.BytesIO(stripped)) as image:
        assert getattr(image, "n_frames", 1) == 2


def test_webp_whose_padding_says_something_is_refused() -> None:
    """libwebp takes that byte for one of the picture's, so it can neither go nor stay."""
    webp = next(
        webp
        for quality in range(100)
        if (webp := encoded(photo(), "WEBP", lossless=True, quality=quality))[16] % 2
    )
    with pytest.raises(UnusableImageError, match="padding is not zero"):
        strip_personal_metadata(webp[:-1] + b"J")


# GIF ---------------------------------------------------------------------------------------------


def gif_with(extension: bytes, before_image: bool = True) -> bytes:
    gif = encoded(photo("P"), "GIF")
    at = 13 + 3 * 256 if before_image else len(gif) - 1
    return gif[:at] + extension + gif[at:]


def extension(label: int, *blocks: bytes) -> bytes:
    return b"!" + bytes([label]) + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


@pytest.mark.parametrize("before_image", [True, False])
@pytest.mark.parametrize(
    "planted",
    [
        extension(0xFE, TEXT),
        extension(0xFF, b"XMP DataXMP", TEXT),
        extension(0xFF, b"JaneDoe 1.0", TEXT),
        extension(0xFF, b"NETSCAPE2.0", b"\1\0\0", TEXT),
        extension(0xFF, b"NETSCAPE2.0" + TEXT, b"\1\0\0" + TEXT),
        extension(0x01, bytes(12), TEXT),
        extension(0xF9, b"\0\0\0\0" + TEXT),
        extension(0xF9, b"\0\0\0\0", TEXT),
        extension(0x4A, TEXT),
    ],
    ids=[
        "comment",
        "XMP",
        "application",
        "loop",
        "loop's name",
        "plain text",
        "control",
        "control 2",
        "unknown",
    ],
)
def test_gif_loses_its_extensions(planted: bytes, before_image: bool) -> None:
    assert_text_is_gone(gif_with(planted, before_image))


def test_gif_loses_what_follows_its_pixels_or_its_end() -> None:
    gif = encoded(photo("P"), "GIF")
    assert assert_text_is_gone(gif + TEXT) == gif
    assert gif.endswith(b"\0;")
    assert assert_text_is_gone(gif[:-2] + bytes([len(TEXT)]) + TEXT + b"\0;") == gif


def test_gif_with_bytes_between_its_blocks_is_refused() -> None:
    assert_refused(gif_with(TEXT))


# BMP ---------------------------------------------------------------------------------------------


def bmp_of_version_5(
    space: bytes = b"sRGB", profile: bytes = b"", gap: bytes = b"", text: bytes = b""
) -> bytes:
    bmp = encoded(photo(), "BMP")
    width_to_colours, pixels = bmp[18:54], bmp[54:]
    start = 14 + 124 + len(gap)
    header = struct.pack("<I", 124) + width_to_colours + bytes(16) + space[::-1] + text.ljust(48, b"\0")
    header += struct.pack("<IIII", 4, start - 14 + len(pixels) if profile else 0, len(profile), 0)
    size = start + len(pixels) + len(profile)
    return b"BM" + struct.pack("<I4sI", size, bytes(4), start) + header + gap + pixels + profile


@pytest.mark.parametrize(
    "content",
    [
        encoded(photo(), "BMP") + TEXT,
        encoded(photo("P"), "BMP") + TEXT,
        encoded(photo(), "BMP")[:6] + b"Jane" + encoded(photo(), "BMP")[10:] + TEXT,
        bmp_of_version_5(b"LINK", b"C:\\Users\\JaneDoe\\iMac.icc\0"),
        bmp_of_version_5(b"MBED", profiles.display_p3()),
        bmp_of_version_5(b"MBED", TEXT),
        bmp_of_version_5(gap=TEXT),
        bmp_of_version_5(text=TEXT),
        bmp_of_version_5(b"\0\0\0\0", text=TEXT * 3),
    ],
    ids=[
        "trailer",
        "behind palette",
        "reserved",
        "linked",
        "embedded",
        "no profile",
        "gap",
        "primaries",
        "calibrated",
    ],
)
def test_bmp_loses_text_planted_in_it(content: bytes) -> None:
    assert_text_is_gone(content)


def test_bmp_keeps_a_profile_without_its_text() -> None:
    stripped = assert_text_is_gone(bmp_of_version_5(b"MBED", profiles.display_p3()))
    start, length = struct.unpack_from("<II", stripped, 14 + 112)
    assert ImageCms.ImageCmsProfile(io.BytesIO(stripped[14 + start : 14 + start + length]))
    assert 14 + start + length == len(stripped)


def rle_bmp(behind: bytes = b"") -> bytes:
    """Four by two pixels: a run, a jump, pixels one by one, and the end."""
    runs = b"\x04\x01\0\0" + b"\0\x03\x02\x01\x03\0" + b"\x01\x02" + b"\0\x01"
    palette = bytes(range(16))
    head = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 8, 1, len(runs), 0, 0, 4, 0)
    start = 14 + 40 + len(palette)
    size = start + len(runs)
    plain_palette = bytes(0 if i % 4 == 3 else value for i, value in enumerate(palette))
    return b"BM" + struct.pack("<IHHI", size, 0, 0, start) + head + plain_palette + runs + behind


def test_run_length_bmp_stays_as_it_is_and_loses_what_follows_its_end() -> None:
    assert strip_personal_metadata(rle_bmp()) == rle_bmp()
    assert assert_text_is_gone(rle_bmp(TEXT)) == rle_bmp()


# TIFF --------------------------------------------------------------------------------------------


def planted_tiff(image: Image.Image, text: bytes = TEXT, **options: object) -> bytes:
    """With a tag, a block that no tag points to, and bytes behind the end."""
    return encoded(image, "TIFF", tiffinfo={315: text.decode()}, **options) + text


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_tiff_keeps_its_strips_byte_for_byte(compression: str, mode: str) -> None:
    image = photo(mode, (200, 150))
    plain = encoded(image, "TIFF", compression=compression, strip_size=8192)
    stripped = assert_text_is_gone(planted_tiff(image, compression=compression, strip_size=8192))
    assert len(stripped) <= len(plain) + 64
    with Image.open(io.BytesIO(plain)) as before, Image.open(io.BytesIO(stripped)) as after:
        old, new = before.tag_v2, after.tag_v2  # type: ignore[attr-defined]  # the tags of TIFF only
        assert [plain[start : start + size] for start, size in zip(old[273], old[279], strict=True)] == [
            stripped[start : start + size] for start, size in zip(new[273], new[279], strict=True)
        ]


def test_tiff_keeps_16_bits_and_its_byte_order() -> None:
    plain = encoded(grey_of_16_bits(), "TIFF")
    for content in (planted_tiff(grey_of_16_bits()), big_endian_rgb_of_16_bits()):
        stripped = assert_text_is_gone(content)
        assert stripped[:2] == content[:2]
        assert struct.unpack(("<" if stripped[:1] == b"I" else ">") + "H", stripped[2:4]) == (42,)
    assert strip_personal_metadata(planted_tiff(grey_of_16_bits())) == strip_personal_metadata(plain + TEXT)


def tiff_of(entries: dict[int, tuple[int, bytes]], data: bytes, order: str = ">") -> bytes:
    """Header, directory of fields of four bytes or less, data; `entries` has type and value."""
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1}
    head = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HIH", 42, 8, len(entries))
    for tag, (kind, value) in sorted(entries.items()):
        head += struct.pack(f"{order}HHI", tag, kind, len(value) // sizes[kind]) + value.ljust(4, b"\0")
    return head + bytes(4) + data


def short(value: int) -> tuple[int, bytes]:
    return 3, struct.pack(">H", value)


def grey_tiff(entries: dict[int, tuple[int, bytes]] | None = None, behind: bytes = b"") -> bytes:
    """Four by four grey pixels, one strip."""
    all_entries = {
        **{
            256: short(4),
            257: short(4),
            258: short(8),
            259: short(1),
            262: short(1),
            277: short(1),
            278: short(4),
        },
        279: short(16),
        **(entries or {}),
    }
    start = 8 + 2 + 12 * len({273, *all_entries}) + 4
    return tiff_of({273: short(start), **all_entries}, bytes(range(16)) + behind)


def big_endian_rgb_of_16_bits() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 4, 3), np.uint16).astype(">u2").tobytes()
    n_entries = 10
    bits = 8 + 2 + 12 * n_entries + 4
    head = b"MM" + struct.pack(">HIH", 42, 8, n_entries)
    for tag, kind, count, value in (
        *((256, 4, 1, 4), (257, 4, 1, 5), (258, 3, 3, bits), (259, 3, 1, 1 << 16), (262, 3, 1, 2 << 16)),
        *((273, 4, 1, bits + 6 + len(TEXT)), (277, 3, 1, 3 << 16), (278, 4, 1, 5), (279, 4, 1, len(pixels))),
        (284, 3, 1, 1 << 16),
    ):
        head += struct.pack(">HHII", tag, kind, count, value)
    return head + bytes(4) + struct.pack(">3H", 16, 16, 16) + TEXT + pixels


def test_plain_tiff_stays_as_it_is() -> None:
    assert strip_personal_metadata(grey_tiff()) == grey_tiff()
    assert strip_personal_metadata(grey_tiff(behind=bytes(3))) == grey_tiff(behind=bytes(3))


@pytest.mark.parametrize(
    ("entries", "behind"),
    [
        ({}, TEXT),
        ({270: (2, b"Jan\0")}, TEXT),
        ({65000: (7, b"Jane")}, TEXT),
        ({34675: (2, b"Jan\0")}, TEXT),
        ({34675: (3, b"Jane")}, TEXT),
        ({254: (2, b"Jan\0")}, TEXT),
        ({279: short(16 + len(TEXT))}, TEXT),
    ],
    ids=[
        "trailer",
        "tag",
        "private tag",
        "profile of text",
        "profile of numbers",
        "wrong type",
        "strip too long",
    ],
)
@pytest.mark.filterwarnings("ignore:Metadata Warning")
def test_tiff_loses_text_planted_in_it(entries: dict[int, tuple[int, bytes]], behind: bytes) -> None:
    stripped = assert_text_is_gone(grey_tiff(entries, behind))
    with Image.open(io.BytesIO(stripped)) as image:
        assert set(image.tag_v2) == {*range(256, 260), 262, 273, 277, 278, 279}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({259: short(6)}, "old style"),
        ({259: short(12345)}, "compression 12345 is unknown"),
        ({273: short(10)}, "on top of something else"),
        ({273: short(60000)}, "structure is damaged"),
        ({279: short(15)}, "structure is damaged"),
        ({278: short(2)}, "1 strips instead of 2"),
        ({256: (2, b"abc\0")}, "type of TIFF tag 256"),
        ({278: short(0)}, "size or depth"),
        ({324: short(10), 325: short(16)}, "both"),
    ],
)
def test_tiff_that_cannot_be_taken_apart_is_refused(
    entries: dict[int, tuple[int, bytes]], reason: str
) -> None:
    assert_refused(grey_tiff(entries, TEXT), reason)


def test_tiff_with_a_tag_that_points_out_of_it_is_refused() -> None:
    """Pillow reads no tag behind such a one, so that the profile, say, would not be seen before but after."""
    content = grey_tiff({305: (2, b"abc\0")}, TEXT)
    at = content.index(struct.pack(">HHI", 305, 2, 4))
    damaged = content[: at + 4] + struct.pack(">II", 40, 60_000) + content[at + 12 :]
    assert_refused(damaged)


def test_tiff_with_strips_on_top_of_each_other_is_refused() -> None:
    start = 8 + 2 + 12 * 9 + 4
    twice = {
        278: short(2),
        273: (3, struct.pack(">HH", start, start + 4)),
        279: (3, struct.pack(">HH", 8, 8)),
    }
    assert_refused(grey_tiff(twice, TEXT), "on top of something else")


def test_jpeg_in_tiff_keeps_its_pixels_and_loses_its_segments() -> None:
    stream = jpeg_with(segment(COM, TEXT), segment(0xE5, TEXT), jpeg=encoded(photo("L"), "JPEG")) + TEXT
    content = tiff_of(
        {
            **{256: short(37), 257: short(29), 258: short(8), 259: short(7), 262: short(1), 277: short(1)},
            **{273: short(8 + 2 + 12 * 9 + 4), 278: short(29), 279: short(len(stream))},
        },
        stream,
    )
    assert_text_is_gone(content)


def test_big_tiff_loses_its_tags() -> None:
    assert_text_is_gone(planted_tiff(photo(), big_tiff=True))


# Orientation -------------------------------------------------------------------------------------

RATIONAL, FLOAT, SHORT = 5, 11, 3


def odd_orientation(kind: int, value: bytes) -> bytes:
    """An EXIF block whose orientation is of any type, its value behind the directory."""
    head = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHI", 0x0112, kind, 1)
    return head + (value.ljust(4, b"\0") + bytes(4) if len(value) <= 4 else struct.pack(">II", 26, 0) + value)


@pytest.mark.parametrize(
    ("block", "orientation"),
    [
        (odd_orientation(RATIONAL, struct.pack(">II", 6, 1)), 6),
        (odd_orientation(RATIONAL, struct.pack(">II", 13, 2)), 1),
        (odd_orientation(RATIONAL, struct.pack(">II", 6, 0)), 1),
        (odd_orientation(FLOAT, struct.pack(">f", 6.0)), 6),
        (odd_orientation(FLOAT, struct.pack(">f", 6.5)), 1),
        (odd_orientation(FLOAT, struct.pack(">f", float("nan"))), 1),
        (odd_orientation(SHORT, struct.pack(">H", 9)), 1),
    ],
)
def test_orientation_of_any_type_stays_what_it_says(block: bytes, orientation: int) -> None:
    for content in (
        jpeg_with(segment(0xE1, b"Exif\0\0" + block)),
        png_with(chunk(b"eXIf", block)),
        encoded(photo(), "WEBP", exif=block),
    ):
        stripped = strip_personal_metadata(content)
        assert np.array_equal(np.asarray(decode_rgb(stripped)), np.asarray(decode_rgb(content)))
        with Image.open(io.BytesIO(stripped)) as image:
            assert image.getexif().get(0x0112, 1) == orientation


def test_tiff_orientation_of_another_type_becomes_a_plain_one() -> None:
    stripped = assert_text_is_gone(grey_tiff({274: (4, struct.pack(">I", 6))}, TEXT))
    with Image.open(io.BytesIO(stripped)) as image:
        assert image.getexif()[0x0112] == 6


def test_orientation_told_behind_the_picture_stays() -> None:
    block = turned_exif(6).tobytes()[6:]
    content = encoded(photo(), "PNG")[:-12] + chunk(b"eXIf", block) + chunk(b"IEND", b"")
    stripped = strip_personal_metadata(content)
    assert decode_rgb(stripped).size == decode_rgb(content).size == (29, 37)


# Whatever comes in -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"\xff\xd8",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\4\0\0\0WEBP",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"II+\0",
        b"text",
    ],
)
def test_what_is_no_image_is_refused(start: bytes) -> None:
    for behind in (b"", b"\0", b"\xff" * 9, bytes(100), TEXT * 9):
        with pytest.raises(UnusableImageError):
            strip_personal_metadata(start + behind)
