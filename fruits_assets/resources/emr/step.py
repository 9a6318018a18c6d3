"""A step, from being added to its end."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from dagster._utils.interrupts import capture_interrupts

from fruits_assets.resources.emr.alive import SignOfLife
from fruits_assets.resources.emr.aws import Aws, Log, may_pass
from fruits_assets.resources.emr.cluster import ALIVE
from fruits_assets.resources.emr.errors import ClusterGoneError, EmrError, reason
from fruits_assets.resources.emr.settings import EmrSettings

Found = TypeVar("Found")

_UNDER_WAY = ("PENDING", "RUNNING", "CANCEL_PENDING")
# `<asset> <run>-<attempt>`: EMR's steps have no tags.
_OURS = re.compile(r"\S+ [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-\d+")
_CANCEL_S, _END_S = 60.0, 30.0
_LOOK_FOR_DEAD_S = 60.0


class Step:
    """A step of a name of its own, by which it is found when EMR's answer is lost."""

    def __init__(self, settings: EmrSettings, aws: Aws, log: Log, alive: SignOfLife, name: str) -> None:
        self._settings = settings
        self._aws = aws
        self._log = log
        self._alive = alive
        self._name = name
        self._cluster_id = ""
        self._id: str | None = None
        self._looked_s = 0.0

    @contextmanager
    def cancelled_on_failure(self) -> Iterator[None]:
        """Whatever goes wrong while this lasts, no step goes on that nobody waits for."""
        try:
            with self._alive.given(self._name):
                yield
        except BaseException:
            # A second Ctrl+C must not keep it from that.
            with capture_interrupts():
                self._cancel()
            raise

    def run_on(self, cluster_id: str, command: Sequence[str]) -> dict[str, Any]:
        """Run a command as a step of a cluster; what EMR says of it once it has ended.

        Raises:
            ClusterGoneError: the cluster ended before the step began.
            EmrError: the cluster ended while it ran.
        """
        self._cluster_id, self._id = cluster_id, None
        self.cancel_those_of_dead_runs()
        self._id = self._added(command)
        self._log.info(f"Step {self._id} ({self._name}) on cluster {cluster_id}")
        return self._ended()

    def cancel_those_of_dead_runs(self) -> None:
        """Of runs with the same staging prefix that were killed, or could not cancel them."""
        self._looked_s = time.monotonic()
        code = f"{self._settings.staging_uri.rstrip('/')}/"
        for other in self._newest(["PENDING", "RUNNING"]):
            arguments = other["Config"]["Args"]
            if (
                other["Name"] != self._name
                and _OURS.fullmatch(other["Name"])
                and any(argument.startswith(code) for argument in arguments)
                and self._alive.is_missing(other["Name"])
            ):
                self._log.info(f"Cancelling step {other['Id']} ({other['Name']}), whose run is gone")
                try:
                    self._cancel_by_id(other["Id"])
                except (BotoCoreError, ClientError) as error:
                    self._log.warning(f"Step {other['Id']} could not be cancelled: {error}")

    def _added(self, command: Sequence[str]) -> str:
        """Add it, once: a call whose answer is lost may have been carried out."""
        step = {
            "Name": self._name,
            "ActionOnFailure": "CONTINUE",
            "HadoopJarStep": {"Jar": "command-runner.jar", "Args": list(command)},
        }
        role = self._settings.execution_role
        more = {"ExecutionRoleArn": role} if role else {}
        give_up = time.monotonic() + 60 * self._settings.patience_minutes
        while True:
            try:
                answer = self._aws.emr_once.add_job_flow_steps(
                    JobFlowId=self._cluster_id, Steps=[step], **more
                )
                return str(answer["StepIds"][0])
            except Exception as error:
                if may_pass(error) and time.monotonic() < give_up:
                    self._log.warning(f"Whether a step was added is not known ({error}); looking for it")
                    self._aws.renew()
                else:
                    self._refuse_ending_cluster(error)
                    raise
            time.sleep(self._settings.poll_s)
            if (found := self._found()) is not None:
                return found

    def _refuse_ending_cluster(self, error: Exception) -> None:
        cluster = self._described_cluster()
        if cluster["Status"]["State"] not in ALIVE:
            raise ClusterGoneError(
                f"Cluster {cluster['Id']} is {cluster['Status']['State']}: {reason(cluster)}"
            ) from error

    def _ended(self) -> dict[str, Any]:
        started, said = time.monotonic(), ""
        while True:
            step = self._described()
            state = step["Status"]["State"]
            if state in _UNDER_WAY:
                cluster = self._described_cluster()
                if cluster["Status"]["State"] not in ALIVE:
                    self._refuse_lost(cluster)
            elif state != "COMPLETED" and "StartDateTime" not in step["Status"]["Timeline"]:
                # Cancelled by whoever, or with its cluster before it began.
                self._refuse_ending_cluster(EmrError(f"Step {self._id} is {state}"))
            if state not in _UNDER_WAY:
                return step
            line = f"Step {self._id} is {state}, {int((time.monotonic() - started) / 60)} min"
            if line != said:
                self._log.info(line)
                said = line
            self._alive.give_again(self._name)
            if state == "PENDING" and time.monotonic() - self._looked_s > _LOOK_FOR_DEAD_S:
                self.cancel_those_of_dead_runs()
            time.sleep(self._settings.poll_s)

    def _refuse_lost(self, cluster: Mapping[str, Any]) -> None:
        """Raise for a step that has not ended before its cluster did."""
        step = self._described()
        if step["Status"]["State"] == "COMPLETED":
            return
        has_begun = "StartDateTime" in step["Status"]["Timeline"]
        raise (EmrError if has_begun else ClusterGoneError)(
            f"Cluster {self._cluster_id} is {cluster['Status']['State']} while step {self._id} was "
            f"{'RUNNING' if has_begun else 'PENDING'}: {reason(cluster)}"
        )

    def _cancel(self) -> None:
        """Cancel it, if it was added and has not ended."""
        if not self._cluster_id:
            return
        try:
            self._patiently("Cancelling the step", self._cancel_now, _CANCEL_S)
        except Exception as error:
            self._log.warning(
                f"Step {self._id or self._name} on cluster {self._cluster_id} could not be cancelled "
                f"({error}). If it still runs, the next run on that cluster cancels it."
            )

    def _cancel_now(self) -> None:
        if self._id is None and (found := self._found()) is None:
            time.sleep(1)  # a call that was interrupted may reach EMR a moment later
            found = self._found()
        self._id = self._id or found
        if self._id is None or not self._is_under_way():
            return
        self._log.info(f"Cancelling step {self._id}")
        self._cancel_by_id(self._id)
        # What it has written goes next, and it must not go on writing.
        deadline = time.monotonic() + _END_S
        while self._is_under_way() and time.monotonic() < deadline:
            time.sleep(0.5)

    def _cancel_by_id(self, step_id: str) -> None:
        self._aws.emr.cancel_steps(
            ClusterId=self._cluster_id, StepIds=[step_id], StepCancellationOption="TERMINATE_PROCESS"
        )

    def _is_under_way(self) -> bool:
        step = self._aws.emr.describe_step(ClusterId=self._cluster_id, StepId=self._id)["Step"]
        return step["Status"]["State"] in _UNDER_WAY

    def _described(self) -> dict[str, Any]:
        answer = self._patiently(
            "A look at the step",
            lambda: self._aws.emr.describe_step(ClusterId=self._cluster_id, StepId=self._id),
        )
        step: dict[str, Any] = answer["Step"]
        return step

    def _described_cluster(self) -> dict[str, Any]:
        answer = self._patiently(
            "A look at the cluster", lambda: self._aws.emr.describe_cluster(ClusterId=self._cluster_id)
        )
        cluster: dict[str, Any] = answer["Cluster"]
        return cluster

    def _found(self) -> str | None:
        """Its id, if it was added."""
        return next((step["Id"] for step in self._newest() if step["Name"] == self._name), None)

    def _newest(self, states: Sequence[str] = ()) -> list[dict[str, Any]]:
        """The last fifty steps of the cluster."""
        in_states = {"StepStates": list(states)} if states else {}
        answer = self._patiently(
            "A look at the steps",
            lambda: self._aws.emr.list_steps(ClusterId=self._cluster_id, **in_states),
        )
        steps: list[dict[str, Any]] = answer["Steps"]
        return steps

    def _patiently(self, what: str, call: Callable[[], Found], patience_s: float | None = None) -> Found:
        patience_s = 60 * self._settings.patience_minutes if patience_s is None else patience_s
        return self._aws.patiently(what, call, self._log, patience_s, self._settings.poll_s)
