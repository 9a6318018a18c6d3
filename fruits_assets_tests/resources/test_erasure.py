"""A photo that has to go is gone: out of every table and file, in every version."""

from __future__ import annotations

import base64
import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from pyspark.ml.classification import LogisticRegressionModel

from fruits_assets.definitions import Settings
from fruits_assets.erase import erase_photos
from fruits_assets.resources.files import LakeError
from fruits_assets.resources.retention import running
from fruits_assets_tests.graph import Graph, Materialized

pytestmark = pytest.mark.slow

PHOTO = "Lemon/r_0_100.jpg"
TABLES = ["raw_images", "mobilenet_features", "scaled_features", "pca_features_csv", "fruit_classifier"]


def settings(graph: Graph) -> Settings:
    return Settings(images=str(graph.source), lake=str(graph.lake_root), lake_keep_minutes=60)


def files_with(graph: Graph, *needles: bytes) -> list[str]:
    """All files of the lake that have any of these bytes, whether compressed by Parquet or not."""
    found = []
    for path in graph.lake_root.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            columns = {"path", "sha256", "content", "thumbnail"}.intersection(table.column_names)
            for value in (value for name in columns for value in table[name].to_pylist()):
                content += b"\n" + (value if isinstance(value, bytes) else value.encode())
        if any(needle in content for needle in needles):
            found.append(str(path.relative_to(graph.lake_root)))
    return found


def references(graph: Graph) -> list[str]:
    """Paths of the photos that the classifier keeps as references."""
    table = graph.lake.current("fruit_classifier").table_of("references")
    return [path for uri in table.uris for path in pq.read_table(uri)["path"].to_pylist()]


def test_an_erased_photo_is_in_no_file_of_the_lake(materialized: Materialized, tmp_path: Path) -> None:
    graph = materialized.graph.copy(tmp_path)
    photo = next(path for path in references(graph) if path.startswith("Lemon/"))
    (row,) = [row for row in graph.rows("raw_images").to_pylist() if row["path"] == photo]
    thumbnail = base64.b64encode(row["thumbnail"])
    needles = (row["content"], row["thumbnail"], thumbnail, photo.encode(), row["sha256"].encode())
    for needle in needles:
        assert files_with(graph, needle)
    # A second version of everything, so that the photo is in old ones, too.
    (graph.source / "Banana" / "broken.jpg").unlink()
    (graph.source / "Banana" / "r_0_100.jpg").unlink()
    graph.materialize()
    (graph.source / photo).unlink()
    before = {table: graph.rows(table) for table in TABLES}
    referred_to = references(graph)

    erased = erase_photos(settings(graph), [photo])
    assert erased.rows == dict.fromkeys([*TABLES, "fruit_classifier references"], 1)
    assert erased.n_bytes > 0
    assert files_with(graph, *needles) == []
    for table in TABLES:
        others = before[table].filter([path != photo for path in before[table]["path"].to_pylist()])
        assert graph.rows(table).equals(others)
        assert pl.read_delta(str(graph.lake_root / table)).height == others.num_rows
        assert graph.lake.current(table).is_intact()
    for asset, made_of in (("mobilenet_features", "raw_images"), ("pca_features_csv", "scaled_features")):
        assert graph.lake.current(asset).inputs[made_of] == graph.lake.current(made_of).number
    assert references(graph) == [path for path in referred_to if path != photo]
    with graph.results.open(newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == graph.rows("pca_features_csv")[
            "path"
        ].to_pylist()

    # The next run computes from what is left.
    result = graph.materialize()
    assert result.success
    assert graph.lake.current("pca_model").inputs == {
        "scaled_features": graph.lake.current("scaled_features").number
    }
    assert files_with(graph, *needles) == []


def test_after_an_erasure_what_belongs_together_can_be_used(
    materialized: Materialized, tmp_path: Path
) -> None:
    """The scaler, the components of what it gave, the classifier of their scores, and what it means."""
    graph = materialized.graph.copy(tmp_path)
    before = {asset: graph.lake.current(asset) for asset in ("pca_model", "fruit_classifier")}
    (graph.source / PHOTO).unlink()
    erase_photos(settings(graph), [PHOTO])
    for asset, version in before.items():
        after = graph.lake.current(asset)
        assert after.number == version.number + 1
        assert after.inputs == {name: graph.lake.current(name).number for name in version.inputs}
        assert after.is_intact()
    folder = Path(graph.lake.current("fruit_classifier").folder)
    assert json.loads((folder / "classes.json").read_text())["labels"]
    assert LogisticRegressionModel.load(str(folder / "fruit_classifier")).numClasses == 8
    assert not (folder / "facts.json").exists()

    # The next run does not take what is there for unchanged.
    graph.materialize(["scaled_features", "pca_model", "fruit_classifier"])
    assert graph.lake.current("fruit_classifier").number == before["fruit_classifier"].number + 2


def test_a_model_that_is_behind_is_not_taken_for_one_of_the_current_features(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    graph.materialize(["scaled_features"], {"scaled_features": {"with_std": False}})
    (graph.source / PHOTO).unlink()
    erase_photos(settings(graph), [PHOTO])
    assert graph.lake.current("scaled_features").number == 2
    assert graph.lake.current("pca_model").inputs == {"scaled_features": 0}


def test_a_quarantined_photo_can_be_erased(materialized: Materialized, tmp_path: Path) -> None:
    graph = materialized.graph.copy(tmp_path)
    (graph.source / "Banana" / "broken.jpg").unlink()
    assert erase_photos(settings(graph), ["Banana/broken.jpg"]).rows == {"raw_images quarantine": 1}
    assert files_with(graph, b"Banana/broken.jpg") == []


def test_a_photo_gone_from_the_source_is_gone_from_the_disk_with_retention(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    (graph.source / PHOTO).unlink()
    graph.materialize()
    assert PHOTO not in graph.rows("mobilenet_features")["path"].to_pylist()
    assert files_with(graph, PHOTO.encode())  # somebody may be reading it for an hour
    impatient = replace(graph, keep={"lake_keep_versions": 1, "lake_keep_minutes": 0})
    impatient.materialize()
    assert files_with(graph, PHOTO.encode()) == []


def test_a_photo_that_is_still_in_the_source_is_not_erased(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    with pytest.raises(LakeError, match=f"'{PHOTO}' is still in '{graph.source}'.*Remove it there first"):
        erase_photos(settings(graph), [PHOTO])
    assert PHOTO in graph.rows("raw_images")["path"].to_pylist()


def test_nothing_is_erased_while_a_run_is_under_way(materialized: Materialized, tmp_path: Path) -> None:
    graph = materialized.graph.copy(tmp_path)
    (graph.source / PHOTO).unlink()
    with (
        running(graph.lake.place("."), "some-run"),
        pytest.raises(LakeError, match="Run some-run is under way"),
    ):
        erase_photos(settings(graph), [PHOTO])
    assert PHOTO in graph.rows("raw_images")["path"].to_pylist()


def test_the_command_says_what_went(materialized: Materialized, tmp_path: Path) -> None:
    graph = materialized.graph.copy(tmp_path)

    def command(path: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fruits_assets.erase", path],
            env={**os.environ, "FRUITS_IMAGES": str(graph.source), "FRUITS_LAKE": str(graph.lake_root)},
            capture_output=True,
            text=True,
            check=False,
        )

    refused = command(PHOTO)
    assert refused.returncode == 1
    assert "Remove it there first" in refused.stderr
    assert "Traceback" not in refused.stderr
    (graph.source / PHOTO).unlink()
    done = command(PHOTO)
    assert done.returncode == 0, done.stderr
    assert "mobilenet_features           1 row(s)" in done.stdout
    assert "Dagster's own records" in done.stdout
    assert "no row has these paths" in command("no/such.jpg").stdout
