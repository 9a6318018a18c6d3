"""How a fault is tried: on a copy of a small lake, until the results are right again."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lake_checks
from lake_checks import Results, TornError
from measuring import write_images
from pipeline_process import KEEP_VERSIONS, Pipeline, Surroundings, pipeline

from fruits_assets.mobilenet.weights import DEMO, SAMPLE_IMAGES

TOLERANCE = 1e-9  # of a score, relative to the largest
_ROOMY = "1g"
_LAST_CHARACTERS = 3000
_ERROR = re.compile(r"[\w.]+(Error|Exception|Failure)(: |$)")
_ONCE_MORE = "RESOURCE_INIT_FAILURE"
_RUN_FAILED, _CAUSED_BY = "RUN_FAILURE", "was caused by the following exception:"
_NO_MESSAGE = re.compile(r" - INFO - |^\s+at |^\s+\.\.\. \d+ more|JAVA_TOOL_OPTIONS|Not executing\.$")


class SkippedError(Exception):
    """The fault cannot be made here; the message says why."""


@dataclass
class Bench:
    """A source and a lake that can be had again as they were, and the right results of any source.

    `problems` and `notes` are about the fault that is being tried.
    """

    scratch: Path
    runs: Surroundings = field(init=False)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _expected: dict[str, Results] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.runs = Surroundings(self.images, self.lake, self.scratch / "runs", DEMO)

    @property
    def images(self) -> Path:
        """The source, which is at the same place for all faults, as the lake knows where it was."""
        return self.scratch / "images"

    @property
    def lake(self) -> Path:
        """The lake."""
        return self.scratch / "lake"

    @property
    def _kept(self) -> Path:
        return self.scratch / "as_it_was"

    def prepare(self) -> None:
        """Make the lake that all faults begin with: two versions of every asset, but one of the model."""
        shutil.copytree(SAMPLE_IMAGES, self.images)
        write_images(self.scratch / "others", 2 * len(list(self.images.rglob("*.jpg"))), seed=0)
        added = sorted(self.images.rglob("*.jpg"))[::50]
        contents = [file.read_bytes() for file in added]
        for file in added:
            file.unlink()
        self._run_well()
        for file, content in zip(added, contents, strict=True):
            file.write_bytes(content)
        self._run_well()
        for folder in (self.images, self.lake):
            shutil.copytree(folder, self._kept / folder.name, symlinks=True)

    def _run_well(self) -> None:
        with pipeline(self.runs) as run:
            if run.wait():
                raise RuntimeError(f"the lake to begin with cannot be made:\n{run.last_words}")

    def restore(self) -> None:
        """Source and lake as they were."""
        self.problems, self.notes = [], []
        shutil.rmtree(self.images, ignore_errors=True)
        shutil.rmtree(self.runs.temporary, ignore_errors=True)
        shutil.copytree(self._kept / "images", self.images)
        self.unmount()
        shutil.rmtree(self.lake, ignore_errors=True)
        shutil.copytree(self._kept / "lake", self.lake, symlinks=True)

    def others(self) -> list[Path]:
        """Photos that the source has not."""
        return sorted((self.scratch / "others").rglob("*.jpg"))

    def expected(self, images: Path) -> Results:
        """The results of a fresh lake over a source."""
        digest = hashlib.sha256()
        for file in sorted(images.rglob("*.jpg")):
            digest.update(f"{file.relative_to(images)}\0".encode() + file.read_bytes())
        if (key := digest.hexdigest()) not in self._expected:
            fresh = Surroundings(images, self.scratch / "fresh_lake", self.scratch / "fresh", DEMO)
            with pipeline(fresh) as run:
                if run.wait():
                    raise RuntimeError(f"the run over a fresh lake failed:\n{run.last_words}")
            self._expected[key] = lake_checks.results_of(fresh.lake)
            shutil.rmtree(fresh.lake)
        return self._expected[key]

    def are_right(self, *sources: Path) -> bool:
        """Whether the results of the lake are those of a fresh one, over one of some sources."""
        try:
            found = lake_checks.results_of(self.lake)
        except TornError as error:
            self.problems.append(str(error))
            return False
        compared = [lake_checks.compare(found, self.expected(source), TOLERANCE) for source in sources]
        if any((result.lost, result.wrong) == (0, 0) for result in compared):
            return True
        self.problems.append(f"succeeds with wrong results: {compared}")
        return False

    def mount(self, size: str, with_lake: bool) -> None:
        """Put the lake, or an empty one, onto a file system of its own.

        Raises:
            SkippedError: this needs Linux and the right to mount.
        """
        held = self.scratch / "held_lake"
        self.lake.rename(held)
        self.lake.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={_ROOMY}", "tmpfs", str(self.lake)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
            if with_lake:
                shutil.copytree(held, self.lake, symlinks=True, dirs_exist_ok=True)
            self.resize(size)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SkippedError(f"no file system can be mounted here: {error}") from error
        finally:
            shutil.rmtree(held)

    def resize(self, size: str = _ROOMY) -> None:
        """Give the mounted lake another size: `+n` is n bytes more than it has."""
        if size.startswith("+"):
            status = os.statvfs(self.lake)
            size = str((status.f_blocks - status.f_bfree) * status.f_frsize + int(size))
        subprocess.run(
            ["mount", "-o", f"remount,size={size}", str(self.lake)], check=True, capture_output=True
        )

    def unmount(self) -> None:
        """Take the file system of the lake away, if it has one."""
        if os.path.ismount(self.lake):
            subprocess.run(["umount", str(self.lake)], check=True, capture_output=True)


Action = Callable[[Bench], None]


def nothing(_: Bench) -> None:
    """Do nothing."""


def do_not_disturb(_: Bench, __: Pipeline) -> None:
    """Let a run go on."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong before or during a run.

    Args:
        inflict: makes it, on a lake that is whole.
        says: what the output of a run that fails has to contain, one of each tuple; `{lake}` and `{images}`
            stand for their places.
        changes: of the source, a run after each: what a fault hits depends on what there is to do.
        during: what happens while the first run is under way.
        environment: of the runs, as long as the fault lasts; `{scratch}` stands for a folder of the bench.
        remedy: takes the cause away, or does what the message says.
        is_damage: whether the lake itself is what is damaged; otherwise it has to be whole all the time.
    """

    name: str
    says: Sequence[tuple[str, ...]]
    inflict: Action = nothing
    changes: Sequence[Action] = (nothing,)
    during: Callable[[Bench, Pipeline], None] = do_not_disturb
    environment: Mapping[str, str] = field(default_factory=dict)
    remedy: Action = nothing
    is_damage: bool = False

    def examine(self, bench: Bench) -> None:
        """Try it; what is not as it should be is in the bench's `problems`."""
        self.inflict(bench)
        during = self.during
        environment = {name: value.format(scratch=bench.scratch) for name, value in self.environment.items()}
        for change in self.changes:
            change(bench)
            with pipeline(bench.runs, **environment) as run:
                during(bench, run)
                status = run.wait()
                self._end(bench, run)
            if status:
                bench.notes.append(f"fails: {last_error(run.output)}")
                self._judge_message(bench, run.output)
                self._recover(bench)
                environment = {}
            else:
                bench.notes.append("succeeds")
                bench.are_right(bench.images)
            during = do_not_disturb
        self._judge_lake(bench)

    def _end(self, bench: Bench, run: Pipeline) -> None:
        if left := run.left_running():
            bench.problems.append(f"processes {left} go on after the end of the run")
        if not self.is_damage:
            bench.problems.extend(lake_checks.check(bench.lake).torn)

    def _judge_message(self, bench: Bench, output: str) -> None:
        said, places = messages(output), {"lake": bench.lake, "images": bench.images}
        missing = [
            " or ".join(alternatives)
            for alternatives in self.says
            if not any(words.format(**places).casefold() in said.casefold() for words in alternatives)
        ]
        if missing:
            bench.problems.append(f"fails and does not say {missing}:\n{said[-_LAST_CHARACTERS:]}")

    def _recover(self, bench: Bench) -> None:
        self.remedy(bench)
        with pipeline(bench.runs) as run:
            if run.wait():
                bench.problems.append(f"does not recover:\n{run.last_words}")
            else:
                bench.are_right(bench.images)

    def _judge_lake(self, bench: Bench) -> None:
        torn = lake_checks.check(bench.lake).torn
        if self.is_damage:
            bench.notes.extend(f"damage that is not noticed: {fault}" for fault in torn)
        else:
            bench.problems.extend(torn)
        left = lake_checks.left_in_lake(bench.lake, KEEP_VERSIONS) if not torn else ()
        bench.notes.extend(f"left behind: {path.relative_to(bench.lake)}" for path in left)


def messages(output: str) -> str:
    """What a run has said of errors, without the stack traces, in which any name may stand.

    Nor does it count what Dagster says when it makes the resources of a failed run once more.
    """
    before, failed, after = output.rpartition(_RUN_FAILED)
    lines = []
    in_trace = False
    for line in (before + failed + (after.partition(_ONCE_MORE)[0] if failed else after)).splitlines():
        in_trace = bool(line.strip()) and (in_trace or line.startswith(("Stack Trace:", "Traceback ")))
        if line.strip() and not in_trace and not _NO_MESSAGE.search(line):
            lines.append(line)
    return "\n".join(lines)


def last_error(output: str) -> str:
    """The error that a run has failed with: what an asset raised, and not what that was raised from."""
    said = messages(output)
    cause = said.rsplit(_RUN_FAILED, 1)[-1].partition(_CAUSED_BY)[2] or said
    return next((line for line in cause.splitlines() if _ERROR.match(line)), said.rsplit("\n", 1)[-1])
