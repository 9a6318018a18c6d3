"""The Spark session of this process: on its own cores, or as the driver of a cluster.

Without Dagster, so that a run can start it while it is still importing that.
"""

from __future__ import annotations

import atexit
import os
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fruits_assets.resources.jvm import java_options, require_java
from fruits_assets.resources.scratch import scratch_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

THIS_MACHINE: Final = "local[*]"
DRIVER_MEMORY: Final = "2g"

_MASTER = re.compile(
    r"local(\[(\*|[1-9]\d*)(,\s*[1-9]\d*)?\])?"
    r"|local-cluster\[\s*[1-9]\d*\s*,\s*[1-9]\d*\s*,\s*[1-9]\d*\s*\]"
    r"|spark://[^\s/,]+:\d+(,[^\s/,]+:\d+)*"
    r"|yarn"
    r"|k8s://\S+"
)
_one_start_at_a_time = threading.Lock()
# Executors are JVMs that have to start; on a cluster that has room, all are there within seconds.
_WORKERS_WAIT_S, _WORKERS_POLL_S = 120.0, 1.0
_MASTER_WAIT_S = 10.0
_GATEWAY_WAIT_S = 30.0
# The address of a Unix domain socket has so many bytes on macOS (Linux has a few more), its name in the
# folder 42 of them.
_SOCKET_FOLDER_BYTES = 103 - 42


class SparkSetupError(RuntimeError):
    """Spark cannot be started; the message says what is missing and how to get it."""


def check_master(master: str) -> str:
    """The same master, if Spark would know what to do with it.

    Raises:
        ValueError: it is malformed; says what it may be.
    """
    if not _MASTER.fullmatch(master):
        raise ValueError(
            "no Spark master. Write local[*] (this machine, all its cores), local[n] (n of them), "
            "spark://host:port, yarn, k8s://https://host:port or local-cluster[workers,cores,MB]"
        )
    return master


def refuse_missing(master: str) -> None:
    """Look for what a session needs, before it is started.

    Raises:
        JavaError: no Java, or one that is too old.
        SparkSetupError: no master answers.
    """
    require_java()
    _require_master(master)


def start_early(
    master: str, driver_memory: str = DRIVER_MEMORY, spark_conf: Mapping[str, Any] | None = None
) -> None:
    """Start the session in the background: it takes seconds, and there is other work meanwhile.

    What goes wrong here goes wrong again, and is told, where the session is asked for.
    """
    # Two threads that import it at once can each find it half there.
    import pyspark.sql  # noqa: F401

    def start() -> None:
        with suppress(Exception):
            # Dagster sets resources up once more when a run is over: a job would be killed with the process.
            if not _running():
                session(master, driver_memory, spark_conf)

    starting = threading.Thread(target=start, daemon=True)
    scratch_folder()  # what is registered last is done first
    atexit.register(_await_gateway, starting)
    starting.start()


def session(
    master: str = THIS_MACHINE,
    driver_memory: str = DRIVER_MEMORY,
    spark_conf: Mapping[str, Any] | None = None,
) -> SparkSession:
    """The session of this process, started when first asked for.

    Args:
        spark_conf: further properties of Spark.

    Raises:
        JavaError: no Java, or one that is too old.
        SparkSetupError: no master answers, or no worker of the cluster takes tasks.
    """
    # The workers need the driver's packages; a PYSPARK_PYTHON of another project has not got them.
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    # Whatever this process puts aside, its libraries included, is gone with it.
    tempfile.tempdir = str(scratch_folder())
    from pyspark.sql import SparkSession

    with _one_start_at_a_time:
        if running := _running():
            return running
        refuse_missing(master)
        conf = {**_conf(master, driver_memory), **(spark_conf or {})}
        started: SparkSession = SparkSession.builder.config(map=conf).getOrCreate()
        _wait_no_longer_than_an_interrupt(started)
        if not re.match(r"local(\[|$)", master):
            _await_workers(started, master)
        return started


def _conf(master: str, driver_memory: str) -> dict[str, Any]:
    one_machine = {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": str(scratch_folder()),
        # Over TCP, the first words to a worker wait for one another: 20 ms a task.
        "spark.python.unix.domain.socket.enabled": len(os.fsencode(scratch_folder())) <= _SOCKET_FOLDER_BYTES,
        "spark.python.unix.domain.socket.dir": str(scratch_folder()),
    }
    return {
        **(one_machine if master.startswith("local") else {}),
        "spark.master": master,
        "spark.app.name": "fruits_assets",
        "spark.driver.memory": driver_memory,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.extraJavaOptions": java_options(f"-Djava.io.tmpdir={scratch_folder()}"),
        # A sort takes memory by the page. Spark would make one of 64 MB out of a heap of this size.
        "spark.buffer.pageSize": "16m",
        "spark.sql.session.timeZone": "UTC",
        "spark.python.daemon.module": "fruits_assets.resources.worker_daemon",
        # Threads that fetch photos would each keep what one photo took, in a part of the heap of its own.
        "spark.executorEnv.MALLOC_ARENA_MAX": "1",
        # What one photo took, the next one gets: to give it back in between, and have it cleared when it is
        # asked for again, takes a tenth of the time of a large one.
        "spark.executorEnv.MALLOC_MMAP_THRESHOLD_": str(32 * 1024**2),
        "spark.executorEnv.MALLOC_TRIM_THRESHOLD_": str(64 * 1024**2),
        # Where the workers find this package when it is not installed but the current folder.
        "spark.executorEnv.PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }


def _wait_no_longer_than_an_interrupt(started: SparkSession) -> None:
    """Let a call that is interrupted leave its connection.

    The answer is still to come, and the next call would wait for it: PySpark has one as soon as a job is
    left, which would go on to its end. Py4J itself knows KeyboardInterrupt alone; Dagster raises another.
    """
    context: Any = started.sparkContext
    client = context._gateway._gateway_client

    def send_interruptible_command(*arguments: Any, **more: Any) -> Any:
        try:
            return type(client).send_command(client, *arguments, **more)
        except Exception:
            raise
        except BaseException:
            with suppress(AttributeError):
                del client.thread_connection.connection
            raise

    client.send_command = send_interruptible_command


def _await_workers(started: SparkSession, master: str) -> None:
    """Return when workers are there and no more are coming: stages cut their work by the cores they see.

    Without a worker Spark would wait for ever, and say so in a warning that is not shown. Its own
    minRegisteredResourcesRatio counts for nothing on a standalone cluster unless spark.cores.max is set.
    """
    context: Any = started.sparkContext
    if context.getConf().get("spark.dynamicAllocation.enabled", "false") == "true":
        return
    deadline = time.monotonic() + _WORKERS_WAIT_S
    n_before = 0
    while True:
        n_workers = context._jsc.sc().getExecutorMemoryStatus().size() - 1  # the driver counts itself
        if n_workers and n_workers == n_before:
            return
        if time.monotonic() > deadline:
            started.stop()
            raise SparkSetupError(
                f"No worker of '{master}' has taken this run up in {_WORKERS_WAIT_S:.0f} s: there "
                "is none, none has enough free cores and memory, or none can reach this machine. Look at "
                "the master's page, then set FRUITS_SPARK_MASTER to another master, or "
                "spark.executor.memory or spark.driver.host in spark-defaults.conf."
            )
        n_before = n_workers
        time.sleep(_WORKERS_POLL_S)


def _await_gateway(starting: threading.Thread) -> None:
    """Before the scratch folder goes: a JVM that cannot write there how to reach it would stay for ever."""
    from pyspark import SparkContext

    deadline = time.monotonic() + _GATEWAY_WAIT_S
    while starting.is_alive() and SparkContext._gateway is None and time.monotonic() < deadline:
        time.sleep(0.05)


def _running() -> SparkSession | None:
    """The session that this process has, whichever thread has started it."""
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    try:
        return SparkSession.active()
    except PySparkRuntimeError:
        return None


def _require_master(master: str) -> None:
    """A standalone master has to be there; Spark asks for a minute and then does not say what is wrong."""
    if not master.startswith("spark://"):
        return
    reasons = []
    for address in master.removeprefix("spark://").split(","):
        host, port = address.rsplit(":", 1)
        try:
            socket.create_connection((host.strip("[]"), int(port)), _MASTER_WAIT_S).close()
        except (OSError, OverflowError) as error:
            reasons.append(f"{address}: {error}")
        else:
            return
    raise SparkSetupError(
        f"No Spark master answers at '{master}' ({'; '.join(reasons)}). Start one there, or set "
        "FRUITS_SPARK_MASTER to one that runs, or to local[*] for this machine."
    )
