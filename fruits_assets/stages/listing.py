"""What is in a source of images: every image file with its size and time, sorted, without opening any."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import fsspec

from fruits_assets.photos.formats import SUFFIXES
from fruits_assets.stages.sorting import Sorted
from fruits_assets.stages.stage import StageInputError


class ListedFile(NamedTuple):
    """One image file of the source.

    `path` is relative to the source, `modified` in microseconds since 1970 (UTC), `reason` says why the
    file is not readable.
    """

    path: str
    size_bytes: int
    modified: int
    reason: str | None = None


@dataclass(frozen=True)
class Listing:
    """The image files of a source by path, and how many other files it has, by their suffix."""

    files: Sorted[ListedFile]
    ignored: Mapping[str, int]

    def fingerprint(self) -> str:
        """Changes when a file is added, removed, renamed or written to."""
        digest = hashlib.sha256(repr(self.ignored).encode())
        for file in self.files:
            digest.update(f"{file.path!r} {file.size_bytes} {file.modified}\n".encode())
        return digest.hexdigest()

    def said_of_ignored(self) -> str:
        """How many other files there are, the most frequent suffix first: `12 .mov, 3 .dng`."""
        by_number = sorted(self.ignored.items(), key=lambda entry: (-entry[1], entry[0]))
        return ", ".join(f"{number:,} {suffix}" for suffix, number in by_number) or "none"


def list_image_files(source: str, ignored: Counter[str]) -> Iterator[ListedFile]:
    """All image files below a folder or s3:// prefix, in any order; hidden files are not images.

    Args:
        ignored: counts the other files by their suffix.

    Raises:
        StageInputError: there is no such folder or prefix.
    """
    filesystem, root = _existing(source)
    if "file" in filesystem.protocol:
        return local_files(root, ignored)
    return _object_files(filesystem, root, ignored)


@contextmanager
def listing_of(source: str, inventory: str = "") -> Iterator[Listing]:
    """What is in a source, on disk where that is much.

    Args:
        inventory: URI of the manifest.json of an S3 Inventory report, which is read instead of listing.

    Raises:
        StageInputError: there is no such folder or prefix, or the report cannot stand for its listing.
    """
    from fruits_assets.stages.inventory import inventory_files  # which takes this module's files and rule

    ignored: Counter[str] = Counter()
    files = inventory_files(inventory, source, ignored) if inventory else list_image_files(source, ignored)
    with tempfile.TemporaryDirectory() as folder:
        in_order = Sorted(files, Path(folder))
        yield Listing(in_order, dict(sorted(ignored.items())))


def refuse_empty(source: str) -> None:
    """Look for a single image file below the source, which is quick even where there are millions.

    Raises:
        StageInputError: there is no such folder or prefix, or no image in it.
    """
    filesystem, root = _existing(source)
    for folder, _, names in filesystem.walk(root):
        for name in names:
            if is_image_path(_relative(f"{folder}/{name}", root), Counter()):
                return
    # Links are followed by the full listing only.
    if next(list_image_files(source, Counter()), None) is None:
        raise StageInputError(too_few(source, "no image file"))


def too_few(source: str, found: str) -> str:
    """Why a source does not do, and what would."""
    return (
        f"Image source '{source}': {found}, at least 2 needed. Put images ({' '.join(SUFFIXES)}) into "
        "<source>/<label>/<file>, or set FRUITS_IMAGES to a folder that has them."
    )


def label_of(source: str, path: str) -> str:
    """The name of the folder that holds the file; for a file right in the source, the source's own."""
    return PurePosixPath(path).parent.name or PurePosixPath(source.rstrip("/")).name


def _existing(source: str) -> tuple[fsspec.AbstractFileSystem, str]:
    # s3fs would remember listings, and a sensor's process lives for days.
    filesystem, root = fsspec.url_to_fs(source, use_listings_cache=False)
    if not filesystem.isdir(root):
        raise StageInputError(
            f"Image source '{source}': no such folder or prefix. Set FRUITS_IMAGES to one that holds "
            "<label>/<file>."
        )
    return filesystem, root


def _relative(name: str, root: str) -> str:
    return name.removeprefix(root.rstrip("/")).lstrip("/")


def is_image_path(relative: str, ignored: Counter[str]) -> bool:
    """Whether a path below the source is that of an image, by its name alone; hidden files are not.

    Args:
        ignored: counts what is neither an image nor hidden, by its suffix.
    """
    path = PurePosixPath(relative)
    if any(part.startswith(".") for part in path.parts):
        return False
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return True
    ignored[_printable(suffix) or "without suffix"] += 1
    return False


def local_files(root: str, ignored: Counter[str]) -> Iterator[ListedFile]:
    """See `list_image_files`."""
    # fsspec neither follows links nor says which folders it could not open.
    unlisted: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=unlisted.append):
        subfolders.sort()  # of several links to one folder, the same is followed everywhere
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a link back up would go round for ever
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for name in names:
            relative = os.path.relpath(os.path.join(folder, name), root)
            if is_image_path(relative, ignored):
                yield local_file(root, relative)
    for error in unlisted:
        # Named as what is in it, so that its label is its own.
        inside = os.path.normpath(os.path.join(os.path.relpath(error.filename, root), "*"))
        yield ListedFile(_printable(inside), 0, 0, f"folder cannot be listed: {error.strerror}")


def local_file(root: str, relative: str) -> ListedFile:
    """A file below a folder, whatever it is."""
    try:
        status = os.stat(os.path.join(root, relative))
    except OSError as error:
        return ListedFile(_printable(relative), 0, 0, f"cannot be read: {error.strerror}")
    reason = None
    if not os.path.isfile(os.path.join(root, relative)):
        reason = "not a regular file"  # opening a named pipe would wait for ever
    elif _printable(relative) != relative:
        reason = "file name is not valid UTF-8"
    return ListedFile(_printable(relative), status.st_size, status.st_mtime_ns // 1000, reason)


def _printable(path: str) -> str:
    """The path itself, or with its undecodable bytes written as escapes."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _object_files(
    filesystem: fsspec.AbstractFileSystem, root: str, ignored: Counter[str]
) -> Iterator[ListedFile]:
    if "s3" in filesystem.protocol:
        found = _s3_objects(root)
    else:
        found = ((_relative(name, root), info) for name, info in filesystem.find(root, detail=True).items())
    for relative, info in found:
        if is_image_path(relative, ignored):
            modified = info.get("LastModified") or filesystem.modified(info["name"])
            yield ListedFile(relative, info.get("Size", info.get("size")), int(modified.timestamp() * 1e6))


def _s3_objects(root: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Keys below a prefix and what S3 says of them, a page at a time: s3fs would hold them all."""
    import boto3

    bucket, _, prefix = root.partition("/")
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for entry in page.get("Contents", ()):
            if not entry["Key"].endswith("/"):  # what consoles make of an empty folder
                yield entry["Key"].removeprefix(prefix), entry
