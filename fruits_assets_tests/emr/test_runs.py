"""Runs on a cluster that loses answers, ends, or is not as it was: steps of one stage without a JVM."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import dagster as dg
import pytest
from dagster._core.pipes import utils as dagster_pipes_reader

from fruits_assets.assets.aws_bill import estimated_usd
from fruits_assets.resources.emr import EmrSpark
from fruits_assets_tests.emr.fake_emr import ClusterView, FakeEmr
from fruits_assets_tests.emr.light_run import failure, run
from fruits_assets_tests.emr.light_stage import Params

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _without_spark(fake_emr: FakeEmr, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # For messages that a step which failed may still have sent.
    monkeypatch.setattr(dagster_pipes_reader, "WAIT_FOR_LOGS_AFTER_EXECUTION_INTERVAL", 1)
    with fake_emr.without_spark():
        yield


@pytest.fixture
def lake(bucket: str) -> str:
    return f"s3://{bucket}/lake"


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """What the UI shows."""
    assert result.success
    (event,) = result.asset_materializations_for_node("light_asset")
    return {name: value.value for name, value in event.metadata.items()}


def clusters(fake_emr: FakeEmr, emr: EmrSpark) -> list[ClusterView]:
    return [cluster for cluster in fake_emr.clusters() if cluster.name == emr.cluster_name]


def keys(bucket: str) -> list[str]:
    listed = boto3.client("s3").list_objects_v2(Bucket=bucket)
    return [entry["Key"] for entry in listed["Contents"]]


def test_a_materialization_tells_cluster_step_nodes_and_cost(
    fake_emr: FakeEmr, emr: EmrSpark, lake: str, bucket: str
) -> None:
    shown = materialized(run(emr, lake))
    (cluster,) = clusters(fake_emr, emr)
    (step,) = fake_emr.steps(cluster.id)
    assert (shown["emr_cluster"], shown["emr_step"]) == (cluster.id, step.id)
    assert shown["emr_nodes"] == "1 m5.xlarge + 2 m5.xlarge"
    assert cluster.id in shown["emr_console"]
    # A link that needs no credentials would be one.
    assert not [value for value in shown.values() if "authToken" in str(value)]
    assert shown["step_seconds"] > 0
    hourly = 3 * (0.272 + 64 * 0.093 / 730)
    assert shown["estimated_step_cost"] == pytest.approx(hourly * shown["step_seconds"] / 3600, abs=1e-4)
    # Half an hour until it ends by itself, and a few seconds until now.
    assert hourly / 2 < shown["estimated_cluster_cost"] < hourly
    # What the step has told is of photos, and does not stay.
    assert not [key for key in keys(bucket) if "/results/" in key or "/running/" in key or "context" in key]


def test_what_runs_estimate_is_found_again_by_day(fake_emr: FakeEmr, emr: EmrSpark, lake: str) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        shown = [materialized(run(emr, lake, instance=instance)) for _ in range(2)]
        today = datetime.now(UTC).date()
        # Until half an hour after the step, which may be tomorrow.
        days = [today + timedelta(days=n) for n in (-1, 0, 1)]
        estimated = sum(estimated_usd(instance, day) for day in days)
    # One cluster for both, whose last estimate is the one that counts.
    assert shown[0]["emr_cluster"] == shown[1]["emr_cluster"]
    assert estimated == pytest.approx(shown[1]["estimated_cluster_cost"])


def test_a_step_knows_the_region_and_the_cores_of_its_cluster(
    fake_emr: FakeEmr, emr: EmrSpark, lake: str
) -> None:
    shown = materialized(run(emr, lake, spark_conf={"spark.executor.cores": "3"}))
    assert shown["environment"]["AWS_DEFAULT_REGION"] == "eu-west-3"
    assert shown["environment"]["AWS_METADATA_SERVICE_NUM_ATTEMPTS"] == "10"
    (step,) = fake_emr.steps(clusters(fake_emr, emr)[0].id)
    conf = [after for before, after in itertools.pairwise(step.args) if before == "--conf"]
    assert "spark.default.parallelism=8" in conf
    assert "spark.driver.memory=4096m" in conf
    assert "spark.executorEnv.AWS_DEFAULT_REGION=eu-west-3" in conf
    assert "spark.executorEnv.AWS_METADATA_SERVICE_TIMEOUT=5" in conf
    assert [entry for entry in conf if entry.startswith("spark.executor.cores=")] == [
        "spark.executor.cores=3"
    ]


def test_a_cluster_of_ones_own_is_used_and_priced_as_it_is(
    fake_emr: FakeEmr, emr: EmrSpark, lake: str
) -> None:
    cluster_id = boto3.client("emr").run_job_flow(
        Name="mine",
        ReleaseLabel="emr-7.13.0",
        Instances={
            "KeepJobFlowAliveWhenNoSteps": True,
            "InstanceGroups": [
                {"InstanceRole": "MASTER", "InstanceType": "m5.xlarge", "InstanceCount": 1},
                {"InstanceRole": "CORE", "InstanceType": "m6g.2xlarge", "InstanceCount": 20},
            ],
        },
    )["JobFlowId"]
    shown = materialized(run(emr, lake, cluster_id=cluster_id))
    assert (shown["emr_cluster"], shown["emr_nodes"]) == (cluster_id, "1 m5.xlarge + 20 m6g.2xlarge")
    hourly = 0.272 + 20 * (8 * 0.0546) + 21 * 64 * 0.093 / 730
    assert shown["estimated_step_cost"] == pytest.approx(hourly * shown["step_seconds"] / 3600, abs=1e-3)
    (step,) = fake_emr.steps(cluster_id)
    assert "spark.default.parallelism=160" in step.args
    assert "spark.executor.memory=11776m" in step.args


def test_what_a_step_cost_must_not_fail_it(fake_emr: FakeEmr, emr: EmrSpark, lake: str) -> None:
    def refuse(request: Mapping[str, Any]) -> None:
        fake_emr.refuse(9, "AccessDeniedException", "ListInstances")

    fake_emr.at_next("AddJobFlowSteps", after=refuse)
    shown = materialized(run(emr, lake))
    assert "environment" in shown
    assert "estimated_step_cost" not in shown


def test_a_cluster_that_ends_as_a_step_is_added_is_replaced(
    fake_emr: FakeEmr, emr: EmrSpark, lake: str
) -> None:
    def end(request: Mapping[str, Any]) -> None:
        fake_emr.terminate(request["JobFlowId"], "USER_REQUEST", "Terminated by auto-termination policy")

    fake_emr.at_next("AddJobFlowSteps", before=end)
    shown = materialized(run(emr, lake))
    first, second = clusters(fake_emr, emr)
    assert first.state in ("TERMINATING", "TERMINATED")
    assert shown["emr_cluster"] == second.id
    fake_emr.at_next("AddJobFlowSteps", before=end)
    assert "auto-termination" in failure(run(emr, lake, cluster_id=second.id))


def test_photos_outside_the_eu_are_not_read(fake_emr: FakeEmr, emr: EmrSpark, lake: str, bucket: str) -> None:
    outside = f"{bucket}-outside"
    boto3.client("s3", region_name="ap-south-1").create_bucket(
        Bucket=outside, CreateBucketConfiguration={"LocationConstraint": "ap-south-1"}
    )
    text = failure(run(emr, lake, Params(source=f"s3://{outside}/photos")))
    assert f"source of the stage=s3://{outside}/photos" in text
    assert "ap-south-1 is not in the EU" in text
    assert not fake_emr.calls["RunJobFlow"]


def test_a_result_does_not_depend_on_the_messages(
    fake_emr: FakeEmr, emr: EmrSpark, lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fruits_assets.resources.emr.pipes import StagingMessageReader

    def no_network(self: StagingMessageReader, index: int) -> None:
        """Nothing can be read."""

    monkeypatch.setattr(StagingMessageReader, "_read", no_network)
    assert "environment" in materialized(run(emr, lake))


def test_a_stage_that_fails_shows_its_own_words(fake_emr: FakeEmr, emr: EmrSpark, lake: str) -> None:
    assert "the stage's own words" in failure(run(emr, lake, Params(fails=True)))


def test_a_package_without_which_a_step_cannot_even_report_is_named_from_its_log(
    fake_emr: FakeEmr, emr: EmrSpark, lake: str
) -> None:
    with fake_emr.hide_package("dagster_pipes"):
        text = failure(run(emr, lake))
    assert "The cluster lacks the package dagster_pipes" in text
    assert "requirements-emr.txt" in text


def test_a_cluster_without_the_python_of_the_bootstrap_action_says_so(
    fake_emr: FakeEmr, emr: EmrSpark, lake: str
) -> None:
    with fake_emr.no_python():
        text = failure(run(emr, lake))
    assert "bootstrap-emr.sh" in text


def test_a_cluster_that_dies_in_bootstrap_gives_its_reason(
    fake_emr: FakeEmr, emr: EmrSpark, lake: str
) -> None:
    reason = "On the primary instance (i-1), bootstrap action 1 returned a non-zero return code"
    fake_emr.fail_next_cluster("BOOTSTRAP_FAILURE", reason)
    text = failure(run(emr, lake))
    assert "BOOTSTRAP_FAILURE" in text
    assert reason in text
    assert len(clusters(fake_emr, emr)) == 1


def test_a_cluster_that_terminates_under_a_step_gives_its_reason(
    fake_emr: FakeEmr, emr: EmrSpark, lake: str
) -> None:
    def terminate_once_running() -> None:
        while not (found := clusters(fake_emr, emr)) or "RUNNING" not in states(found[0].id):
            time.sleep(0.05)
        fake_emr.terminate(found[0].id, "INSTANCE_FAILURE", "the primary node is gone")

    def states(cluster_id: str) -> list[str]:
        return [step.state for step in fake_emr.steps(cluster_id)]

    killer = threading.Thread(target=terminate_once_running)
    killer.start()
    text = failure(run(emr, lake, Params(seconds=60)))
    killer.join()
    assert "the primary node is gone" in text


def test_throttling_and_dropped_connections_are_outlived(fake_emr: FakeEmr, emr: EmrSpark, lake: str) -> None:
    fake_emr.throttle(2)
    fake_emr.drop_connections(1)
    assert run(emr, lake).success


def test_a_run_that_gives_up_leaves_no_step_that_writes(fake_emr: FakeEmr, emr: EmrSpark, lake: str) -> None:
    def refuse_looks(request: Mapping[str, Any]) -> None:
        fake_emr.refuse(1, "AccessDeniedException", "DescribeStep")

    fake_emr.at_next("AddJobFlowSteps", after=refuse_looks)
    assert "AccessDenied" in failure(run(emr, lake, Params(seconds=60)))
    (step,) = fake_emr.steps(clusters(fake_emr, emr)[0].id)
    assert step.state == "CANCELLED"
