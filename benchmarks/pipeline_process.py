"""The job as a person starts it, in processes of its own that can be watched and killed, all of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
KEEP_VERSIONS = 3
COMMAND = [sys.executable, "-m", "dagster", "job", "execute"]
COMMAND += ["-m", "fruits_assets.definitions", "-j", "fruits_pipeline"]
LIMIT_S = 600.0  # a run that takes longer is stuck
_LAST_CHARACTERS = 3000
_GONE_WITHIN_S = 20.0
_POLL_S = 0.05


@dataclass(frozen=True)
class Surroundings:
    """What runs are given; `own` gets Dagster's records, temporary files and the log."""

    images: Path
    lake: Path
    own: Path
    weights: str

    @property
    def temporary(self) -> Path:
        """Where a run has its temporary files, those of Spark included."""
        return self.own / "tmp"

    def environment(self) -> dict[str, str]:
        """The environment of a run; makes the folders that this names."""
        home = self.own / "dagster_home"
        for folder in (home, self.temporary):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / ".dagster_home" / "dagster.yaml", home)  # the settings of `make run`
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FRUITS_")}
        return inherited | {
            "DAGSTER_HOME": str(home),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "PYTHONWARNINGS": "ignore",
            "FRUITS_IMAGES": str(self.images),
            "FRUITS_LAKE": str(self.lake),
            "FRUITS_LAKE_KEEP_MINUTES": "0",
            "FRUITS_LAKE_KEEP_VERSIONS": str(KEEP_VERSIONS),
            "FRUITS_SPARK": "local",
            "FRUITS_WEIGHTS": self.weights,
            "TMPDIR": str(self.temporary),
            # A user's lakes share their flatbuffers; a fresh lake must not get one of a killed run.
            "XDG_CACHE_HOME": str(self.own / "cache"),
            # A JVM does not ask for TMPDIR.
            "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={self.temporary}",
        }


class Pipeline:
    """A run that is under way: the leader of a session, which its JVM and its workers are in as well.

    They are not all in its process group, as Spark gives its workers one of their own.
    """

    def __init__(self, surroundings: Surroundings, name: str = "job", **changed: str) -> None:
        self.log = surroundings.own / f"{name}.log"
        environment = surroundings.environment() | changed
        self.started = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                COMMAND,
                cwd=REPOSITORY,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self.started

    @property
    def is_over(self) -> bool:
        """Whether its first process has ended."""
        return self.process.poll() is not None

    @property
    def output(self) -> str:
        """All that it has said."""
        return self.log.read_text(errors="replace")

    @property
    def last_words(self) -> str:
        """The end of what it has said."""
        return self.output[-_LAST_CHARACTERS:]

    def members(self) -> list[int]:
        """The processes of its session that have not ended (Linux: `man 5 proc`)."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # ended meanwhile
                state, _, _, session = stat.read_text().rsplit(")", 1)[1].split()[:4]
                if int(session) == self.process.pid and state not in "ZX":
                    found.append(int(stat.parent.name))
        return found

    def kill(self) -> None:
        """SIGKILL to all of it, and wait until none is left."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + _GONE_WITHIN_S
        while members := self.members():
            for pid in members:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes {members} do not die")
            time.sleep(_POLL_S / 10)
        self.process.wait()

    def wait(self) -> int:
        """Its exit status; of a run that is stuck, that of being killed."""
        try:
            return self.process.wait(max(0.0, LIMIT_S - self.seconds))
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.wait()

    def left_running(self) -> list[int]:
        """What of its processes is still there some time after its end."""
        deadline = time.monotonic() + _GONE_WITHIN_S
        while (members := self.members()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return members


@contextmanager
def pipeline(surroundings: Surroundings, name: str = "job", **changed: str) -> Iterator[Pipeline]:
    """A run of the job, with changes of its environment; whatever is left of it at the end is killed."""
    run = Pipeline(surroundings, name, **changed)
    try:
        yield run
    finally:
        run.kill()


def wait_until(run: Pipeline, happens: Callable[[], bool], poll_s: float) -> bool:
    """Wait for something while a run is under way; whether it has happened."""
    while not run.is_over:
        if happens():
            return True
        time.sleep(poll_s)
    return happens()


def end_orderly_on_sigterm() -> None:
    """Let SIGTERM end this process as an exception does: its runs are killed, its folders removed."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
