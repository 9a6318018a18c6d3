"""Peak memory of the processes of a run, at several numbers of images: what grows and what does not.

Each run is the whole graph in a fresh process. See README.md beside this file for the method.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from graph_run import CONVERSION, DAGSTER, DRIVER_JVM, OTHER, WORKER, GraphRun, run_graph
from measuring import cell, scratch_folder, table

MAX_GROWTH = 1.10
MAX_WORKER_MB = 400

_NAMES = {
    DRIVER_JVM: "driver_jvm",
    DAGSTER: "dagster",
    WORKER: "worker",
    CONVERSION: "conversion",
    OTHER: "other",
}


def figures_of(runs: list[GraphRun]) -> dict[str, Any]:
    """The figures of runs in the order of their sizes; growth is from the smallest to the largest."""
    first, last = runs[0].peaks_mb, runs[-1].peaks_mb
    return {
        "sizes": [run.n_images for run in runs],
        "peaks_mb": {
            str(run.n_images): {_NAMES[role]: peak for role, peak in run.peaks_mb.items()} for run in runs
        },
        "seconds": {str(run.n_images): run.seconds for run in runs},
        "driver_jvm_growth": last[DRIVER_JVM] / first[DRIVER_JVM],
        "dagster_growth": last[DAGSTER] / first[DAGSTER],
        "worker_peak_mb": max(run.peaks_mb[WORKER] for run in runs),
    }


def for_people(runs: list[GraphRun]) -> str:
    """The peaks as a table."""
    rows = [
        (f"{role}, MB", [cell(run.peaks_mb[role], ".0f") for run in runs])
        for role in (DRIVER_JVM, DAGSTER, WORKER, CONVERSION, OTHER)
    ]
    rows.append(("the whole run, s", [cell(run.seconds, ".0f") for run in runs]))
    return table("peak of the largest", [f"{run.n_images:,} images" for run in runs], rows)


def verdicts(figures: dict[str, Any]) -> list[tuple[bool, str]]:
    """Whether each limit is kept, and the line that says so."""
    growths = {DRIVER_JVM: figures["driver_jvm_growth"], DAGSTER: figures["dagster_growth"]}
    worker = figures["worker_peak_mb"]
    return [
        *(
            (growth <= MAX_GROWTH, f"{role}: {growth:.2f} times, at most {MAX_GROWTH:.2f} wanted")
            for role, growth in growths.items()
        ),
        (worker < MAX_WORKER_MB, f"{WORKER}: {worker:.0f} MB, less than {MAX_WORKER_MB} wanted"),
    ]


def main() -> None:
    """Command line; the last line is JSON, and the exit status 1 when a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--images", type=int, nargs="+", default=[2000, 22688], help="two sizes or more (2000 22688)"
    )
    parser.add_argument("--weights", default="demo", help="as in FRUITS_WEIGHTS (demo)")
    parser.add_argument("--seed", type=int, default=0, help="of the images (0)")
    arguments = parser.parse_args()
    sizes = sorted(set(arguments.images))
    if len(sizes) < 2:
        parser.error("--images needs two different sizes to compare")

    runs = []
    for n_images in sizes:
        with scratch_folder() as scratch:
            runs.append(run_graph(n_images, arguments.weights, arguments.seed, scratch))
    figures = figures_of(runs)
    found = verdicts(figures)
    print(f"\n{for_people(runs)}")
    for is_kept, line in found:
        print(f"{'kept' if is_kept else 'BROKEN'}: {line}")
    print(f"\n{json.dumps(figures)}", flush=True)
    if not all(is_kept for is_kept, _ in found):
        sys.exit("A limit is broken.")


if __name__ == "__main__":
    main()
