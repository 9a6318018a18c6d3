"""How much memory processes take, as Linux counts it (`man 5 proc`); elsewhere nobody knows."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def process_tree(root: int) -> dict[int, list[str]]:
    """Ids of a process and of all below it, with the fields of `/proc/<id>/stat` from `ppid` on."""
    fields: dict[int, list[str]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended meanwhile
            fields[int(stat.parent.name)] = stat.read_text().rsplit(")", 1)[1].split()[1:]

    def is_below(pid: int) -> bool:
        return pid == root or (pid in fields and is_below(int(fields[pid][0])))

    return {pid: fields[pid] for pid in fields if is_below(pid)}


def peak_mb(pid: int) -> float:
    """Peak resident memory of a process as the kernel keeps it, MB of 10^6 bytes; 0 when it has ended."""
    return memory_mb(pid, "status", "VmHWM:")


def memory_mb(pid: int, file: str, field: str) -> float:
    """A field of a file of a process in /proc, MB of 10^6 bytes; 0 when the process has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def forget_peaks(pids: Iterable[int]) -> None:
    """Let peaks begin now."""
    for pid in pids:
        with suppress(OSError):  # where that is forbidden, the peak is that of the process' life
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def own_peak_mb() -> float | None:
    """The peaks of this process and of those below it that are still there, together; None if not known."""
    return sum(map(peak_mb, process_tree(os.getpid()))) or None
