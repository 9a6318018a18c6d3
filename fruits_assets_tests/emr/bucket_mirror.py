"""moto's buckets as local folders: what a client puts is a file for Spark, and Spark's files are objects."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import FakeBucket, FakeKey, S3Backend, s3_backends

_UNFINISHED = "_temporary"
_NO_SUCH_FILE_POSSIBLE = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)

Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class _Entry:
    """An object and its file; no stamp: no file can stand for it ("a" beside "a/b", or "a//b")."""

    item: FakeKey
    stamp: Stamp | None


class BucketMirror:
    """Keeps `<root>/<bucket>/<key>` in step with moto's objects.

    The caller sees to it that only one thread is in here, and serves a request between `take_in`, which
    brings Spark's changes to moto, and `give_out`, which brings the request's changes to the files.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._entries: dict[str, dict[str, _Entry]] = {}

    @property
    def bucket_names(self) -> list[str]:
        """Of all buckets, whether they have a folder yet or not."""
        return sorted(self._backend.buckets)

    def folder(self, name: str) -> Path:
        """The bucket's folder."""
        return self._root / name

    def get(self, name: str, key: str) -> bytes | None:
        """The content of an object, if there is one."""
        bucket = self._bucket(name)
        item = bucket and bucket.keys.get(key)
        return item.value if isinstance(item, FakeKey) else None

    def put(self, name: str, key: str, content: bytes) -> None:
        """Put an object, unless there is no such bucket."""
        if self._bucket(name) is not None:
            self._backend.put_object(name, key, content)
            self.give_out(name)

    def take_in(self, name: str) -> None:
        """Make objects of files that came or changed, and delete those whose files are gone."""
        if self._bucket(name) is None:
            return
        entries = self._entries.setdefault(name, {})
        files = dict(_files(self.folder(name)))
        for key, stamp in files.items():
            if key in entries and entries[key].stamp == stamp:
                continue
            try:
                content = (self.folder(name) / key).read_bytes()
            except FileNotFoundError:
                # Spark has renamed or removed it since: the next request will see what became of it.
                continue
            entries[key] = _Entry(self._backend.put_object(name, key, content), stamp)
        gone = [key for key, entry in entries.items() if entry.stamp is not None and key not in files]
        for key in gone:
            self._backend.delete_object(name, key)
            del entries[key]

    def give_out(self, name: str) -> None:
        """Write the files of objects that came or changed, and remove those whose objects are gone."""
        bucket = self._bucket(name)
        if bucket is None:
            # Only what has been a bucket: "..", say, is a folder as well.
            if self._entries.pop(name, None) is not None:
                shutil.rmtree(self.folder(name), ignore_errors=True)
            return
        self.folder(name).mkdir(parents=True, exist_ok=True)
        entries = self._entries.setdefault(name, {})
        items = {key: item for key in bucket.keys if isinstance(item := bucket.keys.get(key), FakeKey)}
        for key in entries.keys() - items.keys():
            if entries.pop(key).stamp is not None:
                self._remove(name, key)
        # In order, so that of "a" and "a/b" it is always the first that gets its file.
        for key, item in sorted(items.items()):
            if key not in entries or entries[key].item is not item:
                entries[key] = _Entry(item, self._write(name, key, item.value))

    @property
    def _backend(self) -> S3Backend:
        return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]

    def _bucket(self, name: str) -> FakeBucket | None:
        return self._backend.buckets.get(name)

    def _write(self, name: str, key: str, content: bytes) -> Stamp | None:
        if not _is_file_name(key):
            return None
        path = self.folder(name) / key
        # A bucket's name never starts with a dot.
        unfinished = self._root / f".{uuid.uuid4().hex}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(content)
            # Hadoop would compare the new content with the checksum of what Spark wrote here before.
            _checksum_of(path).unlink(missing_ok=True)
            os.replace(unfinished, path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            if error.errno in _NO_SUCH_FILE_POSSIBLE:
                return None
            raise
        return _stamp(path.stat())

    def _remove(self, name: str, key: str) -> None:
        path = self.folder(name) / key
        path.unlink(missing_ok=True)
        _checksum_of(path).unlink(missing_ok=True)
        # S3 has no empty folders, and Spark would refuse to write to a place that exists.
        for parent in path.relative_to(self.folder(name)).parents[:-1]:
            try:
                (self.folder(name) / parent).rmdir()
            except OSError:
                break


def _files(folder: Path, prefix: str = "") -> Iterator[tuple[str, Stamp]]:
    try:
        found = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        key = f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            if entry.name != _UNFINISHED:
                yield from _files(folder / entry.name, f"{key}/")
        elif not _is_checksum(entry.name):
            try:
                yield key, _stamp(entry.stat())
            except FileNotFoundError:
                continue


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _checksum_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.crc")


def _is_checksum(name: str) -> bool:
    return name.startswith(".") and name.endswith(".crc")


def _is_file_name(key: str) -> bool:
    parts = key.split("/")
    return "\0" not in key and not any(
        part in ("", ".", "..", _UNFINISHED) or _is_checksum(part) for part in parts
    )
