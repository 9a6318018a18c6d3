"""S3 Inventory reports, as AWS describes them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import boto3
import pyarrow as pa
import pyarrow.parquet as pq

MODIFIED = datetime(2026, 3, 1, 12, 30, 59, tzinfo=UTC)
CREATED = datetime(2026, 3, 2, 0, 6, 40, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """An object, or one version of it, in a report."""

    key: str
    size: int | None = 7
    modified: datetime = MODIFIED
    is_latest: bool | None = True
    is_delete_marker: bool = False


def csv_file(rows: Sequence[Row], bucket: str, versions: bool) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for row in rows:
        of_version = ("", *("" if flag is None else str(flag).lower() for flag in flags(row)))
        size = "" if row.size is None else row.size
        time = f"{row.modified:%Y-%m-%dT%H:%M:%S}.000Z"
        writer.writerow(
            [bucket, quote_plus(row.key), *(of_version if versions else ()), size, time, "5d41402a"]
        )
    return gzip.compress(text.getvalue().encode())


def parquet_file(rows: Sequence[Row], bucket: str, versions: bool) -> bytes:
    time = pa.timestamp("ms", tz="UTC")
    columns = {
        "bucket": pa.array([bucket] * len(rows)),
        "key": pa.array([row.key for row in rows]),
        "size": pa.array([row.size for row in rows], pa.int64()),
        "last_modified_date": pa.array([row.modified for row in rows], time),
        "e_tag": pa.array(["5d41402a"] * len(rows)),
    }
    if versions:
        columns["is_latest"] = pa.array([row.is_latest for row in rows], pa.bool_())
        columns["is_delete_marker"] = pa.array([row.is_delete_marker for row in rows], pa.bool_())
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=2)
    return buffer.getvalue()


def flags(row: Row) -> tuple[bool | None, bool]:
    return row.is_latest, row.is_delete_marker


@dataclass(frozen=True)
class Report:
    """A report on a bucket, in a bucket of reports; `changes` is by key of its manifest."""

    bucket: str
    file_format: str
    versions: bool = False
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def destination(self) -> str:
        return f"{self.bucket}-reports"

    @property
    def schema(self) -> str:
        if self.file_format == "CSV":
            of_version = "VersionId, IsLatest, IsDeleteMarker, " if self.versions else ""
            return f"Bucket, Key, {of_version}Size, LastModifiedDate, ETag"
        of_version = (
            "optional boolean is_latest; optional boolean is_delete_marker; " if self.versions else ""
        )
        return (
            "message s3.inventory { required binary bucket (UTF8); required binary key (UTF8); "
            f"{of_version}optional int64 size; optional int64 last_modified_date (TIMESTAMP_MILLIS); "
            "optional binary e_tag (UTF8); }"
        )

    def put(self, *parts: Sequence[Row]) -> str:
        """Write it to S3, with a data file for each list of rows, and tell the URI of its manifest."""
        make = csv_file if self.file_format == "CSV" else parquet_file
        return self.put_files([make(rows, self.bucket, self.versions) for rows in parts])

    def put_files(self, contents: Sequence[bytes]) -> str:
        client = boto3.client("s3")
        folder = f"inventory/{self.bucket}/all/{hashlib.md5(repr((self, contents)).encode()).hexdigest()}"
        files = []
        for number, content in enumerate(contents):
            key = f"{folder}/data/{number}"
            client.put_object(Bucket=self.destination, Key=key, Body=content)
            md5 = hashlib.md5(content).hexdigest()
            files.append({"key": key, "size": len(content), "MD5checksum": md5})
        manifest = {
            "sourceBucket": self.bucket,
            "destinationBucket": f"arn:aws:s3:::{self.destination}",
            "version": "2016-11-30",
            "creationTimestamp": str(int(CREATED.timestamp()) * 1000),
            "fileFormat": self.file_format,
            "fileSchema": self.schema,
            "files": files,
        } | self.changes
        body = json.dumps({name: value for name, value in manifest.items() if value is not None})
        client.put_object(Bucket=self.destination, Key=f"{folder}/manifest.json", Body=body)
        return f"s3://{self.destination}/{folder}/manifest.json"
