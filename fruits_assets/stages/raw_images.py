"""Read a tree of image files into a table: checked, without personal metadata, the bad ones set aside."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
from pyspark import Accumulator, StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from fruits_assets.mobilenet.extractor import UnusableImageError, decode_rgb
from fruits_assets.stages.personal_metadata import strip_personal_metadata
from fruits_assets.stages.progress import progress
from fruits_assets.stages.reuse import PREVIOUS, spare_the_other_side
from fruits_assets.stages.stage import StageInputError, StageResult, column_types

IMAGES, QUARANTINE = "images.parquet", "quarantine.parquet"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

FILE_BYTES = 128 * 1024**2
# Small enough that one file of the table feeds several tasks.
ROW_GROUP_BYTES = 8 * 1024**2
_MAX_IMAGE_BYTES = 256 * 1024**2
_BATCH_BYTES = 16 * 1024**2
_READ_THREADS = 8  # per task: one file of S3 takes tens of milliseconds, nearly all of it waiting
_FILES_PER_CHUNK = 32
_FILES_PER_LISTING_TASK = 100_000
_TASKS_PER_CORE = 8
_THUMBNAIL_LABELS, _THUMBNAILS_PER_LABEL, _THUMBNAIL_SIZE = 24, 8, 64
_REASONS_SHOWN = 50

_CHECKED = (
    "path string, label string, content binary, width int, height int, bytes long, sha256 string, "
    "modified timestamp, source_bytes long, stripped boolean, reason string"
)
_ARROW_CHECKED = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("content", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("modified", pa.timestamp("us", tz="UTC")),
        ("source_bytes", pa.int64()),
        ("stripped", pa.bool_()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True)
class Params:
    """`source`: the folder or s3:// prefix that holds `<label>/<file>`."""

    source: str


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One image file of the source; `path` is relative to it, `reason` says why it is not readable."""

    path: str
    size_bytes: int
    modified: float
    reason: str | None = None


def raw_images(spark: SparkSession, inputs: Mapping[str, str], output: str, params: Params) -> StageResult:
    """Write `images.parquet` and `quarantine.parquet` (path, label, reason) of a source.

    Files with the size and the modification time that the previous table has are not read again.

    Args:
        inputs: `previous`, if there is one: a folder that this stage wrote of the same source.

    Raises:
        StageInputError: the source is missing or holds fewer than two image files, or fewer than two
            of them are readable.
    """
    files = list_image_files(params.source)
    if len(files) < 2:
        raise StageInputError(_too_few(params.source, f"{len(files)} image file(s)"))
    listing = _listing(spark, files)
    to_read, n_to_read, unchanged = listing, len(files), None
    if PREVIOUS in inputs:
        unchanged = _unchanged(spark.read.parquet(f"{inputs[PREVIOUS]}/{IMAGES}"), listing)
        to_read = listing.join(unchanged.select("path"), "path", "left_anti")
        n_to_read = to_read.count()
    total_bytes = sum(file.size_bytes for file in files)
    n_tasks = _n_tasks(n_to_read, total_bytes, spark.sparkContext.defaultParallelism)
    with progress(spark, "reading images", n_to_read) as done:
        read = to_read.repartition(n_tasks).mapInArrow(_reader(params.source, done), _CHECKED)
        read.persist(StorageLevel.DISK_ONLY)
        n_unusable = read.where(F.col("reason").isNotNull()).count()
    try:
        images = read.where(F.col("reason").isNull()).drop("reason")
        _write_images(
            images if unchanged is None else images.unionByName(unchanged),
            f"{output}/{IMAGES}",
            total_bytes,
        )
        _write_quarantine(read, f"{output}/{QUARANTINE}")
    finally:
        read.unpersist()
    images = spark.read.parquet(f"{output}/{IMAGES}")
    facts = describe_images(images) | _quarantine_facts(spark.read.parquet(f"{output}/{QUARANTINE}"))
    if facts["row_count"] < 2:
        found = "; ".join(f"{row['path']}: {row['reason']}" for row in facts["quarantined"][:3])
        raise StageInputError(_too_few(params.source, f"{facts['row_count']} readable image(s) ({found})"))
    return StageResult(
        row_count=facts["row_count"],
        schema=column_types(images),
        metadata={
            **facts,
            "n_read": n_to_read - n_unusable,
            "n_unchanged": facts["row_count"] - (n_to_read - n_unusable),
            "thumbnails": _thumbnails(images, _spread_over_labels(params.source, files)),
        },
    )


def refuse_empty(source: str) -> None:
    """Look for a single image file below the source, which is quick even where there are millions.

    Raises:
        StageInputError: there is no such folder or prefix, or no image in it.
    """
    filesystem, root = _existing(source)
    for folder, _, names in filesystem.walk(root):
        for name in names:
            if _is_image_path(_relative(f"{folder}/{name}", root)):
                return
    # Links are followed by the full listing only.
    if not list_image_files(source):
        raise StageInputError(_too_few(source, "no image file"))


def label_of(source: str, path: str) -> str:
    """The name of the folder that holds the file; for a file right in the source, the source's own."""
    return PurePosixPath(path).parent.name or PurePosixPath(source.rstrip("/")).name


def list_image_files(source: str) -> list[ListedFile]:
    """All image files below a folder or s3:// prefix, sorted by path; hidden files are not images.

    Raises:
        StageInputError: there is no such folder or prefix.
    """
    filesystem, root = _existing(source)
    listed = _local_files(root) if "file" in filesystem.protocol else _object_files(filesystem, root)
    return sorted(listed, key=lambda file: file.path)


def _existing(source: str) -> tuple[fsspec.AbstractFileSystem, str]:
    filesystem, root = fsspec.url_to_fs(source)
    filesystem.invalidate_cache()  # s3fs remembers listings, and a sensor's process lives for days
    if not filesystem.isdir(root):
        raise StageInputError(
            f"Image source '{source}': no such folder or prefix. Set FRUITS_IMAGES to one that holds "
            "<label>/<file>."
        )
    return filesystem, root


def _relative(name: str, root: str) -> str:
    return name.removeprefix(root.rstrip("/")).lstrip("/")


def listing_fingerprint(files: Iterable[ListedFile]) -> str:
    """Changes when a file is added, removed, renamed or written to."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.path!r} {file.size_bytes} {file.modified}\n".encode())
    return digest.hexdigest()


def _is_image_path(relative: str) -> bool:
    path = PurePosixPath(relative)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _local_files(root: str) -> Iterator[ListedFile]:
    # fsspec neither follows links nor says which folders it could not open.
    unlisted: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=unlisted.append):
        subfolders.sort()  # of several links to one folder, the same is followed everywhere
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a link back up would go round for ever
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for name in names:
            relative = os.path.relpath(os.path.join(folder, name), root)
            if _is_image_path(relative):
                yield _local_file(root, relative)
    for error in unlisted:
        relative = os.path.relpath(error.filename, root)
        yield ListedFile(_printable(relative), 0, 0.0, f"folder cannot be listed: {error.strerror}")


def _local_file(root: str, relative: str) -> ListedFile:
    try:
        status = os.stat(os.path.join(root, relative))
    except OSError as error:
        return ListedFile(_printable(relative), 0, 0.0, f"cannot be read: {error.strerror}")
    reason = None
    if not os.path.isfile(os.path.join(root, relative)):
        reason = "not a regular file"  # opening a named pipe would wait for ever
    elif _printable(relative) != relative:
        reason = "file name is not valid UTF-8"
    return ListedFile(_printable(relative), status.st_size, status.st_mtime, reason)


def _printable(path: str) -> str:
    """The path itself, or with its undecodable bytes written as escapes."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _object_files(filesystem: fsspec.AbstractFileSystem, root: str) -> Iterator[ListedFile]:
    for name, info in filesystem.find(root, detail=True).items():
        relative = _relative(name, root)
        if _is_image_path(relative):
            modified = info.get("LastModified") or filesystem.modified(name)
            yield ListedFile(relative, info["size"], modified.timestamp())


def _too_few(source: str, found: str) -> str:
    return (
        f"Image source '{source}': {found}, at least 2 needed. Put images ({' '.join(SUFFIXES)}) into "
        "<source>/<label>/<file>, or set FRUITS_IMAGES to a folder that has them."
    )


def _listing(spark: SparkSession, files: Sequence[ListedFile]) -> DataFrame:
    rows = [(f.path, f.size_bytes, datetime.fromtimestamp(f.modified, UTC), f.reason) for f in files]
    return spark.sparkContext.parallelize(rows, math.ceil(len(rows) / _FILES_PER_LISTING_TASK)).toDF(
        "path string, source_bytes long, modified timestamp, reason string"
    )


def _unchanged(previous: DataFrame, listing: DataFrame) -> DataFrame:
    """The rows of the previous table whose files are still listed, with the same size and time."""
    same = ["path", "source_bytes", "modified"]
    readable = listing.where(F.col("reason").isNull())
    gone = previous.select(same).join(readable, same, "left_anti").select("path")
    return previous.join(spare_the_other_side(gone, gone.count()), "path", "left_anti")


def _n_tasks(n_files: int, total_bytes: int, n_cores: int) -> int:
    by_size = math.ceil(total_bytes / FILE_BYTES)
    return max(1, min(math.ceil(n_files / _FILES_PER_CHUNK), max(n_cores * _TASKS_PER_CORE, by_size)))


def _reader(source: str, done: Accumulator[int]) -> Any:
    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        filesystem, root = fsspec.url_to_fs(source)

        def checked_row(row: Mapping[str, Any]) -> dict[str, Any]:
            return _checked_row(filesystem, root.rstrip("/"), label_of(source, row["path"]), row)

        with ThreadPoolExecutor(_READ_THREADS) as threads:
            for batch in batches:
                for start in range(0, batch.num_rows, _FILES_PER_CHUNK):
                    chunk = batch.slice(start, _FILES_PER_CHUNK).to_pylist()
                    yield from _record_batches(threads.map(checked_row, chunk))
                    done.add(len(chunk))

    return read


def _record_batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[pa.RecordBatch]:
    """Rows packed so that no batch holds much more than 16 MB of images."""
    packed: list[Mapping[str, Any]] = []
    for row in rows:
        packed.append(row)
        if sum(row["bytes"] or 0 for row in packed) >= _BATCH_BYTES:
            yield pa.RecordBatch.from_pylist(packed, schema=_ARROW_CHECKED)
            packed = []
    if packed:
        yield pa.RecordBatch.from_pylist(packed, schema=_ARROW_CHECKED)


def _checked_row(
    filesystem: fsspec.AbstractFileSystem, root: str, label: str, listed: Mapping[str, Any]
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_ARROW_CHECKED.names)
    row.update(path=listed["path"], label=label)
    if listed["reason"]:
        return row | {"reason": listed["reason"]}
    if listed["source_bytes"] > _MAX_IMAGE_BYTES:
        return row | {"reason": f"{listed['source_bytes']:,} bytes, more than {_MAX_IMAGE_BYTES:,}"}
    try:
        content = filesystem.cat_file(f"{root}/{listed['path']}")
        image = decode_rgb(content)
    except UnusableImageError as error:
        return row | {"reason": str(error)}
    except OSError as error:
        return row | {"reason": f"cannot be read: {error.strerror or error}"}
    stored = strip_personal_metadata(content)
    return row | {
        "content": stored,
        "width": image.width,
        "height": image.height,
        "bytes": len(stored),
        "sha256": hashlib.sha256(stored).hexdigest(),
        "modified": listed["modified"],
        "source_bytes": listed["source_bytes"],
        "stripped": stored != content,
    }


def _write_images(images: DataFrame, uri: str, total_bytes: int) -> None:
    n_files = max(1, math.ceil(total_bytes / FILE_BYTES))
    (
        images.repartitionByRange(n_files, "path")
        .sortWithinPartitions("path")
        .write.option("parquet.block.size", ROW_GROUP_BYTES)
        # The writer looks at its memory every 100 rows unless told otherwise: a gigabyte of photos.
        .option("parquet.block.size.row.check.min", 4)
        .option("parquet.page.size.row.check.min", 4)
        .parquet(uri)
    )


def describe_images(images: DataFrame) -> dict[str, Any]:
    """Count rows, duplicate paths, labels and bytes, and fold the content into one digest.

    The digest adds up a hash of each row, so that neither order nor partitions matter (AdHash: Bellare
    and Micciancio, "A New Paradigm for Collision-Free Hashing", 1997). Times are left out: a file that
    is copied again is the same data.
    """
    row_hash = F.sha2(F.concat_ws("\0", "path", "label", "sha256"), 256)
    halves = [
        F.sum(F.conv(F.substring(row_hash, start, 15), 16, 10).cast("decimal(38,0)")) for start in (1, 16)
    ]
    total = images.agg(
        F.count("*").alias("row_count"),
        F.count_distinct("path").alias("n_paths"),
        F.sum("bytes").alias("total_bytes"),
        F.count_if("stripped").alias("n_stripped"),
        F.concat_ws("-", *halves).alias("digest"),
    ).first()
    assert total is not None
    per_label = images.groupBy("label").count().sort("label").collect()
    return {
        "row_count": total["row_count"],
        "n_duplicate_paths": total["row_count"] - total["n_paths"],
        "total_bytes": total["total_bytes"] or 0,
        "n_stripped": total["n_stripped"],
        "content_digest": hashlib.sha256(total["digest"].encode()).hexdigest(),
        "images_per_label": {row["label"]: row["count"] for row in per_label},
    }


def _write_quarantine(read: DataFrame, uri: str) -> None:
    quarantine = read.where(F.col("reason").isNotNull()).select("path", "label", "reason")
    quarantine.coalesce(1).sortWithinPartitions("path").write.parquet(uri)


def _quarantine_facts(quarantine: DataFrame) -> dict[str, Any]:
    shown = quarantine.sort("path").limit(_REASONS_SHOWN).collect()
    return {
        "n_quarantined": quarantine.count(),
        "quarantined": [row.asDict() for row in shown],
    }


def _spread_over_labels(source: str, files: Sequence[ListedFile]) -> list[str]:
    """Paths of a few files of each of the first labels, evenly spread over the label's files."""
    paths: dict[str, list[str]] = defaultdict(list)
    for file in files:
        paths[label_of(source, file.path)].append(file.path)
    return [
        of_label[i * len(of_label) // n]
        for _, of_label in sorted(paths.items())[:_THUMBNAIL_LABELS]
        for n in [min(_THUMBNAILS_PER_LABEL, len(of_label))]
        for i in range(n)
    ]


def _thumbnails(images: DataFrame, paths: Sequence[str]) -> dict[str, list[str]]:
    """Label to small pictures, as base64 JPEG, of those of the paths that are in the table."""
    rows = images.where(F.col("path").isin(*paths)).select("path", "label", "content")
    small = rows.mapInArrow(_shrink, "path string, label string, thumbnail string").sort("path")
    thumbnails: dict[str, list[str]] = defaultdict(list)
    for row in small.collect():
        thumbnails[row["label"]].append(row["thumbnail"])
    return dict(sorted(thumbnails.items()))


def _shrink(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        thumbnails = [_thumbnail(content) for content in batch["content"].to_pylist()]
        yield pa.RecordBatch.from_arrays(
            [batch["path"], batch["label"], pa.array(thumbnails, pa.string())],
            ["path", "label", "thumbnail"],
        )


def _thumbnail(content: bytes) -> str:
    image = decode_rgb(content)
    image.thumbnail((_THUMBNAIL_SIZE, _THUMBNAIL_SIZE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
