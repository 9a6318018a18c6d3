"""README and docs: what can be run of their blocks is run, as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import click
import dagster as dg
import jmespath
import polars as pl
import pyarrow.parquet as pq
import pytest
from botocore import xform_name
from dagster._cli import create_dagster_cli
from pyspark.sql import SparkSession

from fruits_assets.definitions import EmrSettings, Settings, definitions, defs
from fruits_assets.resources.emr import EmrSpark
from fruits_assets.resources.emr.request import cluster_request
from fruits_assets.settings import from_environment
from fruits_assets_tests.conftest import write_image
from fruits_assets_tests.graph import Graph, Materialized
from fruits_assets_tests.test_docs import REPOSITORY, TEXT, named

# Blocks that nobody types: figures, what is printed, a formula, a signature. How benchmarks are called, and
# the configuration of a run, `test_docs.py` checks.
SHOWN = ("168 images", "source_images ", "nodes x hours", "stage(spark", "python benchmarks/", "ops:")
PYTHON = ("import ", "from ")
# In the blocks that answer those whose photos they are: they have tests of their own.
ERASURE = "make erase"
ACCESS = 'UPath("answer")'


@dataclass(frozen=True)
class Block:
    """Lines of a page that are set apart."""

    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{named(self.page)}:{self.line}"


def blocks() -> list[Block]:
    found = []
    for page, text in TEXT.items():
        assert "```" not in text, f"{page}: blocks are set apart by four spaces"
        for match in re.finditer(r"^\n((?: {4}.*\n|\n)*(?: {4}.*\n))", text, re.MULTILINE):
            line = text.count("\n", 0, match.start(1)) + 1
            found.append(Block(page, line, textwrap.dedent(match[1])))
    return found


BLOCKS = blocks()
TYPED = [block for block in BLOCKS if not block.text.startswith(SHOWN)]
OTHERS = [block for block in TYPED if ERASURE not in block.text and ACCESS not in block.text]
PYTHON_BLOCKS = [block for block in OTHERS if block.text.startswith(PYTHON)]
SHELL_BLOCKS = [block for block in OTHERS if block not in PYTHON_BLOCKS]


def the_block(words: str) -> Block:
    (block,) = (block for block in BLOCKS if words in block.text)
    return block


# Python ----------------------------------------------------------------------------------------------


@pytest.fixture
def lake_here(materialized: Materialized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    """The current folder is one that has the lake of the whole graph, and `tests/photos`."""
    graph = materialized.graph
    (tmp_path / "lake").symlink_to(graph.lake_root)
    for color in ("green", "brown"):
        write_image(tmp_path / "tests" / "photos" / "Kiwi" / f"{color}.png", color)
    monkeypatch.chdir(tmp_path)
    return graph


def execute(text: str, **names: Any) -> dict[str, Any]:
    """The names that a block has made."""
    exec(compile(text, "block", "exec"), names)
    return names


@pytest.mark.slow
@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=str)
def test_python_runs(block: Block, spark: SparkSession, lake_here: Graph, tmp_path: Path) -> None:
    made = execute(block.text, tmp_path=tmp_path / "made")
    if "model" in made:
        assert made["model"].pc.numRows == 1280
    if "result" in made:
        assert made["result"].success


# Rights of those whose photos they are ---------------------------------------------------------------


def tables_with(graph: Graph, path: str) -> set[str]:
    """The tables of the lake that have a row of this path, by what its versions know of their files."""
    found = set()
    for asset in graph.lake.places():
        version = graph.lake.current(asset.name)
        tables = {f"{asset.name} _{name}": version.table_of(name) for name in version.tables}
        for name, table in {f"{graph.lake_root.name} {asset.name}": version.table, **tables}.items():
            files = [uri for uri in table.uris if "path" in pq.read_schema(uri).names]
            if any(path in pq.read_table(uri, columns=["path"])["path"].to_pylist() for uri in files):
                found.add(name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", ["Banana/r_0_100.jpg", "Banana/broken.jpg", 'Ödd, "label" = 1/line\nbreak.jpg']
)
def test_the_answer_to_somebody_has_all_that_the_lake_has_of_a_photo(lake_here: Graph, path: str) -> None:
    block = the_block(ACCESS).text
    assert '"Banana/r_0_100.jpg"' in block
    execute(block.replace('"Banana/r_0_100.jpg"', repr(path)))
    files = [file for file in Path("answer").glob("*.ndjson") if file.stat().st_size]
    with_rows = {file.stem for file in files}
    assert with_rows == tables_with(lake_here, path)
    for file in files:
        assert set(pl.read_ndjson(file)["path"]) == {path}, file
    pictures = [file for file in Path("answer").iterdir() if file.suffix != ".ndjson"]
    if "broken" in path:
        assert "raw_images _quarantine" in with_rows
        assert pictures == []
    else:
        assert {"lake raw_images", "lake mobilenet_features", "lake pca_features_csv"} <= with_rows
        (picture,) = pictures
        (row,) = [row for row in lake_here.rows("raw_images").to_pylist() if row["path"] == path]
        assert picture.read_bytes() == row["content"]


@pytest.mark.slow
def test_the_commands_for_an_erasure_erase(materialized: Materialized, tmp_path: Path) -> None:
    graph = materialized.graph.copy(tmp_path)
    graph.source.rename(tmp_path / "photos")
    photo = "Banana/r_0_100.jpg"
    assert photo in graph.rows("pca_features_csv")["path"].to_pylist()
    like_the_repository(tmp_path)
    said = shell(
        the_block(ERASURE).text,
        tmp_path,
        FRUITS_IMAGES=str(tmp_path / "photos"),
        FRUITS_LAKE=str(graph.lake_root),
    )
    assert "mobilenet_features           1 row(s)" in said
    for asset in ("raw_images", "mobilenet_features", "scaled_features", "pca_features_csv"):
        assert photo not in graph.rows(asset)["path"].to_pylist()


def like_the_repository(folder: Path) -> None:
    """What `make` needs in its current folder, with the environment of this test as its own."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (folder / name).symlink_to(REPOSITORY / name)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    write_program(programs / "python", f'exec {sys.executable} "$@"')
    (folder / ".venv" / "run").touch()


# Shell -----------------------------------------------------------------------------------------------


def write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def shell(text: str, folder: Path, **environment: str) -> str:
    """What a block prints, in a shell that ends at its first error."""
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Terminal:
    """A shell in a folder like the repository, whose programs are these alone: each writes down how it was
    called, and does nothing that reaches further than this."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._programs, self._calls = folder, folder / "programs", folder / "calls"
        shutil.copytree(REPOSITORY / "bootstrap", folder / "bootstrap")
        for name in ("constraints.txt", "pyproject.toml", "workspace.yaml"):
            shutil.copy(REPOSITORY / name, folder)
        for name in ("photos", "pip.conf", "run.yaml"):
            (folder / name).touch()
        (folder / ".venv" / "bin").mkdir(parents=True)
        self._programs.mkdir()
        (self._programs / "seq").symlink_to(shutil.which("seq") or "")
        settings = "export FRUITS_IMAGES=s3://bucket/images FRUITS_EMR_BOOTSTRAP_URI=s3://bucket/bootstrap"
        for name, then in {
            "programs/make": f'exec {shutil.which("make")} -n -C {REPOSITORY} "$@"',
            "programs/aws": f'case "$*" in *describe-stacks*) echo "{settings}";; esac',
            "programs/python": "",
            "programs/dagster": "",
            "programs/pip": "",
            ".venv/bin/pip": "",
            "bootstrap/bootstrap-emr.sh": "",
        }.items():
            words = """printf '%s\\0' "${0##*/}" "$@"; printf '\\036'"""
            write_program(folder / name, f"{{ {words}; }} >> {self._calls}\n{then}")

    def type(self, text: str) -> list[list[str]]:
        """Run lines, and give the calls that they made."""
        shell(text, self._folder, PATH=str(self._programs), FRUITS_EMR_BOOTSTRAP_URI="s3://bucket/bootstrap")
        calls = self._calls.read_text(encoding="utf-8").split("\036")[:-1]
        return [call.split("\0")[:-1] for call in calls]


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=str)
def test_shell_commands_are_ones_that_there_are(
    block: Block, terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = terminal.type(block.text)
    assert calls
    monkeypatch.chdir(tmp_path)
    for program, *arguments in calls:
        if program == "aws":
            is_known_to_aws(arguments, tmp_path)
        elif program == "dagster":
            is_known_to_dagster(arguments, monkeypatch)
        else:
            are_there(arguments)


def test_a_bootstrap_action_with_a_pip_conf_is_one_of_a_cluster(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = the_block("FRUITS_EMR_CLUSTER_OVERRIDES").text
    terminal.type(f'{lines}\nprintf %s "$FRUITS_EMR_CLUSTER_OVERRIDES" > overrides.json')
    monkeypatch.setenv("FRUITS_EMR_CLUSTER_OVERRIDES", (tmp_path / "overrides.json").read_text())
    request = cluster_request(EmrSpark(**from_environment(EmrSettings).model_dump()))
    (action,) = request["BootstrapActions"]
    files = ["requirements-emr.txt", "pip.conf"]
    assert action["ScriptBootstrapAction"] == {
        "Path": "s3://bucket/bootstrap/bootstrap-emr.sh",
        "Args": [f"s3://bucket/bootstrap/{name}" for name in files],
    }


def test_a_bucket_is_erased_with_all_its_versions(s3: str, tmp_path: Path) -> None:
    client = boto3.client("s3")
    client.create_bucket(Bucket="BUCKET", CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
    client.put_bucket_versioning(Bucket="BUCKET", VersioningConfiguration={"Status": "Enabled"})
    for key in ("overwritten", "overwritten", "deleted"):
        client.put_object(Bucket="BUCKET", Key=key, Body=b"photo")
    client.delete_object(Bucket="BUCKET", Key="deleted")
    (line,) = re.findall(r"^python -c .*", the_block("object_versions").text, re.MULTILINE)
    shell(line.replace("python", sys.executable, 1), tmp_path)
    client.delete_bucket(Bucket="BUCKET")  # which S3 does to an empty one only


def is_known_to_aws(arguments: list[str], folder: Path) -> None:
    """By botocore's models of the services, which the AWS command line is made from."""
    service, operation, *rest = arguments
    options, values, options_seen = [], [], dict[str, list[str]]()
    for word in rest:
        if word.startswith("--"):
            options.append(word)
            options_seen[word] = []
        elif options:
            options_seen[options[-1]].append(word)
        else:
            values.append(word)
    for name in ("--query", "--output", "--region"):
        for value in options_seen.pop(name, []):
            if name == "--query":
                jmespath.compile(value)
    # These two are of the command line's own making.
    if service == "s3":
        assert operation in ("sync", "cp")
        source, target = values
        assert (folder / source).exists()
        assert target.startswith("s3://bucket/")
        assert not options_seen
    elif (service, operation) == ("cloudformation", "deploy"):
        # `bootstrap/test_stack.py` compares the parameters with those of the template.
        assert options_seen.keys() <= {
            "--stack-name",
            "--template-file",
            "--capabilities",
            "--parameter-overrides",
        }
        assert (folder / options_seen["--template-file"][0]).exists()
    else:
        model = botocore.session.get_session().get_service_model(service.removesuffix("api"))
        names = {dashed(name): name for name in model.operation_names}
        members = model.operation_model(names[operation]).input_shape
        assert options_seen.keys() <= {f"--{dashed(name)}" for name in members.members}
        assert {f"--{dashed(name)}" for name in members.required_members} <= options_seen.keys()


def dashed(name: str) -> str:
    return str(xform_name(name, "-"))


def is_known_to_dagster(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed by its own command line, and what it would run is there."""
    command: click.Command = create_dagster_cli()  # type: ignore[no-untyped-call]
    names = list(arguments)
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), names.pop(0))
        assert found is not None, arguments
        command = found
    given = command.make_context(arguments[-1], names).params
    if selection := given.get("select"):
        assert dg.AssetSelection.from_string(selection).resolve(defs.resolve_asset_graph())
    if job := given.get("job_name"):
        for name, value in {
            "FRUITS_SPARK": "emr",
            "FRUITS_EMR_REAL_COST": "true",
            "FRUITS_EMR_TAGS": "Project=fruits-assets",
        }.items():
            monkeypatch.setenv(name, value)
        everything = definitions(Settings(images="s3://bucket/images", lake="s3://bucket/lake"))
        assert everything.resolve_job_def(job).name == job


def are_there(arguments: list[str]) -> None:
    """The files of the repository, and the extra of the package, among the arguments of any other program."""
    for argument in arguments:
        file = argument.rpartition("=")[2]
        if re.match(r"(fruits_assets|bootstrap)/|constraints", file):
            assert (REPOSITORY / file).exists(), argument
        if extra := re.fullmatch(r"\.\[(\w+)\]", argument):
            project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            assert extra[1] in project["optional-dependencies"]
