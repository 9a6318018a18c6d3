"""Marks of what is under way: files locked for as long as their process lives, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(mark: Path) -> Iterator[None]:
    """Hold a mark, together with whoever else does; the last one removes it."""
    mark.parent.mkdir(parents=True, exist_ok=True)
    with mark.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        try:
            yield
        finally:
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(mark)


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
