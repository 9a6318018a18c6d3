"""A stage that takes no Spark: what a step does without a JVM."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fruits_assets.stages.stage import StageResult, logger
from fruits_assets.stages.stored import ROWS, Output, Stored


@dataclass(frozen=True)
class Params:
    """`source` is only named; the stage takes `seconds`, or fails."""

    source: str = ""
    seconds: float = 0.0
    fails: bool = False


def light(spark: Any, inputs: Mapping[str, Stored], output: Output, params: Params) -> StageResult:
    """Tell of the environment."""
    logger.info("working")
    time.sleep(params.seconds)
    if params.fails:
        raise ValueError("the stage's own words")
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return StageResult(row_count=1, schema={}, tables={ROWS: []}, metadata={"environment": environment})
