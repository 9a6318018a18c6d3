"""What goes wrong in Spark is told with the thing, the cause and the way out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
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
"""
EPILOGUE = """
    @dg.asset
    def probe(context: dg.AssetExecutionContext, spark: LocalSpark) -> None:
        spark.run(context, stage, {}, Output("/lake/probe", "run-0"), Params())

    def materialize():
        spark = LocalSpark(driver_memory="512m")
        return dg.materialize([probe], resources={"spark": spark}, raise_on_error=False)

    for event in materialize().all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            print("FAILED", (error.cause or error).message)
    if "AGAIN" in os.environ:
        print("AGAIN", materialize().success)
"""


def run(stage: str, folder: Path, **environment: str) -> str:
    """What a run of this stage says, in a process of its own."""
    code = textwrap.dedent(PRELUDE) + textwrap.dedent(stage) + textwrap.dedent(EPILOGUE)
    script = folder / "run.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "TMPDIR": str(folder), **environment},
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
        """,
        tmp_path,
    )
    assert "The Java process of Spark was killed by signal 9. The usual reason is memory" in said


def test_a_killed_python_worker_is_told_as_such(tmp_path: Path) -> None:
    said = run(
        """
        def stage(spark, inputs, output, params):
            kill = lambda _: os.kill(os.getpid(), signal.SIGKILL)
            spark.sparkContext.parallelize([0], 1).foreach(kill)
        """,
        tmp_path,
    )
    assert "A Python worker of Spark was killed. The usual reason is memory" in said


def test_a_full_disk_is_told_with_its_places(tmp_path: Path) -> None:
    said = run(
        """
        def stage(spark, inputs, output, params):
            def full(_):
                raise OSError(28, "No space left on device", "some/file")
            spark.sparkContext.parallelize([0], 1).foreach(full)
        """,
        tmp_path,
    )
    assert "The disk is full (No space left on device) at one of /lake/probe and " in said
    assert str(tmp_path) in said
    assert "Free space there, or set FRUITS_LAKE and TMPDIR" in said


def test_a_workers_own_message_is_not_lost_among_javas(tmp_path: Path) -> None:
    said = run(
        """
        def stage(spark, inputs, output, params):
            def damaged(_):
                from fruits_assets.stages.parquet import DamagedFileError
                raise DamagedFileError("'/lake/f.parquet' is damaged (CRC). What was in it is made anew.")
            spark.sparkContext.parallelize([0], 1).foreach(damaged)
        """,
        tmp_path,
    )
    (line,) = [line for line in said.splitlines() if line.startswith("FAILED")]
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
        """,
        tmp_path,
        AGAIN="yes",
    )
    assert "DagsterExecutionInterruptedError" in said or "KeyboardInterrupt" in said
    assert "AttributeError" not in said
    assert "AGAIN True" in said
