"""A lock that is an object on S3: only one of several can write it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from fruits_assets.resources.emr.aws import answered_at, is_not_there

_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict")


@contextmanager
def lock(s3: Any, bucket: str, key: str, expires: timedelta) -> Iterator[bool]:
    """Whether this process has it, for as long as the context lasts.

    The object has a word of its holder's own, or nothing when it is free. It is only ever written on the
    condition that it is as it was seen, so that of several who find it free or expired one takes it, and who
    has lost it to another does not release it.

    Args:
        expires: whoever has held it for longer, by the clock of S3, has died.
    """
    place = {"Bucket": bucket, "Key": key}
    etag = _taken(s3, place, expires)
    try:
        yield etag is not None
    finally:
        if etag is not None:
            with suppress(BotoCoreError, ClientError):  # then it expires
                s3.put_object(**place, Body=b"", IfMatch=etag)


def _taken(s3: Any, place: dict[str, str], expires: timedelta) -> str | None:
    """The tag of the object as this process has written it, or None."""
    try:
        found = s3.get_object(**place)
    except ClientError as error:
        if not is_not_there(error):
            raise
        condition = {"IfNoneMatch": "*"}
    else:
        if found["Body"].read() and answered_at(found) - found["LastModified"] < expires:
            return None
        condition = {"IfMatch": found["ETag"]}
    word = uuid.uuid4().bytes
    try:
        answer = s3.put_object(**place, Body=word, **condition)
    except ClientError as error:
        if error.response["Error"]["Code"] not in _REFUSED and not is_not_there(error):
            raise
        # By another, or by this one in a call whose answer was lost, and which was then repeated.
        answer = s3.get_object(**place)
        if answer["Body"].read() != word:
            return None
    return str(answer["ETag"])
