"""A lake that has a classifier, and the command that uses it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import dagster as dg

from fruits_assets.definitions import GRAPH, SAMPLE_IMAGES, Settings, resources

FRUITS = (sys.executable, "-m", "fruits_assets.command_line")


def classified_lake(given: str | None, scratch: Path) -> Path:
    """The lake that was given, or one that the graph makes of the sample images."""
    if given:
        return Path(given)
    lake = scratch / "lake"
    settings = Settings(images=str(SAMPLE_IMAGES), lake=str(lake))
    dg.materialize(cast("Sequence[dg.AssetsDefinition]", GRAPH), resources=resources(settings))
    return lake


def environment(lake: Path) -> Mapping[str, str]:
    """Of a process that uses it."""
    return {**os.environ, "FRUITS_LAKE": str(lake)}
