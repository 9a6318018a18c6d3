"""Run the network over every image: 1280 features each."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
from pyspark import Accumulator, Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from fruits_assets.mobilenet.extractor import (
    FLATBUFFER,
    N_FEATURES,
    decoded_inputs,
    worker_extractor,
)
from fruits_assets.stages import raw_images
from fruits_assets.stages.arrow import arrow_batches_of, fixed_length_arrays, matrix
from fruits_assets.stages.parquet import map_batches, write_arrays
from fruits_assets.stages.progress import progress
from fruits_assets.stages.reuse import PREVIOUS, spare_the_other_side
from fruits_assets.stages.stage import StageInputError, StageResult, column_types

FEATURES = "features.parquet"
FEATURES_SCHEMA = "path string, label string, sha256 string, features array<float>"

_TASKS_PER_CORE = 16
_MIN_IMAGES_PER_TASK, _MAX_IMAGES_PER_TASK = 32, 2048
_BATCH_BYTES = 8 * 1024**2
_MAX_IMAGES_PER_BATCH = 128


@dataclass(frozen=True)
class Params:
    """`fingerprint`: SHA-256 of the flatbuffer; `batch_size`: images per call of the interpreter."""

    fingerprint: str
    batch_size: int


def mobilenet_features(
    spark: SparkSession, inputs: Mapping[str, str], output: str, params: Params
) -> StageResult:
    """Write `features.parquet`: path, label, sha256 of the content, features array<float>[1280].

    What an image gives follows from its content and the network alone: features of content that is in
    the previous table are taken from there.

    Args:
        inputs: `raw_images` and `mobilenet_model`, their folders; `previous`, if there is one, a folder
            that this stage wrote with the same flatbuffer.

    Raises:
        StageInputError: the flatbuffer is not the one of the fingerprint.
    """
    flatbuffer = _verified_flatbuffer(f"{inputs['mobilenet_model']}/{FLATBUFFER}", params.fingerprint)
    images = spark.read.parquet(f"{inputs['raw_images']}/{raw_images.IMAGES}")
    started = time.monotonic()
    to_compute, reused = images, None
    if PREVIOUS in inputs:
        previous = spark.read.parquet(f"{inputs[PREVIOUS]}/{FEATURES}").select("sha256", "features")
        to_compute = _without_those_of(previous, images)
        reused = images.select("path", "label", "sha256").join(previous.dropDuplicates(["sha256"]), "sha256")
    size = to_compute.agg(F.count("*").alias("count"), F.mean("bytes").alias("mean_bytes")).first()
    assert size is not None
    n_computed = size["count"]
    network = spark.sparkContext.broadcast(flatbuffer)
    images_per_batch = max(1, min(_MAX_IMAGES_PER_BATCH, int(_BATCH_BYTES / (size["mean_bytes"] or 1))))
    try:
        with (
            progress(spark, "extracting features", n_computed) as done,
            arrow_batches_of(spark, images_per_batch),
        ):
            computed = (
                to_compute.select("path", "label", "sha256", "content")
                .repartition(_n_tasks(n_computed, spark.sparkContext.defaultParallelism))
                .mapInArrow(_extract(network, params.batch_size, done), FEATURES_SCHEMA)
            )
            table = computed if reused is None else computed.unionByName(reused)
            write_arrays(table, f"{output}/{FEATURES}")
    finally:
        network.destroy()
    seconds = time.monotonic() - started
    facts = describe_features(spark, f"{output}/{FEATURES}", images)
    return StageResult(
        row_count=facts["row_count"],
        schema=column_types(spark.read.parquet(f"{output}/{FEATURES}")),
        metadata={
            **facts,
            "fingerprint": params.fingerprint,
            "seconds": seconds,
            "images_per_s": facts["row_count"] / seconds,
            "n_computed": n_computed,
            "n_reused": facts["row_count"] - n_computed,
        },
    )


def _without_those_of(previous: DataFrame, images: DataFrame) -> DataFrame:
    """The images whose content is not in the previous table."""
    new = images.select("path", "sha256").join(previous.select("sha256"), "sha256", "left_anti")
    return images.join(spare_the_other_side(new.select("path"), new.count()), "path", "left_semi")


def describe_features(spark: SparkSession, uri: str, images: DataFrame) -> dict[str, Any]:
    """Compare a stored features table with the images it is of, and summarise its values.

    `n_missing` and `n_unexpected` count paths on one side only, `n_duplicates` repeated ones;
    `sparsity` is the share of zeros among the values of well-formed rows, `feature_means` has one value
    per feature.
    """
    parts = map_batches(spark, uri, ["features"], _summarise).collect()
    n_sound = sum(part["n_sound"] for part in parts)
    sums = sum((part["sums"] for part in parts), np.zeros(N_FEATURES))
    return {
        **_compare_paths(spark.read.parquet(uri), images),
        "row_count": sum(part["n_rows"] for part in parts),
        "n_wrong_length": sum(part["n_wrong_length"] for part in parts),
        "n_not_finite": sum(part["n_not_finite"] for part in parts),
        "sparsity": sum(part["n_zeros"] for part in parts) / max(1, n_sound * N_FEATURES),
        "feature_means": (sums / max(1, n_sound)).tolist(),
    }


def _compare_paths(features: DataFrame, images: DataFrame) -> dict[str, int]:
    both = images.select("path", F.lit(1).alias("n_images"), F.lit(0).alias("n_features")).union(
        features.select("path", F.lit(0), F.lit(1))
    )
    per_path = both.groupBy("path").agg(
        F.sum("n_images").alias("n_images"), F.sum("n_features").alias("n_features")
    )
    counts = per_path.agg(
        F.count_if(F.col("n_features") == 0).alias("n_missing"),
        F.count_if(F.col("n_images") == 0).alias("n_unexpected"),
        F.coalesce(F.sum(F.greatest(F.col("n_features") - 1, F.lit(0))), F.lit(0)).alias("n_duplicates"),
    ).first()
    assert counts is not None
    return counts.asDict()


def _summarise(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        column = batch["features"]
        lengths = column.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
        values = matrix(column.filter(pa.array(lengths == N_FEATURES)), N_FEATURES)
        is_finite = np.isfinite(values).all(axis=1)
        sound = values[is_finite]
        yield {
            "n_rows": len(column),
            "n_sound": len(sound),
            "n_wrong_length": int((lengths != N_FEATURES).sum()),
            "n_not_finite": int((~is_finite).sum()),
            "n_zeros": int((sound == 0).sum()),
            "sums": sound.sum(axis=0),
        }


def _verified_flatbuffer(uri: str, fingerprint: str) -> bytes:
    with fsspec.open(uri, "rb") as file:
        flatbuffer: bytes = file.read()
    found = hashlib.sha256(flatbuffer).hexdigest()
    if found != fingerprint:
        raise StageInputError(
            f"The network at '{uri}' has SHA-256 {found[:12]}..., not {fingerprint[:12]}... as "
            "published. Materialize mobilenet_model again."
        )
    return flatbuffer


def _n_tasks(n_images: int, n_cores: int) -> int:
    """Enough tasks to keep all cores busy to the end, each long enough to be worth its start."""
    per_task = math.ceil(n_images / (n_cores * _TASKS_PER_CORE))
    per_task = min(max(per_task, _MIN_IMAGES_PER_TASK), _MAX_IMAGES_PER_TASK)
    return max(1, math.ceil(n_images / per_task))


def _extract(
    network: Broadcast[bytes], batch_size: int, done: Accumulator[int]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def extract(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        extractor = worker_extractor(network.value, batch_size)
        for batch in batches:
            paths = batch["path"].to_pylist()
            contents = (value.as_py() for value in batch["content"])
            features = extractor.features(decoded_inputs(paths, contents))
            yield pa.RecordBatch.from_arrays(
                [batch["path"], batch["label"], batch["sha256"], fixed_length_arrays(features)],
                ["path", "label", "sha256", "features"],
            )
            done.add(batch.num_rows)

    return extract
