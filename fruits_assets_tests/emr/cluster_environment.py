"""A node's Python and Spark: what the real bootstrap action makes, and Spark as EMR brings it."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fruits_assets_tests.one_at_a_time import one_at_a_time

PYSPARK = "pyspark==3.5.6"
"""The Spark of EMR 7.13."""

_PROJECT = Path(__file__).parents[2]
_BOOTSTRAP = _PROJECT / "bootstrap" / "bootstrap-emr.sh"
_REQUIREMENTS = _PROJECT / "bootstrap" / "requirements-emr.txt"
_FOLDER_VARIABLE = "FRUITS_EMR_TEST_VENV"
_READY = "ready"
_IS_JAVA_17 = re.compile(r'^JAVA_VERSION="17\b', re.MULTILINE)
_USE_SPARK = """\
from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
spark.sparkContext.parallelize(range(4), 4).map(str).collect()
spark.stop()
"""


class ClusterEnvironmentError(RuntimeError):
    """The cluster's Python cannot be made here; the message says what is missing."""


class NoPython311Error(ClusterEnvironmentError):
    """This machine lacks the Python of a cluster; its own may be newer."""


@dataclass(frozen=True)
class ClusterEnvironment:
    """A virtual environment with the cluster's packages and with Spark."""

    venv: Path

    @property
    def python(self) -> Path:
        """What stands at /opt/fruits/venv/bin/python on a node."""
        return self.venv / "bin" / "python"

    @property
    def spark_submit(self) -> Path:
        """The command that EMR's command-runner starts."""
        return self.venv / "bin" / "spark-submit"

    @property
    def spark_home(self) -> Path:
        """What SPARK_HOME is on a node: the command would look for it in any other `python3` first."""
        return next(self.venv.glob("lib/python3.*/site-packages/pyspark"))

    @property
    def variables(self) -> dict[str, str]:
        """Of a node's environment."""
        return {
            "PATH": os.defpath,
            "LC_ALL": "C.UTF-8",
            "JAVA_HOME": str(java_home()),
            "SPARK_HOME": str(self.spark_home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            # Empty: it is on the class path, and what is in an archive of classes must not be in a folder.
            "SPARK_CONF_DIR": str(self.venv / "conf"),
        }

    def java_options(self, archiving: str = "SharedArchiveFile") -> str:
        """Of a JVM that is over before the optimising compiler, or to load classes, has paid for itself."""
        return f'-XX:TieredStopAtLevel=1 "-XX:{archiving}={self.venv}/spark.jsa"'


def cluster_environment() -> ClusterEnvironment:
    """The environment for today's requirements, made on first use: minutes, and about 1 GB.

    Raises:
        NoPython311Error: there is none.
        ClusterEnvironmentError: something could not be installed.
    """
    parent = Path(os.environ.get(_FOLDER_VARIABLE) or _PROJECT / ".venv" / "emr").absolute()
    folder = parent / _key()[:16]
    parent.mkdir(parents=True, exist_ok=True)
    # Two test runs that start at once must not install into one folder.
    with one_at_a_time(parent / "lock"):
        if not (folder / _READY).exists():
            _make(folder)
    return ClusterEnvironment(folder / "venv")


def _key() -> str:
    # Of what is installed, and of how: both Spark and its archive are told here.
    return hashlib.sha256(_REQUIREMENTS.read_bytes() + Path(__file__).read_bytes()).hexdigest()


def _make(folder: Path) -> None:
    python = _python_3_11()
    print(f"Making the cluster's Python in {folder}: minutes, once.", file=sys.__stderr__, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    venv = folder / "venv"
    _run(
        ["bash", str(_BOOTSTRAP), str(_REQUIREMENTS)],
        {
            "FRUITS_PYTHON": python,
            "FRUITS_VENV": str(venv),
            # Modules are compiled when they are first imported, which is a small part of them.
            "PIP_NO_COMPILE": "1",
            "PATH": f"{_refuse_sudo(folder / 'bin')}:{os.environ.get('PATH', os.defpath)}",
        },
    )
    # Spark comes as sources, of which pip makes a wheel that nobody needs compressed.
    stored = folder / "distutils.cfg"
    stored.write_text("[bdist_wheel]\ncompression = stored\n", encoding="utf-8")
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(
        [*pip, "--constraint", str(_REQUIREMENTS), PYSPARK],
        {"PIP_NO_COMPILE": "1", "DIST_EXTRA_CONFIG": str(stored)},
    )
    _unzip_pyspark(venv)
    _archive_classes(ClusterEnvironment(venv))
    (folder / _READY).touch()


def _unzip_pyspark(venv: Path) -> None:
    """Point Spark's zip of PySpark to what is installed.

    Python keeps nothing compiled of what is in a zip: every process of a step would compile it anew.
    """
    for archive in venv.glob("lib/python*/site-packages/pyspark/python/lib/*.zip"):
        archive.unlink()
        archive.symlink_to(archive.parents[3])


def _archive_classes(environment: ClusterEnvironment) -> None:
    """Have a JVM do what those of steps do, and keep what it has loaded as it is in memory."""
    (environment.venv / "conf").mkdir(parents=True)
    script = environment.venv / "use_spark.py"
    script.write_text(_USE_SPARK, encoding="utf-8")
    options = f"spark.driver.extraJavaOptions={environment.java_options('ArchiveClassesAtExit')}"
    _run(
        [str(environment.spark_submit), "--master", "local[2]", "--conf", options, str(script)],
        environment.variables,
    )


@functools.cache
def java_home() -> Path:
    """The folder of a Java 17: on JAVA_HOME or PATH, or installed beside one that is.

    Raises:
        ClusterEnvironmentError: there is none.
    """
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    if java := shutil.which("java"):
        homes.append(Path(java).resolve().parents[1])
    beside = [sibling for home in homes for sibling in sorted(home.parent.iterdir())]
    for home in (*homes, *beside):
        with suppress(OSError):
            if _IS_JAVA_17.search((home / "release").read_text(encoding="utf-8")):
                return home
    raise ClusterEnvironmentError(
        f"A cluster has Java 17; here is {', '.join(map(str, homes)) or 'none'}. "
        "Install it, or set JAVA_HOME."
    )


def _refuse_sudo(folder: Path) -> Path:
    """A folder for PATH: the script, which owns its node, must not install anything on this machine."""
    folder.mkdir()
    (folder / "sudo").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    (folder / "sudo").chmod(0o755)
    return folder


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        raise ClusterEnvironmentError(
            f"'{' '.join(command)}' ended with {done.returncode}:\n{done.stdout[-4000:]}"
        )


def _python_3_11() -> str:
    """Either this one or one on PATH that really starts, which a version manager's need not."""
    on_path = [
        str(Path(folder) / "python3.11") for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)
    ]
    check = "import ensurepip, sys; sys.exit(sys.version_info[:2] != (3, 11))"
    for python in [sys.executable, *on_path]:
        if shutil.which(python) and not subprocess.run([python, "-c", check], capture_output=True).returncode:
            return python
    raise NoPython311Error(
        "The tests of Amazon EMR need Python 3.11 with venv, as a cluster has it: install python3.11 "
        "(and python3.11-venv) so that it is on PATH."
    )


if __name__ == "__main__":
    with suppress(ClusterEnvironmentError):  # who needs it tries again, and tells
        cluster_environment()
