"""The graph on a cluster of several processes, one of which dies in the middle of the extraction."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from fruits_assets.definitions import SAMPLE_IMAGES
from fruits_assets_tests.graph import ANY_CLASSIFIER, PROJECT, Graph, Materialized, write_run_config
from fruits_assets_tests.resources.standalone_cluster import (
    QUICK_START,
    StandaloneCluster,
    Worker,
    standalone_cluster,
    wait_until,
)
from fruits_assets_tests.test_command_line import DAGSTER, TARGET, environment

pytestmark = pytest.mark.slow

RUN_S = 500
SPARK_STAGES = [
    "raw_images",
    "mobilenet_features",
    "scaled_features",
    "pca_model",
    "pca_features_csv",
    "fruit_classifier",
]


def with_enough_images(graph: Graph) -> Graph:
    """So many that the extraction has tasks left to do when some are done: some 30 images make one."""
    shutil.copytree(SAMPLE_IMAGES, graph.source, dirs_exist_ok=True)
    for file in SAMPLE_IMAGES.rglob("*.jpg"):
        with Image.open(file) as image:
            mirrored = graph.source / file.parent.name / f"mirrored {file.name}"
            ImageOps.mirror(image).save(mirrored, quality=95)
    return graph


def settings_of_spark(folder: Path) -> Mapping[str, str]:
    """What a user of such a cluster would set: a spark-defaults.conf, and the address of this machine."""
    (folder / "events").mkdir(parents=True)
    properties = {
        "spark.executor.memory": "768m",
        "spark.executor.extraJavaOptions": " ".join(map(shlex.quote, QUICK_START)),
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": (folder / "events").as_uri(),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
    }
    lines = [f"{name} {value}\n" for name, value in properties.items()]
    (folder / "spark-defaults.conf").write_text("".join(lines), encoding="utf-8")
    return {"SPARK_CONF_DIR": str(folder), "SPARK_LOCAL_IP": "127.0.0.1"}


def crash_in_mid_extraction(cluster: StandaloneCluster, run: subprocess.Popen[bytes], lake: Path) -> Worker:
    """Crash a worker, once a few tasks are done or under way."""

    def two_tasks_are_done() -> bool:
        assert run.poll() is None, "the run ended before its extraction could be seen"
        return len(list(lake.glob("mobilenet_features/_versions/*/*.parquet"))) >= 4

    wait_until(two_tasks_are_done, RUN_S)
    victim = cluster.workers[0]
    victim.crash()
    return victim


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """What Spark itself wrote down about the run."""
    (file,) = (folder / "events").iterdir()
    lines = file.read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["Event"] == f"SparkListener{kind}"]


def assert_died_in_mid_extraction(spark_folder: Path, dead: str, survivor: str) -> None:
    """Both had a share in the stage, one lost a task of it, and the other did the rest and some anew."""
    ends = events(spark_folder, "TaskEnd")
    lost = [end for end in ends if end["Task End Reason"]["Reason"] == "ExecutorLostFailure"]
    assert {end["Task Info"]["Executor ID"] for end in lost} == {dead}
    (stage,) = {end["Stage ID"] for end in lost}
    (job,) = [start for start in events(spark_folder, "JobStart") if stage in start["Stage IDs"]]
    assert job["Properties"]["spark.job.description"] == "mobilenet_features"
    (removed,) = [
        event["Timestamp"]
        for event in events(spark_folder, "ExecutorRemoved")
        if event["Executor ID"] == dead
    ]
    of_stage = [end for end in ends if end["Stage ID"] == stage]
    before = [end for end in of_stage if end["Task Info"]["Launch Time"] < removed]
    after = [end for end in ends if end["Task Info"]["Launch Time"] > removed]
    assert {end["Task Info"]["Executor ID"] for end in before} == {dead, survivor}
    assert {end["Task Info"]["Executor ID"] for end in after} == {survivor}
    assert [end for end in of_stage if end in after]


def features(graph: Graph) -> tuple[list[str], np.ndarray]:
    table = graph.rows("mobilenet_features")
    return table["path"].to_pylist(), np.array(table["features"].to_pylist())


def components(graph: Graph) -> tuple[pa.Table, np.ndarray]:
    table = pq.read_table(graph.results.with_suffix(".parquet"))
    return table.select(["path", "label"]), np.column_stack(table.columns[2:])


def assert_same_results(graph: Graph, expected: Graph) -> None:
    paths, found = features(graph)
    expected_paths, wanted = features(expected)
    assert paths == expected_paths
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    names, scores = components(graph)
    expected_names, expected_scores = components(expected)
    assert names.equals(expected_names)
    np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=1e-4)
    for asset in SPARK_STAGES:
        assert graph.lake.current(asset).data_version == expected.lake.current(asset).data_version


def run_and_crash_a_worker(graph: Graph, folder: Path) -> None:
    """Materialize all of it on a cluster of two workers, one of which dies."""
    log, config = folder / "run.log", write_run_config(folder / "run.yaml", ANY_CLASSIFIER)
    with standalone_cluster(folder / "cluster", n_workers=2) as cluster, log.open("wb") as log_file:
        env = {
            **environment(graph.source, graph.lake_root, folder / "home"),
            **settings_of_spark(folder / "spark"),
            "FRUITS_SPARK_MASTER": cluster.master,
        }
        run = subprocess.Popen(
            [DAGSTER, "job", "execute", *TARGET, "-j", "fruits_pipeline", "-c", str(config)],
            env=env,
            cwd=PROJECT,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            victim = crash_in_mid_extraction(cluster, run, graph.lake_root)
            run.wait(RUN_S)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
        states = cluster.states()
    assert run.returncode == 0, log.read_text(encoding="utf-8")[-8000:]
    (survivor,) = [worker for worker in cluster.workers if worker is not victim]
    assert states == {victim.port: "DEAD", survivor.port: "ALIVE"}
    (dead_executor,), (live_executor,) = victim.executors, survivor.executors
    assert_died_in_mid_extraction(folder / "spark", dead_executor, live_executor)


def test_a_worker_that_dies_in_mid_extraction_changes_nothing_in_the_results(
    materialized: Materialized, tmp_path: Path
) -> None:
    local = with_enough_images(materialized.graph.copy(tmp_path / "local"))
    local.materialize(SPARK_STAGES)
    on_cluster = Graph(local.source, tmp_path / "lake")
    run_and_crash_a_worker(on_cluster, tmp_path)
    assert_same_results(on_cluster, local)


def start_session(master: str) -> subprocess.CompletedProcess[str]:
    """Ask for a session in a process of its own, with little patience for workers."""
    code = (
        "import sys\n"
        "from fruits_assets.resources import spark_session\n"
        "spark_session._WORKERS_WAIT_S = 2\n"
        "spark_session.session(sys.argv[1], driver_memory='512m')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, master],
        env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_S,
    )


def test_a_cluster_without_workers_is_an_error_and_not_an_endless_wait(tmp_path: Path) -> None:
    with standalone_cluster(tmp_path, n_workers=0) as cluster:
        done = start_session(cluster.master)
    assert done.returncode != 0
    assert f"SparkSetupError: No worker of '{cluster.master}'" in done.stderr
    assert "FRUITS_SPARK_MASTER" in done.stderr


def test_a_master_that_does_not_answer_is_named_before_spark_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    done = start_session(f"spark://{address}")
    assert done.returncode != 0
    assert f"SparkSetupError: No Spark master answers at 'spark://{address}' ({address}: " in done.stderr
    assert "FRUITS_SPARK_MASTER" in done.stderr
    assert "SparkContext" not in done.stderr
