"""Names and versions of tables. Knows nothing about Spark.

<root>/<asset>/current.json                        which version is published, and what it is
<root>/<asset>/versions/<run id>-<attempt>/...     what a stage wrote
<root>/<asset>/<file>                              a file that always has the published content
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import Any

import dagster as dg
from pydantic import Field
from upath import UPath

CURRENT = "current.json"
_VERSIONS = "versions"
_STARTED = "_started.json"
# A folder that no current.json names may still be written to by a run that is under way.
_ABANDONED_AFTER = timedelta(days=2)
_SMALL = (bool, int, float, str, type(None))  # what of a stage's facts goes into current.json
_LIBRARIES = ("dagster", "pyspark", "numpy", "pyarrow", "pillow", "ai-edge-litert")
_DECISIVE_LIBRARIES = ("pillow", "ai-edge-litert")


class LakeError(RuntimeError):
    """The lake cannot be used as asked; the message names the place and the fix."""


@dataclass(frozen=True)
class Version:
    """One published version of an asset: what its `current.json` says."""

    asset: str
    version: str
    uri: str
    row_count: int
    schema: Mapping[str, str]
    data_version: str
    code_version: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    published_at: str = ""
    history: Sequence[str] = ()


class Lake(dg.ConfigurableResource):
    """A folder or s3:// prefix that holds the versions of all assets."""

    root: str = Field(description="Folder or s3:// prefix.")
    keep_versions: int = Field(
        default=3, ge=1, description="How many published versions of an asset to keep."
    )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuse a place that cannot be written to before a run does any work."""
        probe = self._root / f".writable-{uuid.uuid4().hex}"
        try:
            if _is_local(self._root):
                self._root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except Exception as error:  # fsspec's file systems share no class of errors
            raise LakeError(
                f"The lake '{self.root}' cannot be written to: {error}. Set FRUITS_LAKE to a folder or "
                "s3:// prefix that can, or give this user the right to write there."
            ) from error

    @property
    def _root(self) -> UPath:
        path = UPath(self.root)
        return UPath(path.path).expanduser().absolute() if _is_local(path) else path

    def place(self, asset: str) -> UPath:
        """The folder of an asset, where its stable files are."""
        return self._root / asset

    def current(self, asset: str) -> Version:
        """The published version.

        Raises:
            LakeError: nothing is published.
        """
        version = self.find(asset)
        if version is None:
            raise LakeError(
                f"The lake '{self.root}' has no published version of {asset}. Materialize {asset} first."
            )
        return version

    def reusable(self, asset: str, code_version: str, **params: Any) -> Version | None:
        """The published version, if what it holds is what would be computed again from the same content.

        That is: by the same code, with the same values of `params` and the same libraries to decode
        and to infer, and its files are there.
        """
        version = self.find(asset)
        if (
            version is None
            or version.code_version != code_version
            or any(version.params.get(name) != value for name, value in params.items())
            or any(version.libraries.get(name) != metadata.version(name) for name in _DECISIVE_LIBRARIES)
            or not UPath(version.uri).exists()
        ):
            return None
        return version

    def find(self, asset: str) -> Version | None:
        """The published version, or None."""
        try:
            text = (self.place(asset) / CURRENT).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return Version(**json.loads(text))

    @contextmanager
    def new_version(self, asset: str, version: str) -> Iterator[UPath]:
        """A fresh folder for a stage to write into; it is removed if that fails before it is published.

        Raises:
            LakeError: that version exists.
        """
        folder = self.place(asset) / _VERSIONS / version
        if (folder / _STARTED).exists():
            raise LakeError(f"'{folder}' exists: version {version} of {asset} is taken.")
        if _is_local(folder):
            folder.mkdir(parents=True)
        started = {"started_at": datetime.now(UTC).isoformat()}
        (folder / _STARTED).write_text(json.dumps(started), encoding="utf-8")
        try:
            yield folder
        except BaseException:
            # What fails once it is published, such as the removal of old versions, must not take it away.
            current = self.find(asset)
            if current is None or current.version != version:
                _remove(folder)
            raise

    def publish(
        self,
        asset: str,
        version: str,
        *,
        row_count: int,
        schema: Mapping[str, str],
        data_version: str,
        code_version: str,
        inputs: Mapping[str, Version],
        params: Mapping[str, Any],
        facts: Mapping[str, Any],
        stable_files: Sequence[str] = (),
    ) -> Version:
        """Make a written version the current one, in one step; old ones go by retention.

        Args:
            stable_files: files of the version to be had under the asset's own folder as well; each
                is replaced in one step, before `current.json` is.
        """
        folder = self.place(asset) / _VERSIONS / version
        before = self.find(asset)
        history = [*(before.history if before else ()), version][-self.keep_versions :]
        published = Version(
            asset=asset,
            version=version,
            uri=str(folder),
            row_count=row_count,
            schema=schema,
            data_version=data_version,
            code_version=code_version,
            inputs={name: used.version for name, used in inputs.items()},
            params=params,
            facts={name: fact for name, fact in facts.items() if isinstance(fact, _SMALL)},
            libraries={name: metadata.version(name) for name in _LIBRARIES},
            published_at=datetime.now(UTC).isoformat(timespec="seconds"),
            history=history,
        )
        for name in stable_files:
            _copy_whole(folder / name, self.place(asset) / name)
        text = json.dumps(asdict(published), indent=2, ensure_ascii=False)
        _write_whole(self.place(asset) / CURRENT, text.encode())
        (folder / _STARTED).unlink()
        self._retire(asset, keep=history)
        return published

    def _retire(self, asset: str, keep: Sequence[str]) -> None:
        known = set(keep)
        for folder in (self.place(asset) / _VERSIONS).iterdir():
            if folder.name not in known and self._is_retired(folder):
                _remove(folder)

    def _is_retired(self, folder: UPath) -> bool:
        """Published once and no longer kept, or left behind by a run that died long ago."""
        try:
            started = json.loads((folder / _STARTED).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return True
        age = datetime.now(UTC) - datetime.fromisoformat(started["started_at"])
        return age > _ABANDONED_AFTER


def derived_data_version(
    code_version: str, inputs: Mapping[str, Version], identity: Mapping[str, Any]
) -> str:
    """The data version of what follows from inputs, code and `identity` alone.

    Sums of floating-point numbers may differ in the last bit from run to run: a digest of the bytes
    would call the same data new.
    """
    origin = {
        "code_version": code_version,
        "inputs": {name: used.data_version for name, used in sorted(inputs.items())},
        "identity": dict(identity),
    }
    return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()


def _is_local(path: UPath) -> bool:
    return path.protocol in ("", "file", "local")


def _write_whole(target: UPath, content: bytes) -> None:
    """Replace a file so that readers see the old or the new one: object stores write that way anyway."""
    if not _is_local(target):
        target.write_bytes(content)
        return
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    with open(temporary.path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary.path, target.path)


def _copy_whole(source: UPath, target: UPath) -> None:
    if not _is_local(target):
        target.fs.copy(source.path, target.path)
        return
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    shutil.copyfile(source.path, temporary.path)
    os.replace(temporary.path, target.path)


def _remove(folder: UPath) -> None:
    folder.fs.rm(folder.path, recursive=True)
