"""Taking parts out of a file: all of a part, or an error."""

from __future__ import annotations


def part(content: bytes, start: int, length: int) -> bytes:
    """So many bytes from there on; slices would silently return fewer, or others.

    Raises:
        IndexError: not all of them are in the file.
    """
    if start < 0 or length < 0 or start + length > len(content):
        raise IndexError(f"{length:,} bytes at byte {start:,} of {len(content):,}")
    return content[start : start + length]
