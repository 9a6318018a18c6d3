"""WebP (RFC 9649): the compressed picture or frames, the profile, and a header that is made anew."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.photos.personal_metadata import exif, icc
from fruits_assets.photos.personal_metadata.parts import part

_PROFILE, _ALPHA, _EXIF, _XMP, _ANIMATION = 0x20, 0x10, 0x08, 0x04, 0x02
_PICTURES = (b"VP8 ", b"VP8L")
_PIXELS = {*_PICTURES, b"ALPH", b"ANMF"}
# Blending and disposal; the other bits are reserved.
_FRAME_FLAGS = 0x03
_FRAME_HEADER = 16

Chunk = tuple[bytes, bytes]


def stripped(content: bytes) -> bytes:
    """The picture or frames of a file, with transparency, profile and orientation.

    Raises:
        UnusableImageError: no picture, or a header that does not fit what follows.
    """
    (size,) = struct.unpack_from("<I", content, 4)
    if size + 8 > len(content) + size % 2:
        raise UnusableImageError("its structure is damaged: it is shorter than it says")
    chunks = list(_chunks(content[12 : size + 8]))
    if not chunks:
        raise UnusableImageError("its structure is damaged: it has no picture")
    kind, head = chunks[0]
    if kind in _PICTURES:
        # libwebp looks at nothing behind the picture of the simple form.
        return _riff(chunks[:1])
    if kind != b"VP8X":
        raise UnusableImageError("its structure is damaged: it does not begin with its header or picture")
    flags = part(head, 0, 10)[0]
    is_animated = bool(flags & _ANIMATION)
    picture = _frames(chunks) if is_animated else _picture(chunks)
    profile = icc.neutral(_first(chunks, b"ICCP")) if flags & _PROFILE else None
    block = b""
    if flags & (_EXIF | _XMP):
        block = exif.orientation_block(exif.stored_orientation(content))
    kept = flags & (_ALPHA | _ANIMATION) | (_PROFILE if profile else 0) | (_EXIF if block else 0)
    return _riff(
        [
            (b"VP8X", bytes([kept, 0, 0, 0]) + head[4:10]),
            *([(b"ICCP", profile)] if profile else []),
            *picture,
            *([(b"EXIF", block)] if block else []),
        ]
    )


def _chunks(body: bytes) -> Iterator[Chunk]:
    position = 0
    while position < len(body):
        kind, (length,) = part(body, position, 4), struct.unpack_from("<I", body, position + 4)
        yield kind, part(body, position + 8, length)
        position += 8 + length + length % 2
        if length % 2 and kind in _PIXELS and body[position - 1 : position] != b"\0":
            # libwebp reads the byte that fills up to an even number as if it were part of the picture.
            raise UnusableImageError("its structure is damaged: a picture's padding is not zero")


def _riff(chunks: Sequence[Chunk]) -> bytes:
    body = b"WEBP" + _joined(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _joined(chunks: Sequence[Chunk]) -> bytes:
    return b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )


def _first(chunks: Sequence[Chunk], kind: bytes) -> bytes:
    return next((data for other, data in chunks if other == kind), b"")


def _picture(chunks: Sequence[Chunk]) -> list[Chunk]:
    """The first picture with the transparency that stands before it."""
    kinds = [kind for kind, _ in chunks]
    if b"ANMF" in kinds:
        raise UnusableImageError("its structure is damaged: frames in what is no animation")
    at = next((i for i, kind in enumerate(kinds) if kind in _PICTURES), None)
    if at is None:
        raise UnusableImageError("its structure is damaged: it has no picture")
    if b"ALPH" not in kinds[:at]:
        return [chunks[at]]
    if kinds[at] != b"VP8 " or kinds[:at].count(b"ALPH") > 1 or kinds[at - 1] != b"ALPH":
        raise UnusableImageError("its structure is damaged: transparency that belongs to no picture")
    return [chunks[at - 1], chunks[at]]


def _frames(chunks: Sequence[Chunk]) -> list[Chunk]:
    animation = part(_first(chunks, b"ANIM"), 0, 6)
    frames = [_frame(data) for kind, data in chunks if kind == b"ANMF"]
    if not frames or any(kind in _PICTURES for kind, _ in chunks):
        raise UnusableImageError(
            "its structure is damaged: an animation without frames, or with more than that"
        )
    return [(b"ANIM", animation), *frames]


def _frame(data: bytes) -> Chunk:
    head = part(data, 0, _FRAME_HEADER)
    head = head[:-1] + bytes([head[-1] & _FRAME_FLAGS])
    return b"ANMF", head + _joined(_picture(list(_chunks(data[_FRAME_HEADER:]))))
