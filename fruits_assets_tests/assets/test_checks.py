"""Every check fails on the fault it looks for, found in real tables."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from fruits_assets.assets import (
    fruit_classifier,
    mobilenet_features,
    mobilenet_model,
    pca_features_csv,
    pca_model,
    raw_images,
    scaled_features,
)
from fruits_assets.mobilenet import convert
from fruits_assets.stages import classifier_facts, image_facts
from fruits_assets.stages import fruit_classifier as classifier_stage
from fruits_assets.stages import mobilenet_features as features_stage
from fruits_assets.stages import pca_features_csv as csv_stage
from fruits_assets.stages import pca_model as pca_stage
from fruits_assets.stages import scaled_features as scaling_stage
from fruits_assets.stages.moments import merge
from fruits_assets.stages.plan import row_keys
from fruits_assets.stages.stored import StoredTable
from fruits_assets_tests.conftest import write_image
from fruits_assets_tests.graph import Graph, Materialized
from fruits_assets_tests.stages.running import stored_rows, write_table

pytestmark = pytest.mark.slow


def failed(checks: Iterable[dg.AssetCheckResult]) -> set[str]:
    return {str(check.check_name) for check in checks if not check.passed}


def found_in(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """The checks of a real run, by name."""
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def table(materialized: Materialized, asset: str) -> StoredTable:
    return materialized.graph.lake.current(asset).table


def kiwis(folder: Path, n_images: int) -> Graph:
    """A graph over images of one label."""
    for i in range(n_images):
        write_image(folder / "source" / "Kiwi" / f"{i}.png", (10 * i, 20, 30))
    return Graph(folder / "source", folder / "lake")


# raw_images --------------------------------------------------------------------------------------


def test_unreadable_images_and_a_single_label_fail_their_checks_in_a_real_run(
    spark: SparkSession, tmp_path: Path
) -> None:
    graph = kiwis(tmp_path, 9)
    (graph.source / "Kiwi" / "broken.png").write_bytes(b"")
    result = graph.materialize(["raw_images"])
    evaluations = result.get_asset_check_evaluations()
    assert {e.check_name for e in evaluations if not e.passed} == {
        "readable_share",
        "at_least_two_labels",
    }
    (share,) = [e for e in evaluations if e.check_name == "readable_share"]
    assert share.metadata["readable_share"].value == pytest.approx(0.9)


def facts_of_images(materialized: Materialized, *more: StoredTable, **other: Any) -> dict[str, Any]:
    """Of the images of the graph and those of more tables, published after nothing if not told otherwise."""
    uris = [uri for stored in (table(materialized, "raw_images"), *more) for uri in stored.uris]
    described = image_facts.describe_images([image_facts.facts_of(uri) for uri in uris])
    return {**described, "n_quarantined": 0, "n_previous": 0, "n_lost": 0, **other}


def test_sound_images_pass(materialized: Materialized) -> None:
    assert failed(raw_images.checks(facts_of_images(materialized), 1.0, is_other_source=False)) == set()


def test_a_path_that_occurs_twice(materialized: Materialized, tmp_path: Path) -> None:
    images = table(materialized, "raw_images")
    again = write_table(tmp_path, pq.read_table(images.uris[0]).slice(0, 1))
    facts = facts_of_images(materialized, again)
    assert facts["n_duplicate_paths"] == 1
    assert failed(raw_images.checks(facts, 0.8, is_other_source=False)) == {"no_duplicate_paths"}


@pytest.mark.parametrize(
    ("n_lost", "minimum", "passes"),
    [(20, 0.8, True), (21, 0.8, False), (0, 1.0, True), (1, 1.0, False), (100, 0.0, True)],
)
def test_images_of_the_last_version_that_are_gone(
    materialized: Materialized, n_lost: int, minimum: float, passes: bool
) -> None:
    checks = raw_images.checks(facts_of_images(materialized, n_previous=100, n_lost=n_lost), minimum, False)
    assert failed(checks) == (set() if passes else {"keeps_previous_images"})
    (check,) = [check for check in checks if check.check_name == "keeps_previous_images"]
    assert check.metadata["lost"].value == n_lost
    assert check.metadata["share_of_previous"].value == pytest.approx(1 - n_lost / 100)


def test_images_from_elsewhere_are_a_warning(materialized: Materialized) -> None:
    checks = raw_images.checks(facts_of_images(materialized), 0.8, is_other_source=True)
    assert failed(checks) == {"same_source_as_before"}
    (check,) = [check for check in checks if not check.passed]
    assert check.severity == dg.AssetCheckSeverity.WARN


def test_a_source_that_has_lost_most_of_its_images_is_not_published_unless_told_to(
    spark: SparkSession, tmp_path: Path
) -> None:
    graph = kiwis(tmp_path, 10)
    assert found_in(graph.materialize(["raw_images"]))["keeps_previous_images"].passed
    first = graph.lake.current("raw_images")
    for i in range(2):
        (graph.source / "Kiwi" / f"{i}.png").unlink()
    assert found_in(graph.materialize(["raw_images"]))["keeps_previous_images"].passed  # 80 % are there
    second = graph.lake.current("raw_images")
    assert (first.row_count, second.row_count) == (10, 8)
    for i in range(2, 5):
        (graph.source / "Kiwi" / f"{i}.png").unlink()
    with pytest.raises(dg.Failure, match=r"keeps_previous_images \(.*previous 8, lost 3"):
        graph.materialize(["raw_images"])
    assert graph.lake.current("raw_images") == second
    result = graph.materialize(["raw_images"], {"raw_images": {"min_share_of_previous": 0.6}})
    assert found_in(result)["keeps_previous_images"].passed
    assert graph.lake.current("raw_images").row_count == 5


def test_another_source_is_warned_of_once_and_its_images_are_not_compared_with_the_old_ones(
    spark: SparkSession, tmp_path: Path
) -> None:
    graph = kiwis(tmp_path, 10)
    assert found_in(graph.materialize(["raw_images"]))["same_source_as_before"].passed
    moved = Graph(kiwis(tmp_path / "elsewhere", 2).source, graph.lake_root)
    found = found_in(moved.materialize(["raw_images"]))
    assert not found["same_source_as_before"].passed
    assert found["keeps_previous_images"].passed
    assert found["keeps_previous_images"].metadata["previous"].value == 0
    assert found_in(moved.materialize(["raw_images"]))["same_source_as_before"].passed


# mobilenet_features ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("a missing row", "same_rows_as_raw_images"),
        ("a row twice", "same_rows_as_raw_images"),
        ("a foreign row", "same_rows_as_raw_images"),
        ("a short row", "all_have_1280_features"),
        ("a null row", "all_have_1280_features"),
        ("not a number", "all_finite"),
        ("infinite", "all_finite"),
        ("a null feature", "all_finite"),
    ],
)
def test_faulty_features(materialized: Materialized, tmp_path: Path, fault: str, check: str) -> None:
    first, *rest = stored_rows(table(materialized, "mobilenet_features"))
    values: dict[str, float | None] = {"not a number": np.nan, "infinite": np.inf, "a null feature": None}
    rows: dict[str, list[dict[str, Any]]] = {
        "a missing row": [],
        "a row twice": [first, first],
        "a foreign row": [first, {**first, "path": "nowhere.jpg"}],
        "a short row": [{**first, "features": first["features"][:-1]}],
        "a null row": [{**first, "features": None}],
    }
    replaced = [{**first, "features": [*first["features"][:-1], values.get(fault)]}]
    parts = [part for part in (rest, rows.get(fault, replaced)) if part]
    stored = write_table(tmp_path, *(pa.Table.from_pylist(part, features_stage.SCHEMA) for part in parts))
    assert failed(mobilenet_features.checks(facts_of_features(materialized, stored))) == {check}


def facts_of_features(materialized: Materialized, features: StoredTable) -> dict[str, Any]:
    """Of some features, compared with the images of the graph."""
    images = stored_rows(table(materialized, "raw_images"))
    keys = row_keys(*([row[name] for row in images] for name in ("path", "label", "sha256")))
    return features_stage.describe_features([features_stage.facts_of(uri) for uri in features.uris], keys)


@pytest.mark.parametrize("column", ["label", "sha256"])
def test_features_of_another_label_or_of_other_content(
    materialized: Materialized, tmp_path: Path, column: str
) -> None:
    """They may have been taken over from a version in which the photo was another one."""
    first, *rest = stored_rows(table(materialized, "mobilenet_features"))
    stale = pa.Table.from_pylist([{**first, column: "another"}, *rest], features_stage.SCHEMA)
    facts = facts_of_features(materialized, write_table(tmp_path, stale))
    assert (facts["n_missing"], facts["n_unexpected"], facts["n_duplicates"]) == (1, 1, 0)
    assert failed(mobilenet_features.checks(facts)) == {"same_rows_as_raw_images"}


def test_sound_features_pass(materialized: Materialized) -> None:
    facts = facts_of_features(materialized, table(materialized, "mobilenet_features"))
    assert failed(mobilenet_features.checks(facts)) == set()


def test_features_are_summarised_alike_however_they_are_divided(
    materialized: Materialized, tmp_path: Path
) -> None:
    rows = stored_rows(table(materialized, "mobilenet_features"))
    values = np.array([row["features"] for row in rows])
    parts = [pa.Table.from_pylist(part, features_stage.SCHEMA) for part in (rows[:1], rows[1:8], rows[8:])]
    facts = facts_of_features(materialized, write_table(tmp_path, *parts))
    assert facts["row_count"] == len(rows)
    assert facts["sparsity"] == pytest.approx((values == 0).mean())
    np.testing.assert_allclose(facts["feature_means"], values.mean(axis=0), rtol=1e-9)


# scaled_features ---------------------------------------------------------------------------------


def facts_of_scaled(scaled: StoredTable) -> dict[str, Any]:
    return scaling_stage.describe_scaled(
        functools.reduce(merge, map(scaling_stage.moments_of_file, scaled.uris))
    )


def test_features_that_are_not_scaled(materialized: Materialized, tmp_path: Path) -> None:
    columns = ["path", "label", "sha256", "features"]
    unscaled = [
        pq.read_table(uri, columns=columns).rename_columns(scaling_stage.SCHEMA.names)
        for uri in table(materialized, "mobilenet_features").uris
    ]
    facts = facts_of_scaled(write_table(tmp_path, *unscaled))
    both = {"means_are_zero", "standard_deviations_are_one"}
    assert failed(scaled_features.checks(facts, scaled_features.ScalingConfig())) == both
    off = scaled_features.ScalingConfig(with_mean=False, with_std=False)
    assert failed(scaled_features.checks(facts, off)) == set()


def test_scaled_features_pass(materialized: Materialized) -> None:
    facts = facts_of_scaled(table(materialized, "scaled_features"))
    assert facts["row_count"] == table(materialized, "scaled_features").n_rows
    assert failed(scaled_features.checks(facts, scaled_features.ScalingConfig())) == set()


# pca_model and pca_features_csv ------------------------------------------------------------------


def test_components_that_are_not_orthonormal() -> None:
    components = np.eye(6)[:, :2]
    components[0, 1] = 0.01
    facts = pca_stage.describe_model(pca_stage.Decomposition(components, np.array([0.6, 0.3])))
    assert failed(pca_model.checks(facts, pca_model.PcaConfig())) == {"components_are_orthonormal"}


def test_too_little_variance_fails_in_a_real_run_and_stops_nothing(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    result = graph.materialize(
        ["pca_model", "pca_features_csv"], {"pca_model": {"n_components": 1, "min_total_variance": 0.99}}
    )
    evaluations = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert not evaluations["explains_enough_variance"]
    assert evaluations["file_parses"]


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("a missing row", "same_rows_as_scaled_features"),
        ("a missing column", "has_k_columns"),
        ("a word among the numbers", "file_parses"),
    ],
)
def test_a_faulty_results_file(materialized: Materialized, tmp_path: Path, fault: str, check: str) -> None:
    lines = pq.read_table(materialized.graph.results.with_suffix(".parquet")).to_pylist()
    names = list(lines[0])
    if fault == "a missing row":
        lines.pop()
    if fault == "a missing column":
        names.pop()
    if fault == "a word among the numbers":
        lines[3]["pc_2"] = "plenty"
    file = tmp_path / "results.csv"
    rows = [
        ",".join(f'"{i}"' if name == "path" else str(line[name]) for name in names if name != "label")
        for i, line in enumerate(lines)
    ]
    header = ",".join(name for name in names if name != "label")
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    expected = [
        name
        for name in pq.read_schema(materialized.graph.results.with_suffix(".parquet")).names
        if name != "label"
    ]
    n_images = materialized.graph.lake.current("pca_features_csv").row_count
    scaled = materialized.graph.lake.current("scaled_features")
    facts = csv_stage.describe_csv(str(file)) | {"expected_columns": expected, "n_images": n_images}
    assert check in failed(pca_features_csv.checks(facts, scaled, scaled))
    if check != "file_parses":
        assert failed(pca_features_csv.checks(facts, scaled, scaled)) == {check}


def facts_of_results(materialized: Materialized) -> dict[str, Any]:
    results = materialized.graph.results
    return csv_stage.describe_csv(str(results)) | {
        "expected_columns": pq.read_schema(results.with_suffix(".parquet")).names,
        "n_images": table(materialized, "scaled_features").n_rows,
    }


def test_a_sound_results_file_passes(materialized: Materialized) -> None:
    scaled = materialized.graph.lake.current("scaled_features")
    assert failed(pca_features_csv.checks(facts_of_results(materialized), scaled, scaled)) == set()


def test_a_model_of_other_features_than_the_current_ones_is_a_warning(materialized: Materialized) -> None:
    fitted_to = materialized.graph.lake.current("scaled_features")
    same = replace(fitted_to, number=fitted_to.number + 1)
    other = replace(same, data_version="of other images")
    facts = facts_of_results(materialized)
    assert failed(pca_features_csv.checks(facts, fitted_to, same)) == set()
    (check,) = [check for check in pca_features_csv.checks(facts, fitted_to, other) if not check.passed]
    assert check.check_name == "model_is_of_current_features"
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert check.metadata["model_is_of_version"].value == fitted_to.number
    assert check.metadata["current_version"].value == other.number


def test_a_model_that_is_behind_projects_what_it_was_fitted_to_in_a_real_run(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    fitted_to = graph.lake.current("scaled_features")
    graph.materialize(["scaled_features"], {"scaled_features": {"with_std": False}})
    found = found_in(graph.materialize(["pca_features_csv"], {"pca_features_csv": {"layout": "vector"}}))
    assert not found["model_is_of_current_features"].passed
    assert found["model_is_of_current_features"].metadata["model_is_of_version"].value == fitted_to.number
    assert all(e.passed for name, e in found.items() if name != "model_is_of_current_features")
    before = pq.read_table(materialized.graph.results.with_suffix(".parquet"))
    after = pq.read_table(graph.results.with_suffix(".parquet"))
    assert [row[0] for row in after["pcaFeatures"].to_pylist()] == before["pc_1"].to_pylist()
    graph.materialize(["pca_model"])
    assert found_in(graph.materialize(["pca_features_csv"]))["model_is_of_current_features"].passed


# fruit_classifier --------------------------------------------------------------------------------

CLASSIFIER = fruit_classifier.ClassifierConfig()


def facts_of_classified(folder: Path, n_photos: int, n_right: int, probability: float) -> dict[str, Any]:
    """Of a stored table in which so many of the test photos of each of two labels are right."""
    rows = [
        {
            "path": f"{share}/{label}/{i}.jpg",
            "label": label,
            "share": share,
            "predicted": label if share != "test" or i < n_right else {"fig": "kiwi", "kiwi": "fig"}[label],
            "probability": probability,
            "distance": 1.0,
        }
        for share in ("training", "validation", "test")
        for label in ("fig", "kiwi")
        for i in range(n_photos)
    ]
    stored = write_table(folder, pa.Table.from_pylist(rows, classifier_stage.SCHEMA))
    labels = ["fig", "kiwi"]
    facts = [classifier_facts.facts_of(uri, labels) for uri in stored.uris]
    return classifier_facts.describe_classified(facts, labels)


@pytest.mark.parametrize(
    ("n_right", "probability", "expected"),
    [
        (20, 0.98, set()),
        (18, 0.95, set()),  # 90 % right
        (17, 0.88, {"accurate_enough"}),
        (15, 0.75, {"accurate_enough"}),  # half of the errors of a guess
        (14, 0.70, {"accurate_enough", "beats_the_most_frequent_label"}),
        (10, 0.50, {"accurate_enough", "beats_the_most_frequent_label"}),
        (4, 0.20, {"accurate_enough", "beats_the_most_frequent_label"}),
        (20, 0.85, {"probabilities_are_calibrated"}),
        (18, 1.00, set()),
        (17, 1.00, {"accurate_enough", "probabilities_are_calibrated"}),
    ],
)
def test_a_classifier_that_is_wrong_too_often_or_too_sure(
    tmp_path: Path, n_right: int, probability: float, expected: set[str]
) -> None:
    facts = facts_of_classified(tmp_path, 20, n_right, probability)
    assert facts["accuracy"] == n_right / 20
    assert failed(fruit_classifier.checks(facts, CLASSIFIER)) == expected


def test_the_most_frequent_label_is_that_of_training(tmp_path: Path) -> None:
    facts = facts_of_classified(tmp_path, 20, 15, 0.75)
    assert facts["baseline"] == 0.5
    almost_all = {**facts, "baseline": 0.95, "accuracy": 0.96}
    assert failed(fruit_classifier.checks(almost_all, CLASSIFIER)) == {"beats_the_most_frequent_label"}


def test_any_classifier_is_accepted_on_request(tmp_path: Path) -> None:
    config = fruit_classifier.ClassifierConfig(min_errors_avoided=0, min_accuracy=0, max_calibration_error=1)
    facts = facts_of_classified(tmp_path, 20, 4, 1.0)
    assert failed(fruit_classifier.checks(facts, config)) == set()


def test_labels_that_cannot_be_told_apart_are_not_published_in_a_real_run(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    before = graph.lake.current("fruit_classifier")
    strict = {"fruit_classifier": {"min_errors_avoided": 1.0, "seed": 1}}
    with pytest.raises(
        dg.Failure, match=r"beats_the_most_frequent_label \(.*min_errors_avoided: 0, publishes"
    ):
        graph.materialize(["fruit_classifier"], strict)
    assert graph.lake.current("fruit_classifier") == before


# mobilenet_model ---------------------------------------------------------------------------------


def test_a_flatbuffer_that_is_not_keras(
    monkeypatch: pytest.MonkeyPatch, network_report: convert.ConversionReport
) -> None:
    assert failed(mobilenet_model.checks(network_report)) == set()
    monkeypatch.setattr(convert, "MAX_DIFFERENCE", network_report.max_difference / 2)
    assert failed(mobilenet_model.checks(network_report)) == {"matches_keras"}
