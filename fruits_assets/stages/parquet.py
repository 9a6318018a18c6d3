"""Wide columns of Parquet tables: straight into the workers, past the rows of the JVM, and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import RDD
from pyspark.sql import DataFrame, SparkSession

Found = TypeVar("Found")

_BYTES_PER_TASK = 128 * 1024**2
# Of 1280 float64: 21 MB. Spark's own 10,000 rows cost a worker half a gigabyte.
_ROWS_PER_BATCH = 2048
# The JVM takes each batch that it gets as one block of memory, which it does not soon give back.
_ROWS_PER_BATCH_BACK = 256
_READ_BUFFER_BYTES = 1024**2  # read as it is decoded, not a whole row group at once


def map_batches(
    spark: SparkSession,
    uri: str,
    columns: Sequence[str],
    function: Callable[[Iterator[pa.RecordBatch]], Iterable[Found]],
) -> RDD[Found]:
    """What a function makes of the batches of each task's share of a table's files.

    A worker decodes Parquet to Arrow in one step. By way of a DataFrame, Spark decodes it to rows and
    encodes these as Arrow, value by value, which for a thousand floats a row takes longer than what is
    computed from them.

    Args:
        uri: a folder of Parquet files, on this machine or in S3.
    """

    def of_shares(shares: Iterable[Sequence[str]]) -> Iterator[Found]:
        yield from function(batches_of(uri, itertools.chain.from_iterable(shares), columns))

    shares = _shares(spark, uri)
    return spark.sparkContext.parallelize(shares, len(shares)).mapPartitions(of_shares)


def map_batches_to_rows(
    spark: SparkSession,
    uri: str,
    columns: Sequence[str],
    function: Callable[[Iterator[pa.RecordBatch]], Iterable[pa.RecordBatch]],
    schema: str,
) -> DataFrame:
    """`map_batches` where the function gives batches too: the rows of a DataFrame of that schema."""

    def of_shares(tasks: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        paths = (path.as_py() for task in tasks for share in task["paths"] for path in share)
        yield from function(batches_of(uri, paths, columns, _ROWS_PER_BATCH_BACK))

    shares = [(paths,) for paths in _shares(spark, uri)]
    tasks = spark.sparkContext.parallelize(shares, len(shares)).toDF("paths array<string>")
    return tasks.mapInArrow(of_shares, schema)


def write_arrays(table: DataFrame, uri: str) -> None:
    """Write a table of wide arrays of floats."""
    # A dictionary of values that hardly ever repeat takes time and memory, and is then given up.
    table.write.option("parquet.enable.dictionary", "false").parquet(uri)


def _shares(spark: SparkSession, uri: str) -> list[list[str]]:
    """The files of a table, a list for each task; an empty one if there are none."""
    sizes = file_sizes(uri)
    n_cores = spark.sparkContext.defaultParallelism
    n_tasks = max(1, min(len(sizes), max(n_cores, math.ceil(sum(sizes.values()) / _BYTES_PER_TASK))))
    # Dealt out by size, so that the tasks get about the same.
    by_size = sorted(sizes, key=lambda path: (-sizes[path], path))
    return [by_size[i::n_tasks] for i in range(n_tasks)]


def file_sizes(uri: str) -> dict[str, int]:
    """The files of a table, by path, and their sizes in bytes."""
    filesystem, root = fsspec.url_to_fs(uri)
    filesystem.invalidate_cache()
    listed = filesystem.find(root, detail=True)
    return {path: info["size"] for path, info in listed.items() if path.endswith(".parquet")}


def batches_of(
    uri: str, paths: Iterable[str], columns: Sequence[str] | None = None, n_rows: int = _ROWS_PER_BATCH
) -> Iterator[pa.RecordBatch]:
    """The rows of some files of a table, in order, `n_rows` at a time; without `columns`, all columns."""
    filesystem, _ = fsspec.url_to_fs(uri)
    for path in paths:
        with filesystem.open(path, "rb") as file:
            table = pq.ParquetFile(file, buffer_size=_READ_BUFFER_BYTES, pre_buffer=False)
            yield from table.iter_batches(n_rows, columns=columns, use_threads=False)
