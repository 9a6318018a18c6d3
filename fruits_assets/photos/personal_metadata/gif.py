"""GIF89a: screen, palettes, frames with how they follow each other, and how often all is repeated."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.photos.personal_metadata.parts import part

_SCREEN_SIZE, _IMAGE_SIZE = 13, 10
_EXTENSION, _IMAGE, _TRAILER = b"!", b",", b";"
_CONTROL, _COMMENT, _APPLICATION = 0xF9, 0xFE, 0xFF
_LOOPING = b"NETSCAPE2.0"
_HAS_PALETTE, _PALETTE_BITS = 0x80, 0x07
_TRANSPARENT, _DISPOSAL, _CONTROL_FLAGS = 0x01, 0x1C, 0x1F
_MAX_CODE_BITS, _TABLE_SIZE, _SHORT_RUN = 12, 4096, 32


@dataclass
class _Control:
    """Flags, delay and transparent colour for the next frame, where they are told."""

    flags: int = 0
    delay: bytes = b"\0\0"
    transparent: int = 0
    is_told: bool = False

    def read(self, block: bytes) -> None:
        """What Pillow makes of one more block: a colour or a disposal that it does not tell stays."""
        told = part(block, 0, 4)[0] & _CONTROL_FLAGS
        if told & _TRANSPARENT or not self.flags & _TRANSPARENT:
            self.transparent = block[3]
        disposal = told & _DISPOSAL or self.flags & _DISPOSAL
        self.flags = (self.flags | told) & ~_DISPOSAL | disposal
        self.delay, self.is_told = block[1:3], True

    def __bytes__(self) -> bytes:
        if not self.is_told:
            return b""
        return b"!\xf9\x04" + bytes([self.flags]) + self.delay + bytes([self.transparent, 0])


def stripped(content: bytes) -> bytes:
    """All frames of a file; comments, texts and what applications have added stay behind.

    Raises:
        UnusableImageError: no frame, fewer pixels than a frame has, or bytes between blocks.
    """
    position = _SCREEN_SIZE + _palette_size(part(content, 0, _SCREEN_SIZE)[10])
    result = [part(content, 0, position)]
    n_frames, is_looping, control = 0, False, _Control()
    while position < len(content):
        kind = content[position : position + 1]
        if kind == _TRAILER:
            break
        if kind == b"\0":
            position += 1  # some encoders end a block twice
        elif kind == _EXTENSION:
            label = content[position + 1]
            blocks, position = _blocks(content, position + 2)
            if label != _COMMENT and not blocks:
                # Pillow takes the next block for this one's.
                raise UnusableImageError("its structure is damaged: an empty extension")
            if label == _CONTROL:
                control.read(blocks[0])
            elif label == _APPLICATION and blocks[0].startswith(_LOOPING):
                loop = _loop(blocks)
                if not n_frames and not is_looping:
                    result.append(loop)
                    is_looping = True
        elif kind == _IMAGE:
            image, position = _image(content, position)
            result += [bytes(control), image]
            n_frames, control = n_frames + 1, _Control()
        else:
            raise UnusableImageError(f"its structure is damaged: no GIF block at byte {position:,}")
    if not n_frames:
        raise UnusableImageError("its structure is damaged: it has no picture")
    return b"".join([*result, _TRAILER])


def _palette_size(flags: int) -> int:
    return 3 << (flags & _PALETTE_BITS) + 1 if flags & _HAS_PALETTE else 0


def _blocks(content: bytes, position: int) -> tuple[list[bytes], int]:
    """The data up to an empty block, and the position behind that."""
    blocks = []
    while length := part(content, position, 1)[0]:
        blocks.append(part(content, position + 1, length))
        position += 1 + length
    return blocks, position + 1


def _joined(blocks: list[bytes]) -> bytes:
    return b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def _loop(blocks: list[bytes]) -> bytes:
    """How often the animation runs, the only thing that this extension is known for."""
    if len(blocks) < 2 or len(blocks[1]) < 3 or blocks[1][0] != 1:
        raise UnusableImageError("its structure is damaged: how often the animation runs")
    return b"!\xff" + _joined([_LOOPING, blocks[1][:3]])


def _image(content: bytes, position: int) -> tuple[bytes, int]:
    head = part(content, position, _IMAGE_SIZE)
    width, height = struct.unpack_from("<HH", head, 5)
    data_start = position + _IMAGE_SIZE + _palette_size(head[9]) + 1
    start = part(content, position, data_start - position)
    blocks, end = _blocks(content, data_start)
    length = _lzw_length(b"".join(blocks), start[-1], width * height)
    kept = []
    for block in blocks:
        if length <= 0:
            break
        kept.append(block[:length])
        length -= len(block)
    return start + _joined(kept), end


# Compressed pixels -------------------------------------------------------------------------------


def _lzw_length(data: bytes, bits: int, n_pixels: int) -> int:
    """How many bytes the codes of so many pixels take, with the end code if it follows.

    Which code stands for how many pixels is known without looking at a colour (GIF89a, appendix F).
    """
    if not 1 <= bits < _MAX_CODE_BITS or not n_pixels:
        raise UnusableImageError("its structure is damaged: a frame without pixels")
    clear, end = 1 << bits, (1 << bits) + 1
    lengths, last, n_seen, complete_at = [1] * clear + [0, 0], 0, 0, 0
    for codes, start, width in _runs(data, bits):
        for i, code in enumerate(codes, start=1):
            if complete_at:
                return (start + i * width + 7) // 8 if code == end else complete_at
            if code == clear:
                lengths, last = [1] * clear + [0, 0], 0
                continue
            if last and len(lengths) < _TABLE_SIZE:
                lengths.append(last + 1)  # a code may be the one that its own reading defines
            last = lengths[code] if code < len(lengths) else 0
            if not last:
                raise UnusableImageError("its structure is damaged: pixels of a frame")
            n_seen += last
            if n_seen >= n_pixels:
                complete_at = (start + i * width + 7) // 8
    if not complete_at:
        raise UnusableImageError("its structure is damaged: fewer pixels than a frame has")
    return complete_at


def _runs(data: bytes, bits: int) -> Iterator[tuple[list[int], int, int]]:
    """Codes of the same width, with the bit where they begin, and the width.

    A code's width follows from how many came since the table was cleared, so a run of them is unpacked at
    once: up to the next width, or to the next code that clears. Runs begin short, as a file of nothing but
    codes that clear would have all behind them unpacked in vain.
    """
    clear = 1 << bits
    position, n_entries, width, at_once = 0, clear + 1, bits + 1, _SHORT_RUN
    n_bits = 8 * len(data)
    while position + width <= n_bits:
        n_codes = min(at_once, (n_bits - position) // width)
        if width < _MAX_CODE_BITS:
            n_codes = min(n_codes, (1 << width) - n_entries)
        first, last = position // 8, -(-(position + n_codes * width) // 8)
        unpacked = np.unpackbits(np.frombuffer(data[first:last], np.uint8), bitorder="little")
        rows = unpacked[position - 8 * first :][: n_codes * width].reshape(n_codes, width)
        codes = (rows @ (1 << np.arange(width))).tolist()
        if clear in codes:
            del codes[codes.index(clear) + 1 :]
        yield codes, position, width
        position += len(codes) * width
        if codes[-1] == clear:
            n_entries, width, at_once = clear + 1, bits + 1, _SHORT_RUN
            continue
        n_entries, at_once = n_entries + n_codes, min(2 * at_once, _TABLE_SIZE)
        if n_entries == 1 << width and width < _MAX_CODE_BITS:
            width += 1
