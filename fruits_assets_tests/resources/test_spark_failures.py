"""What goes wrong in Spark is told with the thing, the cause and the way out."""

from __future__ import annotations

import os
import signal
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
        [sys.executable, str(script)],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    return done.stdout + done.stderr


def test_a_killed_java_process_is_told_as_such(tmp_path: Path) -> None:
    said = run(
        """
        def stage(spark, inputs, output, params):
            spark.sparkContext.parallelize([0], 1).count()
            os.kill(spark.sparkContext._gateway.proc.pid, signal.SIGKILL)
            return nothing(spark, inputs, output, params)

        materialize()
        """,
        tmp_path,
    )
    assert "The Java process of Spark was killed by signal 9. The usual reason is memory" in said
    assert "FRUITS_SPARK_MASTER=local[2]" in said


def test_a_java_process_that_was_killed_before_the_stage_began_is_told_as_such(tmp_path: Path) -> None:
    said = run(
        """
        stage = nothing
        session = LocalSpark(driver_memory="512m").session
        os.kill(session.sparkContext._gateway.proc.pid, signal.SIGKILL)
        time.sleep(1)
        materialize()
        """,
        tmp_path,
    )
    assert "The Java process of Spark was killed by signal 9. The usual reason is memory" in said


@pytest.fixture(scope="module")
def failed_tasks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, str]]:
    """The folder for temporary files, and what a run says of a task that fails, by how it does."""
    folder = tmp_path_factory.mktemp("tasks")
    said = run(
        """
        def killed(_):
            os.kill(os.getpid(), signal.SIGKILL)

        def full(_):
            raise OSError(28, "No space left on device", "some/file")

        def damaged(_):
            from fruits_assets.stages.parquet import DamagedFileError
            raise DamagedFileError("'/lake/f.parquet' is damaged (CRC). What was in it is made anew.")

        def stage(spark, inputs, output, params):
            spark.sparkContext.parallelize([0], 1).foreach(task)

        for task in (killed, full, damaged):
            print("TASK", task.__name__)
            materialize()
        """,
        folder,
    )
    _, *of_tasks = said.split("TASK ")
    return folder, dict(of_task.split("\n", 1) for of_task in of_tasks)


def test_a_killed_python_worker_is_told_as_such(failed_tasks: tuple[Path, Mapping[str, str]]) -> None:
    _, said = failed_tasks
    assert "A Python worker of Spark was killed. The usual reason is memory" in said["killed"]


def test_a_full_disk_is_told_with_its_places(failed_tasks: tuple[Path, Mapping[str, str]]) -> None:
    folder, said = failed_tasks
    assert "The disk is full (No space left on device) at one of /lake/probe and " in said["full"]
    assert str(folder) in said["full"]
    assert "Free space there, or set FRUITS_LAKE and TMPDIR" in said["full"]


def test_a_workers_own_message_is_not_lost_among_javas(
    failed_tasks: tuple[Path, Mapping[str, str]],
) -> None:
    _, said = failed_tasks
    (line,) = [line for line in said["damaged"].splitlines() if line.startswith("FAILED")]
    assert "'/lake/f.parquet' is damaged (CRC). What was in it is made anew." in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_cancelled_run_is_told_as_cancelled_and_leaves_a_session_that_works(
    tmp_path: Path, number: signal.Signals
) -> None:
    said = run(
        f"""
        stops = []
        def stage(spark, inputs, output, params):
            if not stops:
                stops.append(1)
                stop = lambda: (time.sleep(2), os.kill(os.getpid(), {number.value}))
                threading.Thread(target=stop).start()
                spark.sparkContext.parallelize([0], 1).foreach(lambda _: time.sleep(10))
            return nothing(spark, inputs, output, params)

        materialize()
        print("AGAIN", materialize())
        """,
        tmp_path,
    )
    assert "DagsterExecutionInterruptedError" in said or "KeyboardInterrupt" in said
    assert "AttributeError" not in said
    assert "AGAIN True" in said
