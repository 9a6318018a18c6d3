"""The graph on Amazon EMR: real steps of a cluster's Spark, from the settings to the results."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import boto3
import dagster as dg
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from fruits_assets.definitions import GRAPH, SAMPLE_IMAGES, Settings, resources
from fruits_assets.resources.lake import Lake
from fruits_assets_tests.bootstrap.test_stack import STACK, read
from fruits_assets_tests.emr.fake_emr import FakeEmr
from fruits_assets_tests.emr.light_run import failure
from fruits_assets_tests.graph import ANY_CLASSIFIER, PROJECT, Graph, dagster_home, write_run_config

pytestmark = pytest.mark.slow

DAGSTER = str(Path(sys.executable).with_name("dagster"))


@dataclass(frozen=True)
class Project:
    """A bucket with photos in it, and the settings of a user who runs the graph on it."""

    bucket: str
    source: Path
    settings: dict[str, str]

    @property
    def lake(self) -> Lake:
        return Lake(root=self.settings["FRUITS_LAKE"])

    def command(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """A Dagster command in a session of its own."""
        return subprocess.Popen(
            [DAGSTER, *arguments],
            env={**os.environ, **self.settings, **more},
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def materialize(self, *assets: str) -> dg.ExecuteInProcessResult:
        """Materialize in this process."""
        with pytest.MonkeyPatch.context() as environment:
            for name, value in self.settings.items():
                environment.setenv(name, value)
            return dg.materialize(
                cast("Sequence[dg.AssetsDefinition]", GRAPH),
                resources=resources(Settings()),
                selection=assets,
                raise_on_error=False,
            )


@pytest.fixture
def project(fake_emr: FakeEmr, bucket: str, tmp_path: Path) -> Project:
    """What the commands of the README leave behind: stack, images, settings."""
    client = boto3.client("s3")
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    source = tmp_path / "source"
    for label in ("Banana", "Kaki", 'Lemon, "odd" = ö'):
        (source / label).mkdir(parents=True)
        for file in sorted((SAMPLE_IMAGES / label.split(",")[0]).glob("*.jpg"))[:4]:
            shutil.copy(file, source / label)
            client.upload_file(str(file), bucket, f"images/{label}/{file.name}")
    for name in ("bootstrap-emr.sh", "requirements-emr.txt"):
        client.upload_file(str(PROJECT / "bootstrap" / name), bucket, f"bootstrap/{name}")
    emr_settings = {
        "STAGING_URI": f"s3://{bucket}/staging",
        "LOG_URI": f"s3://{bucket}/logs/",
        "BOOTSTRAP_URI": f"s3://{bucket}/bootstrap",
        "SERVICE_ROLE": "service",
        "INSTANCE_PROFILE": "nodes",
        "SUBNET_ID": "subnet-1",
        "CLUSTER_NAME": bucket,
        "POLL_S": "1",
        "LOG_WAIT_S": "20",
    }
    return Project(
        bucket,
        source,
        {
            "FRUITS_SPARK": "emr",
            "FRUITS_IMAGES": f"s3://{bucket}/images",
            "FRUITS_LAKE": f"s3://{bucket}/lake",
            "FRUITS_WEIGHTS": "untrained",
            **{f"FRUITS_EMR_{name}": value for name, value in emr_settings.items()},
            "DAGSTER_HOME": str(dagster_home(tmp_path / "home")),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
        },
    )


def cluster_of(fake_emr: FakeEmr, project: Project) -> str:
    """The one cluster that the project has."""
    (cluster,) = [cluster for cluster in fake_emr.clusters() if cluster.name == project.bucket]
    return cluster.id


def table(project: Project, asset: str) -> dict[str, list[float]]:
    """Path to the values of the last column of a published table."""
    s3 = fsspec.filesystem("s3")
    uris = project.lake.current(asset).table.uris
    columns = pa.concat_tables([pq.read_table(uri.removeprefix("s3://"), filesystem=s3) for uri in uris])
    return dict(zip(columns["path"].to_pylist(), columns.columns[-1].to_pylist(), strict=True))


def rights_of_runner() -> set[str]:
    """Of EMR, those that the stack's policy gives whoever starts runs."""
    statements = read(STACK)["Resources"]["RunnerPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    actions = [it["Action"] if isinstance(it["Action"], list) else [it["Action"]] for it in statements]
    of_all = itertools.chain.from_iterable(actions)
    return {
        name for service, _, name in (it.partition(":") for it in of_all) if service == "elasticmapreduce"
    }


def assert_same_classifier(project: Project, local: Graph) -> None:
    """The same cut, and the same answers but for what the features differ by."""
    uris = project.lake.current("fruit_classifier").table.uris
    s3 = fsspec.filesystem("s3")
    on_cluster = pa.concat_tables(
        [pq.read_table(uri.removeprefix("s3://"), filesystem=s3) for uri in uris]
    ).sort_by("path")
    expected = local.rows("fruit_classifier")
    for name in ("path", "label", "share", "predicted"):
        assert on_cluster[name].to_pylist() == expected[name].to_pylist()
    for name in ("probability", "distance"):
        np.testing.assert_allclose(on_cluster[name].to_numpy(), expected[name].to_numpy(), rtol=1e-3)
    for lake in (project.lake, local.lake):
        version = lake.current("fruit_classifier")
        assert version.table_of("references").n_rows == version.facts["n_training"]
        with fsspec.open(f"{version.folder}/classes.json") as file:
            assert json.load(file)["labels"] == ["Banana", "Kaki", 'Lemon, "odd" = ö']


def test_the_whole_graph_on_a_cluster_gives_what_a_local_run_gives(
    fake_emr: FakeEmr, project: Project, spark: SparkSession, tmp_path: Path
) -> None:
    config = write_run_config(tmp_path / "run.yaml", ANY_CLASSIFIER)
    job = project.command(
        *("job", "execute", "-m", "fruits_assets.definitions", "-j", "fruits_pipeline", "-c", str(config))
    )
    output, _ = job.communicate(timeout=800)
    assert job.returncode == 0, output

    # One cluster, a step for every asset that needs Spark, and their progress in Dagster's log.
    cluster_id = cluster_of(fake_emr, project)
    steps = fake_emr.steps(cluster_id)
    assert [(step.name.split()[0], step.state) for step in steps] == [
        (asset, "COMPLETED")
        for asset in (
            "raw_images",
            "mobilenet_features",
            "scaled_features",
            "pca_model",
            "fruit_classifier",
            "pca_features_csv",
        )
    ]
    assert "mobilenet_features - extracting features: 12 / 12 images" in output
    assert fake_emr.calls.keys() <= rights_of_runner()

    local = Graph(project.source, tmp_path / "local")
    local.materialize()
    features = local.rows("mobilenet_features")
    expected = dict(zip(features["path"].to_pylist(), features["features"].to_pylist(), strict=True))
    found = table(project, "mobilenet_features")
    assert found.keys() == expected.keys()
    for path, values in expected.items():
        np.testing.assert_allclose(found[path], values, atol=1e-4)
    variances = [
        graph.current("pca_model").facts["total_explained_variance"] for graph in (project.lake, local.lake)
    ]
    np.testing.assert_allclose(variances[0], variances[1], rtol=1e-6)
    assert_same_classifier(project, local)
    body = boto3.client("s3").get_object(Bucket=project.bucket, Key="lake/pca_features_csv/results.csv")
    rows = body["Body"].read().decode().splitlines()
    assert rows[0].startswith("path,label,pc_1,")
    assert len(rows) == 13


def test_a_failing_step_shows_its_own_exception(fake_emr: FakeEmr, project: Project) -> None:
    client = boto3.client("s3")
    for file in list(project.source.rglob("*.jpg"))[1:]:
        client.delete_object(
            Bucket=project.bucket, Key=f"images/{file.relative_to(project.source).as_posix()}"
        )
    text = failure(project.materialize("raw_images"))
    assert "StageInputError" in text
    assert "1 image file(s), at least 2 needed" in text
    assert project.lake.find("raw_images") is None


def test_a_package_that_the_cluster_lacks_is_named(fake_emr: FakeEmr, project: Project) -> None:
    with fake_emr.hide_package("PIL"):
        text = failure(project.materialize("raw_images"))
    assert "The cluster lacks the package PIL" in text
    assert "requirements-emr.txt" in text


def test_two_runs_that_start_at_once_share_one_cluster(fake_emr: FakeEmr, project: Project) -> None:
    arguments = ("asset", "materialize", "-m", "fruits_assets.definitions", "--select", "raw_images")
    # Two machines, each with a history of its own.
    homes = [dagster_home(Path(project.settings["DAGSTER_HOME"]).with_name(f"home {i}")) for i in range(2)]
    runs = [project.command(*arguments, DAGSTER_HOME=str(home)) for home in homes]
    for run in runs:
        output, _ = run.communicate(timeout=300)
        assert run.returncode == 0, output
    assert len(fake_emr.steps(cluster_of(fake_emr, project))) == 2


def running_step(fake_emr: FakeEmr, project: Project, run: subprocess.Popen[str]) -> tuple[str, str]:
    """Cluster and step, once the step of a run that is under way is running."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert run.poll() is None, run.communicate()[0]
        for cluster in fake_emr.clusters():
            for step in fake_emr.steps(cluster.id) if cluster.name == project.bucket else ():
                if step.state == "RUNNING":
                    return cluster.id, step.id
        time.sleep(0.1)
    raise AssertionError("no step ran")


def state(fake_emr: FakeEmr, cluster_id: str, step_id: str) -> str:
    (step,) = [step for step in fake_emr.steps(cluster_id) if step.id == step_id]
    return step.state


def test_cancelling_the_run_cancels_the_step(fake_emr: FakeEmr, project: Project) -> None:
    run = project.command(
        *("asset", "materialize", "-m", "fruits_assets.definitions", "--select", "raw_images")
    )
    cluster_id, step_id = running_step(fake_emr, project, run)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=120)
    assert run.returncode != 0
    assert f"Cancelling step {step_id}" in output
    assert state(fake_emr, cluster_id, step_id) == "CANCELLED"
    assert "CancelSteps" in fake_emr.calls
    assert fake_emr.calls.keys() <= rights_of_runner()
    assert project.lake.find("raw_images") is None


def test_a_killed_dagster_process_publishes_nothing_and_the_next_run_uses_the_same_cluster(
    fake_emr: FakeEmr, project: Project
) -> None:
    arguments = ("asset", "materialize", "-m", "fruits_assets.definitions", "--select", "raw_images")
    run = project.command(*arguments)
    cluster_id, _ = running_step(fake_emr, project, run)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    assert project.lake.find("raw_images") is None
    policy = boto3.client("emr").get_auto_termination_policy(ClusterId=cluster_id)
    assert policy["AutoTerminationPolicy"]["IdleTimeout"] == 1800

    again = project.command(*arguments)
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    assert project.lake.current("raw_images").row_count == 12
    assert cluster_of(fake_emr, project) == cluster_id
