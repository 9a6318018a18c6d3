"""What comes of the infrastructure template when it is deployed, by moto in place of AWS."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import boto3
import pytest

from fruits_assets_tests.bootstrap.conftest import Stack, deploy

pytestmark = pytest.mark.slow

Json = dict[str, Any]
ACCOUNT, REGION = "123456789012", "eu-west-3"
OURS = {"aws:ResourceTag/Project": "fruits-assets"}
STARTED = {"aws:RequestTag/Project": "fruits-assets", "aws:RequestTag/for-use-with-amazon-emr-managed-policies": "true"}
CLUSTER = f"arn:aws:elasticmapreduce:{REGION}:{ACCOUNT}:cluster/j-1"
CLEAN_UP_ROLE = (
    f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/elasticmapreduce.amazonaws.com/AWSServiceRoleForEMRCleanup"
)


def role_statements(role: str) -> list[Json]:
    iam = boto3.client("iam")
    (name,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
    document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    # moto gives one of a stack as Python writes it, where AWS gives it parsed.
    statements: list[Json] = ast.literal_eval(document)["Statement"]
    return statements


# ---- Network ----


@dataclass(frozen=True)
class Network:
    """Where the clusters of a stack run, as EC2 has it."""

    subnet: Json
    way_out: Json
    group: Json


def network(stack: Stack) -> Network:
    ec2 = boto3.client("ec2")
    (subnet,) = ec2.describe_subnets(SubnetIds=[stack.settings["FRUITS_EMR_SUBNET_ID"]])["Subnets"]
    in_vpc = [{"Name": "vpc-id", "Values": [subnet["VpcId"]]}]
    (endpoint,) = ec2.describe_vpc_endpoints(Filters=in_vpc)["VpcEndpoints"]
    assert endpoint["ServiceName"] == "com.amazonaws.eu-west-3.s3"
    (table,) = ec2.describe_route_tables(RouteTableIds=endpoint["RouteTableIds"])["RouteTables"]
    (way_out,) = (it for it in table["Routes"] if it.get("DestinationCidrBlock") == "0.0.0.0/0")
    (group,) = ec2.describe_security_groups(GroupIds=[stack.settings["FRUITS_EMR_SECURITY_GROUP"]])[
        "SecurityGroups"
    ]
    return Network(subnet, way_out, group)


@pytest.mark.usefixtures("aws")
def test_network_is_made_with_a_private_subnet_whose_way_out_is_a_nat_gateway() -> None:
    made = network(deploy())
    ec2 = boto3.client("ec2")
    (nat,) = ec2.describe_nat_gateways(NatGatewayIds=[made.way_out["NatGatewayId"]])["NatGateways"]
    (outside,) = ec2.describe_subnets(SubnetIds=[nat["SubnetId"]])["Subnets"]
    assert outside["SubnetId"] != made.subnet["SubnetId"]
    # Traffic between zones is charged.
    assert outside["AvailabilityZone"] == made.subnet["AvailabilityZone"]
    assert made.group["VpcId"] == outside["VpcId"] == made.subnet["VpcId"]


@pytest.mark.usefixtures("aws")
def test_public_subnet_has_neither_a_nat_gateway_nor_a_group_for_emr() -> None:
    stack = deploy(SubnetKind="public")
    made = network(stack)
    assert made.way_out["GatewayId"].startswith("igw-")
    ec2 = boto3.client("ec2")
    in_vpc = [{"Name": "vpc-id", "Values": [made.subnet["VpcId"]]}]
    assert ec2.describe_nat_gateways(Filters=in_vpc)["NatGateways"] == []
    # EMR refuses one for its own access there. VPCs have a group `default`.
    assert stack.settings["FRUITS_EMR_SERVICE_ACCESS_SECURITY_GROUP"] == ""
    groups = {it["GroupId"] for it in ec2.describe_security_groups(Filters=in_vpc)["SecurityGroups"]}
    assert len(groups - {made.group["GroupId"]}) == 1


def test_network_of_yours_is_used_and_nothing_is_added_to_it(own_network: dict[str, str]) -> None:
    ec2 = boto3.client("ec2")
    before = [len(ec2.describe_subnets()["Subnets"]), len(ec2.describe_vpc_endpoints()["VpcEndpoints"])]
    stack = deploy(**own_network)
    assert stack.settings["FRUITS_EMR_SUBNET_ID"] == own_network["SubnetIds"]
    assert [len(ec2.describe_subnets()["Subnets"]), len(ec2.describe_vpc_endpoints()["VpcEndpoints"])] == before


@pytest.mark.parametrize("count", [1, 2])
def test_emr_may_start_nodes_in_each_of_the_subnets_and_in_no_other(
    own_network: dict[str, str], count: int
) -> None:
    subnets = own_network["SubnetIds"].split(",")[:count]
    stack = deploy(VpcId=own_network["VpcId"], SubnetIds=",".join(subnets))
    (statement,) = (it for it in role_statements(stack.outputs["ServiceRole"]) if "ec2:RunInstances" in it["Action"])
    assert statement["Resource"] == [f"arn:aws:ec2:*:*:subnet/{subnet}" for subnet in subnets]


# ---- Rights ----


def test_both_roles_stay_within_a_boundary(own_network: dict[str, str]) -> None:
    boundary = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
    iam = boto3.client("iam")
    for given in ({}, {"PermissionsBoundary": boundary}):
        stack = deploy(**own_network, **given)
        for role in ("ServiceRole", "InstanceRole"):
            found = iam.get_role(RoleName=stack.physical_id(role))["Role"].get("PermissionsBoundary", {})
            assert found.get("PermissionsBoundaryArn") == given.get("PermissionsBoundary"), role


def test_nodes_may_act_as_an_execution_role_where_one_is_given(own_network: dict[str, str]) -> None:
    execution = f"arn:aws:iam::{ACCOUNT}:role/steps"
    iam = boto3.client("iam")
    stack = deploy(**own_network)
    assert iam.list_role_policies(RoleName=stack.physical_id("InstanceRole"))["PolicyNames"] == ["this-bucket-only"]

    stack = deploy(**own_network, ExecutionRoleArn=execution)
    policy = iam.get_role_policy(
        RoleName=stack.physical_id("InstanceRole"), PolicyName="act-as-the-execution-role"
    )["PolicyDocument"]
    assert policy["Statement"][0]["Action"] == ["sts:AssumeRole", "sts:TagSession"]
    assert policy["Statement"][0]["Resource"] == execution


def allows(policy: Json, action: str, resource: str, context: dict[str, str]) -> bool:
    """What IAM would say, as far as this policy goes: each statement allows, and there are three operators."""

    def as_list(value: Any) -> list[Any]:
        return value if isinstance(value, list) else [value]

    def holds(operator: str, key: str, expected: Any) -> bool:
        if key not in context:
            return operator.endswith("IfExists")
        matches = fnmatchcase if operator.startswith("StringLike") else str.__eq__
        return any(matches(context[key], value) for value in as_list(expected))

    return any(
        any(fnmatchcase(action, it) for it in as_list(statement["Action"]))
        and any(fnmatchcase(resource, it) for it in as_list(statement["Resource"]))
        and all(
            holds(operator, key, expected)
            for operator, conditions in statement.get("Condition", {}).items()
            for key, expected in conditions.items()
        )
        for statement in policy["Statement"]
    )


@pytest.fixture
def runner(own_network: dict[str, str]) -> tuple[Stack, Json]:
    """A stack, and its policy for whoever starts runs."""
    stack = deploy(**own_network)
    iam = boto3.client("iam")
    arn = stack.outputs["RunnerPolicyArn"]
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    return stack, iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]


def test_whoever_starts_runs_may_do_what_the_runner_does(runner: tuple[Stack, Json]) -> None:
    stack, policy = runner
    bucket = f"arn:aws:s3:::{stack.outputs['BucketName']}"
    passed = {"iam:PassedToService": "elasticmapreduce.amazonaws.com"}
    through_s3 = {"kms:ViaService": "s3.eu-west-3.amazonaws.com"}
    calls: list[tuple[str, str, dict[str, str]]] = [
        ("elasticmapreduce:ListClusters", "*", {}),
        ("elasticmapreduce:RunJobFlow", "*", STARTED),
        ("elasticmapreduce:AddTags", CLUSTER, STARTED),
        ("elasticmapreduce:PutAutoTerminationPolicy", CLUSTER, {}),
        ("elasticmapreduce:DescribeCluster", CLUSTER, {}),
        ("elasticmapreduce:ListInstances", CLUSTER, OURS),
        ("elasticmapreduce:AddJobFlowSteps", CLUSTER, OURS),
        ("elasticmapreduce:DescribeStep", CLUSTER, OURS),
        ("elasticmapreduce:ListSteps", CLUSTER, OURS),
        ("elasticmapreduce:CancelSteps", CLUSTER, OURS),
        ("elasticmapreduce:TerminateJobFlows", CLUSTER, OURS),
        ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/{stack.physical_id('ServiceRole')}", passed),
        (
            "iam:PassRole",
            f"arn:aws:iam::{ACCOUNT}:role/{stack.physical_id('InstanceRole')}",
            {"iam:PassedToService": "ec2.amazonaws.com"},
        ),
        ("iam:CreateServiceLinkedRole", CLEAN_UP_ROLE, {"iam:AWSServiceName": "elasticmapreduce.amazonaws.com"}),
        ("ce:GetCostAndUsage", "*", {}),
        ("s3:ListBucket", bucket, {}),
        ("s3:GetBucketLocation", bucket, {}),
        ("s3:GetEncryptionConfiguration", bucket, {}),
        *(("s3:GetObject", f"{bucket}/{it}/x", {}) for it in ("images", "bootstrap", "lake", "staging", "logs")),
        *(("s3:PutObject", f"{bucket}/{it}/x", {}) for it in ("lake", "staging")),
        *(("s3:DeleteObject", f"{bucket}/{it}/x", {}) for it in ("lake", "staging")),
        *(("s3:AbortMultipartUpload", f"{bucket}/{it}/x", {}) for it in ("lake", "staging")),
        ("kms:Decrypt", stack.outputs["KeyArn"], through_s3),
        ("kms:GenerateDataKey", stack.outputs["KeyArn"], through_s3),
    ]
    assert [call for call in calls if not allows(policy, *call)] == []


def test_whoever_starts_runs_may_do_no_more(runner: tuple[Stack, Json]) -> None:
    stack, policy = runner
    bucket = f"arn:aws:s3:::{stack.outputs['BucketName']}"
    to_emr = {"iam:PassedToService": "elasticmapreduce.amazonaws.com"}
    theirs = {"aws:ResourceTag/Project": "another"}
    calls: list[tuple[str, str, dict[str, str]]] = [
        # A cluster whose nodes EMR could not start, or that none of the other statements would know.
        ("elasticmapreduce:RunJobFlow", "*", {}),
        ("elasticmapreduce:AddJobFlowSteps", CLUSTER, theirs),
        ("elasticmapreduce:AddJobFlowSteps", CLUSTER, {}),
        ("elasticmapreduce:TerminateJobFlows", CLUSTER, theirs),
        ("elasticmapreduce:PutAutoTerminationPolicy", CLUSTER, theirs),
        ("elasticmapreduce:AddTags", CLUSTER, {**STARTED, **theirs}),
        ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/admin", to_emr),
        ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/{stack.physical_id('InstanceRole')}", to_emr),
        (
            "iam:PassRole",
            f"arn:aws:iam::{ACCOUNT}:role/{stack.physical_id('ServiceRole')}",
            {"iam:PassedToService": "lambda.amazonaws.com"},
        ),
        ("iam:CreateServiceLinkedRole", CLEAN_UP_ROLE, {"iam:AWSServiceName": "spot.amazonaws.com"}),
        ("s3:PutObject", f"{bucket}/images/x", {}),
        ("s3:DeleteObject", f"{bucket}/images/x", {}),
        ("s3:PutObject", f"{bucket}/bootstrap/bootstrap-emr.sh", {}),
        ("s3:DeleteObject", f"{bucket}/logs/x", {}),
        ("s3:GetObject", "arn:aws:s3:::another/lake/x", {}),
        ("s3:PutBucketPolicy", bucket, {}),
        ("ce:GetCostAndUsageWithResources", "*", {}),
        ("ce:CreateCostCategoryDefinition", "*", {}),
        ("kms:Decrypt", stack.outputs["KeyArn"], {}),
        ("kms:ScheduleKeyDeletion", stack.outputs["KeyArn"], {}),
    ]
    assert [call for call in calls if allows(policy, *call)] == []


# ---- Settings ----


def test_settings_name_what_the_stack_made_as_a_shell_reads_it(own_network: dict[str, str]) -> None:
    execution = f"arn:aws:iam::{ACCOUNT}:role/steps"
    stack = deploy(**own_network, ExecutionRoleArn=execution)
    assert all(re.fullmatch(r"export [A-Z0-9_]+=\S+", it) for it in stack.outputs["Settings"].splitlines())
    bucket = stack.outputs["BucketName"]
    assert stack.settings == {
        "AWS_DEFAULT_REGION": REGION,
        "FRUITS_SPARK": "emr",
        "FRUITS_IMAGES": f"s3://{bucket}/images",
        "FRUITS_LAKE": f"s3://{bucket}/lake",
        "FRUITS_EMR_REGION": REGION,
        "FRUITS_EMR_STAGING_URI": f"s3://{bucket}/staging",
        "FRUITS_EMR_LOG_URI": f"s3://{bucket}/logs/",
        "FRUITS_EMR_BOOTSTRAP_URI": f"s3://{bucket}/bootstrap",
        "FRUITS_EMR_SUBNET_ID": own_network["SubnetIds"],
        "FRUITS_EMR_SERVICE_ROLE": stack.physical_id("ServiceRole"),
        "FRUITS_EMR_INSTANCE_PROFILE": stack.physical_id("InstanceProfile"),
        "FRUITS_EMR_SECURITY_CONFIGURATION": stack.physical_id("SecurityConfiguration"),
        "FRUITS_EMR_SECURITY_GROUP": stack.physical_id("ClusterSecurityGroup"),
        "FRUITS_EMR_SERVICE_ACCESS_SECURITY_GROUP": stack.physical_id("ServiceAccessSecurityGroup"),
        "FRUITS_EMR_EXECUTION_ROLE": execution,
        # By the first tag EMR's managed policy lets its role start nodes, by the second the runner's knows a cluster.
        "FRUITS_EMR_TAGS": "for-use-with-amazon-emr-managed-policies=true,Project=fruits-assets,"
        "DataClassification=confidential",
    }


def test_without_an_execution_role_steps_act_as_the_nodes(own_network: dict[str, str]) -> None:
    assert deploy(**own_network).settings["FRUITS_EMR_EXECUTION_ROLE"] == ""


@pytest.mark.usefixtures("aws")
def test_settings_are_fields_of_the_runner() -> None:
    from fruits_assets.definitions import EmrSettings

    names = [it.removeprefix("FRUITS_EMR_").lower() for it in deploy().settings if it.startswith("FRUITS_EMR_")]
    assert set(names) <= EmrSettings.model_fields.keys()
