"""Marks of what is under way: files locked for as long as their process lives, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def held(mark: Path) -> Iterator[None]:
    """Hold a mark, together with whoever else does; the last one removes it."""
    mark.parent.mkdir(parents=True, exist_ok=True)
    with _locked(mark) as file:
        try:
            yield
        finally:
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(mark)


def _locked(mark: Path) -> BinaryIO:
    """The mark, opened and locked. It appears as locked, or whoever tidies would take it for left behind."""
    while True:
        try:
            file = mark.open("rb")
        except FileNotFoundError:
            number, name = tempfile.mkstemp(dir=mark.parent, prefix=f".{mark.name}-")
            file = os.fdopen(number, "rb")
            fcntl.flock(file, fcntl.LOCK_SH)
            with contextlib.suppress(FileExistsError):
                os.link(name, mark)
            os.unlink(name)
        else:
            fcntl.flock(file, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), mark.stat()):
                return file
        file.close()  # of one that was removed meanwhile, or made by somebody else


def is_held(mark: Path) -> bool:
    """Whether somebody holds it; without the file, nobody does."""
    try:
        with mark.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
