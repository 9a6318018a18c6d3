"""What the benchmarks share: images to work on, what processes take, and how figures are printed."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from fruits_assets.mobilenet.weights import SAMPLE_IMAGES
from fruits_assets.resources.process_memory import forget_peaks, peak_mb, process_tree

Result = TypeVar("Result")

_NOISE = 8  # largest change of a pixel's value, of 255
_JPEG_QUALITY = 90
_DAEMON = b"worker_daemon"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A fresh folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="fruits_assets_") as folder:
        yield Path(folder)


def write_images(folder: Path, n_images: int, seed: int, pixels: int = 100) -> None:
    """Write `<label>/<number>.jpg`, square: turned, mirrored, dimmed, noisy copies of the samples."""
    rng = np.random.default_rng(seed)
    samples = [
        (file.parent.name, np.asarray(Image.open(file).convert("RGB").resize((pixels, pixels)), np.int16))
        for file in sorted(SAMPLE_IMAGES.glob("*/*.jpg"))
    ]
    for label in {label for label, _ in samples}:
        (folder / label).mkdir(parents=True)
    for number in range(n_images):
        label, sample = samples[number % len(samples)]
        turned = np.rot90(sample, int(rng.integers(4)))[:: rng.choice([-1, 1])]
        values = turned * rng.uniform(0.6, 1.1) + rng.integers(-_NOISE, _NOISE + 1, sample.shape, np.int8)
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
        image.save(folder / label / f"{number:06}.jpg", quality=_JPEG_QUALITY)


def command_line(pid: int) -> bytes:
    """The words of a process' command line, each ended by a zero byte; empty when it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def is_python_worker(pid: int, tree: dict[int, list[str]]) -> bool:
    """Whether this is one of Spark's Python workers: its daemon's children, forks that look like it."""
    return _DAEMON in command_line(int(tree[pid][0]))


def cpu_seconds() -> tuple[float, float]:
    """CPU time taken so far by our processes, also those that have ended, and by the whole machine, s."""
    own = sum(int(ticks) for fields in process_tree(os.getpid()).values() for ticks in fields[10:14])
    machine = 0
    with suppress(OSError):
        user, nice, system, _idle, _iowait, *others = Path("/proc/stat").read_text().split()[1:9]
        machine = sum(map(int, (user, nice, system, *others)))
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    return own / ticks_per_s, machine / ticks_per_s


@dataclass(frozen=True)
class Cost:
    """Of one contender: wall and CPU time, s; cores that others kept busy meanwhile; peak of a worker, MB."""

    seconds: float
    cpu_seconds: float
    cores_elsewhere: float
    worker_peak_mb: float | None


def timed(contender: Callable[[], Result]) -> tuple[Result, Cost]:
    """Run a contender; returns its result and what it took."""
    forget_peaks(_own_python_workers())
    started, (own_before, machine_before) = time.monotonic(), cpu_seconds()
    result = contender()
    seconds, (own, machine) = time.monotonic() - started, cpu_seconds()
    own, machine = own - own_before, machine - machine_before
    # Idle workers live on for a minute, so that asking for their peaks now is in time.
    peaks = [peak_mb(pid) for pid in _own_python_workers()]
    return result, Cost(seconds, own, max(0.0, machine - own) / seconds, max(peaks, default=None))


def _own_python_workers() -> list[int]:
    tree = process_tree(os.getpid())
    return [pid for pid in tree if is_python_worker(pid, tree)]


def table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Lines of a table: the first column to the left, the others to the right."""
    lines = [(title, columns), *rows]
    first = max(len(what) for what, _ in lines)
    width = 2 + max(len(cell) for _, cells in lines for cell in cells)
    return "\n".join(
        f"{what:<{first}}" + "".join(f"{cell:>{width}}" for cell in cells) for what, cells in lines
    )


def cell(value: float | None, form: str) -> str:
    """A number as text, `-` where there is none."""
    return "-" if value is None else format(value, form)


def figure_rows(
    figures: Mapping[str, Any], prefixes: Sequence[str], lines: Sequence[tuple[str, str, str]]
) -> list[tuple[str, list[str]]]:
    """Rows of a table with a column for each prefix of a figure's name; a line is what, name and form."""
    return [
        (what, [cell(figures.get(f"{prefix}{name}"), form) for prefix in prefixes])
        for what, name, form in lines
    ]
