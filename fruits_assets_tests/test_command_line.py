"""The commands of the README, as processes of their own, and what a kill leaves behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from fruits_assets_tests.graph import (
    ANY_CLASSIFIER,
    PROJECT,
    Materialized,
    dagster_home,
    write_run_config,
)
from fruits_assets_tests.stages.sources import write_noise

pytestmark = pytest.mark.slow

DAGSTER = str(Path(sys.executable).with_name("dagster"))
TARGET = ("-m", "fruits_assets.definitions")


def environment(source: Path, lake: Path, home: Path) -> Mapping[str, str]:
    settings = {"IMAGES": str(source), "LAKE": str(lake), "SPARK": "local", "WEIGHTS": "untrained"}
    return {
        **os.environ,
        **{f"FRUITS_{name}": value for name, value in settings.items()},
        "DAGSTER_HOME": str(dagster_home(home)),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }


def command(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, env=env, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=300
    )


def test_job_execute_makes_the_results_and_the_summary_tells_of_them(
    materialized: Materialized, tmp_path: Path
) -> None:
    env = environment(materialized.graph.source, tmp_path / "lake", tmp_path / "home")
    of_assets = {"pca_model": {"n_components": 3}, **ANY_CLASSIFIER}
    config = write_run_config(tmp_path / "run.yaml", of_assets)
    done = command(DAGSTER, "job", "execute", *TARGET, "-j", "fruits_pipeline", "-c", str(config), env=env)
    assert done.returncode == 0, done.stderr
    assert "extracting features: 38 / 38 images" in done.stderr
    spark_log = re.compile(r"^\d\d[:/]\d\d.* (INFO|WARN|ERROR) ", re.MULTILINE)
    assert not spark_log.search(done.stderr)
    assert "cudart" not in done.stderr
    results = tmp_path / "lake" / "pca_features_csv" / "results.csv"
    assert results.read_text(encoding="utf-8").startswith("path,label,pc_1,pc_2,pc_3\n")

    told = command(sys.executable, "-m", "fruits_assets.summary", env=env)
    assert "38 images, 8 labels, 1 set aside" in told.stdout
    assert "3 components explain" in told.stdout
    assert str(results) in told.stdout
    assert "Apple Golden 1/r_0_100.jpg" in told.stdout
    assert re.search(
        r"^Classifier \d+\.\d % of 9 test photos right \(95 %: .* %\), 8 labels$", told.stdout, re.MULTILINE
    )
    assert re.search(r"^Example    (.*)/.* is \1 \(\d+\.\d %\)$", told.stdout, re.MULTILINE)


def test_a_wrong_setting_stops_job_execute_with_one_clear_line(tmp_path: Path) -> None:
    env = environment(tmp_path / "missing", tmp_path / "lake", tmp_path / "home")
    done = command(DAGSTER, "job", "execute", *TARGET, "-j", "fruits_pipeline", env=env)
    assert done.returncode != 0
    assert f"Image source '{tmp_path / 'missing'}': no such folder or prefix" in done.stderr.splitlines()[-1]
    assert "STEP_START" not in done.stderr
    assert not (tmp_path / "lake" / "mobilenet_model").exists()


def test_definitions_validate_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    env = environment(tmp_path, tmp_path / "lake", tmp_path / "home")
    done = command(DAGSTER, "definitions", "validate", "-w", "workspace.yaml", env=env)
    assert done.returncode == 0, done.stderr


N_NEW = 400


def test_a_killed_run_leaves_the_last_versions_readable_and_the_next_run_just_works(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    env = environment(graph.source, graph.lake_root, tmp_path / "home")
    before = {asset: graph.lake.current(asset) for asset in ("mobilenet_features", "pca_features_csv")}
    results = graph.results.read_bytes()
    # Enough images for the kill to fall into the middle of the extraction.
    for i in range(N_NEW):
        write_noise(graph.source / "Noise" / f"{i}.jpg", size=60, seed=i)
    versions = graph.lake_root / "mobilenet_features" / "_versions"
    n_files = len(list(versions.glob("*/*.parquet")))
    assets = ("asset", "materialize", *TARGET, "--select")
    log = tmp_path / "run.log"
    with log.open("wb") as log_file:
        process = subprocess.Popen(
            [DAGSTER, *assets, "raw_images,mobilenet_features,scaled_features"],
            env=env,
            cwd=PROJECT,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 200
        while len(list(versions.glob("*/*.parquet"))) < n_files + 2:
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        family = psutil.Process(process.pid).children(recursive=True)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for asset, version in before.items():
        assert graph.lake.current(asset) == version
        assert version.is_intact()
    assert graph.results.read_bytes() == results
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []

    done = command(DAGSTER, *assets, "mobilenet_features", env=env)
    assert done.returncode == 0, done.stderr
    after = graph.lake.current("mobilenet_features")
    assert after.row_count == 38 + N_NEW
    assert {path.name for path in versions.iterdir()} == {before["mobilenet_features"].name, after.name}


@pytest.mark.parametrize("script", sorted(path.name for path in (PROJECT / "tools").glob("*.sh")))
def test_the_shell_scripts_are_sound(script: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", PROJECT / "tools" / script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
