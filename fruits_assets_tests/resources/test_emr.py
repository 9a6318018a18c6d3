"""What EmrSpark asks of AWS and refuses, against a pretended EMR that runs nothing."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import uuid
import zipfile
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import pytest

from fruits_assets.definitions import EmrSettings, Settings, resources
from fruits_assets.resources.emr import EmrError, EmrSpark, code_archive
from fruits_assets.settings import from_environment

NAMES = ("staging_uri", "log_uri", "bootstrap_uri", "service_role", "instance_profile", "subnet_id")


def bucket_in(region: str) -> str:
    name = f"emr-{uuid.uuid4().hex}"
    boto3.client("s3", region_name=region).create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": region}
    )
    return name


def encrypt(bucket: str) -> None:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    boto3.client("s3").put_bucket_encryption(
        Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]}
    )


@pytest.fixture
def emr(s3: str) -> EmrSpark:
    """Settings as a stack would give them, with a bucket that exists."""
    bucket = bucket_in("eu-west-3")
    encrypt(bucket)
    return EmrSpark(
        staging_uri=f"s3://{bucket}/staging",
        log_uri=f"s3://{bucket}/logs/",
        bootstrap_uri=f"s3://{bucket}/bootstrap",
        service_role="service",
        instance_profile="nodes",
        subnet_id="subnet-1",
        cluster_name=f"fruits-{uuid.uuid4().hex[:8]}",
        tags="Project=fruits,DataClassification=personal",
        poll_s=1,
    )


def set_up(emr: EmrSpark) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        emr.setup_for_execution(dg.build_init_resource_context(instance=instance))


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_setting_is_named(emr: EmrSpark, name: str) -> None:
    with pytest.raises(EmrError, match=f"needs FRUITS_EMR_{name.upper()}"):
        set_up(emr.model_copy(update={name: ""}))


def test_an_existing_cluster_needs_only_a_place_for_code(emr: EmrSpark) -> None:
    set_up(EmrSpark(cluster_id="j-1", staging_uri=emr.staging_uri))
    with pytest.raises(EmrError, match="FRUITS_EMR_STAGING_URI"):
        set_up(EmrSpark(cluster_id="j-1"))


def test_a_place_that_is_not_on_s3_is_named(emr: EmrSpark) -> None:
    with pytest.raises(EmrError, match=r"FRUITS_EMR_LOG_URI=/tmp/logs is not an s3:// prefix"):
        set_up(emr.model_copy(update={"log_uri": "/tmp/logs"}))


def test_a_region_outside_the_eu_needs_a_decision(emr: EmrSpark) -> None:
    with pytest.raises(EmrError, match=r"us-east-1 is not in the EU.*ALLOW_NON_EU_REGION"):
        set_up(emr.model_copy(update={"region": "us-east-1"}))
    set_up(emr.model_copy(update={"region": "us-east-1", "allow_non_eu_region": True}))


def test_a_bucket_outside_the_eu_is_refused_and_so_is_one_without_encryption(emr: EmrSpark) -> None:
    with pytest.raises(EmrError, match="ap-south-1 is not in the EU"):
        emr._refuse_bucket(bucket_in("ap-south-1"))
    with pytest.raises(EmrError, match="is not encrypted"):
        emr._refuse_bucket(bucket_in("eu-central-1"))


def test_local_places_are_refused_with_the_name_of_the_setting() -> None:
    with pytest.raises(ValueError, match=r"FRUITS_SPARK=emr needs FRUITS_LAKE to be an s3:// prefix"):
        resources(Settings(spark="emr", images="s3://bucket/images", lake="lake"))


def test_every_setting_comes_from_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUITS_EMR_CORE_INSTANCE_COUNT", "7")
    monkeypatch.setenv("FRUITS_EMR_SPOT", "true")
    settings = Settings(spark="emr", images="s3://bucket/images", lake="s3://bucket/lake")
    spark = resources(settings)["spark"]
    assert isinstance(spark, EmrSpark)
    assert (spark.core_instance_count, spark.spot, spark.region) == (7, True, "eu-west-3")
    monkeypatch.setenv("FRUITS_EMR_CORE_INSTANCE_COUNT", "many")
    with pytest.raises(ValueError, match="FRUITS_EMR_CORE_INSTANCE_COUNT=many: Input should be"):
        from_environment(EmrSettings)


def test_a_cluster_is_asked_for_with_all_that_was_set(emr: EmrSpark) -> None:
    request = emr.model_copy(
        update={
            "spot": True,
            "security_configuration": "encrypted",
            "security_group": "sg-1",
            "service_access_security_group": "sg-2",
        }
    ).cluster_request()
    primary, core = request["Instances"]["InstanceGroups"]
    assert (primary["InstanceCount"], primary["Market"]) == (1, "ON_DEMAND")
    assert (core["InstanceCount"], core["Market"]) == (2, "SPOT")
    assert request["SecurityConfiguration"] == "encrypted"
    assert request["Instances"]["ServiceAccessSecurityGroup"] == "sg-2"
    assert request["AutoTerminationPolicy"] == {"IdleTimeout": 1800}
    assert request["Instances"]["KeepJobFlowAliveWhenNoSteps"]
    assert {"Key": "for-use-with-amazon-emr-managed-policies", "Value": "true"} in request["Tags"]
    assert {"Key": "Project", "Value": "fruits"} in request["Tags"]
    (action,) = request["BootstrapActions"]
    assert action["ScriptBootstrapAction"]["Path"].endswith("/bootstrap/bootstrap-emr.sh")


def test_processes_that_start_at_once_share_one_cluster(emr: EmrSpark) -> None:
    found: list[str] = []

    class Log:
        def info(self, line: str) -> None:
            assert "Started cluster" in line

    class Context:
        log = Log()

    context: Any = Context()
    threads = [threading.Thread(target=lambda: found.append(emr._shared_cluster(context))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_the_lock_of_a_dead_process_does_not_last(emr: EmrSpark, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    from fruits_assets.resources import emr as emr_module

    bucket = emr.staging_uri.split("/")[2]
    boto3.client("s3").put_object(Bucket=bucket, Key=f"staging/locks/{emr.cluster_name}", Body=b"")
    with emr._start_lock() as is_ours:
        assert not is_ours
    monkeypatch.setattr(emr_module, "_LOCK_EXPIRES", timedelta(seconds=-60))
    with emr._start_lock() as is_ours:
        assert not is_ours  # this look drops it
    with emr._start_lock() as is_ours:
        assert is_ours


def test_the_code_that_travels_is_whole_light_and_the_same_every_time(tmp_path: Path) -> None:
    archive = code_archive()
    assert archive == code_archive()
    names = zipfile.ZipFile(io.BytesIO(archive)).namelist()
    assert "fruits_assets/stages/pca_model.py" in names
    assert "fruits_assets/mobilenet/extractor.py" in names
    assert not [name for name in names if "assets/assets" in name or "weights" in name]
    (tmp_path / "code.zip").write_bytes(archive)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "from fruits_assets.stages import pca_features_csv; "
        "print(pca_features_csv.__file__.startswith(sys.argv[1]), 'dagster' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path / "code.zip")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "True False", done.stderr


def test_code_is_uploaded_once_per_content(emr: EmrSpark) -> None:
    first = emr._upload_code()
    bucket = emr.staging_uri.split("/")[2]
    client = boto3.client("s3")
    written = {o["Key"]: o["LastModified"] for o in client.list_objects_v2(Bucket=bucket)["Contents"]}
    assert emr._upload_code() == first
    again = {o["Key"]: o["LastModified"] for o in client.list_objects_v2(Bucket=bucket)["Contents"]}
    assert again == written
    assert len(written) == 2
