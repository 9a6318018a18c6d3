"""What of a lake may go: versions that are no longer kept, and what dead runs have left behind.

A run that is under way holds a lock on `<root>/_running/<run id>`, which the operating system takes from it
when it ends, however it ends. On an object store, where there are no locks, a run is taken for dead after two
days.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from upath import UPath

from fruits_assets.resources.files import LakeError, is_local
from fruits_assets.resources.locks import held, is_held
from fruits_assets.resources.published import LOG, Version, version_at
from fruits_assets.stages.stored import ROWS, Output

if TYPE_CHECKING:
    from dagster import DagsterInstance

RUNNING = "_running"
_DEAD_AFTER = timedelta(days=2)
_LOG_ENTRY = re.compile(r"\d{20}\..*|_last_checkpoint")


@contextlib.contextmanager
def running(root: UPath, run_id: str) -> Iterator[None]:
    """While this lasts, nobody takes what the run has written for left behind."""
    marker = root / RUNNING / run_id
    if not is_local(root):
        marker.write_bytes(b"")
        try:
            yield
        finally:
            marker.unlink(missing_ok=True)
        return
    with held(Path(marker.path)):
        yield


def fail_dead_runs(root: UPath, instance: DagsterInstance | None) -> None:
    """Tell Dagster of runs that have left their marker and are gone; the marker goes with this."""
    for marker in (root / RUNNING).iterdir() if (root / RUNNING).exists() else ():
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            if not _is_dead(marker):
                continue
            marker.unlink()
            run = instance.get_run_by_id(marker.name) if instance else None
            if instance and run and not run.is_finished:
                instance.report_run_failed(run, "The process of this run has died.")


def _is_dead(marker: UPath) -> bool:
    if not is_local(marker):
        age = datetime.now(UTC) - datetime.fromtimestamp(marker.stat().st_mtime, UTC)
        return age > _DEAD_AFTER
    return not is_held(Path(marker.path))


@dataclass(frozen=True)
class Keep:
    """Which versions are kept: the last `n_versions`, but none that has not been current for `at_most`.

    And all that were current less than `at_least` ago: somebody may still be reading them.
    """

    n_versions: int
    at_least: timedelta
    at_most: timedelta


def remove_unkept(place: UPath, current: Version | None, keep: Keep, run_id: str = "") -> int:
    """Remove from an asset's folder what no kept version has and no run that is under way; returns the bytes.

    Args:
        current: its current version, if anything is published.
        run_id: the run that asks; what it is still writing elsewhere is not in its way.
    """
    kept = _kept(place, current, keep) if current else []
    others = {marker.name for marker in (place.parent / RUNNING).glob("*")} - {run_id}
    names = {version.name for version in kept}
    n_bytes = 0
    for table in {ROWS, *(name for version in kept for name in version.tables)}:
        folder = UPath(Output(str(place), "").folder_of(table))
        in_use = {path for version in kept for path in _paths(version, table)}
        below = folder / "_versions" if table == ROWS else folder
        for version in below.iterdir() if below.exists() else ():
            name = version.name
            if name == LOG or name in names or name.rsplit("-", 1)[0] in others:
                continue
            n_bytes += remove_except(version, {path for path in in_use if f"/{name}/" in f"/{path}"}, folder)
        if not others and (folder / LOG).exists():
            # A commit that was killed leaves its unfinished entry.
            n_bytes += sum(
                _removed(entry) for entry in (folder / LOG).iterdir() if not _LOG_ENTRY.match(entry.name)
            )
    if not others:
        n_bytes += sum(_removed(entry) for entry in place.glob(".*"))
    return n_bytes


def _paths(version: Version, table: str) -> list[str]:
    with contextlib.suppress(LakeError):  # somebody has removed it from its log
        return [file.path for file in version.table_of(table).files]
    return []


def _kept(place: UPath, current: Version, keep: Keep) -> list[Version]:
    """The newest first."""
    kept, superseded = [current], current.published_at
    for number in range(current.number - 1, -1, -1):
        age = datetime.now(UTC) - datetime.fromisoformat(superseded)
        if age >= keep.at_least and (len(kept) >= keep.n_versions or age >= keep.at_most):
            break
        if (version := version_at(place, number)) is not None:
            kept.append(version)
            superseded = version.published_at
    return kept


def remove_except(folder: UPath, kept: set[str], root: UPath) -> int:
    """Remove a folder but for files of it, by their paths below `root`; returns the bytes."""
    n_bytes = 0
    for path, info in folder.fs.find(folder.path, detail=True).items():
        if path.removeprefix(f"{root.path}/") not in kept:
            folder.fs.rm_file(path)
            n_bytes += info["size"]
    if not kept and folder.exists():
        folder.fs.rm(folder.path, recursive=True)  # the empty folders of a file system
    return n_bytes


def _removed(file: UPath) -> int:
    n_bytes: int = file.stat().st_size
    file.unlink()
    return n_bytes
