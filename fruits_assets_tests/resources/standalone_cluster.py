"""A Spark cluster of several processes on this machine, of which one can die like a machine that fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyspark

from fruits_assets.resources.jvm import ARCHIVE

_SPARK_HOME = Path(pyspark.__file__).parent
# Of a JVM that is quick to start: no optimising compiler, and the classes as they are in memory.
QUICK_START = ["-XX:TieredStopAtLevel=1", f"-XX:SharedArchiveFile={ARCHIVE}"]
# Few threads, little to do. The class path is that of a driver, for which the archive was made.
_JAVA = [
    *("java", *QUICK_START, "-XX:+UseSerialGC", "-Xmx256m", "-Dspark.master.rest.enabled=false"),
    *("-cp", f"{next(_SPARK_HOME.glob('jars/slf4j-api-*.jar'))}:{_SPARK_HOME}/jars/*"),
]
# What Spark's start scripts would set, at the price of another JVM for each daemon.
_SCALA = next(_SPARK_HOME.glob("jars/spark-core_*.jar")).name.split("_")[1].split("-")[0]
_START_S = 240


@dataclass
class Worker:
    """A Worker daemon, which starts an executor for each application."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    @property
    def executors(self) -> set[str]:
        """The ids of those it has ever started."""
        return {folder.name for folder in self.folder.glob("work/app-*/*")}

    def crash(self) -> None:
        """What a power cut does: daemon, executor and its Python are gone at once, and the disk with them."""
        _kill_with_descendants(self.process)
        shutil.rmtree(self.folder / "local")


@dataclass
class StandaloneCluster:
    """A Master and its workers, one core each."""

    port: int
    page_port: int
    workers: list[Worker]

    @property
    def master(self) -> str:
        """As FRUITS_SPARK_MASTER wants it."""
        return f"spark://127.0.0.1:{self.port}"

    def states(self) -> dict[int, str]:
        """ALIVE or DEAD, by the port of the worker, as the master sees it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.page_port}/json/", timeout=30) as page:
            workers: list[dict[str, Any]] = json.load(page)["workers"]
        return {worker["port"]: worker["state"] for worker in workers}


@contextmanager
def standalone_cluster(folder: Path, n_workers: int) -> Iterator[StandaloneCluster]:
    """Start a cluster whose workers have registered; whatever happens, none of its processes survives."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        home = folder / name
        home.mkdir(parents=True)
        with (home / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                [*_JAVA, *arguments],
                env={
                    **os.environ,
                    "SPARK_HOME": str(_SPARK_HOME),
                    "SPARK_SCALA_VERSION": _SCALA,
                    "SPARK_LOCAL_IP": "127.0.0.1",
                    "SPARK_LOCAL_DIRS": str(home / "local"),
                },
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        processes.append(process)
        return process

    try:
        port, page_port, *worker_ports = _free_ports(2 + n_workers)
        address = ("--host", "127.0.0.1", "--port")
        start(
            "master",
            "org.apache.spark.deploy.master.Master",
            *(*address, str(port), "--webui-port", str(page_port)),
        )
        cluster = StandaloneCluster(port, page_port, [])
        for i, worker_port in enumerate(worker_ports):
            daemon = start(
                f"worker_{i}",
                "org.apache.spark.deploy.worker.Worker",
                *(*address, str(worker_port), "--webui-port", "0", "--cores", "1", "--memory", "1g"),
                *("--work-dir", str(folder / f"worker_{i}" / "work"), cluster.master),
            )
            cluster.workers.append(Worker(daemon, worker_port, folder / f"worker_{i}"))

        def all_registered() -> bool:
            for process in processes:
                assert process.poll() is None, f"a daemon ended by itself: see {folder}/*/log.txt"
            try:
                return list(cluster.states().values()) == ["ALIVE"] * n_workers
            except (
                OSError,
                json.JSONDecodeError,
            ):  # until all is there, the master answers any path by a page
                return False

        wait_until(all_registered, _START_S)
        yield cluster
    finally:
        for process in processes:
            _kill_with_descendants(process)


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Look until it holds.

    Raises:
        TimeoutError: it did not in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{condition.__qualname__} did not hold within {timeout_s} s")
        time.sleep(0.05)


def _free_ports(n: int) -> list[int]:
    # All open at once, or the same port could come twice.
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def _kill_with_descendants(process: subprocess.Popen[bytes]) -> None:
    # PySpark's daemon leaves the process group of its executor.
    if process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
        for member in family:
            # It may end by itself at any moment, its executor being gone.
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
        psutil.wait_procs(family, timeout=30)
