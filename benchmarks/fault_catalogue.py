"""All faults that `faults.py` tries."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import lake_checks
from fault_trial import Bench, Fault, last_error, nothing
from lake_checks import ASSETS, CSV, FEATURES, LOG, MODEL, PCA, RAW, RESULTS, RUNNING, SCALED, VERSIONS
from measuring import command_line, is_python_worker
from pipeline_process import Pipeline, pipeline, wait_until

from fruits_assets.resources.process_memory import process_tree

_QUARANTINE = f"{RAW}/_quarantine"
_FLIPPED_BYTES = 64
_WATCH_S = 0.0005
_MB = 1_000_000
_AGAIN = ("again", "anew")


def all_faults() -> list[Fault]:
    """Every fault, the quick and common ones first."""
    return [*surroundings(), *processes(), *sources(), *markers(), *disks(), *logs(), *files()]


# Changes of the source


def one_more_photo(bench: Bench) -> None:
    """Add a photo."""
    other = bench.others()[0]
    shutil.copy(other, bench.images / other.parent.name / "one_more.jpg")


def other_photos(bench: Bench) -> None:
    """Give every file other content."""
    for file, other in zip(sorted(bench.images.rglob("*.jpg")), bench.others(), strict=False):
        file.write_bytes(other.read_bytes())


# Around the lake


def surroundings() -> Iterator[Fault]:
    """What a run needs of its machine."""
    yield Fault(
        "no Java",
        [("JAVA_HOME",), ("Java 17",), ("Install", "set JAVA_HOME")],
        inflict=lambda bench: (bench.scratch / "no_java").mkdir(exist_ok=True),
        changes=[one_more_photo],
        environment={"JAVA_HOME": "{scratch}/no_java"},
    )


def markers() -> Iterator[Fault]:
    """Markers of runs that never were."""

    def mark(bench: Bench, name: str, content: bytes) -> None:
        (bench.lake / RUNNING).mkdir(exist_ok=True)
        (bench.lake / RUNNING / name).write_bytes(content)

    for what, name, content in (
        ("empty", "5dcc7e58-6d5c-4f0b-9d2e-0123456789ab", b""),
        ("garbage", "no run id at all", bytes(range(256))),
    ):
        inflict = functools.partial(mark, name=name, content=content)
        yield Fault(f"{what} marker in {RUNNING}", [("{lake}",)], inflict, [nothing, one_more_photo])


# Processes


def processes() -> Iterator[Fault]:
    """Processes that die, are asked to end, or are two."""
    # The system kills the largest process when memory runs out.
    for when, asset in (("before", FEATURES), ("in", RAW), ("in", FEATURES), ("in", SCALED), ("in", RESULTS)):
        yield Fault(
            f"JVM killed {when} {asset}",
            [("Java process", "JVM"), ("killed",), ("memory",)],
            changes=[other_photos],
            during=functools.partial(
                signalled,
                asset=asset,
                sign="*" if when == "before" else "*/*.parquet",
                chosen=_jvm,
                number=signal.SIGKILL,
            ),
        )
    for asset in (RAW, FEATURES):
        yield Fault(
            f"Python worker killed in {asset}",
            [("Python worker",), ("killed",), ("memory",)],
            changes=[other_photos],
            during=functools.partial(signalled, asset=asset, chosen=_worker, number=signal.SIGKILL),
        )
    for asset in (RAW, FEATURES, RESULTS):
        yield Fault(
            f"SIGTERM in {asset}",
            [("interrupt", "terminat", "cancel", "SIGTERM")],
            changes=[other_photos],
            during=functools.partial(signalled, asset=asset, chosen=_first, number=signal.SIGTERM),
        )
    yield TwoRuns("two runs over one source", [], changes=[one_more_photo], other_source=False)
    yield TwoRuns("two runs over two sources", [], changes=[one_more_photo], other_source=True)


def signalled(
    bench: Bench,
    run: Pipeline,
    asset: str,
    chosen: Callable[[Pipeline, Path], list[int]],
    number: signal.Signals,
    sign: str = "*/*.parquet",
) -> None:
    """Send a signal to some of a run's processes once there is a sign that it is at work on an asset."""
    await_version(bench, run, asset, sign)
    folder = bench.lake / asset / VERSIONS
    wait_until(run, lambda: bool(chosen(run, folder)), _WATCH_S)
    for pid in chosen(run, folder):
        os.kill(pid, number)


def await_version(bench: Bench, run: Pipeline, asset: str, sign: str) -> None:
    """Wait until there is something new among the versions of an asset."""
    folder = bench.lake / asset / VERSIONS
    before = set(folder.glob(sign))
    wait_until(run, lambda: not set(folder.glob(sign)) <= before, _WATCH_S)


def _first(run: Pipeline, _: Path) -> list[int]:
    return [] if run.is_over else [run.process.pid]


def _jvm(run: Pipeline, _: Path) -> list[int]:
    """Spark's, and not one that looks for the version or puts the command line together."""
    lines = {pid: command_line(pid) for pid in run.members()}
    return [
        pid for pid, line in lines.items() if b"-Xmx" in line and b"SparkSubmit" in line and b"/java" in line
    ]


def _worker(run: Pipeline, folder: Path) -> list[int]:
    """One that has a file below a folder open, and is at work therefore."""
    tree = process_tree(run.process.pid)
    return [pid for pid in tree if is_python_worker(pid, tree) and _has_open(pid, folder)][:1]


def _has_open(pid: int, folder: Path) -> bool:
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):  # closed meanwhile
            if descriptor.readlink().is_relative_to(folder):
                return True
    return False


@dataclass(frozen=True)
class TwoRuns(Fault):
    """Two runs at once over one lake: the results are those of one of them, and one may fail."""

    other_source: bool = False

    def examine(self, bench: Bench) -> None:
        """See `Fault.examine`."""
        for change in self.changes:
            change(bench)
        other = bench.scratch / "other_images"
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(bench.images, other)
        for file in sorted(other.rglob("*.jpg"))[::40]:
            file.write_bytes(bench.others()[1].read_bytes())
        changed = {"FRUITS_IMAGES": str(other)} if self.other_source else {}
        with pipeline(bench.runs, "first") as first, pipeline(bench.runs, "second", **changed) as second:
            statuses = first.wait(), second.wait()
            self._end(bench, first)
            self._end(bench, second)
        bench.are_right(bench.images, *([other] if self.other_source else []))
        self._judge(bench, statuses, (first, second))
        self._recover(bench)
        self._judge_lake(bench)

    @staticmethod
    def _judge(bench: Bench, statuses: tuple[int, int], runs: tuple[Pipeline, Pipeline]) -> None:
        bench.notes.append(f"exit status {statuses[0]} and {statuses[1]}")
        if all(statuses):
            bench.problems.append("both fail")
        for status, run, other in zip(statuses, runs, reversed(runs), strict=True):
            if status:
                error = last_error(run.output)
                bench.notes.append(f"fails: {error}")
                if _run_id(other) not in error or "again" not in error:
                    bench.problems.append(f"does not name run {_run_id(other)} and say 'again': {error}")


def _run_id(run: Pipeline) -> str:
    found = re.search(r"fruits_pipeline - ([0-9a-f-]{36}) ", run.output)
    return found[1] if found else "that was never started"


# The source


def sources() -> Iterator[Fault]:
    """Sources that are there no more, or not as they were."""
    lost = [("{images}", RAW), ("FRUITS_IMAGES", "min_share_of_previous")]
    yield Fault("source vanishes before a run", lost, inflict=_take_away, remedy=_give_back)
    for when, once_read in (("before it is listed", False), ("while it is read", True)):
        yield Fault(
            f"source vanishes {when}",
            lost,
            inflict=other_photos,
            during=functools.partial(_vanishing, once_read=once_read),
            remedy=_give_back,
        )
    yield Fault("half of the source unreadable", lost, inflict=_spoil_half, remedy=_mend)
    yield Fault(
        "half of the source becomes unreadable while it is read",
        lost,
        inflict=other_photos,
        during=_spoiling,
        remedy=_mend,
    )


def _take_away(bench: Bench) -> None:
    bench.images.rename(bench.scratch / "images_elsewhere")


def _give_back(bench: Bench) -> None:
    (bench.scratch / "images_elsewhere").rename(bench.images)


def _vanishing(bench: Bench, run: Pipeline, once_read: bool) -> None:
    await_version(bench, run, RAW, "*/*.parquet" if once_read else "*")
    _take_away(bench)


def _spoiling(bench: Bench, run: Pipeline) -> None:
    await_version(bench, run, RAW, "*/*.parquet")
    _spoil_half(bench)


def _spoil_half(bench: Bench) -> None:
    mended = bench.scratch / "images_mended"
    shutil.rmtree(mended, ignore_errors=True)
    shutil.copytree(bench.images, mended)
    for file in sorted(bench.images.rglob("*.jpg"))[::2]:
        file.write_bytes(b"")


def _mend(bench: Bench) -> None:
    shutil.rmtree(bench.images)
    (bench.scratch / "images_mended").rename(bench.images)


# The disk


def disks() -> Iterator[Fault]:
    """Disks that are full before a run, or get full during it."""
    full = [("{lake}",), ("free space",)]
    for free in (0.5, 1.3, 2.0, 2.7, 3.4, 4.1):
        yield Fault(
            f"{free} MB free",
            full,
            inflict=functools.partial(Bench.mount, size=f"+{int(free * _MB)}", with_lake=True),
            changes=[other_photos],
            remedy=Bench.resize,
        )
    for size in (4, 8, 10.5, 12):
        yield Fault(
            f"new lake on {size} MB",
            full,
            inflict=functools.partial(Bench.mount, size=str(int(size * _MB)), with_lake=False),
            remedy=Bench.resize,
        )
    for asset in (RAW, FEATURES, RESULTS):
        yield Fault(
            f"disk filled while {asset} is published",
            full,
            inflict=functools.partial(Bench.mount, size=f"+{50 * _MB}", with_lake=True),
            changes=[other_photos],
            during=functools.partial(_filling, asset=asset),
            remedy=lambda bench: (bench.lake / _FILLER).unlink(missing_ok=True),
        )


_FILLER = ".filler"


def _filling(bench: Bench, run: Pipeline, asset: str) -> None:
    await_version(bench, run, asset, "*/facts.json")
    with (bench.lake / _FILLER).open("wb", buffering=0) as filler:
        try:
            while filler.write(bytes(_MB)):
                pass
        except OSError:  # full
            pass


# Logs


def logs() -> Iterator[Fault]:
    """The last entry of a table's log is not what was written."""
    for table in (*ASSETS, _QUARANTINE):
        for what, damage in (("truncated", truncate), ("garbage", overwrite)):
            yield Fault(
                f"last log entry of {table} {what}",
                [(f"{{lake}}/{table}",), ("remove it", "remove")],
                inflict=lambda bench, table=table, damage=damage: damage(_last_entry(bench, table)),  # type: ignore[misc]
                changes=[nothing, one_more_photo],
                remedy=lambda bench, table=table: _last_entry(bench, table).unlink(),  # type: ignore[misc]
                is_damage=True,
            )


def _last_entry(bench: Bench, table: str) -> Path:
    return max((bench.lake / table / LOG).glob("*.json"))


# Files


def files() -> Iterator[Fault]:
    """Files of versions that are current are not what was written, or not there."""
    wanted: dict[str, Callable[[Bench], Path]] = {
        **{f"rows of {asset}": functools.partial(_rows, asset=asset) for asset in ASSETS},
        f"rows of {_QUARANTINE}": functools.partial(_rows, asset=_QUARANTINE),
        "flatbuffer": functools.partial(_of_version, asset=MODEL, pattern="*.tflite"),
        "data of the scaler": functools.partial(_of_version, asset=SCALED, pattern="*/data/*.parquet"),
        "metadata of the scaler": functools.partial(_of_version, asset=SCALED, pattern="*/metadata/part-*"),
        "data of the PCA": functools.partial(_of_version, asset=PCA, pattern="*/data/*.parquet"),
        "metadata of the PCA": functools.partial(_of_version, asset=PCA, pattern="*/metadata/part-*"),
        **{
            f"facts.json of {asset}": functools.partial(_of_version, asset=asset, pattern="facts.json")
            for asset in (RAW, MODEL, RESULTS)
        },
        CSV: functools.partial(_of_version, asset=RESULTS, pattern=CSV),
    }
    for name, find in wanted.items():
        for what, damage in (("truncated", truncate), ("missing", Path.unlink), ("with flipped bytes", flip)):
            yield _of_file(f"{name} {what}", lambda bench, find=find, damage=damage: damage(find(bench)))  # type: ignore[misc]
    yield _of_file("link to results.csv missing", lambda bench: (bench.lake / RESULTS / CSV).unlink())
    yield _of_file("results.csv a file of somebody else's", _instead_of_link)


def _of_file(name: str, inflict: Callable[[Bench], object]) -> Fault:
    return Fault(
        name,
        [("{lake}",), _AGAIN],
        inflict=inflict,  # type: ignore[arg-type]
        changes=[nothing, one_more_photo],
        is_damage=True,
    )


def _rows(bench: Bench, asset: str) -> Path:
    version = lake_checks.published(bench.lake, asset)
    assert version
    path, _, _ = max(version.files, key=lambda file: file[1])
    return version.folder / path


def _of_version(bench: Bench, asset: str, pattern: str) -> Path:
    version = lake_checks.published(bench.lake, asset)
    assert version
    (file,) = version.version_folder.glob(pattern)
    return file


def _instead_of_link(bench: Bench) -> None:
    link = bench.lake / RESULTS / CSV
    link.unlink()
    link.write_text("path,label\nmine,mine\n")


def truncate(file: Path) -> None:
    """Leave half of it."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def overwrite(file: Path) -> None:
    """Put something else there, as long as what it was."""
    file.write_bytes(b"\x00\xffgarbage\n" * (file.stat().st_size // 10 + 1))


def flip(file: Path) -> None:
    """Invert some bytes in the middle."""
    content = bytearray(file.read_bytes())
    start = max(0, (len(content) - _FLIPPED_BYTES) // 2)
    for i in range(start, min(start + _FLIPPED_BYTES, len(content))):
        content[i] ^= 0xFF
    file.write_bytes(content)
