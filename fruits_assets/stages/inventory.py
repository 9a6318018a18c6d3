"""The files of an S3 source from an S3 Inventory report, where listing millions of objects takes an hour.

The format is described at
https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from fruits_assets.stages.listing import ListedFile, is_image_path
from fruits_assets.stages.stage import StageInputError, logger

_TIME = pa.timestamp("us", tz="UTC")
# By their names in a Parquet report; those of a CSV report are written in another way (LastModifiedDate).
_NEEDED = {"key": pa.string(), "size": pa.int64(), "last_modified_date": _TIME}
_OF_VERSIONS = {"is_latest": pa.bool_(), "is_delete_marker": pa.bool_()}
_TYPES = {**_NEEDED, **_OF_VERSIONS}
_ROWS_PER_BATCH = 10_000


@dataclass(frozen=True)
class Manifest:
    """What the manifest.json of a report says.

    `columns` are those of its data files, in their order; `files` has the MD5 of each, in hexadecimal, by
    its URI.
    """

    uri: str
    created: datetime
    file_format: str
    columns: Sequence[str]
    files: Mapping[str, str]


def inventory_files(manifest_uri: str, source: str, ignored: Counter[str]) -> Iterator[ListedFile]:
    """All image files below an s3:// prefix, as an S3 Inventory report has them, in any order.

    A data file of the report is on the local disk while it is read, a batch of its rows in memory.

    Args:
        ignored: counts the other files by their suffix.

    Raises:
        StageInputError: see `read_manifest`; or a data file is missing or not the one that S3 wrote.
    """
    return _listed(read_manifest(manifest_uri, source), source, ignored)


def read_manifest(manifest_uri: str, source: str) -> Manifest:
    """Look at no more than the manifest of a report.

    Raises:
        StageInputError: the source is not on S3; or there is no such manifest, or none of a report on the
            source's bucket from which the files can be told.
    """
    if not source.startswith("s3://"):
        raise StageInputError(
            f"FRUITS_IMAGES_INVENTORY is '{manifest_uri}', and an S3 Inventory report can only stand for the "
            f"listing of an s3:// prefix; the image source is '{source}'. Unset FRUITS_IMAGES_INVENTORY, or "
            "set FRUITS_IMAGES to the prefix."
        )
    found = _json_of(manifest_uri)
    try:
        file_format = str(found["fileFormat"])
        manifest = Manifest(
            manifest_uri,
            datetime.fromtimestamp(int(found["creationTimestamp"]) / 1000, UTC),
            file_format,
            _columns(file_format, found["fileSchema"]),
            {f"{_destination(found)}/{file['key']}": file["MD5checksum"] for file in found["files"]},
        )
        bucket = found["sourceBucket"]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        fault = f"it is no manifest of S3 Inventory ({type(error).__name__}: {error})"
        raise _refused(manifest_uri, fault, "the manifest.json that S3 wrote") from error
    if file_format not in ("CSV", "Parquet"):
        raise _refused(manifest_uri, f"its fileFormat is '{file_format}'", "CSV or Parquet")
    if bucket != _bucket_and_folder(source)[0]:
        raise _refused(manifest_uri, f"its sourceBucket is '{bucket}'", f"that of the images, '{source}'")
    if missing := _NEEDED.keys() - set(manifest.columns):
        fault = f"its fileSchema, '{found['fileSchema']}', is without {', '.join(sorted(missing))}"
        raise _refused(manifest_uri, fault, "a report configured with Size and LastModifiedDate")
    return manifest


def _refused(manifest_uri: str, found: str, expected: str) -> StageInputError:
    return StageInputError(
        f"S3 Inventory report '{manifest_uri}': {found}; expected: {expected}. Set FRUITS_IMAGES_INVENTORY "
        "to the manifest.json of a complete report on the bucket of FRUITS_IMAGES, or unset it to have the "
        "bucket listed."
    )


def _json_of(manifest_uri: str) -> Any:
    filesystem, path = fsspec.url_to_fs(manifest_uri)
    try:
        return json.loads(filesystem.cat_file(path))
    except OSError as error:
        raise _refused(manifest_uri, f"cannot be read ({error})", "a manifest.json") from error
    except ValueError as error:
        raise _refused(
            manifest_uri, f"it is not JSON ({error})", "the manifest.json that S3 wrote"
        ) from error


def _destination(manifest: Mapping[str, Any]) -> str:
    """Of the data files; the manifest has the bucket as an ARN, `arn:aws:s3:::name`."""
    arn: str = manifest["destinationBucket"]
    return f"s3://{arn.rpartition(':')[-1]}"


def _columns(file_format: str, schema: str) -> list[str]:
    if file_format == "CSV":
        return [re.sub("(?<=[a-z])(?=[A-Z])", "_", name.strip()).lower() for name in schema.split(",")]
    return re.findall(r"\b(?:required|optional) \w+ (\w+)", schema)  # message s3.inventory { ... }


def _bucket_and_folder(source: str) -> tuple[str, str]:
    bucket, _, prefix = source.removeprefix("s3://").rstrip("/").partition("/")
    return bucket, f"{prefix}/" if prefix else ""


def _listed(manifest: Manifest, source: str, ignored: Counter[str]) -> Iterator[ListedFile]:
    _, folder = _bucket_and_folder(source)
    n_files = 0
    for uri, md5 in manifest.files.items():
        with tempfile.TemporaryDirectory() as local_folder:
            for batch in _batches(manifest, uri, _fetched(manifest, uri, md5, Path(local_folder))):
                for file in _image_files(batch, folder, ignored):
                    n_files += 1
                    yield file
    logger.info(
        f"listing of {n_files} objects as of {manifest.created:%Y-%m-%d %H:%M:%S} UTC from {manifest.uri}"
    )


def _fetched(manifest: Manifest, uri: str, md5: str, folder: Path) -> Path:
    """A copy of a data file, known to be whole before anything is taken from it."""
    local = folder / "data"
    filesystem, path = fsspec.url_to_fs(uri)
    try:
        filesystem.get_file(path, str(local))
    except (FileNotFoundError, PermissionError) as error:
        raise _refused(manifest.uri, f"'{uri}' cannot be read ({error})", "a data file of it") from error
    with local.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5.lower():
        raise _refused(manifest.uri, f"the MD5 of '{uri}' is {found}", f"{md5}, as the manifest says")
    return local


def _batches(manifest: Manifest, uri: str, local: Path) -> Iterator[pa.RecordBatch]:
    columns = [name for name in _TYPES if name in manifest.columns]
    try:
        if manifest.file_format == "CSV":
            yield from _csv_batches(local, manifest.columns, columns)
        else:
            with pq.ParquetFile(local) as file:
                for batch in file.iter_batches(_ROWS_PER_BATCH, columns=columns, use_threads=False):
                    yield batch.select(columns)  # refuses if one of them is not there
    except (pa.ArrowException, OSError, KeyError) as error:
        fault = f"'{uri}' cannot be read as {manifest.file_format} ({error})"
        raise _refused(manifest.uri, fault, "a data file as the manifest describes it") from error


def _csv_batches(local: Path, all_columns: Sequence[str], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    read = pyarrow.csv.ReadOptions(column_names=all_columns, use_threads=False)
    convert = pyarrow.csv.ConvertOptions(column_types=_TYPES, include_columns=columns)
    # Named by its path: Arrow reads ahead in a thread, which may outlive a file object of Python.
    with (
        pa.input_stream(str(local), compression="gzip") as file,
        pyarrow.csv.open_csv(file, read_options=read, convert_options=convert) as batches,
    ):
        for batch in batches:
            keys = [unquote_plus(key) for key in batch["key"].to_pylist()]
            yield batch.set_column(batch.schema.get_field_index("key"), "key", pa.array(keys, pa.string()))


def _image_files(batch: pa.RecordBatch, folder: str, ignored: Counter[str]) -> Iterator[ListedFile]:
    """Those below a folder of the bucket, as they are now; a report may have older versions, too."""
    without_versions = {"is_latest": [True], "is_delete_marker": [False]}
    columns = (
        batch["key"].to_pylist(),
        batch["size"].to_pylist(),
        batch["last_modified_date"].cast(_TIME).cast(pa.int64()).to_pylist(),
        *(
            batch[name].to_pylist() if name in batch.schema.names else values * batch.num_rows
            for name, values in without_versions.items()
        ),
    )
    for key, size_bytes, modified, is_latest, is_delete_marker in zip(*columns, strict=True):
        if is_latest is False or is_delete_marker or not key.startswith(folder) or key.endswith("/"):
            continue
        relative = key.removeprefix(folder)
        if is_image_path(relative, ignored):
            yield ListedFile(relative, size_bytes, modified)
