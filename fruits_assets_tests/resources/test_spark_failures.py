"""What goes wrong in Spark is told with the thing, the cause and the way out."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PRELUDE = """
    import os, signal, sys, threading, time
    import dagster as dg
    from dataclasses import dataclass
    from fruits_assets.resources.spark import LocalSpark
    from fruits_assets.stages.stage import StageResult
    from fruits_assets.stages.stored import Output

    @dataclass(frozen=True)
    class Params:
        pass

    def nothing(spark, inputs, output, params):
        return StageResult(spark.sparkContext.parallelize(range(2), 2).count(), {}, {})

    @dg.asset
    def probe(context: dg.AssetExecutionContext, spark: LocalSpark) -> None:
        spark.run(context, stage, {}, Output("/lake/probe", "run-0"), Params())

    def materialize():
        spark = LocalSpark(driver_memory="512m")
        done = dg.materialize([probe], resources={"spark": spark}, raise_on_error=False)
        for event in done.all_events:
            if event.is_step_failure:
                error = event.step_failure_data.error
                print("FAILED", (error.cause or error).message)
        return done.success
"""


def run(code: str, folder: Path) -> str:
    """What this code says, in a process of its own; `materialize` runs whatever `stage` is."""
    code = textwrap.dedent(PRELUDE) + textwrap.dedent(code)
    script = folder / "run.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, "-u", str(script)],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=200,
    )
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For temporary files."""
    return tmp_path_factory.mktemp("failures")


@pytest.fixture(scope="module")
def said(folder: Path) -> Mapping[str, str]:
    """By what goes wrong, all in one session: three tasks, two signals, and Java at last."""
    told = run(
        """
        def killed(_):
            os.kill(os.getpid(), signal.SIGKILL)

        def full(_):
            raise OSError(28, "No space left on device", "some/file")

        def damaged(_):
            from fruits_assets.stages.parquet import DamagedFileError
            raise DamagedFileError("'/lake/f.parquet' is damaged (CRC). What was in it is made anew.")

        for task in (killed, full, damaged):
            def stage(spark, inputs, output, params):
                spark.sparkContext.parallelize([0], 1).foreach(task)

            print("CASE", task.__name__)
            materialize()

        for number in (signal.SIGTERM, signal.SIGINT):
            def stage(spark, inputs, output, params):
                stop = lambda: (time.sleep(1), os.kill(os.getpid(), number))
                threading.Thread(target=stop).start()
                spark.sparkContext.parallelize([0], 1).foreach(lambda _: time.sleep(600))

            print("CASE", number.name)
            materialize()
            stage = nothing
            print("AGAIN", materialize())

        def stage(spark, inputs, output, params):
            spark.sparkContext.parallelize([0], 1).count()
            os.kill(spark.sparkContext._gateway.proc.pid, signal.SIGKILL)
            return nothing(spark, inputs, output, params)

        print("CASE Java")
        materialize()
        """,
        folder,
    )
    _, *cases = told.split("CASE ")
    return dict(case.split("\n", 1) for case in cases)


def test_a_killed_java_process_is_told_as_such(said: Mapping[str, str]) -> None:
    assert "The Java process of Spark was killed by signal 9. The usual reason is memory" in said["Java"]
    assert "FRUITS_SPARK_MASTER=local[2]" in said["Java"]


def test_a_java_process_that_was_killed_before_the_stage_began_is_told_as_such(tmp_path: Path) -> None:
    said = run(
        """
        stage = nothing
        session = LocalSpark(driver_memory="512m").session
        os.kill(session.sparkContext._gateway.proc.pid, signal.SIGKILL)
        session.sparkContext._gateway.proc.wait()
        materialize()
        """,
        tmp_path,
    )
    assert "The Java process of Spark was killed by signal 9. The usual reason is memory" in said


def test_a_killed_python_worker_is_told_as_such(said: Mapping[str, str]) -> None:
    assert "A Python worker of Spark was killed. The usual reason is memory" in said["killed"]


def test_a_full_disk_is_told_with_its_places(folder: Path, said: Mapping[str, str]) -> None:
    assert "The disk is full (No space left on device) at one of /lake/probe and " in said["full"]
    assert str(folder) in said["full"]
    assert "Free space there, or set FRUITS_LAKE and TMPDIR" in said["full"]


def test_a_workers_own_message_is_not_lost_among_javas(said: Mapping[str, str]) -> None:
    (line,) = [line for line in said["damaged"].splitlines() if line.startswith("FAILED")]
    assert "'/lake/f.parquet' is damaged (CRC). What was in it is made anew." in line


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_cancelled_run_is_told_as_cancelled_and_leaves_a_session_that_works(
    name: str, said: Mapping[str, str]
) -> None:
    assert "DagsterExecutionInterruptedError" in said[name] or "KeyboardInterrupt" in said[name]
    assert "AttributeError" not in said[name]
    assert "AGAIN True" in said[name]
