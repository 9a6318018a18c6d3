"""What is published: the versions of an asset, read from and added to the log of its Delta table.

The log of an asset's table is the one place that says what is current. Each commit to it is a version: the
files of its rows, and a record of all else, in the commit's own metadata. A commit either is there as a
whole or is not, and of two that follow the same version one fails.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from typing import Any

from upath import UPath

from fruits_assets.resources.files import LakeError, digest
from fruits_assets.stages.stored import DAMAGED, ROWS, Output, Stored, StoredFile, StoredTable

LOG = "_delta_log"
_LIBRARIES = ("dagster", "pyspark", "numpy", "pyarrow", "pillow", "pi-heif", "ai-edge-litert")
_RECORD = "fruits_assets"  # the key in a commit's metadata


class ConflictError(LakeError):
    """Another run has published what this one was about to."""


@dataclass(frozen=True)
class Version:
    """One published version of an asset.

    `number` is that of the Delta table, `name` that of the version's folder. `inputs` has the numbers of
    the versions it was made of, `input_data_versions` their data versions, `tables` the numbers of further
    tables, `other_files` size and SHA-256 of what the folder has besides rows.
    """

    asset: str
    name: str
    number: int
    uri: str
    table: StoredTable
    row_count: int
    schema: Mapping[str, str]
    data_version: str
    code_version: str = ""
    inputs: Mapping[str, int] = field(default_factory=dict)
    input_data_versions: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, int] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    other_files: Mapping[str, str] = field(default_factory=dict)
    published_at: str = ""

    @property
    def folder(self) -> str:
        """URI of what it has besides rows."""
        return Output(self.uri, self.name).folder

    @property
    def stored(self) -> Stored:
        """As stages get it."""
        return Stored(self.table, self.folder)

    def table_of(self, name: str) -> StoredTable:
        """One of its tables.

        Raises:
            LakeError: its log no longer has it.
        """
        if name == ROWS:
            return self.table
        if name not in self.tables:
            return StoredTable(self.uri, ())
        return table_at(UPath(Output(self.uri, "").folder_of(name)), self.tables[name])

    def was_made_of(self, used: Version) -> bool:
        """Whether this version is what stands for its asset among the inputs."""
        # A table that was removed begins at number 0 again. Earlier releases recorded numbers only.
        data_version = self.input_data_versions.get(used.asset, used.data_version)
        return self.inputs.get(used.asset) == used.number and data_version == used.data_version

    def is_intact(self) -> bool:
        """Whether its files are there, of the right size, and those of models are what was written.

        What is in the files of rows is compared with its checksums when it is read; a file that was
        found damaged then has a mark beside it.
        """
        place, folder = UPath(self.uri), UPath(self.folder)
        found = place.fs.find(place.path, detail=True)
        try:
            tables = [self.table_of(name) for name in (ROWS, *self.tables)]
        except LakeError:
            return False
        paths = {f"{UPath(t.uri).path}/{file.path}": file.size_bytes for t in tables for file in t.files}
        rows = all(
            found.get(path, {}).get("size") == size_bytes and f"{path}{DAMAGED}" not in found
            for path, size_bytes in paths.items()
        )
        return rows and all(
            (folder / name).exists() and digest(folder / name) == written
            for name, written in self.other_files.items()
        )

    @property
    def run_id(self) -> str:
        """The run that published it."""
        return self.name.rsplit("-", 1)[0]


# What does not follow from where the record is found.
_RECORDED = [f.name for f in fields(Version) if f.name not in ("asset", "uri", "table")]


def current_version(place: UPath) -> Version | None:
    """The version that an asset's folder says is current, or None.

    Raises:
        LakeError: the log is damaged, or the folder is of an earlier layout of the lake.
    """
    newest = _newest(place)
    if newest is None:
        if (place / "current.json").exists():
            raise LakeError(
                f"'{place}' was written by an earlier release of fruits_assets, which kept its versions in "
                "current.json. Move that lake away, or set FRUITS_LAKE to another place; the next run makes "
                "all of it anew."
            )
        return None
    for number in range(newest.version(), -1, -1):
        # What others have committed since, say by compacting the table, has no record and is passed over.
        if (version := version_at(place, number, newest)) is not None:
            return version
    return None


def version_at(place: UPath, number: int, opened: Any = None) -> Version | None:
    """A version by its number, or None for a commit that is not of ours, or no longer there.

    Args:
        opened: the table at some version, for if it is this one.
    """
    entry = place / LOG / f"{number:020}.json"
    try:
        # Not `read_text`, which on an object store is two requests.
        actions = [json.loads(line) for line in place.fs.cat_file(entry.path).decode().splitlines()]
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(entry) from error
    if not actions:
        raise _damaged(entry)
    record = next((a["commitInfo"].get(_RECORD) for a in actions if "commitInfo" in a), None)
    if record is None:
        return None
    known = {name: value for name, value in json.loads(record).items() if name in _RECORDED}
    opened = opened if opened is not None and opened.version() == number else _opened(place, number)
    return Version(asset=place.name, uri=str(place), table=_table(place, opened), **known)


def refuse_damaged(version: Version) -> None:
    """Raise before what reads it would fail over it.

    Raises:
        LakeError: names the asset that has to be materialized again.
    """
    if not version.is_intact():
        raise LakeError(
            f"Version {version.number} of {version.asset} in '{version.uri}' is damaged: a file of it is "
            f"missing or is not what was written. Materialize {version.asset} again, which makes it anew."
        )


def table_at(folder: UPath, number: int) -> StoredTable:
    """The files of a Delta table at some version."""
    return _table(folder, _opened(folder, number))


def _table(folder: UPath, opened: Any) -> StoredTable:
    # Not by way of pyarrow.table, which imports pandas to see whether it was given one of its tables.
    actions = opened.get_add_actions()
    columns = (actions[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
    files = sorted(StoredFile(*row) for row in zip(*columns, strict=True))
    return StoredTable(str(folder), files)


def next_number(folder: UPath) -> int:
    """The number that the next commit to a table will have."""
    newest = _newest(folder)
    return 0 if newest is None else int(newest.version()) + 1


def commit(folder: UPath, files: Sequence[StoredFile], record: Mapping[str, Any] | None = None) -> int:
    """Make the table consist of these files, in one step; returns its new version.

    Args:
        record: what a `Version` has beyond the files, its `number` being the one that this has to become;
            without it, the table is not an asset's own, and whatever is there is followed.

    Raises:
        ConflictError: that version already has a successor.
    """
    from deltalake import CommitProperties, DeltaTable, Schema
    from deltalake.exceptions import CommitFailedError, DeltaError
    from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

    now = int(time.time() * 1000)
    number = next_number(folder) if record is None else record["number"]
    properties = CommitProperties(
        custom_metadata={_RECORD: json.dumps(record)} if record is not None else None,
        # A retry would put this version after one that it knows nothing of.
        max_commit_retries=0,
    )
    schema = Schema.from_arrow(_arrow_schema(folder / files[0].path))
    # Without minima and maxima: the log outlives what it tells of, and paths are personal data.
    added = [
        AddAction(file.path, file.size_bytes, {}, now, True, json.dumps({"numRecords": file.n_rows}))
        for file in files
    ]
    try:
        if not number:
            create_table_with_add_actions(
                str(folder),
                schema,
                added,
                name=folder.name,
                storage_options=storage_options(folder),
                commit_properties=properties,
            )
            return number
        table = DeltaTable(str(folder), version=number - 1, storage_options=storage_options(folder))
        before = {file.path: file for file in _table(folder, table).files}
        same_columns = table.schema() == schema
        removed = [
            RemoveAction(path, True, now, file.size_bytes, {})
            for path, file in before.items()
            if same_columns and path not in {file.path for file in files}
        ]
        table.create_write_transaction(
            [*(action for action in added if not same_columns or action.path not in before), *removed],
            "append" if same_columns else "overwrite",
            schema,
            commit_properties=properties,
        )
    except CommitFailedError as error:
        raise ConflictError(f"'{folder}' has changed meanwhile") from error
    except DeltaError as error:
        if not number and (folder / LOG / f"{0:020}.json").exists():
            raise ConflictError(f"'{folder}' has been made meanwhile") from error
        raise
    return number


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


def versions_of_libraries() -> dict[str, str]:
    """Of those that decide what a stage makes of its input."""
    return {name: metadata.version(name) for name in _LIBRARIES}


def other_files(output: Output, rows: set[str]) -> dict[str, str]:
    """The digests of what a version's folder has besides the files of its rows; stray ones of these go.

    A single file of rows is digested all the same: it may be one that no run of ours reads again, such as the
    results.
    """
    folder, digests = UPath(output.folder), {}
    for path in folder.fs.find(folder.path):
        name = path.removeprefix(f"{folder.path}/")
        if (is_rows := f"{output.inside(ROWS)}/{name}" in rows) and len(rows) > 1:
            continue
        if "/" not in name and name.endswith(".parquet") and not is_rows:
            folder.fs.rm(path)  # of an attempt of a task that failed
        else:
            digests[name] = digest(folder / name)
    return digests


def record_of(version: Version) -> dict[str, Any]:
    """What goes into the commit of a version."""
    return {name: value for name, value in asdict(version).items() if name in _RECORDED}


def storage_options(folder: UPath) -> dict[str, str] | None:
    """How delta-rs reaches a folder: with the credentials and the endpoint that boto3 and s3fs use."""
    if folder.protocol != "s3":
        return None
    session = _session()
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL", ""))
    options = {
        "AWS_CONDITIONAL_PUT": "etag",  # of two commits with one number, the second is refused
        "AWS_REGION": session.region_name or _region_of(folder.path.split("/")[0]),
    }
    if endpoint:
        options |= {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http:"))}
    if credentials := session.get_credentials():
        frozen = credentials.get_frozen_credentials()
        options |= {"AWS_ACCESS_KEY_ID": frozen.access_key, "AWS_SECRET_ACCESS_KEY": frozen.secret_key}
        if frozen.token:
            options["AWS_SESSION_TOKEN"] = frozen.token
    return options


@functools.cache
def _session() -> Any:
    """It renews what expires; keys that do not are read once, as s3fs does. To make one takes 8 ms."""
    import boto3

    return boto3.Session()


@functools.cache
def _region_of(bucket: str) -> str:
    return str(_session().client("s3").head_bucket(Bucket=bucket)["BucketRegion"])


def _newest(folder: UPath) -> Any:
    """The table as it is now, or None without a commit: of a run that was killed, there may be a log."""
    from deltalake.exceptions import TableNotFoundError

    try:
        return _opened(folder)
    except LakeError as error:
        if isinstance(error.__cause__, TableNotFoundError) and not any((folder / LOG).glob("*.json")):
            return None
        raise


def _opened(folder: UPath, number: int | None = None) -> Any:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        return DeltaTable(str(folder), version=number, storage_options=storage_options(folder))
    except DeltaError as error:
        entries = sorted((folder / LOG).glob("*.json"), key=lambda entry: entry.name, reverse=True)
        for entry in entries:
            try:
                for line in entry.read_text(encoding="utf-8").splitlines() or [""]:
                    json.loads(line)
            except ValueError:
                raise _damaged(entry) from error
        raise LakeError(
            f"The log of '{folder}' cannot be read: {str(error).splitlines()[0]}. Remove '{folder}' to have "
            "the next run make it anew."
        ) from error


def _damaged(entry: UPath) -> LakeError:
    return LakeError(
        f"'{entry}' is damaged. If it is the last of its folder, remove it: what was current before is so "
        f"again. Otherwise remove '{entry.parent.parent}', which the next run then makes anew."
    )


def _arrow_schema(uri: UPath) -> Any:
    import pyarrow.parquet as pq

    with uri.open("rb") as file:
        return pq.read_schema(file)
