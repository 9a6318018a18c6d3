"""What all processes below this one take together while something runs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from measuring import cpu_seconds

from fruits_assets.resources.process_memory import memory_mb, process_tree

# To sum up the pages of a large process takes the kernel some milliseconds.
_POLL_S = 1.0
_STARTED = 18  # of the fields that `process_tree` gives: when the process was started


@dataclass
class Together:
    """Of all processes that were seen, once a second.

    `seconds`: wall time; `cpu_s`: CPU time; `cores_elsewhere`: cores that other programs kept busy meanwhile;
    `peak_mb`: the most that they held at once, pages that several share counted once.
    """

    seconds: float = 0.0
    peak_mb: float = 0.0
    cores_elsewhere: float = 0.0
    cpu_of_each_s: dict[tuple[int, str], float] = field(default_factory=dict)

    @property
    def cpu_s(self) -> float:
        """CPU time of all."""
        return sum(self.cpu_of_each_s.values())


@contextmanager
def watched_together() -> Iterator[Together]:
    """Watch what is started below this process meanwhile; what outlives that is killed."""
    together, finished = Together(), threading.Event()
    own = set(process_tree(os.getpid()))

    def look() -> None:
        while not finished.wait(_POLL_S):
            tree = {pid: stat for pid, stat in process_tree(os.getpid()).items() if pid not in own}
            # Each process its share of what several have: proportional set size.
            shares_mb = [memory_mb(pid, "smaps_rollup", "Pss:") for pid in tree]
            together.peak_mb = max(together.peak_mb, sum(shares_mb))
            together.cpu_of_each_s |= {(pid, stat[_STARTED]): _cpu_s(stat) for pid, stat in tree.items()}

    watch = threading.Thread(target=look, daemon=True)
    started, (_, machine_before) = time.monotonic(), cpu_seconds()
    watch.start()
    try:
        yield together
    finally:
        together.seconds = time.monotonic() - started
        _, machine = cpu_seconds()
        finished.set()
        watch.join()
        together.cores_elsewhere = max(0.0, machine - machine_before - together.cpu_s) / together.seconds
        _kill(set(together.cpu_of_each_s))


def _cpu_s(stat: list[str]) -> float:
    return sum(map(int, stat[10:12])) / os.sysconf("SC_CLK_TCK")


def _kill(seen: set[tuple[int, str]]) -> None:
    # By their time of start as well: the number may be another process' by now.
    for pid, started in seen:
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1:][_STARTED] == started:
                os.kill(pid, signal.SIGKILL)
