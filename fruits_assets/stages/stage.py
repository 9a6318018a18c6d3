"""What every stage takes and returns."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pyspark.sql import DataFrame, SparkSession

# The one logger of all stages: whoever runs a stage decides where its lines go.
logger = logging.getLogger("fruits_assets.stages")


class StageInputError(ValueError):
    """The input cannot be worked on; the message names the place and the fix."""


@dataclass(frozen=True)
class StageResult:
    """What a stage tells about the table it wrote; everything in it can be written as JSON."""

    row_count: int
    schema: Mapping[str, str]
    metadata: Mapping[str, Any] = field(default_factory=dict)


Params = TypeVar("Params", contravariant=True)
Stage = Callable[[SparkSession, Mapping[str, str], str, Params], StageResult]


def column_types(table: DataFrame) -> dict[str, str]:
    """Column name to Spark's name of its type, as in `array<float>`."""
    return {column.name: column.dataType.simpleString() for column in table.schema}
