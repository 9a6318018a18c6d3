"""Which task does what: what is unchanged stays where it is, what is new becomes files of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fruits_assets.stages.stored import StoredFile

# The input under which a stage finds the version that it may take over from, if there is one.
PREVIOUS = "previous"
# The one under which it finds the version that it will replace, whether it may take over from that or not.
LAST = "last"

FILE_BYTES = 128 * 1024**2
# Of a file in which one row has changed, all others are written again.
_FILES_OF_TABLE, _MIN_FILE_BYTES = 64, 1024**2
_TASKS_PER_CORE = 16
# Sizes stand for work: a megabyte of photos takes some 15 ms to decode, and a task 20 ms to begin and end.
# So no task has much less than the first of these, nor, where there is little to do, than the second.
_TASK_BYTES, _MIN_TASK_BYTES = 24 * 1024**2, 4 * 1024**2
# So many files of less than half the size do no harm; with more, the smallest are put together.
_SMALL_BYTES = FILE_BYTES // 2
_MAX_SMALL_FILES = 256
_REWRITTEN_SHARE = 0.02


def cut(
    sizes_bytes: Sequence[int], n_cores: int, bytes_per_item: int = 0, max_bytes: int | None = None
) -> Iterator[range]:
    """Cut a sequence of items, given by their sizes, into contiguous parts, a task each.

    Enough of them that all cores are busy to the end and progress is seen, each long enough to be worth its
    start, and none larger than a file of a table should be.

    Args:
        bytes_per_item: what an item costs besides its size.
        max_bytes: of a part, these costs included; those of a file if not given.
    """
    total = sum(sizes_bytes) + bytes_per_item * len(sizes_bytes)
    least = max(_MIN_TASK_BYTES, min(_TASK_BYTES, total // (2 * n_cores)))
    target = min(max(total // (n_cores * _TASKS_PER_CORE), least), max_bytes or FILE_BYTES)
    start = weight = 0
    for i, size_bytes in enumerate(sizes_bytes):
        more = size_bytes + bytes_per_item
        if weight and weight + more > target:
            yield range(start, i)
            start, weight = i, 0
        weight += more
    if start < len(sizes_bytes):
        yield range(start, len(sizes_bytes))


def file_bytes(total_bytes: int) -> int:
    """How large a file of so many bytes of new rows becomes: a change costs little, and files stay few."""
    return min(max(total_bytes // _FILES_OF_TABLE, _MIN_FILE_BYTES), FILE_BYTES)


def kept_together(files: Iterable[StoredFile]) -> tuple[list[StoredFile], list[list[StoredFile]]]:
    """Which files of a table stay as they are, and which are put together, a list for each new file.

    Every run adds small files, and thousands of them would make everything that reads a table slow. So where
    they are many, each run puts some of the smallest together, but writes little for that.
    """
    all_files = list(files)
    small = [file for file in all_files if file.size_bytes < _SMALL_BYTES]
    small.sort(key=lambda file: file.size_bytes)
    if len(small) <= _MAX_SMALL_FILES:
        return all_files, []
    budget = sum(file.size_bytes for file in all_files) * _REWRITTEN_SHARE
    groups: list[list[StoredFile]] = [[]]
    room = float(FILE_BYTES)
    for number, file in enumerate(small):
        budget -= file.size_bytes
        if budget < 0 and number >= 2:
            break
        if file.size_bytes > room:
            groups.append([])
            room = FILE_BYTES
        groups[-1].append(file)
        room -= file.size_bytes
    groups = [group for group in groups if len(group) > 1]
    moved = {file for group in groups for file in group}
    return [file for file in all_files if file not in moved], groups


def row_keys(*columns: Iterable[str]) -> NDArray[np.uint64]:
    """A number for each row of some columns of text: equal rows have equal ones, and others do not.

    Of 64 bits: among ten million rows, two different ones share a number with a probability of 3 in a
    million, and then a check fails.
    """
    digests = b"".join(
        hashlib.blake2b("\0".join(row).encode(), digest_size=8).digest() for row in zip(*columns, strict=True)
    )
    return np.frombuffer(digests, np.uint64)
