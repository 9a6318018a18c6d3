"""What errors of libraries become for a person."""

from __future__ import annotations

import errno

import dagster as dg
import pytest
from botocore.exceptions import NoCredentialsError

from fruits_assets.resources.failures import RefusedError, failed_in_words, refused_in_words


def test_missing_credentials_are_told_with_what_to_set() -> None:
    with (
        pytest.raises(RefusedError, match=r"Unable to locate credentials\. Set AWS_PROFILE to one that has "),
        refused_in_words(),
    ):
        raise NoCredentialsError


def test_a_full_disk_is_told_with_what_may_be_on_it() -> None:
    with (
        pytest.raises(dg.Failure, match=r"No space left on device: '/a/b'\. Free space there, or set "),
        failed_in_words(),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", "/a/b")


def test_pages_of_an_error_of_java_are_cut() -> None:
    with pytest.raises(dg.Failure) as told, failed_in_words():
        raise ValueError("\n".join(["at org.apache.spark"] * 200))
    assert len(str(told.value)) < 700
