"""What a run writes, and what Spark keeps meanwhile, where much, nothing or one percent has changed.

Four runs of `raw_images`, `mobilenet_model` and `mobilenet_features` in one process and one Spark session
over one lake. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import dagster as dg
from measuring import scratch_folder, table, write_images

from fruits_assets.definitions import GRAPH, Settings, resources
from fruits_assets.mobilenet.weights import DEMO
from fruits_assets.resources import scratch as product_scratch
from fruits_assets.resources.lake import Lake
from fruits_assets.resources.spark import LocalSpark

TABLES = ("raw_images", "mobilenet_features")
ASSETS = ("raw_images", "mobilenet_model", "mobilenet_features")
FIRST, UNCHANGED, NEW, REMOVED = "first", "unchanged", "new", "removed"
PART = 100  # of so many images, one is new or gone
MAX_WRITTEN, MAX_SCRATCH, MAX_KEPT = 0.05, 0.05, 1.1
_POLL_S = 0.05
_LARGEST = 4


@dataclass
class ScratchPeak:
    """The most that Spark's scratch has held beyond what is there once a session has started, bytes, and the
    largest files of that moment.
    """

    n_bytes: int = 0
    largest: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True)
class Run:
    """Of one run: bytes of the files that have appeared in the folders of the tables, by kind; the peak of
    Spark's scratch; Spark jobs; images read and computed.
    """

    written: Counter[str]
    scratch: ScratchPeak
    n_jobs: int
    n_read: int
    n_computed: int


@dataclass(frozen=True)
class Figures:
    """Of all runs; bytes of the two tables after the first, of the source then, and of the tables' folders
    after the last.
    """

    table_bytes: int
    source_bytes: int
    kept_bytes: int
    runs: dict[str, Run] = field(default_factory=dict)


def sizes_below(folder: Path) -> dict[str, int]:
    """Size of every file, by path."""
    sizes = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # scratch comes and goes
                sizes[os.path.join(parent, name)] = os.stat(os.path.join(parent, name)).st_size
    return sizes


def stamps_below(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every file: one that is written over has appeared as well."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


def scratch_of_spark() -> dict[str, int]:
    """Spark's files among the temporary ones of this process, and their sizes."""
    root = product_scratch.scratch_folder()
    folders = [folder for kind in ("spark-*", "blockmgr-*") for folder in root.glob(kind)]
    return {name: size for folder in folders for name, size in sizes_below(folder).items()}


@contextmanager
def peak_of_scratch(idle: dict[str, int]) -> Iterator[ScratchPeak]:
    """Look at Spark's scratch twenty times a second; `idle` is what it holds anyway."""
    peak, finished = ScratchPeak(), threading.Event()

    def look() -> None:
        while not finished.wait(_POLL_S):
            sizes = scratch_of_spark()
            n_bytes = sum(sizes.values()) - sum(idle.values())
            if n_bytes > peak.n_bytes:
                more = [(Path(path).name, size) for path, size in sizes.items() if path not in idle]
                peak.n_bytes, peak.largest = n_bytes, sorted(more, key=lambda file: -file[1])[:_LARGEST]

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield peak
    finally:
        finished.set()
        looking.join()


def materialize(images: Path, lake: Path, idle: dict[str, int]) -> Run:
    """Run the assets that make the two tables."""
    before = {name: stamps_below(lake / name) for name in TABLES}
    settings = Settings(images=str(images), lake=str(lake), weights=DEMO)
    with peak_of_scratch(idle) as peak:
        result = dg.materialize(
            cast("Sequence[dg.AssetsDefinition]", GRAPH),
            resources=resources(settings),
            selection=list(ASSETS),
        )
    written: Counter[str] = Counter()
    for name in TABLES:
        for file, stamp in stamps_below(lake / name).items():
            if before[name].get(file) != stamp:
                written[f"{name}: {_kind(file.relative_to(lake / name))}"] += stamp[0]
    # Runs of assets are Spark's job groups.
    tracker = LocalSpark().session.sparkContext.statusTracker()
    return Run(
        written,
        peak,
        len(tracker.getJobIdsForGroup(result.run_id)),
        _metadata(result, "raw_images", "read"),
        _metadata(result, "mobilenet_features", "computed"),
    )


def _kind(path: Path) -> str:
    if path.suffix == ".parquet":
        return "quarantine" if path.parts[0] == "_quarantine" else "rows"
    return "facts.json" if path.name == "facts.json" else "logs"


def _metadata(result: dg.ExecuteInProcessResult, asset: str, name: str) -> int:
    (event,) = result.asset_materializations_for_node(asset)
    return cast(int, event.metadata[name].value)


def add_one_percent(images: Path, seed: int, pixels: int, scratch: Path) -> None:
    """Add photos to the folders that are there."""
    write_images(scratch, len(list(images.rglob("*.jpg"))) // PART, seed, pixels)
    for file in scratch.rglob("*.jpg"):
        file.rename(images / file.parent.name / f"new {file.name}")


def remove_one_percent(images: Path) -> None:
    """Remove photos that follow each other, from the middle of a label, as when those of one person go."""
    n_removed = len(list(images.rglob("*.jpg"))) // PART
    labels = sorted(folder for folder in images.iterdir() if folder.is_dir())
    photos = sorted(labels[len(labels) // 2].glob("*.jpg"))
    start = max(0, len(photos) - n_removed) // 2
    for file in photos[start : start + n_removed]:
        file.unlink()


def measured(n_images: int, pixels: int, seed: int, scratch: Path) -> Figures:
    """The four runs."""
    images, lake = scratch / "images", scratch / "lake"
    write_images(images, n_images, seed, pixels)
    LocalSpark().session.range(1).count()
    idle = scratch_of_spark()
    source_bytes = sum(sizes_below(images).values())
    runs = {FIRST: materialize(images, lake, idle)}
    published = Lake(root=str(lake))
    table_bytes = sum(file.size_bytes for name in TABLES for file in published.current(name).table.files)
    runs[UNCHANGED] = materialize(images, lake, idle)
    add_one_percent(images, seed + 1, pixels, scratch / "new")
    runs[NEW] = materialize(images, lake, idle)
    remove_one_percent(images)
    runs[REMOVED] = materialize(images, lake, idle)
    kept_bytes = sum(sum(sizes_below(lake / name).values()) for name in TABLES)
    return Figures(table_bytes, source_bytes, kept_bytes, runs)


def figures_of(found: Figures) -> dict[str, Any]:
    """The figures by name: written as share of the tables, scratch as share of the source."""
    figures: dict[str, Any] = {"table_bytes": found.table_bytes, "source_bytes": found.source_bytes}
    for name, run in found.runs.items():
        figures |= {
            f"{name}_written_share": run.written.total() / found.table_bytes,
            f"{name}_scratch_share": run.scratch.n_bytes / found.source_bytes,
            f"{name}_scratch_bytes": run.scratch.n_bytes,
            f"{name}_jobs": run.n_jobs,
        }
    return figures | {"kept_share": found.kept_bytes / found.table_bytes}


def broken_bars(figures: dict[str, Any]) -> list[str]:
    """A line for each figure that is more than it may be."""
    bars = {
        **{f"{name}_written_share": MAX_WRITTEN for name in (UNCHANGED, NEW, REMOVED)},
        **{f"{name}_scratch_share": MAX_SCRATCH for name in (FIRST, UNCHANGED, NEW, REMOVED)},
        "kept_share": MAX_KEPT,
    }
    return [
        f"{name} is {figures[name]:.3f}, more than {bar}" for name, bar in bars.items() if figures[name] > bar
    ]


def for_people(found: Figures, figures: dict[str, Any]) -> str:
    """A line for each run, and what the bytes are."""
    rows = [
        (
            name,
            [
                f"{run.written.total() / 1e6:.2f}",
                f"{figures[f'{name}_written_share']:.2%}",
                f"{run.scratch.n_bytes / 1e6:.2f}",
                f"{figures[f'{name}_scratch_share']:.2%}",
                f"{run.n_jobs}",
                f"{run.n_read:,}",
                f"{run.n_computed:,}",
            ],
        )
        for name, run in found.runs.items()
    ]
    columns = ["written, MB", "of tables", "scratch, MB", "of source", "jobs", "read", "computed"]
    lines = [
        f"source {found.source_bytes / 1e6:.1f} MB, the two tables {found.table_bytes / 1e6:.1f} MB, "
        f"with all kept versions {found.kept_bytes / 1e6:.1f} MB ({figures['kept_share']:.1%})",
        table("run", columns, rows),
    ]
    for name, run in found.runs.items():
        kinds = ", ".join(f"{kind} {n_bytes / 1e6:.3f} MB" for kind, n_bytes in run.written.most_common())
        largest = ", ".join(f"{file} {n_bytes / 1e6:.2f} MB" for file, n_bytes in run.scratch.largest)
        lines += [f"{name} wrote {kinds or 'nothing'}", f"{name} had in its scratch {largest or 'nothing'}"]
    return "\n".join(lines)


def main() -> None:
    """Command line; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--pixels", type=int, default=640, help="width and height of the images (640)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    with scratch_folder() as scratch:
        found = measured(arguments.images, arguments.pixels, arguments.seed, scratch)
    figures = figures_of(found)
    print("\n" + for_people(found, figures) + "\n")
    print(json.dumps({"images": arguments.images, "pixels": arguments.pixels} | figures))
    if broken := broken_bars(figures):
        sys.exit("; ".join(broken))


if __name__ == "__main__":
    main()
