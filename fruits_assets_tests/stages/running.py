"""Run a stage into a folder, and have what it wrote at hand, as the next stage gets it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from fruits_assets.stages.parquet import TableWriter
from fruits_assets.stages.stage import Stage, StageResult
from fruits_assets.stages.stored import ROWS, Output, Stored, StoredTable

Params = TypeVar("Params")


@dataclass(frozen=True)
class Ran:
    """What a stage told, and where it wrote."""

    result: StageResult
    output: Output

    @property
    def stored(self) -> Stored:
        """As the next stage gets it."""
        return Stored(self.table(), self.output.folder)

    @property
    def folder(self) -> Path:
        """Of what is not a table."""
        return Path(self.output.folder)

    def table(self, name: str = ROWS) -> StoredTable:
        return StoredTable(self.output.folder_of(name), self.result.tables[name])


def run_stage(
    spark: SparkSession,
    stage: Stage[Params],
    inputs: Mapping[str, Stored],
    asset: Path | str,
    params: Params,
    version: str = "1",
) -> Ran:
    """Run a stage as a version of an asset; several versions of one asset share its folder."""
    output = Output(str(asset), version)
    return Ran(stage(spark, inputs, output, params), output)


@contextmanager
def stages_of_jobs(spark: SparkSession) -> Iterator[list[int]]:
    """A list that, once this is over, has the number of Spark's stages of each job that was run meanwhile.

    A job of one stage moves no rows from one task to another.
    """
    context: Any = spark.sparkContext
    group, found = uuid4().hex, list[int]()
    context.setJobGroup(group, "counted by a test")
    try:
        yield found
    finally:
        context.setLocalProperty("spark.jobGroup.id", None)
    context._jsc.sc().listenerBus().waitUntilEmpty()  # Spark keeps its books a moment later
    tracker = context.statusTracker()
    found += [len(tracker.getJobInfo(job).stageIds) for job in tracker.getJobIdsForGroup(group)]


def write_table(asset: Path, *parts: pa.Table, rows_per_group: int | None = None) -> StoredTable:
    """A table of an asset with a file for each part, in their order; of one row group each unless told."""
    output = Output(str(asset), "made up")
    files = []
    for part in parts:
        with TableWriter(output, part.schema) as writer:
            for batch in part.combine_chunks().to_batches(rows_per_group) or [empty_batch(part.schema)]:
                writer.write(batch)
        assert writer.file
        files.append(writer.file)
    return StoredTable(output.asset, files)


def empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema)


def stored_rows(table: StoredTable) -> list[dict[str, Any]]:
    """All rows, in the order of the files."""
    return [row for uri in table.uris for row in stored_rows_of_file(uri)]


def stored_rows_of_file(uri: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    with fsspec.open(uri, "rb") as file:
        rows: list[dict[str, Any]] = pq.read_table(file, columns=columns).to_pylist()
    return rows


def paths_of(uri: str) -> list[str]:
    """The paths in one file of a table."""
    return [row["path"] for row in stored_rows_of_file(uri, ["path"])]


def as_dataframe(spark: SparkSession, table: StoredTable) -> DataFrame:
    """As anyone's Spark reads it."""
    return spark.read.parquet(*table.uris)


def truncate(uri: str) -> None:
    """What a full disk leaves of a file."""
    content = Path(uri).read_bytes()
    Path(uri).write_bytes(content[: len(content) // 2])


def flip_bit(uri: str, column: str) -> None:
    """What a worn disk makes of a file: one bit is another one, in the last value of a column."""
    metadata = pq.read_metadata(uri)
    group = metadata.row_group(metadata.num_row_groups - 1)
    chunks = [group.column(i) for i in range(group.num_columns)]
    (chunk,) = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] == column]
    content = bytearray(Path(uri).read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start + chunk.total_compressed_size - 1] ^= 1
    Path(uri).write_bytes(content)
