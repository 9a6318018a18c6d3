"""Runs on a cluster that loses answers, ends, or is not as it was: steps of one stage without a JVM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from fruits_assets.resources.emr import EmrSpark
from fruits_assets_tests.emr.fake_emr import FakeEmr
from fruits_assets_tests.emr.light_run import failure, run
from fruits_assets_tests.emr.light_stage import Params

BOOTSTRAP = Path(__file__).parents[2] / "bootstrap"


@pytest.fixture(autouse=True)
def _without_spark(fake_emr: FakeEmr) -> Iterator[None]:
    with fake_emr.without_spark():
        yield


@pytest.fixture
def emr(bucket: str) -> EmrSpark:
    """Settings as a stack would give them."""
    client = boto3.client("s3")
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    for name in ("bootstrap-emr.sh", "requirements-emr.txt"):
        client.upload_file(str(BOOTSTRAP / name), bucket, f"bootstrap/{name}")
    return EmrSpark(
        staging_uri=f"s3://{bucket}/staging",
        log_uri=f"s3://{bucket}/logs/",
        bootstrap_uri=f"s3://{bucket}/bootstrap",
        service_role="service",
        instance_profile="nodes",
        subnet_id="subnet-1, subnet-2",
        cluster_name=bucket,
        poll_s=1,
        log_wait_s=5,
    )


@pytest.fixture
def lake(bucket: str) -> str:
    return f"s3://{bucket}/lake"


def test_a_step_gives_its_result_and_its_metadata(fake_emr: FakeEmr, emr: EmrSpark, lake: str) -> None:
    result = run(emr, lake)
    assert result.success
    (event,) = result.asset_materializations_for_node("light_asset")
    print({name: value.value for name, value in event.metadata.items()})


def test_a_stage_that_fails_shows_its_own_words(fake_emr: FakeEmr, emr: EmrSpark, lake: str) -> None:
    assert "the stage's own words" in failure(run(emr, lake, Params(fails=True)))
