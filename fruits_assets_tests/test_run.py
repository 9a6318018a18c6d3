"""`fruits run`: a line for each asset, and one paragraph that stands last where something is wrong."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from fruits_assets_tests.graph import ANY_CLASSIFIER, sample_source

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).parents[1]


@dataclass(frozen=True)
class User:
    """Somebody with photos, in a folder of their own."""

    folder: Path

    def start(self, *words: str, **settings: str) -> subprocess.Popen[str]:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        shutil.copy(PROJECT / ".dagster_home" / "dagster.yaml", home)
        environment = {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "DAGSTER_HOME": str(home),
            "FRUITS_IMAGES": str(self.folder / "source"),
            "FRUITS_LAKE": str(self.folder / "lake"),
            "FRUITS_WEIGHTS": "untrained",
            **settings,
        }
        command = [sys.executable, "-m", "fruits_assets.command_line", "run", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=pipe, stderr=pipe, text=True
        )

    def run(self, *words: str, **settings: str) -> tuple[int, str, list[str]]:
        """Exit status, standard output, and the lines of standard error."""
        process = self.start(*words, **settings)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err.splitlines()

    def config(self, of_assets: object) -> str:
        file = self.folder / "run.yaml"
        file.write_text(yaml.dump({"ops": of_assets}))
        return str(file)


@pytest.fixture
def user(tmp_path: Path) -> User:
    sample_source(tmp_path / "source", images_per_label=3)
    return User(tmp_path)


def assert_one_paragraph_last(status: int, lines: Sequence[str], *expected: str) -> None:
    """After few lines; and the trace is where it says."""
    assert status == 1
    assert len(lines) < 15, lines
    for words in expected:
        assert words in lines[-1]
    assert "Traceback" not in "\n".join(lines)
    log = Path(lines[-1].rpartition("The trace is in ")[2])
    assert "Traceback" in log.read_text()


def test_a_run_says_a_line_for_each_asset_and_what_came_of_it(user: User) -> None:
    config = {asset: {"config": of} for asset, of in ANY_CLASSIFIER.items()}
    status, out, lines = user.run("--config", user.config(config))
    assert status == 0, lines
    said = [line.split()[0] for line in lines if " s  " in line and ", version " in line]
    assert said == [
        "mobilenet_model",
        "raw_images",
        "mobilenet_features",
        "scaled_features",
        "pca_model",
        "fruit_classifier",
        "pca_features_csv",
        "run_report",
    ]
    assert "components explain" in out
    assert "Using incubator modules" not in out + "\n".join(lines)
    assert "XNNPACK" not in out + "\n".join(lines)


def test_a_check_that_fails_is_told_with_its_numbers(user: User) -> None:
    # Only blocking checks end a run.
    config = {"fruit_classifier": {"config": {"min_errors_avoided": 1.0}}}
    status, out, lines = user.run("--config", user.config(config))
    assert status == 1
    assert out == ""
    assert "fruit_classifier is not published" in lines[-1]
    assert "errors_avoided" in lines[-1]
    assert "minimum 1.0" in lines[-1]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"FRUITS_IMAGES": "/nowhere/photos"}, ["'/nowhere/photos'", "FRUITS_IMAGES"]),
        ({"FRUITS_WEIGHTS": "/nowhere/w.h5"}, ["'/nowhere/w.h5'", "FRUITS_WEIGHTS"]),
        ({"FRUITS_SPARK": "laptop"}, ["FRUITS_SPARK", "laptop"]),
        ({"JAVA_HOME": "/nowhere/java"}, ["Java", "JAVA_HOME"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_setting_is_named_with_its_value_and_the_way_out(
    user: User, settings: dict[str, str], expected: list[str]
) -> None:
    status, _, lines = user.run(**settings)
    assert_one_paragraph_last(status, lines, *expected)
    assert not (user.folder / "lake" / "raw_images").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ops: {pca_model: {config: {n_component: 3}}}", "n_component"),
        ("ops: {pca_model: {config: {n_components: -1}}}", "n_components"),
        ("ops: [", "no YAML"),
        (None, "No such file"),
    ],
    ids=["unknown", "value", "syntax", "missing"],
)
def test_a_wrong_configuration_is_named(user: User, text: str | None, expected: str) -> None:
    file = user.folder / "mine.yaml"
    if text is not None:
        file.write_text(text)
    status, _, lines = user.run("--config", str(file))
    assert_one_paragraph_last(status, lines, str(file), expected)
    assert not (user.folder / "lake").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_run_is_told_as_cancelled(user: User, number: signal.Signals) -> None:
    process = user.start()
    assert process.stderr
    said = ""
    deadline = time.monotonic() + 200
    while "mobilenet_model" not in said:
        assert time.monotonic() < deadline
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1].startswith("Cancelled. What was published stays")
