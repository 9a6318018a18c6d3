"""What it takes to sort a listing and to plan a run: seconds and memory, a fresh process for each.

The listing is made up, so no file is read: a first run, and one against a previous version of which every
hundredth image has changed. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from measuring import scratch_folder, table

from fruits_assets.resources.process_memory import peak_mb
from fruits_assets.stages.image_plan import planned
from fruits_assets.stages.image_rows import SCHEMA
from fruits_assets.stages.listing import ListedFile
from fruits_assets.stages.parquet import TableWriter
from fruits_assets.stages.sorting import Sorted
from fruits_assets.stages.stored import Output, StoredFile, StoredTable

Result = TypeVar("Result")

MAX_MB = 400.0
N_LABELS = 131
N_CORES = 2
ROWS_PER_FILE = 5000
CHANGED = 100  # of so many images, one
IMAGE_BYTES, DAY_US = 100_000, 24 * 3600 * 10**6
SPREAD = 0.618  # of a listing's length: each entry is about so far from the one before it
STAMPS = pa.schema([SCHEMA.field(name) for name in ("path", "source_bytes", "modified")])


@dataclass(frozen=True)
class Cost:
    """Of sorting and planning: time, s; peak memory, MB, and that before it began; what was found."""

    seconds: float
    mb: float
    start_mb: float
    n_to_read: int
    n_tasks: int


def made_up(n_files: int, n_days_later: int = 0) -> Iterator[ListedFile]:
    """A listing of so many files in an order without any; so many days later, every hundredth is another one.

    An entry follows from its number, so that none is held.
    """
    step = next(i for i in itertools.count(int(SPREAD * n_files)) if math.gcd(i, n_files) == 1)
    for i in range(n_files):
        number = i * step % n_files
        day = n_days_later if number % CHANGED == 0 else 0
        path = f"Training/Variety {number % N_LABELS:03} of apple/IMG_{number:08}_cam{number % 7}.jpg"
        yield ListedFile(path, IMAGE_BYTES + number % 1000, 1_700_000_000_000_000 + day * DAY_US)


def write_previous(n_files: int, scratch: Path) -> StoredTable:
    """What a plan looks at of the version before, whose files are in the order of the paths."""
    output = Output(str(scratch / "raw_images"), "previous")
    files: list[StoredFile] = []
    rows = iter(Sorted(made_up(n_files), scratch))
    while part := list(itertools.islice(rows, ROWS_PER_FILE)):
        columns = list(zip(*part, strict=True))[: len(STAMPS)]
        arrays = [pa.array(column, kind) for column, kind in zip(columns, STAMPS.types, strict=True)]
        with TableWriter(output, STAMPS) as writer:
            writer.write(pa.RecordBatch.from_arrays(arrays, schema=STAMPS))
        assert writer.file
        files.append(writer.file)
    return StoredTable(output.asset, files)


def planning(n_files: int, previous: StoredTable, version: str, scratch: Path) -> Cost:
    """Sort a listing as the stage does, and plan; to be called in a process that has done nothing else."""
    runs = scratch / f"runs of {version}"
    runs.mkdir()
    start_mb, started = peak_mb(os.getpid()), time.monotonic()
    listing = Sorted(made_up(n_files, n_days_later=1), runs)
    plan = planned(previous, listing, Output(previous.uri, version), N_CORES)
    return Cost(time.monotonic() - started, peak_mb(os.getpid()), start_mb, plan.n_to_read, len(plan.tasks))


def making_up(n_files: int) -> float:
    """How many seconds of a measurement are its own."""
    started = time.monotonic()
    for _ in made_up(n_files, n_days_later=1):
        pass
    return time.monotonic() - started


def in_fresh_process(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function in a process that has imported this module and nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        return processes.submit(function, *arguments).result()


def for_people(costs: dict[str, Cost]) -> str:
    """A line for each run."""
    rows = [
        (
            name,
            [
                f"{cost.seconds:.1f}",
                f"{cost.mb:.0f}",
                f"{cost.start_mb:.0f}",
                f"{cost.n_to_read:,}",
                f"{cost.n_tasks:,}",
            ],
        )
        for name, cost in costs.items()
    ]
    return table("run", ["seconds", "peak MB", "MB at the start", "to read", "tasks"], rows)


def main() -> None:
    """Command line; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    n_files = parser.parse_args().files
    with scratch_folder() as scratch:
        made_up_s = in_fresh_process(making_up, n_files)
        previous = in_fresh_process(write_previous, n_files, scratch)
        nothing = StoredTable(previous.uri, ())
        first = in_fresh_process(planning, n_files, nothing, "first", scratch)
        second = in_fresh_process(planning, n_files, previous, "second", scratch)
    print(f"\n{n_files:,} files; making up their entries takes {made_up_s:.1f} s of the seconds")
    print(for_people({"first": first, "against the previous version": second}) + "\n")
    print(
        json.dumps(
            {
                "files": n_files,
                "first_s": first.seconds,
                "first_mb": first.mb,
                "second_s": second.seconds,
                "second_mb": second.mb,
                "n_to_read": second.n_to_read,
                "start_mb": max(first.start_mb, second.start_mb),
                "made_up_s": made_up_s,
            }
        )
    )
    if max(first.mb, second.mb) > MAX_MB:
        sys.exit(f"A process has taken more than {MAX_MB:.0f} MB.")


if __name__ == "__main__":
    main()
