"""What goes wrong with clusters and steps, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

CLUSTER_PYTHON = "/opt/fruits/venv/bin/python"

_LOG_SHOWN = 4000  # characters


class EmrError(RuntimeError):
    """A cluster or step failed, or a setting is missing or wrong; the message says which and why."""


class ClusterGoneError(EmrError):
    """A cluster ended before a step on it began, which can therefore begin on another one."""


def reason(of: Mapping[str, Any]) -> str:
    """EMR's own words on the state of a cluster or step."""
    change = of["Status"].get("StateChangeReason", {})
    details = of["Status"].get("FailureDetails") or {}
    words = [change.get("Code"), change.get("Message"), details.get("Reason"), details.get("Message")]
    return ": ".join(filter(None, words)) or "EMR gives no reason"


def last_traceback(log: str) -> str:
    """From the last Python traceback on, or the end of a log without one."""
    start = log.rfind("Traceback (most recent call last)")
    return (log[start : start + _LOG_SHOWN] if start >= 0 else log[-_LOG_SHOWN:]).strip()


def hint(error: str) -> str:
    """What to do about the two faults that come from the cluster's own installation."""
    if found := re.search(r"No module named '([\w.]+)'", error):
        return (
            f"The cluster lacks the package {found[1]}: add it to bootstrap/requirements-emr.txt and upload "
            "that; the next run starts a cluster that has it."
        )
    if CLUSTER_PYTHON in error and re.search(r"No such file|Cannot run program", error):
        return f"The cluster lacks {CLUSTER_PYTHON}: it was started without bootstrap/bootstrap-emr.sh."
    return ""
