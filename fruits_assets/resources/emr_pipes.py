"""Dagster Pipes over S3, kept below the staging prefix: a cluster may not write elsewhere in the bucket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dagster_aws.pipes import PipesS3ContextInjector, PipesS3MessageReader

_MESSAGE_INTERVAL_S = 2.0


class StagingContextInjector(PipesS3ContextInjector):
    """Writes what a step is to do."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        super().__init__(bucket=bucket, client=client, key_prefix=f"{prefix}/pipes/")


class StagingMessageReader(PipesS3MessageReader):
    """Reads what a step says while it runs."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        super().__init__(bucket=bucket, client=client, interval=_MESSAGE_INTERVAL_S)
        self._prefix = prefix

    @contextmanager
    def get_params(self) -> Iterator[dict[str, Any]]:
        """The place for one step's messages."""
        with super().get_params() as params:
            yield {**params, "key_prefix": f"{self._prefix}/pipes/{params['key_prefix']}"}
