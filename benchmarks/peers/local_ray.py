"""Ray on this machine alone, for as long as a script needs it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import ray


@contextmanager
def local_ray() -> Iterator[None]:
    """Start Ray without what nobody looks at, and end it.

    It is reachable from this machine only, given RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 from the start.
    """
    with tempfile.TemporaryDirectory(prefix="ray_") as folder:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        try:
            yield
        finally:
            ray.shutdown()
