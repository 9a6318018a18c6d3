"""EMR's API: moto's answers, the calls that moto lacks, and faults on demand."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fruits_assets_tests.emr.emr_states import (
    ENDING,
    EmrError,
    Plan,
    Reason,
    WaitingCluster,
    cluster_of,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

REGION = "eu-west-3"
_MIN_IDLE_TIMEOUT_S, _MAX_IDLE_TIMEOUT_S = 60, 604_800
_BAD_REQUEST = "400 Bad Request"

Answer = tuple[str, list[tuple[str, str]], bytes]
"""Status, headers and body."""


@dataclass
class Fault:
    """What happens to the next calls: refused with an error, or, without one, the connection closed.

    `action` limits it to one kind of call; `is_served` lets the call take effect first; `do` is called
    before that, and `then` after it.
    """

    n_left: int
    action: str | None
    error_code: str | None = None
    is_served: bool = False
    is_answered: bool = False
    do: Callable[[Mapping[str, Any]], None] | None = None
    then: Callable[[Mapping[str, Any]], None] | None = None


class EmrApi:
    """Answers EMR's calls. The caller sees to it that only one thread is in here."""

    def __init__(self, ask_moto: Callable[[WSGIEnvironment], Answer]) -> None:
        self.calls: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self.next_failure: Reason | None = None
        self._ask_moto = ask_moto

    def answer(self, action: str, body: bytes, environ: WSGIEnvironment) -> Answer | None:
        """The answer to a call, or None: close the connection without one."""
        fault = self._next_fault(action)
        if fault is not None and fault.error_code is not None:
            return _json_answer({"__type": fault.error_code, "message": "Refused"}, _BAD_REQUEST)
        if fault is not None and not fault.is_served:
            return None
        request = json.loads(body or b"{}")
        if fault is not None and fault.do is not None:
            fault.do(request)
        try:
            answer = self._answer(action, request, environ)
        except EmrError as error:
            answer = _json_answer({"__type": error.code, "message": str(error)}, _BAD_REQUEST)
        if _is_success(answer):
            self.calls[action] += 1
        if fault is not None and fault.then is not None:
            fault.then(request)
        return None if fault is not None and not fault.is_answered else answer

    def _next_fault(self, action: str) -> Fault | None:
        for fault in self.faults:
            if fault.n_left > 0 and fault.action in (None, action):
                fault.n_left -= 1
                return fault
        return None

    def _answer(self, action: str, request: dict[str, Any], environ: WSGIEnvironment) -> Answer:
        cluster_ids = [request[key] for key in ("ClusterId", "JobFlowId") if key in request]
        for cluster_id in (*cluster_ids, *request.get("JobFlowIds", [])):
            cluster_of(cluster_id)
        added_here = {
            "CancelSteps": self._cancel_steps,
            "PutAutoTerminationPolicy": self._put_auto_termination_policy,
            "GetAutoTerminationPolicy": self._get_auto_termination_policy,
            "RemoveAutoTerminationPolicy": self._remove_auto_termination_policy,
            "ListInstances": self._list_instances,
        }
        if action in added_here:
            return _json_answer(added_here[action](request))
        if action == "AddJobFlowSteps" and cluster_of(request["JobFlowId"]).state in ENDING:
            raise EmrError(
                "ValidationException",
                "A job flow that is shutting down, terminated, or finished may not be modified.",
            )
        if action == "DescribeStep":
            cluster_of(request["ClusterId"]).step_of(request["StepId"])
        if action == "RunJobFlow":
            _require_idle_timeout(request.get("AutoTerminationPolicy"))
        # moto looks for the region in the host's name only, and takes us-east-1 without one.
        host = f"elasticmapreduce.{_signed_region(environ)}.amazonaws.com"
        body = json.dumps(_known_to_moto(request)).encode()
        changes = {"HTTP_HOST": host, "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
        answer = self._ask_moto({**environ, **changes})
        if action == "RunJobFlow" and _is_success(answer):
            self._plan(cluster_of(json.loads(answer[2])["JobFlowId"]), request)
        if action == "DescribeCluster" and cluster_of(request["ClusterId"]).has_fleets:
            described = json.loads(answer[2])
            described["Cluster"]["InstanceCollectionType"] = "INSTANCE_FLEET"
            return _json_answer(described)
        return answer

    def _plan(self, cluster: WaitingCluster, request: dict[str, Any]) -> None:
        policy = request.get("AutoTerminationPolicy", {})
        cluster.plan = Plan(request, self.next_failure, policy.get("IdleTimeout"))
        self.next_failure = None
        # EMR takes s3:// and gives back s3n://.
        if cluster.log_uri:
            cluster.log_uri = re.sub("^s3a?://", "s3n://", cluster.log_uri)

    def _cancel_steps(self, request: Mapping[str, Any]) -> dict[str, Any]:
        cluster = cluster_of(request["ClusterId"])
        infos = []
        for step_id in request["StepIds"]:
            step = cluster.step_of(step_id)
            if step.has_ended:
                reason = f"Cannot cancel a step that is {step.state}"
                infos.append({"StepId": step_id, "Status": "FAILED", "Reason": reason})
                continue
            infos.append({"StepId": step_id, "Status": "SUBMITTED"})
            if step.process is None:
                step.end("CANCELLED", "Cancelled by user request")
                continue
            step.is_cancelled = True
            if request.get("StepCancellationOption") == "TERMINATE_PROCESS":
                step.process.kill()
            else:
                step.process.stop()
        return {"CancelStepsInfoList": infos}

    def _put_auto_termination_policy(self, request: Mapping[str, Any]) -> dict[str, Any]:
        policy = request["AutoTerminationPolicy"]
        _require_idle_timeout(policy)
        cluster_of(request["ClusterId"]).plan.idle_timeout_s = policy["IdleTimeout"]
        return {}

    def _get_auto_termination_policy(self, request: Mapping[str, Any]) -> dict[str, Any]:
        timeout_s = cluster_of(request["ClusterId"]).plan.idle_timeout_s
        return {} if timeout_s is None else {"AutoTerminationPolicy": {"IdleTimeout": timeout_s}}

    def _remove_auto_termination_policy(self, request: Mapping[str, Any]) -> dict[str, Any]:
        cluster_of(request["ClusterId"]).plan.idle_timeout_s = None
        return {}

    def _list_instances(self, request: Mapping[str, Any]) -> dict[str, Any]:
        cluster = cluster_of(request["ClusterId"])
        roles = request.get("InstanceGroupTypes") or [request["InstanceFleetType"]]
        if cluster.has_fleets != ("InstanceFleetType" in request):
            raise EmrError("InvalidRequestException", "Instance fleets and instance groups differ.")
        return {"Instances": [node for node in cluster.nodes if node["Role"] in roles]}


def _require_idle_timeout(policy: Mapping[str, Any] | None) -> None:
    if policy is None:
        return
    if not _MIN_IDLE_TIMEOUT_S <= policy.get("IdleTimeout", 0) <= _MAX_IDLE_TIMEOUT_S:
        raise EmrError(
            "ValidationException",
            f"The idle timeout must be between {_MIN_IDLE_TIMEOUT_S} and {_MAX_IDLE_TIMEOUT_S} seconds.",
        )


def _signed_region(environ: WSGIEnvironment) -> str:
    scope = re.search(r"Credential=[^/]+/\d+/([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
    return scope[1] if scope else REGION


def _known_to_moto(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request without what moto stumbles over: configurations of single instance groups."""
    instances = request.get("Instances", {})
    if "InstanceGroups" not in instances:
        return dict(request)
    groups = [
        {name: value for name, value in group.items() if name not in ("Configurations", "CustomAmiId")}
        for group in instances["InstanceGroups"]
    ]
    return {**request, "Instances": {**instances, "InstanceGroups": groups}}


def _is_success(answer: Answer) -> bool:
    return answer[0].startswith("200")


def _json_answer(content: Mapping[str, Any], status: str = "200 OK") -> Answer:
    body = json.dumps(content).encode()
    return status, [("Content-Type", "application/x-amz-json-1.1"), ("Content-Length", str(len(body)))], body
