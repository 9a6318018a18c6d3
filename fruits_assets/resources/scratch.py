"""Where this process keeps temporary files: gone with it, and if it is killed, with the next one."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from fruits_assets.resources.locks import held, is_held

_PREFIX = f"fruits_assets-{os.getuid()}-"
_MARK = "in_use"
_one_at_a_time = threading.Lock()
_STARTS_WITHIN_S = 60.0  # a folder is made a moment before it is marked


def scratch_folder() -> Path:
    """A folder below the system's temporary one (TMPDIR); those of dead processes are removed first."""
    with _one_at_a_time:
        return _made()


@functools.cache
def _made() -> Path:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # In this order: a folder may be marked at any moment.
        if _is_old_or_marked(folder) and not is_held(folder / _MARK):
            shutil.rmtree(folder, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    marked = ExitStack()
    marked.enter_context(held(folder / _MARK))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(marked.close)
    return folder


def _is_old_or_marked(folder: Path) -> bool:
    try:
        return (folder / _MARK).exists() or time.time() - folder.stat().st_mtime > _STARTS_WITHIN_S
    except FileNotFoundError:
        return False
