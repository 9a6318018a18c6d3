"""Colour profiles reduced to what colours are computed from.

A profile names its device, its maker and often its owner ("iMac of Jane Doe"): in descriptions, in private
tags, and between tags. Sources: ICC.1:2022 (version 4), ICC.1:2001-04 (version 2).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from fruits_assets.photos.personal_metadata.parts import part

_HEADER_SIZE, _ENTRY_SIZE = 128, 12
_MAX_TAGS = 100  # LittleCMS' own limit
_MAX_MAJOR_VERSION = 4
_CLASSES = {b"scnr", b"mntr", b"prtr", b"spac"}
_CHANNELS = {b"GRAY": 1, b"RGB ": 3, b"Lab ": 3, b"XYZ ": 3, b"YCbr": 3, b"CMYK": 4}
_SPACES_OF_CONNECTION = {b"XYZ ", b"Lab "}
# ICC.1:2022, 7.2.16: no other illuminant is allowed.
_D50 = bytes.fromhex("0000f6d6000100000000d32d")
# LittleCMS refuses a date that no calendar has.
_DATE = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
_STANDARD_NAMES = {
    *("sRGB", "sRGB IEC61966-2.1", "sRGB IEC61966-2-1", "sRGB built-in", "sRGB2014", "c2", "uRGB"),
    *("Display P3", "DCI(P3) RGB", "Adobe RGB (1998)", "ProPhoto RGB", "ROMM RGB: ISO 22028-2:2013"),
    *("Generic RGB Profile", "Generic Gray Profile", "Generic Gray Gamma 2.2 Profile", "Dot Gain 20%"),
    *("Gray Gamma 2.2", "Rec. ITU-R BT.709-5", "Rec. ITU-R BT.2020-1", "Apple RGB", "ColorMatch RGB"),
    *("U.S. Web Coated (SWOP) v2", "Coated FOGRA39 (ISO 12647-2:2004)", "ISO Coated v2 (ECI)"),
}
_NAMES_OF_SPACES = {b"GRAY": "Grey", b"RGB ": "RGB", b"CMYK": "CMYK"}
_NO_NOTICE = "Copyright notice removed"
_MAX_NAME = 4096


def neutral(profile: bytes) -> bytes | None:
    """The same colours without text, names, dates or gaps; None if it is no profile that says how.

    Standard names such as "sRGB IEC61966-2.1" stay, others become "RGB profile" and the like. A profile that
    has gone through here comes back unchanged.
    """
    try:
        return _neutral(profile)
    except (IndexError, ValueError, struct.error):
        return None


def _neutral(profile: bytes) -> bytes:
    size, version, space, connection = struct.unpack_from(">I4x4s4x4s4s", profile)
    profile_class = part(profile, 12, 4)
    is_known = (
        part(profile, 36, 4) == b"acsp"
        and profile_class in _CLASSES
        and space in _CHANNELS
        and connection in _SPACES_OF_CONNECTION
        and version[0] <= _MAX_MAJOR_VERSION
    )
    if not is_known:
        raise ValueError("no profile of a known kind")
    tags = _tags(profile[:size])
    colours = dict(_sound_colours(tags))
    if not any(colours.keys() >= needed for needed in _ENOUGH):
        raise ValueError("a profile without colours")
    text = {
        b"desc": _description(_name(tags.get(b"desc", b""), space), version[0]),
        b"cprt": _text(_NO_NOTICE, version[0]),
    }
    intent = min(struct.unpack_from(">I", profile, 64)[0], 3)
    header = b"\0\0\0\0" + version[:2] + b"\0\0" + profile_class + space + connection + _DATE + b"acsp"
    header += bytes(24) + struct.pack(">I", intent) + _D50
    return _packed(header.ljust(_HEADER_SIZE - 4, b"\0"), text | colours)


def _sound_colours(tags: dict[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
    """What can be read of the tags about colours; LittleCMS, too, takes what is damaged for absent."""
    for name, sound in _TAGS.items():
        try:
            if name in tags:
                yield name, sound(tags[name])
        except (IndexError, ValueError, struct.error):
            if name == b"A2B0":
                raise  # it is preferred to the others, and there is no colour where it cannot be read


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, _HEADER_SIZE)
    if count > _MAX_TAGS:
        raise ValueError(f"{count} tags")
    tags: dict[bytes, bytes] = {}
    for i in range(count):
        entry = part(profile, _HEADER_SIZE + 4 + i * _ENTRY_SIZE, _ENTRY_SIZE)
        name, start, length = struct.unpack(">4sII", entry)
        if not start or not length or start + length > len(profile):
            continue  # LittleCMS, too, passes over these
        if name in tags:
            raise ValueError(f"two tags {name!r}")
        tags[name] = profile[start : start + length]
    return tags


def _packed(header: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Tags with the same content share one copy of it, as the three curves of most profiles do."""
    table, data = struct.pack(">I", len(tags)), b""
    start = _HEADER_SIZE + 4 + len(tags) * _ENTRY_SIZE
    places: dict[bytes, int] = {}
    for name, content in tags.items():
        if content not in places:
            places[content] = start + len(data)
            data += _padded(content)
        table += struct.pack(">4sII", name, places[content], len(content))
    return struct.pack(">I", start + len(data)) + header + table + data


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)


# Text --------------------------------------------------------------------------------------------


def _name(description: bytes, space: bytes) -> str:
    """The profile's name if it is a standard one, which tells nothing about anybody."""
    name = ""
    if description.startswith(b"desc"):
        (length,) = struct.unpack_from(">I", description, 8)
        name = description[12 : 12 + min(length, _MAX_NAME)].decode("latin-1")
    elif description.startswith(b"mluc") and len(description) >= 28:
        length, start = struct.unpack_from(">II", description, 20)
        name = description[start : start + min(length, _MAX_NAME)].decode("utf-16-be", "replace")
    name = name.rstrip("\0")
    return name if name in _STANDARD_NAMES else f"{_NAMES_OF_SPACES.get(space, 'Colour')} profile"


def _description(name: str, major_version: int) -> bytes:
    if major_version >= 4:
        return _text(name, major_version)
    ascii_name = name.encode("ascii") + b"\0"
    # No Unicode and no Macintosh text, whose 67 bytes are there all the same.
    return b"desc\0\0\0\0" + struct.pack(">I", len(ascii_name)) + ascii_name + bytes(4 + 4 + 2 + 1 + 67)


def _text(text: str, major_version: int) -> bytes:
    if major_version >= 4:
        utf16 = text.encode("utf-16-be")
        return b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", len(utf16), 28) + utf16
    return b"text\0\0\0\0" + text.encode("ascii") + b"\0"


# Colours -----------------------------------------------------------------------------------------
# Every type is taken apart as far as its length follows from what it says, and all that is reserved is zero.


def _typed(data: bytes, length: int) -> bytes:
    return part(data, 0, 4) + bytes(4) + part(data, 8, length - 8)


def _xyz(data: bytes) -> bytes:
    _expect(data, b"XYZ ")
    return _typed(data, 20)


def _chromatic_adaptation(data: bytes) -> bytes:
    _expect(data, b"sf32")
    return _typed(data, 8 + 9 * 4)


def _curve(data: bytes) -> bytes:
    _expect(data, b"curv", b"para")
    if data[:4] == b"curv":
        (n_points,) = struct.unpack_from(">I", data, 8)
        return _typed(data, 12 + 2 * n_points)
    (function,) = struct.unpack_from(">H", data, 8)
    n_parameters = (1, 3, 4, 5, 7)[function]  # ICC.1:2022, table 68
    return b"para" + bytes(4) + part(data, 8, 2) + bytes(2) + part(data, 12, 4 * n_parameters)


def _table(data: bytes) -> bytes:
    _expect(data, b"mft1", b"mft2", b"mAB ", b"mBA ")
    if data[:4] in (b"mAB ", b"mBA "):
        return _elements(data)
    n_in, n_out, n_grid = part(data, 8, 3)
    n_colours = _n_colours([n_grid] * n_in, n_out)
    if data[:4] == b"mft1":
        length = 48 + 256 * n_in + n_colours + 256 * n_out
    else:
        entries_in, entries_out = struct.unpack_from(">HH", data, 48)
        length = 52 + 2 * (entries_in * n_in + n_colours + entries_out * n_out)
    # The byte behind the number of grid points is padding.
    return data[:4] + bytes(4) + part(data, 8, 3) + b"\0" + part(data, 12, length - 12)


def _elements(data: bytes) -> bytes:
    """Curves, a matrix and a table that are pointed to: ICC.1:2022, 10.12 and 10.13."""
    n_in, n_out = part(data, 8, 2)
    b, matrix, m, table, a = struct.unpack_from(">5I", data, 12)
    # Curves B are those on the side of the profile connection space.
    n_b, n_a = (n_out, n_in) if data[:4] == b"mAB " else (n_in, n_out)
    elements = [
        _curves(data, b, n_b) if b else b"",
        part(data, matrix, 12 * 4) if matrix else b"",
        _curves(data, m, n_b) if m else b"",
        _grid(data, table, n_in, n_out) if table else b"",
        _curves(data, a, n_a) if a else b"",
    ]
    places, rest = [], b""
    for element in elements:
        places.append(32 + len(rest) if element else 0)
        rest += _padded(element)
    return data[:4] + bytes(4) + bytes([n_in, n_out, 0, 0]) + struct.pack(">5I", *places) + rest


def _curves(data: bytes, start: int, count: int) -> bytes:
    curves = b""
    for _ in range(count):
        curve = _padded(_curve(data[start + len(curves) :]))
        curves += curve
    return curves


def _grid(data: bytes, start: int, n_in: int, n_out: int) -> bytes:
    n_points, precision = part(data, start, n_in), part(data, start + 16, 1)[0]
    if n_in > 16 or precision not in (1, 2):
        raise ValueError("no such table")
    values = part(data, start + 20, precision * _n_colours(list(n_points), n_out))
    return n_points.ljust(16, b"\0") + bytes([precision, 0, 0, 0]) + values


def _n_colours(n_points: list[int], n_out: int) -> int:
    n_colours = n_out
    for n in n_points:
        n_colours *= n
    return n_colours


def _expect(data: bytes, *types: bytes) -> None:
    if data[:4] not in types:
        raise ValueError(f"type {data[:4]!r}")


# In the order in which they are written. LittleCMS computes colours from these; floating-point tables
# ("D2B0" and its like), of which nothing here is made, say the same as the tables "A2B0".
_TAGS: dict[bytes, Callable[[bytes], bytes]] = {
    b"wtpt": _xyz,
    b"bkpt": _xyz,
    b"chad": _chromatic_adaptation,
    **dict.fromkeys((b"rXYZ", b"gXYZ", b"bXYZ"), _xyz),
    **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC", b"kTRC"), _curve),
    **dict.fromkeys((b"A2B0", b"A2B1", b"A2B2", b"B2A0", b"B2A1", b"B2A2"), _table),
}
# One of these is needed.
_ENOUGH: tuple[set[bytes], ...] = (
    {b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC"},
    *({name} for name in (b"kTRC", b"A2B0", b"A2B1", b"A2B2")),
)
