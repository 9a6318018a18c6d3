"""What EmrSpark asks of AWS and refuses, against a pretended EMR that runs nothing."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import uuid
import zipfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.validate import ParamValidator

from fruits_assets.definitions import EmrSettings, Settings, resources
from fruits_assets.resources.emr import EmrError, EmrSpark
from fruits_assets.resources.emr.aws import Aws
from fruits_assets.resources.emr.code import code_archive, upload_code
from fruits_assets.resources.emr.instances import (
    Executor,
    InstanceType,
    executor_of,
    executor_properties,
    instance_type,
    known_types,
)
from fruits_assets.resources.emr.lock import lock
from fruits_assets.resources.emr.nodes import Node, in_words, spark_properties, usd
from fruits_assets.resources.emr.pipes import StagingMessageReader
from fruits_assets.resources.emr.places import Places, bucket_and_key, s3_uris
from fruits_assets.resources.emr.request import cluster_request, digest
from fruits_assets.resources.failures import RefusedError
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
    with pytest.raises(RefusedError, match=f"needs FRUITS_EMR_{name.upper()}"):
        set_up(emr.model_copy(update={name: ""}))


def test_an_existing_cluster_needs_only_a_place_for_code(emr: EmrSpark) -> None:
    set_up(EmrSpark(cluster_id="j-1", staging_uri=emr.staging_uri))
    with pytest.raises(RefusedError, match="FRUITS_EMR_STAGING_URI"):
        set_up(EmrSpark(cluster_id="j-1"))


def test_a_place_that_is_not_on_s3_is_named(emr: EmrSpark) -> None:
    with pytest.raises(RefusedError, match=r"FRUITS_EMR_LOG_URI=/tmp/logs is not an s3:// prefix"):
        set_up(emr.model_copy(update={"log_uri": "/tmp/logs"}))


def test_a_region_outside_the_eu_needs_a_decision(emr: EmrSpark) -> None:
    with pytest.raises(RefusedError, match=r"us-east-1 is not in the EU.*ALLOW_NON_EU_REGION"):
        set_up(emr.model_copy(update={"region": "us-east-1"}))
    set_up(emr.model_copy(update={"region": "us-east-1", "allow_non_eu_region": True}))


@pytest.mark.parametrize("name", ["staging_uri", "log_uri", "bootstrap_uri"])
def test_every_bucket_is_looked_at_before_anything_starts(emr: EmrSpark, name: str) -> None:
    bucket = bucket_in("ap-south-1")
    encrypt(bucket)
    uri = f"s3://{bucket}/x"
    with pytest.raises(RefusedError, match=f"FRUITS_EMR_{name.upper()}={uri}.*ap-south-1 is not in the EU"):
        set_up(emr.model_copy(update={name: uri}))
    set_up(emr.model_copy(update={name: uri, "allow_non_eu_region": True, "region": "ap-south-1"}))


@pytest.mark.parametrize("name", ["FRUITS_IMAGES", "FRUITS_LAKE", "FRUITS_IMAGES_INVENTORY"])
def test_photos_and_tables_outside_the_eu_are_refused(emr: EmrSpark, name: str) -> None:
    inside = emr.staging_uri.removesuffix("/staging")
    settings = Settings(
        spark="emr",
        images=f"{inside}/images",
        lake=f"{inside}/lake",
        images_inventory=f"{inside}/manifest.json",
    )
    spark = resources(settings)["spark"]
    assert isinstance(spark, EmrSpark)
    set_up(emr.model_copy(update={"data_uris": spark.data_uris}))
    assert name in spark.data_uris
    uri = f"s3://{bucket_in('ap-south-1')}/x"
    with pytest.raises(RefusedError, match=f"{name}={uri}.*ap-south-1 is not in the EU"):
        set_up(emr.model_copy(update={"data_uris": {**spark.data_uris, name: uri}}))


def test_a_bucket_without_encryption_is_refused_and_so_is_none(emr: EmrSpark) -> None:
    with pytest.raises(RefusedError, match=r"FRUITS_LAKE=s3://emr-.*is not encrypted"):
        set_up(emr.model_copy(update={"data_uris": {"FRUITS_LAKE": f"s3://{bucket_in('eu-central-1')}/x"}}))
    with pytest.raises(RefusedError, match=r"FRUITS_LAKE=s3://no-such-bucket/lake.*does not exist"):
        set_up(emr.model_copy(update={"data_uris": {"FRUITS_LAKE": "s3://no-such-bucket/lake"}}))


class OfAnotherAccount:
    """A bucket that its owner lets nobody look at, as S3 answers for it."""

    def __init__(self, region: str) -> None:
        self._region = region

    def head_bucket(self, Bucket: str) -> None:  # noqa: N803
        headers = {"x-amz-bucket-region": self._region}
        answer = {"Error": {"Code": "403"}, "ResponseMetadata": {"HTTPHeaders": headers}}
        raise ClientError(answer, "HeadBucket")

    def get_bucket_encryption(self, Bucket: str) -> None:  # noqa: N803
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetBucketEncryption")


def test_the_region_of_a_bucket_of_another_account_is_known() -> None:
    Places(OfAnotherAccount("eu-west-1"), False).refuse({"FRUITS_IMAGES": "s3://theirs/photos"})
    with pytest.raises(EmrError, match="us-west-2 is not in the EU"):
        Places(OfAnotherAccount("us-west-2"), False).refuse({"FRUITS_IMAGES": "s3://theirs/photos"})


def test_a_bucket_whose_location_is_called_eu_lies_in_ireland(s3: str) -> None:
    bucket = bucket_in("eu-west-1")
    encrypt(bucket)

    class AsItWasMade:
        """A client that says of the bucket what S3 says of old ones."""

        def __getattr__(self, name: str) -> Any:
            return getattr(boto3.client("s3"), name)

        def get_bucket_location(self, Bucket: str) -> dict[str, str]:  # noqa: N803
            return {"LocationConstraint": "EU"}

    Places(AsItWasMade(), False).refuse({"FRUITS_LAKE": f"s3://{bucket}/lake"})


def test_places_are_found_wherever_they_stand() -> None:
    params = {"source": "s3://a/x", "more": [{"inventory": "s3://b/y"}, "text s3://c"], "n": 1}
    assert list(s3_uris(params)) == ["s3://a/x", "s3://b/y"]
    assert bucket_and_key("s3://a/b c/#1?/") == ("a", "b c/#1?")
    with pytest.raises(EmrError, match="'/photos' is not on S3"):
        bucket_and_key("/photos")


def test_local_places_are_refused_with_the_name_of_the_setting() -> None:
    with pytest.raises(ValueError, match=r"FRUITS_SPARK=emr needs FRUITS_LAKE to be an s3:// prefix"):
        resources(Settings(spark="emr", images="s3://bucket/images", lake="lake"))


def test_every_setting_comes_from_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUITS_EMR_CORE_INSTANCE_COUNT", "7")
    monkeypatch.setenv("FRUITS_EMR_SPOT_INSTANCE_COUNT", "3")
    settings = Settings(spark="emr", images="s3://bucket/images", lake="s3://bucket/lake")
    spark = resources(settings)["spark"]
    assert isinstance(spark, EmrSpark)
    assert (spark.core_instance_count, spark.spot_instance_count, spark.region) == (7, 3, "eu-west-3")
    monkeypatch.setenv("FRUITS_EMR_CORE_INSTANCE_COUNT", "many")
    with pytest.raises(ValueError, match="FRUITS_EMR_CORE_INSTANCE_COUNT=many: Input should be"):
        from_environment(EmrSettings)


def test_a_cluster_is_asked_for_with_all_that_was_set(emr: EmrSpark) -> None:
    request = cluster_request(
        emr.model_copy(
            update={
                "subnet_id": "subnet-1, subnet-2",
                "security_configuration": "encrypted",
                "security_group": "sg-1",
                "service_access_security_group": "sg-2",
            }
        )
    )
    instances = request["Instances"]
    assert instances["Ec2SubnetIds"] == ["subnet-1", "subnet-2"]
    assert instances["ServiceAccessSecurityGroup"] == "sg-2"
    assert instances["KeepJobFlowAliveWhenNoSteps"]
    assert request["SecurityConfiguration"] == "encrypted"
    assert request["AutoTerminationPolicy"] == {"IdleTimeout": 1800}
    assert {"Key": "for-use-with-amazon-emr-managed-policies", "Value": "true"} in request["Tags"]
    assert {"Key": "Project", "Value": "fruits"} in request["Tags"]
    (action,) = request["BootstrapActions"]
    assert action["ScriptBootstrapAction"]["Path"].endswith("/bootstrap/bootstrap-emr.sh")
    assert "ServiceAccessSecurityGroup" not in cluster_request(emr)["Instances"]
    is_valid(request)


def is_valid(request: dict[str, Any]) -> None:
    """Raise unless the request is one by botocore's model of EMR."""
    model = boto3.client("emr").meta.service_model.operation_model("RunJobFlow")
    report = ParamValidator().validate(request, model.input_shape)
    assert not report.has_errors(), report.generate_report()


def test_only_task_nodes_are_from_the_spot_market_and_on_demand_if_there_are_none(emr: EmrSpark) -> None:
    primary, core = cluster_request(emr)["Instances"]["InstanceFleets"]
    request = cluster_request(emr.model_copy(update={"spot_instance_count": 5, "spot_timeout_minutes": 7}))
    assert request["Instances"]["InstanceFleets"][:2] == [primary, core]
    task = request["Instances"]["InstanceFleets"][2]
    assert [fleet["InstanceFleetType"] for fleet in (primary, core, task)] == ["MASTER", "CORE", "TASK"]
    assert (primary["TargetOnDemandCapacity"], core["TargetOnDemandCapacity"]) == (1, 2)
    assert "TargetSpotCapacity" not in primary | core
    assert task["TargetSpotCapacity"] == 5
    timeout = task["LaunchSpecifications"]["SpotSpecification"]
    assert (timeout["TimeoutDurationMinutes"], timeout["TimeoutAction"]) == (7, "SWITCH_TO_ON_DEMAND")
    # What holds a step together is not to be lost with them.
    yarn = request["Configurations"][1]["Properties"]
    assert yarn["yarn.node-labels.am.default-node-label-expression"] == "CORE"
    assert request["Configurations"][0]["Properties"]["spark.default.parallelism"] == "28"
    is_valid(request)


def test_overrides_are_merged_into_the_request(emr: EmrSpark, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides: dict[str, Any] = {
        "Instances": {"Ec2KeyName": "mine", "Ec2SubnetIds": ["subnet-9"]},
        "VisibleToAllUsers": None,
        "StepConcurrencyLevel": 2,
    }
    monkeypatch.setenv("FRUITS_EMR_CLUSTER_OVERRIDES", json.dumps(overrides))
    given = from_environment(EmrSettings).model_dump()["cluster_overrides"]
    plain, request = (
        cluster_request(emr),
        cluster_request(emr.model_copy(update={"cluster_overrides": given})),
    )
    assert request["Instances"] == {**plain["Instances"], **overrides["Instances"]}
    assert request["StepConcurrencyLevel"] == 2
    assert request.keys() == (plain.keys() | {"StepConcurrencyLevel"}) - {"VisibleToAllUsers"}
    monkeypatch.setenv("FRUITS_EMR_CLUSTER_OVERRIDES", "{not json")
    with pytest.raises(ValueError, match="FRUITS_EMR_CLUSTER_OVERRIDES is not JSON"):
        from_environment(EmrSettings)


def test_an_unknown_type_of_instance_is_named_with_those_that_are_known(emr: EmrSpark) -> None:
    with pytest.raises(
        RefusedError, match=r"FRUITS_EMR_CORE_INSTANCE_TYPE=x9.huge is not one of m5.xlarge, "
    ):
        set_up(emr.model_copy(update={"core_instance_type": "x9.huge"}))


@pytest.mark.parametrize(
    "change",
    [{"core_instance_count": 3}, {"tags": ""}, {"cluster_overrides": {"StepConcurrencyLevel": 2}}],
)
def test_the_digest_of_a_request_changes_with_settings_and_packages(
    emr: EmrSpark, change: dict[str, Any]
) -> None:
    request, packages = cluster_request(emr), {"requirements": b"numpy==1"}
    assert digest(request, packages) == digest(cluster_request(emr), packages)
    assert digest(cluster_request(emr.model_copy(update=change)), packages) != digest(request, packages)
    assert digest(request, {"requirements": b"numpy==2"}) != digest(request, packages)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m5.xlarge", Executor(4, 5632, 5632)),
        ("m6g.2xlarge", Executor(8, 11776, 11776)),
        ("m5.4xlarge", Executor(16, 16384, 39936)),
        ("c5.xlarge", Executor(4, 1136, 3984)),
        ("r5.xlarge", Executor(4, 11776, 11776)),
    ],
)
def test_an_executor_fills_its_node(name: str, expected: Executor) -> None:
    machine = instance_type(name)
    assert machine is not None
    assert executor_of(machine) == expected


def test_no_executor_is_larger_than_its_node_or_too_small_for_its_workers() -> None:
    assert len(known_types()) > 20
    for machine in known_types():
        executor = executor_of(machine)
        # The application master of YARN has to fit beside it, and Spark's own part of the overhead.
        assert executor.mb <= machine.yarn_mb - 1024 < machine.memory_gb * 1024 - 1024
        jvm_mb = max(384, executor.heap_mb // 10)
        assert executor.overhead_mb - jvm_mb >= 900 * executor.n_cores
        assert executor.heap_mb >= 1024
        assert 1 <= executor.n_cores <= machine.n_vcpus


def machines(*names: str) -> list[InstanceType]:
    return [machine for name in names if (machine := instance_type(name))]


def test_work_is_cut_by_the_cores_that_there_will_be() -> None:
    assert executor_properties(machines(*["m5.xlarge"] * 20)) == {
        "spark.executor.cores": "4",
        "spark.executor.memory": "5632m",
        "spark.executor.memoryOverhead": "5632m",
        "spark.default.parallelism": "80",
    }
    # Of different nodes, what fits on the smallest: twice on one of twice the size.
    mixed = executor_properties(machines("m5.xlarge", "m5.2xlarge"))
    assert (mixed["spark.executor.memory"], mixed["spark.default.parallelism"]) == ("5632m", "12")


def node(role: str, name: str, hours: float, until: float | None = None) -> Node:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    end = None if until is None else start + timedelta(hours=until)
    return Node(role, name, start + timedelta(hours=hours), end)


def test_cost_is_by_node_type_and_time() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    nodes = [
        node("MASTER", "m5.xlarge", 0),
        *[node("CORE", "m6g.xlarge", 0)] * 20,
        node("TASK", "m5.xlarge", 0, 1),
    ]
    m5, m6g = machines("m5.xlarge", "m6g.xlarge")
    # The node that was lost counts until then.
    whole = usd(nodes, start, start + timedelta(hours=2), 0)
    assert whole == pytest.approx(3 * m5.usd_hour + 40 * m6g.usd_hour, abs=1e-3)
    late = usd(nodes, start + timedelta(hours=1), start + timedelta(hours=2), 0)
    assert late == pytest.approx(m5.usd_hour + 20 * m6g.usd_hour, abs=1e-3)
    assert usd(nodes, start, start + timedelta(hours=2), 64) > (whole or 0)  # type: ignore[operator]
    assert in_words(nodes) == "1 m5.xlarge + 20 m6g.xlarge"
    assert usd([node("CORE", "x9.huge", 0)], start, start + timedelta(hours=1), 0) is None


def test_nothing_is_derived_for_nodes_that_are_not_known() -> None:
    nodes = [node("MASTER", "m5.xlarge", 0), node("CORE", "m5.xlarge", 0), node("CORE", "x9.huge", 0)]
    assert spark_properties(nodes) == {"spark.driver.memory": "4096m"}
    assert spark_properties(nodes[:2])["spark.default.parallelism"] == "4"


@pytest.fixture
def place(emr: EmrSpark) -> tuple[str, str]:
    """Bucket and key of a lock."""
    return emr.staging_uri.split("/")[2], "staging/locks/cluster"


def test_a_lock_is_held_by_one_and_can_be_taken_again(place: tuple[str, str]) -> None:
    client, minute = boto3.client("s3"), timedelta(minutes=1)
    for _ in range(2):
        with lock(client, *place, minute) as is_ours, lock(client, *place, minute) as is_theirs:
            assert (is_ours, is_theirs) == (True, False)


class AllLookFirst:
    """A client by which so many look at an object before any of them writes it."""

    def __init__(self, n_processes: int) -> None:
        self._client = boto3.client("s3")
        self._all_have_looked = threading.Barrier(n_processes)
        self._one_at_a_time = threading.Lock()  # which moto's check of a condition is not

    def get_object(self, **place: str) -> Any:
        answer = self._client.get_object(**place)
        with suppress(threading.BrokenBarrierError):
            self._all_have_looked.wait(10)
            self._all_have_looked.abort()
        return answer

    def put_object(self, **request: Any) -> Any:
        with self._one_at_a_time:
            return self._client.put_object(**request)


def test_of_several_who_find_a_lock_expired_one_takes_it(place: tuple[str, str]) -> None:
    boto3.client("s3").put_object(Bucket=place[0], Key=place[1], Body=b"of a process that died")
    client, all_know, won = AllLookFirst(3), threading.Barrier(3), list[bool]()

    def take() -> None:
        with lock(client, *place, timedelta(seconds=-60)) as is_ours:
            won.append(is_ours)
            all_know.wait(10)

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False, False, True]


def test_who_has_lost_a_lock_does_not_release_it(place: tuple[str, str]) -> None:
    client, expired, minute = boto3.client("s3"), timedelta(seconds=-60), timedelta(minutes=1)
    with lock(client, *place, expired) as was_ours:
        assert was_ours
        theirs = lock(client, *place, expired)
        assert theirs.__enter__()
    with lock(client, *place, minute) as is_ours:
        assert not is_ours
    theirs.__exit__(None, None, None)
    with lock(client, *place, minute) as is_ours:
        assert is_ours


class OfAnotherTime:
    """A client of an S3 whose clock is not this machine's."""

    def __init__(self, hours: int) -> None:
        self._client = boto3.client("s3")
        self._ahead = timedelta(hours=hours)

    def get_object(self, **place: str) -> Any:
        answer = self._client.get_object(**place)
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        headers["date"] = format_datetime(parsedate_to_datetime(headers["date"]) + self._ahead)
        return {**answer, "LastModified": answer["LastModified"] + self._ahead}

    def put_object(self, **request: Any) -> Any:
        return self._client.put_object(**request)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_lock_goes_by_the_clock_of_s3(place: tuple[str, str], hours: int) -> None:
    client, minute = OfAnotherTime(hours), timedelta(minutes=1)
    with lock(client, *place, minute) as is_ours, lock(client, *place, minute) as is_theirs:
        assert (is_ours, is_theirs) == (True, False)
    with lock(client, *place, -minute) as is_ours, lock(client, *place, -minute) as is_theirs:
        assert (is_ours, is_theirs) == (True, True)


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
    bucket = emr.staging_uri.split("/")[2]
    client = boto3.client("s3")
    first = upload_code(client, emr.staging_uri)
    written = {o["Key"]: o["LastModified"] for o in client.list_objects_v2(Bucket=bucket)["Contents"]}
    assert upload_code(client, emr.staging_uri) == first
    again = {o["Key"]: o["LastModified"] for o in client.list_objects_v2(Bucket=bucket)["Contents"]}
    assert again == written
    assert len(written) == 2


class NoNetwork(Aws):
    """Of which the first call fails."""

    @property
    def s3(self) -> Any:
        return self

    def renew(self) -> None:
        self.is_back = True

    def get_object(self, **place: str) -> Any:
        if not hasattr(self, "is_back"):
            raise EndpointConnectionError(endpoint_url="https://s3")
        return boto3.client("s3").get_object(**place)


def test_messages_that_cannot_be_read_now_are_read_later(emr: EmrSpark) -> None:
    bucket = emr.staging_uri.split("/")[2]
    reader = StagingMessageReader(NoNetwork(emr.region), bucket, "staging")
    with reader.get_params() as params:
        assert params["key_prefix"].startswith("staging/pipes/")
        boto3.client("s3").put_object(Bucket=bucket, Key=f"{params['key_prefix']}/1.json", Body=b"said")
        assert not reader.messages_are_readable(params)
        assert reader.messages_are_readable(params)
        assert reader.download_messages_chunk(1, params) == "said"
        assert reader.download_messages_chunk(2, params) is None
