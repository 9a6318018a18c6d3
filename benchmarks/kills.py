"""Runs that are killed at random moments, over one lake: is anything torn, lost, blocked or left behind?

The source changes, a run starts, all of its processes get SIGKILL; then the lake is looked at from outside.
Every few kills a run is left alone, and compared with one over a fresh lake. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lake_checks
from lake_checks import FEATURES, LOG, MODEL, PCA, RAW, RESULTS, SCALED, VERSIONS, TornError
from measuring import scratch_folder, table, write_images
from pipeline_process import (
    KEEP_VERSIONS,
    Pipeline,
    Surroundings,
    end_orderly_on_sigterm,
    pipeline,
    wait_until,
)

from fruits_assets.mobilenet.weights import DEMO, SAMPLE_IMAGES

TOLERANCE = 1e-9  # of a score, relative to the largest
_MAX_KILLS_IN_A_ROW = 4
_FIRST_RUN_S = 25.0  # the first kill's guess of how long a run takes
_POLL_S, _WATCH_S = 0.01, 0.0005
_MAX_DELAY_S = 0.04
_FACTS = "facts.json"
# The last asset has the links besides, so that more can go wrong there.
_PUBLISHING = (RAW, f"{RAW}/_quarantine", FEATURES, SCALED, PCA, RESULTS, RESULTS, RESULTS)


class Source:
    """Photos that change between runs, by a seeded generator."""

    def __init__(self, folder: Path, n_images: int, rng: random.Random) -> None:
        self._folder, self._rng, self._n_made = folder, rng, 0
        self._others = folder.with_name("other_images")
        write_images(folder, n_images, rng.randrange(2**32))
        write_images(self._others, n_images, rng.randrange(2**32))

    def change(self) -> str:
        """Do one or two kinds of things to a few photos; says which."""
        changes = [self._add, self._replace, self._remove, self._rename, self._damage]
        # Few enough that even after several changes without a published version most photos are still there.
        return ", ".join(change() for change in self._rng.sample(changes, self._rng.choice([1, 1, 2])))

    def _some(self, at_most: int) -> list[Path]:
        files = sorted(self._folder.rglob("*.jpg"))
        return self._rng.sample(files, self._rng.randint(1, at_most))

    def _other(self) -> bytes:
        return self._rng.choice(sorted(self._others.rglob("*.jpg"))).read_bytes()

    def _new_path(self) -> Path:
        self._n_made += 1
        label = self._rng.choice(sorted(folder.name for folder in SAMPLE_IMAGES.iterdir()))
        return self._folder / label / f"new_{self._n_made:04}.jpg"

    def _add(self) -> str:
        n_images = self._rng.randint(1, 5)
        for _ in range(n_images):
            self._new_path().write_bytes(self._other())
        return f"{n_images} added"

    def _replace(self) -> str:
        files = self._some(4)
        for file in files:
            file.write_bytes(self._other())
        return f"{len(files)} changed"

    def _remove(self) -> str:
        files = self._some(3)
        for file in files:
            file.unlink()
        return f"{len(files)} removed"

    def _rename(self) -> str:
        files = self._some(3)
        for file in files:
            file.rename(self._new_path())
        return f"{len(files)} renamed"

    def _damage(self) -> str:
        (file,) = self._some(1)
        file.write_bytes(file.read_bytes()[:200])
        return "1 truncated"


@dataclass(frozen=True)
class Moment:
    """When to kill: some time after the start, or after the first sign of something being published."""

    seconds: float
    sign: Callable[[], bool] | None = None
    place: str = ""

    def __str__(self) -> str:
        return f"{1000 * self.seconds:.0f} ms after {self.place}" if self.sign else f"{self.seconds:.1f} s"


@dataclass
class Counts:
    """What has been found."""

    kills: int = 0
    kills_in_publishing: int = 0
    undisturbed: int = 0
    torn: int = 0
    behind: int = 0
    lost: int = 0
    wrong: int = 0
    blocked: int = 0
    unverifiable: int = 0
    largest_difference: float = 0.0
    left: dict[Path, int] = field(default_factory=dict)
    left_temporary: dict[Path, int] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """As JSON has them."""
        left = {**self.left, **self.left_temporary}
        counted = {name: value for name, value in vars(self).items() if not isinstance(value, dict)}
        return counted | {
            "leftovers": len(left),
            "leftover_bytes": sum(left.values()),
            "leftovers_in_lake": len(self.left),
            "leftovers_in_temporary": len(self.left_temporary),
        }


class Trial:
    """One lake, what happens to it, and what that has led to."""

    def __init__(self, scratch: Path, n_images: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.source = Source(scratch / "images", n_images, self.rng)
        self.runs = Surroundings(scratch / "images", scratch / "lake", scratch / "runs", DEMO)
        self.fresh = Surroundings(scratch / "images", scratch / "fresh_lake", scratch / "fresh", DEMO)
        self.counts = Counts()
        self.run_s = _FIRST_RUN_S

    def kill_one(self) -> bool:
        """Change the source, start a run and kill it; False if it had ended before."""
        change, moment = self.source.change(), self._moment()
        with pipeline(self.runs) as run:
            is_over = self._wait(run, moment)
            run.kill()
        if is_over:
            print(f"  {change}: over before it could be killed, {moment}", flush=True)
            if run.process.returncode:
                self._blocked(run)
            self._look(undisturbed=run.process.returncode == 0)
            return False
        self.counts.kills += 1
        self.counts.kills_in_publishing += moment.sign is not None
        print(f"kill {self.counts.kills}: {change}; killed {moment}, after {run.seconds:.1f} s", flush=True)
        self._look(undisturbed=False)
        return True

    @staticmethod
    def _wait(run: Pipeline, moment: Moment) -> bool:
        """Wait for the moment; whether the run was over before."""
        if moment.sign:
            wait_until(run, moment.sign, _WATCH_S)
            time.sleep(moment.seconds)
        else:
            wait_until(run, lambda: run.seconds > moment.seconds, _POLL_S)
        return run.is_over

    def _moment(self) -> Moment:
        """Every third kill is around publishing."""
        if self.counts.kills % 3 < 2:
            return Moment(self.rng.uniform(0, self.run_s))
        is_first = lake_checks.published(self.runs.lake, MODEL) is None
        place = self.rng.choice((MODEL, *_PUBLISHING) if is_first else _PUBLISHING)
        is_entry = self.rng.random() < 0.5 or "/" in place
        folder, look = self.runs.lake / place, entries if is_entry else facts
        before = look(folder)
        what = "a log entry" if is_entry else _FACTS
        delay_s = self.rng.uniform(0, _MAX_DELAY_S)
        return Moment(delay_s, lambda: not look(folder) <= before, f"{what} of {place}")

    def _look(self, undisturbed: bool) -> None:
        found = lake_checks.check(self.runs.lake)
        self.counts.unverifiable += found.unverifiable
        if found.behind and undisturbed:
            found.torn.append("the results are still those of the version before")
        elif found.behind:
            self.counts.behind += 1
            print("  the results are those of the version before", flush=True)
        self.counts.torn += bool(found.torn)
        for fault in found.torn:
            print(f"  TORN: {fault}", flush=True)

    def _blocked(self, run: Pipeline) -> None:
        self.counts.blocked += 1
        print(f"  BLOCKED: exit status {run.process.returncode}\n{run.last_words}", flush=True)

    def undisturbed(self) -> None:
        """A run that is left alone: it has to succeed, with the results of a fresh lake, and to clean up."""
        self.counts.undisturbed += 1
        with pipeline(self.runs) as run:
            status = run.wait()
            self.run_s = run.seconds
        if status:
            self._blocked(run)
            shutil.rmtree(self.runs.lake)  # so that the next kills have something to kill
            return
        self._look(undisturbed=True)
        self._compare_with_fresh()
        self._look_for_leftovers()

    def _compare_with_fresh(self) -> None:
        with pipeline(self.fresh) as run:
            if run.wait():
                raise RuntimeError(f"the run over a fresh lake failed:\n{run.last_words}")
        expected = lake_checks.results_of(self.fresh.lake)
        shutil.rmtree(self.fresh.lake)
        try:
            found = lake_checks.compare(lake_checks.results_of(self.runs.lake), expected, TOLERANCE)
        except TornError:  # has been counted
            return
        self.counts.lost += found.lost
        self.counts.wrong += found.wrong
        self.counts.largest_difference = max(self.counts.largest_difference, found.difference)
        print(
            f"undisturbed: {self.run_s:.1f} s, {len(expected.images)} images, {found.lost} lost, "
            f"{found.wrong} wrong, difference {found.difference:.1e}",
            flush=True,
        )

    def _look_for_leftovers(self) -> None:
        in_lake = lake_checks.left_in_lake(self.runs.lake, KEEP_VERSIONS)
        temporary = lake_checks.left_in_folder(self.runs.temporary)
        new = {**in_lake, **temporary}.keys() - self.counts.left.keys() - self.counts.left_temporary.keys()
        for path in sorted(new):
            print(f"  LEFT BEHIND: {path}", flush=True)
        self.counts.left |= in_lake
        self.counts.left_temporary |= temporary


def entries(folder: Path) -> set[str]:
    """What is in a table's log, unfinished entries included."""
    return {entry.name for entry in (folder / LOG).glob("*")}


def facts(folder: Path) -> set[str]:
    """The versions of an asset that are about to be published, or were."""
    return {file.parent.name for file in (folder / VERSIONS).glob(f"*/{_FACTS}")}


def run_trial(trial: Trial, n_kills: int) -> None:
    """Kill, and every one to four kills do not."""
    in_a_row = 0
    while trial.counts.kills < n_kills:
        in_a_row = in_a_row + 1 if trial.kill_one() else 0
        if in_a_row == _MAX_KILLS_IN_A_ROW or (in_a_row and trial.rng.random() < 1 / _MAX_KILLS_IN_A_ROW):
            trial.undisturbed()
            in_a_row = 0
    if in_a_row:
        trial.undisturbed()


def for_people(figures: dict[str, Any]) -> str:
    """A line for each figure."""
    lines = (
        ("kills", "kills", "d"),
        ("of these around publishing", "kills_in_publishing", "d"),
        ("runs that were left alone", "undisturbed", "d"),
        ("states of the lake that were torn", "torn", "d"),
        ("results of the version before the current one", "behind", "d"),
        ("versions whose inputs were no longer kept", "unverifiable", "d"),
        ("rows lost", "lost", "d"),
        ("rows wrong", "wrong", "d"),
        ("largest difference of a score", "largest_difference", ".1e"),
        ("runs blocked by what a killed one had left", "blocked", "d"),
        ("left behind in the lake", "leftovers_in_lake", "d"),
        ("left behind among temporary files", "leftovers_in_temporary", "d"),
        ("bytes left behind", "leftover_bytes", ",d"),
        ("seconds", "seconds", ".0f"),
    )
    return table("", [""], [(what, [format(figures[name], form)]) for what, name, form in lines])


def main() -> None:
    """Command line; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--images", type=int, default=168)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    end_orderly_on_sigterm()
    started = time.monotonic()
    with scratch_folder() as scratch:
        trial = Trial(scratch, arguments.images, arguments.seed)
        run_trial(trial, arguments.kills)
    figures = trial.counts.figures() | {"seconds": time.monotonic() - started}
    print(f"\n{for_people(figures)}\n\n{json.dumps(figures)}", flush=True)
    if any(figures[name] for name in ("torn", "lost", "wrong", "blocked", "leftovers")):
        sys.exit("Not all is as it should be: see above.")


if __name__ == "__main__":
    main()
