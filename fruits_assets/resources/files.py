"""Files of a lake, on a file system of this machine or in an object store."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Sequence

import fsspec.config
from upath import UPath

# What another process has written has to be seen.
fsspec.config.conf.setdefault("s3", {})["use_listings_cache"] = False

_MAX_DIGESTED_BYTES = 64 * 1024**2
_PROBE_BYTES = 1024**2
_LATEST = "_latest"


class LakeError(RuntimeError):
    """The lake cannot be used as asked; the message names the place and the fix."""


def is_local(path: UPath) -> bool:
    """Whether it is on a file system of this machine."""
    return path.protocol in ("", "file", "local")


def refuse_unwritable(root: UPath) -> None:
    """Look whether something can be written, before a run does any work.

    Raises:
        LakeError: it cannot; says why.
    """
    probe = root / f".writable-{uuid.uuid4().hex}"
    try:
        if is_local(root):
            root.mkdir(parents=True, exist_ok=True)
        try:
            write_synced(probe, bytes(_PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except Exception as error:  # fsspec's file systems share no class of errors
        raise LakeError(
            f"The lake '{root}' cannot be written to: {error}. Set FRUITS_LAKE to a folder or s3:// prefix "
            "that can, free space there, or give this user the right to write there."
        ) from error


def full_disk(error: BaseException, place: UPath) -> LakeError | None:
    """What to say of an error that comes from a full disk; None of any other."""
    if getattr(error, "errno", None) != errno.ENOSPC and "No space left on device" not in str(error):
        return None
    if isinstance(error, RuntimeError):
        return None  # told already
    places = [place.path] * is_local(place) + [tempfile.gettempdir()]
    free = " or ".join(f"'{path}' ({shutil.disk_usage(path).free / 1e6:,.0f} MB free)" for path in places)
    return LakeError(
        f"Nothing was published: the disk of {free} is full (No space left on device). Free space there, or "
        "set FRUITS_LAKE or TMPDIR to a place that has more."
    )


def write_synced(target: UPath, content: bytes) -> None:
    """Write a file and be sure that it is on the disk, which a full one would tell only then."""
    if not is_local(target):
        target.write_bytes(content)
        return
    with open(target.path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def digest(file: UPath) -> str:
    """Size and SHA-256; of a file that is too large to be read for this, its size."""
    size = file.stat().st_size
    if size > _MAX_DIGESTED_BYTES:
        return str(size)
    return f"{size} {hashlib.sha256(file.read_bytes()).hexdigest()}"


def show(place: UPath, folder: UPath, names: Sequence[str]) -> None:
    """Let files of a folder be found in another place: all of them change at once.

    One link leads to the folder, and the files lead through it. In an object store, where there are no
    links, they are copied one after the other.
    """
    if not names:
        return
    if not is_local(place):
        for name in names:
            place.fs.copy(f"{folder.path}/{name}", f"{place.path}/{name}")
        return
    _link(place / _LATEST, os.path.relpath(folder.path, place.path))
    for name in names:
        _link(place / name, f"{_LATEST}/{name}")


def _link(place: UPath, target: str) -> None:
    """Make a link lead there, in one step; what stands in its place, say a copy of a version, goes."""
    if os.path.islink(place.path) and os.readlink(place.path) == target:
        return
    temporary = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    os.symlink(target, temporary.path)
    if os.path.isdir(place.path) and not os.path.islink(place.path):
        shutil.rmtree(place.path)
    os.replace(temporary.path, place.path)
