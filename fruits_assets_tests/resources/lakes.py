"""Small versions of made-up assets, published for real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from upath import UPath

from fruits_assets.resources.lake import Lake
from fruits_assets.resources.published import Version
from fruits_assets.stages.parquet import batches_of, write_rows
from fruits_assets.stages.stage import StageResult
from fruits_assets.stages.stored import ROWS, Output, StoredFile, StoredTable

SCHEMA = pa.schema([("path", pa.string())])


def rows(output: Output, *paths: str, table: str = ROWS) -> StoredFile:
    """A file with these paths."""
    return write_rows(output, pa.table({"path": list(paths)}, schema=SCHEMA), table)


def publish(
    lake: Lake,
    name: str,
    *paths: str,
    asset: str = "images",
    kept: Sequence[StoredFile] = (),
    quarantine: Sequence[str] | None = None,
    inputs: Mapping[str, Version] | None = None,
    params: Mapping[str, Any] | None = None,
    text: str = "a text of another file",
    data_version: str = "d1",
) -> Version:
    """Publish a version with a file of these paths, files that are kept, and one that is no table."""
    with lake.new_version(asset, name) as output:
        tables = {ROWS: [*kept, *([rows(output, *paths)] if paths else [])]}
        if quarantine is not None:
            tables["quarantine"] = [rows(output, *quarantine, table="quarantine")]
        (UPath(output.folder) / "results.txt").write_text(text)
        n_rows = sum(file.n_rows for file in tables[ROWS])
        facts = {"small": 1, "large": [1, 2, 3]}
        return lake.publish(
            asset,
            output,
            StageResult(n_rows, {"path": "string"}, tables, facts),
            data_version=data_version,
            code_version="1",
            inputs=inputs or {},
            params=params or {"k": 5},
            stable_files=["results.txt"],
        )


def paths_in(table: StoredTable) -> list[str]:
    """All paths of a table, sorted."""
    return sorted(path for batch in batches_of(table.uris, ["path"]) for path in batch["path"].to_pylist())


def version_of_images(lake: Lake, number: int) -> Version:
    """What a version that was made of that number of the images finds.

    Raises:
        LakeError: it is no longer kept.
    """
    made_of_it = Version(
        "features", "run-0-0", 0, "", StoredTable("", ()), 1, {}, "d1", inputs={"images": number}
    )
    return lake.input_of(made_of_it, "images", "Otherwise.")
