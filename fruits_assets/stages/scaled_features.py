"""Standardise the features: mean 0, standard deviation 1."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import Accumulator
from pyspark.sql import SparkSession

from fruits_assets.mobilenet.extractor import N_FEATURES
from fruits_assets.stages import ml_models
from fruits_assets.stages.arrow import fixed_length_arrays, matrix
from fruits_assets.stages.moments import Moments, column_moments, merge, moments_of_batches
from fruits_assets.stages.parquet import TableWriter, batches_of, shares, spread
from fruits_assets.stages.progress import progress
from fruits_assets.stages.scaling import SCALER, Scaling
from fruits_assets.stages.stage import StageInputError, StageResult, column_types
from fruits_assets.stages.stored import ROWS, Output, Stored, StoredFile, StoredTable

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("sha256", pa.string()),
        ("scaled_features", pa.list_(pa.float32())),
    ]
)
_ROWS_PER_GROUP = 512


@dataclass(frozen=True)
class Params:
    """Scale to mean 0 and to standard deviation 1, or do only one of the two."""

    with_mean: bool = True
    with_std: bool = True


def scaled_features(
    spark: SparkSession, inputs: Mapping[str, Stored], output: Output, params: Params
) -> StageResult:
    """Write path, label, sha256 and scaled_features array<float>[1280], and the StandardScalerModel.

    x becomes (x - mean) / std with n - 1 in the variance, and 0 for a constant feature, as Spark ML's
    StandardScaler has it.

    Args:
        inputs: `mobilenet_features`.

    Raises:
        StageInputError: fewer than two images.
    """
    table = inputs["mobilenet_features"].table
    if table.n_rows < 2:
        raise StageInputError(f"{table.n_rows} image(s) have no standard deviation: at least 2 needed.")
    with progress(spark, "measuring features", table.n_rows) as done:
        moments = column_moments(spark, table, "features", N_FEATURES, done=done)
    scaler = f"{output.folder}/{SCALER}"
    ml_models.save_standard_scaler(scaler, moments.mean, moments.std, params.with_mean, params.with_std)
    with progress(spark, "scaling features", table.n_rows) as done:
        scale = _scaled(table.uri, output, Scaling.saved(scaler), done)
        scaled = spread(spark, shares(spark, table)).map(scale).collect()
    return StageResult(
        row_count=sum(file.n_rows for file, _ in scaled),
        schema=column_types(SCHEMA),
        tables={ROWS: [file for file, _ in scaled]},
        metadata=describe_scaled(functools.reduce(merge, (moments for _, moments in scaled))),
    )


def _scaled(
    uri: str, output: Output, scaling: Scaling, done: Accumulator[int]
) -> Callable[[Sequence[StoredFile]], tuple[StoredFile, Moments]]:
    """Scale the files of a task, in float64, to one file; its moments are those of what is stored."""

    def scale(share: Sequence[StoredFile]) -> tuple[StoredFile, Moments]:
        columns = [*SCHEMA.names[:-1], "features"]
        with TableWriter(output, SCHEMA) as writer:
            for batch in batches_of(StoredTable(uri, share).uris, columns, _ROWS_PER_GROUP):
                features = fixed_length_arrays(scaling.scaled(matrix(batch["features"], N_FEATURES)))
                identity = [batch[name] for name in SCHEMA.names[:-1]]
                writer.write(pa.RecordBatch.from_arrays([*identity, features], schema=SCHEMA))
                done.add(batch.num_rows)
        assert writer.file
        return writer.file, moments_of_file(f"{output.asset}/{writer.file.path}")

    return scale


def moments_of_file(uri: str) -> Moments:
    """Moments of the scaled features of a stored file."""
    return moments_of_batches(batches_of([uri], ["scaled_features"]), "scaled_features", N_FEATURES)


def describe_scaled(moments: Moments) -> dict[str, Any]:
    """How far a scaled table is from mean 0 and standard deviation 1; constant features count apart."""
    is_constant = moments.std == 0
    deviation = np.abs(moments.std[~is_constant] - 1)
    return {
        "row_count": moments.count,
        "n_constant_features": int(is_constant.sum()),
        "max_abs_mean": float(np.abs(moments.mean).max()),
        "max_abs_std_minus_1": float(deviation.max(initial=0.0)),
    }
