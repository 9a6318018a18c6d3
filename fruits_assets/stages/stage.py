"""What every stage takes and returns."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pyarrow as pa

from fruits_assets.stages.stored import ROWS, Output, Stored, StoredFile, StoredTable

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# The one logger of all stages: whoever runs a stage decides where its lines go.
logger = logging.getLogger("fruits_assets.stages")


class StageInputError(ValueError):
    """The input cannot be worked on; the message names the place and the fix."""


@dataclass(frozen=True)
class StageResult:
    """What a stage tells about the version it wrote; everything in it can be written as JSON.

    `tables` has the files of each table of the new version, taken over ones included.
    """

    row_count: int
    schema: Mapping[str, str]
    tables: Mapping[str, Sequence[StoredFile]]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def stored(self, output: Output) -> Stored:
        """What was written, as the next stage reads it."""
        return Stored(StoredTable(output.asset, self.tables[ROWS]), output.folder)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `dataclasses.asdict` made JSON of."""
        tables = {name: [StoredFile(**file) for file in files] for name, files in value["tables"].items()}
        return cls(**{**value, "tables": tables})


Params = TypeVar("Params", contravariant=True)
Stage = Callable[["SparkSession", Mapping[str, Stored], Output, Params], StageResult]


def column_types(schema: pa.Schema) -> dict[str, str]:
    """Column name to Spark's name of its type, as in `array<float>`."""
    return {column.name: _type_name(column.type) for column in schema}


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"array<{_type_name(kind.value_type)}>"
    if pa.types.is_timestamp(kind):
        return "timestamp"
    return {"int32": "int", "int64": "bigint", "bool": "boolean"}.get(str(kind), str(kind))
