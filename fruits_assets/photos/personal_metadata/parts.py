"""Taking parts out of a file: all of a part, or an error; and where a compressed part ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

_INFLATED_AT_ONCE = 1024**2


def part(content: bytes, start: int, length: int) -> bytes:
    """So many bytes from there on; slices would silently return fewer, or others.

    Raises:
        IndexError: not all of them are in the file.
    """
    if start < 0 or length < 0 or start + length > len(content):
        raise IndexError(f"{length:,} bytes at byte {start:,} of {len(content):,}")
    return content[start : start + length]


class Inflating(Protocol):
    """What `zlib.decompressobj` returns; its class has no public name."""

    @property
    def eof(self) -> bool: ...

    @property
    def unconsumed_tail(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def inflated_sizes(inflating: Inflating, data: bytes) -> Iterator[int]:
    """Inflate and forget, a megabyte at a time: a small file may hold a picture of gigabytes.

    Yields how many bytes have come out; afterwards `inflating` knows whether the stream has ended, and where.
    """
    size = 1
    # With all data taken in, more may still be waiting to come out.
    while not inflating.eof and (data or size):
        size = len(inflating.decompress(data, _INFLATED_AT_ONCE))
        data = inflating.unconsumed_tail
        yield size
