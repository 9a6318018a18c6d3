"""Images per second of `mobilenet_features`, against the design that it replaces and the bare engine.

All work on the same images with the same weights, on all cores of this machine. See README.md beside this
file for the method.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import precisions
import pyarrow as pa
import pyarrow.parquet as pq
from machine_limits import FLOP_PER_IMAGE, engine_seconds, float32_flop_per_s
from measuring import figure_rows, scratch_folder, table, timed, write_images
from numpy.typing import NDArray
from PIL import Image
from pyspark import Accumulator, Broadcast
from pyspark.sql import SparkSession
from pyspark.sql.pandas.functions import pandas_udf

from fruits_assets.assets.mobilenet_features import FeaturesConfig
from fruits_assets.mobilenet import weights
from fruits_assets.mobilenet.convert import convert_in_own_process
from fruits_assets.mobilenet.extractor import FLATBUFFER, N_FEATURES, Extractor
from fruits_assets.mobilenet.weights import FLOAT32, INT8
from fruits_assets.resources.spark import LocalSpark
from fruits_assets.stages import mobilenet_features, raw_images
from fruits_assets.stages.parquet import batches_of
from fruits_assets.stages.progress import progress
from fruits_assets.stages.stage import StageResult, logger
from fruits_assets.stages.stored import Output, Stored, StoredTable

MAX_DIFFERENCE = 1e-3
MAX_WORKER_MB = 400

_WARM_UP_IMAGES_PER_CORE = 32  # the stage gives no task fewer, so every core starts its worker
_REPLACED_TASKS = 24  # the notebook's partitions
_REPLACED_ROWS_PER_BATCH = 1024  # it decodes a whole Arrow batch at once: 0.6 MB per image


def untrained_weights() -> list[NDArray[np.float32]]:
    """The arrays of the headless model, in Keras' order; TensorFlow stays in this process."""
    _mute_standard_error()
    arrays: list[NDArray[np.float32]] = weights.load(weights.UNTRAINED).model.get_weights()
    return arrays


def _mute_standard_error() -> None:
    # TensorFlow looks for a GPU before it reads its log level. Exceptions take another way out.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def run_replaced(
    spark: SparkSession,
    stored: StoredTable,
    output: str,
    n_tasks: int,
    model_weights: list[NDArray[np.float32]],
) -> float:
    """Run the design that was replaced; returns the mean time of a task to rebuild the model, s."""
    images = spark.read.parquet(*stored.uris)
    broadcast = spark.sparkContext.broadcast(model_weights)
    build_s = spark.sparkContext.accumulator(0.0)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(_REPLACED_ROWS_PER_BATCH))
    with progress(spark, "the replaced design", images.count()) as done:
        featurize = pandas_udf(  # type: ignore[call-overload]  # its hints still ask for the kind of UDF
            _featurize(broadcast, build_s, done), "array<float>"
        )
        features = featurize("content").alias("features")
        images.repartition(n_tasks).select("path", "label", features).write.parquet(output)
    broadcast.destroy()
    return build_s.value / n_tasks


def _featurize(
    broadcast: Broadcast[list[NDArray[np.float32]]], build_s: Accumulator[float], done: Accumulator[int]
) -> Callable[[Iterator[pd.Series]], Iterator[pd.Series]]:
    def featurize(contents: Iterator[pd.Series]) -> Iterator[pd.Series]:
        _mute_standard_error()
        import keras
        from keras.applications.mobilenet_v2 import MobileNetV2, preprocess_input

        started = time.monotonic()
        whole = MobileNetV2(weights=None, include_top=True)
        model = keras.Model(whole.input, whole.layers[-2].output)
        model.set_weights(broadcast.value)
        build_s.add(time.monotonic() - started)

        def preprocessed(content: bytes) -> NDArray[np.float32]:
            image = Image.open(io.BytesIO(content)).resize((224, 224))  # bicubic unless told otherwise
            inputs: NDArray[np.float32] = preprocess_input(keras.utils.img_to_array(image))
            return inputs

        for series in contents:
            features = model.predict(np.stack([preprocessed(content) for content in series]), verbose=0)
            done.add(len(series))
            yield pd.Series(list(features))

    return featurize


def largest_difference(ours: StoredTable, theirs: str) -> float:
    """Largest absolute difference between two features tables.

    Raises:
        ValueError: they are not of the same images, or a table is constant.
    """
    parts = [pa.Table.from_batches(batches_of([uri], ["path", "features"])) for uri in ours.uris]
    tables = [
        pa.concat_tables(parts).sort_by("path"),
        pq.read_table(theirs, columns=["path", "features"]).sort_by("path"),
    ]
    if not tables[0]["path"].equals(tables[1]["path"]):
        raise ValueError(f"'{ours.uri}' and '{theirs}' are not of the same images")
    found, expected = (
        table["features"].combine_chunks().flatten().to_numpy().reshape(-1, N_FEATURES) for table in tables
    )
    if not (expected.std(axis=0) > MAX_DIFFERENCE).any():
        raise ValueError(f"'{theirs}' has the same features for every image: nothing to compare with")
    return float(np.abs(found - expected).max())


def run(n_images: int, seed: int, scratch: Path) -> dict[str, Any]:
    """Run everything in `scratch`; returns the figures."""
    source, few, network = (scratch / name for name in ("images", "few_images", "network"))
    started = time.monotonic()
    spark = LocalSpark().session
    spark_startup_s = time.monotonic() - started
    n_cores = spark.sparkContext.defaultParallelism

    print(f"writing {n_images:,} images", flush=True)
    write_images(source, n_images, seed)
    write_images(few, _WARM_UP_IMAGES_PER_CORE * n_cores, seed + 1)
    images = {}
    for folder in (source, few):
        output = Output(str(scratch / f"raw_{folder.name}"), "run-0")
        images[folder] = raw_images.raw_images(spark, {}, output, raw_images.Params(str(folder))).stored(
            output
        )
    network.mkdir()
    report = convert_in_own_process(weights.UNTRAINED, network, print)
    flatbuffer, batch_size = (network / FLATBUFFER).read_bytes(), FeaturesConfig().batch_size
    started = time.monotonic()
    Extractor(flatbuffer, batch_size)
    build_s = time.monotonic() - started

    def stage(folder: Path, output: Output) -> StageResult:
        model = Stored(StoredTable(str(network), ()), str(network))
        inputs = {"raw_images": images[folder], "mobilenet_model": model}
        params = mobilenet_features.Params(report.fingerprint, batch_size)
        return mobilenet_features.mobilenet_features(spark, inputs, output, params)

    def engine(n_images: int) -> float:
        files = [file.read_bytes() for file in sorted(few.glob("*/*.jpg"))]
        return engine_seconds(flatbuffer, batch_size, files, n_images, n_cores)

    print("measuring float32 arithmetic and the bare engine", flush=True)
    float32_limit = float32_flop_per_s(n_cores)
    # Half before and half after the stage: a machine that slows down meanwhile slows both.
    engine_s = engine(n_images - n_images // 2)
    _, startup = timed(lambda: stage(few, Output(str(scratch / "few_features"), "run-0")))
    ours, theirs = Output(str(scratch / "features"), "run-0"), str(scratch / "replaced")
    result, cost = timed(lambda: stage(source, ours))
    engine_s += engine(n_images // 2)
    features = result.stored(ours).table
    n_tasks = len(features.files)

    print("loading the weights for the replaced design", flush=True)
    with ProcessPoolExecutor(1, get_context("spawn")) as own_process:
        model_weights = own_process.submit(untrained_weights).result()
    replaced_n_tasks = min(_REPLACED_TASKS, n_tasks)

    def replaced_design(folder: Path, output: str, n_tasks: int) -> float:
        return run_replaced(spark, images[folder].table, output, n_tasks, model_weights)

    _, replaced_startup = timed(lambda: replaced_design(few, str(scratch / "few_replaced"), n_cores))
    replaced_build_s, replaced = timed(lambda: replaced_design(source, theirs, replaced_n_tasks))
    spark.stop()

    print("comparing the features of the two", flush=True)
    return {
        "n_images": n_images,
        "n_cores": n_cores,
        "images_per_s": n_images / cost.seconds,
        "replaced_images_per_s": n_images / replaced.seconds,
        "engine_images_per_s": n_images / engine_s,
        "ratio_to_replaced": replaced.seconds / cost.seconds,
        "share_of_engine": engine_s / cost.seconds,
        "share_of_float32_limit": n_images / cost.seconds * FLOP_PER_IMAGE / float32_limit,
        "engine_share_of_float32_limit": n_images / engine_s * FLOP_PER_IMAGE / float32_limit,
        "float32_gflop_per_s": float32_limit / 1e9,
        "spark_startup_s": spark_startup_s,
        "startup_s": startup.seconds,
        "replaced_startup_s": replaced_startup.seconds,
        "extraction_images_per_s": result.metadata["images_per_s"],
        "cpu_ratio_to_replaced": replaced.cpu_seconds / cost.cpu_seconds if cost.cpu_seconds else None,
        "cpu_ms_per_image": 1000 * cost.cpu_seconds / n_images,
        "replaced_cpu_ms_per_image": 1000 * replaced.cpu_seconds / n_images,
        "cores_elsewhere": cost.cores_elsewhere,
        "replaced_cores_elsewhere": replaced.cores_elsewhere,
        "n_tasks": n_tasks,
        "replaced_n_tasks": replaced_n_tasks,
        "build_s": build_s,
        "replaced_build_s": replaced_build_s,
        "worker_peak_mb": cost.worker_peak_mb,
        "replaced_worker_peak_mb": replaced.worker_peak_mb,
        "max_difference": largest_difference(features, theirs),
    }


def for_people(figures: Mapping[str, Any]) -> str:
    """The figures as a table, with the ratios below it."""
    lines = [
        ("the whole, images/s", "images_per_s", ".1f"),
        ("before the checks, images/s", "extraction_images_per_s", ".1f"),
        ("first small run (start-up), s", "startup_s", ".1f"),
        ("CPU time, ms/image", "cpu_ms_per_image", ".0f"),
        ("cores busy with other programs", "cores_elsewhere", ".1f"),
        ("tasks", "n_tasks", "d"),
        ("to build the network once, s", "build_s", ".3f"),
        ("peak memory of a worker, MB", "worker_peak_mb", ".0f"),
        ("share of the float32 limit", "share_of_float32_limit", ".1%"),
    ]
    title = f"{figures['n_images']:,} images, {figures['n_cores']} cores"
    return "\n".join(
        [
            table(
                title,
                ["stage", "replaced", "bare engine"],
                figure_rows(figures, ["", "replaced_", "engine_"], lines),
            ),
            f"ratio of the rates, stage to replaced: {figures['ratio_to_replaced']:.2f}",
            f"ratio of the CPU times: {figures['cpu_ratio_to_replaced'] or float('nan'):.2f}",
            f"share of the bare engine's rate: {figures['share_of_engine']:.1%}",
            f"float32 limit: {figures['float32_gflop_per_s']:.1f} GFLOP/s",
            f"start of Spark: {figures['spark_startup_s']:.1f} s",
            f"largest difference of a feature: {figures['max_difference']:.2g}",
        ]
    )


def main() -> None:
    """Command line; the last line is JSON, and the exit status 1 when a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="how many to make (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of their variations (0)")
    parser.add_argument(
        "--precision",
        choices=(FLOAT32, INT8),
        default=FLOAT32,
        help="int8: compare with float32 instead of with the replaced design",
    )
    arguments = parser.parse_args()

    # Before anything starts TensorFlow: quiet, and on the same cores as LiteRT.
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO)
    if arguments.precision == INT8:
        with scratch_folder() as scratch:
            figures = precisions.run(arguments.images, arguments.seed, scratch)
        print(f"\n{precisions.for_people(figures)}\n\n{json.dumps(figures)}", flush=True)
        if figures["ratio"] < precisions.MIN_RATIO:
            sys.exit(f"int8 is {figures['ratio']:.2f} times as fast, not {precisions.MIN_RATIO}.")
        return
    with scratch_folder() as scratch:
        figures = run(arguments.images, arguments.seed, scratch)
    print(f"\n{for_people(figures)}\n\n{json.dumps(figures)}", flush=True)
    if figures["max_difference"] >= MAX_DIFFERENCE:
        sys.exit(f"The two differ by {figures['max_difference']:.2g}, not less than {MAX_DIFFERENCE:g}.")
    if (figures["worker_peak_mb"] or 0) >= MAX_WORKER_MB:
        sys.exit(f"A worker took {figures['worker_peak_mb']:.0f} MB, not less than {MAX_WORKER_MB}.")


if __name__ == "__main__":
    main()
