"""What may be shown on a terminal, and how it is shown while something is under way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final, TextIO

_NEW_LINE: Final = "\r\x1b[K"  # back to its start, and nothing on it
_LIVE_S, _LOG_S = 0.5, 10.0
_WIDTH: Final = 80  # of a terminal that does not say how wide it is


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


class LiveLines:
    """Lines that stay, and below them what is under way: a line that changes, or in a log one every 10 s.

    Nobody has to be there to read them: what cannot be written is not.
    """

    def __init__(self, stream: TextIO, now: Callable[[], str]) -> None:
        """`now` gives the line of the moment, or nothing."""
        self._stream, self._now = stream, now
        self._is_live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._ticks = threading.Thread(target=self._tick, name="live lines", daemon=True)

    def __enter__(self) -> LiveLines:
        self._ticks.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._ticks.join()
        self._write(_NEW_LINE if self._is_live else "")

    def say(self, line: str) -> None:
        """A line that stays."""
        self._write(f"{_NEW_LINE if self._is_live else ''}{line}\n")

    def _tick(self) -> None:
        while not self._ended.wait(_LIVE_S if self._is_live else _LOG_S):
            if not (line := self._now()):
                continue
            if self._is_live:
                width = os.get_terminal_size(self._stream.fileno()).columns or _WIDTH
                self._write(f"{_NEW_LINE}{line[: width - 1]}")
            else:
                self._write(f"{line}\n")

    def _write(self, text: str) -> None:
        with self._lock, suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
