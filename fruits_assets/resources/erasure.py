"""Take photos out of the lake at once: out of what is current, and off the disk."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from graphlib import TopologicalSorter

import pyarrow as pa
from upath import UPath

from fruits_assets.resources.files import LakeError, show
from fruits_assets.resources.lake import FACTS, REPORT, Lake
from fruits_assets.resources.published import (
    Version,
    commit,
    next_number,
    other_files,
    record_of,
)
from fruits_assets.resources.retention import RUNNING, Keep, remove_except, remove_unkept
from fruits_assets.stages.parquet import TableWriter, batches_of, opened, row_group
from fruits_assets.stages.pca_features_csv import CSV, PARQUET, write_results
from fruits_assets.stages.stored import ROWS, Output, StoredFile, StoredTable

_RESULTS = (CSV, PARQUET)


@dataclass(frozen=True)
class Erased:
    """How many rows went from which table, how many bytes from the disk, and whether the report did."""

    rows: Mapping[str, int]
    n_bytes: int
    report: bool


def erase(lake: Lake, paths: Sequence[str]) -> Erased:
    """Remove the rows of these paths from all tables, and every version but the new ones from the disk.

    The report goes as a whole, and in any case: it may show a photo that no table has any more.

    Scaler, components and classifier that are current were computed from all photos; of a single one they
    keep nothing that could be told apart. Where they belong to a table that is written anew, they are
    published again as belonging to the new one, and can be used as before. The next run computes them anew.

    Raises:
        LakeError: a run is under way, which may be writing what is to go.
    """
    under_way = [marker.name for marker in lake.place(RUNNING).glob("*")]
    if under_way:
        raise LakeError(f"Run {under_way[0]} is under way over '{lake.root}'. Wait for its end, or stop it.")
    rows: dict[str, int] = {}
    erased: list[tuple[Version, Version]] = []
    report = lake.place(REPORT)
    had_report, n_bytes = report.exists(), remove_except(report, set(), report)
    found = [version for place in lake.places() if (version := lake.find(place.name))]
    for version in _after_their_inputs(found):
        without = _without(version, set(paths), erased)
        erased.append((version, without))
        for table in (ROWS, *version.tables):
            n_rows = version.table_of(table).n_rows - without.table_of(table).n_rows
            rows[f"{version.asset} {table}".rstrip()] = n_rows
    # What was never published, a run that failed may have left there.
    nothing_else = Keep(1, timedelta(0), timedelta(0))
    n_bytes += sum(remove_unkept(place, lake.find(place.name), nothing_else) for place in lake.places())
    return Erased({name: n for name, n in rows.items() if n}, n_bytes, had_report)


def _after_their_inputs(versions: Iterable[Version]) -> list[Version]:
    by_asset = {version.asset: version for version in versions}
    before = {asset: by_asset.keys() & version.inputs.keys() for asset, version in by_asset.items()}
    return [by_asset[asset] for asset in TopologicalSorter(before).static_order()]


def _without(version: Version, paths: set[str], erased: Iterable[tuple[Version, Version]]) -> Version:
    """The version without these paths, published; the same one if neither it nor its inputs have any."""
    place = UPath(version.uri)
    output = Output(version.uri, f"erasure-{uuid.uuid4().hex}-0")
    tables = {
        table: _files_without(version.table_of(table), output, table, paths)
        for table in (ROWS, *version.tables)
    }
    of_inputs = {old.asset: new for old, new in erased if version.was_made_of(old)}
    inputs = {**version.inputs, **{name: new.number for name, new in of_inputs.items()}}
    has_none = all(list(files) == list(version.table_of(table).files) for table, files in tables.items())
    if has_none and inputs == version.inputs:
        return version
    _copy_other_files(version, output, with_facts=has_none)
    if version.asset == "pca_features_csv":
        tables[ROWS] = [_results_of(tables[ROWS], output)]
    numbers = {
        table: commit(UPath(output.folder_of(table)), files) for table, files in tables.items() if table
    }
    without = replace(
        version,
        name=output.version,
        number=next_number(place),
        table=StoredTable(version.uri, tables[ROWS]),
        row_count=sum(file.n_rows for file in tables[ROWS]),
        data_version=hashlib.sha256(f"{version.data_version} {sorted(paths)}".encode()).hexdigest(),
        inputs=inputs,
        input_data_versions={
            **version.input_data_versions,
            **{name: new.data_version for name, new in of_inputs.items()},
        },
        tables=numbers,
        other_files=other_files(output, {file.path for file in tables[ROWS]}),
        published_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    commit(place, tables[ROWS], record_of(without))
    if version.asset == "pca_features_csv":
        show(place, UPath(without.folder), _RESULTS)
    return without


def _files_without(table: StoredTable, output: Output, name: str, paths: set[str]) -> list[StoredFile]:
    """The files of a table; those that have any of the paths are written anew without them."""
    files = []
    for file, uri in zip(table.files, table.uris, strict=True):
        with opened(uri) as parquet:
            schema = parquet.schema_arrow
        if "path" not in schema.names or not any(
            path in paths for batch in batches_of([uri], ["path"]) for path in batch["path"].to_pylist()
        ):
            files.append(file)
            continue
        with TableWriter(output, schema, name) as writer:
            for batch in _batches_without(uri, schema, paths):
                writer.write(batch)
        if writer.file:
            files.append(writer.file)
    return files


def _batches_without(uri: str, schema: pa.Schema, paths: set[str]) -> Iterator[pa.RecordBatch]:
    with opened(uri) as file:
        for group in range(file.num_row_groups):
            for batch in row_group(file, group, schema.names).combine_chunks().to_batches():
                stay = [path not in paths for path in batch["path"].to_pylist()]
                yield batch.filter(pa.array(stay))


def _copy_other_files(version: Version, output: Output, with_facts: bool) -> None:
    """All but rows and the results, which are written anew, and facts where these may tell of the photos."""
    folder = UPath(version.folder)
    rows = {file.path.rsplit("/", 1)[1] for file in version.table.files}
    for name in version.other_files:
        if name not in (*_RESULTS, *rows) and (with_facts or name != FACTS):
            target = UPath(output.folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((folder / name).read_bytes())


def _results_of(files: Sequence[StoredFile], output: Output) -> StoredFile:
    """`results.csv` and `results.parquet` of the rows in a file, which goes if it was only to hold these."""
    (file,) = files
    uri = f"{output.asset}/{file.path}"
    with opened(uri) as parquet:
        write_results(parquet.iter_batches(use_threads=False), output.folder)
    if file.path.startswith(f"{output.inside(ROWS)}/"):
        UPath(uri).unlink()
    path = f"{output.inside(ROWS)}/{PARQUET}"
    return StoredFile(path, UPath(f"{output.asset}/{path}").stat().st_size, file.n_rows)
