"""Tearing a deployment down: clusters first, then stacks; and what stays is said."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.emr.models import Cluster, emr_backends

from fruits_assets_tests.bootstrap.conftest import Stack, deploy

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import emr_down

pytestmark = pytest.mark.slow

BUDGET = Path(__file__).parents[2] / "bootstrap" / "budget.yaml"
ACCOUNT, REGION = "123456789012", "eu-west-3"
# So long does a cluster take to end here. On AWS it is minutes.
ENDING_S = 0.3
ENDED = ("TERMINATED", "TERMINATED_WITH_ERRORS")


@pytest.fixture(autouse=True)
def _as_on_aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clusters end after a while; until then they hold their security group, and it holds the stack."""
    # With all that a stack may have, which takes a second and all processes collect these tests.
    from moto.cloudformation.models import CloudFormationBackend, Event

    ending: list[threading.Timer] = []
    # The server of moto takes them all for us-east-1's.
    backend = emr_backends[ACCOUNT]["us-east-1"]

    def terminate(self: Cluster) -> None:
        self.state = "TERMINATING"
        ending.append(threading.Timer(ENDING_S, setattr, (self, "state", "TERMINATED")))
        ending[-1].start()

    delete_stack = CloudFormationBackend.delete_stack

    def delete_unless_held(self: CloudFormationBackend, name_or_stack_id: str) -> None:
        stack = self.get_stack(name_or_stack_id)
        made = {getattr(stack.resource_map[it], "physical_resource_id", None) for it in stack.resource_map}
        living = [it for it in backend.clusters.values() if it.state not in ENDED]
        if not made & {it.master_security_group for it in living}:
            delete_stack(self, name_or_stack_id)
            return
        stack.status = "DELETE_FAILED"
        reason = "resource has a dependent object"
        stack.events.append(
            Event(stack.stack_id, stack.name, "ClusterSecurityGroup", "", "", "DELETE_FAILED", reason, None)
        )

    monkeypatch.setattr(Cluster, "terminate", terminate)
    monkeypatch.setattr(CloudFormationBackend, "delete_stack", delete_unless_held)
    yield
    for timer in ending:
        timer.join()
    # The account is shared with other tests.
    backend.clusters.clear()


@pytest.fixture
def stack(own_network: dict[str, str]) -> Stack:
    """A deployment, with something in its bucket."""
    stack = deploy(**own_network)
    s3, bucket = boto3.client("s3"), stack.outputs["BucketName"]
    # Which moto leaves out of a stack.
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for body in (b"x" * 3_000_000, b""):
        s3.put_object(Bucket=bucket, Key="lake/results.csv", Body=body)
    return stack


def start_cluster(stack: Stack, name: str = "fruits-assets", **instances: Any) -> str:
    """Start a cluster as a run does, as far as a tear-down sees it."""
    settings = stack.settings
    instances = {
        "Ec2SubnetId": settings["FRUITS_EMR_SUBNET_ID"].split(",")[0],
        "EmrManagedMasterSecurityGroup": settings["FRUITS_EMR_SECURITY_GROUP"],
        "EmrManagedSlaveSecurityGroup": settings["FRUITS_EMR_SECURITY_GROUP"],
        "ServiceAccessSecurityGroup": settings["FRUITS_EMR_SERVICE_ACCESS_SECURITY_GROUP"],
        "KeepJobFlowAliveWhenNoSteps": True,
        **instances,
    }
    started = boto3.client("emr").run_job_flow(Name=name, ReleaseLabel="emr-7.13.0", Instances=instances)
    return str(started["JobFlowId"])


def state(cluster_id: str) -> str:
    return str(boto3.client("emr").describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]["State"])


def stack_exists(name: str, region: str = REGION) -> bool:
    try:
        boto3.client("cloudformation", region_name=region).describe_stacks(StackName=name)
    except ClientError:
        return False
    return True


def tear_down(stack: Stack) -> None:
    emr_down.main(["--stack", stack.name, "--poll-s", "0.05"])


def test_clusters_end_before_the_stack_goes(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    clusters = [start_cluster(stack), start_cluster(stack, name="renamed by a setting")]
    tear_down(stack)
    assert [state(it) for it in clusters] == ["TERMINATED", "TERMINATED"]
    assert not stack_exists(stack.name)
    said = capsys.readouterr().out
    for cluster in clusters:
        assert said.index(f"Cluster {cluster} is TERMINATED") < said.index(f"Deleting stack {stack.name}")


def test_what_stays_is_said_with_its_price(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    bucket, key = stack.outputs["BucketName"], stack.outputs["KeyArn"]
    for _ in range(2):  # The second time there is no stack any more.
        tear_down(stack)
        said = capsys.readouterr().out
        # The 3 MB are those of an overwritten version.
        assert f"bucket {bucket}: 3.0 MB in 2 versions of objects, 0.00 USD a month" in said
        assert f"key {key}: 1 USD a month" in said
    versions = boto3.client("s3").list_object_versions(Bucket=bucket)["Versions"]
    assert sorted(it["Size"] for it in versions) == [0, 3_000_000]


def test_nothing_is_said_to_stay_of_what_was_erased(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    # As bootstrap/README.md says it.
    bucket = boto3.resource("s3").Bucket(stack.outputs["BucketName"])
    bucket.object_versions.delete()
    bucket.delete()
    stays = emr_down.Deployment(stack.name, REGION).what_stays()
    assert [it.split()[0] for it in stays] == ["key"]
    boto3.client("kms").schedule_key_deletion(KeyId=stack.physical_id("Key"), PendingWindowInDays=30)
    tear_down(stack)
    assert "stays" not in capsys.readouterr().out


def test_cluster_of_somebody_else_with_the_same_name_is_left_alone_and_named(stack: Stack) -> None:
    other = start_cluster(stack, EmrManagedMasterSecurityGroup="sg-1", EmrManagedSlaveSecurityGroup="sg-1")
    unrelated = start_cluster(
        stack, "nightly-etl", EmrManagedMasterSecurityGroup="sg-1", EmrManagedSlaveSecurityGroup="sg-1"
    )
    with pytest.raises(SystemExit, match=f"aws emr terminate-clusters --cluster-ids {other}$"):
        tear_down(stack)
    assert not stack_exists(stack.name)
    assert not {state(other), state(unrelated)} & set(ENDED)


def test_protected_cluster_is_named_before_anything_is_deleted(stack: Stack) -> None:
    protected = start_cluster(stack, TerminationProtected=True)
    ordinary = start_cluster(stack)
    with pytest.raises(SystemExit, match=f"--no-termination-protected --cluster-ids {protected}$"):
        tear_down(stack)
    assert stack_exists(stack.name)
    assert state(ordinary) not in ENDED


def test_what_holds_a_stack_is_said(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    start_cluster(stack)
    # Somebody starts one between the end of the last and the deletion.
    monkeypatch.setattr(emr_down.Deployment, "end_clusters", lambda _: None)
    with pytest.raises(SystemExit) as exit_:
        tear_down(stack)
    message = str(exit_.value)
    assert f"Stack {stack.name} is DELETE_FAILED" in message
    assert "ClusterSecurityGroup: resource has a dependent object" in message
    assert "run this again" in message


def test_stack_of_the_budget_goes_as_well(stack: Stack) -> None:
    budgets = boto3.client("cloudformation", region_name="eu-west-1")
    name = f"{stack.name}-budget"
    budgets.create_stack(
        StackName=name,
        TemplateBody=BUDGET.read_text(encoding="utf-8"),
        Parameters=[{"ParameterKey": "AlertEmail", "ParameterValue": "you@example.org"}],
    )
    tear_down(stack)
    assert not stack_exists(name, "eu-west-1")


def test_missing_region_is_asked_for(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(SystemExit, match="In which region"):
        emr_down.main([])
