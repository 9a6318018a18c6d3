"""What runs a stage. An asset asks for a `SparkRunner` and does not know which one it gets."""

from __future__ import annotations

import atexit
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
from pydantic import Field

from fruits_assets.resources.failures import refused_in_words
from fruits_assets.resources.process_memory import forget_peaks, own_peak_mb, process_tree
from fruits_assets.resources.scratch import scratch_folder
from fruits_assets.resources.spark_failures import explained

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from fruits_assets.stages.stage import Stage, StageResult
    from fruits_assets.stages.stored import Output, Stored

Params = TypeVar("Params")

_LOG4J = Path(__file__).with_name("log4j2.properties")
_MIN_JAVA = 17
_JAVA_OPTIONS = (
    f"-Dlog4j2.configurationFile={_LOG4J.as_uri()}",
    # The work is in the Python workers. What is left for the JVM ends before its optimising compiler has
    # paid for itself, which takes half of the processor time of a short run.
    "-XX:TieredStopAtLevel=1",
    # The default collector lets the heap grow to its limit before it looks for what is no longer needed.
    # This one collects before the heap grows, and what it collects, in the little there is, takes no time.
    "-XX:+UseSerialGC",
    "-XX:MaxNewSize=64m",
)
_MASTER = re.compile(
    r"local(\[(\*|[1-9]\d*)(,\s*[1-9]\d*)?\])?"
    r"|local-cluster\[\s*[1-9]\d*\s*,\s*[1-9]\d*\s*,\s*[1-9]\d*\s*\]"
    r"|spark://[^\s/,]+:\d+(,[^\s/,]+:\d+)*"
    r"|yarn"
    r"|k8s://\S+"
)
_SHUFFLE_PARTITIONS = "spark.sql.shuffle.partitions"
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


class SparkRunner(dg.ConfigurableResource, ABC):
    """Runs stages. This is the whole interface between assets and Spark."""

    @abstractmethod
    def run(
        self,
        context: dg.AssetExecutionContext,
        stage: Stage[Params],
        inputs: Mapping[str, Stored],
        output: Output,
        params: Params,
    ) -> StageResult:
        """Run one stage to its end; its log lines and progress go to `context.log`.

        Args:
            inputs: published versions by name, as the stage's docstring has them.
            output: a fresh place for the stage to write to.
        """


class LocalSpark(SparkRunner):
    """Runs stages in a Spark session of this process: on its own cores, or as the driver of a cluster."""

    master: str = Field(
        default="local[*]",
        description="Spark master. The machines of a cluster need this package at the same path as here, "
        "and a lake and images that all of them see.",
    )
    driver_memory: str = Field(default="2g", description="Heap of the one JVM, as Spark writes it: 2g, 512m.")
    spark_conf: dict[str, Any] = Field(
        default={}, description="Further Spark properties, for instance spark.local.dir."
    )

    @refused_in_words()
    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Start Spark in the background: the first asset of a run has a model to convert meanwhile."""
        # Two threads that import it at once can each find it half there.
        import pyspark.sql  # noqa: F401

        self._refuse_missing()
        starting = threading.Thread(target=self._start_early, daemon=True)
        scratch_folder()  # what is registered last is done first
        atexit.register(_await_gateway, starting)
        starting.start()

    def _start_early(self) -> None:
        # What goes wrong here goes wrong again, and is told, where an asset asks for the session.
        with suppress(Exception):
            # Dagster sets resources up once more when a run is over: a job would be killed with the process.
            if not _is_running():
                self.session.range(1).count()

    def run(
        self,
        context: dg.AssetExecutionContext,
        stage: Stage[Params],
        inputs: Mapping[str, Stored],
        output: Output,
        params: Params,
    ) -> StageResult:
        """See `SparkRunner.run`."""
        self._refuse_unreachable(output.asset)
        started = time.monotonic()
        forget_peaks(process_tree(os.getpid()))
        with _stage_log_to(context.log):
            try:
                spark = self.session
                spark.sparkContext.setJobGroup(context.run_id, stage.__name__, interruptOnCancel=True)
                result = stage(spark, inputs, output, params)
            except BaseException as error:
                _cancel(context.run_id)
                places = f"{output.asset} and {scratch_folder()}"
                if isinstance(error, Exception) and (failure := explained(error, places)):
                    raise failure from error
                raise
        context.log.info(f"{stage.__name__} took {time.monotonic() - started:.1f} s")
        if (peak := own_peak_mb()) is not None:
            context.add_asset_metadata({"peak_memory_mb": round(peak)})
        # What a stage has needed in this process is not held until the next one needs it.
        import pyarrow as pa

        pa.default_memory_pool().release_unused()
        return result

    @property
    def session(self) -> SparkSession:
        """The session of this process, started when first asked for.

        Raises:
            SparkSetupError: no Java, or one that is too old; no master answers; no worker of the
                cluster takes tasks.
        """
        # The workers need the driver's packages; a PYSPARK_PYTHON of another project has not got them.
        os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
        # Whatever this process puts aside, its libraries included, is gone with it.
        tempfile.tempdir = str(scratch_folder())
        from dagster_pyspark import LazyPySparkResource

        with _one_start_at_a_time:
            is_running = _is_running()
            if not is_running:
                self._refuse_missing()
            session: SparkSession = LazyPySparkResource(spark_config=self._conf()).spark_session
            if self._is_cluster and not is_running:
                self._await_workers(session)
            if not session.sparkContext.getConf().contains(_SHUFFLE_PARTITIONS):
                session.conf.set(_SHUFFLE_PARTITIONS, str(2 * session.sparkContext.defaultParallelism))
            return session

    def _refuse_missing(self) -> None:
        _require_java()
        _require_master(self.master)

    @property
    def _is_cluster(self) -> bool:
        return not re.match(r"local(\[|$)", self.master)

    def _await_workers(self, session: SparkSession) -> None:
        """Return when workers are there and no more are coming: stages cut their work by the cores they see.

        Without a worker Spark would wait for ever, and say so in a warning that is not shown. Its own
        minRegisteredResourcesRatio counts for nothing on a standalone cluster unless spark.cores.max is set.
        """
        context: Any = session.sparkContext
        if context.getConf().get("spark.dynamicAllocation.enabled", "false") == "true":
            return
        deadline = time.monotonic() + _WORKERS_WAIT_S
        n_before = 0
        while True:
            n_workers = context._jsc.sc().getExecutorMemoryStatus().size() - 1  # the driver counts itself
            if n_workers and n_workers == n_before:
                return
            if time.monotonic() > deadline:
                session.stop()
                raise SparkSetupError(
                    f"No worker of '{self.master}' has taken this run up in {_WORKERS_WAIT_S:.0f} s: there "
                    "is none, none has enough free cores and memory, or none can reach this machine. Look at "
                    "the master's page, then set FRUITS_SPARK_MASTER to another master, or "
                    "spark.executor.memory or spark.driver.host in spark-defaults.conf."
                )
            n_before = n_workers
            time.sleep(_WORKERS_POLL_S)

    def _conf(self) -> dict[str, Any]:
        one_machine = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.local.dir": str(scratch_folder()),
            # Over TCP, the first words to a worker wait for one another: 20 ms a task.
            "spark.python.unix.domain.socket.enabled": len(os.fsencode(scratch_folder()))
            <= _SOCKET_FOLDER_BYTES,
            "spark.python.unix.domain.socket.dir": str(scratch_folder()),
        }
        return {
            **(one_machine if self.master.startswith("local") else {}),
            "spark.master": self.master,
            "spark.app.name": "fruits_assets",
            "spark.driver.memory": self.driver_memory,
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.driver.extraJavaOptions": " ".join(
                [*_JAVA_OPTIONS, f"-Djava.io.tmpdir={scratch_folder()}"]
            ),
            # A sort takes memory by the page. Spark would make one of 64 MB out of a heap of this size.
            "spark.buffer.pageSize": "16m",
            "spark.sql.session.timeZone": "UTC",
            # What Spark itself reads, models that is, is compared with its checksums.
            "spark.hadoop.parquet.page.verify-checksum.enabled": "true",
            # Threads that fetch photos would each keep what one photo took, in a part of the heap of its own.
            "spark.executorEnv.MALLOC_ARENA_MAX": "1",
            # Where the workers find this package when it is not installed but the current folder.
            "spark.executorEnv.PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
            **self.spark_conf,
        }

    def _refuse_unreachable(self, uri: str) -> None:
        if uri.startswith("s3://") and "spark.hadoop.fs.s3.impl" not in self.spark_conf:
            raise SparkSetupError(
                f"Local Spark cannot reach '{uri}': it comes without Hadoop's S3 file system. "
                "Set FRUITS_LAKE to a folder (images may stay on S3), or give the resource's "
                "spark_conf spark.jars.packages with hadoop-aws and spark.hadoop.fs.s3.impl."
            )


def _await_gateway(starting: threading.Thread) -> None:
    """Before the scratch folder goes: a JVM that cannot write there how to reach it would stay for ever."""
    from pyspark import SparkContext

    deadline = time.monotonic() + _GATEWAY_WAIT_S
    while starting.is_alive() and SparkContext._gateway is None and time.monotonic() < deadline:
        time.sleep(0.05)


def _cancel(group: str) -> None:
    """Take the tasks of a run that was cancelled or has failed off the cores."""
    from pyspark import SparkContext

    context: Any = SparkContext._active_spark_context
    with suppress(AttributeError):
        # An interrupted call still has its answer to come, which the next one would take for its own.
        del context._gateway._gateway_client.thread_connection.connection
    with suppress(Exception):  # the cause is on its way already, and a dead JVM has no tasks
        context.cancelJobGroup(group)


@contextmanager
def _stage_log_to(log: logging.Logger) -> Iterator[None]:
    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            log.log(record.levelno, record.getMessage())

    from fruits_assets.stages.stage import logger

    handler = Forward()
    logger.addHandler(handler)
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _is_running() -> bool:
    """Whether this process has a session, whichever thread has started it."""
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    try:
        SparkSession.active()
    except PySparkRuntimeError:
        return False
    return True


def _require_java() -> None:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    if java is None:
        where = f"JAVA_HOME ({home}) has no bin/java" if home else "no java on the PATH"
        raise SparkSetupError(
            f"Spark needs Java {_MIN_JAVA} or newer: {where}. Install a JRE, for instance "
            "openjdk-17-jre-headless, or set JAVA_HOME to one."
        )
    version = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = version.split('"')[1] if version.count('"') >= 2 else "unknown"
    major = found.split(".")[0]
    if not major.isdigit() or int(major) < _MIN_JAVA:
        raise SparkSetupError(
            f"Spark needs Java {_MIN_JAVA} or newer: {java} is {found}. Install a JRE, for instance "
            "openjdk-17-jre-headless, or set JAVA_HOME to one."
        )


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
