"""What the tests of Amazon EMR share: one stand-in for it, and buckets."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import fsspec
import pytest

from fruits_assets.resources.emr import EmrSpark
from fruits_assets_tests.emr.cluster_environment import ClusterEnvironment
from fruits_assets_tests.emr.fake_emr import REGION, FakeEmr

BOOTSTRAP = Path(__file__).parents[2] / "bootstrap"


@pytest.fixture(scope="package")
def fake_emr(
    s3: str, cluster_environment: ClusterEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FakeEmr]:
    """EMR and S3, in the environment of all tests of this folder.

    It asks for `s3`, the one without EMR, so that this one's endpoint is set later and unset earlier.
    """
    root = tmp_path_factory.mktemp("fake_emr")
    with FakeEmr(cluster_environment, root) as emr, pytest.MonkeyPatch.context() as environment:
        for name, value in emr.variables.items():
            environment.setenv(name, value)
        # File systems that were made before go on talking to the other endpoint.
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield emr
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(autouse=True)
def _calm_after_each_test(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "fake_emr" in request.fixturenames:
        request.getfixturevalue("fake_emr").calm()


@pytest.fixture
def bucket(fake_emr: FakeEmr) -> str:
    """The name of an empty bucket of this test's own."""
    name = f"fruits-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return name


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
        poll_s=0.2,
        log_wait_s=5,
    )
