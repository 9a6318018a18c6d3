"""Runs stages as steps on one Amazon EMR cluster, and hears of them by Dagster Pipes over S3."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import Field

from fruits_assets.resources.emr.alive import SignOfLife
from fruits_assets.resources.emr.aws import Aws, answered_at
from fruits_assets.resources.emr.cluster import ALIVE, Cluster
from fruits_assets.resources.emr.code import upload_code
from fruits_assets.resources.emr.errors import (
    CLUSTER_PYTHON,
    ClusterGoneError,
    EmrError,
    hint,
    last_traceback,
    reason,
)
from fruits_assets.resources.emr.instances import PRICES_OF
from fruits_assets.resources.emr.nodes import in_words, nodes_of, spark_properties, unknown_types, usd
from fruits_assets.resources.emr.places import Places, bucket_and_key, s3_uris
from fruits_assets.resources.emr.request import cluster_request
from fruits_assets.resources.emr.settings import EmrSettings
from fruits_assets.resources.emr.step import Step
from fruits_assets.resources.failures import refused_in_words

if TYPE_CHECKING:
    from fruits_assets.stages.stage import Stage, StageResult
    from fruits_assets.stages.stored import Output, Stored

Params = TypeVar("Params")
Found = TypeVar("Found")

# Workers that start at once ask a node for its credentials at once; it answers only so many.
_METADATA_SERVICE = {"AWS_METADATA_SERVICE_TIMEOUT": "5", "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "10"}


class EmrSpark(EmrSettings):
    """One cluster for all assets of a run, one step per asset.

    The cluster is the one of `cluster_id`, or one that is called `cluster_name` and was asked for with the
    same settings, which is started if there is none. It terminates by itself after `idle_minutes` without a
    step, so that a Dagster process that dies leaves nothing running.
    """

    data_uris: dict[str, str] = Field(
        default={}, description="Where photos and tables are, by the name of the setting."
    )

    @refused_in_words()
    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuse missing settings and places where the GDPR would not hold, before anything is started."""
        self.refuse_missing()
        if not self.cluster_id:
            cluster_request(self)
        places = self._places(Aws(self.region))
        places.refuse_region("FRUITS_EMR_REGION", self.region)
        places.refuse(self.uris | self.data_uris)

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
        from fruits_assets.resources.emr.pipes import StagingContextInjector, StagingMessageReader
        from fruits_assets.stages.stage import StageResult

        aws, asset = Aws(self.region), context.asset_key.to_user_string()
        arguments = asdict(params)  # type: ignore[call-overload]
        self._refuse_places(aws, inputs, output, arguments)
        bucket, prefix = bucket_and_key(self.staging_uri)
        result = {"Bucket": bucket, "Key": f"{prefix}/results/{output.version}/{asset}.json".lstrip("/")}
        alive = SignOfLife(aws, self.staging_uri, self.patience_minutes)
        step = Step(self, aws, context.log, alive, f"{asset} {output.version}")
        with dg.open_pipes_session(
            context=context,
            context_injector=StagingContextInjector(aws, bucket, prefix),
            message_reader=StagingMessageReader(Aws(self.region), bucket, prefix),
            extras={
                "stage": f"{stage.__module__}:{stage.__name__}",
                "params_type": f"{type(params).__module__}:{type(params).__name__}",
                "params": arguments,
                "inputs": {name: asdict(stored) for name, stored in inputs.items()},
                "output": asdict(output),
                "result": result,
            },
        ) as session:
            pipes = [word for pair in session.get_bootstrap_cli_arguments().items() for word in pair]
            with step.cancelled_on_failure():
                cluster_id, ended = self._ended(context, aws, step, pipes)
                told = self._patiently(aws, context, lambda: _taken(aws, result))
        if ended["Status"]["State"] != "COMPLETED" or "result" not in told:
            raise EmrError(self._failure(context, aws, cluster_id, ended, told.get("error")))
        try:
            context.add_asset_metadata(self._metadata(aws, cluster_id, ended))
        except Exception as error:
            # The result is there: what is told beside it must not fail it.
            context.log.warning(f"What step {ended['Id']} cost is not known: {error}")
        return StageResult.from_json(told["result"])

    def _places(self, aws: Aws) -> Places:
        return Places(aws.s3, self.allow_non_eu_region)

    def _refuse_places(
        self, aws: Aws, inputs: Mapping[str, Stored], output: Output, arguments: Mapping[str, Any]
    ) -> None:
        uris = {f"{name} of the stage": uri for name, value in arguments.items() for uri in s3_uris(value)}
        uris |= {f"Input {name}": stored.table.uri for name, stored in inputs.items()}
        uris |= {f"Models of input {name}": stored.folder for name, stored in inputs.items()}
        self._places(aws).refuse({"Output": output.asset, **uris})

    def _ended(
        self, context: dg.AssetExecutionContext, aws: Aws, step: Step, pipes: list[str]
    ) -> tuple[str, dict[str, Any]]:
        """Cluster and step, once the step has ended; on a second cluster if the first ends before that."""
        cluster = Cluster(self, aws, context.log, context.run_id)
        try:
            return self._ended_on(context, aws, cluster.ready(), step, pipes)
        except ClusterGoneError as error:
            if self.cluster_id:
                raise
            context.log.warning(f"{error}. Once more, with another cluster")
            return self._ended_on(context, aws, cluster.ready(), step, pipes)

    def _ended_on(
        self,
        context: dg.AssetExecutionContext,
        aws: Aws,
        cluster: Mapping[str, Any],
        step: Step,
        pipes: list[str],
    ) -> tuple[str, dict[str, Any]]:
        nodes = self._patiently(aws, context, lambda: nodes_of(aws.emr, cluster))
        if unknown := unknown_types(nodes):
            context.log.warning(
                f"Cluster {cluster['Id']} has {', '.join(unknown)}, of which fruits_assets/resources/emr/"
                "instances.py knows neither memory nor price: executors are as the cluster has them by itself"
            )
        context.log.info(f"Cluster {cluster['Id']} ({in_words(nodes)}): {self._console_uri(cluster['Id'])}")
        command = self._command(aws, spark_properties(nodes), pipes)
        return cluster["Id"], step.run_on(cluster["Id"], command)

    def _command(self, aws: Aws, properties: Mapping[str, str], pipes: list[str]) -> list[str]:
        code_uri, script_uri = upload_code(aws.s3, self.staging_uri)
        variables = {"AWS_DEFAULT_REGION": self.region, **_METADATA_SERVICE}
        conf = {
            "spark.pyspark.python": CLUSTER_PYTHON,
            "spark.pyspark.driver.python": CLUSTER_PYTHON,
            "spark.sql.session.timeZone": "UTC",
            **{f"spark.executorEnv.{name}": value for name, value in variables.items()},
            **properties,
            **self.spark_conf,
        }
        options = [word for name, value in conf.items() for word in ("--conf", f"{name}={value}")]
        return [
            *("spark-submit", "--deploy-mode", "client", *options, "--py-files", code_uri, script_uri),
            *(f"{name}={value}" for name, value in variables.items()),
            *pipes,
        ]

    def _failure(
        self,
        context: dg.AssetExecutionContext,
        aws: Aws,
        cluster_id: str,
        step: Mapping[str, Any],
        error: str | None,
    ) -> str:
        """Why a step failed: its exception, or what its log and EMR say."""
        title = f"Step {step['Id']} ({step['Name']}) on cluster {cluster_id} is {step['Status']['State']}"
        cluster = self._patiently(aws, context, lambda: aws.emr.describe_cluster(ClusterId=cluster_id))[
            "Cluster"
        ]
        if (state := cluster["Status"]["State"]) not in ALIVE:
            return f"{title}, and the cluster {state}: {reason(cluster)}"
        if error is None:
            error = self._log_of(context, aws, cluster, step["Id"]) or reason(step)
        return "\n".join(filter(None, [title, hint(error), last_traceback(error)]))

    def _log_of(
        self, context: dg.AssetExecutionContext, aws: Aws, cluster: Mapping[str, Any], step_id: str
    ) -> str:
        """What a step wrote before it failed, which EMR copies to S3 every few minutes."""
        if not cluster.get("LogUri"):
            return ""
        context.log.info(f"Waiting up to {self.log_wait_s} s for the log of step {step_id}")
        # EMR takes s3:// and gives back s3n://.
        bucket, prefix = bucket_and_key("s3://" + cluster["LogUri"].partition("://")[2])
        folder = f"{prefix}/{cluster['Id']}/steps/{step_id}".lstrip("/")
        deadline = time.monotonic() + self.log_wait_s
        texts = []
        # Spark sends the words of a Python script to stdout, both kinds, and its own to stderr.
        for name in ("stderr", "stdout"):
            place = {"Bucket": bucket, "Key": f"{folder}/{name}.gz"}
            while (log := self._patiently(aws, context, lambda: aws.content(place))) is None:  # noqa: B023
                if time.monotonic() > deadline:
                    break
                time.sleep(self.poll_s)
            texts.append(gzip.decompress(log).decode(errors="replace") if log else "")
        return "\n".join(filter(None, texts))

    def _metadata(self, aws: Aws, cluster_id: str, step: Mapping[str, Any]) -> dict[str, Any]:
        answer = aws.emr.describe_cluster(ClusterId=cluster_id)
        nodes, now = nodes_of(aws.emr, answer["Cluster"]), answered_at(answer)
        began, ended = (step["Status"]["Timeline"][name] for name in ("StartDateTime", "EndDateTime"))
        idle = timedelta(minutes=0 if self.cluster_id else self.idle_minutes)
        # From its first node to its end, if no other step comes.
        since, until = min(node.since for node in nodes), now + idle
        costs = {
            "estimated_step_cost": usd(nodes, began, ended, self.ebs_gb),
            "estimated_cluster_cost": usd(nodes, since, until, self.ebs_gb),
        }
        return {
            "emr_cluster": cluster_id,
            "emr_nodes": in_words(nodes),
            "emr_step": step["Id"],
            # Its tab of applications has Spark's history, which outlives the cluster. A link to that itself
            # would be a credential.
            "emr_console": dg.MetadataValue.url(self._console_uri(cluster_id)),
            "step_seconds": (ended - began).total_seconds(),
            **{name: cost for name, cost in costs.items() if cost is not None},
            "cluster_since": dg.MetadataValue.timestamp(since),
            "cluster_until": dg.MetadataValue.timestamp(until),
            "prices_of": PRICES_OF,
        }

    def _console_uri(self, cluster_id: str) -> str:
        host = f"https://{self.region}.console.aws.amazon.com"
        return f"{host}/emr/home?region={self.region}#/clusterDetails/{cluster_id}"

    def _patiently(self, aws: Aws, context: dg.AssetExecutionContext, call: Callable[[], Found]) -> Found:
        return aws.patiently("A call", call, context.log, 60 * self.patience_minutes, self.poll_s)


def _taken(aws: Aws, place: Mapping[str, str]) -> dict[str, Any]:
    """What a step has told, which is removed: it tells of photos."""
    content = aws.content(place)
    if content is None:
        return {}
    with suppress(BotoCoreError, ClientError):  # then the bucket's own rule does it
        aws.s3.delete_object(**place)
    told: dict[str, Any] = json.loads(content)
    return told
