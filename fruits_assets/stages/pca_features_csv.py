"""Project the scaled features onto the components and write the matrix, as CSV and as Parquet."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from pyspark import Accumulator
from pyspark.ml.feature import PCAModel
from pyspark.sql import SparkSession

from fruits_assets.mobilenet.extractor import N_FEATURES
from fruits_assets.stages import pca_model, scaled_features
from fruits_assets.stages.arrow import fixed_length_arrays, matrix
from fruits_assets.stages.moments import Matrix
from fruits_assets.stages.parquet import batches_of, file_sizes, map_batches_to_rows, write_arrays
from fruits_assets.stages.progress import progress
from fruits_assets.stages.stage import StageInputError, StageResult

CSV, PARQUET = "results.csv", "results.parquet"
VECTOR_COLUMN = "pcaFeatures"
_PARTS = "pca_features.parquet"
_PARTS_SCHEMA = "path string, label string, pca_features array<double>"
_ROWS_PER_BLOCK = 4096
_CSV_BLOCK_BYTES = 256 * 1024
_ROWS_SHOWN, _POINTS_SHOWN = 5, 3000

Layout = Literal["columns", "vector"]


@dataclass(frozen=True)
class Params:
    """`layout`: a column per component (`columns`) or all in one bracketed list (`vector`)."""

    layout: Layout


def pca_features_csv(
    spark: SparkSession, inputs: Mapping[str, str], output: str, params: Params
) -> StageResult:
    """Write `results.csv` and `results.parquet`: path, label and the components, sorted by path.

    The projection is distributed; the two files are then written in one pass over its parts, block by
    block, so that memory does not grow with the number of images.

    Args:
        inputs: `scaled_features` and `pca_model`, their folders.

    Raises:
        StageInputError: there is no row.
    """
    scaled = f"{inputs['scaled_features']}/{scaled_features.SCALED_FEATURES}"
    model = PCAModel.load(f"{inputs['pca_model']}/{pca_model.MODEL}")
    n_images = spark.read.parquet(scaled).count()
    if not n_images:
        raise StageInputError(f"'{inputs['scaled_features']}' has no rows to project.")
    parts = f"{output}/{_PARTS}"
    with progress(spark, "projecting features", n_images) as done:
        columns, project = ["path", "label", "scaled_features"], _project(model.pc.toArray(), done)
        projected = map_batches_to_rows(spark, scaled, columns, project, _PARTS_SCHEMA)
        write_arrays(projected.sort("path"), parts)
    points: list[tuple[str, float, float]] = []
    with progress(spark, f"writing {CSV}", n_images, "rows") as done:
        blocks = _sampled(_blocks(parts), math.ceil(n_images / _POINTS_SHOWN), points, done)
        schema = _write_files(blocks, output, params.layout)
    filesystem, root = fsspec.url_to_fs(parts)
    filesystem.rm(root, recursive=True)
    return StageResult(
        row_count=n_images,
        schema={field.name: str(field.type) for field in schema},
        metadata={
            **describe_csv(f"{output}/{CSV}"),
            "n_images": n_images,
            "expected_columns": column_names(len(model.explainedVariance), params.layout),
            "explained_variance_ratio": model.explainedVariance.toArray().tolist(),
            "points": points,
        },
    )


def _project(
    components: Matrix, done: Accumulator[int]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Scores in float64, from column `scaled_features` to `pca_features`."""

    def project(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            projected = matrix(batch["scaled_features"], N_FEATURES) @ components
            yield pa.RecordBatch.from_arrays(
                [batch["path"], batch["label"], fixed_length_arrays(projected)],
                ["path", "label", "pca_features"],
            )
            done.add(batch.num_rows)

    return project


def _blocks(parts: str) -> Iterator[pa.RecordBatch]:
    return batches_of(parts, sorted(file_sizes(parts)), n_rows=_ROWS_PER_BLOCK)


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


def _write_files(blocks: Iterator[pa.RecordBatch], output: str, layout: Layout) -> pa.Schema:
    """Write both files and return the schema of the Parquet file."""
    arranged = (_with_columns(block) if layout == "columns" else _with_list(block) for block in blocks)
    first = next(arranged)
    options = pyarrow.csv.WriteOptions(include_header=False)
    with (
        fsspec.open(f"{output}/{CSV}", "wb") as csv_file,
        fsspec.open(f"{output}/{PARQUET}", "wb") as parquet_file,
        pyarrow.parquet.ParquetWriter(parquet_file, first.schema, use_dictionary=["label"]) as parquet_writer,
    ):
        csv_file.write((",".join(first.schema.names) + "\n").encode())
        for block in itertools.chain([first], arranged):
            parquet_writer.write_batch(block)
            pyarrow.csv.write_csv(block if layout == "columns" else _with_text(block), csv_file, options)
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
                # It reads many blocks ahead.
                read_options=pyarrow.csv.ReadOptions(block_size=_CSV_BLOCK_BYTES),
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
