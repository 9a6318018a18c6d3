"""A network that is converted before a run of the whole graph, so that its time does not depend on caches."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import matplotlib

from fruits_assets.mobilenet.conversion_cache import converted
from fruits_assets.mobilenet.extractor import FLATBUFFER
from fruits_assets.mobilenet.weights import FLOAT32, identity


@dataclass(frozen=True)
class ConvertedNetwork:
    """`variables`: the environment in which a run of the graph finds the conversion; `seconds`: it took."""

    flatbuffer: Path
    fingerprint: str
    variables: dict[str, str]
    seconds: float


def convert_for_runs(weights: str, scratch: Path) -> ConvertedNetwork:
    """Convert weights into a cache of its own below `scratch`, and not that of the user.

    Raises:
        WeightsError, ConversionError: see `convert.convert`.
    """
    folder, variables = scratch / "network", {"XDG_CACHE_HOME": str(scratch / "cache")}
    # Matplotlib would look there as well, and take seconds to list the fonts again.
    variables["MPLCONFIGDIR"] = matplotlib.get_cachedir()
    folder.mkdir()
    print("converting the network", flush=True)
    started = time.monotonic()
    with patch.dict("os.environ", variables):
        report = converted(identity(weights, FLOAT32), folder, lambda _: None)
    return ConvertedNetwork(folder / FLATBUFFER, report.fingerprint, variables, time.monotonic() - started)
