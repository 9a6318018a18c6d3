"""Sort more than fits into memory: sorted runs on disk, merged as they are read."""

from __future__ import annotations

import heapq
import pickle
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

Record = TypeVar("Record", bound=tuple[Any, ...])

# Of records of a few hundred bytes; fewer than these stay in memory.
_RECORDS_PER_RUN = 100_000
_RECORDS_PER_READ = 1_000
_FIRST = itemgetter(0)


class Sorted(Generic[Record]):
    """Records in the order of their first entry, as often as they are asked for.

    Args:
        records: tuples, in any order.
        folder: where the runs go; the caller removes it.
    """

    def __init__(self, records: Iterable[Record], folder: Path) -> None:
        self._runs: list[Path] = []
        self._last: list[Record] = []
        self._n_records = 0
        for record in records:
            self._last.append(record)
            self._n_records += 1
            if len(self._last) == _RECORDS_PER_RUN:
                self._runs.append(folder / f"{id(self)}-{len(self._runs)}")
                _write_run(self._last, self._runs[-1])
                self._last = []
        self._last.sort(key=_FIRST)

    def __len__(self) -> int:
        return self._n_records

    def __iter__(self) -> Iterator[Record]:
        runs: list[Iterable[Record]] = [_read_run(run) for run in self._runs]
        return heapq.merge(*runs, self._last, key=_FIRST)


def _write_run(records: list[Any], run: Path) -> None:
    records.sort(key=_FIRST)
    with run.open("wb") as file:
        for start in range(0, len(records), _RECORDS_PER_READ):
            pickle.dump(records[start : start + _RECORDS_PER_READ], file)


def _read_run(run: Path) -> Iterator[Any]:
    with run.open("rb") as file:
        while True:
            try:
                yield from pickle.load(file)
            except EOFError:
                return
