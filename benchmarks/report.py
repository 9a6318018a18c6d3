"""What it takes to make the report of a lake: seconds, size of the file and memory, in a process of its own.

The lake is made up: tables with what the report reads of them. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
from listing import in_fresh_process
from measuring import scratch_folder, table
from numpy.typing import NDArray
from PIL import Image

from fruits_assets.assets.materialization import REPORT_FILE
from fruits_assets.assets.report_contents import belonging_together, contents_of
from fruits_assets.assets.run_report import MAX_BYTES
from fruits_assets.mobilenet.weights import SAMPLE_IMAGES
from fruits_assets.report.page import page
from fruits_assets.resources.lake import Lake
from fruits_assets.resources.process_memory import peak_mb
from fruits_assets.resources.published import Version
from fruits_assets.stages.image_rows import QUARANTINE_SCHEMA
from fruits_assets.stages.parquet import TableWriter, write_rows
from fruits_assets.stages.raw_images import QUARANTINE
from fruits_assets.stages.stage import StageResult
from fruits_assets.stages.stored import ROWS, Output, StoredFile

MAX_MB = 900.0
N_LABELS, N_COMPONENTS, N_QUARANTINED = 131, 100, 40
N_THUMBNAILS = 4000  # different ones; of more photos than that, some look the same
ROWS_PER_GROUP, GROUPS_PER_FILE = 1500, 16  # as of photos of 5 kB
NOISE = 12  # largest change of a pixel's value, of 255


def photos(n_images: int, seed: int) -> Iterator[tuple[list[str], list[str], NDArray[np.float64]]]:
    """Paths, labels and scores of made-up photos, a row group at a time, sorted by path."""
    rng = np.random.default_rng(seed)
    means = rng.normal(0, 1, (N_LABELS, N_COMPONENTS)) * 12 / np.sqrt(np.arange(1, N_COMPONENTS + 1))
    per_label = -(-n_images // N_LABELS)
    for start in range(0, n_images, ROWS_PER_GROUP):
        numbers = np.arange(start, min(start + ROWS_PER_GROUP, n_images))
        of = numbers // per_label
        labels = [f"Variety {label:03} of fruit" for label in of]
        paths = [
            f"Training/{label}/r_{number:08}_100.jpg" for label, number in zip(labels, numbers, strict=True)
        ]
        yield paths, labels, means[of] + rng.normal(0, 1.2, (len(numbers), N_COMPONENTS))


def thumbnails(seed: int) -> list[bytes]:
    """JPEGs of the sample images: turned, dimmed, noisy."""
    rng = np.random.default_rng(seed)
    samples = [
        np.asarray(Image.open(file).convert("RGB").resize((64, 64)), np.int16)
        for file in sorted(SAMPLE_IMAGES.glob("*/*.jpg"))
    ]
    made = []
    for number in range(N_THUMBNAILS):
        turned = np.rot90(samples[number % len(samples)], int(rng.integers(4)))
        values = turned * rng.uniform(0.5, 1.1) + rng.integers(-NOISE, NOISE + 1, turned.shape, np.int16)
        buffer = io.BytesIO()
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=80)
        made.append(buffer.getvalue())
    return made


def make_lake(folder: Path, n_images: int, seed: int) -> None:
    """Publish one version of each asset, with the columns and facts that the report reads."""
    lake = Lake(root=str(folder))
    pictures = itertools.cycle(thumbnails(seed))

    def images(output: Output) -> Iterator[StoredFile]:
        groups = photos(n_images, seed)
        while file := list(itertools.islice(groups, GROUPS_PER_FILE)):
            schema = pa.schema({"path": pa.string(), "label": pa.string(), "thumbnail": pa.binary()})
            with TableWriter(output, schema) as writer:
                for paths, labels, _ in file:
                    shown = [next(pictures) for _ in paths]
                    writer.write(pa.RecordBatch.from_arrays([paths, labels, pa.array(shown)], schema=schema))
            assert writer.file
            yield writer.file

    def quarantine(output: Output) -> StoredFile:
        rows = [
            {"path": f"bad/{i}.jpg", "label": "bad", "reason": f"truncated ({i} bytes)"} for i in range(40)
        ]
        return write_rows(output, pa.Table.from_pylist(rows, QUARANTINE_SCHEMA), QUARANTINE)

    def results(output: Output) -> StoredFile:
        names = [f"pc_{i}" for i in range(1, N_COMPONENTS + 1)]
        schema = pa.schema(
            [("path", pa.string()), ("label", pa.string()), *((n, pa.float64()) for n in names)]
        )
        with TableWriter(output, schema) as writer:
            for paths, labels, scores in photos(n_images, seed):
                columns = [paths, labels, *(pa.array(column) for column in scores.T)]
                writer.write(pa.RecordBatch.from_arrays(columns, schema=schema))
        assert writer.file
        return writer.file

    def publish(asset: str, facts: dict[str, Any], *inputs: Version) -> Version:
        with lake.new_version(asset, "made-up-0") as output:
            tables: dict[str, list[StoredFile]] = {ROWS: [write_rows(output, pa.table({"n": [1]}))]}
            if asset == "raw_images":
                tables = {ROWS: list(images(output)), QUARANTINE: [quarantine(output)]}
            if asset == "pca_features_csv":
                tables = {ROWS: [results(output)]}
            n_rows = sum(file.n_rows for file in tables[ROWS])
            schema = {"pc_1": "double"}
            return lake.publish(
                asset,
                output,
                StageResult(n_rows, schema, tables, facts),
                data_version=asset,
                code_version="1",
                inputs={used.asset: used for used in inputs},
                params={},
            )

    ratios = (1 / np.arange(1, 1281) ** 1.3) / (1 / np.arange(1, 1281) ** 1.3).sum()
    fitted = {
        "n_components": N_COMPONENTS,
        "total_explained_variance": float(ratios[:N_COMPONENTS].sum()),
        "all_explained_variance_ratios": ratios.tolist(),
        "n_components_for": {"80%": 30, "90%": 90, "95%": 240, "99%": 800},
    }
    raw = publish("raw_images", {"total_bytes": 5000 * n_images, "n_stripped": 0, "ignored": "none"})
    network = publish("mobilenet_model", {"weights": "made up"})
    features = publish("mobilenet_features", {}, raw, network)
    scaled = publish("scaled_features", {}, features)
    model = publish("pca_model", fitted, scaled)
    publish("pca_features_csv", {}, scaled, model)


def made(folder: Path) -> dict[str, float]:
    """Make the report; to be called in a process that has done nothing else."""
    start_mb, started = peak_mb(os.getpid()), time.monotonic()
    with dg.DagsterInstance.ephemeral() as instance:
        contents = contents_of(belonging_together(Lake(root=str(folder))), "Photos of nobody.", "", instance)
    read = time.monotonic()
    text = page(contents).encode()
    (folder / REPORT_FILE).write_bytes(text)
    return {
        "seconds": time.monotonic() - started,
        "reading_s": read - started,
        "page_s": time.monotonic() - read,
        "size_mb": len(text) / 1e6,
        "peak_mb": peak_mb(os.getpid()),
        "start_mb": start_mb,
        "drawn": len(contents.drawn),
        "compared": contents.n_compared,
    }


def main() -> None:
    """Command line; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=22_688)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the report, to look at it")
    arguments = parser.parse_args()
    with scratch_folder() as scratch:
        in_fresh_process(make_lake, scratch, arguments.images, arguments.seed)
        figures = in_fresh_process(made, scratch)
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            (arguments.keep / REPORT_FILE).write_bytes((scratch / REPORT_FILE).read_bytes())
    forms = {"size_mb": ".2f", "seconds": ".1f", "reading_s": ".1f", "page_s": ".1f"}
    print(f"\nThe report of {arguments.images:,} photos of {N_LABELS} labels, {N_COMPONENTS} components")
    print(
        table(
            "",
            ["figure"],
            [(name, [format(value, forms.get(name, ",.0f"))]) for name, value in figures.items()],
        )
    )
    print(json.dumps({"images": arguments.images, **figures}))
    if figures["size_mb"] > MAX_BYTES / 1e6 or figures["peak_mb"] > MAX_MB:
        sys.exit(f"More than {MAX_BYTES / 1e6:.0f} MB of file or {MAX_MB:.0f} MB of memory.")


if __name__ == "__main__":
    main()
