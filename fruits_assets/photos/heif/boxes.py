"""The boxes that HEIC, HEIF, AVIF and video files consist of (ISO/IEC 14496-12), bounds checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fruits_assets.photos.formats import UnusableImageError


class Reader:
    """Reads big-endian numbers one after the other; too few bytes make the file unusable."""

    def __init__(self, data: memoryview, name: str) -> None:
        self._data = data
        self._name = name
        self._position = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._position

    def take(self, n_bytes: int) -> memoryview:
        if n_bytes > self.left:
            raise UnusableImageError(
                f"damaged image: {self._name} ends {n_bytes - self.left:,} bytes too early"
            )
        self._position += n_bytes
        return self._data[self._position - n_bytes : self._position]

    def number(self, n_bytes: int) -> int:
        return int.from_bytes(self.take(n_bytes), "big")

    def text(self) -> bytes:
        """Up to the next zero byte, or up to the end."""
        text, _, _ = bytes(self._data[self._position :]).partition(b"\0")
        self.take(min(len(text) + 1, self.left))
        return text

    def version_and_flags(self) -> tuple[int, int]:
        return self.number(1), self.number(3)


class Box(NamedTuple):
    kind: bytes
    payload: memoryview

    def reader(self) -> Reader:
        return Reader(self.payload, f"box {self.kind!r}")


def boxes(data: memoryview) -> Iterator[Box]:
    """The boxes that fill `data`."""
    reader = Reader(data, "box")
    while reader.left:
        yield next_box(reader)


def next_box(reader: Reader, *, may_be_last: bool = False) -> Box:
    size, kind = reader.number(4), bytes(reader.take(4))
    if size == 0 and may_be_last:
        return Box(kind, reader.take(reader.left))
    header = 8
    if size == 1:
        size, header = reader.number(8), 16
    if size < header:
        raise UnusableImageError(f"damaged image: box {kind!r} of {size} bytes")
    return Box(kind, reader.take(size - header))


def top_level_boxes(view: memoryview) -> dict[bytes, Box]:
    reader = Reader(view, "file")
    found: dict[bytes, Box] = {}
    while reader.left:
        try:
            box = next_box(reader, may_be_last=True)
        except UnusableImageError:
            if b"meta" in found:
                break  # bytes that are no box, or a cut one, do no harm where no item lies in them
            raise
        if box.kind in (b"ftyp", b"meta"):
            if box.kind in found:
                raise UnusableImageError(f"damaged image: more than one {box.kind!r} box")
            found[box.kind] = box
    if b"ftyp" not in found or b"meta" not in found:
        raise UnusableImageError("no still picture: no meta box in the file")
    return found


def unique_boxes(found: Iterator[Box], name: str) -> dict[bytes, Box]:
    """By kind; where there are two, decoders differ in the one they believe."""
    unique: dict[bytes, Box] = {}
    for box in found:
        if box.kind in unique and box.kind not in (b"free", b"skip", b"uuid"):
            raise UnusableImageError(f"damaged image: more than one {box.kind!r} box in its {name} box")
        unique[box.kind] = box
    return unique


def checked_version(reader: Reader, box: Box, latest: int) -> tuple[int, int]:
    version, flags = reader.version_and_flags()
    if version > latest:
        raise UnusableImageError(f"box {box.kind!r} of version {version}, later than {latest}")
    return version, flags
