"""Amazon EMR for tests: moto answers the API, and a worker really runs the steps."""

from __future__ import annotations

import io
import re
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from unittest import mock
from urllib.parse import unquote

import moto.emr.models as moto_emr
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server
from werkzeug.test import run_wsgi_app

from fruits_assets_tests.emr.bucket_mirror import BucketMirror
from fruits_assets_tests.emr.cluster_environment import ClusterEnvironment
from fruits_assets_tests.emr.emr_api import REGION, Answer, EmrApi, Fault
from fruits_assets_tests.emr.emr_states import (
    Reason,
    StepEnd,
    WaitingCluster,
    WaitingStep,
    all_clusters,
    cluster_of,
)
from fruits_assets_tests.emr.emr_worker import INSTANCE, Worker
from fruits_assets_tests.emr.step_process import Node

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["REGION", "ClusterView", "FakeEmr", "StepView"]

_EMR_TARGET = "ElasticMapReduce."
_TICK_S = 0.05


@dataclass(frozen=True)
class ClusterView:
    """A cluster as a test sees it; `request` is the RunJobFlow call that asked for it."""

    id: str
    name: str
    region: str
    state: str
    reason: Reason | None
    idle_timeout_s: int | None
    request: dict[str, Any]


@dataclass(frozen=True)
class StepView:
    """A step as a test sees it; `command` is what really ran, `args` what was asked for."""

    id: str
    name: str
    state: str
    args: list[str]
    command: list[str] | None
    pid: int | None
    stdout: str
    stderr: str


class _QuietHandler(MotoRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Requests are no news; what goes wrong in a request reaches its client."""


class FakeEmr:
    """EMR and S3 on a port of this machine, for as long as the context lasts.

    Clients find them by `variables` in their environment. Buckets are folders of `buckets` as well. Steps
    run one after another in the cluster's own Python and Spark, for which s3:// is those folders.

    Args:
        environment: the cluster's Python and Spark.
        root: an empty folder for buckets, logs and what steps leave.
        phase_s: how long a new cluster stays STARTING, and BOOTSTRAPPING, and an ending one TERMINATING.
    """

    def __init__(self, environment: ClusterEnvironment, root: Path, phase_s: float = 0.2) -> None:
        self.environment = environment
        self.buckets = root / "buckets"
        self.buckets.mkdir(parents=True)
        self._lock = threading.RLock()
        self._mirror = BucketMirror(self.buckets)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=_QuietHandler)
        # A node has no region of its own.
        variables = {name: value for name, value in self.variables.items() if "REGION" not in name}
        self._node = Node(environment, root / "node", self.buckets, variables)
        self._worker = Worker(self._node, self._mirror, phase_s)
        self._api = EmrApi(self._ask_moto)
        self._work_error: Exception | None = None
        self._slow: dict[str, float] = {}
        self._keys_used: defaultdict[str, list[str]] = defaultdict(list)
        self._stop = threading.Event()
        self._leave = ExitStack()

    # What a test sees and does

    @property
    def endpoint(self) -> str:
        """The URL of both services."""
        return f"http://127.0.0.1:{self._server.port}"

    @property
    def variables(self) -> dict[str, str]:
        """The environment in which boto3 and s3fs find this one, here and, but for the region, in steps."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def calls(self) -> Counter[str]:
        """How often each EMR call took effect since the last `calm`."""
        return self._api.calls

    @property
    def phase_s(self) -> float:
        """How long a cluster stays in each of the states that it passes through."""
        return self._worker.phase_s

    @phase_s.setter
    def phase_s(self, seconds: float) -> None:
        self._worker.phase_s = seconds

    @property
    def log_delay_s(self) -> float:
        """How long after a step's end its logs come to the bucket; 0 again after `calm`."""
        return self._worker.log_delay_s

    @log_delay_s.setter
    def log_delay_s(self, seconds: float) -> None:
        self._worker.log_delay_s = seconds

    def clusters(self) -> list[ClusterView]:
        """All clusters, oldest first."""
        with self._lock:
            return [
                ClusterView(
                    id=cluster.id,
                    name=cluster.name,
                    region=cluster.emr_backend.region_name,
                    state=str(cluster.state),
                    reason=cluster.reason,
                    idle_timeout_s=cluster.plan.idle_timeout_s,
                    request=cluster.plan.request,
                )
                for cluster in sorted(all_clusters(), key=lambda cluster: cluster.creation_datetime)
            ]

    def steps(self, cluster_id: str) -> list[StepView]:
        """The steps of a cluster, in order."""
        with self._lock:
            return [_view(step) for step in cluster_of(cluster_id).waiting_steps]

    def fail_next_cluster(self, code: str, message: str) -> None:
        """Let the next cluster end before it is ready, for instance with BOOTSTRAP_FAILURE."""
        with self._lock:
            self._api.next_failure = Reason(code, message)

    def refuse(self, n: int, code: str, action: str | None = None) -> None:
        """Answer the next EMR calls (of one action) with an error."""
        with self._lock:
            self._api.faults.append(Fault(n, action, error_code=code))

    def throttle(self, n: int, action: str | None = None) -> None:
        """Refuse the next EMR calls (of one action) with a ThrottlingException."""
        self.refuse(n, "ThrottlingException", action)

    def drop_connections(self, n: int, action: str | None = None, served: bool = False) -> None:
        """Close the connection of the next EMR calls (of one action) without an answer.

        Args:
            served: the call takes effect first, which its caller cannot know.
        """
        with self._lock:
            self._api.faults.append(Fault(n, action, is_served=served))

    def at_next(
        self,
        action: str,
        before: Callable[[Mapping[str, Any]], None] | None = None,
        after: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        """Do something with the next request of an action, before or after it takes effect."""
        fault = Fault(1, action, is_served=True, is_answered=True, do=before, then=after)
        with self._lock:
            self._api.faults.append(fault)

    def slow_down(self, action: str, seconds: float) -> None:
        """Answer the calls of an action so much later, until `calm`."""
        self._slow[action] = seconds

    def keys_used(self, action: str) -> list[str]:
        """With which access key each call of an action came, refused ones included, since the last `calm`."""
        return self._keys_used[action]

    @contextmanager
    def without_spark(self) -> Iterator[None]:
        """While this lasts, steps start their own script without a JVM: Spark is a name in them."""
        self._node.has_spark = False
        try:
            yield
        finally:
            self._node.has_spark = True

    @contextmanager
    def hide_package(self, name: str) -> Iterator[None]:
        """While this lasts, steps start on a cluster whose Python cannot import it."""
        self._node.hidden.add(name)
        try:
            yield
        finally:
            self._node.hidden.discard(name)

    @contextmanager
    def no_python(self) -> Iterator[None]:
        """While this lasts, steps start on a cluster whose bootstrap action has made no Python."""
        self._node.has_python = False
        try:
            yield
        finally:
            self._node.has_python = True

    def terminate(
        self,
        cluster_id: str,
        code: str = "INSTANCE_FAILURE",
        message: str = f"The primary node {INSTANCE} was terminated",
        step_state: StepEnd = "INTERRUPTED",
    ) -> None:
        """Let a cluster end as if by itself, and kill the steps that run on it."""
        with self._lock:
            cluster = cluster_of(cluster_id)
            for step in cluster.running_steps:
                self._worker.kill(cluster, step, step_state)
            cluster.begin_end(Reason(code, message))

    def pass_idle_time(self, cluster_id: str, seconds: float) -> None:
        """Let a WAITING cluster have waited that much longer."""
        with self._lock:
            cluster = cluster_of(cluster_id)
            if cluster.state == "WAITING":
                cluster.since_s -= seconds

    def wait_for(self, cluster_id: str, *states: str, timeout_s: float = 60) -> ClusterView:
        """Wait until a cluster is in one of these states.

        Raises:
            TimeoutError: it is not, and does not get there.
        """
        end_s = time.monotonic() + timeout_s
        while True:
            view = next(view for view in self.clusters() if view.id == cluster_id)
            if view.state in states:
                return view
            if time.monotonic() > end_s:
                raise TimeoutError(f"{cluster_id} is {view.state} after {timeout_s} s, not {states}")
            time.sleep(_TICK_S)

    def calm(self) -> None:
        """Forget faults that no call has met, kill all clusters, count calls from 0: for the next test."""
        with self._lock:
            self._api.faults.clear()
            self._api.next_failure = None
            self._worker.log_delay_s = 0.0
            for cluster in all_clusters():
                self._worker.end_now(cluster)
            self._worker.forget_late_logs()
            self._api.calls.clear()
            self._slow.clear()
            self._keys_used.clear()
            error, self._work_error = self._work_error, None
        if error is not None:
            raise RuntimeError("The stand-in for EMR has an error of its own") from error

    # Life

    def __enter__(self) -> Self:
        # Of EMR only: moto's buckets belong to every other server in this process as well.
        for account in moto_emr.emr_backends.values():
            for backend in account.values():
                backend.reset()
        self._leave.enter_context(mock.patch.object(moto_emr, "Cluster", WaitingCluster))
        self._leave.callback(self.calm)
        for target in (self._server.serve_forever, self._work):
            thread = threading.Thread(target=target, daemon=True)
            thread.start()
            self._leave.callback(thread.join)
        self._leave.callback(self._stop.set)
        self._leave.callback(self._server.server_close)
        self._leave.callback(self._server.shutdown)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave.close()

    def _work(self) -> None:
        while not self._stop.wait(_TICK_S):
            with self._lock:
                try:
                    self._worker.tick()
                except Exception as error:
                    self._work_error = error

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Before the lock: a client that sends slowly must not hold up the others.
        body = _read_body(environ)
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        action = target.removeprefix(_EMR_TARGET)
        time.sleep(self._slow.get(action, 0))
        with self._lock:
            if target.startswith(_EMR_TARGET):
                signed = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
                self._keys_used[action].append(signed[1] if signed else "")
                answer = self._api.answer(action, body, environ)
            else:
                answer = self._answer_s3(environ)
        if answer is None:
            with suppress(OSError):
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            answer = "503 Service Unavailable", [("Content-Length", "0")], b""
        start_response(answer[0], answer[1])
        return [answer[2]]

    def _answer_s3(self, environ: WSGIEnvironment) -> Answer:
        names = _bucket_names(environ)
        for name in names:
            self._mirror.take_in(name)
        answer = self._ask_moto(environ)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            for name in names:
                self._mirror.give_out(name)
        return answer

    def _ask_moto(self, environ: WSGIEnvironment) -> Answer:
        body, status, headers = run_wsgi_app(self._moto, environ, buffered=True)
        return status, list(headers), b"".join(body)


def _view(step: WaitingStep) -> StepView:
    process = step.process
    return StepView(
        id=step.id,
        name=step.name,
        state=step.state,
        args=list(step.args),
        command=process.command if process else None,
        pid=process.pid if process else None,
        stdout=process.stdout.read_text(encoding="utf-8", errors="replace") if process else "",
        stderr=process.stderr.read_text(encoding="utf-8", errors="replace") if process else "",
    )


def _bucket_names(environ: WSGIEnvironment) -> set[str]:
    """The bucket that a request is to, and the one that it copies from."""
    paths = [environ.get("PATH_INFO", ""), unquote(environ.get("HTTP_X_AMZ_COPY_SOURCE", ""))]
    return {path.lstrip("/").partition("/")[0] for path in paths} - {""}


def _read_body(environ: WSGIEnvironment) -> bytes:
    if "CONTENT_LENGTH" not in environ:
        return b""
    body: bytes = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return body
