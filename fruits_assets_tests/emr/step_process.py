"""A step's own command line, run as a node would run it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from fruits_assets_tests.emr.cluster_environment import ClusterEnvironment

_PROJECT = Path(__file__).parents[2]
NODE_PYTHON = "/opt/fruits/venv/bin/python"
_GRACE_S = 5.0
_VIEW_FILE_SYSTEM = "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme"
_NAME_OF_SPARK = """\
class SparkSession:
    class builder:
        def getOrCreate():
            return SparkSession()

    def stop(self):
        pass
"""
_HIDE = """\
import importlib.machinery

hidden = {hidden!r}
find_spec = importlib.machinery.PathFinder.find_spec


def find_spec_unless_hidden(name, path=None, target=None):
    return None if name.partition(".")[0] in hidden else find_spec(name, path, target)


importlib.machinery.PathFinder.find_spec = find_spec_unless_hidden
"""


class Node:
    """A cluster's primary node: its Spark, its configuration files and its environment variables."""

    def __init__(
        self, environment: ClusterEnvironment, folder: Path, buckets: Path, variables: Mapping[str, str]
    ) -> None:
        """`buckets` has a folder for every bucket; `variables` are added to the steps' environment."""
        self._environment = environment
        self._folder = folder
        self._buckets = buckets
        self._variables = dict(variables)
        self.hidden: set[str] = set()
        self.has_python = True
        self.has_spark = True
        (folder / "tmp").mkdir(parents=True)

    def command(self, args: Sequence[str]) -> list[str]:
        """What command-runner would start, on this machine's Spark and Python.

        Only the master and the path of Python differ from the step's own arguments; those that come first
        are defaults, which the step's own override.
        """
        python = str(self._environment.python) if self.has_python else NODE_PYTHON
        program, *rest = [arg.replace(NODE_PYTHON, python) for arg in args]
        if program != "spark-submit":
            return [program, *rest]
        if not self.has_spark:
            script = next(number for number, arg in enumerate(rest) if arg.endswith(".py"))
            return [python, str(self._local(rest[script])), *rest[script + 1 :]]
        spark_submit = str(self._environment.spark_submit)
        defaults = ["--properties-file", str(self._defaults), "--master", "local[2]", "--driver-memory", "1g"]
        return [spark_submit, *defaults, *_without_master(rest)]

    def start(self, args: Sequence[str], step_id: str) -> StepProcess:
        """Start a step's command in an empty folder of its own."""
        self._write_defaults()
        variables = self._variables_of_step()
        if not self.has_spark:
            zips = [str(self._local(arg)) for arg in args if arg.endswith(".zip")]
            hiding = [variables["PYTHONPATH"]] if self.hidden else []
            paths = [*hiding, *zips, str(self._write_name_of_spark()), str(_PROJECT)]
            variables["PYTHONPATH"] = os.pathsep.join(paths)
        return StepProcess(self.command(args), variables, self._folder / "steps" / step_id)

    def _local(self, uri: str) -> Path:
        return self._buckets / uri.removeprefix("s3://")

    def _write_name_of_spark(self) -> Path:
        folder = self._folder / "name of spark"
        (folder / "pyspark").mkdir(parents=True, exist_ok=True)
        (folder / "pyspark" / "__init__.py").touch()
        (folder / "pyspark" / "sql.py").write_text(_NAME_OF_SPARK, encoding="utf-8")
        return folder

    def _variables_of_step(self) -> dict[str, str]:
        variables = {
            **self._environment.variables,
            "TMPDIR": str(self._folder / "tmp"),
            **self._variables,
        }
        if self.hidden:
            variables["PYTHONPATH"] = str(self._write_hiding_site())
        return variables

    def _write_hiding_site(self) -> Path:
        folder = self._folder / "hidden" / "-".join(sorted(self.hidden))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sitecustomize.py").write_text(_HIDE.format(hidden=sorted(self.hidden)), encoding="utf-8")
        return folder

    @property
    def _defaults(self) -> Path:
        return self._folder / "spark-defaults.conf"

    def _write_defaults(self) -> None:
        """With every bucket's folder mounted as s3://, so that spark-submit itself can fetch the script."""
        temporary = self._folder / "tmp"
        properties = {
            "spark.driver.extraJavaOptions": (
                f"{self._environment.java_options()} -Djava.io.tmpdir={temporary}"
            ),
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.local.dir": str(temporary),
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.hadoop.fs.s3.impl": _VIEW_FILE_SYSTEM,
        }
        for bucket in sorted(self._buckets.iterdir()):
            properties[f"spark.hadoop.fs.viewfs.mounttable.{bucket.name}.linkFallback"] = bucket.as_uri()
        unfinished = self._defaults.with_suffix(".new")
        lines = "".join(f"{name} {value}\n" for name, value in properties.items())
        unfinished.write_text(lines, encoding="utf-8")
        os.replace(unfinished, self._defaults)


class StepProcess:
    """A step's command and all that it started: a session of its own, so that nothing can outlive it."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], folder: Path) -> None:
        self.command = list(command)
        self.stdout, self.stderr = folder / "stdout", folder / "stderr"
        self._kill_at_s: float | None = None
        (folder / "home").mkdir(parents=True)
        with self.stdout.open("wb") as stdout, self.stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                self.command,
                cwd=folder / "home",
                env={**variables, "HOME": str(folder / "home")},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the command, and of its session."""
        return self._process.pid

    def stop(self) -> None:
        """Ask it to end; if it has not after a few seconds, `poll` ends it."""
        if self._kill_at_s is None:
            self._kill_at_s = time.monotonic() + _GRACE_S
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def poll(self) -> int | None:
        """The exit status once it has ended; then nothing it started is left."""
        status = self._process.poll()
        if status is not None:
            # Spark's Python workers may take a moment longer to notice that the JVM is gone.
            self._signal(signal.SIGKILL)
        elif self._kill_at_s is not None and time.monotonic() > self._kill_at_s:
            self._signal(signal.SIGKILL)
        return status

    def _signal(self, number: signal.Signals) -> None:
        # Not the process group: Spark's workers make one of their own.
        for pid in psutil.pids():
            try:
                if os.getsid(pid) == self.pid:
                    os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue


def _without_master(args: Sequence[str]) -> list[str]:
    kept: list[str] = []
    rest = iter(args)
    for arg in rest:
        if arg == "--master":
            next(rest, None)
        elif not arg.startswith("--master="):
            kept.append(arg)
    return kept
