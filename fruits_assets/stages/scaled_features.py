"""Standardise the features: mean 0, standard deviation 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import Accumulator
from pyspark.ml.feature import StandardScalerModel
from pyspark.sql import SparkSession

from fruits_assets.mobilenet.extractor import N_FEATURES
from fruits_assets.stages import mobilenet_features
from fruits_assets.stages.arrow import fixed_length_arrays, matrix
from fruits_assets.stages.ml_models import standard_scaler_model
from fruits_assets.stages.moments import column_moments
from fruits_assets.stages.parquet import map_batches_to_rows, write_arrays
from fruits_assets.stages.progress import progress
from fruits_assets.stages.stage import StageInputError, StageResult, column_types

SCALED_FEATURES, SCALER = "scaled_features.parquet", "standard_scaler_model"
SCALED_SCHEMA = "path string, label string, scaled_features array<float>"


@dataclass(frozen=True)
class Params:
    """Scale to mean 0 and to standard deviation 1, or do only one of the two."""

    with_mean: bool = True
    with_std: bool = True


def scaled_features(
    spark: SparkSession, inputs: Mapping[str, str], output: str, params: Params
) -> StageResult:
    """Write `scaled_features.parquet` and the StandardScalerModel that made it.

    x becomes (x - mean) / std with n - 1 in the variance, and 0 for a constant feature, as Spark ML's
    StandardScaler has it.

    Args:
        inputs: `mobilenet_features`, its folder.

    Raises:
        StageInputError: fewer than two images.
    """
    uri = f"{inputs['mobilenet_features']}/{mobilenet_features.FEATURES}"
    n_images = spark.read.parquet(uri).count()
    if n_images < 2:
        raise StageInputError(f"{n_images} image(s) have no standard deviation: at least 2 needed.")
    with progress(spark, "measuring features", n_images) as done:
        moments = column_moments(spark, uri, "features", N_FEATURES, done=done)
    model = standard_scaler_model(spark, moments, params.with_mean, params.with_std)
    model.save(f"{output}/{SCALER}")
    with progress(spark, "scaling features", n_images) as done:
        columns = ["path", "label", "features"]
        scaled = map_batches_to_rows(spark, uri, columns, _scale(model, done), SCALED_SCHEMA)
        write_arrays(scaled, f"{output}/{SCALED_FEATURES}")
    return StageResult(
        row_count=n_images,
        schema=column_types(scaled),
        metadata=describe_scaled(spark, f"{output}/{SCALED_FEATURES}"),
    )


def _scale(
    model: StandardScalerModel, done: Accumulator[int]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """(x - mean) * factor in float64, from column `features` to `scaled_features`."""
    mean = model.mean.toArray() if model.getWithMean() else np.zeros(N_FEATURES)
    std = model.std.toArray() if model.getWithStd() else np.ones(N_FEATURES)
    factor = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0)

    def scale(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            scaled = (matrix(batch["features"], N_FEATURES) - mean) * factor
            yield pa.RecordBatch.from_arrays(
                [batch["path"], batch["label"], fixed_length_arrays(scaled.astype(np.float32))],
                ["path", "label", "scaled_features"],
            )
            done.add(batch.num_rows)

    return scale


def describe_scaled(spark: SparkSession, uri: str) -> dict[str, Any]:
    """How far a scaled table is from mean 0 and standard deviation 1; constant features count apart."""
    moments = column_moments(spark, uri, "scaled_features", N_FEATURES)
    is_constant = moments.std == 0
    deviation = np.abs(moments.std[~is_constant] - 1)
    return {
        "row_count": moments.count,
        "n_constant_features": int(is_constant.sum()),
        "max_abs_mean": float(np.abs(moments.mean).max()),
        "max_abs_std_minus_1": float(deviation.max(initial=0.0)),
    }
