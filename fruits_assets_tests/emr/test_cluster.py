"""Which cluster a run gets: found, started once, shared with those who want the same."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

import boto3
import pytest

from fruits_assets.resources.emr import EmrError, EmrSpark
from fruits_assets.resources.emr.aws import Aws
from fruits_assets.resources.emr.cluster import Cluster
from fruits_assets.resources.emr.errors import ClusterGoneError
from fruits_assets_tests.emr.fake_emr import FakeEmr

pytestmark = pytest.mark.slow

LOG = logging.getLogger("emr")


def ready(emr: EmrSpark, **changed: Any) -> str:
    """The id of the cluster that these settings give."""
    settings = emr.model_copy(update=changed)
    cluster: str = Cluster(settings, Aws(settings.region), LOG, "run-1").ready()["Id"]
    return cluster


def test_a_cluster_whose_start_was_not_answered_is_found(fake_emr: FakeEmr, emr: EmrSpark) -> None:
    fake_emr.drop_connections(1, "RunJobFlow", served=True)
    cluster_id = ready(emr)
    assert [cluster.id for cluster in fake_emr.clusters() if cluster.name == emr.cluster_name] == [cluster_id]


def test_a_start_that_was_not_heard_is_asked_for_again(fake_emr: FakeEmr, emr: EmrSpark) -> None:
    fake_emr.drop_connections(1, "RunJobFlow")
    fake_emr.throttle(1, "RunJobFlow")
    ready(emr)
    assert fake_emr.calls["RunJobFlow"] == 1


def test_a_start_that_is_refused_is_not_repeated(fake_emr: FakeEmr, emr: EmrSpark) -> None:
    fake_emr.refuse(1, "ValidationException", "RunJobFlow")
    with pytest.raises(Exception, match="ValidationException"):
        ready(emr)
    assert not fake_emr.calls["RunJobFlow"]


def test_processes_that_start_at_once_share_one_cluster(fake_emr: FakeEmr, emr: EmrSpark) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(ready(emr))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert fake_emr.calls["RunJobFlow"] == 1


@pytest.mark.parametrize(
    "changed",
    [{"core_instance_count": 5}, {"tags": "Project=other"}],
)
def test_other_settings_get_another_cluster(
    fake_emr: FakeEmr, emr: EmrSpark, changed: dict[str, Any]
) -> None:
    first = ready(emr)
    assert ready(emr) == first
    assert ready(emr, **changed) != first
    assert ready(emr) == first


def test_other_packages_get_another_cluster(fake_emr: FakeEmr, emr: EmrSpark, bucket: str) -> None:
    first = ready(emr)
    place = {"Bucket": bucket, "Key": "bootstrap/requirements-emr.txt"}
    boto3.client("s3").put_object(**place, Body=b"numpy==1\n")
    assert ready(emr) != first


def test_a_cluster_of_somebody_else_is_left_alone(
    fake_emr: FakeEmr, emr: EmrSpark, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = boto3.client("emr").run_job_flow(
        Name=emr.cluster_name,
        ReleaseLabel="emr-7.13.0",
        Instances={"KeepJobFlowAliveWhenNoSteps": True, "InstanceGroups": []},
    )["JobFlowId"]
    fake_emr.wait_for(theirs, "WAITING")
    with caplog.at_level(logging.INFO):
        assert ready(emr) != theirs
    assert f"Cluster {theirs} is called {emr.cluster_name} as well" in caplog.text
    assert fake_emr.wait_for(theirs, "WAITING")


def test_a_cluster_says_which_run_started_it(fake_emr: FakeEmr, emr: EmrSpark) -> None:
    described = boto3.client("emr").describe_cluster(ClusterId=ready(emr))["Cluster"]
    assert {"Key": "dagster-run-id", "Value": "run-1"} in described["Tags"]


def test_what_nodes_install_has_to_be_there_before_a_cluster_is_started(
    fake_emr: FakeEmr, emr: EmrSpark, bucket: str
) -> None:
    boto3.client("s3").delete_object(Bucket=bucket, Key="bootstrap/requirements-emr.txt")
    with pytest.raises(EmrError, match=r"requirements-emr.txt' is missing.*aws s3 sync bootstrap s3://"):
        ready(emr)
    assert not fake_emr.calls["RunJobFlow"]


def test_a_cluster_that_does_not_come_up_is_terminated(fake_emr: FakeEmr, emr: EmrSpark) -> None:
    fake_emr.phase_s = 3600
    try:
        with pytest.raises(EmrError, match=r"was still STARTING after 0 minutes and is terminated"):
            ready(emr, start_timeout_minutes=0)
    finally:
        fake_emr.phase_s = 0.2
    (cluster,) = [cluster for cluster in fake_emr.clusters() if cluster.name == emr.cluster_name]
    fake_emr.wait_for(cluster.id, "TERMINATED")


def test_a_cluster_that_ends_between_two_looks_is_gone(fake_emr: FakeEmr, emr: EmrSpark) -> None:
    cluster_id = ready(emr)

    def end(request: Mapping[str, Any]) -> None:
        fake_emr.terminate(cluster_id, "USER_REQUEST", "Terminated by auto-termination policy")

    fake_emr.at_next("DescribeCluster", after=end)  # the first is of its tags
    with pytest.raises(ClusterGoneError, match="auto-termination policy"):
        ready(emr)
