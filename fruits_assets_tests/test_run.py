"""What `fruits run` says of a run that is made, that cannot begin, that fails and that is cancelled."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import psutil
import pytest

from fruits_assets.jobs import fruits_pipeline
from fruits_assets.terminal import LiveLines
from fruits_assets_tests.conftest import write_image
from fruits_assets_tests.graph import ANY_CLASSIFIER, N_IMAGES, PROJECT, sample_source, write_run_config
from fruits_assets_tests.test_command_line import environment

pytestmark = pytest.mark.slow

RUN = (sys.executable, "-m", "fruits_assets.command_line", "run")
ASSETS = [
    "mobilenet_model",
    "raw_images",
    "mobilenet_features",
    "scaled_features",
    "pca_model",
    "fruit_classifier",
    "pca_features_csv",
    "run_report",
]
NEW_LINE = "\r\x1b[K"
# What Spark, LiteRT and Dagster say by themselves.
STRAY = ("incubator modules", "Setting default log level", "XNNPACK", " - dagster - ", "Traceback")


@dataclass(frozen=True)
class Told:
    """What a run has said: its lines, and the summary if it was made."""

    status: int
    lines: Sequence[str]
    summary: str

    @property
    def log(self) -> Path:
        """That the first line names."""
        return Path(self.lines[0].partition(", log: ")[2])

    @property
    def last(self) -> str:
        """The paragraph that stands last, which names the log too."""
        words, _, log = self.lines[-1].partition(" The trace is in ")
        assert log == str(self.log)
        assert self.lines[-2] == ""
        return words


def fruits_run(
    env: Mapping[str, str], *arguments: str, command: Sequence[str] = RUN, cwd: Path = PROJECT
) -> Told:
    done = subprocess.run(
        [*command, *arguments], env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )
    return Told(done.returncode, done.stderr.splitlines(), done.stdout)


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory, network: object) -> Mapping[str, str]:
    """Of a few photos and an empty lake; the network has been converted."""
    folder = tmp_path_factory.mktemp("run")
    return environment(sample_source(folder / "source"), folder / "lake", folder / "home")


@pytest.fixture(scope="module")
def made(env: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The first run."""
    of_assets = {"pca_model": {"n_components": 3}, **ANY_CLASSIFIER}
    config = write_run_config(tmp_path_factory.mktemp("config") / "run.yaml", of_assets)
    return fruits_run(env, "--config", str(config))


def recorded(told: Told, env: Mapping[str, str]) -> dg.DagsterRun:
    """What Dagster has of the run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", env["DAGSTER_HOME"])
        with dg.DagsterInstance.get() as instance:
            (run,) = [run for run in instance.get_runs() if run.run_id in told.lines[0]]
            return run


def test_a_run_is_told_in_a_line_for_each_asset_and_a_summary(env: Mapping[str, str], made: Told) -> None:
    assert made.status == 0, made.lines
    ended = [line for line in made.lines if re.match(r"^\w+ +\d+\.\d s  ", line)]
    assert [line.split()[0] for line in ended] == ASSETS
    assert re.fullmatch(rf"raw_images +\d+\.\d s  {N_IMAGES} rows, version 0", ended[1])
    assert f"{N_IMAGES} images, 8 labels, 0 set aside" in made.summary
    assert "3 components explain" in made.summary
    said = "\n".join([*made.lines, made.summary])
    assert not [words for words in STRAY if words in said]
    log = made.log.read_text()
    assert "Setting default log level" in log
    assert f"extracting features: {N_IMAGES} / {N_IMAGES} images" in log


def test_dagster_knows_the_run_as_one_of_the_job(env: Mapping[str, str], made: Told) -> None:
    run = recorded(made, env)
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert run.job_name == fruits_pipeline.name
    assert run.job_code_origin is not None


def small_source(folder: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        write_image(folder / "Kaki" / name, "orange")
        write_image(folder / "Lime" / name, "green")
    return folder


def test_a_failed_check_is_told_with_its_numbers(env: Mapping[str, str], made: Told) -> None:
    gone = sorted(Path(env["FRUITS_IMAGES"]).glob("*/*"))[::2]
    for photo in gone:
        photo.unlink()
    told = fruits_run(env)
    assert told.status == 1
    assert told.last.startswith(
        "raw_images is not published, what was current stays so: keeps_previous_images "
        f"(share_of_previous 0.5, minimum 0.8, previous {N_IMAGES}, lost {len(gone)}). See whether "
    )
    assert told.last.endswith(" min_share_of_previous: 0, accepts the loss.")
    assert re.fullmatch(r"raw_images +\d+\.\d s  failed", told.lines[-3])
    assert recorded(told, env).status == dg.DagsterRunStatus.FAILURE


def test_weights_that_cannot_be_fetched_are_told(env: Mapping[str, str], tmp_path: Path) -> None:
    source = small_source(tmp_path / "source")
    nobody = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    settings = {
        "FRUITS_IMAGES": str(source),
        "FRUITS_LAKE": str(tmp_path / "lake"),
        "FRUITS_WEIGHTS": "imagenet",
    }
    told = fruits_run({**env, **nobody, **settings, "KERAS_HOME": str(tmp_path)})
    assert told.status == 1
    assert told.last.startswith("The ImageNet weights are not in Keras' cache and could not be fetched: ")
    assert told.last.endswith("or to 'demo' for the bundled weights.")
    assert len(told.lines) < 15


# Those that are found once the graph has begun. The others have no need of Spark, which begins with the run
# and takes as long as all else.
FOUND_LATER = ("no such folder", "no such weights")
NO_SPARK = {"FRUITS_SPARK_MASTER": "spark://127.0.0.1:9"}
CONFIGURATION = "Configuration '{tmp}/run.yaml': "
# What is set, what is in the configuration file, and how the last paragraph begins and ends.
MISTAKES = {
    "no such folder": (
        {"FRUITS_IMAGES": "{tmp}/photso"},
        None,
        "Image source '{tmp}/photso': no such folder or prefix. ",
        "Set FRUITS_IMAGES to one that holds <label>/<file>.",
    ),
    "no such weights": (
        {"FRUITS_WEIGHTS": "{tmp}/w.h5"},
        None,
        "Weights '{tmp}/w.h5': no such file",
        "or to 'demo' for the bundled weights.",
    ),
    "no Java": (
        {"JAVA_HOME": "{tmp}"},
        None,
        "Spark needs Java 17 or newer: JAVA_HOME ({tmp}) has no bin/java. ",
        "or set JAVA_HOME to one.",
    ),
    "no such kind of Spark": (
        {"FRUITS_SPARK": "loacl"},
        None,
        "FRUITS_SPARK=loacl: Input should be 'local' or 'emr'. ",
        "Correct it, or unset it.",
    ),
    "a number that is too small": (
        {"FRUITS_LAKE_KEEP_VERSIONS": "0"},
        None,
        "FRUITS_LAKE_KEEP_VERSIONS=0: Input should be greater than or equal to 1. ",
        "Correct it, or unset it.",
    ),
    "no such file of configuration": ({}, "", CONFIGURATION + "No such file or directory. ", "in it."),
    "no YAML": ({}, "ops: [", CONFIGURATION + "no YAML: ", "in it."),
    "no mapping": ({}, "- ops", CONFIGURATION + "not names with values, but list. ", "in it."),
    "no such asset": (
        {},
        "ops: {pca: {config: {n_components: 3}}}",
        CONFIGURATION
        + 'Received unexpected config entry "pca" at path root:ops. Expected: "{{ fruit_classifier? '
        "mobilenet_features? ",
        "in it.",
    ),
    "a value that is refused": (
        {},
        "ops: {pca_model: {config: {n_components: -3}}}",
        CONFIGURATION
        + "root:ops:pca_model:config: n_components = -3: Input should be greater than or equal to 1. ",
        "docs/settings.md has one with everything in it.",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_paragraph_before_anything_is_made(
    mistake: str, env: Mapping[str, str], tmp_path: Path
) -> None:
    settings, content, begin, end = MISTAKES[mistake]
    lake = tmp_path / "lake"
    wrong = {name: value.format(tmp=tmp_path) for name, value in settings.items()}
    config = tmp_path / "run.yaml"
    if content:
        config.write_text(content)
    arguments = [] if content is None else ["--config", str(config)]
    spark = {} if mistake in FOUND_LATER else NO_SPARK
    told = fruits_run({**env, "FRUITS_LAKE": str(lake), **spark, **wrong}, *arguments)
    assert told.status == 1
    assert told.last.startswith(begin.format(tmp=tmp_path))
    assert told.last.endswith(end)
    # A slow machine says that it is still starting.
    assert len([line for line in told.lines if not line.startswith("starting ")]) == 3
    assert told.summary == ""
    assert "Traceback" in told.log.read_text() or "Stack Trace" in told.log.read_text()
    assert not list(lake.glob("*/_versions"))


FULL_DISK = """
import os, sys, traceback
from fruits_assets.command_line import main

def full(*_):
    raise OSError(28, "No space left on device")

os.fsync = traceback.print_exc = full
sys.exit(main(["run"]))
"""


def test_a_full_disk_is_told_even_if_the_log_is_on_it(env: Mapping[str, str], tmp_path: Path) -> None:
    of_run = {**env, "FRUITS_LAKE": str(tmp_path / "lake")}
    told = fruits_run(of_run, command=[sys.executable, "-c", FULL_DISK])
    assert told.status == 1
    assert told.last.startswith(
        f"The lake '{tmp_path}/lake' cannot be written to: [Errno 28] No space left on "
    )
    assert ", free space there, " in told.last


def test_a_home_of_dagster_that_cannot_be_one_is_told(env: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / "home").write_text("in the way")
    told = fruits_run({**env, "DAGSTER_HOME": str(tmp_path / "home")})
    assert told.status == 1
    (line,) = told.lines
    assert line.startswith(f"DAGSTER_HOME '{tmp_path}/home' cannot be written to: ")


def test_without_a_home_of_dagster_one_is_made_where_it_is_and_keeps_the_newest_logs(
    env: Mapping[str, str], tmp_path: Path
) -> None:
    logs = tmp_path / ".dagster_home" / "logs"
    logs.mkdir(parents=True)
    for i in range(30):
        (logs / f"2020-01-01T00-00-{i:02}-x.log").touch()
    without = {name: value for name, value in env.items() if name != "DAGSTER_HOME"}
    without |= {"FRUITS_SPARK": "loacl", "PYTHONPATH": str(PROJECT)}
    told = fruits_run(without, cwd=tmp_path)
    assert told.log.parent == logs
    assert sorted(path.name for path in logs.iterdir())[:-1] == [
        f"2020-01-01T00-00-{i:02}-x.log" for i in range(11, 30)
    ]


# Cancelled ----------------------------------------------------------------------------------------

CANCELLED = "Cancelled. What was published stays, and the next run goes on from there."


@pytest.fixture
def to_be_cancelled(env: Mapping[str, str], tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """A run that has to read photos; afterwards, whatever it has started has to be gone."""
    lake = str(tmp_path / "lake")
    yield {
        **env,
        "FRUITS_IMAGES": str(small_source(tmp_path / "source")),
        "FRUITS_LAKE": lake,
        "TERM": "xterm",
    }
    started = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("FRUITS_LAKE") == lake:
                started.append(process)
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []


def test_ctrl_c_cancels_a_run_whose_line_changes_on_the_terminal(
    to_be_cancelled: Mapping[str, str],
) -> None:
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(PROJECT)
        os.execvpe(RUN[0], RUN, to_be_cancelled)
    shown, is_cancelled = "", False
    with contextlib.suppress(OSError):  # nobody has the other end any longer
        while more := os.read(terminal, 4096).decode():
            shown += more
            if not is_cancelled and f"{NEW_LINE}raw_images " in shown:
                os.write(terminal, b"\x03")
                is_cancelled = True
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    lines = [line.rpartition(NEW_LINE)[2] for line in shown.replace("\r\n", "\n").split("\n")[:-1]]
    told = Told(130, lines, "")
    assert re.fullmatch(r"mobilenet_model +\d+\.\d s  1 row, version 0", told.lines[1])
    assert re.fullmatch(r"raw_images +\d+\.\d s  cancelled", told.lines[2])
    assert told.last == CANCELLED
    assert recorded(told, to_be_cancelled).status == dg.DagsterRunStatus.CANCELED


def test_a_run_that_is_told_to_end_at_once_is_cancelled(to_be_cancelled: Mapping[str, str]) -> None:
    process = subprocess.Popen(
        RUN, env=to_be_cancelled, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    assert process.stdout
    lines = []
    for line in process.stderr:
        lines.append(line.rstrip("\n"))
        if line.startswith("mobilenet_model"):
            process.send_signal(signal.SIGTERM)
    told = Told(process.wait(), lines, process.stdout.read())
    assert told.status == 130
    assert told.last == CANCELLED
    assert told.summary == ""
    assert recorded(told, to_be_cancelled).status == dg.DagsterRunStatus.CANCELED


CANCELLED_EARLY = """
import os, signal, sys
from dagster._core.execution import api
from fruits_assets.command_line import main

api.ExecuteRunWithPlanIterable = lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)
sys.exit(main(["run"]))
"""


def test_a_run_that_is_cancelled_before_its_first_asset_is_recorded_so(env: Mapping[str, str]) -> None:
    told = fruits_run(env, command=[sys.executable, "-c", CANCELLED_EARLY])
    assert told.status == 130
    assert told.last == CANCELLED
    assert recorded(told, env).status == dg.DagsterRunStatus.CANCELED


# Lines that change --------------------------------------------------------------------------------


def test_in_a_log_what_is_under_way_has_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fruits_assets.terminal._LOG_S", 0.01)
    log, told = io.StringIO(), threading.Event()
    counts = itertools.count()

    def now() -> str:
        if (n := next(counts)) == 3:
            told.set()
        return f"{n} done"

    with LiveLines(log, now) as lines:
        lines.say("begins")
        assert told.wait(30)
    assert log.getvalue().splitlines()[:4] == ["begins", "0 done", "1 done", "2 done"]
    assert "\r" not in log.getvalue()


def test_a_line_that_nobody_can_read_any_longer_ends_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    gone = os.fdopen(writer, "w")
    with LiveLines(gone, lambda: "") as lines:
        lines.say("one")
        lines.say("two")
    with contextlib.suppress(BrokenPipeError):
        gone.close()
