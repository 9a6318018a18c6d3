"""Parquet files of tables, read and written by the workers themselves: no row passes through the JVM."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fruits_assets.stages.stage import StageInputError
from fruits_assets.stages.stored import DAMAGED, ROWS, Output, StoredFile, StoredTable

if TYPE_CHECKING:
    from pyspark import RDD
    from pyspark.sql import SparkSession

Found = TypeVar("Found")

# Of 1280 float64: 5 MB.
ROWS_PER_BATCH = 512
_BYTES_PER_TASK = 128 * 1024**2
_READ_BUFFER_BYTES = 1024**2  # read as it is decoded, not a whole row group at once
_COMPRESSED = ("content", "thumbnail", "pixels")  # pictures, or the grain of one


class DamagedFileError(StageInputError):
    """A file of a table is missing or not what was written; the message names it, and what to do."""


def _damaged(uri: str, fault: str) -> DamagedFileError:
    asset = uri.rsplit("/", 4)[1]  # of <asset>/_<table>/<version>/<file>
    return DamagedFileError(f"'{uri}' {fault}. What was in it is made anew when {asset} is materialized.")


@contextmanager
def opened(uri: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file of a table, whose pages are compared with their checksums as they are read.

    A file that is found damaged is marked so: the next run that could take it over sees that at once.

    Raises:
        DamagedFileError: it is missing, or something in it is not what was written.
    """
    filesystem, path = fsspec.url_to_fs(uri)
    try:
        with filesystem.open(path, "rb") as file:
            yield pq.ParquetFile(
                file, buffer_size=_READ_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
            )
    except FileNotFoundError as error:
        raise _damaged(uri, "is missing") from error
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk or the network, not the file
        with suppress(OSError):
            filesystem.pipe_file(path + DAMAGED, b"")
        raise _damaged(uri, f"is damaged ({error})") from error


def refuse_damaged(uri: str) -> None:
    """Raise for a file that somebody has found damaged."""
    filesystem, path = fsspec.url_to_fs(uri)
    if filesystem.exists(path + DAMAGED):
        raise _damaged(uri, "is damaged")


def batches_of(
    uris: Iterable[str], columns: Sequence[str], n_rows: int = ROWS_PER_BATCH
) -> Iterator[pa.RecordBatch]:
    """The rows of some files of a table, in order, `n_rows` at a time.

    Raises:
        DamagedFileError: see `opened`.
    """
    for uri in uris:
        with opened(uri) as file:
            n_read = 0
            for batch in file.iter_batches(n_rows, columns=columns, use_threads=False):
                _refuse_other_columns(batch.schema, columns)
                n_read += batch.num_rows
                yield batch
            # What is not in a page, such as how many there are, has no checksum.
            if n_read != file.metadata.num_rows:
                raise pa.ArrowInvalid(f"{n_read} rows of {file.metadata.num_rows}")


def _refuse_other_columns(found: pa.Schema, columns: Sequence[str]) -> None:
    if set(found.names) != set(columns):
        raise pa.ArrowInvalid(f"columns {found.names} instead of {list(columns)}")


def rows_of(uri: str, columns: Sequence[str], numbers: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """Some rows of a file, by their numbers, which do not fall: a batch for each row group that has any.

    Raises:
        DamagedFileError: see `opened`.
    """
    wanted = np.asarray(numbers)
    with opened(uri) as file:
        start = 0
        for group in range(file.num_row_groups):
            n_rows = file.metadata.row_group(group).num_rows
            here = wanted[(wanted >= start) & (wanted < start + n_rows)] - start
            if len(here):
                rows = row_group(file, group, columns)
                if not np.array_equal(here, np.arange(n_rows)):
                    rows = rows.take(here)
                yield from rows.combine_chunks().to_batches()
            start += n_rows


def row_group(file: pq.ParquetFile, number: int, columns: Sequence[str]) -> pa.Table:
    """A row group of a file that was `opened`."""
    rows = file.read_row_group(number, columns=columns, use_threads=False)
    _refuse_other_columns(rows.schema, columns)
    if rows.num_rows != file.metadata.row_group(number).num_rows:
        raise pa.ArrowInvalid(f"{rows.num_rows} rows of {file.metadata.row_group(number).num_rows}")
    return rows


def map_batches(
    spark: SparkSession,
    table: StoredTable,
    columns: Sequence[str],
    function: Callable[[Iterator[pa.RecordBatch]], Iterable[Found]],
) -> RDD[Found]:
    """What a function makes of the batches of each task's share of a table's files.

    A worker decodes Parquet to Arrow in one step. By way of a DataFrame, Spark decodes it to rows and
    encodes these as Arrow, value by value, which for a thousand floats a row takes longer than what is
    computed from them.
    """

    def of_share(share: Sequence[StoredFile]) -> Iterable[Found]:
        return function(batches_of(StoredTable(table.uri, share).uris, columns))

    return spread(spark, shares(spark, table)).flatMap(of_share)


def shares(spark: SparkSession, table: StoredTable) -> list[list[StoredFile]]:
    """The files of a table, a list for each task, in the order of their paths; one at least."""
    n_cores = spark.sparkContext.defaultParallelism
    total = sum(file.size_bytes for file in table.files)
    n_tasks = max(1, min(len(table.files), max(n_cores, math.ceil(total / _BYTES_PER_TASK))))
    # Dealt out by size, so that the tasks get about the same.
    by_size = sorted(table.files, key=lambda file: (-file.size_bytes, file.path))
    return [sorted(by_size[i::n_tasks], key=lambda file: file.path) for i in range(n_tasks)]


def spread(spark: SparkSession, tasks: Sequence[Any]) -> RDD[Any]:
    """Descriptions of work, a task each."""
    return spark.sparkContext.parallelize(tasks, max(1, len(tasks)))


class TableWriter:
    """Writes one Parquet file of a new version from within a task; a task that fails leaves nothing of it.

    Nobody reads the file before its name has come back from the task and was published, so what a killed
    attempt leaves is no file of any table. Once the `with` is over, `file` is it, if anything was written.
    """

    def __init__(self, output: Output, schema: pa.Schema, table: str = ROWS) -> None:
        self.file: StoredFile | None = None
        self._path = f"{output.inside(table)}/{uuid.uuid4().hex}.parquet"
        self._filesystem, self._full_path = fsspec.url_to_fs(f"{output.folder_of(table)}/{self._path}")
        self._n_rows: int | None = None
        self._filesystem.makedirs(self._filesystem._parent(self._full_path), exist_ok=True)
        self._sink = self._filesystem.open(self._full_path, "wb")
        compression = {name: "none" if name in _COMPRESSED else "snappy" for name in schema.names}
        self._writer = pq.ParquetWriter(
            self._sink,
            schema,
            compression=compression if any(name in _COMPRESSED for name in schema.names) else "snappy",
            # A dictionary of values that hardly ever repeat takes time and memory, and is then given up.
            use_dictionary=["label"],
            # Those of other columns are never asked for.
            write_statistics=["path"],
            write_page_checksum=True,
        )

    def __enter__(self) -> Self:
        return self

    def write(self, rows: pa.RecordBatch) -> None:
        """Write rows as one row group."""
        self._writer.write_batch(rows, row_group_size=max(1, rows.num_rows))
        self._n_rows = (self._n_rows or 0) + rows.num_rows

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._writer.close()
            self._sink.close()
            if kind is None and self._n_rows is not None:
                self.file = StoredFile(self._path, self._filesystem.size(self._full_path), self._n_rows)
        except Exception:
            if kind is None:
                raise
        finally:
            if self.file is None:
                with suppress(Exception):  # what went wrong is on its way already
                    self._sink.close()
                with suppress(Exception):
                    self._filesystem.rm(self._full_path)


def remove(uri: str) -> None:
    """Remove a file that no version has."""
    filesystem, path = fsspec.url_to_fs(uri)
    filesystem.rm_file(path)


def write_rows(output: Output, rows: pa.Table, table: str = ROWS) -> StoredFile:
    """Write a small table as one file."""
    with TableWriter(output, rows.schema, table) as writer:
        for batch in rows.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], rows.schema)]:
            writer.write(batch)
    assert writer.file
    return writer.file
