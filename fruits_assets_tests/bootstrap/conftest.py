"""What the tests of the infrastructure share: stacks that are really made, by moto."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.kms.models import KmsBackend

TEMPLATE = Path(__file__).parents[2] / "bootstrap" / "emr-stack.yaml"


@dataclass(frozen=True)
class Stack:
    """A stack of `emr-stack.yaml` in eu-west-3."""

    name: str
    outputs: dict[str, str]

    @property
    def settings(self) -> dict[str, str]:
        lines = self.outputs["Settings"].splitlines()
        return dict(line.removeprefix("export ").split("=", 1) for line in lines)

    def physical_id(self, resource: str) -> str:
        resources = boto3.client("cloudformation").describe_stack_resources(StackName=self.name)["StackResources"]
        # moto has nameless entries for what was not made.
        (found,) = (it["PhysicalResourceId"] for it in resources if it.get("LogicalResourceId") == resource)
        return str(found)


def deploy(name: str = "", **parameters: str) -> Stack:
    """Make a stack."""
    cloudformation = boto3.client("cloudformation")
    name = name or f"fruits-{uuid.uuid4().hex[:8]}"
    cloudformation.create_stack(
        StackName=name,
        # moto knows the older of the two policies by which a resource outlives its stack.
        TemplateBody=TEMPLATE.read_text(encoding="utf-8").replace("RetainExceptOnCreate", "Retain"),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    return Stack(name, {it["OutputKey"]: it["OutputValue"] for it in stack["Outputs"]})


@pytest.fixture
def aws(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An account of AWS that makes stacks, except for what moto does not know: bucket policies and rules."""
    create_key = KmsBackend.create_key

    def create_key_of_a_stack(self: KmsBackend, **key: Any) -> Any:
        # moto takes its tags and its policy for those of a call to KMS, which are written differently, and fails.
        tags = [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in key["tags"]]
        return create_key(self, **{**key, "tags": tags, "policy": json.dumps(key["policy"])})

    monkeypatch.setattr(KmsBackend, "create_key", create_key_of_a_stack)
    yield


@pytest.fixture
def own_network(aws: None) -> dict[str, str]:
    """The parameters for a network that is there."""
    subnets = boto3.client("ec2").describe_subnets()["Subnets"][:2]
    return {"VpcId": subnets[0]["VpcId"], "SubnetIds": ",".join(it["SubnetId"] for it in subnets)}
