"""Project the scaled features onto the components and write the matrix, as CSV and as Parquet."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from pyspark import Accumulator
from pyspark.sql import SparkSession

from fruits_assets.mobilenet.extractor import N_FEATURES
from fruits_assets.stages.arrow import Matrix, fixed_length_arrays, matrix
from fruits_assets.stages.parquet import TableWriter, batches_of, opened, remove, row_group, spread
from fruits_assets.stages.pca_model import Decomposition
from fruits_assets.stages.progress import progress
from fruits_assets.stages.stage import StageInputError, StageResult, column_types
from fruits_assets.stages.stored import ROWS, Output, Stored, StoredFile, StoredTable

CSV, PARQUET = "results.csv", "results.parquet"
VECTOR_COLUMN = "pcaFeatures"
_PARTS_SCHEMA = pa.schema(
    [("path", pa.string()), ("label", pa.string()), ("pca_features", pa.list_(pa.float64()))]
)
_ROWS_PER_TASK = 16_384
_ROWS_PER_BLOCK = 1024
_BLOCKS_PER_ROW_GROUP = 4
_CSV_BLOCK_BYTES = 256 * 1024
_ROWS_SHOWN, _POINTS_SHOWN = 5, 3000

Layout = Literal["columns", "vector"]


@dataclass(frozen=True)
class Params:
    """`layout`: a column per component (`columns`) or all in one bracketed list (`vector`)."""

    layout: Layout


@dataclass(frozen=True)
class Range:
    """Rows whose path is at least `start` and less than `end` (None: to the last).

    `groups` are the row groups, by URI of the file, that may have any of them.
    """

    start: str
    end: str | None
    groups: Mapping[str, Sequence[int]]


def pca_features_csv(
    spark: SparkSession, inputs: Mapping[str, Stored], output: Output, params: Params
) -> StageResult:
    """Write `results.csv` and `results.parquet`: path, label and the components, sorted by path.

    A task projects a range of paths, so that nothing has to be sorted as a whole. The two files are then
    written in one pass over the ranges, block by block: memory does not grow with the number of images.

    Args:
        inputs: `scaled_features` and `pca_model`, which was fitted to them.

    Raises:
        StageInputError: there is no row.
    """
    scaled = inputs["scaled_features"].table
    model = Decomposition.saved(inputs["pca_model"].folder)
    if not scaled.n_rows:
        raise StageInputError(f"'{scaled.uri}' has no rows to project.")
    ranges = path_ranges(scaled, spark.sparkContext.defaultParallelism)
    with progress(spark, "projecting features", scaled.n_rows) as done:
        project = _projected(output, model.components, done)
        parts = [part for part in spread(spark, ranges).map(project).collect() if part]
    points: list[tuple[str, float, float]] = []
    with progress(spark, f"writing {CSV}", scaled.n_rows, "rows") as done:
        blocks = batches_of(StoredTable(output.asset, parts).uris, _PARTS_SCHEMA.names, _ROWS_PER_BLOCK)
        sampled = _sampled(blocks, math.ceil(scaled.n_rows / _POINTS_SHOWN), points, done)
        arrange = _with_columns if params.layout == "columns" else _with_list
        schema = write_results(map(arrange, sampled), output.folder)
    for uri in StoredTable(output.asset, parts).uris:
        remove(uri)
    filesystem, folder = fsspec.url_to_fs(output.folder)
    file = StoredFile(
        f"{output.inside(ROWS)}/{PARQUET}",
        filesystem.size(f"{folder}/{PARQUET}"),
        sum(part.n_rows for part in parts),
    )
    return StageResult(
        row_count=file.n_rows,
        schema=column_types(schema),
        tables={ROWS: [file]},
        metadata={
            **describe_csv(f"{output.folder}/{CSV}"),
            "n_images": scaled.n_rows,
            "expected_columns": column_names(len(model.explained_variance_ratio), params.layout),
            "explained_variance_ratio": model.explained_variance_ratio.tolist(),
            "points": points,
        },
    )


def path_ranges(table: StoredTable, n_cores: int) -> list[Range]:
    """Ranges that together hold every row once, in order of the paths, each of about the same size.

    Files of a table may hold any paths; Parquet's own statistics say between which those of a row group are.
    """
    groups: list[tuple[str, str, int, str, int]] = []
    for uri in table.uris:
        with opened(uri) as file:
            column = file.schema_arrow.names.index("path")
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                paths = group.column(column).statistics
                groups.append((paths.min, paths.max, group.num_rows, uri, number))
    groups.sort()
    n_ranges = max(1, min(len(groups), max(n_cores, math.ceil(table.n_rows / _ROWS_PER_TASK))))
    starts, n_rows = [""], 0
    for first, _, n_more, _, _ in groups:
        if n_rows >= len(starts) * table.n_rows / n_ranges and first > starts[-1]:
            starts.append(first)
        n_rows += n_more
    ranges = []
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        inside: dict[str, list[int]] = defaultdict(list)
        for first, last, _, uri, number in groups:
            if last >= start and (end is None or first < end):
                inside[uri].append(number)
        ranges.append(Range(start, end, dict(inside)))
    return ranges


def _projected(
    output: Output, components: Matrix, done: Accumulator[int]
) -> Callable[[Range], StoredFile | None]:
    """Scores of the rows of a range in float64, sorted by path, as a file of their own."""

    def project(rows: Range) -> StoredFile | None:
        names: list[pa.RecordBatch] = []
        scores: list[Matrix] = []
        for batch in _row_groups(rows.groups):
            paths = batch["path"].to_pylist()
            inside = [path >= rows.start and (rows.end is None or path < rows.end) for path in paths]
            wanted = batch.filter(pa.array(inside))
            if wanted.num_rows:
                names.append(wanted.select(["path", "label"]))
                scores.append(scores_of(wanted, components))
                done.add(wanted.num_rows)
        if not names:
            return None
        columns = pa.Table.from_batches(names)
        order = np.argsort(np.array(columns["path"].to_pylist(), object), kind="stable")
        columns = columns.take(order).combine_chunks()
        arrays = fixed_length_arrays(np.concatenate(scores)[order])
        with TableWriter(output, _PARTS_SCHEMA) as writer:
            part = pa.table([columns["path"], columns["label"], arrays], schema=_PARTS_SCHEMA)
            for block in part.to_batches(_ROWS_PER_BLOCK):
                writer.write(block)
        return writer.file

    return project


def scores_of(scaled: pa.RecordBatch, components: Matrix) -> Matrix:
    """Of the scaled features of some photos on components, (n_features, n_components), in float64."""
    return matrix(scaled["scaled_features"], N_FEATURES) @ components


def _row_groups(groups: Mapping[str, Sequence[int]]) -> Iterator[pa.RecordBatch]:
    for uri, numbers in groups.items():
        with opened(uri) as file:
            for number in numbers:
                rows = row_group(file, number, ["path", "label", "scaled_features"])
                yield from rows.combine_chunks().to_batches()


def _sampled(
    blocks: Iterator[pa.RecordBatch],
    step: int,
    points: list[tuple[str, float, float]],
    done: Accumulator[int],
) -> Iterator[pa.RecordBatch]:
    """Pass the blocks on, keeping label, PC1 and PC2 of every `step`-th row in `points`."""
    n_rows = 0
    for block in blocks:
        for i in range(-n_rows % step, block.num_rows, step):
            components = block["pca_features"][i].as_py()
            second = components[1] if len(components) > 1 else 0.0
            points.append((block["label"][i].as_py(), components[0], second))
        n_rows += block.num_rows
        done.add(block.num_rows)
        yield block


def write_results(blocks: Iterator[pa.RecordBatch], folder: str) -> pa.Schema:
    """Write both files, of blocks in either layout; returns the schema of the Parquet file."""
    first = next(blocks)
    has_columns = VECTOR_COLUMN not in first.schema.names
    options = pyarrow.csv.WriteOptions(include_header=False)
    with (
        fsspec.open(f"{folder}/{CSV}", "wb") as csv_file,
        fsspec.open(f"{folder}/{PARQUET}", "wb") as parquet_file,
        pyarrow.parquet.ParquetWriter(
            parquet_file, first.schema, use_dictionary=["label"], write_page_checksum=True
        ) as parquet_writer,
    ):
        csv_file.write((",".join(first.schema.names) + "\n").encode())
        blocks = itertools.chain([first], blocks)
        while group := list(itertools.islice(blocks, _BLOCKS_PER_ROW_GROUP)):
            parquet_writer.write_table(pa.Table.from_batches(group))
            for block in group:
                pyarrow.csv.write_csv(block if has_columns else _with_text(block), csv_file, options)
    return first.schema


def _with_columns(block: pa.RecordBatch) -> pa.RecordBatch:
    n_components = len(block["pca_features"][0])
    columns = matrix(block["pca_features"], n_components).T
    return pa.RecordBatch.from_arrays(
        [block["path"], block["label"], *(pa.array(column) for column in columns)],
        column_names(n_components, "columns"),
    )


def _with_list(block: pa.RecordBatch) -> pa.RecordBatch:
    return block.rename_columns(column_names(1, "vector"))


def _with_text(block: pa.RecordBatch) -> pa.RecordBatch:
    # repr gives the shortest text that reads back as the same double.
    texts = ["[" + ",".join(map(repr, row)) + "]" for row in block[VECTOR_COLUMN].to_pylist()]
    return pa.RecordBatch.from_arrays([block["path"], block["label"], pa.array(texts)], block.schema.names)


def column_names(n_components: int, layout: Layout) -> list[str]:
    """The header of the file."""
    components = [f"pc_{i}" for i in range(1, n_components + 1)]
    return ["path", "label", *(components if layout == "columns" else [VECTOR_COLUMN])]


def describe_csv(uri: str) -> dict[str, Any]:
    """Read a results file back, as a stranger would: rows, columns, size and the first rows.

    `parse_error` is the reader's message if the file is no table, else None.
    """
    filesystem, path = fsspec.url_to_fs(uri)
    facts: dict[str, Any] = {
        "size_bytes": filesystem.size(path),
        "n_csv_rows": 0,
        "columns": [],
        "first_rows": [],
        "parse_error": None,
    }
    try:
        with filesystem.open(path, "rb") as file:
            reader = pyarrow.csv.open_csv(
                file,
                # Threads would read many blocks ahead.
                read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK_BYTES),
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=_column_types(filesystem, path),
            )
            facts["columns"] = reader.schema.names
            for block in reader:
                if not facts["first_rows"]:
                    facts["first_rows"] = block.slice(0, _ROWS_SHOWN).to_pylist()
                facts["n_csv_rows"] += block.num_rows
    except pa.ArrowInvalid as error:
        facts["parse_error"] = str(error)
    return facts


def _column_types(filesystem: fsspec.AbstractFileSystem, path: str) -> pyarrow.csv.ConvertOptions:
    """Text for names and lists, numbers for components: whatever does not convert is an error."""
    with filesystem.open(path, "rb") as file:
        names = file.readline().decode().strip().split(",")
    types = {name: pa.float64() if name.startswith("pc_") else pa.string() for name in names}
    return pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=False)
