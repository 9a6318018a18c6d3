"""Where the assets' versions live: a folder or s3:// prefix that can be copied and moved as a whole.

<root>/<asset>/_delta_log/                     the one place that says what is current: a Delta table's log
<root>/<asset>/_versions/<run id>-<attempt>/   what a run wrote: files of rows, and models or results
<root>/<asset>/_quarantine/                    a further Delta table, pinned by the commits of the first
<root>/<asset>/<file>                          a file that always has the published content
<root>/_running/<run id>                       held by a run that is under way
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, PrivateAttr
from upath import UPath

from fruits_assets.resources.failures import refused_in_words
from fruits_assets.resources.files import (
    LakeError,
    full_disk,
    is_local,
    refuse_unwritable,
    show,
    write_synced,
)
from fruits_assets.resources.lake_reader import LakeReader
from fruits_assets.resources.published import (
    ConflictError,
    Version,
    commit,
    current_version,
    next_number,
    other_files,
    record_of,
    versions_of_libraries,
)
from fruits_assets.resources.retention import Keep, fail_dead_runs, remove_unkept, running
from fruits_assets.stages.stored import Output, StoredTable

if TYPE_CHECKING:
    from fruits_assets.stages.stage import StageResult

REPORT = "run_report"  # the asset that shows photos of all others
FACTS = "facts.json"  # of a version's folder: all that the stage told, for whoever takes the version over
_SMALL = (bool, int, float, str, type(None))  # of a stage's facts, what goes into the log
_DECISIVE_LIBRARIES = ("pillow", "pi-heif", "ai-edge-litert")


class Lake(dg.ConfigurableResource, LakeReader):
    """Within a run: the versions that were current when it began, and those that it has made itself."""

    root: str = Field(description="Folder or s3:// prefix.")
    keep_versions: int = Field(default=3, ge=1, description="How many versions of an asset to keep.")
    keep_minutes: int = Field(
        default=60, ge=0, description="How long to keep what was current, for those who are reading it."
    )
    keep_days: int = Field(
        default=30, ge=0, description="After so long, what is no longer current goes in any case."
    )
    _pinned: dict[str, Version | None] | None = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Lake]:
        """Refuse a place that cannot be written to, then pin what is current for the run."""
        run_id = context.run.run_id if context.run else uuid.uuid4().hex
        with contextlib.ExitStack() as run:
            with refused_in_words():
                refuse_unwritable(self.path)
                run.enter_context(running(self.path, run_id))
                fail_dead_runs(self.path, context.instance)
                self._pinned = {place.name: current_version(place) for place in self.places()}
            try:
                yield self
            finally:
                self._pinned = None

    def places(self) -> list[UPath]:
        """The folders of all assets."""
        found = self.path.iterdir() if self.path.exists() else ()
        return sorted(entry for entry in found if entry.name[0] not in "._")

    def find(self, asset: str) -> Version | None:
        """The published version, or None."""
        if self._pinned is not None:
            return self._pinned.get(asset)
        return super().find(asset)

    def look_again(self, asset: str) -> None:
        """Within a run: take what has become current meanwhile for what this run works with."""
        if self._pinned is not None:
            self._pinned[asset] = current_version(self.place(asset))

    def reusable(self, asset: str, code_version: str, **params: Any) -> Version | None:
        """The published version, if what it holds is what would be computed again from the same content:
        by the same code, with the same values of `params` and the same libraries to decode and to infer.
        """
        version = self.find(asset)
        if (
            version is None
            or version.code_version != code_version
            or any(version.params.get(name) != value for name, value in params.items())
            or any(version.libraries.get(name) != metadata.version(name) for name in _DECISIVE_LIBRARIES)
        ):
            return None
        return version

    def unchanged(
        self, asset: str, code_version: str, inputs: Mapping[str, Version], params: Mapping[str, Any]
    ) -> tuple[Version, dict[str, Any]] | None:
        """The published version and its facts, if it is whole and nothing it follows from has changed."""
        version = self.reusable(asset, code_version, **params)
        if (
            version is None
            or version.inputs.keys() != inputs.keys()
            or not all(map(version.was_made_of, inputs.values()))
            or version.libraries != versions_of_libraries()
            or not version.is_intact()
        ):
            return None
        facts = UPath(version.folder) / FACTS
        # An erasure leaves none: they tell of photos.
        return (version, json.loads(facts.read_text(encoding="utf-8"))) if facts.exists() else None

    @contextmanager
    def new_version(self, asset: str, name: str) -> Iterator[Output]:
        """A fresh place for a stage to write to; it is removed if that fails before it is published.

        Raises:
            LakeError: that version exists.
        """
        place, output = self.place(asset), Output(str(self.place(asset)), name)
        if UPath(output.folder).exists():
            raise LakeError(f"'{output.folder}' exists: version {name} of {asset} is taken.")
        with running(self.path, name.rsplit("-", 1)[0]):
            if is_local(place):
                UPath(output.folder).mkdir(parents=True)
            try:
                yield output
            except BaseException as error:
                # What fails once it is published, such as the removal of old versions, must not take it away.
                current = current_version(place)
                if current is None or current.name != name:
                    for folder in place.glob(f"_*/{name}"):
                        folder.fs.rm(folder.path, recursive=True)
                if (told := full_disk(error, place)) is not None:
                    raise told from error
                raise

    def publish(
        self,
        asset: str,
        output: Output,
        result: StageResult,
        *,
        data_version: str,
        code_version: str,
        inputs: Mapping[str, Version],
        params: Mapping[str, Any],
        stable_files: Sequence[str] = (),
    ) -> Version:
        """Make what a stage wrote the current version, in one step; old ones go by retention.

        Args:
            stable_files: files of the version to be had under the asset's own folder as well; all change
                as one where there are links, and one after the other on an object store. What a run that was
                killed in between has left there is put right by the next.

        Raises:
            ConflictError: another run has published this asset since this one began; names it.
        """
        place = self.place(asset)
        rows, *others = sorted(result.tables.items())
        write_synced(UPath(output.folder) / FACTS, json.dumps(dict(result.metadata)).encode())
        version = Version(
            asset=asset,
            name=output.version,
            number=next_number(place),
            uri=str(place),
            table=StoredTable(str(place), rows[1]),
            row_count=result.row_count,
            schema=result.schema,
            data_version=data_version,
            code_version=code_version,
            inputs={name: used.number for name, used in inputs.items()},
            input_data_versions={name: used.data_version for name, used in inputs.items()},
            params=params,
            facts={name: fact for name, fact in result.metadata.items() if isinstance(fact, _SMALL)},
            libraries=versions_of_libraries(),
            other_files=other_files(output, {file.path for file in rows[1]}),
            published_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        before, other = self.find(asset), current_version(place)
        try:
            if other is not None and (before is None or before.number != other.number):
                raise ConflictError(f"'{place}' has changed meanwhile")
            tables = {name: commit(UPath(output.folder_of(name)), files) for name, files in others}
            version = replace(version, tables=tables)
            commit(place, rows[1], record_of(version))
        except ConflictError as error:
            other = current_version(place)
            raise ConflictError(
                f"{asset}: run {other.run_id if other else 'unknown'} has published it while this run was at "
                "work on what was there before. Nothing of that is lost; run this again."
            ) from error
        if self._pinned is not None:
            self._pinned[asset] = version
        self.tidy(version, stable_files)
        return version

    def tidy(self, version: Version, stable_files: Sequence[str] = ()) -> None:
        """Let the stable files of an asset be those of its current version, and remove what is not kept."""
        place = self.place(version.asset)
        # Another run may have published a later one.
        current = current_version(place) or version
        show(place, UPath(current.folder), stable_files)
        with contextlib.suppress(OSError, LakeError):  # what stays is looked at again by the next run
            minutes, days = timedelta(minutes=self.keep_minutes), timedelta(days=self.keep_days)
            remove_unkept(place, current, Keep(self.keep_versions, minutes, days), version.run_id)
