"""What may be shown on a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def printable(text: str) -> str:
    """A text on one line: what a terminal would not show is written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def native_code_says_nothing() -> Iterator[None]:
    """Nothing that libraries write on standard error by themselves, as LiteRT does of how it computes."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
