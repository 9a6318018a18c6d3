"""A lake seen from outside: whether it is whole, what is in it, what has been left behind.

By Delta's and Arrow's own readers, and by nothing of the package: that could share the mistakes it is to be
checked for.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from numpy.typing import NDArray

RAW, MODEL, FEATURES, SCALED, PCA, RESULTS, CLASSIFIER, REPORT = (
    "raw_images",
    "mobilenet_model",
    "mobilenet_features",
    "scaled_features",
    "pca_model",
    "pca_features_csv",
    "fruit_classifier",
    "run_report",
)
ASSETS = (RAW, MODEL, FEATURES, SCALED, PCA, RESULTS, CLASSIFIER, REPORT)
LOG, VERSIONS, RUNNING = "_delta_log", "_versions", "_running"
CSV, PARQUET, PAGE = "results.csv", "results.parquet", "report.html"

# An asset, the input whose images it has, one row each, and the columns by which these are told apart.
_SAME_IMAGES = (
    (FEATURES, RAW, ("path", "label", "sha256")),
    (SCALED, FEATURES, ("path", "label", "sha256")),
    (RESULTS, SCALED, ("path", "label")),
    (CLASSIFIER, SCALED, ("path", "label")),
)
_RECORD = "fruits_assets"
_LOG_ENTRY = re.compile(r"\d{20}\.(json|crc|checkpoint\.parquet)|_last_checkpoint")
_LINKS = {RESULTS: ("_latest", CSV, PARQUET), REPORT: ("_latest", PAGE)}


class TornError(Exception):
    """Something that is published is not whole; the message says what."""


@dataclass(frozen=True)
class Published:
    """A version of a table: its files, as (path, bytes, rows), and for an asset the record of its commit."""

    folder: Path
    number: int
    files: Sequence[tuple[str, int, int]]
    record: Mapping[str, Any]

    def rows(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, compared with the checksums of their pages.

        Raises:
            TornError: a file is missing or not what was written.
        """
        return pa.concat_tables(self._file(*file, columns) for file in self.files)

    def _file(self, path: str, n_bytes: int, n_rows: int, columns: Sequence[str] | None) -> pa.Table:
        file = self.folder / path
        if not file.is_file() or file.stat().st_size != n_bytes:
            raise TornError(f"{file} is missing or has not its {n_bytes} bytes")
        try:
            with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
                rows = parquet.read(columns)
        except (pa.ArrowException, OSError) as error:
            raise TornError(f"{file} cannot be read: {error}") from error
        if rows.num_rows != n_rows:
            raise TornError(f"{file} has {rows.num_rows} rows, {n_rows} according to the log")
        return rows

    @property
    def is_there(self) -> bool:
        """Whether its files are still kept."""
        return all((self.folder / path).exists() for path, _, _ in self.files)

    @property
    def version_folder(self) -> Path:
        """Where it has what is no table."""
        return self.folder / VERSIONS / str(self.record["name"])


@dataclass
class Findings:
    """About one state of a lake.

    `torn` says what is wrong, `behind` that the results are those of the version before the
    current one, `unverifiable` counts versions whose inputs are no longer kept.
    """

    torn: list[str] = field(default_factory=list)
    behind: bool = False
    unverifiable: int = 0


@dataclass(frozen=True)
class Results:
    """Paths and labels of the images, and their scores, (n_images, n_components), by path."""

    images: list[tuple[str, str]]
    scores: NDArray[np.float64]

    def same_as(self, other: Results) -> bool:
        """Whether all of it is the same, to the last bit."""
        return self.images == other.images and np.array_equal(self.scores, other.scores)


@dataclass(frozen=True)
class Comparison:
    """Of results with those expected: images missing; images too many, or with other scores; the largest
    difference of a score, relative to the largest score.
    """

    lost: int
    wrong: int
    difference: float


def published(lake: Path, asset: str, number: int | None = None) -> Published | None:
    """A version of an asset, or of a further table `<asset>/_<table>`; None for one that was never published.

    Raises:
        TornError: the log cannot be read, or has no record of an asset's version.
    """
    folder = lake / asset
    if not (folder / LOG).is_dir() or not any((folder / LOG).glob("*.json")):
        return None
    try:
        table = DeltaTable(str(folder), version=number)
        actions = pa.table(table.get_add_actions())
    except Exception as error:  # delta-rs has many classes, and panics
        raise TornError(f"the log of {folder} cannot be read: {error}") from error
    files = zip(*(actions[name].to_pylist() for name in ("path", "size_bytes", "num_records")), strict=True)
    record = records(folder).get(table.version(), {})
    if not record and asset in ASSETS:
        raise TornError(f"version {table.version()} of {folder} has no record")
    return Published(folder, table.version(), sorted(files), record)


def records(folder: Path) -> dict[int, Mapping[str, Any]]:
    """The records of an asset's versions, by number.

    Not by `DeltaTable.history`: of a table opened at an older version, that numbers the commits wrongly.

    Raises:
        TornError: an entry of the log is no JSON.
    """
    found = {}
    for entry in (folder / LOG).glob("*.json"):
        try:
            actions = [json.loads(line) for line in entry.read_text(encoding="utf-8").splitlines()]
        except ValueError as error:
            raise TornError(f"{entry} cannot be read: {error}") from error
        for action in actions:
            if record := action.get("commitInfo", {}).get(_RECORD):
                found[int(entry.stem)] = json.loads(record)
    return found


def check(lake: Path) -> Findings:
    """Look at everything that is published."""
    findings = Findings()
    for asset in ASSETS:
        with _noted(findings):
            _check_version(lake, asset)
    for asset, source, columns in _SAME_IMAGES:
        with _noted(findings):
            findings.unverifiable += not _has_images_of_input(lake, asset, source, columns)
    with _noted(findings):
        findings.behind = _results_are_behind(lake)
    return findings


@contextmanager
def _noted(findings: Findings) -> Iterator[None]:
    """Note what is torn and go on with the next check."""
    try:
        yield
    except TornError as error:
        findings.torn.append(str(error))


def _check_version(lake: Path, asset: str) -> None:
    version = published(lake, asset)
    if version is None:
        return
    n_rows, record = version.rows().num_rows, version.record
    if (record["number"], record["row_count"]) != (version.number, n_rows):
        raise TornError(f"{version.folder} is version {version.number}, {n_rows} rows; its record has others")
    for name, expected in record["other_files"].items():
        _check_digest(version.version_folder / name, expected)
    for table, number in record["tables"].items():
        beside = published(lake, f"{asset}/_{table}", number)
        if beside is None:
            raise TornError(f"version {number} of {asset}/_{table} is not there")
        beside.rows()


def _check_digest(file: Path, expected: str) -> None:
    if not file.is_file():
        raise TornError(f"{file} is missing")
    content = file.read_bytes()
    found = f"{len(content)} {hashlib.sha256(content).hexdigest()}"
    if found != expected and expected != str(len(content)):  # of large files, only the size is recorded
        raise TornError(f"{file} is not what was written")


def _has_images_of_input(lake: Path, asset: str, source: str, columns: Sequence[str]) -> bool:
    """Whether that could be verified: inputs are not kept for ever."""
    version = published(lake, asset)
    if version is None:
        return True
    made_of = published(lake, source, version.record["inputs"][source])
    if asset in (RESULTS, CLASSIFIER):
        _check_model_is_of(lake, version, version.record["inputs"][source])
    if made_of is None or not made_of.is_there:
        return False
    found, expected = (_rows_of(table.rows(columns)) for table in (version, made_of))
    if found != expected:
        n_other = len(set(found) ^ set(expected))
        raise TornError(
            f"version {version.number} of {asset} has not the images of version {made_of.number} of {source} "
            f"that it was made of: {n_other} other ones, {len(found)} instead of {len(expected)} rows"
        )
    return True


def _check_model_is_of(lake: Path, version: Published, scaled: int) -> None:
    number = version.record["inputs"][PCA]
    model = published(lake, PCA, number)
    if model is None or model.record["inputs"][SCALED] != scaled:
        raise TornError(f"version {version.number} of {version.folder} is not of the features of its model")


def _rows_of(table: pa.Table) -> list[tuple[str, ...]]:
    return sorted(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _results_are_behind(lake: Path) -> bool:
    """Whether the files of results are those of the version before the current one.

    Raises:
        TornError: they are of no version, or not of the same one.
    """
    current = published(lake, RESULTS)
    files = [lake / RESULTS / name for name in (CSV, PARQUET)]
    if current is None:
        if any(os.path.lexists(file) for file in files):
            raise TornError(f"{RESULTS} has results and no version")
        return False
    before = _before(lake, current)
    if before is None and not all(os.path.lexists(file) for file in files):
        return True
    found, from_csv = results_of(lake), _from_csv(files[0])
    if not found.same_as(from_csv):
        raise TornError(f"{CSV} and {PARQUET} differ")
    if found.same_as(_from_table(current.rows())):
        return False
    if before and before.is_there and found.same_as(_from_table(before.rows())):
        return True
    raise TornError(f"{CSV} is of no published version")


def _before(lake: Path, version: Published) -> Published | None:
    earlier = [number for number in records(version.folder) if number < version.number]
    return published(lake, version.folder.name, max(earlier)) if earlier else None


def results_of(lake: Path) -> Results:
    """What `results.parquet` has.

    Raises:
        TornError: it is not there or not readable.
    """
    file = lake / RESULTS / PARQUET
    try:
        return _from_table(pq.read_table(file.resolve(strict=True), page_checksum_verification=True))
    except (pa.ArrowException, OSError) as error:
        raise TornError(f"{file} cannot be read: {error}") from error


def _from_table(table: pa.Table) -> Results:
    images = list(zip(table["path"].to_pylist(), table["label"].to_pylist(), strict=True))
    return Results(images, np.column_stack([column.to_numpy() for column in table.columns[2:]]))


def _from_csv(file: Path) -> Results:
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            _, *rows = csv.reader(lines)
        images = [(path, label) for path, label, *_ in rows]
        return Results(images, np.array([[float(score) for score in row[2:]] for row in rows]))
    except (OSError, ValueError) as error:
        raise TornError(f"{file} cannot be read: {error}") from error


def compare(found: Results, expected: Results, tolerance: float) -> Comparison:
    """Results with those of the same source that are known to be right."""
    there = {image: row for row, image in enumerate(found.images)}
    common = [(there[image], row) for row, image in enumerate(expected.images) if image in there]
    n_lost, n_extra = len(expected.images) - len(common), len(found.images) - len(common)
    if not common or found.scores.shape[1] != expected.scores.shape[1]:
        return Comparison(n_lost, len(found.images), float("inf"))
    ours, theirs = (list(rows) for rows in zip(*common, strict=True))
    off = np.abs(found.scores[ours] - expected.scores[theirs]) / np.abs(expected.scores).max()
    return Comparison(n_lost, n_extra + int((off > tolerance).any(axis=1).sum()), float(off.max()))


def left_in_lake(lake: Path, keep_versions: int) -> dict[Path, int]:
    """What belongs to no version that is kept, with its bytes: files, links and empty folders."""
    expected = {lake / RUNNING}
    for asset in ASSETS:
        expected.update(_kept_files(lake, asset, keep_versions))
    left = {}
    for path in _leaves(lake):
        is_log = path.parent.name == LOG and _LOG_ENTRY.fullmatch(path.name)
        if path not in expected and not is_log:
            left[path] = path.lstat().st_size if path.is_file() else 0
    return left


def _kept_files(lake: Path, asset: str, keep_versions: int) -> Iterator[Path]:
    if published(lake, asset) is None:
        return
    numbers = sorted(records(lake / asset), reverse=True)[:keep_versions]
    for number in numbers:
        version = published(lake, asset, number)
        assert version
        yield from (version.folder / path for path, _, _ in version.files)
        yield from (version.version_folder / name for name in version.record["other_files"])
        for table, of_table in version.record["tables"].items():
            if beside := published(lake, f"{asset}/_{table}", of_table):
                yield from (beside.folder / path for path, _, _ in beside.files)
    yield from (lake / asset / name for name in _LINKS.get(asset, ()))


def _leaves(folder: Path) -> Iterator[Path]:
    for where, subfolders, names in os.walk(folder):
        here = Path(where)
        yield from (here / name for name in names)
        yield from (here / name for name in subfolders if (here / name).is_symlink())
        if not names and not subfolders:
            yield here


def left_in_folder(folder: Path) -> dict[Path, int]:
    """All that is right in a folder which should be empty, with its bytes."""
    entries: Iterable[Path] = folder.iterdir() if folder.exists() else ()
    return {
        entry: sum(leaf.lstat().st_size for leaf in _leaves(entry) if not leaf.is_dir())
        if entry.is_dir()
        else entry.lstat().st_size
        for entry in entries
    }
