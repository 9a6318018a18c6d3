from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from fruits_assets.stages import raw_images as module
from fruits_assets.stages.raw_images import (
    IMAGES,
    QUARANTINE,
    Params,
    describe_images,
    label_of,
    list_image_files,
    listing_fingerprint,
    raw_images,
    refuse_empty,
)
from fruits_assets.stages.stage import StageInputError, StageResult
from fruits_assets_tests.conftest import write_image

ODD_NAMES = [
    "two  spaces.png",
    "a,b;c.png",
    "single'double\"back\\slash.png",
    "new\nline\ttab.png",
    "key=value.png",
    "100%25 %20.png",
    "number#1.png",
    "what?.png",
    "star*.png",
    "[x]{y}.png",
    "10:30.png",
    "pêche à la crème.png",
    "pe\u0302che.png",
    "桃.png",
    "🍎.png",
    "~.png",
    "$HOME.png",
    "-v.png",
    "null.png",
    "two.dots..png",
]
IGNORED_FILES = ["notes.txt", ".hidden.png", ".folder/inside.png", "apple/.thumbnails/1.png", "no suffix"]


class Run(NamedTuple):
    """What a stage said, and the rows it wrote by path."""

    result: StageResult
    images: dict[str, dict[str, Any]]
    quarantine: dict[str, dict[str, Any]]


def run(spark: SparkSession, source: str | Path, output: Path) -> Run:
    result = raw_images(spark, {}, str(output), Params(source=str(source)))

    def rows(name: str) -> dict[str, dict[str, Any]]:
        collected = [row.asDict() for row in spark.read.parquet(f"{output}/{name}").collect()]
        by_path = {row["path"]: row for row in collected}
        assert len(by_path) == len(collected)
        return by_path

    return Run(result, rows(IMAGES), rows(QUARANTINE))


def bomb() -> bytes:
    """A PNG of a few bytes that claims 60 000 x 60 000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def write_noise(path: Path, size: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)


# One tree with everything in it, read once -------------------------------------------------------

BAD_FILES = {
    "bad/zero.jpg": "empty file (0 bytes)",
    "bad/half.jpg": "damaged image: OSError: image file is truncated",
    "bad/text.jpg": "not an image (24 bytes)",
    "bad/bomb.png": "more than 89,478,485 pixels",
    "bad/dangling.jpg": "cannot be read: No such file or directory",
    "bad/itself.jpg": "cannot be read: Too many levels of symbolic links",
    "bad/pipe.jpg": "not a regular file",
    "bad/folder.jpg/pipe.jpg": "not a regular file",
    "bad/caf\\xe9.jpg": "file name is not valid UTF-8",
}


def write_bad_files(root: Path) -> None:
    bad = root / "bad"
    (bad / "folder.jpg").mkdir(parents=True)
    (bad / "zero.jpg").touch()
    write_noise(bad / "half.jpg", size=30, seed=0)
    (bad / "half.jpg").write_bytes((bad / "half.jpg").read_bytes()[:900])
    (bad / "text.jpg").write_text("I was a picture of limes")
    (bad / "bomb.png").write_bytes(bomb())
    (bad / "dangling.jpg").symlink_to("nowhere.jpg")
    (bad / "itself.jpg").symlink_to("itself.jpg")
    os.mkfifo(bad / "pipe.jpg")
    os.mkfifo(bad / "folder.jpg" / "pipe.jpg")
    shutil.copy(os.fsencode(bad / "text.jpg"), os.fsencode(bad) + b"/caf\xe9.jpg")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("tree")
    root = base / "fruits"
    write_bad_files(root)
    for i, name in enumerate(ODD_NAMES):
        write_image(root / "odd names, 100%" / name, (i, 0, 0), size=(4, 4))
    for name in IGNORED_FILES:
        write_image(root / name, "red", format="PNG")
    write_image(root / "in the root.png", "blue")
    write_image(root / "citrus" / "lemon" / "nested.PNG", "yellow")
    write_image(root / "apple" / "UPPER.JPG", "red")
    for suffix in ("jpeg", "Jpeg", "webp", "bmp", "tif", "TIFF"):
        write_image(root / "apple" / f"suffix.{suffix}", "red")

    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[29] = "2026:01:01 SECRET"
    write_image(root / "apple" / "gps.jpg", "green", size=(30, 20), exif=exif)

    elsewhere = base / "elsewhere"
    write_image(elsewhere / "pear.png", "green")
    (root / "linked").symlink_to(elsewhere)
    (root / "apple" / "linked file.png").symlink_to(elsewhere / "pear.png")
    (root / "citrus" / "loop").symlink_to(root)
    return root


@pytest.fixture(scope="module")
def messy(spark: SparkSession, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(spark, tree, tmp_path_factory.mktemp("messy"))


def test_tables_have_the_documented_columns(messy: Run, spark: SparkSession) -> None:
    columns = {
        "path": "string",
        "label": "string",
        "content": "binary",
        "width": "int",
        "height": "int",
        "bytes": "bigint",
        "sha256": "string",
        "modified": "timestamp",
        "source_bytes": "bigint",
        "stripped": "boolean",
    }
    assert messy.result.schema == columns
    assert list(messy.result.schema) == list(columns)
    assert list(messy.images["apple/UPPER.JPG"]) == list(columns)
    assert list(messy.quarantine["bad/zero.jpg"]) == ["path", "label", "reason"]


@pytest.mark.parametrize("path", BAD_FILES)
def test_bad_file_is_set_aside_with_its_reason(messy: Run, path: str) -> None:
    assert path not in messy.images
    assert messy.quarantine[path]["label"] == Path(path).parent.name
    assert BAD_FILES[path] in messy.quarantine[path]["reason"]


def test_nothing_else_is_set_aside(messy: Run) -> None:
    assert messy.quarantine.keys() == BAD_FILES.keys()
    assert messy.result.metadata["n_quarantined"] == len(BAD_FILES)
    assert messy.result.metadata["quarantined"] == [messy.quarantine[path] for path in sorted(BAD_FILES)]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_name_survives_exactly(messy: Run, tree: Path, name: str) -> None:
    row = messy.images[f"odd names, 100%/{name}"]
    assert row["label"] == "odd names, 100%"
    assert row["content"] == (tree / "odd names, 100%" / name).read_bytes()


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("in the root.png", "fruits"),
        ("apple/UPPER.JPG", "apple"),
        ("apple/suffix.TIFF", "apple"),
        ("citrus/lemon/nested.PNG", "lemon"),
        ("linked/pear.png", "linked"),
        ("apple/linked file.png", "apple"),
    ],
)
def test_label_is_the_folder_of_the_file(messy: Run, path: str, label: str) -> None:
    assert messy.images[path]["label"] == label


@pytest.mark.parametrize(
    ("source", "path", "label"),
    [
        ("/data/fruits/", "a.png", "fruits"),
        ("s3://bucket/fruits/", "a.png", "fruits"),
        ("s3://bucket", "a.png", "bucket"),
        ("s3://bucket", "kiwi/a.png", "kiwi"),
    ],
)
def test_label_of_a_file_right_in_the_source_is_the_sources_name(source: str, path: str, label: str) -> None:
    assert label_of(source, path) == label


def test_only_images_that_are_not_hidden_are_read(messy: Run) -> None:
    expected = {f"odd names, 100%/{name}" for name in ODD_NAMES}
    expected |= {f"apple/suffix.{suffix}" for suffix in ("jpeg", "Jpeg", "webp", "bmp", "tif", "TIFF")}
    expected |= {"in the root.png", "citrus/lemon/nested.PNG", "apple/UPPER.JPG", "apple/gps.jpg"}
    expected |= {"linked/pear.png", "apple/linked file.png"}
    assert messy.images.keys() == expected  # and nothing below citrus/loop
    assert messy.result.row_count == len(expected)


def test_facts_describe_the_stored_content(messy: Run, tree: Path) -> None:
    for path, row in messy.images.items():
        assert row["bytes"] == len(row["content"])
        assert row["sha256"] == hashlib.sha256(row["content"]).hexdigest()
        with Image.open(io.BytesIO(row["content"])) as image:
            assert image.format is not None
        if path != "apple/gps.jpg":
            assert row["content"] == (tree / path).read_bytes()
    row = messy.images["apple/UPPER.JPG"]
    written = datetime.fromtimestamp(os.stat(tree / "apple" / "UPPER.JPG").st_mtime, UTC)
    assert abs(row["modified"].astimezone(UTC) - written).total_seconds() < 1e-3
    assert messy.result.metadata["total_bytes"] == sum(row["bytes"] for row in messy.images.values())


def test_gps_position_is_not_stored(messy: Run, tree: Path) -> None:
    assert b"SECRET" in (tree / "apple" / "gps.jpg").read_bytes()
    assert b"SECRET" not in messy.images["apple/gps.jpg"]["content"]
    assert messy.result.metadata["n_stripped"] == 1


def test_size_is_that_of_the_upright_picture(messy: Run) -> None:
    row = messy.images["apple/gps.jpg"]
    assert (row["width"], row["height"]) == (20, 30)


def test_metadata_counts_per_label(messy: Run) -> None:
    counts = messy.result.metadata["images_per_label"]
    assert counts["odd names, 100%"] == len(ODD_NAMES)
    assert sum(counts.values()) == messy.result.row_count
    assert list(counts) == sorted(counts)
    assert messy.result.metadata["n_duplicate_paths"] == 0


def test_thumbnails_decode(messy: Run) -> None:
    thumbnails = messy.result.metadata["thumbnails"]
    assert thumbnails.keys() == messy.result.metadata["images_per_label"].keys()
    assert len(thumbnails["odd names, 100%"]) == 8
    for pictures in thumbnails.values():
        for picture in pictures:
            with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
                image.load()
                assert max(image.size) <= 64


# What changes, and what does not -----------------------------------------------------------------


def write_small_tree(root: Path) -> Path:
    for i in range(4):
        write_image(root / ("apple", "pear")[i % 2] / f"{i}.png", (40 * i, 0, 0), size=(3, 3))
    return root


def change_nothing_but_times(root: Path) -> None:
    for path in root.rglob("*.png"):
        os.utime(path, (1, 1))


def change_a_pixel(root: Path) -> None:
    with Image.open(root / "apple" / "0.png") as image:
        image.putpixel((1, 1), (0, 0, 1))
        image.save(root / "apple" / "0.png")


@pytest.fixture(scope="module")
def digest(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> str:
    base = tmp_path_factory.mktemp("digest")
    result = run(spark, write_small_tree(base / "source"), base / "output").result
    return str(result.metadata["content_digest"])


@pytest.mark.parametrize(("change", "stays"), [(change_nothing_but_times, True), (change_a_pixel, False)])
def test_digest_tells_content_from_circumstance(
    spark: SparkSession, tmp_path: Path, digest: str, change: Callable[[Path], None], stays: bool
) -> None:
    copied = write_small_tree(tmp_path / "copied")
    change(copied)
    after = run(spark, copied, tmp_path / "output").result.metadata["content_digest"]
    assert (after == digest) is stays


IMAGE_ROWS = [("a/1.png", "a", 10, "x"), ("a/2.png", "a", 20, "y"), ("b/1.png", "b", 30, "z")]


def describe(spark: SparkSession, rows: list[tuple[str, str, int, str]], n_tasks: int = 1) -> dict[str, Any]:
    columns = "path string, label string, bytes long, sha256 string"
    table = spark.createDataFrame(rows, columns).withColumn("stripped", F.col("bytes") > 15)
    return describe_images(table.repartition(n_tasks))


def test_digest_does_not_depend_on_order_or_partitions(spark: SparkSession) -> None:
    assert describe(spark, IMAGE_ROWS) == describe(spark, IMAGE_ROWS[::-1], n_tasks=3)


@pytest.mark.parametrize(
    "changed", [("b/2.png", "b", 30, "z"), ("b/1.png", "c", 30, "z"), ("b/1.png", "b", 30, "")]
)
def test_digest_depends_on_path_label_and_content(
    spark: SparkSession, changed: tuple[str, str, int, str]
) -> None:
    before, after = describe(spark, IMAGE_ROWS), describe(spark, [*IMAGE_ROWS[:2], changed])
    assert before["content_digest"] != after["content_digest"]


def test_repeated_path_is_a_duplicate(spark: SparkSession) -> None:
    facts = describe(spark, [*IMAGE_ROWS, IMAGE_ROWS[0]])
    assert (facts["row_count"], facts["n_duplicate_paths"], facts["total_bytes"]) == (4, 1, 70)
    assert facts["images_per_label"] == {"a": 3, "b": 1}


def test_listing_is_sorted_and_its_fingerprint_changes_with_any_file(tmp_path: Path) -> None:
    root = write_small_tree(tmp_path)
    files = list_image_files(str(root))
    assert [file.path for file in files] == ["apple/0.png", "apple/2.png", "pear/1.png", "pear/3.png"]
    before = listing_fingerprint(files)
    assert listing_fingerprint(list_image_files(f"{root}/")) == before
    os.utime(root / "pear" / "1.png", (1, 1))
    touched = listing_fingerprint(list_image_files(str(root)))
    (root / "pear" / "1.png").unlink()
    assert len({before, touched, listing_fingerprint(list_image_files(str(root)))}) == 3


def test_of_two_links_to_a_folder_the_first_by_name_is_followed(tmp_path: Path) -> None:
    write_image(tmp_path / "elsewhere" / "1.png", "red")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("c", "a", "b"):
        (source / name).symlink_to(tmp_path / "elsewhere")
    assert [file.path for file in list_image_files(str(source))] == ["a/1.png"]


# Sources that do not do --------------------------------------------------------------------------


def unreadable(root: Path) -> None:
    for i in range(3):
        (root / f"{i}.png").write_text("no image")


@pytest.mark.parametrize(
    ("prepare", "found"),
    [
        (lambda root: root.rmdir(), "no such folder"),
        (lambda root: (root / "notes.txt").touch(), r"0 image file\(s\), at least 2"),
        (lambda root: write_image(root / "one.png", "red"), r"1 image file\(s\), at least 2"),
        (unreadable, r"0 readable image\(s\) \(0.png: not an image.*1.png"),
    ],
    ids=["missing", "no image", "one image", "unreadable"],
)
def test_unusable_source_is_named_with_a_fix(
    spark: SparkSession, tmp_path: Path, prepare: Callable[[Path], Any], found: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    prepare(source)
    with pytest.raises(StageInputError, match=f"'{source}'.*{found}.*FRUITS_IMAGES"):
        run(spark, source, tmp_path / "output")


def test_empty_source_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(StageInputError, match=f"'{tmp_path}': no image file"):
        refuse_empty(str(tmp_path))
    with pytest.raises(StageInputError, match="no such folder"):
        refuse_empty(str(tmp_path / "missing"))
    write_image(tmp_path / "elsewhere" / "1.png", "red")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "link").symlink_to(tmp_path / "elsewhere")
    refuse_empty(str(tmp_path / "source"))


# Files of the table ------------------------------------------------------------------------------


def test_many_small_images_become_one_file_that_feeds_several_tasks(
    spark: SparkSession, tmp_path: Path
) -> None:
    for i in range(300):
        write_noise(tmp_path / "source" / str(i % 3) / f"{i}.bmp", size=160, seed=i)
    output = tmp_path / "output"
    raw_images(spark, {}, str(output), Params(source=str(tmp_path / "source")))
    (file,) = (output / IMAGES).glob("*.parquet")
    assert file.stat().st_size > 20_000_000
    assert pq.ParquetFile(file).num_row_groups >= 3
    rows_per_task = spark.read.parquet(str(file)).rdd.mapPartitions(lambda rows: [sum(1 for _ in rows)])
    assert sum(n_rows > 0 for n_rows in rows_per_task.collect()) > 1


def test_a_large_table_is_split_by_path(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILE_BYTES", 20_000)
    for i in range(40):
        write_noise(tmp_path / "source" / "a" / f"{i:02}.png", size=20, seed=i)
    output = tmp_path / "output"
    images = run(spark, tmp_path / "source", output).images
    files = sorted((output / IMAGES).glob("*.parquet"))
    assert len(files) == 3
    paths = [path for file in files for path in pq.read_table(file, columns=["path"])["path"].to_pylist()]
    assert paths == sorted(images)


def test_a_file_too_large_to_hold_is_set_aside_unread(spark: SparkSession, tmp_path: Path) -> None:
    source = write_small_tree(tmp_path / "source")
    with (source / "apple" / "huge.png").open("wb") as file:
        file.truncate(module._MAX_IMAGE_BYTES + 1)
    reason = run(spark, source, tmp_path / "output").quarantine["apple/huge.png"]["reason"]
    assert reason == "268,435,457 bytes, more than 268,435,456"
