"""Progress of long Spark work, in the stages' log."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark import Accumulator
from pyspark.sql import SparkSession

from fruits_assets.stages.stage import logger

INTERVAL_S = 5.0


def progress_line(what: str, done: int, total: int, unit: str, elapsed_s: float) -> str:
    """One line: what is done of how much, the rate, and the time left at that rate."""
    rate = done / elapsed_s if elapsed_s else 0.0
    line = f"{what}: {done:,} / {total:,} {unit}, {rate:,.1f} {unit}/s"
    return line + (f", {max(0, total - done) / rate:,.0f} s left" if rate else "")


@contextmanager
def progress(spark: SparkSession, what: str, total: int, unit: str = "images") -> Iterator[Accumulator[int]]:
    """Log every 5 s how many units are done; tasks add to the accumulator that this yields.

    Spark delivers a task's additions when the task ends, so the count moves in steps of a task.
    """
    done = spark.sparkContext.accumulator(0)
    finished = threading.Event()
    started = time.monotonic()

    def report() -> None:
        while not finished.wait(INTERVAL_S):
            logger.info(progress_line(what, min(done.value, total), total, unit, time.monotonic() - started))

    reporter = threading.Thread(target=report, name=f"progress of {what}", daemon=True)
    reporter.start()
    try:
        yield done
    finally:
        finished.set()
        reporter.join()
    logger.info(progress_line(what, total, total, unit, time.monotonic() - started))
