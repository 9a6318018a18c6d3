"""ICC profiles put together byte by byte, and full of what nobody should read."""

from __future__ import annotations

import struct

import numpy as np

OWNER = b"JaneDoe"
# Columns of Display P3 and its white point, adapted to D50.
_P3 = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.15710, 0.06657, 0.78407),
    b"wtpt": (0.96420, 1.0, 0.82491),
}
_CHAD = (1.04788, 0.02292, -0.05022, 0.02959, 0.99048, -0.01707, -0.00925, 0.01508, 0.75168)


def packed(
    profile_class: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes], major: int
) -> bytes:
    """A profile with the owner's name in every header field that takes one, in gaps and behind the end."""
    header = OWNER[:4] + bytes([major, 0x20, 0, 0]) + profile_class + space + connection
    header += (
        struct.pack(">6H", 2024, 5, 17, 12, 30, 1) + b"acsp" + b"APPL" + bytes(4) + b"JaneDoe " + bytes(8)
    )
    header += (
        bytes(4) + bytes.fromhex("0000f6d6000100000000d32d") + b"Jane" + OWNER.ljust(16) + OWNER.ljust(28)
    )
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(data), len(content))
        data += content + bytes(-len(content) % 4) + b"JaneDoe\0"
    return struct.pack(">I", start + len(data)) + header + table + data


def names(major: int) -> dict[bytes, bytes]:
    """Every tag that is text, and a private one."""
    long_text = OWNER + b" iMac"
    described = b"desc\0\0\0\0" + struct.pack(">I", len(long_text) + 1) + long_text + b"\0" + bytes(8)
    described += b"\0\0\x0c" + OWNER.ljust(67, b"\0")
    if major >= 4:
        utf16 = "JaneDoe iMac".encode("utf-16-be")
        records = struct.pack(">II", 2, 12) + b"enUS" + struct.pack(">II", len(utf16), 40)
        described = b"mluc\0\0\0\0" + records + b"deDE" + struct.pack(">II", len(utf16), 40) + utf16
    text = b"text\0\0\0\0" + OWNER + b"\0"
    descriptions = dict.fromkeys((b"desc", b"dmnd", b"dmdd", b"vued", b"dscm"), described)
    return {**descriptions, b"cprt": text, b"mmod": text, b"targ": text, b"Jane": b"Jane" + OWNER}


def curve(gamma: float, n_points: int = 1024) -> bytes:
    values = (np.linspace(0, 1, n_points) ** gamma * 65535).round().astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", n_points) + values.tobytes()


def xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _fixed(values: tuple[float, ...]) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def display_p3(major: int = 4) -> bytes:
    """A matrix with parametric curves (version 4) or tables (version 2)."""
    parametric = (
        b"para\0\0\0\0" + struct.pack(">HH", 3, 0x4A61) + _fixed((2.4, 0.94787, 0.05213, 0.0774, 0.04045))
    )
    colours = {name: xyz(values) + OWNER for name, values in _P3.items()}
    colours[b"chad"] = b"sf32\0\0\0\0" + _fixed(_CHAD)
    colours |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), (parametric if major >= 4 else curve(2.2)) + OWNER)
    return packed(b"mntr", b"RGB ", b"XYZ ", names(major) | colours, major)


def grey(gamma: float = 1.8) -> bytes:
    tags = names(2) | {b"wtpt": xyz(_P3[b"wtpt"]), b"kTRC": curve(gamma)}
    return packed(b"mntr", b"GRAY", b"XYZ ", tags, 2)


def cmyk(kind: bytes = b"mft2") -> bytes:
    """A printer's profile: a table from CMYK to Lab and one back, some colours or other."""
    rng = np.random.default_rng(0)
    tags = names(2) | {b"wtpt": xyz(_P3[b"wtpt"])}
    for name, n_in, n_out, n_grid in ((b"A2B0", 4, 3, 5), (b"B2A0", 3, 4, 5)):
        identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
        head = kind + b"Jane" + bytes([n_in, n_out, n_grid, 0x4A]) + identity
        n_values = n_grid**n_in * n_out
        if kind == b"mft1":
            ramp = bytes(range(256))
            table = ramp * n_in + rng.integers(0, 256, n_values, np.uint8).tobytes() + ramp * n_out
        else:
            ramp = np.linspace(0, 65535, 2).astype(">u2").tobytes()
            values = rng.integers(0, 65280, n_values).astype(">u2").tobytes()
            table = struct.pack(">HH", 2, 2) + ramp * n_in + values + ramp * n_out
        tags[name] = head + table + OWNER
    return packed(b"prtr", b"CMYK", b"Lab ", tags, 2)


def elements() -> bytes:
    """A version 4 profile of curves, a matrix and a table that are pointed to, with gaps between them."""
    rng = np.random.default_rng(1)
    straight = b"para\0\0\0\0" + struct.pack(">HH", 0, 0) + _fixed((1.0,))
    curves = {"b": straight * 3, "m": straight * 3, "a": straight * 3}
    matrix = _fixed((1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0, 0, 0, 0))
    grid = bytes([3, 3, 3]).ljust(16, b"\0") + b"\2Jan" + rng.integers(0, 65536, 81).astype(">u2").tobytes()
    grid += bytes(-len(grid) % 4)
    places, data = [], b""
    for element in (curves["b"], matrix, curves["m"], grid, curves["a"]):
        data += b"JaneDoe\0"
        places.append(32 + len(data))
        data += element
    table = b"mAB Jane" + bytes([3, 3]) + b"Ja" + struct.pack(">5I", *places) + data
    tags = names(4) | {b"wtpt": xyz(_P3[b"wtpt"]), b"A2B0": table}
    return packed(b"scnr", b"RGB ", b"Lab ", tags, 4)


def large() -> bytes:
    """More than fits one JPEG segment: curves of many points."""
    colours = {name: xyz(values) for name, values in _P3.items()}
    curves = {name: curve(gamma, 12_000) for name, gamma in ((b"rTRC", 2.0), (b"gTRC", 2.2), (b"bTRC", 2.4))}
    return packed(b"mntr", b"RGB ", b"XYZ ", names(2) | colours | curves, 2)
