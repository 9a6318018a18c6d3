"""EMR's API: moto's answers, the calls that moto lacks, and faults on demand."""

from __future__ import annotations

import io
import json
import re
import uuid
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
    all_clusters,
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
    """What happens to the next calls: refused as too many, or the connection closed.

    `action` limits it to one kind of call; `is_served` lets the call take effect first.
    """

    is_throttling: bool
    n_left: int
    action: str | None
    is_served: bool = False


class EmrApi:
    """Answers EMR's calls. The caller sees to it that only one thread is in here."""

    def __init__(self, ask_moto: Callable[[WSGIEnvironment], Answer]) -> None:
        self.calls: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self.next_failure: Reason | None = None
        self._ask_moto = ask_moto
        self._uis: dict[str, str] = {}

    def answer(self, action: str, body: bytes, environ: WSGIEnvironment) -> Answer | None:
        """The answer to a call, or None: close the connection without one."""
        fault = self._next_fault(action)
        if fault is not None and fault.is_throttling:
            return _json_answer({"__type": "ThrottlingException", "message": "Rate exceeded"}, _BAD_REQUEST)
        if fault is not None and not fault.is_served:
            return None
        try:
            answer = self._answer(action, json.loads(body or b"{}"), environ)
        except EmrError as error:
            answer = _json_answer({"__type": error.code, "message": str(error)}, _BAD_REQUEST)
        if _is_success(answer):
            self.calls[action] += 1
        return None if fault is not None else answer

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
            "CreatePersistentAppUI": self._create_persistent_app_ui,
            "DescribePersistentAppUI": self._describe_persistent_app_ui,
            "GetPersistentAppUIPresignedURL": self._get_persistent_app_ui_presigned_url,
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

    def _create_persistent_app_ui(self, request: Mapping[str, Any]) -> dict[str, Any]:
        arn = request["TargetResourceArn"]
        if arn not in {cluster.arn for cluster in all_clusters()}:
            raise EmrError("InvalidRequestException", f"'{arn}' is no cluster.")
        ui_id = f"p-{uuid.uuid4().hex[:13].upper()}"
        self._uis[ui_id] = arn
        return {"PersistentAppUIId": ui_id, "RuntimeRoleEnabledCluster": False}

    def _describe_persistent_app_ui(self, request: Mapping[str, Any]) -> dict[str, Any]:
        ui_id = self._ui(request)
        description = {"PersistentAppUIId": ui_id, "PersistentAppUIStatus": "ATTACHED"}
        return {"PersistentAppUI": description}

    def _get_persistent_app_ui_presigned_url(self, request: Mapping[str, Any]) -> dict[str, Any]:
        ui_id = self._ui(request)
        url = f"https://{ui_id.lower()}.emrappui-prod.{REGION}.amazonaws.com/shs/?authToken=presigned"
        return {"PresignedURLReady": True, "PresignedURL": url}

    def _ui(self, request: Mapping[str, Any]) -> str:
        ui_id: str = request["PersistentAppUIId"]
        if ui_id not in self._uis:
            raise EmrError("InvalidRequestException", f"Persistent UI '{ui_id}' does not exist.")
        return ui_id


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
