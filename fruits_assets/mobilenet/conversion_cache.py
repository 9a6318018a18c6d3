"""Converted networks: that of the demo comes with this package, others are kept for this user's next lake."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from fruits_assets.mobilenet import convert
from fruits_assets.mobilenet.convert import REPORT, ConversionReport, convert_in_own_process
from fruits_assets.mobilenet.extractor import FLATBUFFER
from fruits_assets.mobilenet.weights import WeightsError, is_bundled

# Made by `python -m fruits_assets.mobilenet.convert demo fruits_assets/mobilenet/demo_network`.
BUNDLED = Path(__file__).with_name("demo_network")
_KEPT = 4  # of 9 MB each


def cache_folder() -> Path:
    """Where they are: below XDG_CACHE_HOME, which is ~/.cache unless it is set."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "fruits_assets" / "flatbuffers"


def converted(identity: Mapping[str, str], folder: Path, log: Callable[[str], None]) -> ConversionReport:
    """The flatbuffer of some weights and its report in `folder`.

    It is the bundled one, or from the cache, or converted and put there.

    Args:
        identity: what decides which flatbuffer the source becomes, see `weights.identity`.

    Raises:
        WeightsError: the bundled one is damaged; and see `convert.convert`.
        ConversionError: see `convert.convert`.
    """
    source, precision = identity["source"], identity["precision"]
    if is_bundled(source, precision):
        if (report := _taken(BUNDLED, folder)) is None:
            raise WeightsError(f"The bundled network {BUNDLED} is damaged. Install the package again.")
        return report
    code = Path(convert.__file__).read_bytes()
    key = hashlib.sha256(code + json.dumps(identity, sort_keys=True).encode()).hexdigest()
    place = cache_folder() / key[:32]
    if (report := _taken(place, folder)) is not None:
        log(f"these weights were converted before: {place}")
        os.utime(place)  # the oldest go
        return report
    report = convert_in_own_process(source, folder, log, precision)
    try:
        _put(folder, place)
    except OSError as error:
        log(f"the flatbuffer is not kept for other lakes: {error}")
    return report


def _taken(place: Path, folder: Path) -> ConversionReport | None:
    """Copy what is in the cache, unless it is not what was put there."""
    try:
        report = ConversionReport(**json.loads((place / REPORT).read_text()))
        flatbuffer = (place / FLATBUFFER).read_bytes()
    except (OSError, ValueError, TypeError):
        return None
    if hashlib.sha256(flatbuffer).hexdigest() != report.fingerprint:
        return None
    (folder / FLATBUFFER).write_bytes(flatbuffer)
    (folder / REPORT).write_text(json.dumps(asdict(report), indent=2))
    return report


def _put(folder: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    made = Path(tempfile.mkdtemp(dir=place.parent))
    try:
        for name in (FLATBUFFER, REPORT):
            shutil.copy(folder / name, made)
        os.replace(made, place)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    oldest_first = sorted(place.parent.iterdir(), key=lambda entry: entry.stat().st_mtime)
    for entry in oldest_first[:-_KEPT]:
        shutil.rmtree(entry, ignore_errors=True)
