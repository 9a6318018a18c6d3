"""Finding a cluster, starting it if there is none, and sharing it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from fruits_assets.resources.emr.aws import ONE_CALL_S, Aws, Log, answered_at, may_pass
from fruits_assets.resources.emr.errors import ClusterGoneError, EmrError, reason
from fruits_assets.resources.emr.lock import lock
from fruits_assets.resources.emr.places import bucket_and_key, s3_uris
from fruits_assets.resources.emr.request import DIGEST_TAG, RUN_TAG, cluster_request, digest, with_tags
from fruits_assets.resources.emr.settings import EmrSettings, variable

Found = TypeVar("Found")

ALIVE = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")
READY = ("RUNNING", "WAITING")

_MINUTE = timedelta(minutes=1)
# Whoever may start the cluster begins no call later than this, and has then ended the last one before others
# take the lock.
_START_S = 300.0
_LOCK_EXPIRES = timedelta(seconds=_START_S + 4 * ONE_CALL_S)


class Cluster:
    """The cluster of some settings: the one of `cluster_id`, or one that was asked for with the same.

    Others of the same name, of somebody else or from before a change, are left alone.
    """

    def __init__(self, settings: EmrSettings, aws: Aws, log: Log, run_id: str) -> None:
        self._settings = settings
        self._aws = aws
        self._log = log
        self._run_id = run_id
        self._request: dict[str, Any] = {}
        self._digest = ""
        self._left_alone: set[str] = set()

    def ready(self) -> dict[str, Any]:
        """As EMR describes it, once it takes steps; started if need be.

        Raises:
            ClusterGoneError: it has ended since it was found.
            EmrError: it does not come up, or not in time.
        """
        cluster_id = self._settings.cluster_id or self._found_or_started()
        said = ""
        while True:
            answer = self._patiently(lambda: self._aws.emr.describe_cluster(ClusterId=cluster_id))
            cluster: dict[str, Any] = answer["Cluster"]
            state, timeline = cluster["Status"]["State"], cluster["Status"]["Timeline"]
            if state in READY:
                return cluster
            if state not in ALIVE:
                gone = ClusterGoneError if "ReadyDateTime" in timeline else EmrError
                raise gone(f"Cluster {cluster_id} is {state}: {reason(cluster)}")
            minutes = max(answered_at(answer) - timeline["CreationDateTime"], timedelta()) // _MINUTE
            if minutes >= self._settings.start_timeout_minutes and not self._settings.cluster_id:
                self._give_up(cluster, minutes)
            line = f"Cluster {cluster_id} is {state}, {minutes} min"
            if line != said:
                self._log.info(line)
                said = line
            time.sleep(self._settings.poll_s)

    def _give_up(self, cluster: Mapping[str, Any], minutes: int) -> None:
        self._patiently(lambda: self._aws.emr.terminate_job_flows(JobFlowIds=[cluster["Id"]]))
        raise EmrError(
            f"Cluster {cluster['Id']} was still {cluster['Status']['State']} after {minutes} minutes and is "
            "terminated. EC2 may have no machine of its type there: try another one, or further subnets in "
            f"{variable('subnet_id')}, or a larger {variable('start_timeout_minutes')}."
        )

    def _found_or_started(self) -> str:
        """The id of the cluster; of several processes that find none, one starts it."""
        self._request = cluster_request(self._settings)
        self._digest = digest(self._request, self._bootstrap())
        bucket, prefix = bucket_and_key(self._settings.staging_uri)
        key = f"{prefix}/locks/{self._settings.cluster_name}".lstrip("/")
        while True:
            if (found := self._find()) is not None:
                return found
            with lock(self._aws.s3, bucket, key, _LOCK_EXPIRES) as is_ours:
                if is_ours:
                    return self._start()
            time.sleep(self._settings.poll_s)

    def _bootstrap(self) -> dict[str, bytes]:
        """What the nodes are told to install, by URI."""
        content = {}
        for uri in s3_uris(self._request.get("BootstrapActions", [])):
            if not uri.startswith(self._settings.bootstrap_uri):
                continue
            bucket, key = bucket_and_key(uri)
            if (file := self._aws.content({"Bucket": bucket, "Key": key})) is None:
                raise EmrError(
                    f"'{uri}' is missing, which every node runs when it starts: aws s3 sync bootstrap "
                    f"{self._settings.bootstrap_uri.rstrip('/')}/"
                )
            content[uri] = file
        return content

    def _find(self) -> str | None:
        pages = self._patiently(
            lambda: list(self._aws.emr.get_paginator("list_clusters").paginate(ClusterStates=list(ALIVE)))
        )
        found = []
        for summary in (cluster for page in pages for cluster in page["Clusters"]):
            if summary["Name"] != self._request["Name"] or summary["Id"] in self._left_alone:
                continue
            cluster_id = summary["Id"]
            cluster = self._patiently(lambda: self._aws.emr.describe_cluster(ClusterId=cluster_id))["Cluster"]  # noqa: B023
            if {tag["Key"]: tag["Value"] for tag in cluster["Tags"]}.get(DIGEST_TAG) == self._digest:
                found.append((summary["Status"]["State"] not in READY, cluster_id))
                continue
            self._left_alone.add(cluster_id)
            self._log.info(
                f"Cluster {cluster_id} is called {summary['Name']} as well, but was started by somebody else "
                "or with other settings or packages; it is left to end by itself"
            )
        return min(found)[1] if found else None

    def _start(self) -> str:
        """Ask for a cluster, once: a call whose answer is lost may have been carried out."""
        request = with_tags(self._request, {DIGEST_TAG: self._digest, RUN_TAG: self._run_id})
        give_up = time.monotonic() + _START_S
        while True:
            # Somebody else's, from between the look and the lock, or this one's own.
            if (found := self._find()) is not None:
                return found
            try:
                cluster_id: str = self._aws.emr_once.run_job_flow(**request)["JobFlowId"]
            except Exception as error:
                if not may_pass(error) or time.monotonic() > give_up:
                    raise
                self._log.warning(f"Whether a cluster was started is not known ({error}); looking for it")
                self._aws.renew()
                time.sleep(self._settings.poll_s)
                continue
            self._log.info(f"Started cluster {cluster_id} ({request['Name']})")
            return cluster_id

    def _patiently(self, call: Callable[[], Found]) -> Found:
        minutes, pause_s = self._settings.patience_minutes, self._settings.poll_s
        return self._aws.patiently("A look at the cluster", call, self._log, 60 * minutes, pause_s)
