"""What the tests share: one Spark, one converted network, one pretended S3, and a way to write images."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import moto.backends
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image
from pyspark.sql import SparkSession

from fruits_assets.mobilenet.conversion_cache import cache_folder, converted
from fruits_assets.mobilenet.convert import ConversionReport
from fruits_assets.mobilenet.weights import FLOAT32, identity
from fruits_assets.resources.spark import LocalSpark
from fruits_assets_tests.emr.cluster_environment import (
    ClusterEnvironment,
    NoPython311Error,
    cluster_environment,
)
from fruits_assets_tests.graph import Materialized, materialized_once
from fruits_assets_tests.one_at_a_time import one_at_a_time

pytest_plugins = ["fruits_assets_tests.progress_lines"]

# It looks through its folders at each request.
moto.backends.list_of_moto_modules = functools.partial(frozenset, moto.backends.list_of_moto_modules())
_MADE_ONCE = {"materialized", "keras"}
# For clusters, minutes long, with little to compute.
_WAIT_LONGEST = ("emr/test_emr_spark.py", "emr/test_runs.py")
_GARBAGE_AFTER = 20_000  # objects, not 700
_MAKING = pytest.StashKey[subprocess.Popen[bytes]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where all tests are divided among processes: begin with what would keep all of these waiting."""
    options = session.config.option
    if getattr(options, "numprocesses", None) and not options.markexpr:
        session.stash[_MAKING] = subprocess.Popen(
            [sys.executable, "-m", "fruits_assets_tests.emr.cluster_environment"],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave no process behind."""
    if making := session.stash.get(_MAKING, None):
        with suppress(ProcessLookupError):
            os.killpg(making.pid, signal.SIGKILL)
        making.wait()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a whole graph is slow, wherever it stands; and files come in the order in which none waits.

    Where several processes divide them, those that wait longest come first, while others compute; one file
    begins with each thing that is made once and that all others would wait for; then come the others that
    need it, then all slow ones. Those of one folder, which wait for the same, are apart. The short ones at
    the end keep all processes busy to the last.
    """
    begins: dict[str, Path] = {}
    needs_what_is_made_once = set()
    for item in items:
        if isinstance(item, pytest.Function):
            for made in _MADE_ONCE.intersection(item.fixturenames):
                begins.setdefault(made, item.path)
                needs_what_is_made_once.add(item.path)
            if "materialized" in item.fixturenames:
                item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(
        key=lambda item: (
            not item.path.as_posix().endswith(_WAIT_LONGEST),
            item.path not in begins.values(),
            item.path not in slow,
            item.path not in needs_what_is_made_once,
            item.path.name,
        )
    )


def pytest_collection_finish() -> None:
    """What has been imported and collected stays: to look for garbage in there takes a twentieth of all."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_AFTER)


Color = tuple[int, ...] | int | str


def write_image(
    path: Path, color: Color, size: tuple[int, int] = (20, 20), mode: str = "RGB", **save_options: Any
) -> Path:
    """Write an image of one colour, making its folders; the suffix says the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **save_options)
    return path


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The endpoint of an empty S3 that boto3, s3fs and Spark's workers all talk to."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            environment.delenv(name, raising=False)
        environment.setenv("AWS_ENDPOINT_URL", endpoint)
        environment.setenv("AWS_ACCESS_KEY_ID", "testing")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        environment.setenv("AWS_DEFAULT_REGION", "eu-west-3")
        yield endpoint
    server.stop()


@pytest.fixture(scope="session")
def spark(s3: str) -> SparkSession:
    """The one session of the whole run, as the product starts it."""
    session = LocalSpark(driver_memory="1g").session
    # Workers inherit the JVM's environment, and another test may have started the JVM before the S3.
    session.sparkContext.environment |= {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-3",
    }
    return session


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_run(shared_folder: Path) -> Iterator[None]:
    """What a user's processes share between lakes, empty at first."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(shared_folder / "cache"))
        yield


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for all processes among which the tests are divided, of this run only."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def network(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ConversionReport]:
    """The untrained network, converted once for the whole run."""
    folder, steps = tmp_path_factory.mktemp("network"), conversion_steps(shared_folder)
    with one_at_a_time(shared_folder / "converting"):
        if not steps.exists():  # a graph may have been before
            shutil.rmtree(cache_folder(), ignore_errors=True)
        with steps.open("a") as told:
            identity_of_weights = identity("untrained", FLOAT32)
            return folder, converted(identity_of_weights, folder, lambda step: print(step, file=told))


def conversion_steps(shared_folder: Path) -> Path:
    """What the conversion of the untrained network has told, a line each."""
    return shared_folder / "conversion.steps"


@pytest.fixture(scope="session")
def flatbuffer_folder(network: tuple[Path, ConversionReport]) -> Path:
    """A folder with the flatbuffer of the untrained network."""
    return network[0]


@pytest.fixture(scope="session")
def network_report(network: tuple[Path, ConversionReport]) -> ConversionReport:
    """What was told of its conversion."""
    return network[1]


@pytest.fixture(scope="session", name="cluster_environment")
def _cluster_environment() -> ClusterEnvironment:
    """The Python and Spark of a cluster: minutes the first time."""
    try:
        return cluster_environment()
    except NoPython311Error as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def materialized(
    spark: SparkSession, network: tuple[Path, ConversionReport], shared_folder: Path
) -> Materialized:
    """The whole graph over a few images, one of them broken, materialized once for the whole run."""
    with one_at_a_time(shared_folder / "materializing"):
        return materialized_once(shared_folder / "graph")
