"""What runs a stage. An asset asks for a `SparkRunner` and does not know which one it gets."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from fruits_assets.stages.stage import Stage, StageResult

Params = TypeVar("Params")

_LOG4J = Path(__file__).with_name("log4j2.properties")
_MIN_JAVA = 17
_JAVA_OPTIONS = (
    f"-Dlog4j2.configurationFile={_LOG4J.as_uri()}",
    # The work is in the Python workers. What is left for the JVM ends before its optimising compiler has
    # paid for itself, which takes half of the processor time of a short run.
    "-XX:TieredStopAtLevel=1",
)


class SparkSetupError(RuntimeError):
    """Spark cannot be started; the message says what is missing and how to get it."""


class SparkRunner(dg.ConfigurableResource, ABC):
    """Runs stages. This is the whole interface between assets and Spark."""

    @abstractmethod
    def run(
        self,
        context: dg.AssetExecutionContext,
        stage: Stage[Params],
        inputs: Mapping[str, str],
        output: str,
        params: Params,
    ) -> StageResult:
        """Run one stage to its end; its log lines and progress go to `context.log`.

        Args:
            inputs: name to URI, as the stage's docstring has them.
            output: URI of a fresh folder for the stage to write into.
        """


class LocalSpark(SparkRunner):
    """Runs stages in a Spark session of this process, on all its cores, started when first used."""

    driver_memory: str = Field(default="2g", description="Heap of the one JVM, as Spark writes it: 2g, 512m.")
    spark_conf: dict[str, Any] = Field(
        default={}, description="Further Spark properties, for instance spark.local.dir."
    )

    def run(
        self,
        context: dg.AssetExecutionContext,
        stage: Stage[Params],
        inputs: Mapping[str, str],
        output: str,
        params: Params,
    ) -> StageResult:
        """See `SparkRunner.run`."""
        for uri in (*inputs.values(), output):
            self._refuse_unreachable(uri)
        started = time.monotonic()
        spark = self.session
        spark.sparkContext.setJobGroup(context.run_id, stage.__name__, interruptOnCancel=True)
        with _stage_log_to(context.log):
            try:
                result = stage(spark, inputs, output, params)
            except BaseException:
                # A cancelled run must not leave its tasks on the cores.
                spark.sparkContext.cancelJobGroup(context.run_id)
                raise
        context.log.info(f"{stage.__name__} took {time.monotonic() - started:.1f} s")
        return result

    @property
    def session(self) -> SparkSession:
        """The session of this process, started when first asked for.

        Raises:
            SparkSetupError: no Java, or one that is too old.
        """
        _require_java()
        # The workers need the driver's packages; a PYSPARK_PYTHON of another project has not got them.
        os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
        from dagster_pyspark import LazyPySparkResource

        session: SparkSession = LazyPySparkResource(spark_config=self._conf()).spark_session
        return session

    def _conf(self) -> dict[str, Any]:
        return {
            "spark.master": "local[*]",
            "spark.app.name": "fruits_assets",
            "spark.driver.memory": self.driver_memory,
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.driver.extraJavaOptions": " ".join(_JAVA_OPTIONS),
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.shuffle.partitions": str(2 * (os.cpu_count() or 1)),
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
