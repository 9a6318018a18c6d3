"""Images per second of `mobilenet_features`, against the notebook design that it replaces.

Both read the same `raw_images` table, use the same weights and all cores of this machine, and write a
Parquet table of 1280 features per image. See README.md beside this file for the method.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from pyspark import Accumulator, Broadcast
from pyspark.sql import SparkSession
from pyspark.sql.pandas.functions import pandas_udf

from fruits_assets.assets.mobilenet_features import FeaturesConfig
from fruits_assets.mobilenet import weights
from fruits_assets.mobilenet.convert import convert_in_own_process
from fruits_assets.mobilenet.extractor import FLATBUFFER, N_FEATURES, Extractor
from fruits_assets.resources.spark import LocalSpark
from fruits_assets.stages import mobilenet_features, raw_images
from fruits_assets.stages.arrow import arrow_batches_of
from fruits_assets.stages.progress import progress
from fruits_assets.stages.stage import logger

Result = TypeVar("Result")

MAX_DIFFERENCE = 1e-3
MAX_WORKER_MB = 400

_REPLACED_TASKS = 24  # the notebook's partitions
_REPLACED_ROWS_PER_BATCH = 1024  # it decodes a whole Arrow batch at once: 0.6 MB per image

_NOISE = 8  # largest change of a pixel's value, of 255
_JPEG_QUALITY = 90


def write_images(folder: Path, n_images: int, seed: int) -> None:
    """Write `<label>/<number>.jpg`, 100 x 100: turned, mirrored, dimmed, noisy copies of the samples."""
    rng = np.random.default_rng(seed)
    samples = [
        (file.parent.name, np.asarray(Image.open(file).convert("RGB"), np.int16))
        for file in sorted(weights.SAMPLE_IMAGES.glob("*/*.jpg"))
    ]
    for label in {label for label, _ in samples}:
        (folder / label).mkdir(parents=True)
    for number in range(n_images):
        label, sample = samples[number % len(samples)]
        turned = np.rot90(sample, int(rng.integers(4)))[:: rng.choice([-1, 1])]
        pixels = turned * rng.uniform(0.6, 1.1) + rng.integers(-_NOISE, _NOISE + 1, sample.shape, np.int8)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / label / f"{number:06}.jpg", quality=_JPEG_QUALITY)


def untrained_weights() -> list[NDArray[np.float32]]:
    """The arrays of the headless model, in Keras' order; TensorFlow stays in this process."""
    _mute_standard_error()
    arrays: list[NDArray[np.float32]] = weights.load(weights.UNTRAINED).model.get_weights()
    return arrays


def _mute_standard_error() -> None:
    # TensorFlow looks for a GPU before it reads its log level. Exceptions take another way out.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def run_replaced(
    spark: SparkSession, images_uri: str, output: str, n_tasks: int, model_weights: list[NDArray[np.float32]]
) -> float:
    """Run the design that was replaced; returns the mean time of a task to rebuild the model, s."""
    images = spark.read.parquet(images_uri)
    broadcast = spark.sparkContext.broadcast(model_weights)
    build_s = spark.sparkContext.accumulator(0.0)
    with (
        progress(spark, "the replaced design", images.count()) as done,
        arrow_batches_of(spark, _REPLACED_ROWS_PER_BATCH),
    ):
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


def largest_difference(ours: str, theirs: str) -> float:
    """Largest absolute difference between two features tables.

    Raises:
        ValueError: they are not of the same images, or a table is constant.
    """
    tables = [pq.read_table(uri, columns=["path", "features"]).sort_by("path") for uri in (ours, theirs)]
    if not tables[0]["path"].equals(tables[1]["path"]):
        raise ValueError(f"'{ours}' and '{theirs}' are not of the same images")
    found, expected = (
        table["features"].combine_chunks().flatten().to_numpy().reshape(-1, N_FEATURES) for table in tables
    )
    if not (expected.std(axis=0) > MAX_DIFFERENCE).any():
        raise ValueError(f"'{theirs}' has the same features for every image: nothing to compare with")
    return float(np.abs(found - expected).max())


def own_processes() -> dict[str, list[str]]:
    """Ids of this process and all below it, with the fields of `/proc/<id>/stat` from `ppid` on.

    Linux only (`man 5 proc`); elsewhere there are none.
    """
    fields: dict[str, list[str]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended meanwhile
            fields[stat.parent.name] = stat.read_text().rsplit(")", 1)[1].split()[1:]

    def is_own(pid: str) -> bool:
        return pid == str(os.getpid()) or (pid in fields and is_own(fields[pid][0]))

    return {pid: fields[pid] for pid in fields if is_own(pid)}


def cpu_seconds() -> tuple[float, float]:
    """CPU time taken so far by our processes, also those that have ended, and by the whole machine, s."""
    own = sum(int(ticks) for fields in own_processes().values() for ticks in fields[10:14])
    machine = 0
    with suppress(OSError):
        user, nice, system, _idle, _iowait, *others = Path("/proc/stat").read_text().split()[1:9]
        machine = sum(map(int, (user, nice, system, *others)))
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    return own / ticks_per_s, machine / ticks_per_s


def python_workers() -> list[Path]:
    """/proc folders of Spark's Python workers."""
    own = own_processes()

    def is_daemon(pid: str) -> bool:
        return pid in own and b"pyspark.daemon" in Path(f"/proc/{pid}/cmdline").read_bytes()

    # The daemon's children are its forks and look like it.
    return [Path(f"/proc/{pid}") for pid, (parent, *_) in own.items() if is_daemon(parent)]


def forget_worker_peaks() -> None:
    """Let the peaks of `worker_peak_mb` begin now (`man 5 proc`, clear_refs)."""
    for worker in python_workers():
        with suppress(OSError):  # where that is forbidden, the peak is that of the worker's life
            (worker / "clear_refs").write_text("5")


def worker_peak_mb() -> float | None:
    """Peak resident memory of the largest Python worker, MB of 10^6 bytes; None where there is no /proc.

    Idle workers live on for a minute, so that asking after the run is in time.
    """
    peaks = [
        int(line.split()[1]) * 1024 / 1e6
        for worker in python_workers()
        for line in (worker / "status").read_text().splitlines()
        if line.startswith("VmHWM:")
    ]
    return max(peaks, default=None)


@dataclass(frozen=True)
class Cost:
    """Of one contender: wall and CPU time, s; cores that others kept busy meanwhile; peak of a worker, MB."""

    seconds: float
    cpu_seconds: float
    cores_elsewhere: float
    worker_peak_mb: float | None


def timed(contender: Callable[[], Result]) -> tuple[Result, Cost]:
    """Run a contender; returns its result and what it took."""
    forget_worker_peaks()
    started, (own_before, machine_before) = time.monotonic(), cpu_seconds()
    result = contender()
    seconds, (own, machine) = time.monotonic() - started, cpu_seconds()
    own, machine = own - own_before, machine - machine_before
    return result, Cost(seconds, own, max(0.0, machine - own) / seconds, worker_peak_mb())


def run(n_images: int, seed: int, scratch: Path) -> dict[str, Any]:
    """Run both contenders in `scratch`; returns the figures."""
    source, network = scratch / "images", scratch / "network"
    print(f"writing {n_images:,} images", flush=True)
    write_images(source, n_images, seed)
    network.mkdir()
    report = convert_in_own_process(weights.UNTRAINED, network, print)
    batch_size = FeaturesConfig().batch_size
    started = time.monotonic()
    Extractor((network / FLATBUFFER).read_bytes(), batch_size)
    build_s = time.monotonic() - started

    spark = LocalSpark().session
    images, ours, theirs = (str(scratch / name) for name in ("raw_images", "features", "replaced"))
    raw_images.raw_images(spark, {}, images, raw_images.Params(str(source)))
    stage, cost = timed(
        lambda: mobilenet_features.mobilenet_features(
            spark,
            {"raw_images": images, "mobilenet_model": str(network)},
            ours,
            mobilenet_features.Params(report.fingerprint, batch_size),
        )
    )
    features = f"{ours}/{mobilenet_features.FEATURES}"
    n_tasks = len(list(Path(features).glob("part-*")))

    print("loading the weights for the replaced design", flush=True)
    with ProcessPoolExecutor(1, get_context("spawn")) as own_process:
        model_weights = own_process.submit(untrained_weights).result()
    replaced_n_tasks = min(_REPLACED_TASKS, n_tasks)
    images_uri = f"{images}/{raw_images.IMAGES}"
    replaced_build_s, replaced = timed(
        lambda: run_replaced(spark, images_uri, theirs, replaced_n_tasks, model_weights)
    )
    n_cores = spark.sparkContext.defaultParallelism
    spark.stop()

    print("comparing the features of the two", flush=True)
    return {
        "n_images": n_images,
        "n_cores": n_cores,
        "images_per_s": n_images / cost.seconds,
        "replaced_images_per_s": n_images / replaced.seconds,
        "ratio_to_replaced": replaced.seconds / cost.seconds,
        "extraction_images_per_s": stage.metadata["images_per_s"],
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


def table(figures: Mapping[str, Any]) -> str:
    """The figures for a person."""

    def row(what: str, name: str, form: str) -> str:
        values = (figures.get(name), figures.get(f"replaced_{name}"))
        cells = ("-" if value is None else format(value, form) for value in values)
        return f"{what:<34}" + "".join(f"{cell:>10}" for cell in cells)

    size = f"{figures['n_images']:,} images, {figures['n_cores']} cores"
    return "\n".join(
        [
            f"{size:<34}{'stage':>10}{'replaced':>10}",
            row("the whole, images/s", "images_per_s", ".1f"),
            row("without the checks, images/s", "extraction_images_per_s", ".1f"),
            row("CPU time, ms/image", "cpu_ms_per_image", ".0f"),
            row("cores busy with other programs", "cores_elsewhere", ".1f"),
            row("tasks", "n_tasks", "d"),
            row("to build the network once, s", "build_s", ".3f"),
            row("peak memory of a worker, MB", "worker_peak_mb", ".0f"),
            f"ratio of the rates: {figures['ratio_to_replaced']:.2f}",
            f"ratio of the CPU times: {figures['cpu_ratio_to_replaced'] or float('nan'):.2f}",
            f"largest difference of a feature: {figures['max_difference']:.2g}",
        ]
    )


def main() -> None:
    """Command line; the last line is JSON, and the exit status 1 when a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="how many to make (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of their variations (0)")
    arguments = parser.parse_args()

    # Before anything starts TensorFlow: quiet, and on the same cores as LiteRT.
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as scratch:
        figures = run(arguments.images, arguments.seed, Path(scratch))
    print(f"\n{table(figures)}\n\n{json.dumps(figures)}")
    if figures["max_difference"] >= MAX_DIFFERENCE:
        sys.exit(f"The two differ by {figures['max_difference']:.2g}, not less than {MAX_DIFFERENCE:g}.")
    if (figures["worker_peak_mb"] or 0) >= MAX_WORKER_MB:
        sys.exit(f"A worker took {figures['worker_peak_mb']:.0f} MB, not less than {MAX_WORKER_MB}.")


if __name__ == "__main__":
    main()
