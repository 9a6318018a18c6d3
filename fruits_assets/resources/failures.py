"""What a failure is for a person: one paragraph, where Dagster shows it first and prints it last."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

_MAX_WORDS = 600  # of errors that are not ours: those of Java have hundreds of lines


class RefusedError(dg.DagsterError):
    """A resource has found that the run cannot work; the message is that of its cause.

    An error of Dagster's own kind is passed on as it is. Any other would stand below one that says no more
    than which resource it was.
    """


@contextmanager
def refused_in_words() -> Iterator[None]:
    """For what a resource does before a run does any work.

    Raises:
        RefusedError: whatever went wrong, in words.
    """
    try:
        yield
    except dg.DagsterError:
        raise
    except Exception as error:
        raise RefusedError(in_words(error)) from error


@contextmanager
def failed_in_words() -> Iterator[None]:
    """For the body of an asset.

    Raises:
        dagster.Failure: whatever went wrong, in words, which the run's page has first.
    """
    try:
        yield
    except (dg.DagsterError, dg.Failure, dg.RetryRequested):
        raise
    except Exception as error:
        raise dg.Failure(in_words(error)) from error


def in_words(error: BaseException) -> str:
    """A paragraph that names the thing, the cause and the fix, as errors of this package do by themselves."""
    if isinstance(error, dg.Failure) and error.description:
        return error.description
    if isinstance(error, dg.DagsterUserCodeExecutionError):
        return in_words(error.user_exception)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if type(error).__module__.startswith("fruits_assets."):
        return "\n".join(lines)
    words = " ".join(lines).partition(" [SQL: ")[0]  # which SQLAlchemy adds to its errors
    if len(words) > _MAX_WORDS:
        words = f"{words[:_MAX_WORDS]} ..."
    words = f"{type(error).__name__}: {words}"
    if "(sqlite3.OperationalError)" in words:
        words += (
            ". Dagster could not keep its records in DAGSTER_HOME. Free space there, or set it to a folder "
            "that has more and can be written to."
        )
    elif getattr(error, "errno", None) == errno.ENOSPC:
        words += (
            ". Free space there, or set FRUITS_LAKE, TMPDIR or DAGSTER_HOME, whichever is on that disk, to a "
            "place that has more."
        )
    elif type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):  # botocore's
        words += (
            ". Set AWS_PROFILE to one that has credentials (`aws configure` makes it), or AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY."
        )
    return words
