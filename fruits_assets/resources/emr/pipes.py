"""Dagster Pipes over S3, kept below the staging prefix: a cluster may not write elsewhere in the bucket.

Only lines and progress come by it. A step's result does not: it must not depend on a thread.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from dagster import PipesBlobStoreMessageReader, PipesContextInjector

from fruits_assets.resources.emr.aws import Aws

_MESSAGE_INTERVAL_S = 2.0


def _place_below(prefix: str) -> str:
    """A new one, of a step's own."""
    return f"{prefix}/pipes/{uuid.uuid4()}".lstrip("/")


class StagingContextInjector(PipesContextInjector):
    """Writes what a step is to do, for as long as it does it."""

    def __init__(self, aws: Aws, bucket: str, prefix: str) -> None:
        self._aws = aws
        self._place = {"Bucket": bucket, "Key": f"{_place_below(prefix)}/context.json"}

    @contextmanager
    def inject_context(self, context_data: Any) -> Iterator[dict[str, Any]]:
        """The place of it."""
        self._aws.s3.put_object(**self._place, Body=json.dumps(context_data).encode())
        try:
            yield {"bucket": self._place["Bucket"], "key": self._place["Key"]}
        finally:
            # What stays is deleted by the bucket's own rule; the step may have its result.
            with suppress(BotoCoreError, ClientError):
                self._aws.s3.delete_object(**self._place)

    def no_messages_debug_text(self) -> str:
        """For Dagster's warning that nothing came."""
        return f"The context was in s3://{self._place['Bucket']}/{self._place['Key']}."


class StagingMessageReader(PipesBlobStoreMessageReader):
    """Reads what a step says while it runs; what it cannot read now, it reads later.

    The other end is a `PipesS3MessageWriter`. The reader that Dagster has for that expects what it cannot
    read not to be there, and takes a second to import.

    Args:
        aws: for it alone, since it reads in a thread of its own.
    """

    def __init__(self, aws: Aws, bucket: str, prefix: str) -> None:
        super().__init__(interval=_MESSAGE_INTERVAL_S)
        self._aws = aws
        self._bucket = bucket
        self._prefix = _place_below(prefix)

    @contextmanager
    def get_params(self) -> Iterator[dict[str, Any]]:
        """The place for one step's messages."""
        yield {"bucket": self._bucket, "key_prefix": self._prefix}

    def messages_are_readable(self, params: Any) -> bool:
        """Whether there are any."""
        return self._read(1) is not None

    def download_messages_chunk(self, index: int, params: Any) -> str | None:
        """A part of them, if it is there."""
        return self._read(index)

    def no_messages_debug_text(self) -> str:
        """For Dagster's warning that nothing came."""
        return f"The messages would have been in s3://{self._bucket}/{self._prefix}."

    def _read(self, index: int) -> str | None:
        try:
            key = f"{self._prefix}/{index}.json"
            body = self._aws.s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except ClientError as error:
            if "Expired" in error.response["Error"]["Code"]:
                self._aws.renew()
        except BotoCoreError:
            self._aws.renew()
        else:
            return str(body, "utf-8")
        return None
