"""What a newcomer waits for: the install, the first run and the second, and the tests.

All of it in a fresh clone of the committed state, in an empty folder, with empty caches of packages and of
converted networks. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measuring import cell, scratch_folder, table

MAX_INSTALL_AND_RUN_S, MAX_ENVIRONMENT_MB = 100.0, 2000.0
MAX_FIRST_RUN_S, MAX_SECOND_RUN_S = 20.0, 12.0
MAX_TEST_S, MAX_TEST_FAST_S = 360.0, 90.0

_REPOSITORY = Path(__file__).parents[1]
_LAST_CHARACTERS = 4000


class Newcomer:
    """Somebody with a clone, and with nothing in any cache."""

    def __init__(self, folder: Path) -> None:
        self.clone = folder / "clone"
        self.cache = folder / "cache"
        subprocess.run(["git", "clone", "--quiet", _REPOSITORY, self.clone], check=True)

    def make(self, *words: str) -> float:
        """Seconds of a `make` of the clone; ends this process with its last words if it fails."""
        given = {name: value for name, value in os.environ.items() if not name.startswith("FRUITS_")}
        given.pop("PYTHONPATH", None)
        started = time.perf_counter()
        done = subprocess.run(
            ["make", *words],
            cwd=self.clone,
            env={**given, "PIP_NO_CACHE_DIR": "1", "XDG_CACHE_HOME": str(self.cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        print(f"make {' '.join(words)}: {seconds:.1f} s", flush=True)
        if done.returncode:
            sys.exit(f"It failed:\n{done.stdout[-_LAST_CHARACTERS:]}")
        return seconds

    def forget_runs(self) -> None:
        """No lake any more, and nothing of this project in the user's cache."""
        shutil.rmtree(self.clone / "lake", ignore_errors=True)
        shutil.rmtree(self.cache / "fruits_assets", ignore_errors=True)

    def environment_mb(self) -> float:
        """What the virtual environment takes on disk, MB of 10^6 bytes."""
        done = subprocess.run(
            ["du", "--summarize", "--block-size=1", self.clone / ".venv"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return int(done.stdout.split()[0]) / 1e6


def measured(rounds: int, with_tests: bool, scratch: Path) -> dict[str, float]:
    """The figures by name; medians of the runs."""
    newcomer = Newcomer(scratch)
    figures = {"install_s": newcomer.make(".venv/run"), "environment_mb": newcomer.environment_mb()}
    first, second = [], []
    for _ in range(rounds):
        newcomer.forget_runs()
        first.append(newcomer.make("run"))
        second.append(newcomer.make("run"))
    figures |= {"first_run_s": statistics.median(first), "second_run_s": statistics.median(second)}
    if with_tests:
        newcomer.make(".venv/dev")
        figures["test_fast_s"] = newcomer.make("test-fast")
        # The first makes the Python of a cluster, which stays.
        newcomer.make("test")
        figures["test_s"] = newcomer.make("test")
    return figures


def too_much(figures: dict[str, float]) -> list[str]:
    """What is above its limit."""
    found = {**figures, "install_and_first_run_s": figures["install_s"] + figures["first_run_s"]}
    limits = {
        "install_and_first_run_s": MAX_INSTALL_AND_RUN_S,
        "environment_mb": MAX_ENVIRONMENT_MB,
        "first_run_s": MAX_FIRST_RUN_S,
        "second_run_s": MAX_SECOND_RUN_S,
        "test_s": MAX_TEST_S,
        "test_fast_s": MAX_TEST_FAST_S,
    }
    return [
        f"{name} is {found[name]:.0f}, more than {limit:.0f}"
        for name, limit in limits.items()
        if found.get(name, 0) > limit
    ]


def main() -> None:
    """Command line; the last line is JSON, and the exit status 1 when something takes too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="first and second runs (5)")
    parser.add_argument("--no-tests", action="store_true", help="neither install nor run the tests")
    arguments = parser.parse_args()
    with scratch_folder() as scratch:
        figures = measured(arguments.rounds, not arguments.no_tests, scratch)
    rows = [(name, [cell(value, ".1f")]) for name, value in figures.items()]
    print(f"\n{table('a newcomer', [''], rows)}\n\n{json.dumps(figures)}", flush=True)
    if found := too_much(figures):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
