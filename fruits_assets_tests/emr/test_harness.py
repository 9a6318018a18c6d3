"""The stand-in for Amazon EMR itself: what the other tests of this folder rely on."""

from __future__ import annotations

import gzip
import io
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pandas as pd
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from fruits_assets_tests.emr import cluster_environment
from fruits_assets_tests.emr.fake_emr import FakeEmr
from fruits_assets_tests.emr.step_process import NODE_PYTHON

pytestmark = pytest.mark.slow

SCRIPT = """\
import sys

from greeting import GREETING
from pyspark.ml.feature import StandardScaler, StandardScalerModel
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession

bucket = sys.argv[1]
spark = SparkSession.builder.getOrCreate()
table = spark.read.parquet(f"{bucket}/in.parquet").selectExpr("n + 1 AS n")
table.write.parquet(f"{bucket}/out/a b=%20é.parquet")
vectors = spark.createDataFrame([(Vectors.dense([0.0]),), (Vectors.dense([2.0]),)], ["vector"])
StandardScaler(withMean=True, inputCol="vector", outputCol="scaled").fit(vectors).save(f"{bucket}/model")
mean = StandardScalerModel.load(f"{bucket}/model").mean
print(GREETING, "mean", mean[0], "python", sys.executable)
"""


def start_cluster(bucket: str, **request: Any) -> str:
    """Ask for a small cluster that stays, with its logs in the bucket; its id."""
    response = boto3.client("emr").run_job_flow(
        **{
            "Name": "fruits",
            "LogUri": f"s3://{bucket}/logs/",
            "ReleaseLabel": "emr-7.13.0",
            "Instances": {
                "KeepJobFlowAliveWhenNoSteps": True,
                "InstanceGroups": [
                    {"InstanceRole": "MASTER", "InstanceType": "m5.xlarge", "InstanceCount": 1},
                    {"InstanceRole": "CORE", "InstanceType": "m5.xlarge", "InstanceCount": 2},
                ],
            },
            "JobFlowRole": "node",
            "ServiceRole": "emr",
        }
        | request
    )
    return str(response["JobFlowId"])


def step_of(*args: str) -> dict[str, Any]:
    """A step of one command."""
    return {
        "Name": args[0],
        "ActionOnFailure": "CONTINUE",
        "HadoopJarStep": {"Jar": "command-runner.jar", "Args": list(args)},
    }


def add_step(cluster_id: str, *args: str) -> str:
    """Queue one command; the step's id."""
    answer = boto3.client("emr").add_job_flow_steps(JobFlowId=cluster_id, Steps=[step_of(*args)])
    return str(answer["StepIds"][0])


def describe_step(cluster_id: str, step_id: str) -> dict[str, Any]:
    """A step as EMR describes it."""
    step: dict[str, Any] = boto3.client("emr").describe_step(ClusterId=cluster_id, StepId=step_id)["Step"]
    return step


def wait_for_step(cluster_id: str, step_id: str, *states: str) -> dict[str, Any]:
    """The step once it is in one of these states, by default any end."""
    states = states or ("COMPLETED", "CANCELLED", "FAILED", "INTERRUPTED")
    end_s = time.monotonic() + 60
    while (step := describe_step(cluster_id, step_id))["Status"]["State"] not in states:
        assert time.monotonic() < end_s, f"still {step['Status']['State']}"
        time.sleep(0.05)
    return step


def is_running(pid: int | None) -> bool:
    """Whether there is such a process: an orphan may stay a zombie where nobody collects them."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def keys(bucket: str) -> list[str]:
    """All keys, as boto3 lists them."""
    listed = boto3.client("s3").list_objects_v2(Bucket=bucket)
    return [item["Key"] for item in listed.get("Contents", [])]


def test_a_half_made_environment_is_made_again_and_a_whole_one_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[str] = []

    def run(command: list[str], environment: dict[str, str]) -> None:
        commands.append(command[0])
        if len(commands) == 2:
            raise cluster_environment.ClusterEnvironmentError("no network")
        if command[0] == "bash":
            (Path(environment["FRUITS_VENV"]) / "lib/python3.11/site-packages/pyspark").mkdir(parents=True)

    monkeypatch.setenv("FRUITS_EMR_TEST_VENV", str(tmp_path))
    monkeypatch.setattr(cluster_environment, "_run", run)
    with pytest.raises(cluster_environment.ClusterEnvironmentError, match="no network"):
        cluster_environment.cluster_environment()
    made = cluster_environment.cluster_environment()
    assert cluster_environment.cluster_environment() == made
    assert commands == ["bash", str(made.python)] * 2 + [str(made.spark_submit)]


def test_a_step_reads_and_writes_s3_in_the_clusters_own_spark(fake_emr: FakeEmr, bucket: str) -> None:
    s3 = boto3.client("s3")
    pd.DataFrame({"n": [1, 2]}).to_parquet(f"s3://{bucket}/in.parquet")
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("greeting.py", "GREETING = 'from the zip'")
    s3.put_object(Bucket=bucket, Key="code.zip", Body=code.getvalue())
    s3.put_object(Bucket=bucket, Key="script.py", Body=SCRIPT.encode())
    cluster_id = start_cluster(bucket)
    step_id = add_step(
        cluster_id,
        *("spark-submit", "--deploy-mode", "client", "--conf", f"spark.pyspark.python={NODE_PYTHON}"),
        *("--py-files", f"s3://{bucket}/code.zip", f"s3://{bucket}/script.py", f"s3://{bucket}"),
    )
    status = wait_for_step(cluster_id, step_id)["Status"]
    assert status["State"] == "COMPLETED", fake_emr.steps(cluster_id)[0].stderr
    assert status["Timeline"]["StartDateTime"] <= status["Timeline"]["EndDateTime"]
    out = pd.read_parquet(f"s3://{bucket}/out/a b=%20é.parquet")
    assert sorted(out["n"]) == [2, 3]
    log = s3.get_object(Bucket=bucket, Key=f"logs/{cluster_id}/steps/{step_id}/stdout.gz")
    stdout = gzip.decompress(log["Body"].read()).decode()
    assert stdout == f"from the zip mean 1.0 python {fake_emr.environment.python}\n"
    assert not [key for key in keys(bucket) if "_temporary" in key or ".crc" in key]


def test_steps_run_one_after_another_and_leave_the_cluster_waiting(fake_emr: FakeEmr, bucket: str) -> None:
    cluster_id = start_cluster(bucket)
    first, second = add_step(cluster_id, "sleep", "0.3"), add_step(cluster_id, "true")
    end = wait_for_step(cluster_id, first)["Status"]["Timeline"]["EndDateTime"]
    assert wait_for_step(cluster_id, second)["Status"]["Timeline"]["StartDateTime"] >= end
    fake_emr.wait_for(cluster_id, "WAITING")
    listed = boto3.client("emr").list_clusters(ClusterStates=["WAITING", "RUNNING"])["Clusters"]
    assert [cluster["Id"] for cluster in listed] == [cluster_id]
    assert fake_emr.calls["AddJobFlowSteps"] == 2


def test_a_step_sees_nothing_of_the_tests_own_python(fake_emr: FakeEmr, bucket: str) -> None:
    cluster_id = start_cluster(bucket)
    look = "import os, sys; print(sorted(os.listdir()), os.environ.get('PYTHONPATH')); import dagster"
    step = wait_for_step(cluster_id, add_step(cluster_id, NODE_PYTHON, "-c", look))
    seen = fake_emr.steps(cluster_id)[0]
    assert seen.stdout == "[] None\n"
    assert "No module named 'dagster'" in seen.stderr
    details = step["Status"]["FailureDetails"]
    assert details["LogFile"] == f"s3://{bucket}/logs/{cluster_id}/steps/{step['Id']}/stderr.gz"


def test_a_package_or_python_itself_can_be_missing(fake_emr: FakeEmr, bucket: str) -> None:
    cluster_id = start_cluster(bucket)
    run = ("env", NODE_PYTHON, "-c", "import PIL.Image")
    whole = add_step(cluster_id, *run)
    assert wait_for_step(cluster_id, whole)["Status"]["State"] == "COMPLETED"
    with fake_emr.hide_package("PIL"):
        wait_for_step(cluster_id, add_step(cluster_id, *run))
    with fake_emr.no_python():
        wait_for_step(cluster_id, add_step(cluster_id, *run))
    _, without_package, without_python = fake_emr.steps(cluster_id)
    assert "ModuleNotFoundError: No module named 'PIL'" in without_package.stderr
    assert f"{NODE_PYTHON}" in without_python.stderr
    assert without_package.state == without_python.state == "FAILED"


@pytest.mark.parametrize("option", ["SEND_INTERRUPT", "TERMINATE_PROCESS"])
def test_cancelled_steps_end_with_all_that_they_started(fake_emr: FakeEmr, bucket: str, option: str) -> None:
    cluster_id = start_cluster(bucket)
    # As Spark's workers do, the second process leaves the group of the first.
    start = "set -m; sleep 60 & echo $!; sleep 60"
    running, pending = add_step(cluster_id, "bash", "-c", start), add_step(cluster_id, "true")
    wait_for_step(cluster_id, running, "RUNNING")
    while not (started := fake_emr.steps(cluster_id)[0].stdout):
        time.sleep(0.05)
    answer = boto3.client("emr").cancel_steps(
        ClusterId=cluster_id, StepIds=[running, pending], StepCancellationOption=option
    )
    assert [info["Status"] for info in answer["CancelStepsInfoList"]] == ["SUBMITTED", "SUBMITTED"]
    for step_id in (running, pending):
        assert wait_for_step(cluster_id, step_id)["Status"]["State"] == "CANCELLED"
    assert not is_running(int(started))
    again = boto3.client("emr").cancel_steps(ClusterId=cluster_id, StepIds=[running])
    assert again["CancelStepsInfoList"][0]["Status"] == "FAILED"


def test_a_cluster_that_fails_says_why(fake_emr: FakeEmr, bucket: str) -> None:
    message = "On the primary instance (i-1), bootstrap action 1 returned a non-zero return code"
    fake_emr.fail_next_cluster("BOOTSTRAP_FAILURE", message)
    failing, sound = start_cluster(bucket, Steps=[step_of("true")]), start_cluster(bucket)
    (step,) = fake_emr.steps(failing)
    fake_emr.wait_for(failing, "TERMINATED_WITH_ERRORS")
    fake_emr.wait_for(sound, "WAITING")
    status = boto3.client("emr").describe_cluster(ClusterId=failing)["Cluster"]["Status"]
    assert status["StateChangeReason"] == {"Code": "BOOTSTRAP_FAILURE", "Message": message}
    assert describe_step(failing, step.id)["Status"]["State"] == "CANCELLED"
    with pytest.raises(ClientError, match="may not be modified"):
        add_step(failing, "true")


def test_a_bootstrap_action_needs_its_files(fake_emr: FakeEmr, bucket: str) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key="bootstrap.sh", Body=b"")
    script = {"Path": f"s3://{bucket}/bootstrap.sh", "Args": [f"s3://{bucket}/requirements.txt"]}
    cluster_id = start_cluster(bucket, BootstrapActions=[{"Name": "env", "ScriptBootstrapAction": script}])
    reason = fake_emr.wait_for(cluster_id, "TERMINATED_WITH_ERRORS").reason
    assert reason is not None
    assert reason.code == "BOOTSTRAP_FAILURE"
    assert "bootstrap action 1 returned a non-zero return code" in reason.message


def test_a_cluster_that_is_lost_takes_its_steps_along(fake_emr: FakeEmr, bucket: str) -> None:
    cluster_id = start_cluster(bucket)
    running, pending = add_step(cluster_id, "sleep", "60"), add_step(cluster_id, "true")
    wait_for_step(cluster_id, running, "RUNNING")
    fake_emr.terminate(cluster_id, message="lost")
    assert wait_for_step(cluster_id, running)["Status"]["State"] == "INTERRUPTED"
    assert wait_for_step(cluster_id, pending)["Status"]["State"] == "CANCELLED"
    view = fake_emr.wait_for(cluster_id, "TERMINATED_WITH_ERRORS")
    assert view.reason is not None
    assert view.reason.message == "lost"
    assert not is_running(fake_emr.steps(cluster_id)[0].pid)


def test_an_idle_cluster_ends_by_its_policy(fake_emr: FakeEmr, bucket: str) -> None:
    emr = boto3.client("emr")
    cluster_id = start_cluster(bucket, AutoTerminationPolicy={"IdleTimeout": 60})
    assert emr.get_auto_termination_policy(ClusterId=cluster_id)["AutoTerminationPolicy"] == {
        "IdleTimeout": 60
    }
    emr.put_auto_termination_policy(ClusterId=cluster_id, AutoTerminationPolicy={"IdleTimeout": 3600})
    fake_emr.wait_for(cluster_id, "WAITING")
    fake_emr.pass_idle_time(cluster_id, 600)
    time.sleep(0.2)
    assert fake_emr.wait_for(cluster_id, "WAITING").idle_timeout_s == 3600
    fake_emr.pass_idle_time(cluster_id, 3600)
    fake_emr.wait_for(cluster_id, "TERMINATED")
    with pytest.raises(ClientError, match="idle timeout"):
        start_cluster(bucket, AutoTerminationPolicy={"IdleTimeout": 5})


def test_a_cluster_keeps_what_it_was_asked_for(fake_emr: FakeEmr, bucket: str) -> None:
    groups = [
        {"InstanceRole": "MASTER", "InstanceType": "m5.xlarge", "InstanceCount": 1},
        {
            "InstanceRole": "CORE",
            "InstanceType": "m5.xlarge",
            "InstanceCount": 2,
            "Configurations": [{"Classification": "spark", "Properties": {"some.property": "1"}}],
            "Market": "SPOT",
            "EbsConfiguration": {
                "EbsBlockDeviceConfigs": [{"VolumeSpecification": {"VolumeType": "gp3", "SizeInGB": 64}}]
            },
        },
    ]
    cluster_id = start_cluster(
        bucket,
        Instances={"KeepJobFlowAliveWhenNoSteps": True, "Ec2SubnetId": "subnet-1", "InstanceGroups": groups},
        Tags=[{"Key": "project", "Value": "fruits"}],
    )
    cluster = boto3.client("emr").describe_cluster(ClusterId=cluster_id)["Cluster"]
    assert cluster["LogUri"] == f"s3n://{bucket}/logs/"
    assert ":eu-west-3:" in cluster["ClusterArn"]
    assert cluster["Tags"] == [{"Key": "project", "Value": "fruits"}]
    listed = boto3.client("emr").list_instance_groups(ClusterId=cluster_id)["InstanceGroups"]
    assert {group["InstanceGroupType"]: group["Market"] for group in listed}["CORE"] == "SPOT"
    assert fake_emr.clusters()[-1].request["Instances"]["InstanceGroups"] == groups


def test_calls_can_be_refused_or_cut_off(fake_emr: FakeEmr, bucket: str) -> None:
    emr = boto3.client("emr", config=Config(retries={"total_max_attempts": 1}))
    fake_emr.throttle(1, "ListClusters")
    with pytest.raises(ClientError, match="ThrottlingException"):
        emr.list_clusters()
    emr.list_clusters()
    fake_emr.drop_connections(1)
    with pytest.raises(ConnectionClosedError):
        emr.list_clusters()
    fake_emr.drop_connections(1, "TerminateJobFlows", served=True)
    cluster_id = start_cluster(bucket)
    with pytest.raises(ConnectionClosedError):
        emr.terminate_job_flows(JobFlowIds=[cluster_id])
    fake_emr.wait_for(cluster_id, "TERMINATED")


def test_logs_can_be_late(fake_emr: FakeEmr, bucket: str) -> None:
    fake_emr.log_delay_s = 0.5
    cluster_id = start_cluster(bucket)
    wait_for_step(cluster_id, add_step(cluster_id, "true"))
    assert not keys(bucket)
    time.sleep(1)
    assert {key.rpartition("/")[2] for key in keys(bucket)} == {"controller.gz", "stderr.gz", "stdout.gz"}


@pytest.mark.parametrize(
    "key", ["a", "a/b.txt", "year=2024/a b.txt", "100%/a%20b", "é/ü+ü", "a?b#c&d", "it's [1]", "a\\b", ".x"]
)
def test_an_object_is_a_file_under_its_key(fake_emr: FakeEmr, bucket: str, key: str) -> None:
    s3 = boto3.client("s3")
    s3.put_object(Bucket=bucket, Key=key, Body=b"by client")
    file = fake_emr.buckets / bucket / key
    assert file.read_bytes() == b"by client"
    file.write_bytes(b"by Spark!")
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"by Spark!"
    s3.delete_object(Bucket=bucket, Key=key)
    assert not list((fake_emr.buckets / bucket).iterdir())


def test_files_that_come_move_and_go_are_objects_that_do(fake_emr: FakeEmr, bucket: str) -> None:
    folder = fake_emr.buckets / bucket / "out"
    (folder / "_temporary" / "0").mkdir(parents=True)
    (folder / "_temporary" / "0" / "part").write_bytes(b"1")
    assert keys(bucket) == []
    (folder / "_temporary" / "0" / "part").rename(folder / "part")
    (folder / ".part.crc").write_bytes(b"checksum")
    assert keys(bucket) == ["out/part"]
    folder.rename(folder.with_name("other"))
    assert keys(bucket) == ["other/part"]
    boto3.client("s3").put_object(Bucket=bucket, Key="other/part", Body=b"2")
    assert not (folder.with_name("other") / ".part.crc").exists()
    (folder.with_name("other") / "part").unlink()
    assert keys(bucket) == []


def test_copies_batches_and_uploads_in_parts_reach_the_files(fake_emr: FakeEmr, bucket: str) -> None:
    s3, folder = boto3.client("s3"), fake_emr.buckets / bucket
    content = os.urandom(12_000_000)
    s3.upload_fileobj(io.BytesIO(content), bucket, "large")
    assert (folder / "large").read_bytes() == content
    s3.copy_object(Bucket=bucket, Key="copy/of large", CopySource={"Bucket": bucket, "Key": "large"})
    assert (folder / "copy" / "of large").read_bytes() == content
    # S3 has both of these; a file system has not.
    s3.put_object(Bucket=bucket, Key="large/part", Body=b"1")
    assert keys(bucket) == ["copy/of large", "large", "large/part"]
    fsspec.filesystem("s3").rm(bucket + "/copy", recursive=True)
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "large"}, {"Key": "large/part"}]})
    assert not list(folder.iterdir())
    s3.delete_bucket(Bucket=bucket)
    assert not folder.exists()


def test_a_versioned_bucket_keeps_what_spark_replaces(fake_emr: FakeEmr, bucket: str) -> None:
    s3 = boto3.client("s3")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=bucket, Key="a", Body=b"old")
    (fake_emr.buckets / bucket / "a").write_bytes(b"newer")
    assert len(s3.list_object_versions(Bucket=bucket)["Versions"]) == 2
    (fake_emr.buckets / bucket / "a").unlink()
    assert keys(bucket) == []
    assert len(s3.list_object_versions(Bucket=bucket)["Versions"]) == 2
