"""Damaged and strange photos made from sound ones, and what must hold of each: for tests and `fuzz.py`."""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Callable

import numpy as np

from fruits_assets.photos.checking import checked
from fruits_assets.photos.decoding import decode_rgb
from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.photos.personal_metadata import strip_personal_metadata

# More than this comes of nothing but an orientation, a profile's two texts or a missing end.
MAX_GROWTH = 600
ACCEPTED, REFUSED = "accepted", "refused"
BAD = ("wrong_exception", "pixels_differ", "not_idempotent", "grown")
_EXTREMES = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_PNG = b"\x89PNG\r\n\x1a\n"
# Where blocks begin: JPEG, PNG, WebP, GIF; the directories of TIFF and the header of BMP are cut anywhere.
_BLOCKS = {
    b"\xff\xd8": re.compile(rb"\xff[\xc0-\xcf\xd8-\xef\xfe]"),
    b"\x89P": re.compile(rb"....(?=IHDR|PLTE|tRNS|IDAT|IEND|[a-z][A-Za-z][A-Z][A-Za-z])", re.DOTALL),
    b"RI": re.compile(rb"VP8[ LX]|ALPH|ICCP|EXIF|XMP |ANIM|ANMF"),
    b"GI": re.compile(rb"!\xf9|!\xff|!\xfe|,"),
}


def mutated(content: bytes, choose: random.Random) -> bytes:
    """A copy with one to three faults."""
    for _ in range(choose.choice((1, 1, 1, 2, 3))):
        if len(content) > 1:
            content = choose.choice(_FAULTS)(content, choose)
    if content.startswith(_PNG) and choose.random() < 0.7:
        content = _with_check_sums(content)  # otherwise nearly all would be refused for these alone
    return content


def outcome(content: bytes) -> str:
    """What becomes of a file: `ACCEPTED`, `REFUSED`, or which of the promises in `BAD` is broken.

    Stripping is tried on files that cannot be decoded, too; the pixels of those cannot be compared.

    Raises:
        MemoryError: which is a fault of the machine, unless it has plenty.
    """
    try:
        before = np.asarray(decode_rgb(content))
    except UnusableImageError:
        before = None
    except MemoryError:
        raise
    except Exception:
        return "wrong_exception"
    try:
        stripped = strip_personal_metadata(content)
        again = strip_personal_metadata(stripped)
    except UnusableImageError:
        return _refused(content)
    except MemoryError:
        raise
    except Exception:
        return "wrong_exception"
    if again != stripped:
        return "not_idempotent"
    if len(stripped) > len(content) + MAX_GROWTH:
        return "grown"
    if before is None:
        return REFUSED
    try:
        checked(content)
    except UnusableImageError:
        return REFUSED
    after = np.asarray(decode_rgb(stripped))
    return ACCEPTED if np.array_equal(before, after) else "pixels_differ"


def _refused(content: bytes) -> str:
    """Refusing is right at once, but not when the file has been stripped already."""
    try:
        strip_personal_metadata(content)
    except UnusableImageError:
        return REFUSED
    return "not_idempotent"


# Faults ------------------------------------------------------------------------------------------


def _flipped_bits(content: bytes, choose: random.Random) -> bytes:
    result = bytearray(content)
    for _ in range(choose.randint(1, 8)):
        # Half of them near the beginning, where most of the structure is.
        end = len(result) if choose.random() < 0.5 else min(len(result), 200)
        result[choose.randrange(end)] ^= 1 << choose.randrange(8)
    return bytes(result)


def _truncated(content: bytes, choose: random.Random) -> bytes:
    return content[: choose.randrange(1, len(content))]


def _spliced(content: bytes, choose: random.Random) -> bytes:
    at = choose.choice((choose.randrange(len(content)), _boundary(content, choose)))
    return content[:at] + choose.randbytes(choose.choice((1, 2, 7, 40, 300))) + content[at:]


def _doubled_block(content: bytes, choose: random.Random) -> bytes:
    start, end = _block(content, choose)
    at = choose.choice((end, _boundary(content, choose)))
    return content[:at] + content[start:end] + content[at:]


def _removed_block(content: bytes, choose: random.Random) -> bytes:
    start, end = _block(content, choose)
    return content[:start] + content[end:] or content[:1]


def _changed_number(content: bytes, choose: random.Random) -> bytes:
    form = choose.choice(("<H", ">H", "<I", ">I"))
    size = struct.calcsize(form)
    at = choose.choice((_boundary(content, choose) + choose.choice((0, 2, 4, 8)), choose.randrange(200)))
    if at + size > len(content):
        return content
    limit = (1 << 8 * size) - 1
    (old,) = struct.unpack_from(form, content, at)
    new = choose.choice([*(x for x in _EXTREMES if x <= limit), (old + 1) & limit, (old - 1) & limit])
    return content[:at] + struct.pack(form, new) + content[at + size :]


def _emptied(content: bytes, choose: random.Random) -> bytes:
    at, length = choose.randrange(len(content)), choose.choice((4, 16, 64))
    return content[:at] + bytes(len(content[at : at + length])) + content[at + length :]


_FAULTS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flipped_bits, _truncated, _spliced, _doubled_block, _removed_block, _changed_number, _changed_number),
    _emptied,
)


def _boundary(content: bytes, choose: random.Random) -> int:
    pattern = _BLOCKS.get(content[:2])
    starts = [match.start() for match in pattern.finditer(content)] if pattern else []
    return choose.choice(starts) if starts else choose.randrange(len(content))


def _block(content: bytes, choose: random.Random) -> tuple[int, int]:
    start, end = sorted((_boundary(content, choose), _boundary(content, choose)))
    return start, end if end > start else min(len(content), start + choose.randint(1, 64))


def _with_check_sums(content: bytes) -> bytes:
    position, result = len(_PNG), bytearray(content)
    while position + 12 <= len(content):
        end = position + 8 + int.from_bytes(content[position : position + 4], "big")
        if end + 4 > len(content):
            break
        result[end : end + 4] = struct.pack(">I", zlib.crc32(content[position + 4 : end]))
        position = end + 4
    return bytes(result)
