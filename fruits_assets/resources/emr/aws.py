"""Calls to AWS, and what to do when they are not answered."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, TypeVar

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

Found = TypeVar("Found")

# A call is given up after so long, which `ONE_CALL_S` is for all its attempts.
_CONNECT_S, _READ_S = 10, 60
ONE_CALL_S = _CONNECT_S + _READ_S

_NOT_THERE = ("404", "NoSuchKey", "NotFound")
# Not 403 alone: a right that is missing does not come by waiting.
_PASSING = (
    *("Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException", "SlowDown"),
    *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "UnrecognizedClientException"),
)


class Log(Protocol):
    """Where lines go that somebody who waits may want to read."""

    def info(self, msg: object, /) -> None: ...
    def warning(self, msg: object, /) -> None: ...


class Aws:
    """Clients for one region. They are made anew after an error, since a session keeps its credentials."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._session: Any = None
        self._clients: dict[str, Any] = {}

    @property
    def s3(self) -> Any:
        """A client of S3."""
        return self._client("s3", {"mode": "standard", "max_attempts": 5})

    @property
    def emr(self) -> Any:
        """A client of EMR for calls that may be repeated."""
        return self._client("emr", {"mode": "standard", "max_attempts": 3})

    @property
    def emr_once(self) -> Any:
        """A client of EMR for calls that must not: a call whose answer is lost may have been carried out."""
        return self._client("emr", {"total_max_attempts": 1})

    @property
    def cost_explorer(self) -> Any:
        """A client of Cost Explorer, which for all regions is in us-east-1."""
        return self._client("ce", {"mode": "standard", "max_attempts": 3})

    def _client(self, service: str, retries: Mapping[str, Any]) -> Any:
        name = f"{service} {retries}"
        if name not in self._clients:
            self._session = self._session or _session(self._region)
            config = Config(retries=dict(retries), connect_timeout=_CONNECT_S, read_timeout=_READ_S)
            self._clients[name] = self._session.client(service, config=config)
        return self._clients[name]

    def renew(self) -> None:
        """Read the credentials anew with the next call."""
        self._session = None
        self._clients = {}

    def content(self, place: Mapping[str, str]) -> bytes | None:
        """Of an object of S3, by its `Bucket` and `Key`, if it is there."""
        try:
            return bytes(self.s3.get_object(**place)["Body"].read())
        except ClientError as error:
            if not is_not_there(error):
                raise
            return None

    def patiently(
        self, what: str, call: Callable[[], Found], log: Log, patience_s: float, pause_s: float
    ) -> Found:
        """The answer to a call, which is repeated while what goes wrong may pass.

        Args:
            what: the call in words.
            call: has to ask for its client each time.

        Raises:
            Exception: what it still raises after `patience_s`.
        """
        deadline, said = time.monotonic() + patience_s, False
        while True:
            try:
                return call()
            except Exception as error:
                if not may_pass(error) or time.monotonic() > deadline:
                    raise
                if not said:
                    log.warning(f"{what} failed ({error}); trying again for {patience_s / 60:.0f} min")
                    said = True
                self.renew()
                time.sleep(pause_s)


def _session(region: str) -> boto3.Session:
    core = botocore.session.get_session()
    session = boto3.Session(botocore_session=core, region_name=region)
    core.register_component("data_loader", _models())
    return session


@functools.cache
def _models() -> Any:
    """What botocore has in files about services, which takes a session 0.2 s to read, and not each anew."""
    return botocore.session.get_session().get_component("data_loader")


def may_pass(error: Exception) -> bool:
    """Whether a call that failed so may be answered later: no network, throttling, expired credentials."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or error.response["Error"]["Code"] in _PASSING
    return isinstance(error, BotoCoreError) and not isinstance(error, ParamValidationError)


def is_not_there(error: ClientError) -> bool:
    """Whether S3 has no such object."""
    return error.response["Error"]["Code"] in _NOT_THERE


def answered_at(answer: Mapping[str, Any]) -> datetime:
    """When AWS gave an answer, by its own clock: times that it tells are by the same."""
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)
