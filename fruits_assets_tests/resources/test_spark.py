"""The local Spark: what it needs, what its workers run, where its stages' lines go."""

import gc
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from fruits_assets.resources.failures import RefusedError
from fruits_assets.resources.spark import LocalSpark
from fruits_assets.stages import progress as progress_module
from fruits_assets.stages.progress import progress, progress_line
from fruits_assets.stages.stage import Stage, StageResult, logger
from fruits_assets.stages.stored import Output, Stored, StoredTable

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Params:
    n_rows: int


OUTPUT = Output("/lake/probe", "run-0")


def talking_stage(
    spark: SparkSession, inputs: Mapping[str, Stored], output: Output, params: Params
) -> StageResult:
    logger.info("counting for %s", output.asset)
    return StageResult(spark.range(params.n_rows).count(), {"id": "bigint"}, {}, {"inputs": dict(inputs)})


def failing_stage(
    spark: SparkSession, inputs: Mapping[str, Stored], output: Output, params: Params
) -> StageResult:
    raise ValueError(f"{output.asset} is no good")


def run(
    stage: Stage[Params], inputs: Mapping[str, Stored], output: Output = OUTPUT
) -> tuple[StageResult | None, dg.ExecuteInProcessResult]:
    results: list[StageResult] = []

    @dg.asset
    def probe(context: dg.AssetExecutionContext, spark: LocalSpark) -> None:
        results.append(spark.run(context, stage, inputs, output, Params(7)))

    result = dg.materialize([probe], resources={"spark": LocalSpark()}, raise_on_error=False)
    return (results[0] if results else None), result


def test_a_stage_gets_its_arguments_and_its_lines_go_to_the_dagster_log(
    spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    stored = Stored(StoredTable("/in", ()), "/in/models")
    result, _ = run(talking_stage, {"a": stored})
    assert result is not None
    assert (result.row_count, result.metadata) == (7, {"inputs": {"a": stored}})
    log = capfd.readouterr().err
    assert "probe - counting for /lake/probe" in log
    assert "probe - talking_stage took" in log
    assert logger.handlers == []


def test_a_failing_stage_fails_the_asset_with_its_own_message(spark: SparkSession) -> None:
    _, result = run(failing_stage, {})
    assert not result.success
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    assert "/lake/probe is no good" in str(failure.step_failure_data.error)
    assert logger.handlers == []


def test_workers_use_the_drivers_python_and_import_nothing_heavy(spark: SparkSession) -> None:
    # Inside the test, so that a worker does not import this module and Dagster with it.
    def modules_of_a_worker(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import fruits_assets.stages.mobilenet_features  # noqa: F401  # what every worker imports

        for batch in batches:
            pa.array(batch[0].to_pylist())
            heavy = sorted({"tensorflow", "keras", "dagster", "matplotlib", "pandas"} & sys.modules.keys())
            yield pa.RecordBatch.from_pydict({"python": [sys.executable], "heavy": [",".join(heavy)]})

    rows = spark.range(1).mapInArrow(modules_of_a_worker, "python string, heavy string").collect()
    assert [(row["python"], row["heavy"]) for row in rows] == [(sys.executable, "")]


def test_what_workers_need_is_there_before_their_first_task_and_not_searched_for_garbage(
    spark: SparkSession,
) -> None:
    def looked(_: int) -> tuple[bool, bool]:
        return "fruits_assets.stages.raw_images" in sys.modules, gc.get_freeze_count() > 50_000

    assert spark.sparkContext.parallelize([0], 1).map(looked).collect() == [(True, True)]


def test_another_projects_pyspark_python_does_no_harm(tmp_path: Path) -> None:
    code = (
        "from fruits_assets.resources.spark import LocalSpark\n"
        "session = LocalSpark(driver_memory='512m').session\n"
        "print('sum', session.sparkContext.parallelize([1, 2, 3], 2).map(lambda x: x * x).sum())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYSPARK_PYTHON": "/nowhere/python", "PYSPARK_DRIVER_PYTHON": "jupyter"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "sum 14" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("version", "message"), [(None, "no bin/java"), ('openjdk version "11.0.2"', "is 11.0.2")]
)
def test_no_java_or_an_old_one_is_an_error_that_says_what_to_install(
    version: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    if version:
        java = tmp_path / "bin" / "java"
        java.write_text(f"#!/bin/sh\necho '{version}' >&2\n")
        java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(RefusedError, match="Java 17 or newer") as error:
        LocalSpark().setup_for_execution(dg.build_init_resource_context())
    assert message in str(error.value)
    assert "openjdk-17-jre-headless" in str(error.value)


def test_progress_is_logged_while_tasks_run(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress_module, "INTERVAL_S", 0.2)
    with caplog.at_level(logging.INFO, logger=logger.name), progress(spark, "sleeping", 8) as done:

        def sleep(i: int) -> int:
            time.sleep(0.25)
            done.add(1)
            return i

        spark.sparkContext.parallelize(range(8), 8).map(sleep).collect()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) >= 3
    assert any(line.startswith("sleeping: ") and "s left" in line for line in lines[:-1])
    assert lines[-1].startswith("sleeping: 8 / 8 images")


def test_a_progress_line_gives_count_rate_and_time_left() -> None:
    assert progress_line("x", 500, 2000, "images", 10.0) == "x: 500 / 2,000 images, 50.0 images/s, 30 s left"
    assert progress_line("x", 0, 2000, "images", 10.0) == "x: 0 / 2,000 images, 0.0 images/s"


def test_a_session_that_another_thread_started_is_not_started_again(spark: SparkSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = f"spark://127.0.0.1:{server.getsockname()[1]}"
    with ThreadPoolExecutor(1) as other_thread:
        session = other_thread.submit(lambda: LocalSpark(master=gone).session).result()
    assert session.sparkContext is spark.sparkContext
