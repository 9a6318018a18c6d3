"""JPEG (ISO/IEC 10918-1): the tables, frame and scans of the first picture, and how its colours are coded."""

from __future__ import annotations

import itertools
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.photos.personal_metadata import exif, icc
from fruits_assets.photos.personal_metadata.parts import part

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_NO_SCAN = memoryview(b"")
_DHT, _DAC, _SOS, _DQT, _DNL, _DRI, _COM = 0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE
_APP0, _APP1, _APP2, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
# Table B.1: baseline, extended, progressive and lossless, with Huffman or arithmetic coding. The others are
# of hierarchical files, which hold several pictures.
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xCB}
_PROGRESSIVE, _ARITHMETIC = {0xC2, 0xCA}, {0xC9, 0xCA, 0xCB}
# Inside a scan, FF is followed by 00, a restart marker or fill bytes.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JFIF, _ADOBE, _ICC = b"JFIF\0", b"Adobe", b"ICC_PROFILE\0"
_JFIF_VERSIONS = {b"\1\0", b"\1\1", b"\1\2"}
# What libjpeg asks for before it believes that the segment is one.
_JFIF_SIZE, _ADOBE_SIZE = 14, 12
# What is left of a segment's 65,533 bytes behind the name, the number and the count; Pillow cuts there, too.
_ICC_CHUNK = 65_519


@dataclass(frozen=True)
class Segment:
    """A marker with what follows it; behind the start of a scan, the scan."""

    marker: int
    payload: bytes
    # Nearly all of a file: looked at where it is, and copied once, when the parts are joined.
    scan: memoryview = _NO_SCAN

    @property
    def parts(self) -> list[bytes | memoryview]:
        """What it is in the file."""
        return [struct.pack(">BBH", 0xFF, self.marker, len(self.payload) + 2) + self.payload, self.scan]


def stripped(content: bytes) -> bytes:
    """The first picture of a file, with its profile, resolution and orientation.

    Raises:
        UnusableImageError: no picture before the end marker, no end marker, or bytes between segments.
    """
    segments = list(_segments(content))
    frame, first_scan = _picture(segments)
    head = segments[:first_scan]
    jfif = next((s.payload for s in head if s.marker == _APP0 and _is(s, _JFIF, _JFIF_SIZE)), None)
    # An overlong tail of segments may have come from several programs: libjpeg believes the last.
    adobe = [s for s in head if s.marker == _APP14 and _is(s, _ADOBE, _ADOBE_SIZE)][-1:]
    chunks = [
        s for s in segments[: segments.index(frame)] if s.marker == _APP2 and s.payload.startswith(_ICC)
    ]
    kept: list[Segment] = []
    if jfif:
        kept.append(Segment(_APP0, _plain_jfif(jfif)))
    if any(s.marker == _APP1 for s in head):
        block = exif.orientation_block(exif.stored_orientation(content))
        if block:
            kept.append(Segment(_APP1, b"Exif\0\0" + block))
    tables = _Tables(segments, frame)
    for segment in segments:
        if chunks and segment is chunks[0]:
            kept += _profile(chunks)
        elif adobe and segment is adobe[0]:
            # Version 100, no flags: only the last byte, the colour transform, says how to read the colours.
            kept.append(Segment(_APP14, _ADOBE + b"\0\x64\0\0\0\0" + segment.payload[11:12]))
        elif needed := tables.needed(segment):
            kept.append(needed)
    return _joined(kept)


def abbreviated(content: bytes) -> bytes:
    """A stream as TIFF has it: tables, or a picture whose tables are elsewhere, and nothing else.

    Raises:
        UnusableImageError: no end marker, or bytes between segments.
    """
    segments = list(_segments(content))
    frames = [s for s in segments if s.marker in _FRAMES]
    if frames:
        _picture(segments)
    tables = _Tables(segments, frames[0] if frames else None)
    return _joined(needed for s in segments if (needed := tables.needed(s)))


def _joined(segments: Iterable[Segment]) -> bytes:
    return b"".join([_SOI, *itertools.chain.from_iterable(s.parts for s in segments), _EOI])


def _segments(content: bytes) -> Iterator[Segment]:
    """All up to the end marker; fill bytes are none."""
    if not content.startswith(_SOI):
        raise UnusableImageError("its structure is damaged: no start marker")
    position = 2
    while True:
        if position + 2 > len(content):
            raise UnusableImageError("its structure is damaged: its end marker is missing")
        if content[position] != 0xFF:
            raise UnusableImageError(f"its structure is damaged: no JPEG marker at byte {position:,}")
        marker = content[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker == 0xD9:
            return
        if (
            marker not in _FRAMES | {_DHT, _DAC, _SOS, _DQT, _DNL, _DRI, _COM}
            and not _APP0 <= marker <= _APP15
        ):
            raise UnusableImageError(
                f"its structure is damaged: JPEG marker {marker:02X} at byte {position:,}"
            )
        (length,) = struct.unpack_from(">H", content, position + 2)
        payload = part(content, position + 4, length - 2)
        position += 2 + length
        scan = _NO_SCAN
        if marker == _SOS:
            end = _NEXT_MARKER.search(content, position)
            if end is None:
                raise UnusableImageError("its structure is damaged: its end marker is missing")
            scan = memoryview(content)[position : end.start()]
            position = end.start()
        yield Segment(marker, payload, scan)


def _picture(segments: Sequence[Segment]) -> tuple[Segment, int]:
    """The frame, and the number of the first scan's segment."""
    frames = [i for i, s in enumerate(segments) if s.marker in _FRAMES]
    scans = [i for i, s in enumerate(segments) if s.marker == _SOS]
    if not frames or not scans or scans[0] < frames[0]:
        raise UnusableImageError("its structure is damaged: no picture before its end marker")
    if len(frames) > 1:
        raise UnusableImageError("its structure is damaged: two frames in one picture")
    frame = segments[frames[0]]
    n_components = frame.payload[5]
    if len(frame.payload) != 6 + 3 * n_components or frame.payload[1:3] == b"\0\0":
        raise UnusableImageError("its structure is damaged: length of its frame header, or no height")
    components = {frame.payload[6 + 3 * i] for i in range(n_components)}
    scanned: Counter[int] = Counter()
    for i in scans:
        payload = segments[i].payload
        if len(payload) != 4 + 2 * payload[0]:
            raise UnusableImageError("its structure is damaged: length of a scan header")
        scanned.update(payload[1 : 1 + 2 * payload[0] : 2])
    if not components.issuperset(scanned):
        raise UnusableImageError("its structure is damaged: a scan of components that the frame lacks")
    if frame.marker not in _PROGRESSIVE and max(scanned.values()) > 1:
        raise UnusableImageError("its structure is damaged: a component is scanned twice")
    return frame, scans[0]


class _Tables:
    """Which tables the picture refers to: one that it does not may hold anything."""

    def __init__(self, segments: Sequence[Segment], frame: Segment | None) -> None:
        self._is_arithmetic = frame is not None and frame.marker in _ARITHMETIC
        # A picture in a TIFF refers to tables that stand elsewhere, and those tables to no picture.
        self._quantization, self._huffman = set(range(4)), {*range(4), *range(0x10, 0x14)}
        if frame is not None:
            self._quantization = set(frame.payload[8::3])
            self._huffman = set()
        for segment in segments:
            if segment.marker == _SOS and frame is not None:
                for selectors in segment.payload[2 : 1 + 2 * segment.payload[0] : 2]:
                    self._huffman |= {selectors >> 4, 0x10 | (selectors & 15)}

    def needed(self, segment: Segment) -> Segment | None:
        """The segment without what the picture does not need, if anything is left of it."""
        marker, payload = segment.marker, segment.payload
        if marker in _FRAMES or marker == _SOS:
            return segment
        if marker == _DRI and len(payload) == 2:
            return segment
        if marker == _DQT:
            payload = _chosen(payload, self._quantization, _quantization_size)
        elif marker == _DHT:
            payload = _chosen(payload, self._huffman, _huffman_size)
        elif marker == _DAC:
            payload = _conditioning(payload) if self._is_arithmetic else b""
        elif marker == _DRI:
            raise UnusableImageError("its structure is damaged: length of a restart interval")
        else:
            return None
        return Segment(marker, payload) if payload else None


def _chosen(payload: bytes, ids: set[int], size: Callable[[bytes, int], int]) -> bytes:
    kept, position = b"", 0
    while position < len(payload):
        length = size(payload, position)
        table = part(payload, position, length)
        if (table[0] & 15 if size is _quantization_size else table[0]) in ids:
            kept += table
        position += length
    return kept


def _quantization_size(payload: bytes, position: int) -> int:
    return 1 + 64 * (2 if payload[position] >> 4 else 1)


def _huffman_size(payload: bytes, position: int) -> int:
    return 17 + sum(part(payload, position + 1, 16))


def _conditioning(payload: bytes) -> bytes:
    """Table B.6: DC classes have two numbers up to 15, AC classes one from 1 to 63."""
    for table, value in zip(payload[::2], payload[1::2], strict=True):
        if table not in {*range(4), *range(0x10, 0x14)} or (table >= 0x10 and not 1 <= value <= 63):
            raise UnusableImageError("its structure is damaged: arithmetic coding conditions")
    return payload


def _is(segment: Segment, name: bytes, size: int) -> bool:
    return segment.payload.startswith(name) and len(segment.payload) >= size


def _plain_jfif(payload: bytes) -> bytes:
    """Version, unit and density; the preview that may follow shows what a later crop took away."""
    version = payload[5:7] if payload[5:7] in _JFIF_VERSIONS else b"\1\1"
    unit = payload[7:8] if payload[7] <= 2 else b"\0"
    return _JFIF + version + unit + payload[8:12] + b"\0\0"


def _profile(chunks: Sequence[Segment]) -> Iterator[Segment]:
    """Put together as Pillow does: by number, if there are as many as the first says."""
    payloads = sorted(chunk.payload for chunk in chunks)
    if payloads[0][13] != len(payloads):
        return
    profile = icc.neutral(b"".join(payload[14:] for payload in payloads))
    if profile is None:
        return
    pieces = [profile[i : i + _ICC_CHUNK] for i in range(0, len(profile), _ICC_CHUNK)]
    for number, piece in enumerate(pieces, start=1):
        yield Segment(_APP2, _ICC + bytes([number, len(pieces)]) + piece)
