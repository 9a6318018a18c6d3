"""Time of the whole graph at several numbers of images, and the power of the number that it grows with.

Each run is the whole graph in a fresh process; the largest is compared with the network engine alone. See
README.md beside this file for the method.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from converted_network import convert_for_runs
from graph_run import GraphRun, run_graph
from machine_limits import engine_seconds
from measuring import cell, scratch_folder, table, write_images

from fruits_assets.assets.mobilenet_features import FeaturesConfig

MANY_IMAGES = 10_000_000
LIMITED_IMAGES, MAX_TIMES_ENGINE = 4000, 2.5  # 40 s where the engine does 250 images/s

_ENGINE_IMAGES, _ENGINE_FILES = 1000, 32


def exponent(n_images: list[int], seconds: list[float]) -> float | None:
    """Slope of the least-squares line through log seconds over log images: 1 is proportional.

    None where some time is not above 0, so that noise was larger than what there was to measure.
    """
    if min(seconds) <= 0:
        return None
    slope, _ = np.polyfit(np.log(n_images), np.log(seconds), 1)
    return float(slope)


def engine_of(weights: str, seed: int, n_cores: int) -> Callable[[], float]:
    """What measures the images/s of the network engine alone, on all cores, over decoded images."""
    with scratch_folder() as scratch:
        flatbuffer = convert_for_runs(weights, scratch).flatbuffer.read_bytes()
        write_images(scratch / "images", _ENGINE_FILES, seed)
        files = [file.read_bytes() for file in sorted((scratch / "images").glob("*/*.jpg"))]
    batch_size = FeaturesConfig().batch_size
    return lambda: _ENGINE_IMAGES / engine_seconds(flatbuffer, batch_size, files, _ENGINE_IMAGES, n_cores)


def figures_of(
    fixed: GraphRun, runs: list[GraphRun], engine_images_per_s: float, n_cores: int
) -> dict[str, Any]:
    """The figures; steady is the time beyond the fixed run's, for the images beyond the fixed run's."""
    sizes = [run.n_images for run in runs]
    steady_images = [run.n_images - fixed.n_images for run in runs]
    steady_s = [run.seconds - fixed.seconds for run in runs]
    rates = [run.n_images / run.seconds for run in runs]
    return {
        "n_cores": n_cores,
        "exponent": exponent(steady_images, steady_s),
        "exponent_with_fixed_part": exponent(sizes, [run.seconds for run in runs]),
        "fixed_images": fixed.n_images,
        "fixed_seconds": fixed.seconds,
        "seconds": by_size(sizes, [run.seconds for run in runs]),
        "steady_seconds": by_size(sizes, steady_s),
        "images_per_s": by_size(sizes, rates),
        "steady_images_per_s": by_size(sizes, list(np.divide(steady_images, steady_s))),
        "step_seconds": {str(run.n_images): run.step_seconds for run in (fixed, *runs)},
        "engine_images_per_s": engine_images_per_s,
        "times_engine": by_size(sizes, [engine_images_per_s / rate for rate in rates]),
        "core_hours_for_10_million": MANY_IMAGES / rates[-1] * n_cores / 3600,
    }


def by_size(sizes: list[int], values: list[float]) -> dict[str, float]:
    """Values as JSON has them, by number of images."""
    return {str(size): float(value) for size, value in zip(sizes, values, strict=True)}


def for_people(fixed: GraphRun, runs: list[GraphRun], figures: dict[str, Any]) -> str:
    """The times as a table, with the exponent and what follows from it below."""
    columns = [fixed, *runs]

    def row(what: str, name: str, form: str) -> tuple[str, list[str]]:
        return what, [cell(figures[name].get(str(run.n_images)), form) for run in columns]

    steps = {step: None for run in columns for step in run.step_seconds}
    rows = [
        *((f"{step}, s", [cell(run.step_seconds.get(step), ".1f") for run in columns]) for step in steps),
        ("the whole process, s", [cell(run.seconds, ".1f") for run in columns]),
        row("without the fixed part, s", "steady_seconds", ".1f"),
        row("images/s, all in all", "images_per_s", ".1f"),
        row("images/s, without the fixed part", "steady_images_per_s", ".1f"),
        row("times what the engine alone takes", "times_engine", ".2f"),
    ]
    return "\n".join(
        [
            table(
                f"{figures['n_cores']} cores",
                [f"{run.n_images:,} images" for run in columns],
                rows,
            ),
            f"fixed part: {fixed.seconds:.1f} s, a run over {fixed.n_images:,} images",
            f"time without the fixed part grows with images ^ {cell(figures['exponent'], '.3f')}, "
            f"with it ^ {cell(figures['exponent_with_fixed_part'], '.3f')}",
            f"the engine alone: {figures['engine_images_per_s']:.0f} images/s",
            f"at the rate of {runs[-1].n_images:,} images, {MANY_IMAGES:,} would need "
            f"{figures['core_hours_for_10_million']:,.0f} core-hours (extrapolated)",
        ]
    )


def main() -> None:
    """Command line; the last line is JSON, and the exit status 1 when the limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--images", type=int, nargs="+", default=[1000, 4000, 16000], help="sizes (1000 4000 16000)"
    )
    parser.add_argument("--fixed-images", type=int, default=168, help="of the run for the fixed part (168)")
    parser.add_argument("--weights", default="demo", help="as in FRUITS_WEIGHTS (demo)")
    parser.add_argument("--seed", type=int, default=0, help="of the images (0)")
    arguments = parser.parse_args()
    sizes = sorted(set(arguments.images))
    if len(sizes) < 2 or sizes[0] <= arguments.fixed_images:
        parser.error("--images needs two different sizes, all above --fixed-images")

    n_cores = len(os.sched_getaffinity(0))
    engine = engine_of(arguments.weights, arguments.seed, n_cores)
    runs, rates = [], []
    for n_images in (arguments.fixed_images, *sizes):
        if n_images == sizes[-1]:
            rates.append(engine())
        with scratch_folder() as scratch:
            runs.append(run_graph(n_images, arguments.weights, arguments.seed, scratch))
    # Before and after the largest run: a machine that slows down meanwhile slows both.
    rates.append(engine())
    fixed, *others = runs
    figures = figures_of(fixed, others, statistics.harmonic_mean(rates), n_cores)
    print(f"\n{for_people(fixed, others, figures)}\n\n{json.dumps(figures)}", flush=True)
    if figures["exponent"] is None:
        sys.exit("A size took no longer than the fixed run: too few images to measure. Use larger sizes.")
    if figures["times_engine"].get(str(LIMITED_IMAGES), 0) > MAX_TIMES_ENGINE:
        sys.exit(
            f"The graph over {LIMITED_IMAGES:,} images takes more than {MAX_TIMES_ENGINE} times the engine."
        )


if __name__ == "__main__":
    main()
