"""The package as others install it: a wheel, far from the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from fruits_assets_tests.graph import ANY_CLASSIFIER, sample_source, write_run_config

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command says that has to succeed."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**inherited, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with the wheel, to which this environment lends all other packages."""
    root = tmp_path_factory.mktemp("wheel")
    source, venv = root / "source", root / "venv"
    # Of a copy: building leaves folders behind.
    shutil.copytree(
        PROJECT / "fruits_assets", source / "fruits_assets", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", root, source, cwd=root)
    (wheel,) = root.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=root)
    python = venv / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=root)
    # A line of a .pth file adds a folder without the .pth files in there, so without the repository.
    (packages,) = venv.glob("lib/python3*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib"))
    where = run(python, "-c", "import fruits_assets; print(fruits_assets.__file__)", cwd=root)
    assert Path(where.strip()).is_relative_to(packages)
    return venv / "bin"


def test_the_command_is_there_and_tells_what_it_can(bin_folder: Path, tmp_path: Path) -> None:
    said = run(bin_folder / "fruits", "--help", cwd=tmp_path)
    assert "fruits COMMAND" in said
    assert "predict" in said


def test_the_graph_runs_in_an_empty_folder(bin_folder: Path, tmp_path: Path) -> None:
    source, home = sample_source(tmp_path / "source", images_per_label=3), tmp_path / "home"
    home.mkdir()
    config = write_run_config(tmp_path / "run.yaml", ANY_CLASSIFIER)
    run(
        *(bin_folder / "python", "-m", "dagster", "job", "execute", "-m", "fruits_assets.definitions"),
        *("-j", "fruits_pipeline", "-c", config),
        cwd=tmp_path,
        DAGSTER_HOME=str(home),
        DAGSTER_DISABLE_TELEMETRY="yes",
        FRUITS_IMAGES=str(source),
        FRUITS_WEIGHTS="demo",
    )
    assert (tmp_path / "lake" / "pca_features_csv" / "results.csv").stat().st_size
    assert (tmp_path / "lake" / "run_report" / "report.html").stat().st_size
    said = run(bin_folder / "fruits", "predict", next(source.rglob("*.jpg")), cwd=tmp_path)
    assert "%" in said
