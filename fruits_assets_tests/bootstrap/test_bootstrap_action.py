"""The bootstrap action, run for real with tiny packages."""

from __future__ import annotations

import base64
import functools
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pip
import pytest

pytestmark = pytest.mark.slow

BOOTSTRAP = Path(__file__).parents[2] / "bootstrap"
SCRIPT = BOOTSTRAP / "bootstrap-emr.sh"
REQUIREMENTS = BOOTSTRAP / "requirements-emr.txt"


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
    # No index but this folder, whatever else is configured. Not so where a test brings an index of its own.
    offline: bool = True

    def bootstrap(self, *arguments: str, python: str = "python") -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "FRUITS_PYTHON": python,
            "FRUITS_VENV": str(self.venv),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_RETRIES": "0",
        }
        for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PYTHONPATH"):
            environment.pop(name, None)
        if self.offline:
            environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.folder / "index")}
        return subprocess.run(
            [SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    def upload(self, *requirements: str) -> str:
        return self.upload_file("requirements.txt", "# direct", *requirements)

    def upload_file(self, name: str, *lines: str) -> str:
        (self.folder / "s3" / name).write_text("\n".join((*lines, "")))
        return f"s3://bucket/bootstrap/{name}"

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
    done = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout + done.stderr == ""


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
        ("/nowhere/requirements.txt", "cannot read the file '/nowhere/requirements.txt'"),
    ],
)
def test_missing_requirements_are_named(node: Node, argument: str, message: str) -> None:
    done = node.bootstrap(argument)
    assert done.returncode != 0
    assert f"FAILED: {message}" in done.stderr


def test_missing_argument_is_named(node: Node) -> None:
    done = node.bootstrap()
    assert done.returncode != 0
    assert "expected one or two arguments" in done.stderr


PASSWORD = "not-for-logs"


class PrivateIndex(SimpleHTTPRequestHandler):
    """A package index that gives nothing to whoever does not know the password."""

    def do_GET(self) -> None:
        token = base64.b64encode(f"reader:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") == f"Basic {token}":
            super().do_GET()
        else:
            self.send_error(401)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@contextmanager
def private_index(folder: Path) -> Iterator[str]:
    """Serve `folder`/simple, and give the index' host and port."""
    handler = functools.partial(PrivateIndex, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_packages_come_from_an_index_whose_password_is_in_no_argument_and_no_log(node: Node) -> None:
    (node.folder / "simple" / "only-here").mkdir(parents=True)
    wheel(node.folder / "simple" / "only-here", "only_here", "")
    node = replace(node, offline=False)
    uri = node.upload("only-here==1.0")
    with private_index(node.folder) as host:
        pip_conf = node.upload_file("pip.conf", "[global]", f"index-url = http://reader:{PASSWORD}@{host}/simple")
        done = node.bootstrap(uri, pip_conf)
        assert done.returncode == 0, done.stderr
        assert "only-here 1.0" in done.stderr
        assert f"aws s3 cp --only-show-errors {pip_conf}" in node.calls

        wrong = node.upload_file("pip.conf", "[global]", f"index-url = http://reader:{PASSWORD}x@{host}/simple")
        (node.venv / ".requirements.sha256").unlink()
        failed = node.bootstrap(uri, wrong)
        assert failed.returncode != 0
        assert "FAILED: pip cannot install" in failed.stderr
    for said in (done.stdout, done.stderr, failed.stdout, failed.stderr, node.calls):
        assert PASSWORD not in said


def test_every_line_of_the_log_has_its_time(node: Node) -> None:
    done = node.bootstrap("/nowhere/requirements.txt")
    lines = [line for line in done.stderr.splitlines() if "bootstrap-emr:" in line]
    assert lines
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ bootstrap-emr: ", line) for line in lines)
