"""What the infrastructure templates promise, read from them and checked against AWS' own schemas."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fruits_assets.resources.emr.places import EU_REGIONS

pytestmark = pytest.mark.slow

BOOTSTRAP = Path(__file__).parents[2] / "bootstrap"
STACK = BOOTSTRAP / "emr-stack.yaml"
BUDGET = BOOTSTRAP / "budget.yaml"
# Where AWS' schemas know budgets; a budget is of the account, wherever its stack is.
BUDGET_REGIONS = ("eu-central-1", "eu-west-1", "eu-west-3")

Json = dict[str, Any]


def _tag(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Json:
    """`!GetAtt a.b` becomes {"GetAtt": "a.b"}, and so on for every tag."""
    if isinstance(node, yaml.ScalarNode):
        return {suffix: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {suffix: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {suffix: loader.construct_mapping(node, deep=True)}


# Of its own, so that the tags are not known to every other reader of YAML in this process.
CloudFormationLoader: Any = type("CloudFormationLoader", (yaml.SafeLoader,), {})
CloudFormationLoader.add_multi_constructor("!", _tag)


def read(path: Path) -> Json:
    loaded: Json = yaml.load(path.read_text(encoding="utf-8"), Loader=CloudFormationLoader)
    return loaded


@pytest.fixture(scope="module")
def template() -> Json:
    return read(STACK)


def properties(template: Json, name: str) -> Json:
    found: Json = template["Resources"][name]["Properties"]
    return found


def of_type(template: Json, kind: str) -> Iterator[Json]:
    found = [it["Properties"] for it in template["Resources"].values() if it["Type"] == kind]
    assert found, f"no {kind}"
    yield from found


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def role_statements(template: Json) -> list[Json]:
    return [
        statement
        for role in of_type(template, "AWS::IAM::Role")
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
    ]


@pytest.mark.parametrize(("path", "regions"), [(STACK, EU_REGIONS), (BUDGET, BUDGET_REGIONS)])
def test_cfn_lint_has_nothing_to_say_in_any_region(path: Path, regions: tuple[str, ...]) -> None:
    cfn_lint = Path(sys.executable).with_name("cfn-lint")
    if not cfn_lint.exists():
        pytest.skip("cfn-lint is not installed")
    done = subprocess.run(
        [cfn_lint, "--regions", *regions, "--template", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout + done.stderr == ""


def test_regions_outside_the_union_are_refused_by_default(template: Json) -> None:
    rule = template["Rules"]["DataStaysInTheEu"]
    regions, region = rule["Assertions"][0]["Assert"]["Fn::Contains"]
    assert region == {"Ref": "AWS::Region"}
    assert regions == list(EU_REGIONS)
    # In Europe, and outside the Union.
    assert not {"eu-west-2", "eu-central-2"} & set(regions)
    assert rule["RuleCondition"] == {"Equals": [{"Ref": "AllowNonEuRegion"}, "false"]}
    assert template["Parameters"]["AllowNonEuRegion"]["Default"] == "false"


def test_bucket_is_private_encrypted_versioned_and_outlives_the_stack(template: Json) -> None:
    bucket = properties(template, "Bucket")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    (encryption,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"] == {
        "SSEAlgorithm": "aws:kms",
        "KMSMasterKeyID": {"GetAtt": "Key.Arn"},
    }
    for name in ("Bucket", "Key"):
        # What a failed first deployment made is empty, and would be paid for.
        assert template["Resources"][name]["DeletionPolicy"] == "RetainExceptOnCreate"
        assert template["Resources"][name]["UpdateReplacePolicy"] == "Retain"


def test_bucket_takes_tls_only(template: Json) -> None:
    (statement,) = properties(template, "BucketPolicy")["PolicyDocument"]["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Principal"] == "*"
    assert statement["Action"] == "s3:*"
    assert statement["Resource"] == [{"GetAtt": "Bucket.Arn"}, {"Sub": "${Bucket.Arn}/*"}]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_bucket_forgets_staging_logs_old_versions_and_aborted_uploads(template: Json) -> None:
    rules = {rule["Id"]: rule for rule in properties(template, "Bucket")["LifecycleConfiguration"]["Rules"]}
    assert {rule["Status"] for rule in rules.values()} == {"Enabled"}
    assert {rule["Prefix"] for rule in rules.values() if "ExpirationInDays" in rule} == {"staging/", "logs/"}
    assert "NoncurrentVersionExpiration" in rules["noncurrent-versions"]
    assert "AbortIncompleteMultipartUpload" in rules["aborted-uploads"]
    # Results and photos are kept until somebody deletes them.
    assert not any(rule.get("Prefix") in ("lake/", "images/") for rule in rules.values())


def test_nothing_outside_the_cluster_reaches_a_port(template: Json) -> None:
    groups = list(of_type(template, "AWS::EC2::SecurityGroup"))
    inbound = [rule for group in groups for rule in group.get("SecurityGroupIngress", [])]
    inbound += of_type(template, "AWS::EC2::SecurityGroupIngress")
    sources = {json.dumps(rule["SourceSecurityGroupId"]) for rule in inbound}
    assert sources == {
        '{"Ref": "ClusterSecurityGroup"}',
        '{"Ref": "ServiceAccessSecurityGroup"}',
    }
    assert not any(key.startswith("Cidr") or "PrefixList" in key for rule in inbound for key in rule)
    # SSH only where the whole range is open, from a node to its neighbours.
    for rule in inbound:
        if rule["IpProtocol"] == "tcp" and rule["FromPort"] <= 22 <= rule["ToPort"]:
            assert rule["GroupId"] == rule["SourceSecurityGroupId"]


def test_roles_reach_this_bucket_only(template: Json) -> None:
    for statement in role_statements(template):
        assert statement["Effect"] == "Allow"
        actions, resources = as_list(statement["Action"]), as_list(statement["Resource"])
        assert "*" not in resources
        assert not {"*", "s3:*", "kms:*", "ec2:*"} & set(actions)
        if any(action.startswith("s3:") for action in actions):
            assert all("Bucket.Arn" in json.dumps(resource) for resource in resources)
            # An object action is tied to a folder of the bucket.
            assert {"Sub": "${Bucket.Arn}/*"} not in resources
        if any(action.startswith("kms:") for action in actions):
            assert resources == [{"GetAtt": "Key.Arn"}]


def test_nodes_cannot_change_the_photos(template: Json) -> None:
    writable = [
        statement["Resource"]
        for statement in role_statements(template)
        if {"s3:PutObject", "s3:DeleteObject"} & set(as_list(statement["Action"]))
    ]
    assert writable
    assert "images" not in json.dumps(writable)


def test_emr_passes_the_role_of_the_nodes_and_no_other(template: Json) -> None:
    (statement,) = (it for it in role_statements(template) if "iam:PassRole" in as_list(it["Action"]))
    assert statement["Resource"] == {"GetAtt": "InstanceRole.Arn"}
    assert statement["Condition"] == {"StringLike": {"iam:PassedToService": "ec2.amazonaws.com*"}}


def test_security_configuration_encrypts_and_knows_execution_roles(template: Json) -> None:
    configuration = properties(template, "SecurityConfiguration")["SecurityConfiguration"]
    encryption = configuration["EncryptionConfiguration"]
    assert encryption["EnableAtRestEncryption"] is True
    at_rest = encryption["AtRestEncryptionConfiguration"]
    assert at_rest["S3EncryptionConfiguration"]["EncryptionMode"] == "SSE-KMS"
    assert at_rest["LocalDiskEncryptionConfiguration"]["EnableEbsEncryption"] is True
    assert configuration["InstanceMetadataServiceConfiguration"]["MinimumInstanceMetadataServiceVersion"] == 2
    enabled = {"IAMConfiguration": {"EnableApplicationScopedIAMRole": True}}
    assert configuration["AuthorizationConfiguration"]["If"][:2] == ["HasExecutionRole", enabled]


def test_budget_writes_to_somebody() -> None:
    budget = properties(read(BUDGET), "Budget")
    assert budget["Budget"]["TimeUnit"] == "MONTHLY"
    kinds = {it["Notification"]["NotificationType"] for it in budget["NotificationsWithSubscribers"]}
    assert kinds == {"ACTUAL", "FORECASTED"}
    for notification in budget["NotificationsWithSubscribers"]:
        assert notification["Subscribers"] == [
            {"SubscriptionType": "EMAIL", "Address": {"Ref": "AlertEmail"}}
        ]


def test_whatever_can_carry_tags_says_whose_it_is(template: Json) -> None:
    untaggable = {
        "AWS::EC2::Route",
        "AWS::EC2::SecurityGroupIngress",
        "AWS::EC2::SubnetRouteTableAssociation",
        "AWS::EC2::VPCGatewayAttachment",
        "AWS::EMR::SecurityConfiguration",
        "AWS::IAM::InstanceProfile",
        "AWS::IAM::ManagedPolicy",
        "AWS::IAM::Policy",
        "AWS::S3::BucketPolicy",
    }
    for name, resource in template["Resources"].items():
        if resource["Type"] not in untaggable:
            tags = resource["Properties"].get("Tags", [])
            assert {"Project", "DataClassification"} <= {tag["Key"] for tag in tags}, name


def test_network_is_given_whole_or_not_at_all(template: Json) -> None:
    (assertion,) = template["Rules"]["NetworkIsWhole"]["Assertions"]
    no_vpc, no_subnets = {"Equals": [{"Ref": "VpcId"}, ""]}, {"Equals": [{"Ref": "SubnetIds"}, ""]}
    assert assertion["Assert"] == {
        "Or": [{"And": [no_vpc, no_subnets]}, {"And": [{"Not": [no_vpc]}, {"Not": [no_subnets]}]}]
    }


@pytest.mark.parametrize("kind", ["Public", "Private"])
def test_subnets_go_by_their_own_routes(template: Json, kind: str) -> None:
    assert properties(template, f"{kind}SubnetRoutes") == {
        "SubnetId": {"Ref": f"{kind}Subnet"},
        "RouteTableId": {"Ref": f"{kind}RouteTable"},
    }


def test_nodes_have_public_addresses_in_a_public_subnet_only(template: Json) -> None:
    assert properties(template, "PublicSubnet")["MapPublicIpOnLaunch"] == {"If": ["IsPrivate", False, True]}
    assert "MapPublicIpOnLaunch" not in properties(template, "PrivateSubnet")


COMMAND = re.compile(r"aws cloudformation deploy .*?(?=\n\n|\n    [a-z#])", re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "bootstrap/README.md"])
def test_commands_in_the_documentation_fit_the_templates(page: str) -> None:
    commands = COMMAND.findall((BOOTSTRAP.parent / page).read_text(encoding="utf-8"))
    assert commands
    for command in commands:
        found = re.search(r"--template-file (\S+)", command)
        assert found, command
        template = read(BOOTSTRAP.parent / found[1])
        given = set(re.findall(r"\b([A-Z]\w+)=", command))
        required = {name for name, it in template["Parameters"].items() if "Default" not in it}
        assert required <= given <= template["Parameters"].keys(), command
        makes_roles = any(it["Type"] == "AWS::IAM::Role" for it in template["Resources"].values())
        assert ("--capabilities CAPABILITY_IAM" in command) == makes_roles, command
