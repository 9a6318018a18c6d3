"""What the graph costs a second time: over unchanged images, and with one in a hundred new.

Three runs of the whole graph in one process over the same lake. Spark is started before the first, so that
no run pays for it. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import dagster as dg
from measuring import scratch_folder, table, write_images

from fruits_assets.definitions import GRAPH, Settings, resources
from fruits_assets.mobilenet.weights import DEMO
from fruits_assets.resources.spark import LocalSpark

COUNTS = {"raw_images": ("read", "unchanged"), "mobilenet_features": ("computed", "reused")}


def materialize(images: Path, lake: Path) -> dict[str, Any]:
    """Run the whole graph; return its seconds, and how many images it read, computed and took over."""
    settings = Settings(images=str(images), lake=str(lake), weights=DEMO)
    started = time.monotonic()
    result = dg.materialize(cast("Sequence[dg.AssetsDefinition]", GRAPH), resources=resources(settings))
    figures: dict[str, Any] = {"seconds": time.monotonic() - started}
    for asset, names in COUNTS.items():
        (event,) = result.asset_materializations_for_node(asset)
        figures |= {name: event.metadata[name].value for name in names}
    return figures


def replace_one_percent(images: Path, seed: int, scratch: Path) -> None:
    """Give every hundredth image other content."""
    write_images(scratch, len(list(images.rglob("*.jpg"))), seed)
    for file in sorted(images.rglob("*.jpg"))[::100]:
        file.write_bytes((scratch / file.relative_to(images)).read_bytes())


def run(n_images: int, seed: int, scratch: Path) -> dict[str, dict[str, Any]]:
    """The three runs by name."""
    images, lake = scratch / "images", scratch / "lake"
    write_images(images, n_images, seed)
    LocalSpark().session.range(1).count()
    runs = {"first": materialize(images, lake), "unchanged": materialize(images, lake)}
    replace_one_percent(images, seed + 1, scratch / "others")
    return runs | {"1 % new": materialize(images, lake)}


def for_people(runs: dict[str, dict[str, Any]]) -> str:
    """A line for each run."""
    counts = [name for names in COUNTS.values() for name in names]
    first_s = runs["first"]["seconds"]
    rows = [
        (
            name,
            [
                f"{figures['seconds']:.1f}",
                f"{figures['seconds'] / first_s:.0%}",
                *(f"{figures[count]:,}" for count in counts),
            ],
        )
        for name, figures in runs.items()
    ]
    return table("run", ["seconds", "of first", *counts], rows)


def main() -> None:
    """Command line; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    with scratch_folder() as scratch:
        runs = run(arguments.images, arguments.seed, scratch)
    print("\n" + for_people(runs) + "\n")
    print(
        json.dumps(
            {
                "first_s": runs["first"]["seconds"],
                "unchanged_s": runs["unchanged"]["seconds"],
                "one_percent_new_s": runs["1 % new"]["seconds"],
                "reused": runs["unchanged"]["reused"],
                "reused_with_one_percent_new": runs["1 % new"]["reused"],
            }
        )
    )


if __name__ == "__main__":
    main()
