"""What a failure of Spark means for a person: the thing, the cause and the way out."""

from __future__ import annotations

import errno
import re
from typing import Any

_MEMORY = (
    "The usual reason is memory: the system ends the largest process when it runs out. Close other programs, "
    "use fewer cores (FRUITS_SPARK_MASTER=local[2]), or a machine with more."
)
# An exception of ours as the last line of a worker's traceback, somewhere inside Spark's own words.
_OURS = re.compile(
    r"^(?:fruits_assets[\w.]*\.)(DamagedFileError|StageInputError|UnusableImageError): (.*)$", re.MULTILINE
)


class StageFailedError(RuntimeError):
    """Spark could not do its work; the message says why, and what to do."""


def explained(error: BaseException, spark: Any, places: str) -> Exception | None:
    """The failure of a stage in words that lead on, or None where its own words do.

    Args:
        spark: the session.
        places: where files were being written.
    """
    if (status := _jvm_exit_status(spark)) is not None:
        cause = f"was killed by signal {-status}" if status < 0 else f"has ended with status {status}"
        return StageFailedError(f"The Java process of Spark {cause}. {_MEMORY}")
    text = str(error)
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in text:
        return StageFailedError(
            f"The disk is full (No space left on device) at one of {places}. Free space there, or set "
            "FRUITS_LAKE and TMPDIR to places that have more."
        )
    if "Python worker exited unexpectedly" in text or "Python worker process terminated" in text:
        return StageFailedError(f"A Python worker of Spark was killed. {_MEMORY}")
    if ours := _OURS.search(text):
        return StageFailedError(ours[2])
    return None


def _jvm_exit_status(spark: Any) -> int | None:
    process = getattr(spark.sparkContext._gateway, "proc", None)
    if process is None:
        return None
    try:
        # What it was talking to is gone a moment before it is.
        status: int | None = process.wait(0.2)
    except Exception:  # still there: subprocess.TimeoutExpired
        return None
    return status
