"""What is stored, as stages and the lake name it to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

# The table of an asset that is its rows; others are beside it, such as a quarantine.
ROWS = ""
# The suffix of a mark beside a file that was found damaged.
DAMAGED = ".damaged"


@dataclass(frozen=True, order=True)
class StoredFile:
    """A Parquet file of a table; `path` is relative to the table's folder, as Delta's log has it."""

    path: str
    size_bytes: int
    n_rows: int


@dataclass(frozen=True)
class StoredTable:
    """One version of a table: the URI of its folder, and which of the Parquet files there it consists of."""

    uri: str
    files: Sequence[StoredFile]

    @property
    def n_rows(self) -> int:
        return sum(file.n_rows for file in self.files)

    @property
    def uris(self) -> list[str]:
        return [f"{self.uri}/{file.path}" for file in self.files]


@dataclass(frozen=True)
class Stored:
    """A published version of an asset as a stage reads it: its rows, and the folder of its other files."""

    table: StoredTable
    folder: str

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `dataclasses.asdict` made JSON of."""
        table = value["table"]
        files = [StoredFile(**file) for file in table["files"]]
        return cls(StoredTable(table["uri"], files), value["folder"])


@dataclass(frozen=True)
class Output:
    """Where a stage writes a new version: what is there cannot be seen until it is published.

    Args:
        asset: URI of the asset's folder, which is the folder of its table.
        version: name of the version, unique.
    """

    asset: str
    version: str

    @property
    def folder(self) -> str:
        """URI of the version's own folder: for the files of its rows, and for all that is not a table."""
        return f"{self.asset}/{self.inside(ROWS)}"

    def inside(self, table: str) -> str:
        """The path, below the folder of a table, below which this version's files of it are."""
        return f"{self.version}" if table else f"_versions/{self.version}"

    def folder_of(self, table: str) -> str:
        """URI of a table's folder."""
        return f"{self.asset}/_{table}" if table else self.asset
