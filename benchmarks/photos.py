"""Photos of phones, 12 and 48 megapixels: how fast they are read and turned into features, in what memory.

The stages `raw_images` and `mobilenet_features` over each size, in one Spark session, and the whole graph
over photos of 12 megapixels. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from converted_network import ConvertedNetwork, convert_for_runs
from graph_run import GraphRun, run_graph_over
from machine_limits import decoder_seconds
from measuring import Cost, cell, scratch_folder, table, timed, write_images
from phone_photos import SIZES, write_photos

from fruits_assets.assets.mobilenet_features import FeaturesConfig
from fruits_assets.mobilenet import weights
from fruits_assets.resources.spark import LocalSpark
from fruits_assets.stages import mobilenet_features, raw_images
from fruits_assets.stages.stage import StageResult, logger
from fruits_assets.stages.stored import ROWS, Output, Stored, StoredTable

READING, FEATURES = "raw_images", "mobilenet_features"
MIN_IMAGES_PER_S = {12: 40, 48: 12}
MAX_WORKER_MB = 450
GRAPH_MEGAPIXELS, GRAPH_PHOTOS, MAX_GRAPH_S = 12, 120, 35

_SHORT = {READING: "read", FEATURES: "features"}
_DEFAULT_PHOTOS = {12: 120, 48: 40}
_ROUNDS = 3  # the first of which meets photos of this size for the first time
_WARM_UP_IMAGES_PER_CORE = 32  # every core starts its worker


class Stages:
    """The two stages over a folder of photos, in one Spark session."""

    def __init__(self, network: ConvertedNetwork, scratch: Path) -> None:
        self._network, self._scratch = network, scratch
        self._spark = LocalSpark().session

    def read(self, photos: Path) -> StageResult:
        """Read the photos into a table."""
        return raw_images.raw_images(
            self._spark, {}, self._output(READING, photos), raw_images.Params(str(photos))
        )

    def features(self, photos: Path, read: StageResult) -> StageResult:
        """Run the network over what was read of them."""
        folder = str(self._network.flatbuffer.parent)
        inputs = {
            READING: read.stored(self._output(READING, photos)),
            "mobilenet_model": Stored(StoredTable(folder, ()), folder),
        }
        params = mobilenet_features.Params(self._network.fingerprint, FeaturesConfig().batch_size)
        return mobilenet_features.mobilenet_features(
            self._spark, inputs, self._output(FEATURES, photos), params
        )

    def forget(self, photos: Path) -> None:
        """Remove what was made of the photos."""
        for stage in (READING, FEATURES):
            shutil.rmtree(self._output(stage, photos).asset)

    def _output(self, stage: str, photos: Path) -> Output:
        return Output(str(self._scratch / f"{stage}_of_{photos.name}"), "run-0")


def warm_up(stages: Stages, seed: int, scratch: Path) -> None:
    """Start the workers, by small images."""
    few = scratch / "few_images"
    write_images(few, _WARM_UP_IMAGES_PER_CORE * len(os.sched_getaffinity(0)), seed)
    stages.features(few, stages.read(few))


def measured(stages: Stages, megapixels: int, n_photos: int, seed: int, scratch: Path) -> dict[str, Any]:
    """Both stages over photos of one size; returns the figures, medians of some rounds."""
    photos = scratch / f"{megapixels}_megapixels"
    print(f"writing {n_photos:,} photos of {megapixels} megapixels", flush=True)
    write_photos(photos, n_photos, megapixels, seed)
    files = sorted(photos.rglob("*.jpg"))
    source_bytes = sum(file.stat().st_size for file in files)
    n_cores = len(os.sched_getaffinity(0))
    rounds = []
    for _ in range(_ROUNDS):
        decoder_rate = n_photos / decoder_seconds(files, n_cores)
        read, reading = timed(lambda: stages.read(photos))
        computed, inferring = timed(partial(stages.features, photos, read))
        stages.forget(photos)
        if computed.row_count != n_photos or computed.metadata["n_computed"] != n_photos:
            raise ValueError(
                f"Of {n_photos} photos, {computed.metadata['n_computed']} were computed: some are equal"
            )
        rounds.append(
            {
                "decoder_images_per_s": decoder_rate,
                "share_of_decoder": n_photos / reading.seconds / decoder_rate,
                **_figures(READING, n_photos, read, reading),
                **_figures(FEATURES, n_photos, computed, inferring),
            }
        )
    shutil.rmtree(photos)
    return {
        "photos": n_photos,
        "mb_per_photo": source_bytes / n_photos / 1e6,
        **{name: _of_rounds(name, [figures[name] for figures in rounds]) for name in rounds[0]},
    }


def _of_rounds(name: str, values: Sequence[Any]) -> Any:
    """The median, of peaks the highest; None of what cannot be told here."""
    if None in values:
        return None
    return max(values) if name.endswith("_peak_mb") else median(values)


def _figures(stage: str, n_photos: int, result: StageResult, cost: Cost) -> dict[str, Any]:
    return {
        f"{stage}_images_per_s": n_photos / cost.seconds,
        f"{stage}_cpu_ms_per_image": 1000 * cost.cpu_seconds / n_photos,
        f"{stage}_cores_elsewhere": cost.cores_elsewhere,
        f"{stage}_worker_peak_mb": cost.worker_peak_mb,
        f"{stage}_files": len(result.tables[ROWS]),
    }


def graph_over(n_photos: int, network: ConvertedNetwork, seed: int, scratch: Path) -> GraphRun:
    """The whole graph in a process of its own, the network having been converted before."""
    photos = scratch / "photos_of_graph"
    print(f"writing {n_photos:,} photos of {GRAPH_MEGAPIXELS} megapixels", flush=True)
    write_photos(photos, n_photos, GRAPH_MEGAPIXELS, seed)
    return run_graph_over(photos, n_photos, weights.DEMO, scratch, network.variables)


def broken_limits(figures: Mapping[str, Any]) -> list[str]:
    """A sentence for each figure that is on the wrong side of its limit."""
    broken = []
    for megapixels, least in MIN_IMAGES_PER_S.items():
        found = figures["sizes"].get(str(megapixels), {})
        for stage in (READING, FEATURES):
            rate = found.get(f"{stage}_images_per_s", least)
            # Of fewer photos, the time is mostly that of starting.
            if rate < least and found["photos"] >= _DEFAULT_PHOTOS[megapixels]:
                broken.append(
                    f"{stage} does {rate:.1f} images/s at {megapixels} megapixels, less than {least}."
                )
            peak_mb = found.get(f"{stage}_worker_peak_mb") or 0
            if peak_mb > MAX_WORKER_MB:
                broken.append(
                    f"A worker of {stage} takes {peak_mb:.0f} MB at {megapixels} megapixels, "
                    f"more than {MAX_WORKER_MB}."
                )
    if figures["graph_photos"] == GRAPH_PHOTOS and figures["graph_seconds"] > MAX_GRAPH_S:
        broken.append(
            f"The graph over {GRAPH_PHOTOS} photos takes {figures['graph_seconds']:.1f} s, "
            f"more than {MAX_GRAPH_S}."
        )
    return broken


def for_people(figures: Mapping[str, Any]) -> str:
    """A column for each stage and size, and the graph below."""
    sizes: Mapping[str, Mapping[str, Any]] = figures["sizes"]
    columns = [(size, stage) for size in sizes for stage in (READING, FEATURES)]
    lines = [
        ("images/s", "images_per_s", ".1f"),
        ("CPU time, ms/image", "cpu_ms_per_image", ".0f"),
        ("cores busy with other programs", "cores_elsewhere", ".1f"),
        ("peak memory of a worker, MB", "worker_peak_mb", ".0f"),
        ("files", "files", ".0f"),
    ]
    rows = [
        (what, [cell(sizes[size][f"{stage}_{name}"], form) for size, stage in columns])
        for what, name, form in lines
    ]
    described = ", ".join(
        f"{of_size['photos']} of {size} megapixels ({of_size['mb_per_photo']:.1f} MB each)"
        for size, of_size in sizes.items()
    )
    decoder = ", ".join(
        f"{of_size['share_of_decoder']:.0%} of {of_size['decoder_images_per_s']:.1f} images/s at {size} MP"
        for size, of_size in sizes.items()
    )
    steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in figures["graph_step_seconds"].items())
    return "\n".join(
        [
            f"photos: {described}; {figures['n_cores']} cores",
            table("stage", [f"{_SHORT[stage]} {size} MP" for size, stage in columns], rows),
            f"{READING} against the decoder alone: {decoder}",
            f"the whole graph over {figures['graph_photos']} photos of {GRAPH_MEGAPIXELS} megapixels: "
            f"{figures['graph_seconds']:.1f} s ({steps})",
            f"the network was converted before, in {figures['conversion_s']:.1f} s",
        ]
    )


def run(
    megapixels: Sequence[int], n_photos: int | None, n_graph_photos: int, seed: int, scratch: Path
) -> dict[str, Any]:
    """Run everything in `scratch`; returns the figures."""
    network = convert_for_runs(weights.DEMO, scratch)
    stages = Stages(network, scratch)
    warm_up(stages, seed, scratch)
    sizes = {
        str(size): measured(stages, size, n_photos or _DEFAULT_PHOTOS[size], seed, scratch)
        for size in megapixels
    }
    LocalSpark().session.stop()
    graph = graph_over(n_graph_photos, network, seed, scratch)
    return {
        "n_cores": len(os.sched_getaffinity(0)),
        "sizes": sizes,
        "graph_photos": n_graph_photos,
        "graph_seconds": graph.seconds,
        "graph_step_seconds": graph.step_seconds,
        "conversion_s": network.seconds,
    }


def main() -> None:
    """Command line; the last line is JSON, and the exit status 1 when a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megapixels", type=int, nargs="+", choices=SIZES, default=[*SIZES], help="(12 48)")
    parser.add_argument("--photos", type=int, help="of each size (120 of 12 megapixels, 40 of 48)")
    parser.add_argument(
        "--graph-photos",
        type=int,
        default=GRAPH_PHOTOS,
        help=f"for the graph; its limit is for {GRAPH_PHOTOS}",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the photos (0)")
    arguments = parser.parse_args()

    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO)
    with scratch_folder() as scratch:
        figures = run(arguments.megapixels, arguments.photos, arguments.graph_photos, arguments.seed, scratch)
    print(f"\n{for_people(figures)}\n\n{json.dumps(figures)}", flush=True)
    if broken := broken_limits(figures):
        sys.exit(" ".join(broken))


if __name__ == "__main__":
    main()
