"""The script of an EMR step: runs one stage in the cluster's Spark, stores its result and talks by Pipes.

It travels beside a zip of `stages/`, `photos/` and `mobilenet/extractor.py`, and must not import anything
else of ours. Its arguments are NAME=value for its environment, and those of Pipes.
"""

from __future__ import annotations

import importlib
import itertools
import json
import logging
import os
import sys
import traceback
from dataclasses import asdict
from typing import Any

import boto3
from dagster_pipes import (
    PipesCliArgsParamsLoader,
    PipesContext,
    PipesS3ContextLoader,
    PipesS3MessageWriter,
    open_dagster_pipes,
)

MESSAGE_INTERVAL_S = 2.0


def main() -> None:
    """Take the stage and its arguments from the Pipes context; store its result or its exception."""
    # Nodes do not say in which region they are, and in some only its own endpoint is reached.
    for argument in itertools.takewhile(lambda argument: not argument.startswith("-"), sys.argv[1:]):
        name, _, value = argument.partition("=")
        os.environ[name] = value
    s3 = boto3.client("s3")
    with open_dagster_pipes(
        params_loader=PipesCliArgsParamsLoader(),  # type: ignore[no-untyped-call]
        context_loader=PipesS3ContextLoader(s3),
        message_writer=PipesS3MessageWriter(s3, interval=MESSAGE_INTERVAL_S),
    ) as pipes:
        told: dict[str, Any] = {}
        try:
            told = {"result": _run(pipes)}
        except BaseException:
            told = {"error": traceback.format_exc()}
            raise
        finally:
            s3.put_object(**pipes.extras["result"], Body=json.dumps(told).encode())


def _run(pipes: PipesContext) -> dict[str, Any]:
    # Imported here, so that a package that the cluster lacks is reported like any other exception.
    from pyspark.sql import SparkSession

    stage, params = _named(pipes.extras["stage"]), _named(pipes.extras["params_type"])
    logger = importlib.import_module("fruits_assets.stages.stage").logger
    logger.setLevel(logging.INFO)
    logger.addHandler(_ToPipes(pipes))
    stored = importlib.import_module("fruits_assets.stages.stored")
    inputs = {name: stored.Stored.from_json(value) for name, value in pipes.extras["inputs"].items()}
    output = stored.Output(**pipes.extras["output"])
    spark = SparkSession.builder.getOrCreate()
    try:
        result = stage(spark, inputs, output, params(**pipes.extras["params"]))
    finally:
        spark.stop()
    return asdict(result)


def _named(name: str) -> Any:
    """The function or class called `<module>:<name>`."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


class _ToPipes(logging.Handler):
    def __init__(self, pipes: PipesContext) -> None:
        super().__init__()
        self._pipes = pipes

    def emit(self, record: logging.LogRecord) -> None:
        self._pipes.log.log(record.levelno, record.getMessage())


if __name__ == "__main__":
    main()
