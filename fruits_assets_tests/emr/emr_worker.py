"""What happens inside a cluster: it comes up, runs its steps one after another, and ends."""

from __future__ import annotations

import gzip
import re
import time

from fruits_assets_tests.emr.bucket_mirror import BucketMirror
from fruits_assets_tests.emr.emr_states import (
    ENDED,
    ENDING,
    Reason,
    StepEnd,
    WaitingCluster,
    WaitingStep,
    all_clusters,
)
from fruits_assets_tests.emr.step_process import Node

INSTANCE = "i-0123456789abcdef0"


class Worker:
    """Moves all clusters and their steps on. The caller sees to it that only one thread is in here."""

    def __init__(self, node: Node, mirror: BucketMirror, phase_s: float) -> None:
        """`phase_s` is how long a cluster stays STARTING, BOOTSTRAPPING and TERMINATING."""
        self.phase_s = phase_s
        self.log_delay_s = 0.0
        self._node = node
        self._mirror = mirror
        self._late_logs: list[tuple[float, WaitingCluster, WaitingStep]] = []

    def tick(self) -> None:
        """Do what is due now."""
        for cluster in all_clusters():
            self._advance(cluster)
        now_s = time.monotonic()
        due = [late for late in self._late_logs if late[0] <= now_s]
        self._late_logs = [late for late in self._late_logs if late[0] > now_s]
        for _, cluster, step in due:
            self._upload_logs(cluster, step)

    def forget_late_logs(self) -> None:
        """Do not upload what has been held back."""
        self._late_logs.clear()

    def _advance(self, cluster: WaitingCluster) -> None:
        is_phase_over = cluster.seconds_in_state >= self.phase_s
        if cluster.state == "STARTING" and is_phase_over:
            if cluster.plan.failure is None:
                cluster.enter("BOOTSTRAPPING")
            else:
                cluster.begin_end(cluster.plan.failure)
        elif cluster.state == "BOOTSTRAPPING" and is_phase_over:
            failure = self._bootstrap_failure(cluster)
            if failure is None:
                cluster.enter("WAITING")
            else:
                cluster.begin_end(failure)
        elif cluster.state in ("WAITING", "RUNNING"):
            self._advance_steps(cluster)
        elif cluster.state == "TERMINATING" and is_phase_over:
            self.end_now(cluster)

    def _advance_steps(self, cluster: WaitingCluster) -> None:
        for step in cluster.running_steps:
            self._check(cluster, step)
        for step in cluster.pending_steps[: cluster.step_concurrency_level - len(cluster.running_steps)]:
            self._start(cluster, step)
        if cluster.state in ENDING:
            return
        state = "RUNNING" if cluster.running_steps or cluster.pending_steps else "WAITING"
        if state != cluster.state:
            cluster.enter(state)
        if state == "RUNNING":
            return
        timeout_s = cluster.plan.idle_timeout_s
        if not cluster.keep_job_flow_alive_when_no_steps:
            cluster.begin_end(Reason("ALL_STEPS_COMPLETED", "Steps completed"))
        elif timeout_s is not None and cluster.seconds_in_state > timeout_s:
            cluster.begin_end(Reason("USER_REQUEST", "Terminated by auto-termination policy"))

    def _start(self, cluster: WaitingCluster, step: WaitingStep) -> None:
        # Whatever came through another of moto's servers must be a file by now.
        for name in self._mirror.bucket_names:
            self._mirror.take_in(name)
            self._mirror.give_out(name)
        if step.jar != "command-runner.jar" or not step.args:
            self._fail(cluster, step, f"Only command-runner.jar can be run here, not '{step.jar}'")
            return
        try:
            step.begin(self._node.start(step.args, step.id))
        except OSError as error:
            self._fail(cluster, step, f'Cannot run program "{step.args[0]}": {error}')

    def _check(self, cluster: WaitingCluster, step: WaitingStep) -> None:
        assert step.process is not None
        status = step.process.poll()
        if status is None:
            return
        self._log(cluster, step)
        if step.is_cancelled:
            step.end("CANCELLED", "Cancelled by user request")
        elif status == 0:
            step.end("COMPLETED")
        else:
            self._fail(cluster, step, "Unknown Error.")

    def _fail(self, cluster: WaitingCluster, step: WaitingStep, reason: str) -> None:
        details = {"Reason": reason}
        if place := _log_place(cluster, step):
            details["LogFile"] = "s3://{}/{}stderr.gz".format(*place)
        step.end("FAILED", failure_details=details)
        if step.action_on_failure in ("TERMINATE_CLUSTER", "TERMINATE_JOB_FLOW"):
            cluster.begin_end(Reason("STEP_FAILURE", "Shut down as step failed"))
        elif step.action_on_failure == "CANCEL_AND_WAIT":
            for pending in cluster.pending_steps:
                pending.end("CANCELLED", "Job terminated")

    def kill(self, cluster: WaitingCluster, step: WaitingStep, state: StepEnd) -> None:
        """End a running step as its cluster goes away."""
        if step.process is not None:
            step.process.kill()
        self._log(cluster, step)
        step.end(state, "Job terminated")

    def end_now(self, cluster: WaitingCluster) -> None:
        """End a cluster and all that runs on it."""
        if cluster.state in ENDED:
            return
        for step in cluster.running_steps:
            self.kill(cluster, step, "CANCELLED")
        for step in cluster.pending_steps:
            step.end("CANCELLED", "Job terminated")
        cluster.reason = cluster.reason or Reason("USER_REQUEST", "Terminated by user request")
        cluster.enter(cluster.end_state)

    def _bootstrap_failure(self, cluster: WaitingCluster) -> Reason | None:
        """Bootstrap actions are not run here: their result is the environment. Their files must be there."""
        for number, action in enumerate(cluster.plan.request.get("BootstrapActions", []), start=1):
            script = action["ScriptBootstrapAction"]
            if not self._exists(script["Path"]):
                return Reason(
                    "BOOTSTRAP_FAILURE",
                    f"Primary node ({INSTANCE}) failed attempting to download bootstrap action {number} "
                    "file from S3",
                )
            if not all(self._exists(arg) for arg in script.get("Args", [])):
                return Reason(
                    "BOOTSTRAP_FAILURE",
                    f"On the primary instance ({INSTANCE}), bootstrap action {number} returned a non-zero "
                    "return code",
                )
        return None

    def _exists(self, argument: str) -> bool:
        place = _s3_place(argument)
        return place is None or self._mirror.get(*place) is not None

    def _log(self, cluster: WaitingCluster, step: WaitingStep) -> None:
        if self.log_delay_s:
            self._late_logs.append((time.monotonic() + self.log_delay_s, cluster, step))
        else:
            self._upload_logs(cluster, step)

    def _upload_logs(self, cluster: WaitingCluster, step: WaitingStep) -> None:
        place = _log_place(cluster, step)
        if place is None or step.process is None:
            return
        bucket, prefix = place
        controller = f"INFO startExec '{' '.join(step.process.command)}'\n".encode()
        logs = {
            "controller": controller,
            "stdout": step.process.stdout.read_bytes(),
            "stderr": step.process.stderr.read_bytes(),
        }
        for name, content in logs.items():
            self._mirror.put(bucket, f"{prefix}{name}.gz", gzip.compress(content))


def _s3_place(uri: str | None) -> tuple[str, str] | None:
    """Bucket and key, of a URI on S3."""
    found = re.fullmatch(r"s3[an]?://([^/]+)/?(.*)", uri or "")
    return (found[1], found[2]) if found else None


def _log_place(cluster: WaitingCluster, step: WaitingStep) -> tuple[str, str] | None:
    """Bucket and prefix of a step's logs, if the cluster keeps any."""
    place = _s3_place(cluster.log_uri)
    if place is None:
        return None
    folder = f"{place[1].rstrip('/')}/" if place[1].rstrip("/") else ""
    return place[0], f"{folder}{cluster.id}/steps/{step.id}/"
