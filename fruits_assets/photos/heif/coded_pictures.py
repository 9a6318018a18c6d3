"""What is known of HEVC and AV1 pictures without decoding them: the units they consist of, and their size.

Units that no decoder needs for a picture (messages, fillers, whatever is not known) can hold any text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.photos.heif.boxes import Reader

# ITU-T H.265, table 7-1.
_HEVC_SLICES = {*range(10), *range(16, 22)}
_HEVC_SPS = 33
_HEVC_PARAMETERS = {32, _HEVC_SPS, 34}
# AV1 bitstream specification, section 6.2.2.
_AV1_SEQUENCE, _AV1_DELIMITER = 1, 2
_AV1_PICTURE = {_AV1_SEQUENCE, _AV1_DELIMITER, 3, 4, 6, 7}


class HevcConfiguration(NamedTuple):
    payload: bytes
    """Of an `hvcC` box with parameter sets and nothing else."""
    length_bytes: int
    """How many bytes the length of a unit takes in the items."""
    parameter_sets: tuple[bytes, ...]


class Size(NamedTuple):
    width: int
    height: int
    bit_depth: int = 8


class _Unit(NamedTuple):
    kind: int
    content: memoryview
    """With its header and length."""
    payload: memoryview


def hevc_configuration(payload: memoryview) -> HevcConfiguration:
    """Read an `hvcC` box (ISO/IEC 14496-15, 8.3.3.1)."""
    reader = Reader(payload, "hvcC")
    head = bytes(reader.take(22))
    if head[0] != 1:
        raise UnusableImageError(f"HEVC configuration of version {head[0]}, not 1")
    arrays, sets = [], []
    for _ in range(reader.number(1)):
        kind = reader.number(1)
        units = []
        for _ in range(reader.number(2)):
            length = reader.take(2)
            unit = bytes(reader.take(int.from_bytes(length, "big")))
            if len(unit) > 2 and unit[0] >> 1 & 63 == kind & 63 in _HEVC_PARAMETERS and _layer(unit) == 0:
                units.append(bytes(length) + unit)
                sets.append(unit)
        if units:
            arrays.append(bytes([kind & 0xBF]) + len(units).to_bytes(2, "big") + b"".join(units))
    cleaned = head + bytes([len(arrays)]) + b"".join(arrays)
    return HevcConfiguration(cleaned, (head[21] & 3) + 1, tuple(sets))


def hevc_picture(extents: tuple[memoryview, ...], length_bytes: int) -> bytes:
    """The slices of an `hvc1` item, and parameter sets should it have any, byte for byte.

    Raises:
        UnusableImageError: it does not consist of units, or of more than one picture.
    """
    kept: list[memoryview] = []
    n_pictures = 0
    for kind, content, payload in _hevc_units(_joined(extents), length_bytes):
        if kind in _HEVC_SLICES:
            n_pictures += payload[2] >> 7  # first_slice_segment_in_pic_flag
        elif kind not in _HEVC_PARAMETERS:
            continue
        kept.append(content)
    if n_pictures != 1:
        raise UnusableImageError(f"damaged image: {n_pictures} HEVC pictures in one item")
    return b"".join(kept)


def hevc_sizes(parameter_sets: tuple[bytes, ...]) -> Iterator[Size]:
    """How large the pictures are that a decoder makes room for."""
    for unit in parameter_sets:
        if unit[0] >> 1 & 63 == _HEVC_SPS:
            yield _hevc_size(unit)


def hevc_parameters_within(extents: tuple[memoryview, ...], length_bytes: int) -> tuple[bytes, ...]:
    """Parameter sets in an `hvc1` item; the standard has them in `hvcC` alone, decoders take them anyway."""
    units = _hevc_units(_joined(extents), length_bytes)
    return tuple(bytes(payload) for kind, _, payload in units if kind in _HEVC_PARAMETERS)


def av1_configuration(payload: memoryview) -> bytes:
    """An `av1C` box (AV1 Codec ISO Media File Format Binding, 2.3.3), of units only sequence headers."""
    reader = Reader(payload, "av1C")
    head = bytes(reader.take(4))
    if head[0] != 0x81:
        raise UnusableImageError(f"AV1 configuration of version {head[0] & 127}, not 1")
    units = _av1_units(reader.take(reader.left))
    return head + b"".join(content for kind, content, _ in units if kind == _AV1_SEQUENCE)


def av1_picture(extents: tuple[memoryview, ...]) -> bytes:
    """The frames of an `av01` item with their headers, byte for byte.

    Raises:
        UnusableImageError: it does not consist of units, or of more than one picture.
    """
    units = [unit for unit in _av1_units(_joined(extents)) if unit.kind in _AV1_PICTURE]
    if sum(unit.kind == _AV1_DELIMITER for unit in units) > 1:
        raise UnusableImageError("damaged image: more than one AV1 picture in one item")
    if not units:
        raise UnusableImageError("damaged image: no AV1 picture in its item")
    return b"".join(unit.content for unit in units)


def av1_sizes(extents: tuple[memoryview, ...], configuration: memoryview) -> Iterator[Size]:
    """How large the frames are that a decoder makes room for; their depth is that of the `av1C` box."""
    has_high_bit_depth = bool(configuration[2] & 0x40)
    for kind, _, payload in _av1_units(_joined(extents)):
        if kind == _AV1_SEQUENCE:
            yield Size(*_av1_size(payload), bit_depth=10 if has_high_bit_depth else 8)


def _joined(extents: tuple[memoryview, ...]) -> memoryview:
    return extents[0] if len(extents) == 1 else memoryview(b"".join(extents))


def _layer(unit: bytes | memoryview) -> int:
    return (unit[0] & 1) << 5 | unit[1] >> 3


def _hevc_units(data: memoryview, length_bytes: int) -> Iterator[_Unit]:
    """Those of the base layer; the others are other views or depths, which no decoder here shows."""
    reader = Reader(data, "HEVC picture")
    while reader.left:
        length = reader.take(length_bytes)
        payload = reader.take(int.from_bytes(length, "big"))
        if len(payload) < 3:
            raise UnusableImageError(f"damaged image: HEVC unit of {len(payload)} bytes")
        if _layer(payload) == 0:
            start = len(data) - reader.left - len(payload) - length_bytes
            yield _Unit(payload[0] >> 1 & 63, data[start : len(data) - reader.left], payload)


def _av1_units(data: memoryview) -> Iterator[_Unit]:
    """AV1 bitstream specification, sections 5.3.1 to 5.3.3."""
    reader = Reader(data, "AV1 picture")
    while reader.left:
        start = len(data) - reader.left
        header = reader.number(1)
        if header & 0x80:
            raise UnusableImageError("damaged image: AV1 unit with its forbidden bit set")
        if header & 4:
            reader.take(1)
        payload = reader.take(_leb128(reader) if header & 2 else reader.left)
        yield _Unit(header >> 3 & 15, data[start : len(data) - reader.left], payload)


def _leb128(reader: Reader) -> int:
    value = 0
    for i in range(8):
        byte = reader.number(1)
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value
    raise UnusableImageError("damaged image: AV1 unit whose size does not end")


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def u(self, n_bits: int) -> int:
        if n_bits > self._left:
            raise UnusableImageError("damaged image: its picture parameters end too early")
        self._left -= n_bits
        return self._value >> self._left & (1 << n_bits) - 1

    def ue(self) -> int:
        """Exponential Golomb code (H.265, 9.2), which is also AV1's `uvlc`."""
        n_zeros = 0
        while self.u(1) == 0:
            n_zeros += 1
        return (1 << n_zeros) - 1 + self.u(n_zeros)


_SIZE_IS_WITHIN = 512
"""Bytes of a header in front of its size, at the most."""


def _hevc_size(unit: bytes) -> Size:
    """H.265, 7.3.2.2.1 and 7.3.3, up to the bit depths; the size is that of luma, before cropping."""
    bits = _Bits(unit[2:_SIZE_IS_WITHIN].replace(b"\0\0\3", b"\0\0"))
    bits.u(4)
    n_sub_layers = bits.u(3)
    bits.u(1)
    bits.u(96)
    present = [(bits.u(1), bits.u(1)) for _ in range(n_sub_layers)]
    if n_sub_layers:
        bits.u(2 * (8 - n_sub_layers))
    for has_profile, has_level in present:
        bits.u(88 * has_profile + 8 * has_level)
    bits.ue()
    if bits.ue() == 3:
        bits.u(1)
    width, height = bits.ue(), bits.ue()
    if bits.u(1):  # conformance window
        for _ in range(4):
            bits.ue()
    return Size(width, height, 8 + max(bits.ue(), bits.ue()))


def _av1_size(header: memoryview) -> tuple[int, int]:
    """AV1 bitstream specification, section 5.5.1, up to the largest size of a frame."""
    bits = _Bits(bytes(header[:_SIZE_IS_WITHIN]))
    bits.u(3)
    bits.u(1)
    if bits.u(1):  # reduced_still_picture_header
        bits.u(5)
    else:
        n_delay_bits = 0
        if bits.u(1):  # timing_info
            bits.u(64)
            if bits.u(1):
                bits.ue()
            if bits.u(1):  # decoder_model_info
                n_delay_bits = bits.u(5) + 1
                bits.u(42)
        has_display_delay = bits.u(1)
        for _ in range(bits.u(5) + 1):  # operating points
            bits.u(12)
            if bits.u(5) > 7:
                bits.u(1)
            if n_delay_bits and bits.u(1):
                bits.u(2 * n_delay_bits + 1)
            if has_display_delay and bits.u(1):
                bits.u(4)
    n_width_bits, n_height_bits = bits.u(4) + 1, bits.u(4) + 1
    return bits.u(n_width_bits) + 1, bits.u(n_height_bits) + 1
