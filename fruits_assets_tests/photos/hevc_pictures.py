"""Lossless HEVC pictures: a still picture whose samples are stored as they are (I_PCM).

No free HEVC encoder may come with these tests, and none is needed: ITU-T H.265 allows a coding unit to
carry its samples uncoded. What is left to code per unit are three flags, and since the arithmetic coder
starts anew behind each unit, they always come out as two bytes.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNIT = 32  # the largest coding unit that may be I_PCM
LENGTH_BYTES = 4
_UNITS_PER_SLICE = 4096  # libde265 takes no NAL unit of more than about 16 MB

_VPS, _SPS, _PPS, _IDR_N_LP = 32, 33, 34, 20
# H.265, table 9-46, column 3 (the coder's range is still above 448 when `part_mode` is coded), by state.
_RANGE_LPS = (
    *(240, 227, 216, 205, 195, 185, 175, 166, 158, 150, 142, 135, 128, 122, 116, 110, 104, 99, 94, 89, 85),
    *(80, 76, 72, 69, 65, 62, 59, 56, 53, 50, 48, 45, 43, 41, 39, 37, 35, 33, 31, 30, 28, 27, 25, 24, 23),
    *(22, 21, 20, 19, 18, 17, 16, 15, 14, 14, 13, 12, 12, 11, 11, 10, 9),
)


@dataclass(frozen=True)
class HevcPicture:
    """One coded picture: what goes into its item, and into the `hvcC` property next to it."""

    width: int
    height: int
    n_channels: int
    bit_depth: int
    slice_units: bytes
    """NAL units, each behind its length in four bytes."""
    parameter_sets: tuple[tuple[int, bytes], ...]
    """Kind and NAL unit of VPS, SPS and PPS."""

    def configuration(self, *more: tuple[int, bytes]) -> bytes:
        """The payload of `hvcC` (ISO/IEC 14496-15, 8.3.3.1), with further NAL units if given."""
        sets = (*self.parameter_sets, *more)
        profile = 1 if self.n_channels == 3 and self.bit_depth == 8 else 2 if self.n_channels == 3 else 4
        chroma = 1 if self.n_channels == 3 else 0
        payload = bytes([1, profile]) + struct.pack(">I", 1 << (31 - profile)) + b"\x90" + bytes(5)
        payload += bytes([_LEVEL]) + b"\xf0\0\xfc" + bytes([0xFC | chroma])
        payload += bytes([0xF8 | (self.bit_depth - 8)] * 2) + b"\0\0"
        payload += bytes([1 << 3 | 1 << 2 | (LENGTH_BYTES - 1), len(sets)])
        for kind, unit in sets:
            payload += bytes([0x80 | kind]) + struct.pack(">HH", 1, len(unit)) + unit
        return payload


_LEVEL = 183  # 6.1, in thirtieths: large enough for any picture of the tests


def hevc_picture(
    luma: NDArray[np.integer],
    chroma: tuple[NDArray[np.integer], NDArray[np.integer]] | None = None,
    *,
    bit_depth: int = 8,
) -> HevcPicture:
    """Code a picture without loss: YCbCr 4:2:0, or grey where there is no chroma.

    Args:
        luma: shape (height, width), 0 to 2**bit_depth - 1; both even where there is chroma.
        chroma: Cb and Cr, shape (height / 2, width / 2) each.
    """
    height, width = luma.shape
    rows, columns = -(-height // UNIT), -(-width // UNIT)
    planes = [_by_unit(luma, rows, columns, UNIT)]
    if chroma is not None:
        planes += [_by_unit(plane, rows, columns, UNIT // 2) for plane in chroma]
    samples = np.concatenate(planes, axis=1)
    if bit_depth == 8:
        data = samples.astype(np.uint8)
    else:
        bits = np.unpackbits(samples.astype(">u2").view(np.uint8).reshape(*samples.shape, 2), axis=2)
        data = np.packbits(bits[:, :, 16 - bit_depth :].reshape(len(samples), -1), axis=1)
    n_channels = 1 if chroma is None else 3
    return HevcPicture(
        width,
        height,
        n_channels,
        bit_depth,
        b"".join(
            with_length(_nal_unit(_IDR_N_LP, _slice(data[i : i + _UNITS_PER_SLICE], i, len(data))))
            for i in range(0, len(data), _UNITS_PER_SLICE)
        ),
        (
            (_VPS, _nal_unit(_VPS, _video_parameters(n_channels, bit_depth))),
            (_SPS, _nal_unit(_SPS, _sequence_parameters(width, height, n_channels, bit_depth))),
            (_PPS, _nal_unit(_PPS, _picture_parameters())),
        ),
    )


def sei_unit(user_data: bytes) -> tuple[int, bytes]:
    """Kind and NAL unit of a message that says what its writer likes to say (H.265, D.2.7)."""
    return 39, _nal_unit(39, bytes([5, 16 + len(user_data)]) + bytes(range(1, 17)) + user_data + b"\x80")


def with_length(unit: bytes) -> bytes:
    """A NAL unit as it lies in an item."""
    return struct.pack(">I", len(unit)) + unit


def _slice(units: NDArray[np.uint8], first: int, n_units: int) -> bytes:
    """The units of a slice, shape (n, n_bytes), as the payload of a NAL unit."""
    flags = np.array([_flags(i) for i in range(len(_RANGE_LPS))], np.uint8)
    flags = flags[np.minimum(np.arange(len(units)), len(flags) - 1)]
    end_of_slice = b"\xfe\x80"  # one terminating bin in a new coder; its last bit is the stop bit
    return _slice_header(first, n_units) + np.concatenate([flags, units], axis=1).tobytes() + end_of_slice


def _flags(i: int) -> tuple[int, int]:
    """`end_of_slice_segment_flag` 0 (behind the first unit), `part_mode` 2Nx2N and `pcm_flag` 1.

    9.3.4.4: nothing is put out before the flush, so the coder's ten bits `low` are the code, less the
    first (never written) and with the last one set; then zeros up to the next byte.
    """
    coder_range = 510 if i == 0 else 508
    low = coder_range - _RANGE_LPS[i] - 2
    return low >> 1, 0x80


def _by_unit(plane: NDArray[np.integer], rows: int, columns: int, unit: int) -> NDArray[np.integer]:
    """Samples unit by unit, shape (rows * columns, unit * unit); beyond the picture its edge repeats."""
    height, width = plane.shape
    padded = np.pad(plane, ((0, rows * unit - height), (0, columns * unit - width)), "edge")
    return padded.reshape(rows, unit, columns, unit).swapaxes(1, 2).reshape(rows * columns, unit * unit)


class _Bits:
    def __init__(self) -> None:
        self.text = ""

    def u(self, n_bits: int, *values: int) -> None:
        for value in values:
            self.text += f"{value:0{n_bits}b}"

    def ue(self, *values: int) -> None:
        """Exponential Golomb code, 9.2."""
        for value in values:
            code = f"{value + 1:b}"
            self.text += "0" * (len(code) - 1) + code

    def with_stop_bit(self) -> bytes:
        text = self.text + "1"
        text += "0" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big")


def _nal_unit(kind: int, payload: bytes) -> bytes:
    """7.3.1, with the bytes that keep start codes from turning up in it."""
    return bytes([kind << 1, 1]) + re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", payload)


def _profile_tier_level(bits: _Bits, n_channels: int, bit_depth: int) -> None:
    profile = 4 if n_channels == 1 else 1 if bit_depth == 8 else 2
    bits.u(8, profile)
    bits.u(1, *(int(i == profile) for i in range(32)))
    bits.u(1, 1, 0, 0, 1)  # progressive; frames only
    bits.u(43, 0)
    bits.u(1, 0)
    bits.u(8, _LEVEL)


def _video_parameters(n_channels: int, bit_depth: int) -> bytes:
    """7.3.2.1."""
    bits = _Bits()
    bits.u(4, 0)
    bits.u(2, 3)
    bits.u(6, 0)
    bits.u(3, 0)
    bits.u(1, 1)
    bits.u(16, 0xFFFF)
    _profile_tier_level(bits, n_channels, bit_depth)
    bits.u(1, 1)
    bits.ue(0, 0, 0)  # one picture in the buffer
    bits.u(6, 0)
    bits.ue(0)
    bits.u(1, 0, 0)
    return bits.with_stop_bit()


def _sequence_parameters(width: int, height: int, n_channels: int, bit_depth: int) -> bytes:
    """7.3.2.2."""
    bits = _Bits()
    bits.u(4, 0)
    bits.u(3, 0)
    bits.u(1, 1)
    _profile_tier_level(bits, n_channels, bit_depth)
    bits.ue(0)
    subsampling = 2 if n_channels == 3 else 1
    bits.ue(1 if n_channels == 3 else 0)
    right, bottom = -width % UNIT, -height % UNIT
    bits.ue(width + right, height + bottom)
    bits.u(1, int(bool(right or bottom)))
    if right or bottom:
        bits.ue(0, right // subsampling, 0, bottom // subsampling)
    bits.ue(bit_depth - 8, bit_depth - 8)
    bits.ue(0)
    bits.u(1, 1)
    bits.ue(0, 0, 0)
    bits.ue(2, 0)  # coding units of 32, never divided
    bits.ue(0, 3)  # transforms of 4 to 32, never used
    bits.ue(0, 0)
    bits.u(1, 0, 0, 0)  # scaling lists, asymmetric partitions, sample adaptive offset
    bits.u(1, 1)  # I_PCM
    bits.u(4, bit_depth - 1, bit_depth - 1)
    bits.ue(2, 0)
    bits.u(1, 1)  # which no loop filter touches
    bits.ue(0)
    bits.u(1, 0, 0, 0, 0, 0)
    return bits.with_stop_bit()


def _picture_parameters() -> bytes:
    """7.3.2.3."""
    bits = _Bits()
    bits.ue(0, 0)
    bits.u(1, 0, 0)
    bits.u(3, 0)
    bits.u(1, 0, 0)
    bits.ue(0, 0, 0)  # the last: init_qp_minus26, a signed number
    bits.u(1, 0, 0, 0)
    bits.ue(0, 0)
    bits.u(1, 0, 0, 0, 0, 0, 0)
    bits.u(1, 0)  # no loop filter across slices
    bits.u(1, 1, 0, 1)  # deblocking: controlled here, not in slices, off
    bits.u(1, 0, 0)
    bits.ue(0)
    bits.u(1, 0, 0)
    return bits.with_stop_bit()


def _slice_header(first: int, n_units: int) -> bytes:
    """7.3.6.1, up to the byte alignment."""
    bits = _Bits()
    bits.u(1, int(first == 0), 0)
    bits.ue(0)
    if first:
        bits.u((n_units - 1).bit_length(), first)
    bits.ue(2, 0)  # an I slice; quantisation as it is
    return bits.with_stop_bit()
