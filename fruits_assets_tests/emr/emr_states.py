"""moto's clusters and steps, made to wait for a worker: moto itself calls them running or waiting at once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Literal

from moto.core.utils import utcnow
from moto.emr.models import Cluster, Step, emr_backends

from fruits_assets_tests.emr.step_process import StepProcess

ENDED = ("TERMINATED", "TERMINATED_WITH_ERRORS")
ENDING = ("TERMINATING", *ENDED)
StepEnd = Literal["COMPLETED", "CANCELLED", "FAILED", "INTERRUPTED"]


class EmrError(Exception):
    """What EMR answers to a call that it refuses."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Reason:
    """Why a cluster ended, as EMR says it."""

    code: str
    message: str


class WaitingStep(Step):
    """A step that a worker moves from PENDING to its end."""

    message = ""
    failure_details: dict[str, str] | None = None
    process: StepProcess | None = None
    is_cancelled = False

    def start(self) -> None:
        """moto calls the first step of a new cluster started. It is not."""

    def begin(self, process: StepProcess) -> None:
        """Note that the worker has started its command."""
        self.process = process
        self.state = "RUNNING"
        self.start_date_time = utcnow()

    def end(self, state: StepEnd, message: str = "", failure_details: dict[str, str] | None = None) -> None:
        """Note how it ended; what has ended stays so."""
        if self.has_ended:
            return
        self.state = state
        self.message = message
        self.failure_details = failure_details
        self.end_date_time = utcnow()  # type: ignore[assignment]  # moto never ends one

    @property
    def has_ended(self) -> bool:
        """Whether it is neither waiting nor running."""
        return self.state not in ("PENDING", "RUNNING")

    @property
    def status(self) -> dict[str, Any]:
        """As DescribeStep and ListSteps have it."""
        return {
            **super().status,
            "StateChangeReason": {"Message": self.message} if self.message else {},
            "FailureDetails": self.failure_details,
        }


@dataclass
class Plan:
    """What is to become of a cluster, as the request and the test have it."""

    request: dict[str, Any] = field(default_factory=dict)
    failure: Reason | None = None
    idle_timeout_s: int | None = None


class WaitingCluster(Cluster):
    """A cluster that a worker moves through its states."""

    # moto's constructor calls the methods below before it has set anything.
    plan = Plan()
    reason: Reason | None = None
    since_s = 0.0

    def enter(self, state: str) -> None:
        """Change the state, and begin to count how long it lasts."""
        self.state = state
        self.since_s = time.monotonic()
        if state == "WAITING" and self.ready_datetime is None:
            self.ready_datetime = utcnow()
        if state in ENDED:
            self.end_datetime = utcnow()

    @property
    def seconds_in_state(self) -> float:
        """How long it has been in its state."""
        return time.monotonic() - self.since_s

    @property
    def running_steps(self) -> list[WaitingStep]:
        """Those that have a process."""
        return [step for step in self.waiting_steps if step.state == "RUNNING"]

    @property
    def pending_steps(self) -> list[WaitingStep]:
        """Those that wait for their turn, in order."""
        return [step for step in self.waiting_steps if step.state == "PENDING"]

    @property
    def waiting_steps(self) -> list[WaitingStep]:
        """All its steps, in order."""
        return [step for step in self.steps if isinstance(step, WaitingStep)]

    def step_of(self, step_id: str) -> WaitingStep:
        """One of its steps.

        Raises:
            EmrError: there is none of this id.
        """
        for step in self.waiting_steps:
            if step.id == step_id:
                return step
        raise EmrError("InvalidRequestException", f"Step id '{step_id}' is not valid.")

    def start_cluster(self) -> None:
        """Called by moto when it makes one."""
        self.start_datetime = utcnow()
        self.enter("STARTING")

    def run_bootstrap_actions(self) -> None:
        """moto calls the cluster ready here. The worker will."""

    def add_steps(self, steps: list[dict[str, Any]]) -> list[Step]:
        """Queue steps."""
        added: list[Step] = [WaitingStep(state="PENDING", **step) for step in steps]
        self.steps.extend(added)
        return added

    def terminate(self) -> None:
        """Called by moto for TerminateJobFlows."""
        self.begin_end(Reason("USER_REQUEST", "Terminated by user request"))

    def begin_end(self, reason: Reason) -> None:
        """Let the worker stop what runs, and then end the cluster."""
        if self.state not in ENDING:
            self.reason = reason
            self.enter("TERMINATING")

    @property
    def has_fleets(self) -> bool:
        """Whether its nodes are in instance fleets, not in groups."""
        return "InstanceFleets" in self.plan.request.get("Instances", {})

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """Its machines, as ListInstances has them, and their role."""
        instances = self.plan.request.get("Instances", {})
        machines = [
            (fleet["InstanceFleetType"], fleet["InstanceTypeConfigs"][0]["InstanceType"], market)
            for fleet in instances.get("InstanceFleets", ())
            for market, key in (("ON_DEMAND", "TargetOnDemandCapacity"), ("SPOT", "TargetSpotCapacity"))
            for _ in range(fleet.get(key, 0))
        ] + [
            (group["InstanceRole"], group["InstanceType"], group.get("Market", "ON_DEMAND"))
            for group in instances.get("InstanceGroups", ())
            for _ in range(group["InstanceCount"])
        ]
        timeline = {"CreationDateTime": self.start_datetime, "EndDateTime": self.end_datetime}
        times = {name: at.replace(tzinfo=UTC).timestamp() for name, at in timeline.items() if at}
        state = "TERMINATED" if self.state in ENDED else "RUNNING"
        return [
            {
                "Id": f"ci-{self.id}-{number}",
                "Role": role,
                "InstanceType": machine,
                "Market": market,
                "Status": {"State": state, "Timeline": times},
            }
            for number, (role, machine, market) in enumerate(machines)
        ]

    @property
    def end_state(self) -> str:
        """The one it ends in, after what ended it."""
        is_wanted = self.reason is None or self.reason.code in ("USER_REQUEST", "ALL_STEPS_COMPLETED")
        return "TERMINATED" if is_wanted else "TERMINATED_WITH_ERRORS"

    @property
    def status(self) -> dict[str, Any]:
        """As DescribeCluster and ListClusters have it."""
        reason = {"Code": self.reason.code, "Message": self.reason.message} if self.reason else {}
        return {**super().status, "StateChangeReason": reason}


def all_clusters() -> list[WaitingCluster]:
    """The clusters of all regions."""
    backends = [backend for account in emr_backends.values() for backend in account.values()]
    clusters = [cluster for backend in backends for cluster in backend.clusters.values()]
    return [cluster for cluster in clusters if isinstance(cluster, WaitingCluster)]


def cluster_of(cluster_id: str) -> WaitingCluster:
    """One cluster.

    Raises:
        EmrError: there is none of this id.
    """
    for cluster in all_clusters():
        if cluster.id == cluster_id:
            return cluster
    raise EmrError("InvalidRequestException", f"Cluster id '{cluster_id}' is not valid.")
