"""`mobilenet_features` with a network of 8-bit integers against the same one in float32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from measuring import table, timed, write_images
from numpy.typing import NDArray

from fruits_assets.assets.mobilenet_features import FeaturesConfig
from fruits_assets.mobilenet import weights
from fruits_assets.mobilenet.convert import convert_in_own_process
from fruits_assets.mobilenet.extractor import FLATBUFFER, N_FEATURES
from fruits_assets.mobilenet.weights import FLOAT32, INT8
from fruits_assets.resources.spark import LocalSpark
from fruits_assets.stages import mobilenet_features, raw_images
from fruits_assets.stages.parquet import batches_of
from fruits_assets.stages.stored import Output, Stored, StoredTable

MIN_RATIO = 1.6
_WARM_UP_IMAGES = 64
_ROUNDS = 2  # by turns: a machine that slows down meanwhile slows both


def run(n_images: int, seed: int, scratch: Path) -> dict[str, Any]:
    """Run the stage with both over the same images; returns the figures."""
    spark = LocalSpark().session
    images = {}
    for name, number in (("few", _WARM_UP_IMAGES), ("all", n_images)):
        print(f"writing {number:,} images", flush=True)
        write_images(scratch / name, number, seed)
        output = Output(str(scratch / f"raw_{name}"), "run-0")
        read = raw_images.raw_images(spark, {}, output, raw_images.Params(str(scratch / name)))
        images[name] = read.stored(output)
    networks = {}
    for precision in (FLOAT32, INT8):
        (scratch / precision).mkdir()
        networks[precision] = convert_in_own_process(weights.DEMO, scratch / precision, print, precision)

    def features(precision: str, name: str, number: int) -> StoredTable:
        folder = str(scratch / precision)
        inputs = {"raw_images": images[name], "mobilenet_model": Stored(StoredTable(folder, ()), folder)}
        params = mobilenet_features.Params(networks[precision].fingerprint, FeaturesConfig().batch_size)
        output = Output(str(scratch / f"{precision}_{name}_{number}"), "run-0")
        return mobilenet_features.mobilenet_features(spark, inputs, output, params).stored(output).table

    seconds = dict.fromkeys(networks, 0.0)
    found = {}
    for number in range(_ROUNDS):
        for precision in networks:
            features(precision, "few", number)
            found[precision], cost = timed(lambda p=precision, n=number: features(p, "all", n))  # type: ignore[misc]
            seconds[precision] += cost.seconds / _ROUNDS
    rows = {precision: _unit_features(table) for precision, table in found.items()}
    return {
        "n_images": n_images,
        **{f"{precision}_images_per_s": n_images / seconds[precision] for precision in networks},
        **{f"{precision}_bytes": (scratch / precision / FLATBUFFER).stat().st_size for precision in networks},
        "ratio": seconds[FLOAT32] / seconds[INT8],
        "min_cosine": float((rows[FLOAT32] * rows[INT8]).sum(axis=1).min()),
    }


def _unit_features(stored: StoredTable) -> NDArray[np.float32]:
    parts = [pa.Table.from_batches(batches_of([uri], ["path", "features"])) for uri in stored.uris]
    column = pa.concat_tables(parts).sort_by("path")["features"].combine_chunks()
    rows: NDArray[np.float32] = column.flatten().to_numpy().reshape(-1, N_FEATURES)
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def for_people(figures: Mapping[str, Any]) -> str:
    """The figures as a table."""
    rows = [
        ("the whole stage, images/s", [f"{figures[f'{p}_images_per_s']:.1f}" for p in (FLOAT32, INT8)]),
        ("size of the network, MB", [f"{figures[f'{p}_bytes'] / 1e6:.1f}" for p in (FLOAT32, INT8)]),
    ]
    return "\n".join(
        [
            table(f"{figures['n_images']:,} images", [FLOAT32, INT8], rows),
            f"ratio of the rates: {figures['ratio']:.2f}",
            f"smallest cosine of an image's features: {figures['min_cosine']:.5f}",
        ]
    )
