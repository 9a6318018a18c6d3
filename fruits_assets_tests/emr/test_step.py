"""A step on a cluster: added once, waited for, and never left behind."""

from __future__ import annotations

import logging
import os
import signal
import threading
import uuid
from collections.abc import Mapping
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from fruits_assets.resources.emr import EmrError, EmrSpark
from fruits_assets.resources.emr.alive import SignOfLife
from fruits_assets.resources.emr.aws import Aws
from fruits_assets.resources.emr.cluster import Cluster
from fruits_assets.resources.emr.errors import ClusterGoneError
from fruits_assets.resources.emr.step import Step
from fruits_assets_tests.emr.emr_states import Reason, cluster_of
from fruits_assets_tests.emr.fake_emr import FakeEmr, StepView

pytestmark = pytest.mark.slow

LOG = logging.getLogger("emr")


@pytest.fixture
def cluster_id(fake_emr: FakeEmr, emr: EmrSpark) -> str:
    """A cluster that takes steps."""
    found: str = Cluster(emr, Aws(emr.region), LOG, "run-1").ready()["Id"]
    return found


def step_name() -> str:
    return f"raw_images {uuid.uuid4()}-0"


def run(emr: EmrSpark, cluster_id: str, *command: str, name: str = "") -> str:
    """The state in which a step ends that runs a command."""
    aws = Aws(emr.region)
    step = Step(emr, aws, LOG, SignOfLife(aws, emr.staging_uri, emr.patience_minutes), name or step_name())
    with step.cancelled_on_failure():
        state: str = step.run_on(cluster_id, command or ["true"])["Status"]["State"]
    return state


def states(fake_emr: FakeEmr, cluster_id: str) -> list[str]:
    return [step.state for step in fake_emr.steps(cluster_id)]


def test_a_step_whose_adding_was_not_answered_is_found(
    fake_emr: FakeEmr, emr: EmrSpark, cluster_id: str
) -> None:
    fake_emr.drop_connections(1, "AddJobFlowSteps", served=True)
    assert run(emr, cluster_id) == "COMPLETED"
    assert states(fake_emr, cluster_id) == ["COMPLETED"]


def test_a_step_whose_adding_was_not_heard_is_added_again(
    fake_emr: FakeEmr, emr: EmrSpark, cluster_id: str
) -> None:
    fake_emr.drop_connections(1, "AddJobFlowSteps")
    fake_emr.throttle(1, "AddJobFlowSteps")
    assert run(emr, cluster_id) == "COMPLETED"
    assert states(fake_emr, cluster_id) == ["COMPLETED"]


def test_a_cluster_that_ends_before_a_step_is_added_is_gone(
    fake_emr: FakeEmr, emr: EmrSpark, cluster_id: str
) -> None:
    fake_emr.at_next("AddJobFlowSteps", before=lambda request: fake_emr.terminate(cluster_id, message="lost"))
    with pytest.raises(ClusterGoneError, match="lost"):
        run(emr, cluster_id)


def test_a_cluster_that_ends_before_a_step_begins_is_gone(
    fake_emr: FakeEmr, emr: EmrSpark, cluster_id: str
) -> None:
    fake_emr.at_next("AddJobFlowSteps", after=lambda request: fake_emr.terminate(cluster_id, message="lost"))
    with pytest.raises(ClusterGoneError, match="lost"):
        run(emr, cluster_id)


def when_running(fake_emr: FakeEmr, cluster_id: str, do: Any) -> threading.Thread:
    """A thread that does something once the cluster's step runs."""

    def wait() -> None:
        while not [step for step in fake_emr.steps(cluster_id) if step.state == "RUNNING"]:
            threading.Event().wait(0.05)
        do()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_step_that_had_begun_is_not_begun_again_on_another_cluster(
    fake_emr: FakeEmr, emr: EmrSpark, cluster_id: str
) -> None:
    def end(request: Mapping[str, Any]) -> None:
        cluster.begin_end(Reason("INSTANCE_FAILURE", "lost"))

    # Between the look at the step, which still runs, and that at the cluster.
    cluster = cluster_of(cluster_id)
    thread = when_running(fake_emr, cluster_id, lambda: fake_emr.at_next("DescribeCluster", before=end))
    with pytest.raises(EmrError, match="lost") as raised:
        run(emr, cluster_id, "sleep", "60")
    thread.join()
    assert not isinstance(raised.value, ClusterGoneError)


def test_a_step_that_was_completed_counts_although_its_cluster_ends(
    fake_emr: FakeEmr, emr: EmrSpark, cluster_id: str, tmp_path: Any
) -> None:
    def complete_and_end(request: Mapping[str, Any]) -> None:
        (tmp_path / "go").touch()
        threading.Thread(target=end).start()

    def end() -> None:
        while states(fake_emr, cluster_id) != ["COMPLETED"]:
            threading.Event().wait(0.02)
        fake_emr.terminate(cluster_id)

    # Between the look at the step, which still runs, and that at the cluster.
    thread = when_running(
        fake_emr, cluster_id, lambda: fake_emr.at_next("DescribeStep", after=complete_and_end)
    )
    fake_emr.slow_down("DescribeCluster", 2)
    command = f"until [ -e {tmp_path}/go ]; do sleep 0.1; done"
    assert run(emr, cluster_id, "bash", "-c", command) == "COMPLETED"
    thread.join()


def test_expired_credentials_and_an_absent_network_are_borne(
    fake_emr: FakeEmr, emr: EmrSpark, cluster_id: str
) -> None:
    fake_emr.refuse(2, "ExpiredTokenException", "DescribeStep")
    fake_emr.drop_connections(4, "DescribeStep")
    assert run(emr, cluster_id, "sleep", "1") == "COMPLETED"


def test_credentials_are_read_anew_once_they_have_expired(
    fake_emr: FakeEmr, emr: EmrSpark, cluster_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    def note(request: Mapping[str, Any]) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "renewed")

    fake_emr.at_next("AddJobFlowSteps", after=note)
    fake_emr.refuse(1, "ExpiredTokenException", "DescribeStep")
    run(emr, cluster_id)
    used = fake_emr.keys_used("DescribeStep")
    assert (used[0], used[-1]) == ("testing", "renewed")


def test_a_step_that_cannot_be_looked_at_any_more_is_cancelled(
    fake_emr: FakeEmr, emr: EmrSpark, cluster_id: str
) -> None:
    impatient = emr.model_copy(update={"patience_minutes": 0})
    thread = when_running(
        fake_emr, cluster_id, lambda: fake_emr.refuse(1, "AccessDeniedException", "DescribeStep")
    )
    with pytest.raises(ClientError, match="AccessDenied"):
        run(impatient, cluster_id, "sleep", "60")
    thread.join()
    assert states(fake_emr, cluster_id) == ["CANCELLED"]


def interrupt(request: Mapping[str, Any]) -> None:
    """Ctrl+C, while the main thread waits for an answer."""
    main = threading.main_thread().ident
    assert main
    signal.pthread_kill(main, signal.SIGINT)


def test_a_step_is_cancelled_although_nobody_heard_that_it_was_added(
    fake_emr: FakeEmr, emr: EmrSpark, cluster_id: str
) -> None:
    fake_emr.at_next("AddJobFlowSteps", after=interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(emr, cluster_id, "sleep", "60")
    assert states(fake_emr, cluster_id) == ["CANCELLED"]


def test_a_second_interrupt_does_not_keep_the_step_from_being_cancelled(
    fake_emr: FakeEmr, emr: EmrSpark, cluster_id: str
) -> None:
    fake_emr.at_next("CancelSteps", before=interrupt)
    thread = when_running(fake_emr, cluster_id, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(emr, cluster_id, "sleep", "60")
    thread.join()
    assert states(fake_emr, cluster_id) == ["CANCELLED"]


def left_behind(cluster_id: str, name: str, staging: str, seconds: int = 1) -> None:
    """A step that somebody has added and does not wait for."""
    step = {
        "Name": name,
        "ActionOnFailure": "CONTINUE",
        "HadoopJarStep": {
            "Jar": "command-runner.jar",
            "Args": ["bash", "-c", f"sleep {seconds}", f"{staging}/code/a.zip"],
        },
    }
    boto3.client("emr").add_job_flow_steps(JobFlowId=cluster_id, Steps=[step])


def by_name(fake_emr: FakeEmr, cluster_id: str) -> dict[str, StepView]:
    return {step.name: step for step in fake_emr.steps(cluster_id)}


def test_steps_of_runs_that_are_gone_are_cancelled_and_no_others(
    fake_emr: FakeEmr, emr: EmrSpark, cluster_id: str
) -> None:
    aws = Aws(emr.region)
    living, dead, elsewhere, somebodys = step_name(), step_name(), step_name(), "nightly report"
    left_behind(cluster_id, dead, emr.staging_uri, 60)
    left_behind(cluster_id, elsewhere, "s3://another/staging")
    left_behind(cluster_id, somebodys, emr.staging_uri)
    left_behind(cluster_id, living, emr.staging_uri)
    with SignOfLife(aws, emr.staging_uri, 10).given(living):
        assert run(emr, cluster_id) == "COMPLETED"
    found = {name: step.state for name, step in by_name(fake_emr, cluster_id).items()}
    assert found[dead] == "CANCELLED"
    assert found[elsewhere] == found[somebodys] == found[living] == "COMPLETED"


def test_a_sign_of_life_grows_old_by_the_clock_of_s3_and_goes_with_its_run(emr: EmrSpark) -> None:
    aws, name = Aws(emr.region), step_name()
    alive = SignOfLife(aws, emr.staging_uri, 10)
    with alive.given(name):
        assert not alive.is_missing(name)
        assert SignOfLife(aws, emr.staging_uri, -6).is_missing(name)
    assert alive.is_missing(name)


def test_a_step_has_the_role_that_was_set(fake_emr: FakeEmr, emr: EmrSpark, cluster_id: str) -> None:
    requests: list[Mapping[str, Any]] = []
    role = "arn:aws:iam::123456789012:role/photos"
    for settings in (emr, emr.model_copy(update={"execution_role": role})):
        fake_emr.at_next("AddJobFlowSteps", before=requests.append)
        run(settings, cluster_id)
    assert [request.get("ExecutionRoleArn") for request in requests] == [None, role]
