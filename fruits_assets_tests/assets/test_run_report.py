"""The report as an asset: of versions that belong together, published whole, gone when a photo has to go."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import boto3
import dagster as dg
import pyarrow as pa
import pytest
from upath import UPath

from fruits_assets.assets.run_report import asked_of_others, checks, source_name
from fruits_assets.definitions import GRAPH, SAMPLE_IMAGES, Settings, resources
from fruits_assets.erase import erase_photos
from fruits_assets.resources.lake import Lake
from fruits_assets.resources.published import Version
from fruits_assets.stages.parquet import write_rows
from fruits_assets.stages.stage import StageResult
from fruits_assets.stages.stored import ROWS
from fruits_assets_tests.graph import N_IMAGES, Graph, Materialized

pytestmark = pytest.mark.slow

PHOTO = "Lemon/r_0_100.jpg"


def html(graph: Graph) -> str:
    return (graph.lake_root / "run_report" / "report.html").read_text(encoding="utf-8")


def data(graph: Graph) -> dict[str, Any]:
    """What the page's script works with."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html(graph), re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def seconds_in(text: str) -> dict[str, str]:
    """By asset, in the page's table of what it took."""
    table = text.partition('<section id="spent">')[2].partition("</section>")[0]
    return dict(re.findall(r"<tr>\s*<td>(\w+)</td>\s*<td class=\"number\">(.*?)</td>", table))


def test_the_first_run_makes_the_report_of_all_photos(materialized: Materialized) -> None:
    graph = materialized.graph
    shown = data(graph)
    assert len(shown["path"]) == N_IMAGES
    assert sorted(shown["path"]) == graph.rows("pca_features_csv")["path"].to_pylist()
    assert len(shown["units"]) == N_IMAGES - 1
    text = html(graph)
    assert "Banana/broken.jpg" in text
    assert "not an image" in text
    assert "Photos of source." in text
    assert str(graph.source) not in text  # where somebody has the photos is not for others
    rows = graph.rows("run_report")
    assert rows.num_rows == N_IMAGES + 1  # whom it names: the broken one as well
    assert sum(rows["drawn"].to_pylist()) == N_IMAGES
    metadata = materialized.metadata("run_report")
    assert metadata["report"] == str(graph.lake_root / "run_report" / "report.html")
    assert metadata["photos_shown"] == N_IMAGES + 1


def test_it_tells_what_each_asset_took_and_which_versions_it_is_of(materialized: Materialized) -> None:
    text = html(materialized.graph)
    seconds = seconds_in(text)
    assert list(seconds) == [
        "raw_images",
        "mobilenet_model",
        "mobilenet_features",
        "scaled_features",
        "pca_model",
        "pca_features_csv",
        "fruit_classifier",
    ]
    assert all(float(value) > 0 for value in seconds.values()), seconds
    stages = [asset for asset in seconds if asset != "mobilenet_model"]
    memory = {asset: materialized.metadata(asset)["peak_memory_mb"] for asset in stages}
    assert all(100 < peak < 10_000 for peak in memory.values()), memory
    assert all(f'<td class="number">{peak}</td>' in text for peak in memory.values())
    version = materialized.graph.lake.current("run_report")
    assert version.inputs == dict.fromkeys(seconds, 0)
    assert materialized.graph.lake.current("raw_images").data_version[:12] in text


def test_the_report_stays_while_nothing_changes_and_follows_when_something_does(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    before = graph.lake.current("run_report")
    graph.materialize(["run_report"])
    assert graph.lake.current("run_report") == before
    graph.materialize(["pca_model", "pca_features_csv", "run_report"], {"pca_model": {"n_components": 2}})
    assert len(data(graph)["units"]) == 2
    graph.materialize(["run_report"], {"run_report": {"photos_of": "Photos of <Anna>, anna@example.org."}})
    assert "Photos of &lt;Anna&gt;, anna@example.org." in html(graph)


def test_the_report_is_of_what_the_results_were_made_of(materialized: Materialized, tmp_path: Path) -> None:
    graph = materialized.graph.copy(tmp_path)
    (graph.source / PHOTO).unlink()
    graph.materialize(["raw_images"])
    graph.materialize(["run_report"], {"run_report": {"photos_of": "Again."}})
    assert len(data(graph)["path"]) == N_IMAGES
    assert graph.lake.current("run_report").inputs["raw_images"] == 0
    assert graph.lake.current("raw_images").number == 1


def test_what_is_no_longer_kept_is_named(materialized: Materialized, tmp_path: Path) -> None:
    graph = materialized.graph.copy(tmp_path)
    impatient = Graph(graph.source, graph.lake_root, keep={"lake_keep_versions": 1, "lake_keep_minutes": 0})
    (graph.source / PHOTO).unlink()
    impatient.materialize(["raw_images"])
    with pytest.raises(dg.Failure, match=r"version 0 of raw_images. Materialize mobilenet_features and what"):
        impatient.materialize(["run_report"], {"run_report": {"photos_of": "Again."}})


def test_results_as_lists_give_the_same_report(materialized: Materialized, tmp_path: Path) -> None:
    graph = materialized.graph.copy(tmp_path)
    before = data(graph)
    graph.materialize(["pca_features_csv", "run_report"], {"pca_features_csv": {"layout": "vector"}})
    assert data(graph)["scores"] == before["scores"]
    assert graph.lake.current("run_report").inputs["pca_features_csv"] == 1


def test_a_lake_that_has_moved_away_from_dagsters_records_has_a_report(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    graph.materialize(["run_report"], {"run_report": {"photos_of": "Elsewhere."}})
    assert set(seconds_in(html(graph)).values()) == {"\u2013"}


def test_of_a_file_that_was_set_aside_the_report_shows_what_can_be_seen(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    photo = graph.source / PHOTO
    photo.write_bytes(photo.read_bytes()[:-600])
    graph.materialize()
    card = html(graph).partition("<h3>Set aside</h3>")[2].partition("<h3>Contact sheet</h3>")[0]
    assert f'aria-label="{PHOTO}"' in card
    assert 'aria-label="no picture"' in card  # the other one
    photo.unlink()
    graph.materialize(["run_report"], {"run_report": {"photos_of": "Once more."}})
    assert f'aria-label="{PHOTO}"' not in html(graph)
    assert PHOTO in html(graph)


def test_a_source_that_is_not_the_lakes_is_neither_named_nor_looked_at(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    other = Graph(SAMPLE_IMAGES, graph.lake_root)
    shutil.rmtree(graph.lake_root / "run_report")
    other.materialize(["run_report"])
    assert "Photos of" not in html(other)


def publish_classifier(graph: Graph, inputs: dict[str, Version]) -> None:
    """As the classifier would: every photo of the results tested, one of them taken for something else."""
    results = graph.rows("pca_features_csv").select(["path", "label"])
    predicted = results["label"].to_pylist()
    predicted[0] = "Lemon"
    n = results.num_rows
    rows = pa.table(
        {
            "path": results["path"],
            "label": results["label"],
            "share": ["test"] * (n - 1) + ["training"],
            "predicted": predicted,
            "probability": [0.75] * n,
            "distance": [1.0] * n,
        }
    )
    facts = {"accuracy": 0.96, "accuracy_low": 0.8, "accuracy_high": 0.99, "macro_f1": 0.9}
    with graph.lake.new_version("fruit_classifier", "some-run-0") as output:
        result = StageResult(
            n,
            {"path": "string"},
            {ROWS: [write_rows(output, rows)]},
            {**facts, "n_test": n - 1, "n_training": 1},
        )
        graph.lake.publish(
            "fruit_classifier", output, result, data_version="d", code_version="1", inputs=inputs, params={}
        )


def test_the_report_of_the_first_run_has_the_classifiers_test(materialized: Materialized) -> None:
    rows = [row for row in materialized.graph.rows("fruit_classifier").to_pylist() if row["share"] == "test"]
    confusion = data(materialized.graph)["confusion"]
    numbers = confusion["labels"]
    for label in numbers:
        for predicted in numbers:
            n = sum((row["label"], row["predicted"]) == (label, predicted) for row in rows)
            assert confusion["values"][numbers.index(label)][numbers.index(predicted)] == n
    assert sum(map(sum, confusion["values"])) == len(rows)
    n_wrong = sum(row["label"] != row["predicted"] for row in rows)
    assert html(materialized.graph).count("taken for <b>") == n_wrong


def test_the_classifier_is_in_the_report_if_it_is_of_the_same_features(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    shutil.rmtree(graph.lake_root / "fruit_classifier")
    graph.materialize(["run_report"])
    assert "Worst mistakes" not in html(graph)
    inputs = {name: graph.lake.current(name) for name in ("scaled_features", "pca_model")}
    publish_classifier(graph, inputs)
    graph.materialize(["run_report"])
    text = html(graph)
    assert "96.0 %" in text
    assert "80.0 to 99.0 %" in text
    assert "75 % sure" in text
    assert text.count("taken for <b><bdi>Lemon</bdi></b>") == 1
    confusion = data(graph)["confusion"]
    row, column = confusion["labels"].index("Apple Golden 1"), confusion["labels"].index("Lemon")
    assert confusion["values"][row][column] == 1
    assert sum(map(sum, confusion["values"])) == N_IMAGES - 1

    graph.materialize(["pca_model", "pca_features_csv", "run_report"], {"pca_model": {"n_components": 5}})
    assert "Worst mistakes" not in html(graph)


def test_an_erasure_removes_the_report_and_the_next_one_is_without_the_photo(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    assert PHOTO in html(graph)
    (graph.source / PHOTO).unlink()
    settings = Settings(images=str(graph.source), lake=str(graph.lake_root))
    erased = erase_photos(settings, [PHOTO])
    assert erased.report
    assert not (graph.lake_root / "run_report").exists()
    # Without a run of anything else: the erased versions belong together.
    assert graph.materialize(["run_report"]).success
    assert PHOTO not in html(graph)
    assert len(data(graph)["path"]) == N_IMAGES - 1
    assert not erase_photos(settings, ["no/such.jpg"]).rows


def test_a_report_of_a_photo_that_no_table_has_any_more_goes_too(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    (graph.source / PHOTO).unlink()
    graph.materialize([place.name for place in graph.lake.places() if place.name != "run_report"])
    assert PHOTO in html(graph)
    erase_photos(Settings(images=str(graph.source), lake=str(graph.lake_root)), [PHOTO])
    assert not (graph.lake_root / "run_report").exists()


def test_a_photo_can_be_erased_where_an_asset_was_never_published(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    left_behind = graph.lake_root / "fruit_classifier" / "_versions" / "dead-run-0" / "rows.parquet"
    left_behind.parent.mkdir(parents=True)
    left_behind.write_bytes(b"of a run that was killed")
    (graph.source / PHOTO).unlink()
    erased = erase_photos(Settings(images=str(graph.source), lake=str(graph.lake_root)), [PHOTO])
    assert erased.rows["raw_images"] == 1
    assert not left_behind.exists()


@pytest.fixture
def lake_on_s3(s3: str, materialized: Materialized) -> Lake:
    """The lake of the first run, in a bucket."""
    boto3.client("s3").create_bucket(
        Bucket="reports", CreateBucketConfiguration={"LocationConstraint": "eu-west-3"}
    )
    root = UPath("s3://reports/lake")
    for file in materialized.graph.lake_root.rglob("*"):
        if file.is_file():
            (root / file.relative_to(materialized.graph.lake_root).as_posix()).write_bytes(file.read_bytes())
    return Lake(root=str(root))


def test_the_report_of_a_lake_on_s3(lake_on_s3: Lake, materialized: Materialized) -> None:
    settings = Settings(images=str(materialized.graph.source), lake=lake_on_s3.root, weights="untrained")
    result = dg.materialize(
        cast("Sequence[dg.AssetsDefinition]", GRAPH),
        resources=resources(settings),
        selection=["run_report"],
        run_config={"ops": {"run_report": {"config": {"photos_of": "In a bucket."}}}},
    )
    assert result.success
    text = UPath("s3://reports/lake/run_report/report.html").read_text(encoding="utf-8")
    assert "In a bucket." in text
    assert PHOTO in text


@pytest.mark.parametrize(
    ("element", "place"),
    [
        ('<script src="https://cdn.example.org/x.js"></script>', "https://cdn.example.org/x.js"),
        ('<img src="//example.org/x.png">', "//example.org/x.png"),
        ('<link rel="stylesheet" href="style.css">', "style.css"),
        ("<style>p { background: url(https://example.org/a.png) }</style>", "https://example.org/a.png"),
        ("<style>@import 'https://example.org/a.css';</style>", "https://example.org/a.css"),
    ],
)
def test_a_page_that_asks_others_does_not_pass(element: str, place: str) -> None:
    asked = asked_of_others(f"<html><body>{element}</body></html>")
    assert asked == [place]
    failed, _ = checks({"asked": asked, "size_bytes": 10})
    assert not failed.passed


def test_a_page_of_its_own_passes_and_a_large_one_is_told() -> None:
    own = '<a href="#a">a</a><style>p { background: url(data:image/png;base64,AA) }</style><p>see https://a.b</p>'
    assert asked_of_others(own) == []
    assert [check.passed for check in checks({"asked": [], "size_bytes": 9_000_000})] == [True, False]


@pytest.mark.parametrize(
    ("uri", "name"), [("/home/anna/fruit", "fruit"), ("s3://bucket/fruit/photos", "s3://bucket/fruit/photos")]
)
def test_a_source_is_named_without_the_folders_above_it(uri: str, name: str) -> None:
    assert source_name(uri) == name
