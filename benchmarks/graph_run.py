"""One run of the whole graph in a process of its own, as a person starts it, observed from outside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from measuring import command_line, is_python_worker, write_images

from fruits_assets.resources.process_memory import peak_mb, process_tree

DAGSTER, DRIVER_JVM, WORKER, CONVERSION, OTHER = (
    "Dagster process",
    "driver JVM",
    "Python worker",
    "model conversion",
    "other",
)

_REPOSITORY = Path(__file__).parents[1]
_POLL_S = 0.2
_HEARTBEAT_S = 20.0
_LAST_CHARACTERS = 4000


@dataclass(frozen=True)
class GraphRun:
    """Of one run: wall time from start to end of the process, s; times of the assets' steps, s; the
    peak resident memory of the largest process of each role, MB of 10^6 bytes.
    """

    n_images: int
    seconds: float
    step_seconds: dict[str, float]
    peaks_mb: dict[str, float]


class GraphRunError(RuntimeError):
    """The graph did not run to its end; the message has its last words."""


def run_graph(n_images: int, weights: str, seed: int, scratch: Path) -> GraphRun:
    """Run the job over fresh images, with a lake and a DAGSTER_HOME of its own, in an empty `scratch`.

    Raises:
        GraphRunError: the job failed.
    """
    print(f"writing {n_images:,} images", flush=True)
    write_images(scratch / "images", n_images, seed)
    return run_graph_over(scratch / "images", n_images, weights, scratch)


def run_graph_over(
    images: Path,
    n_images: int,
    weights: str,
    scratch: Path,
    variables: Mapping[str, str] | None = None,
    up_to: str | None = None,
) -> GraphRun:
    """Run the job over images that are there, with `lake` and `dagster_home` in `scratch`.

    Args:
        variables: of the environment, beside or instead of those of this process.
        up_to: the last asset, where not all are wanted.

    Raises:
        GraphRunError: the job failed.
    """
    home, log = scratch / "dagster_home", scratch / "job.log"
    home.mkdir()
    shutil.copy(_REPOSITORY / ".dagster_home" / "dagster.yaml", home)  # the settings of `make run`
    words = ["fruits_assets.command_line", "run"]
    if up_to:
        some = ["--select", f"*{up_to}", "-m", "fruits_assets.definitions"]
        words = ["dagster", "asset", "materialize", *some]
    command = [sys.executable, "-m", *words]
    environment = os.environ | {
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "PYTHONWARNINGS": "ignore",
        "FRUITS_IMAGES": str(images),
        "FRUITS_LAKE": str(scratch / "lake"),
        "FRUITS_SPARK": "local",
        "FRUITS_WEIGHTS": weights,
        **(variables or {}),
    }
    print(f"running the graph over {n_images:,} images", flush=True)
    started = last_beat = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=_REPOSITORY, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            with _peaks_below(process.pid) as peaks:
                while process.poll() is None:
                    time.sleep(_POLL_S / 4)
                    if time.monotonic() - last_beat > _HEARTBEAT_S:
                        last_beat = time.monotonic()
                        print(f"  still running, {last_beat - started:.0f} s", flush=True)
                seconds = time.monotonic() - started
        finally:
            process.terminate()
            process.wait()
    if process.returncode:
        raise GraphRunError(f"{' '.join(command)} failed:\n{log.read_text()[-_LAST_CHARACTERS:]}")
    return GraphRun(n_images, seconds, _step_seconds(home), peaks)


@contextmanager
def _peaks_below(root: int) -> Iterator[dict[str, float]]:
    """While this lasts, look five times a second at a process and all below it: peak per role, MB."""
    peaks = dict.fromkeys((DAGSTER, DRIVER_JVM, WORKER, CONVERSION, OTHER), 0.0)
    finished = threading.Event()

    def sample() -> None:
        while not finished.wait(_POLL_S):
            tree = process_tree(root)
            for pid in tree:
                role = _role(pid, root, tree)
                peaks[role] = max(peaks[role], peak_mb(pid))

    sampler = threading.Thread(target=sample, name="memory sampler", daemon=True)
    sampler.start()
    try:
        yield peaks
    finally:
        finished.set()
        sampler.join()


def _role(pid: int, root: int, tree: dict[int, list[str]]) -> str:
    if pid == root:
        return DAGSTER
    if _is_conversion(pid, tree):
        return CONVERSION
    if is_python_worker(pid, tree):
        return WORKER
    program = command_line(pid).split(b"\0")[0].rsplit(b"/", 1)[-1]
    return DRIVER_JVM if program == b"java" else OTHER


def _is_conversion(pid: int, tree: dict[int, list[str]]) -> bool:
    if b"fruits_assets.mobilenet.convert" in command_line(pid):
        return True
    parent = int(tree[pid][0])
    return parent in tree and _is_conversion(parent, tree)


def _step_seconds(home: Path) -> dict[str, float]:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        (record,) = instance.get_run_records(limit=1)
        steps = instance.get_run_step_stats(record.dagster_run.run_id)
    return {
        step.step_key: step.end_time - step.start_time
        for step in sorted(steps, key=lambda step: step.start_time or 0.0)
        if step.start_time is not None and step.end_time is not None
    }
