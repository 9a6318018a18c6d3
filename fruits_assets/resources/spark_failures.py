"""What a failure of Spark means for a person: the thing, the cause and the way out."""

from __future__ import annotations

import errno
import re
import subprocess
from typing import Any

_MEMORY = (
    "The usual reason is memory: the system ends the largest process when it runs out. Close other programs, "
    "use fewer cores (FRUITS_SPARK_MASTER=local[2]), or a machine with more."
)
# The last of these when it dies before it has said anything.
_WORKER_GONE = (
    "Python worker exited unexpectedly",
    "Python worker process terminated",
    "PythonWorkerFactory.createWorker",
)
# An exception of ours as the last line of a worker's traceback, somewhere inside Spark's own words.
_OURS = re.compile(
    r"^(?:fruits_assets[\w.]*\.)(DamagedFileError|StageInputError|UnusableImageError): (.*)$", re.MULTILINE
)


class StageFailedError(RuntimeError):
    """Spark could not do its work; the message says why, and what to do."""


def explained(error: BaseException, places: str) -> Exception | None:
    """The failure of a stage in words that lead on, or None where its own words do.

    Args:
        places: where files were being written.
    """
    if (status := _jvm_exit_status()) is not None:
        cause = f"was killed by signal {-status}" if status < 0 else f"has ended with status {status}"
        return StageFailedError(f"The Java process of Spark {cause}. {_MEMORY}")
    text = str(error)
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in text:
        return StageFailedError(
            f"The disk is full (No space left on device) at one of {places}. Free space there, or set "
            "FRUITS_LAKE and TMPDIR to places that have more."
        )
    if any(words in text for words in _WORKER_GONE):
        return StageFailedError(f"A Python worker of Spark was killed. {_MEMORY}")
    if ours := _OURS.search(text):
        return StageFailedError(ours[2])
    return None


def _jvm_exit_status() -> int | None:
    from pyspark import SparkContext

    process: Any = getattr(SparkContext._gateway, "proc", None)
    if process is None:
        return None
    try:
        # What it was talking to is gone a moment before it is.
        status: int | None = process.wait(0.2)
    except subprocess.TimeoutExpired:
        return None  # it is still there
    return status
