"""Which runs are alive: each says so on S3, and whoever finds a step without such a sign may cancel it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from botocore.exceptions import BotoCoreError, ClientError

from fruits_assets.resources.emr.aws import Aws, answered_at, is_not_there
from fruits_assets.resources.emr.places import bucket_and_key

_EVERY_S = 30.0
# More than a run bears with a network that is away.
_DEAD_AFTER_BEYOND_PATIENCE = timedelta(minutes=5)


class SignOfLife:
    """Of one step's run, and of those of others with the same staging prefix."""

    def __init__(self, aws: Aws, staging_uri: str, patience_minutes: int) -> None:
        self._aws = aws
        self._bucket, self._prefix = bucket_and_key(staging_uri)
        self._dead_after = timedelta(minutes=patience_minutes) + _DEAD_AFTER_BEYOND_PATIENCE
        self._given_s: float | None = None

    @contextmanager
    def given(self, name: str) -> Iterator[None]:
        """From before the step of this name is added until nobody waits for it any more."""
        self._put(name)
        try:
            yield
        finally:
            with suppress(BotoCoreError, ClientError):
                self._aws.s3.delete_object(Bucket=self._bucket, Key=self._key(name))

    def give_again(self, name: str) -> None:
        """To be called all the time."""
        if self._given_s is None or time.monotonic() - self._given_s > _EVERY_S:
            with suppress(BotoCoreError, ClientError):
                self._put(name)

    def is_missing(self, name: str) -> bool:
        """Whether nobody waits for the step of this name."""
        try:
            found = self._aws.s3.head_object(Bucket=self._bucket, Key=self._key(name))
        except ClientError as error:
            return is_not_there(error)
        except BotoCoreError:
            return False
        return bool(answered_at(found) - found["LastModified"] > self._dead_after)

    def _put(self, name: str) -> None:
        self._aws.s3.put_object(Bucket=self._bucket, Key=self._key(name), Body=b"")
        self._given_s = time.monotonic()

    def _key(self, name: str) -> str:
        return f"{self._prefix}/running/{name}".lstrip("/")
