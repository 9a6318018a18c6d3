"""Runs stages as steps on one Amazon EMR cluster, and speaks Dagster Pipes with them over S3."""

from __future__ import annotations

import hashlib
import io
import re
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import dagster as dg
from pydantic import Field

from fruits_assets.resources.spark import SparkRunner

if TYPE_CHECKING:
    from fruits_assets.stages.stage import Stage, StageResult
    from fruits_assets.stages.stored import Output, Stored

Params = TypeVar("Params")

# Member states only: what is stored there stays under the GDPR.
EU_REGIONS = ("eu-central-1", "eu-north-1", "eu-south-1", "eu-south-2", "eu-west-1", "eu-west-3")
CLUSTER_PYTHON = "/opt/fruits/venv/bin/python"

_PACKAGE = Path(__file__).parents[1]
_STEP_SCRIPT = Path(__file__).with_name("emr_step.py")
_ALIVE = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"]
_READY = ("RUNNING", "WAITING")
_LOG_SHOWN = 4000  # characters
_STEP_UNDER_WAY = ("PENDING", "RUNNING", "CANCEL_PENDING")
# Longer than RunJobFlow ever takes: whoever held the lock for this long has died.
_LOCK_EXPIRES = timedelta(minutes=2)


class EmrError(RuntimeError):
    """A cluster or step failed, or a setting is missing or wrong; the message says which and why."""


class EmrSpark(SparkRunner):
    """One cluster for all assets of a run, one step per asset.

    The cluster is the one of `cluster_id`, or the one called `cluster_name`, which is started if there is
    none. It terminates by itself after `idle_minutes` without a step, so that a Dagster process that dies
    leaves nothing running.
    """

    region: str = Field(default="eu-west-3", description="AWS region of cluster and buckets.")
    allow_non_eu_region: bool = Field(
        default=False, description="Accept regions where the GDPR does not apply by itself."
    )
    staging_uri: str = Field(default="", description="s3:// prefix for code and messages of steps.")
    cluster_id: str = Field(default="", description="An existing cluster, j-...; empty: find by name.")
    cluster_name: str = Field(default="fruits-assets", description="Name to find or start it by.")
    log_uri: str = Field(default="", description="s3:// prefix for EMR's logs.")
    bootstrap_uri: str = Field(
        default="", description="s3:// prefix that holds bootstrap-emr.sh and requirements-emr.txt."
    )
    service_role: str = Field(default="", description="IAM role of the EMR service.")
    instance_profile: str = Field(default="", description="Instance profile of the nodes.")
    subnet_id: str = Field(default="", description="Subnet of the nodes.")
    security_configuration: str = Field(default="", description="EMR security configuration.")
    security_group: str = Field(default="", description="Security group of the nodes.")
    service_access_security_group: str = Field(
        default="", description="Security group by which EMR reaches nodes in a private subnet."
    )
    tags: str = Field(default="", description="Tags of the cluster: name=value,name=value.")
    release_label: str = Field(default="emr-7.13.0", description="EMR release.")
    primary_instance_type: str = Field(default="m5.xlarge", description="Type of the primary node.")
    core_instance_type: str = Field(default="m5.xlarge", description="Type of the core nodes.")
    core_instance_count: int = Field(default=2, ge=1, description="How many core nodes.")
    spot: bool = Field(default=False, description="Core nodes from the spot market.")
    ebs_gb: int = Field(default=64, ge=10, description="Disk of each node in GB.")
    idle_minutes: int = Field(
        default=30, ge=1, le=10080, description="Terminate the cluster after so long without a step."
    )
    spark_conf: dict[str, Any] = Field(default={}, description="Further Spark properties of a step.")
    price_per_instance_hour: float = Field(
        default=0.272, ge=0, description="EC2 and EMR price of one node and hour, for the estimate."
    )
    poll_s: int = Field(default=10, ge=1, description="Seconds between looks at cluster and step.")
    log_wait_s: int = Field(
        default=360, ge=0, description="How long to wait for the log of a step that could not report."
    )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuse missing settings and places where the GDPR would not hold, before anything is started."""
        self._refuse_missing()
        self._refuse_outside_eu("FRUITS_EMR_REGION", self.region)

    def run(
        self,
        context: dg.AssetExecutionContext,
        stage: Stage[Params],
        inputs: Mapping[str, Stored],
        output: Output,
        params: Params,
    ) -> StageResult:
        """See `SparkRunner.run`.

        Raises:
            EmrError: with the exception of the step, or the reason why the cluster is gone.
        """
        from fruits_assets.resources.emr_pipes import StagingContextInjector, StagingMessageReader
        from fruits_assets.stages.stage import StageResult

        self._refuse_bucket(_bucket_and_key(output.asset)[0])
        cluster_id = self._ready_cluster(context)
        bucket, prefix = _bucket_and_key(self.staging_uri)
        with dg.open_pipes_session(
            context=context,
            context_injector=StagingContextInjector(self._s3, bucket, prefix),
            message_reader=StagingMessageReader(self._s3, bucket, prefix),
            extras={
                "stage": f"{stage.__module__}:{stage.__name__}",
                "params_type": f"{type(params).__module__}:{type(params).__name__}",
                "params": asdict(params),  # type: ignore[call-overload]
                "inputs": {name: asdict(stored) for name, stored in inputs.items()},
                "output": asdict(output),
            },
        ) as session:
            arguments = [word for pair in session.get_bootstrap_cli_arguments().items() for word in pair]
            step_id = self._add_step(context, cluster_id, arguments)
            with self._cancelled_with_the_run(context, cluster_id, step_id):
                step = self._wait_for_step(context, cluster_id, step_id)
        context.add_asset_metadata(self._metadata(context, cluster_id, step))
        messages: dict[str, Any] = {}
        for message in session.get_custom_messages():
            messages |= message
        if step["Status"]["State"] != "COMPLETED" or "result" not in messages:
            raise EmrError(self._failure(context, cluster_id, step, messages.get("error")))
        return StageResult.from_json(messages["result"])

    @property
    def _s3(self) -> Any:
        import boto3

        return boto3.client("s3", region_name=self.region)

    @property
    def _emr(self) -> Any:
        # Its calls are repeated with back-off when EMR throttles or the connection drops.
        return self._runner.make_emr_client()

    @property
    def _runner(self) -> Any:
        from dagster_aws.emr import EmrJobRunner

        return EmrJobRunner(self.region, check_cluster_every=self.poll_s)  # type: ignore[no-untyped-call]

    def _refuse_missing(self) -> None:
        required = {"staging_uri": self.staging_uri}
        if not self.cluster_id:
            for name in ("log_uri", "bootstrap_uri", "service_role", "instance_profile", "subnet_id"):
                required[name] = getattr(self, name)
        missing = [f"FRUITS_EMR_{name.upper()}" for name, value in required.items() if not value]
        if missing:
            raise EmrError(
                f"FRUITS_SPARK=emr needs {', '.join(missing)}. The outputs of bootstrap/emr-stack.yaml have "
                "them all; FRUITS_EMR_CLUSTER_ID names a cluster that exists and needs less."
            )
        for name in ("staging_uri", "log_uri", "bootstrap_uri"):
            value = getattr(self, name)
            if value and not value.startswith("s3://"):
                raise EmrError(f"FRUITS_EMR_{name.upper()}={value} is not an s3:// prefix.")

    def _refuse_outside_eu(self, what: str, region: str) -> None:
        if region not in EU_REGIONS and not self.allow_non_eu_region:
            raise EmrError(
                f"{what}: {region} is not in the EU ({', '.join(EU_REGIONS)}). Photos may show persons, and "
                "the GDPR restricts where they go. FRUITS_EMR_ALLOW_NON_EU_REGION=true takes the decision."
            )

    def _refuse_bucket(self, bucket: str) -> None:
        """Refuse a bucket outside the EU or without encryption."""
        from botocore.exceptions import ClientError

        # Buckets of the oldest region have no location.
        location = self._s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] or "us-east-1"
        self._refuse_outside_eu(f"Bucket {bucket}", location)
        try:
            self._s3.get_bucket_encryption(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ServerSideEncryptionConfigurationNotFoundError":
                raise
            raise EmrError(
                f"Bucket {bucket} is not encrypted. Switch its default encryption on, or use the bucket of "
                "bootstrap/emr-stack.yaml."
            ) from error

    def _ready_cluster(self, context: dg.AssetExecutionContext) -> str:
        """The cluster to use, started if need be, once it takes steps."""
        cluster_id = self.cluster_id or self._shared_cluster(context)
        started, said = time.monotonic(), ""
        while True:
            cluster = self._describe_cluster(cluster_id)
            state = cluster["Status"]["State"]
            if state in _READY:
                return cluster_id
            if state not in _ALIVE:
                raise EmrError(f"Cluster {cluster_id} is {state}: {_reason(cluster)}")
            line = f"Cluster {cluster_id} is {state}, {_minutes_since(started)} min"
            if line != said:
                context.log.info(line)
                said = line
            time.sleep(self.poll_s)

    def _describe_cluster(self, cluster_id: str) -> dict[str, Any]:
        cluster: dict[str, Any] = self._emr.describe_cluster(ClusterId=cluster_id)["Cluster"]
        return cluster

    def _shared_cluster(self, context: dg.AssetExecutionContext) -> str:
        """Find the cluster by name or start it; of several processes that find none, one starts it."""
        while True:
            if (found := self._find_cluster()) is not None:
                return found
            with self._start_lock() as is_ours:
                if is_ours:
                    # Another may have started it between the look and the lock.
                    return self._find_cluster() or self._start_cluster(context)
            time.sleep(self.poll_s)

    def _find_cluster(self) -> str | None:
        pages = self._emr.get_paginator("list_clusters").paginate(ClusterStates=_ALIVE)
        found = [
            cluster["Id"]
            for page in pages
            for cluster in page["Clusters"]
            if cluster["Name"] == self.cluster_name
        ]
        return min(found, default=None)

    @contextmanager
    def _start_lock(self) -> Iterator[bool]:
        """Whether this process may start the cluster: an object that only one can create says so."""
        from botocore.exceptions import ClientError

        bucket, prefix = _bucket_and_key(self.staging_uri)
        place = {"Bucket": bucket, "Key": f"{prefix}/locks/{self.cluster_name}"}
        try:
            self._s3.put_object(**place, Body=b"", IfNoneMatch="*")
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise
            self._drop_expired(place)
            yield False
            return
        try:
            yield True
        finally:
            self._s3.delete_object(**place)

    def _drop_expired(self, place: Mapping[str, str]) -> None:
        from botocore.exceptions import ClientError

        try:
            since = self._s3.head_object(**place)["LastModified"]
        except ClientError:
            return  # released in the meantime
        if datetime.now(UTC) - since > _LOCK_EXPIRES:
            self._s3.delete_object(**place)

    def _start_cluster(self, context: dg.AssetExecutionContext) -> str:
        cluster_id: str = self._emr.run_job_flow(**self.cluster_request())["JobFlowId"]
        context.log.info(f"Started cluster {cluster_id} ({self.cluster_name})")
        return cluster_id

    def cluster_request(self) -> dict[str, Any]:
        """The arguments of EMR's RunJobFlow for a new cluster."""
        groups = [
            self._instance_group("MASTER", self.primary_instance_type, 1, "ON_DEMAND"),
            self._instance_group(
                "CORE",
                self.core_instance_type,
                self.core_instance_count,
                "SPOT" if self.spot else "ON_DEMAND",
            ),
        ]
        places = {
            "Ec2SubnetId": self.subnet_id,
            "EmrManagedMasterSecurityGroup": self.security_group,
            "EmrManagedSlaveSecurityGroup": self.security_group,
            "ServiceAccessSecurityGroup": self.service_access_security_group,
        }
        tags = dict(pair.split("=", 1) for pair in self.tags.split(",") if pair)
        request: dict[str, Any] = {
            "Name": self.cluster_name,
            "ReleaseLabel": self.release_label,
            "Applications": [{"Name": "Spark"}],
            "LogUri": self.log_uri,
            "ServiceRole": self.service_role,
            "JobFlowRole": self.instance_profile,
            "VisibleToAllUsers": True,
            "Instances": {
                "InstanceGroups": groups,
                "KeepJobFlowAliveWhenNoSteps": True,
                "TerminationProtected": False,
                **{name: value for name, value in places.items() if value},
            },
            "BootstrapActions": [
                {
                    "Name": "Python 3.11 with the packages of the stages",
                    "ScriptBootstrapAction": {
                        "Path": f"{self.bootstrap_uri.rstrip('/')}/bootstrap-emr.sh",
                        "Args": [f"{self.bootstrap_uri.rstrip('/')}/requirements-emr.txt"],
                    },
                }
            ],
            "Configurations": [
                {"Classification": "spark", "Properties": {"maximizeResourceAllocation": "true"}}
            ],
            "AutoTerminationPolicy": {"IdleTimeout": 60 * self.idle_minutes},
            # Without this tag, EMR's managed policies do not let it start nodes.
            "Tags": [
                {"Key": name, "Value": value}
                for name, value in {"for-use-with-amazon-emr-managed-policies": "true", **tags}.items()
            ],
        }
        if self.security_configuration:
            request["SecurityConfiguration"] = self.security_configuration
        return request

    def _instance_group(self, role: str, instance_type: str, count: int, market: str) -> dict[str, Any]:
        disk = {"VolumeType": "gp3", "SizeInGB": self.ebs_gb}
        return {
            "Name": role.lower(),
            "InstanceRole": role,
            "InstanceType": instance_type,
            "InstanceCount": count,
            "Market": market,
            "EbsConfiguration": {
                "EbsBlockDeviceConfigs": [{"VolumeSpecification": disk, "VolumesPerInstance": 1}]
            },
        }

    def _add_step(self, context: dg.AssetExecutionContext, cluster_id: str, arguments: list[str]) -> str:
        code_uri, script_uri = self._upload_code()
        conf = {
            "spark.pyspark.python": CLUSTER_PYTHON,
            "spark.pyspark.driver.python": CLUSTER_PYTHON,
            "spark.sql.session.timeZone": "UTC",
            **self.spark_conf,
        }
        options = [word for name, value in conf.items() for word in ("--conf", f"{name}={value}")]
        step = self._runner.construct_step_dict_for_command(
            context.asset_key.to_user_string(),
            [
                *("spark-submit", "--deploy-mode", "client", *options),
                *("--py-files", code_uri, script_uri, *arguments),
            ],
        )
        (step_id,) = self._runner.add_job_flow_steps(context.log, cluster_id, [step])
        context.log.info(f"Step {step_id} on cluster {cluster_id}: {self._console_uri(cluster_id)}")
        return str(step_id)

    def _upload_code(self) -> tuple[str, str]:
        """URIs of the zip and the script, uploaded if this content is not there yet."""
        from botocore.exceptions import ClientError

        uris = []
        for suffix, content in ((".zip", code_archive()), (".py", _STEP_SCRIPT.read_bytes())):
            digest = hashlib.sha256(content).hexdigest()[:16]
            bucket, prefix = _bucket_and_key(self.staging_uri)
            key = f"{prefix}/code/fruits_assets-{digest}{suffix}"
            try:
                self._s3.head_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("404", "NoSuchKey", "NotFound"):
                    raise
                self._s3.put_object(Bucket=bucket, Key=key, Body=content)
            uris.append(f"s3://{bucket}/{key}")
        return uris[0], uris[1]

    @contextmanager
    def _cancelled_with_the_run(
        self, context: dg.AssetExecutionContext, cluster_id: str, step_id: str
    ) -> Iterator[None]:
        try:
            yield
        except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
            context.log.info(f"Cancelling step {step_id}")
            self._emr.cancel_steps(
                ClusterId=cluster_id, StepIds=[step_id], StepCancellationOption="TERMINATE_PROCESS"
            )
            raise

    def _wait_for_step(
        self, context: dg.AssetExecutionContext, cluster_id: str, step_id: str
    ) -> dict[str, Any]:
        started, said = time.monotonic(), ""
        while True:
            step: dict[str, Any] = self._emr.describe_step(ClusterId=cluster_id, StepId=step_id)["Step"]
            state = step["Status"]["State"]
            if state not in _STEP_UNDER_WAY:
                return step
            line = f"Step {step_id} is {state}, {_minutes_since(started)} min"
            if line != said:
                context.log.info(line)
                said = line
            cluster = self._describe_cluster(cluster_id)
            if cluster["Status"]["State"] not in _ALIVE:
                raise EmrError(
                    f"Cluster {cluster_id} is {cluster['Status']['State']} while step {step_id} was {state}: "
                    f"{_reason(cluster)}"
                )
            time.sleep(self.poll_s)

    def _failure(
        self,
        context: dg.AssetExecutionContext,
        cluster_id: str,
        step: Mapping[str, Any],
        error: str | None,
    ) -> str:
        """Why a step failed: its exception, or what its log and EMR say."""
        title = f"Step {step['Id']} ({step['Name']}) on cluster {cluster_id} is {step['Status']['State']}"
        cluster = self._describe_cluster(cluster_id)
        if (state := cluster["Status"]["State"]) not in _ALIVE:
            return f"{title}, and the cluster {state}: {_reason(cluster)}"
        if error is None:
            error = self._log_of(context, cluster_id, step["Id"]) or _reason(step)
        return "\n".join(filter(None, [title, _hint(error), _last_traceback(error)]))

    def _log_of(self, context: dg.AssetExecutionContext, cluster_id: str, step_id: str) -> str:
        """What a step wrote before it failed, which EMR copies to S3 every few minutes."""
        from botocore.exceptions import WaiterError
        from dagster_aws.emr.emr import EmrError as NoLogError

        context.log.info(f"Waiting up to {self.log_wait_s} s for the log of step {step_id}")
        texts: list[str] = []
        # Spark sends the words of a Python script to stdout, both kinds, and its own to stderr.
        for name, attempts in (("stderr", max(1, self.log_wait_s // self.poll_s)), ("stdout", 1)):
            with suppress(WaiterError, NoLogError):
                bucket, prefix = self._runner.log_location_for_cluster(cluster_id)
                key = f"{prefix}{cluster_id}/steps/{step_id}/{name}.gz"
                texts.append(self._runner.wait_for_log(context.log, bucket, key, self.poll_s, attempts))
        return "\n".join(texts)

    def _metadata(
        self, context: dg.AssetExecutionContext, cluster_id: str, step: Mapping[str, Any]
    ) -> dict[str, Any]:
        timeline = step["Status"]["Timeline"]
        ended = timeline.get("EndDateTime") or datetime.now(UTC)
        seconds = (ended - timeline.get("StartDateTime", ended)).total_seconds()
        hours = (1 + self.core_instance_count) * seconds / 3600
        shown = {
            "emr_cluster": cluster_id,
            "emr_step": step["Id"],
            "emr_console": dg.MetadataValue.url(self._console_uri(cluster_id)),
            "step_seconds": seconds,
            "estimated_cost": round(hours * self.price_per_instance_hour, 4),
        }
        if (history := self._spark_history_uri(context, cluster_id)) is not None:
            shown["spark_history"] = dg.MetadataValue.url(history)
        return shown

    def _console_uri(self, cluster_id: str) -> str:
        host = f"https://{self.region}.console.aws.amazon.com"
        return f"{host}/emr/home?region={self.region}#/clusterDetails/{cluster_id}"

    def _spark_history_uri(self, context: dg.AssetExecutionContext, cluster_id: str) -> str | None:
        """A link to the Spark history that outlives the cluster and needs no tunnel; valid for a while."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            arn = self._describe_cluster(cluster_id)["ClusterArn"]
            interface = self._emr.create_persistent_app_ui(TargetResourceArn=arn)["PersistentAppUIId"]
            link = self._emr.get_persistent_app_ui_presigned_url(
                PersistentAppUIId=interface, PersistentAppUIType="SHS"
            )
        except (BotoCoreError, ClientError) as error:
            # The result is there: a link that cannot be had must not fail it.
            context.log.warning(f"No link to the Spark history of {cluster_id}: {error}")
            return None
        return str(link["PresignedURL"])


def code_archive() -> bytes:
    """`stages/`, `photos/` and `mobilenet/extractor.py` as a zip, the same bytes for the same code."""
    files = [
        _PACKAGE / "__init__.py",
        _PACKAGE / "mobilenet" / "__init__.py",
        _PACKAGE / "mobilenet" / "extractor.py",
        *sorted((_PACKAGE / "photos").rglob("*.py")),
        *sorted((_PACKAGE / "stages").glob("*.py")),
    ]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            # A ZipInfo of its own has a fixed date.
            name = zipfile.ZipInfo(str(file.relative_to(_PACKAGE.parent)))
            archive.writestr(name, file.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _bucket_and_key(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    if parts.scheme != "s3":
        raise EmrError(
            f"'{uri}' is not on S3, where a cluster could reach it. With FRUITS_SPARK=emr, FRUITS_IMAGES and "
            "FRUITS_LAKE are s3:// prefixes."
        )
    return parts.netloc, parts.path.strip("/")


def _minutes_since(started: float) -> int:
    return int((time.monotonic() - started) / 60)


def _reason(of: Mapping[str, Any]) -> str:
    """EMR's own words on the state of a cluster or step."""
    change = of["Status"].get("StateChangeReason", {})
    details = of["Status"].get("FailureDetails", {})
    words = [change.get("Code"), change.get("Message"), details.get("Reason"), details.get("Message")]
    return ": ".join(filter(None, words)) or "EMR gives no reason"


def _last_traceback(log: str) -> str:
    """From the last Python traceback on, or the end of a log without one."""
    start = log.rfind("Traceback (most recent call last)")
    return (log[start : start + _LOG_SHOWN] if start >= 0 else log[-_LOG_SHOWN:]).strip()


def _hint(error: str) -> str:
    """What to do about the two faults that come from the cluster's own installation."""
    if found := re.search(r"No module named '([\w.]+)'", error):
        return (
            f"The cluster lacks the package {found[1]}: add it to bootstrap/requirements-emr.txt, upload "
            "that, and start a new cluster."
        )
    if CLUSTER_PYTHON in error and re.search(r"No such file|Cannot run program", error):
        return f"The cluster lacks {CLUSTER_PYTHON}: it was started without bootstrap/bootstrap-emr.sh."
    return ""
