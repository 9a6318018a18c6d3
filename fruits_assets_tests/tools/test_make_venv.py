"""How the environment is made, with a Python that only notes what it is asked for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
PYTHON = """#!/usr/bin/env bash
case "$*" in
"-m venv "*)
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/pip"
    ;;
"-m fruits_assets.resources.jvm")
    echo "trying" >>tries
    [ "$(wc -l <tries)" -gt $FAILURES ]
    ;;
esac
"""


def make_venv(folder: Path, monkeypatch: pytest.MonkeyPatch, n_failures: int) -> tuple[str, int]:
    """What it says, and how often it tried to make the classes ready, which fails so often."""
    (folder / "tools").mkdir()
    for script in ("make_venv.sh", "install.sh"):
        shutil.copy(PROJECT / "tools" / script, folder / "tools")
    (folder / "tools" / "need_java.sh").symlink_to(str(shutil.which("true")))
    python = folder / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    monkeypatch.setenv("FAILURES", str(n_failures))
    done = subprocess.run(
        ["tools/make_venv.sh", "./python", "venv"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, len((folder / "tries").read_text().splitlines())


def test_classes_that_are_ready_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, n_tries = make_venv(tmp_path, monkeypatch, n_failures=0)
    assert n_tries == 1
    assert "slowly" not in said


def test_classes_that_cannot_be_made_ready_beside_the_rest_are_made_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, n_tries = make_venv(tmp_path, monkeypatch, n_failures=1)
    assert n_tries == 2
    assert "slowly" not in said


def test_without_them_there_is_an_environment_and_a_word_about_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, n_tries = make_venv(tmp_path, monkeypatch, n_failures=9)
    assert n_tries == 2
    assert said.endswith("Spark will start more slowly than it could: see venv/spark.log\n")
