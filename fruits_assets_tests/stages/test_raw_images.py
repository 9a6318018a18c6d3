from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pyspark.sql import SparkSession

from fruits_assets.photos.decoding import decode, model_input
from fruits_assets.stages import image_plan, image_rows, plan, sorting
from fruits_assets.stages.image_facts import describe_images, facts_of
from fruits_assets.stages.parquet import DamagedFileError, batches_of
from fruits_assets.stages.plan import LAST, PREVIOUS
from fruits_assets.stages.raw_images import QUARANTINE, Params, raw_images
from fruits_assets.stages.stage import StageInputError, StageResult
from fruits_assets.stages.stored import ROWS, StoredFile
from fruits_assets_tests.conftest import write_image
from fruits_assets_tests.stages.running import (
    Ran,
    as_dataframe,
    flip_bit,
    paths_of,
    run_stage,
    stages_of_jobs,
    stored_rows,
    truncate,
    write_table,
)
from fruits_assets_tests.stages.sources import IGNORED_FILES, ODD_NAMES, write_noise, write_small_tree


class Run(NamedTuple):
    """What a stage said, and the rows it wrote by path."""

    result: StageResult
    images: dict[str, dict[str, Any]]
    quarantine: dict[str, dict[str, Any]]
    ran: Ran


def run(spark: SparkSession, source: str | Path, asset: Path | str) -> Run:
    ran = run_stage(spark, raw_images, {}, asset, Params(source=str(source)))

    def rows(name: str) -> dict[str, dict[str, Any]]:
        collected = [row.asDict() for row in as_dataframe(spark, ran.table(name)).collect()]
        by_path = {row["path"]: row for row in collected}
        assert len(by_path) == len(collected)
        return by_path

    return Run(ran.result, rows(ROWS), rows(QUARANTINE), ran)


def bomb() -> bytes:
    """A PNG of a few bytes that claims 60 000 x 60 000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


# One tree with everything in it, read once -------------------------------------------------------

BAD_FILES = {
    "bad/zero.jpg": "empty file (0 bytes)",
    "bad/half.jpg": "its structure is damaged: its end marker is missing",
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
        "thumbnail": "binary",
        "pixels": "binary",
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


def test_a_comment_is_in_nothing_that_is_stored(spark: SparkSession, tmp_path: Path) -> None:
    """Not in the thumbnail either, which Pillow would write the comment of the original into."""
    text = PngInfo()
    text.add_text("comment", "SECRET")
    (tmp_path / "source" / "plum").mkdir(parents=True)
    for kind in ("GIF", "JPEG", "PNG"):
        file = tmp_path / "source" / "plum" / f"photo.{kind.lower()}"
        Image.new("RGB", (100, 80), "purple").save(file, kind, comment=b"SECRET", pnginfo=text)
        assert b"SECRET" in file.read_bytes()
    images = run(spark, tmp_path / "source", tmp_path / "output").images
    assert len(images) == 3
    for row in images.values():
        assert not [name for name in ("content", "thumbnail") if b"SECRET" in row[name]]


def test_of_a_large_photo_is_stored_what_the_network_looks_at(spark: SparkSession, tmp_path: Path) -> None:
    """And of others not, where it would be most of what is stored."""
    for name, size in (("large", 800), ("small", 300)):
        write_noise(tmp_path / "source" / "apple" / f"{name}.png", size, seed=1)
    images = run(spark, tmp_path / "source", tmp_path / "output").images
    assert images["apple/small.png"]["pixels"] is None
    photo = decode(images["apple/large.png"]["content"])
    assert images["apple/large.png"]["pixels"] == model_input(photo).tobytes()


# What changes, and what does not -----------------------------------------------------------------


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


def describe(folder: Path, *files: list[tuple[str, str, int, str]]) -> dict[str, Any]:
    """What the rows of some files add up to; each asset folder is a new one."""
    parts = [
        pa.Table.from_pylist(
            [
                {"path": path, "label": label, "bytes": n_bytes, "sha256": sha256, "stripped": n_bytes > 15}
                for path, label, n_bytes, sha256 in rows
            ]
        )
        for rows in files
    ]
    return describe_images([facts_of(uri) for uri in write_table(folder, *parts).uris])


def test_digest_does_not_depend_on_order_or_files(tmp_path: Path) -> None:
    first, second, third = IMAGE_ROWS
    facts = describe(tmp_path, IMAGE_ROWS)
    assert facts == describe(tmp_path, [third, second, first])
    assert facts == describe(tmp_path, [third], [first], [second])
    assert facts == describe(tmp_path, [second, third], [first])


@pytest.mark.parametrize(
    "changed", [("b/2.png", "b", 30, "z"), ("b/1.png", "c", 30, "z"), ("b/1.png", "b", 30, "")]
)
def test_digest_depends_on_path_label_and_content(tmp_path: Path, changed: tuple[str, str, int, str]) -> None:
    before, after = describe(tmp_path, IMAGE_ROWS), describe(tmp_path, [*IMAGE_ROWS[:2], changed])
    assert before["content_digest"] != after["content_digest"]


def test_digest_tells_rows_from_each_other_that_only_together_have_the_same_text(tmp_path: Path) -> None:
    swapped = [("a/1.png", "a", 10, "y"), ("a/2.png", "a", 20, "x"), IMAGE_ROWS[2]]
    assert describe(tmp_path, IMAGE_ROWS)["content_digest"] != describe(tmp_path, swapped)["content_digest"]


@pytest.mark.parametrize("apart", [False, True])
def test_repeated_path_is_a_duplicate_in_one_file_and_in_two(tmp_path: Path, apart: bool) -> None:
    again = IMAGE_ROWS[0]
    facts = describe(tmp_path, IMAGE_ROWS, [again]) if apart else describe(tmp_path, [*IMAGE_ROWS, again])
    assert (facts["row_count"], facts["n_duplicate_paths"], facts["total_bytes"]) == (4, 1, 70)
    assert facts["images_per_label"] == {"a": 3, "b": 1}
    assert facts["n_stripped"] == 2


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


# Files of the table ------------------------------------------------------------------------------


def file_paths(ran: Ran) -> list[list[str]]:
    """The paths of the images in each file of the table, in the order of its files."""
    return [paths_of(uri) for uri in ran.table().uris]


def files_below(folder: Path | str) -> set[str]:
    return {str(path) for path in Path(folder).rglob("*") if path.is_file()}


def named_by(*runs: Ran) -> set[str]:
    """The files of all tables of some runs."""
    return {uri for ran in runs for name in ran.result.tables for uri in ran.table(name).uris}


def test_many_small_images_become_one_file_that_feeds_several_tasks(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for least in ("_MIN_TASK_BYTES", "_MIN_FILE_BYTES"):
        monkeypatch.setattr(plan, least, plan.FILE_BYTES)
    for i in range(300):
        write_noise(tmp_path / "source" / str(i % 3) / f"{i}.bmp", size=160, seed=i)
    ran = run_stage(spark, raw_images, {}, tmp_path / "output", Params(source=str(tmp_path / "source")))
    (file,) = ran.table().uris
    assert Path(file).stat().st_size > 20_000_000
    assert pq.ParquetFile(file).num_row_groups >= 3
    rows_per_task = spark.read.parquet(file).rdd.mapPartitions(lambda rows: [sum(1 for _ in rows)])
    assert sum(n_rows > 0 for n_rows in rows_per_task.collect()) > 1


def test_every_task_writes_a_file_of_its_own_that_is_worth_its_start(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_MIN_FILE_BYTES", plan.FILE_BYTES)
    for i in range(120):
        write_noise(tmp_path / "source" / str(i % 3) / f"{i}.bmp", size=160, seed=i)
    run_of_all = run(spark, tmp_path / "source", tmp_path / "output")
    files = file_paths(run_of_all.ran)
    assert len(files) >= spark.sparkContext.defaultParallelism
    assert min(map(len, files[:-1])) > 5
    assert [path for paths in files for path in paths] == sorted(run_of_all.images)


def test_a_vanished_image_costs_little_of_a_table_that_few_tasks_wrote(
    spark: SparkSession, tmp_path: Path
) -> None:
    for i in range(120):
        write_noise(tmp_path / "source" / f"{i:03}.bmp", size=160, seed=i)
    first = run_version(spark, tmp_path / "source", "1")
    assert [path for paths in file_paths(first) for path in paths] == [f"{i:03}.bmp" for i in range(120)]
    (tmp_path / "source" / "060.bmp").unlink()
    second = run_version(spark, tmp_path / "source", "2", previous=first)
    written = [file for file in second.table().files if file not in first.table().files]
    assert sum(file.size_bytes for file in written) < 0.2 * sum(
        file.size_bytes for file in first.table().files
    )
    assert second.result.row_count == 119


def test_a_large_table_is_split_by_path(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "FILE_BYTES", 20_000)
    monkeypatch.setattr(image_plan, "_BYTES_PER_IMAGE", 0)
    for i in range(40):
        write_noise(tmp_path / "source" / "a" / f"{i:02}.png", size=20, seed=i)
    images, ran = run(spark, tmp_path / "source", tmp_path / "output")[1::2]
    files = file_paths(ran)
    assert len(files) == 3
    assert [path for paths in files for path in paths] == sorted(images)


def test_every_file_is_named_with_its_size_and_its_rows_and_no_other_is_left(messy: Run) -> None:
    for table, name in ((messy.ran.table(), ROWS), (messy.ran.table(QUARANTINE), QUARANTINE)):
        for file, uri in zip(table.files, table.uris, strict=True):
            assert file.path.startswith(messy.ran.output.inside(name))
            assert file.size_bytes == Path(uri).stat().st_size
            assert file.n_rows == pq.read_metadata(uri).num_rows
    assert files_below(messy.ran.output.asset) == named_by(messy.ran)


def test_without_bad_images_there_is_an_empty_quarantine(spark: SparkSession, tmp_path: Path) -> None:
    ran = run_stage(
        spark, raw_images, {}, tmp_path / "output", Params(str(write_small_tree(tmp_path / "in")))
    )
    (uri,) = ran.table(QUARANTINE).uris
    assert pq.read_table(uri).schema.names == ["path", "label", "reason"]
    assert ran.table(QUARANTINE).n_rows == ran.result.metadata["n_quarantined"] == 0


def test_a_file_too_large_to_hold_is_set_aside_unread(spark: SparkSession, tmp_path: Path) -> None:
    source = write_small_tree(tmp_path / "source")
    with (source / "apple" / "huge.png").open("wb") as file:
        file.truncate(image_rows.MAX_IMAGE_BYTES + 1)
    reason = run(spark, source, tmp_path / "output").quarantine["apple/huge.png"]["reason"]
    assert reason == "134,217,729 bytes, more than 134,217,728"


# What a version takes over from the one before ---------------------------------------------------


@pytest.fixture
def grove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source of eight images of equal size, of which two go into each file of a table."""
    for i in range(8):
        path = write_image(tmp_path / "grove" / "abcd"[i // 2] / f"{i}.bmp", (30 * i, 0, 0), size=(3, 3))
    monkeypatch.setattr(image_plan, "_BYTES_PER_IMAGE", 0)
    monkeypatch.setattr(plan, "_MIN_TASK_BYTES", 2 * path.stat().st_size)
    monkeypatch.setattr(plan, "_TASK_BYTES", 2 * path.stat().st_size)
    return tmp_path / "grove"


def run_version(
    spark: SparkSession, source: Path, version: str, previous: Ran | None = None, last: Ran | None = None
) -> Ran:
    """Run the stage as a version of one asset beside the source."""
    inputs = {name: ran.stored for name, ran in ((PREVIOUS, previous), (LAST, last)) if ran}
    return run_stage(spark, raw_images, inputs, source.parent / "lake", Params(str(source)), version)


def by_path(ran: Ran) -> dict[str, dict[str, Any]]:
    rows = stored_rows(ran.table())
    found = {row["path"]: row for row in rows}
    assert len(found) == len(rows) == ran.result.row_count
    return found


def files_in(ran: Ran) -> dict[StoredFile, list[str]]:
    return dict(zip(ran.table().files, file_paths(ran), strict=True))


def test_files_in_which_nothing_has_changed_are_the_same_files(spark: SparkSession, grove: Path) -> None:
    first = run_version(spark, grove, "1")
    assert file_paths(first) == [
        [f"{label}/{2 * i}.bmp", f"{label}/{2 * i + 1}.bmp"] for i, label in enumerate("abcd")
    ]
    second = run_version(spark, grove, "2", previous=first)
    assert second.table() == first.table()
    assert not list(second.folder.glob("*"))
    told, told_first = second.result.metadata, first.result.metadata
    assert (told["n_read"], told["n_unchanged"]) == (0, 8)
    assert (told_first["n_read"], told_first["n_unchanged"]) == (8, 0)
    for name in ("content_digest", "images_per_label", "total_bytes", "thumbnails", "listing"):
        assert told[name] == told_first[name]


def test_without_a_previous_version_everything_is_read_again(spark: SparkSession, grove: Path) -> None:
    first = run_version(spark, grove, "1")
    second = run_version(spark, grove, "2", last=first)
    assert not set(second.table().files) & set(first.table().files)
    assert (second.result.metadata["n_read"], second.result.metadata["n_unchanged"]) == (8, 0)
    assert by_path(second) == by_path(first)


def repaint(grove: Path) -> None:
    write_image(grove / "b" / "2.bmp", "white", size=(3, 3))
    os.utime(grove / "b" / "2.bmp", (1, 1))


def touch(grove: Path) -> None:
    os.utime(grove / "b" / "2.bmp", (1, 1))


def grow(grove: Path) -> None:
    status = (grove / "b" / "2.bmp").stat()
    write_image(grove / "b" / "2.bmp", "white", size=(4, 4))
    os.utime(grove / "b" / "2.bmp", ns=(status.st_atime_ns, status.st_mtime_ns))


def remove(grove: Path) -> None:
    (grove / "b" / "2.bmp").unlink()


def rename(grove: Path) -> None:
    (grove / "b" / "2.bmp").rename(grove / "a" / "2.bmp")


def spoil(grove: Path) -> None:
    (grove / "b" / "2.bmp").write_bytes(b"no image")


def add(grove: Path) -> None:
    write_image(grove / "b" / "22.bmp", "white", size=(3, 3))


@pytest.mark.parametrize(
    ("change", "n_kept", "n_read", "n_rows"),
    [
        (repaint, 3, 1, 8),
        (touch, 3, 1, 8),
        (grow, 3, 1, 8),
        (remove, 3, 0, 7),
        (rename, 3, 1, 8),
        (spoil, 3, 0, 7),
        (add, 4, 1, 9),
    ],
)
def test_only_what_has_changed_is_read_and_only_its_file_is_written_anew(
    spark: SparkSession, grove: Path, change: Callable[[Path], None], n_kept: int, n_read: int, n_rows: int
) -> None:
    first = run_version(spark, grove, "1")
    before = by_path(first)
    change(grove)
    second = run_version(spark, grove, "2", previous=first)
    kept = set(second.table().files) & set(first.table().files)
    assert len(kept) == n_kept
    rewritten = [paths for file, paths in files_in(first).items() if file not in kept]
    assert rewritten == [["b/2.bmp", "b/3.bmp"]][: 4 - n_kept]
    told = second.result.metadata
    assert (told["n_read"], told["n_unchanged"]) == (n_read, n_rows - n_read)
    from_scratch = run_version(spark, grove, "3")
    assert by_path(second) == by_path(from_scratch)
    assert told["content_digest"] == from_scratch.result.metadata["content_digest"]
    assert by_path(first) == before  # somebody may be reading it


def test_a_file_with_a_vanished_image_is_copied_without_it(spark: SparkSession, grove: Path) -> None:
    first = run_version(spark, grove, "1")
    remove(grove)
    second = run_version(spark, grove, "2", previous=first)
    (copied,) = [paths for file, paths in files_in(second).items() if file not in first.table().files]
    assert copied == ["b/3.bmp"]
    assert not [uri for uri in second.table().uris if b"b/2.bmp" in Path(uri).read_bytes()]


def test_new_images_go_into_files_of_their_own(spark: SparkSession, grove: Path) -> None:
    first = run_version(spark, grove, "1")
    for name in ("a/0a.bmp", "d/9.bmp", "e/9.bmp"):
        write_image(grove / name, "white", size=(3, 3))
    second = run_version(spark, grove, "2", previous=first)
    new = [paths for file, paths in files_in(second).items() if file not in first.table().files]
    assert new == [["a/0a.bmp", "d/9.bmp"], ["e/9.bmp"]]
    assert set(first.table().files) < set(second.table().files)


def test_a_bad_image_is_looked_at_again_by_every_run(spark: SparkSession, grove: Path) -> None:
    (grove / "a" / "bad.bmp").write_bytes(b"no image")
    first = run_version(spark, grove, "1")
    second = run_version(spark, grove, "2", previous=first)
    assert second.table() == first.table()
    assert stored_rows(second.table(QUARANTINE)) == stored_rows(first.table(QUARANTINE))
    assert second.result.metadata["n_quarantined"] == 1
    assert (second.result.metadata["n_read"], second.result.metadata["n_unchanged"]) == (0, 8)
    write_image(grove / "a" / "bad.bmp", "white", size=(3, 3))
    third = run_version(spark, grove, "3", previous=second)
    assert "a/bad.bmp" in by_path(third)
    assert third.table(QUARANTINE).n_rows == third.result.metadata["n_quarantined"] == 0


def lose(uri: str) -> None:
    Path(uri).unlink()


def flip_in_path(uri: str) -> None:
    flip_bit(uri, "path")


def flip_in_content_and_find_it(uri: str) -> None:
    """Whoever reads the photos next meets the fault, and says so to the next run."""
    flip_bit(uri, "content")
    with pytest.raises(DamagedFileError):
        list(batches_of([uri], ["content"]))


@pytest.mark.parametrize("damage", [lose, truncate, flip_in_path, flip_in_content_and_find_it])
def test_a_damaged_file_is_read_again_from_the_source_with_a_warning(
    spark: SparkSession, grove: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[str], None]
) -> None:
    first = run_version(spark, grove, "1")
    before = by_path(first)
    damaged = first.table().uris[1]
    damage(damaged)
    second = run_version(spark, grove, "2", previous=first)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"'{damaged}' is " in warning
    assert "is made anew when" in warning
    assert second.result.metadata["n_read"] == 2
    assert by_path(second) == before
    assert set(first.table().files) - set(second.table().files) == {first.table().files[1]}


def test_damage_that_is_met_while_copying_ends_the_run_and_the_next_one_heals_it(
    spark: SparkSession, grove: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run_version(spark, grove, "1")
    damaged = first.table().uris[1]
    flip_bit(damaged, "content")
    remove(grove)
    with pytest.raises(Exception, match=rf"'{damaged}' is damaged"):
        run_version(spark, grove, "2", previous=first)
    third = run_version(spark, grove, "3", previous=first)
    assert f"'{damaged}' is damaged" in caplog.text
    assert by_path(third) == by_path(run_version(spark, grove, "4"))


def test_many_small_files_are_put_together_when_there_are_too_many(
    spark: SparkSession, grove: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_version(spark, grove, "1")
    monkeypatch.setattr(plan, "_MAX_SMALL_FILES", 3)
    monkeypatch.setattr(plan, "_REWRITTEN_SHARE", 1.0)
    second = run_version(spark, grove, "2", previous=first)
    (together,) = file_paths(second)
    assert sorted(together) == sorted(by_path(first))
    assert by_path(second) == by_path(first)
    told = second.result.metadata
    assert (told["n_read"], told["n_unchanged"]) == (0, 8)
    assert told["content_digest"] == first.result.metadata["content_digest"]
    assert run_version(spark, grove, "3", previous=second).table() == second.table()


def test_images_of_the_last_version_that_are_gone_are_counted(spark: SparkSession, grove: Path) -> None:
    first = run_version(spark, grove, "1")
    assert (first.result.metadata["n_previous"], first.result.metadata["n_lost"]) == (0, 0)
    remove(grove)
    spoil_other = grove / "c" / "4.bmp"
    spoil_other.write_bytes(b"no image")
    add(grove)
    for version, previous in (("2", first), ("3", None)):
        told = run_version(spark, grove, version, previous, last=first).result.metadata
        assert (told["n_previous"], told["n_lost"]) == (8, 2)


def test_of_a_file_of_the_last_version_that_cannot_be_read_no_image_counts_as_gone(
    spark: SparkSession, grove: Path
) -> None:
    first = run_version(spark, grove, "1")
    remove(grove)
    (grove / "c" / "4.bmp").unlink()
    truncate(first.table().uris[1])
    told = run_version(spark, grove, "2", last=first).result.metadata
    assert (told["n_previous"], told["n_lost"]) == (8, 1)


# What a run costs and leaves ---------------------------------------------------------------------


def change_much(grove: Path) -> None:
    """Files of the table to be kept, to be copied and to be left out, new images, and one that is none."""
    grow(grove)
    add(grove)
    (grove / "c" / "4.bmp").write_bytes(b"no image")
    (grove / "c" / "5.bmp").unlink()


def test_a_run_is_one_round_of_tasks_that_exchange_nothing(spark: SparkSession, grove: Path) -> None:
    with stages_of_jobs(spark) as of_first:
        first = run_version(spark, grove, "1")
    change_much(grove)
    with stages_of_jobs(spark) as of_second:
        second = run_version(spark, grove, "2", previous=first, last=first)
    assert second.result.metadata["n_read"] == 2
    for stages in (of_first, of_second):
        assert 1 <= len(stages) <= 6
        assert set(stages) == {1}


def test_a_run_leaves_nothing_but_the_files_that_it_names(
    spark: SparkSession, grove: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorting, "_RECORDS_PER_RUN", 3)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    runs = [run_version(spark, grove, "1")]
    runs.append(run_version(spark, grove, "2", previous=runs[-1], last=runs[-1]))
    change_much(grove)
    runs.append(run_version(spark, grove, "3", previous=runs[-1], last=runs[-1]))
    assert files_below(runs[0].output.asset) == named_by(*runs)
    assert not list((tmp_path / "temporary").iterdir())


def test_a_source_without_a_readable_image_leaves_nothing(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    unreadable(tmp_path / "source")
    with pytest.raises(StageInputError, match="0 readable"):
        run(spark, tmp_path / "source", tmp_path / "output")
    (left,) = files_below(tmp_path / "output")
    assert left.startswith(str(tmp_path / "output" / f"_{QUARANTINE}"))  # which the lake removes
