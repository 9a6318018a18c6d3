"""What runs a stage. An asset asks for a `SparkRunner` and does not know which one it gets."""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
from pydantic import Field

from fruits_assets.resources.failures import refused_in_words
from fruits_assets.resources.process_memory import forget_peaks, own_peak_mb, process_tree
from fruits_assets.resources.scratch import scratch_folder
from fruits_assets.resources.spark_failures import explained
from fruits_assets.resources.spark_session import (
    DRIVER_MEMORY,
    THIS_MACHINE,
    refuse_missing,
    session,
    start_early,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from fruits_assets.stages.stage import Stage, StageResult
    from fruits_assets.stages.stored import Output, Stored

Params = TypeVar("Params")


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
        default=THIS_MACHINE,
        description="Spark master. The machines of a cluster need this package at the same path as here, "
        "and a lake and images that all of them see.",
    )
    driver_memory: str = Field(
        default=DRIVER_MEMORY, description="Heap of the one JVM, as Spark writes it: 2g, 512m."
    )
    spark_conf: dict[str, Any] = Field(
        default={}, description="Further Spark properties, for instance spark.local.dir."
    )

    @refused_in_words()
    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Start Spark in the background: the first asset of a run does not need it."""
        refuse_missing(self.master)
        start_early(self.master, self.driver_memory, self.spark_conf)

    @property
    def session(self) -> SparkSession:
        """The session of this process, started when first asked for; see `spark_session.session`."""
        return session(self.master, self.driver_memory, self.spark_conf)

    def run(
        self,
        context: dg.AssetExecutionContext,
        stage: Stage[Params],
        inputs: Mapping[str, Stored],
        output: Output,
        params: Params,
    ) -> StageResult:
        """See `SparkRunner.run`."""
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


def _cancel(group: str) -> None:
    """Take the tasks of a run that was cancelled or has failed off the cores."""
    from pyspark import SparkContext

    context: Any = SparkContext._active_spark_context
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
