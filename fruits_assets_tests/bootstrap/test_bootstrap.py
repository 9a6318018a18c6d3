"""The bootstrap action, run for real with tiny packages, and what the infrastructure template promises."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pip
import pytest
import yaml

BOOTSTRAP = Path(__file__).parents[2] / "bootstrap"
SCRIPT = BOOTSTRAP / "bootstrap-emr.sh"
REQUIREMENTS = BOOTSTRAP / "requirements-emr.txt"
TEMPLATE = BOOTSTRAP / "emr-stack.yaml"


def run_tool(*command: str | Path) -> str:
    """What a linter says, nothing when all is well."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.stdout + done.stderr


# ---- Requirements ----


def pinned() -> dict[str, str]:
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_requirements_are_names_with_exact_versions() -> None:
    for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"(#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.]+)?", line), line


def test_cluster_gets_what_stages_import_and_nothing_heavy() -> None:
    names = set(pinned())
    assert names >= {"ai-edge-litert", "boto3", "dagster-pipes", "fsspec", "numpy", "pandas", "pi-heif", "pillow"}
    assert names >= {"pyarrow", "s3fs"}
    assert not names & {"tensorflow", "dagster", "dagster-aws", "dagster-pyspark", "pyspark"}
    assert int(pinned()["pandas"].split(".")[0]) < 3


def test_cluster_and_driver_have_the_same_versions() -> None:
    constraints = (BOOTSTRAP.parent / "constraints.txt").read_text(encoding="utf-8").split()
    assert {f"{name}=={version}" for name, version in pinned().items()} <= set(constraints)


# ---- Bootstrap action ----


def wheel(folder: Path, name: str, code: str) -> None:
    """A package of one module, as small as pip accepts it."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)


@dataclass(frozen=True)
class Node:
    """A pretended EMR node: `sudo`, `dnf` and `aws` note their calls; S3 and package index are folders."""

    folder: Path

    def bootstrap(self, *arguments: str, python: str = "python") -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "FRUITS_PYTHON": python,
            "FRUITS_VENV": str(self.venv),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.folder / "index"),
        }
        return subprocess.run(
            [SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    def upload(self, *requirements: str) -> str:
        (self.folder / "s3" / "requirements.txt").write_text("\n".join(("# direct", *requirements, "")))
        return "s3://bucket/bootstrap/requirements.txt"

    @property
    def venv(self) -> Path:
        return self.folder / "opt" / "fruits" / "venv"

    @property
    def calls(self) -> str:
        noted = self.folder / "calls"
        return noted.read_text(encoding="utf-8") if noted.exists() else ""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    pip_folder = Path(pip.__file__).parent
    for name in ("bin", "s3", "index"):
        (tmp_path / name).mkdir()
    stand_ins = {
        "sudo": '"$@"',
        "dnf": "exit 1",
        "aws": f'cp "{tmp_path}/s3/$(basename "$4")" "$5"',
        # The running Python, which lends a new environment its pip: installing one takes seconds each time.
        "python": f"""
            [ "$2" = venv ] || exec "{sys.executable}" "$@"
            "{sys.executable}" "$@" --without-pip || exit
            ln -s "{pip_folder}" -t "$4"/lib/python*/site-packages""",
    }
    for name, body in stand_ins.items():
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/calls"\n{body}\n')
        program.chmod(0o755)
    wheel(tmp_path / "index", "sound", "")
    wheel(tmp_path / "index", "broken", "raise ImportError('libGL.so.1: cannot open shared object file')")
    return Node(tmp_path)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say() -> None:
    assert run_tool("shellcheck", SCRIPT) == ""


def test_node_gets_a_venv_once_and_again_only_for_other_requirements(node: Node) -> None:
    uri = node.upload("sound==1.0")
    first = node.bootstrap(uri)
    assert first.returncode == 0, first.stderr
    assert "sound 1.0" in first.stderr
    assert f"aws s3 cp --only-show-errors {uri}" in node.calls
    assert (node.venv.stat().st_mode & 0o055) == 0o055, "executors run as another user"
    # OpenBLAS was asked for and is not there, which does no harm.
    assert "dnf install -y -q openblas" in node.calls
    assert "no OpenBLAS" in first.stderr

    (node.venv / "untouched").touch()
    second = node.bootstrap(uri)
    assert second.returncode == 0, second.stderr
    assert "already has" in second.stderr
    assert (node.venv / "untouched").exists()

    node.upload("sound==1.0", "broken==1.0")
    third = node.bootstrap(uri)
    assert third.returncode != 0
    assert "broken cannot be imported: ImportError: libGL.so.1" in third.stderr
    assert not (node.venv / "untouched").exists()
    # What failed must not pass for done the next time.
    assert not (node.venv / ".requirements.sha256").exists()


def test_package_that_does_not_exist_is_named(node: Node) -> None:
    local = node.folder / "requirements.txt"
    local.write_text("absent==1.0\n")
    done = node.bootstrap(str(local))
    assert done.returncode != 0
    assert "absent==1.0" in done.stderr
    assert f"FAILED: pip cannot install {local}" in done.stderr
    assert "aws" not in node.calls


def test_missing_python_is_installed_or_named(node: Node) -> None:
    done = node.bootstrap(node.upload("sound==1.0"), python="python3.999")
    assert done.returncode != 0
    assert "dnf install -y -q python3.999" in node.calls
    assert "FAILED: cannot install python3.999 with dnf" in done.stderr
    assert "NAT" in done.stderr


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("s3://bucket/bootstrap/other.txt", "cannot read s3://bucket/bootstrap/other.txt: upload it"),
        ("/nowhere/requirements.txt", "cannot read the requirements file '/nowhere/requirements.txt'"),
    ],
)
def test_missing_requirements_are_named(node: Node, argument: str, message: str) -> None:
    done = node.bootstrap(argument)
    assert done.returncode != 0
    assert f"FAILED: {message}" in done.stderr


def test_missing_argument_is_named(node: Node) -> None:
    done = node.bootstrap()
    assert done.returncode != 0
    assert "expected one argument" in done.stderr


def test_every_line_of_the_log_has_its_time(node: Node) -> None:
    done = node.bootstrap("/nowhere/requirements.txt")
    lines = [line for line in done.stderr.splitlines() if "bootstrap-emr:" in line]
    assert lines
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ bootstrap-emr: ", line) for line in lines)


# ---- Infrastructure template ----

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


@pytest.fixture(scope="module")
def template() -> Json:
    loaded: Json = yaml.load(TEMPLATE.read_text(encoding="utf-8"), Loader=CloudFormationLoader)
    return loaded


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


def test_cfn_lint_has_nothing_to_say() -> None:
    cfn_lint = Path(sys.executable).with_name("cfn-lint")
    if not cfn_lint.exists():
        pytest.skip("cfn-lint is not installed")
    assert run_tool(cfn_lint, "--regions", "eu-west-3", "--template", TEMPLATE) == ""


def test_regions_outside_the_union_are_refused_by_default(template: Json) -> None:
    rule = template["Rules"]["DataStaysInTheEu"]
    regions, region = rule["Assertions"][0]["Assert"]["Fn::Contains"]
    assert region == {"Ref": "AWS::Region"}
    assert "eu-west-3" in regions
    # In Europe, and outside the Union.
    assert not {"eu-west-2", "eu-central-2"} & set(regions)
    assert all(name.startswith("eu-") for name in regions)
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
        assert template["Resources"][name]["DeletionPolicy"] == "Retain"
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


def test_disks_and_tables_of_a_cluster_are_encrypted(template: Json) -> None:
    configuration = properties(template, "SecurityConfiguration")["SecurityConfiguration"]
    encryption = configuration["EncryptionConfiguration"]
    assert encryption["EnableAtRestEncryption"] is True
    at_rest = encryption["AtRestEncryptionConfiguration"]
    assert at_rest["S3EncryptionConfiguration"]["EncryptionMode"] == "SSE-KMS"
    assert at_rest["LocalDiskEncryptionConfiguration"]["EnableEbsEncryption"] is True
    assert configuration["InstanceMetadataServiceConfiguration"]["MinimumInstanceMetadataServiceVersion"] == 2


def test_budget_writes_to_somebody(template: Json) -> None:
    budget = properties(template, "Budget")
    assert budget["Budget"]["TimeUnit"] == "MONTHLY"
    kinds = {it["Notification"]["NotificationType"] for it in budget["NotificationsWithSubscribers"]}
    assert kinds == {"ACTUAL", "FORECASTED"}
    for notification in budget["NotificationsWithSubscribers"]:
        assert notification["Subscribers"] == [
            {"SubscriptionType": "EMAIL", "Address": {"Ref": "AlertEmail"}}
        ]


def test_whatever_can_carry_tags_says_whose_it_is(template: Json) -> None:
    untaggable = {
        "AWS::EC2::SecurityGroupIngress",
        "AWS::EMR::SecurityConfiguration",
        "AWS::IAM::InstanceProfile",
        "AWS::S3::BucketPolicy",
    }
    for name, resource in template["Resources"].items():
        if resource["Type"] not in untaggable:
            tags = resource["Properties"].get("Tags") or resource["Properties"].get("ResourceTags") or []
            assert {"Project", "DataClassification"} <= {tag["Key"] for tag in tags}, name


def test_settings_name_what_the_stack_made(template: Json) -> None:
    settings = template["Outputs"]["Settings"]["Value"]["Sub"]
    named = set(re.findall(r"\$\{([A-Za-z]+)\}", settings))
    assert named <= template["Resources"].keys() | template["Parameters"].keys()
    assert {"Bucket", "ServiceRole", "InstanceProfile", "SecurityConfiguration", "SubnetId"} <= named
    assert all(re.fullmatch(r"export [A-Z0-9_]+=\S+", line) for line in settings.splitlines())
    # The managed policy of EMR's role lets it start nothing that lacks this tag.
    assert "for-use-with-amazon-emr-managed-policies=true" in settings
