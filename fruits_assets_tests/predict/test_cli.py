"""`fruits predict` as a process of its own: what it prints, imports and returns."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fruits_assets.definitions import SAMPLE_IMAGES
from fruits_assets_tests.graph import Graph
from fruits_assets_tests.predict.classifiers import a_reference
from fruits_assets_tests.stages.sources import write_noise

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
BANANA = SAMPLE_IMAGES / "Banana" / "r_3_100.jpg"
FRUITS = (sys.executable, "-m", "fruits_assets.command_line")


def fruits(
    lake: Path, *words: str | Path, cwd: Path = PROJECT, program: tuple[str, ...] = FRUITS
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*program, *map(str, words)],
        env={**os.environ, "FRUITS_LAKE": str(lake), "PYTHONPATH": str(PROJECT)},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_a_photo_of_the_lake_is_told_with_its_runners_up_its_likes_and_the_versions(
    classified: Graph,
) -> None:
    path = a_reference(classified, "Banana")
    photo = classified.source / path
    done = fruits(classified.lake_root, "predict", photo)
    assert (done.returncode, done.stderr) == (0, "")
    first, runners_up, similar, _, _, versions = done.stdout.splitlines()
    assert re.fullmatch(rf"{re.escape(str(photo))}: .+, \d+\.\d% \((very|fairly|not) sure\)", first)
    assert runners_up.count("%") == 3
    assert f"most like {path}, " in similar
    assert versions.startswith("By fruit_classifier 0, scaled_features 0, pca_model 0, ")
    assert versions.endswith(str(classified.lake_root))


def test_json_has_an_object_for_each_photo_of_a_folder_in_the_order_of_their_paths(
    classified: Graph,
) -> None:
    done = fruits(classified.lake_root, "predict", "--json", classified.source)
    assert done.returncode == 1  # one is broken
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    paths = [answer["path"] for answer in answers]
    images = classified.rows("raw_images")["path"].to_pylist()
    assert paths == sorted(str(classified.source / path) for path in [*images, "Banana/broken.jpg"])
    good = [answer for answer in answers if "reason" not in answer]
    assert len(good) == len(images)
    for answer in good:
        assert answer["known"] == (answer["distance"] <= answer["distance_threshold"])
        assert answer["distance"] == answer["similar"][0]["distance"]
        assert len(answer["runners_up"]) == (3 if answer["known"] else 4)
        assert set(answer["versions"]) >= {"fruit_classifier", "pca_model", "scaled_features"}


def test_a_bad_file_gets_the_reason_of_the_quarantine_and_the_others_are_told(
    classified: Graph, tmp_path: Path
) -> None:
    (row,) = pq.read_table(classified.lake.current("raw_images").table_of("quarantine").uris[0]).to_pylist()
    bad = classified.source / row["path"]
    os.mkfifo(tmp_path / "pipe.jpg")
    done = fruits(classified.lake_root, "predict", bad, tmp_path / "none.jpg", tmp_path / "pipe.jpg", BANANA)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{bad}: {row['reason']}",
        f"{tmp_path / 'none.jpg'}: cannot be read: No such file or directory",
        f"{tmp_path / 'pipe.jpg'}: not a regular file",
    ]
    assert done.stdout.startswith(f"{BANANA}: ")
    told = fruits(classified.lake_root, "predict", "--json", bad)
    assert json.loads(told.stdout) == {"path": str(bad), "reason": row["reason"]}
    assert told.returncode == 1


def test_a_photo_unlike_all_others_is_said_to_be_so(classified: Graph, tmp_path: Path) -> None:
    noise = write_noise(tmp_path / "noise.png", size=100, seed=1)
    done = fruits(classified.lake_root, "predict", noise)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{noise}: I don't know this one\n")
    answer = json.loads(fruits(classified.lake_root, "predict", "--json", noise).stdout)
    assert (answer["known"], answer["label"], answer["probability"]) == (False, None, None)
    assert answer["distance"] > answer["distance_threshold"]


def test_what_is_written_in_a_files_name_cannot_write_on_the_terminal(
    classified: Graph, tmp_path: Path
) -> None:
    name = "\x1b[31m\rred\n\u202eegnaro.jpg"
    shutil.copy(BANANA, tmp_path / name)
    undecodable = os.fsdecode(b"\xff.jpg")
    shutil.copy(BANANA, tmp_path / undecodable)
    for words in ([tmp_path], [tmp_path / name, tmp_path / undecodable]):
        done = fruits(classified.lake_root, "predict", *words)
        told = done.stdout + done.stderr
        assert r"\x1b[31m\rred\n\u202eegnaro.jpg: " in told
        assert "xff.jpg: file name is not valid UTF-8" in told
        assert all(character.isprintable() for character in told.replace("\n", ""))


@pytest.mark.parametrize("exists", [True, False])
def test_a_lake_without_a_classifier_says_what_to_materialize(tmp_path: Path, exists: bool) -> None:
    lake = tmp_path / "lake"
    if exists:
        lake.mkdir()
    done = fruits(lake, "predict", BANANA)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert f"'{lake}' has no published version of fruit_classifier. Materialize" in done.stderr


def test_a_folder_without_photos_is_no_success(classified: Graph, tmp_path: Path) -> None:
    done = fruits(classified.lake_root, "predict", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "No photo" in done.stderr


def test_a_reader_that_goes_away_ends_it_quietly(classified: Graph) -> None:
    words = " ".join([*FRUITS, "predict", "--json", f"'{classified.source}'"])
    done = fruits(classified.lake_root, "-c", f"{words} | head -1", program=("bash",))
    assert json.loads(done.stdout)
    assert done.stderr == ""


def test_neither_dagster_nor_spark_nor_tensorflow_is_imported(classified: Graph) -> None:
    script = f"""
import sys
from fruits_assets.command_line import main
import fruits_assets.predict.web
assert main(["predict", {str(BANANA)!r}]) == 0
print(sorted({{name.split(".")[0] for name in sys.modules}}))
"""
    done = fruits(classified.lake_root, "-c", script, program=(sys.executable,))
    assert done.returncode == 0, done.stderr
    imported = set(eval(done.stdout.splitlines()[-1]))
    assert {"numpy", "pyarrow", "ai_edge_litert", "starlette"} <= imported
    assert imported.isdisjoint({"dagster", "pyspark", "py4j", "tensorflow", "keras", "matplotlib", "pandas"})


def test_the_console_script_leads_to_the_command_and_unknown_words_to_its_usage(classified: Graph) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["fruits"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    for words in ([], ["bake"]):
        done = fruits(classified.lake_root, *words)
        assert done.returncode == 2
        assert "predict" in done.stderr
    assert "predict" in fruits(classified.lake_root, "--help").stdout
