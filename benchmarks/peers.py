"""The same photos from files to CSV by this project, a plain Keras script, Daft and Ray Data.

Each in a fresh process, one after the other, with the same weights. See README.md beside this file; the
scripts are in `peers/`. They need packages of their own:

    .venv/bin/pip install --constraint constraints.txt --editable '.[peers]'
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
from converted_network import ConvertedNetwork, convert_for_runs
from graph_run import run_graph_over
from measuring import cell, scratch_folder, table, write_images
from phone_photos import write_photos
from process_watch import Together, watched_together

from fruits_assets.mobilenet import weights
from fruits_assets.resources.lake import Lake

RESULTS = "pca_features_csv"
SCRIPTS = Path(__file__).with_name("peers")
INSTALL = "pip install --constraint constraints.txt --editable '.[peers]'"
PACKAGES = ("daft", "ray", "sklearn")
OURS = "this project"
WITH_KERAS = {"tf.data + Keras": "keras_script", "Daft, Keras": "daft_keras", "Ray, Keras": "ray_keras"}
WITH_FLATBUFFER = {"Daft, flatbuffer": "daft_flatbuffer", "Ray, flatbuffer": "ray_flatbuffer"}

MEGAPIXELS = 12
# So many have to be there for the limits: of fewer, the time is mostly that of starting.
LIMITS_FROM = {"images": 4000, "photos": 1000}
# Of our time in theirs, against the same flatbuffer.
MAX_RATIO_TO_FLATBUFFER = {"images": 1.7, "photos": 1.0}
COMPARED_COMPONENTS = 5
# Of the share of the variance. Large photos may be decoded at a fraction of their size, which changes pixels.
MAX_DIFFERENCE = {"images": 1e-3, "photos": 3e-2}

_MAX_S = 3 * 3600.0
_HEARTBEAT_S = 20.0
_LAST_CHARACTERS = 4000
_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
    # Nobody is told of these runs.
    "DO_NOT_TRACK": "1",
    "DAFT_ANALYTICS_ENABLED": "0",
    "SCARF_NO_ANALYTICS": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    # On Linux, Ray takes 127.0.0.1 for "this machine's address" and listens on all unless it is told that
    # there is no cluster; the name is what it is.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Daft's processes unpickle what the scripts import of one another.
    "PYTHONPATH": os.pathsep.join([str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
}


class PeerError(RuntimeError):
    """A contender did not come to its end; the message has its last words."""


@dataclass(frozen=True)
class Outcome:
    """What a contender took, and what it found: the photos by path and label, and shares of the variance."""

    together: Together
    photos: frozenset[tuple[str, str]]
    explained_variance_ratio: Sequence[float]


def missing_packages() -> list[str]:
    """Which of the packages are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def save_demo_weights(file: Path) -> None:
    """Write the bundled weights as a file of Keras: all contenders load it or what it is converted to."""
    # TensorFlow looks for a GPU before it reads its log level.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    weights.load(weights.DEMO).model.save_weights(file)


def run_ours(images: Path, n_images: int, keras_weights: Path, network: ConvertedNetwork) -> Outcome:
    """The graph up to the CSV, where the peers end, the network having been converted before."""
    scratch = images.parent / "ours"
    scratch.mkdir()
    with watched_together() as together:
        run_graph_over(images, n_images, str(keras_weights), scratch, network.variables, RESULTS)
    components = pq.read_table(list(Lake(root=str(scratch / "lake")).current("pca_model").table.uris))
    return Outcome(
        together,
        photos_of(scratch / "lake" / RESULTS / "results.csv"),
        components.sort_by("component")["explained_variance_ratio"].to_pylist(),
    )


def run_script(name: str, images: Path, network: Path, draft: bool) -> Outcome:
    """A peer's script.

    Raises:
        PeerError: it failed, or takes for ever.
    """
    output, log = images.parent / f"{name}.csv", images.parent / f"{name}.log"
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), str(images), str(output), str(network)]
    command += ["--draft"] if draft else []
    with log.open("w") as errors, watched_together() as together:
        process = subprocess.Popen(
            command, env=os.environ | _ENVIRONMENT, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        printed = _waited_for(process)
    if process.returncode:
        raise PeerError(f"{' '.join(command)} failed:\n{printed}{log.read_text()[-_LAST_CHARACTERS:]}")
    ratios = json.loads(printed.splitlines()[-1])["explained_variance_ratio"]
    return Outcome(together, photos_of(output), ratios)


def _waited_for(process: subprocess.Popen[str]) -> str:
    started = time.monotonic()
    try:
        while (waited_s := time.monotonic() - started) < _MAX_S:
            try:
                return process.communicate(timeout=_HEARTBEAT_S)[0]
            except subprocess.TimeoutExpired:
                print(f"  still running, {waited_s + _HEARTBEAT_S:.0f} s", flush=True)
        raise PeerError(f"{process.args} has not ended in {_MAX_S:.0f} s")
    finally:
        process.kill()
        process.wait()


def photos_of(results: Path) -> frozenset[tuple[str, str]]:
    """Paths and labels of a CSV, each row once.

    Raises:
        ValueError: a path is there twice.
    """
    rows = pyarrow.csv.read_csv(results)
    photos = frozenset(zip(rows["path"].to_pylist(), rows["label"].to_pylist(), strict=True))
    if len(photos) != rows.num_rows:
        raise ValueError(f"'{results}' has {rows.num_rows} rows of {len(photos)} photos")
    return photos


def run(
    kind: str, n_images: int, seed: int, draft: bool, only: Sequence[str], scratch: Path
) -> dict[str, Any]:
    """Run all contenders in `scratch`; returns the figures."""
    images, keras_weights = scratch / "images", scratch / "mobilenet_v2.weights.h5"
    with ProcessPoolExecutor(1, get_context("spawn")) as own_process:
        own_process.submit(save_demo_weights, keras_weights).result()
    network = convert_for_runs(str(keras_weights), scratch)
    print(f"writing {n_images:,} {kind}", flush=True)
    if kind == "photos":
        write_photos(images, n_images, MEGAPIXELS, seed)
    else:
        write_images(images, n_images, seed)

    outcomes = {OURS: run_ours(images, n_images, keras_weights, network)}
    for scripts, of_network in ((WITH_KERAS, keras_weights), (WITH_FLATBUFFER, network.flatbuffer)):
        for name, script in scripts.items():
            if not only or script in only:
                print(f"running {name}", flush=True)
                outcomes[name] = run_script(script, images, of_network, draft)
    return figures_of(kind, n_images, outcomes) | {
        "draft": draft,
        "conversion_s": network.seconds,
        "n_expected": sum(1 for _ in images.rglob("*.jpg")),
    }


def figures_of(kind: str, n_images: int, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """The figures of each; `ratio` is our time as a share of theirs."""
    ours = outcomes[OURS]
    return {
        "kind": kind,
        "n_images": n_images,
        "n_cores": len(os.sched_getaffinity(0)),
        "contenders": {
            name: {
                "seconds": outcome.together.seconds,
                "images_per_s": n_images / outcome.together.seconds,
                "ratio": ours.together.seconds / outcome.together.seconds,
                "peak_mb": outcome.together.peak_mb,
                "cpu_s": outcome.together.cpu_s,
                "cores_elsewhere": outcome.together.cores_elsewhere,
                "n_rows": len(outcome.photos),
                "same_photos": outcome.photos == ours.photos,
                "max_difference": largest_difference(outcome, ours),
            }
            for name, outcome in outcomes.items()
        },
        "explained_variance_ratio": list(ours.explained_variance_ratio[:COMPARED_COMPONENTS]),
    }


def largest_difference(theirs: Outcome, ours: Outcome) -> float:
    """Of the shares of the variance that the first components explain, relative to ours."""
    found, expected = (
        np.array(outcome.explained_variance_ratio[:COMPARED_COMPONENTS]) for outcome in (theirs, ours)
    )
    return float(np.abs(found / expected - 1).max())


def for_people(figures: Mapping[str, Any]) -> str:
    """A line for each contender."""
    forms = {
        "seconds": ".1f",
        "images_per_s": ".1f",
        "ratio": ".2f",
        "peak_mb": ",.0f",
        "cpu_s": ".0f",
        "cores_elsewhere": ".1f",
        "n_rows": "d",
        "max_difference": ".1e",
    }
    columns = ["s", "images/s", "ours/theirs", "peak MB", "CPU s", "elsewhere", "rows", "difference"]
    rows = [
        (name, [cell(found[figure], form) for figure, form in forms.items()])
        for name, found in figures["contenders"].items()
    ]
    what = f"{figures['n_images']:,} {figures['kind']}, {figures['n_cores']} cores"
    return "\n".join(
        [
            table(what, columns, rows),
            "peak: of all processes together; elsewhere: cores busy with other programs; difference: of the "
            f"shares of variance of the first {COMPARED_COMPONENTS} components from ours",
            f"this project found its network converted; that takes {figures['conversion_s']:.1f} s, once",
            "the peers had libjpeg scale while decoding" if figures["draft"] else "",
        ]
    ).rstrip()


def broken_limits(figures: Mapping[str, Any]) -> list[str]:
    """A sentence for each result that is another one's, and for each limit of time that is broken."""
    kind, contenders = figures["kind"], figures["contenders"]
    broken = []
    for name, found in contenders.items():
        if not found["same_photos"] or found["n_rows"] != figures["n_expected"]:
            broken.append(f"{name} has {found['n_rows']} rows, not those of {figures['n_expected']} files.")
        if name in WITH_FLATBUFFER and not found["max_difference"] <= MAX_DIFFERENCE[kind]:
            broken.append(
                f"{name} differs in its shares of variance by {found['max_difference']:.2g}, "
                f"more than {MAX_DIFFERENCE[kind]:g}."
            )
    if figures["n_images"] < LIMITS_FROM[kind]:
        return broken
    most = dict.fromkeys(WITH_KERAS, 1.0) | dict.fromkeys(WITH_FLATBUFFER, MAX_RATIO_TO_FLATBUFFER[kind])
    return broken + [
        f"This project takes {contenders[name]['ratio']:.2f} times the time of {name}, not less than {limit}."
        for name, limit in most.items()
        if name in contenders and contenders[name]["ratio"] >= limit
    ]


def main() -> None:
    """Command line; the last line is JSON, and the exit status 1 when a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--images", type=int, help="so many of 100 x 100 pixels; limits hold from 4000 on")
    size.add_argument("--photos", type=int, help="so many of 12 megapixels; limits hold from 1000 on")
    parser.add_argument(
        "--draft", action="store_true", help="have the peers decode large photos at a fraction"
    )
    scripts = [*WITH_KERAS.values(), *WITH_FLATBUFFER.values()]
    parser.add_argument("--only", nargs="+", choices=scripts, default=[], help="these peers (all)")
    parser.add_argument("--seed", type=int, default=0, help="of the images (0)")
    arguments = parser.parse_args()
    if missing := missing_packages():
        sys.exit(f"Not installed: {', '.join(missing)}; `{Path(sys.executable).parent}/{INSTALL}` does it.")

    kind = "images" if arguments.images else "photos"
    with scratch_folder() as scratch:
        figures = run(
            kind, getattr(arguments, kind), arguments.seed, arguments.draft, arguments.only, scratch
        )
    print(f"\n{for_people(figures)}\n\n{json.dumps(figures)}", flush=True)
    if broken := broken_limits(figures):
        sys.exit(" ".join(broken))


if __name__ == "__main__":
    main()
