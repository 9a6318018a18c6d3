"""What is not right does not become current, and what is current belongs together."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from fruits_assets.stages import mobilenet_features, pca_features_csv, raw_images
from fruits_assets.stages.parquet import write_rows
from fruits_assets.stages.stage import StageResult
from fruits_assets.stages.stored import ROWS, Output, Stored, StoredTable
from fruits_assets_tests.graph import Graph, Materialized

pytestmark = pytest.mark.slow

ALL_AFTER_IMAGES = ["mobilenet_features", "scaled_features", "pca_model", "pca_features_csv"]
UP_TO_RESULTS = ["raw_images", "mobilenet_model", *ALL_AFTER_IMAGES]
Rows = Callable[[pa.Table], pa.Table]


def failed_checks(instance: dg.DagsterInstance, run_id: str) -> dict[str, dict[str, Any]]:
    """Of a run, as the UI shows them: names, and the numbers they were decided by."""
    evaluations = [
        entry.dagster_event.asset_check_evaluation_data
        for entry in instance.all_logs(run_id)
        if entry.dagster_event and entry.dagster_event.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    return {
        evaluation.check_name: {name: value.value for name, value in evaluation.metadata.items()}
        for evaluation in evaluations
        if not evaluation.passed
    }


def run(
    graph: Graph,
    selection: Sequence[str] = UP_TO_RESULTS,
    config: dict[str, dict[str, Any]] | None = None,
) -> tuple[bool, dict[str, dict[str, Any]], str]:
    """Success, failed checks, and the message of the failure."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = graph.materialize(selection, config, instance=instance, raise_on_error=False)
        failures = [event for event in result.all_events if event.is_step_failure]
        message = str(failures[0].step_failure_data.error) if failures else ""
        return result.success, failed_checks(instance, result.run_id), message


def with_a_nan(rows: pa.Table) -> pa.Table:
    features = rows["features"].to_pylist()
    features[0][7] = float("nan")
    return rows.set_column(3, rows.schema.field(3), pa.array(features, rows.schema.field(3).type))


def without_the_first(rows: pa.Table) -> pa.Table:
    return rows.slice(1)


def spoil_features(monkeypatch: pytest.MonkeyPatch, fault: Rows) -> None:
    """Let the stage write what a fault makes of its rows, and tell what is in them then."""
    stage = mobilenet_features.mobilenet_features

    def faulty(
        spark: SparkSession, inputs: Mapping[str, Stored], output: Output, params: mobilenet_features.Params
    ) -> StageResult:
        result = stage(spark, inputs, output, params)
        table = StoredTable(output.asset, result.tables[ROWS])
        rows = fault(pa.concat_tables([pq.read_table(uri) for uri in table.uris]).combine_chunks())
        file = write_rows(output, rows)
        images = mobilenet_features.planned(table, inputs["raw_images"].table, 1).images
        facts = mobilenet_features.facts_of(f"{output.asset}/{file.path}")
        told = {**result.metadata, **mobilenet_features.describe_features([facts], images)}
        return replace(result, tables={ROWS: [file]}, metadata=told, row_count=file.n_rows)

    faulty.__module__ = stage.__module__
    monkeypatch.setattr(mobilenet_features, "mobilenet_features", faulty)


@pytest.mark.parametrize(
    ("fault", "check", "number"),
    [
        (with_a_nan, "all_finite", {"not_finite": 1}),
        (without_the_first, "same_rows_as_raw_images", {"missing": 1, "unexpected": 0, "duplicates": 0}),
    ],
)
def test_what_fails_a_blocking_check_is_not_published_and_nothing_is_built_on_it(
    materialized: Materialized,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Rows,
    check: str,
    number: dict[str, int],
) -> None:
    graph = materialized.graph.copy(tmp_path)
    (graph.source / "Banana" / "r_0_100.jpg").unlink()
    before = {asset: graph.lake.current(asset) for asset in ALL_AFTER_IMAGES}
    results = graph.results.read_bytes()
    with monkeypatch.context() as patch:
        spoil_features(patch, fault)
        success, failed, message = run(graph)
    assert not success
    assert failed == {check: number}
    assert check in message
    assert {asset: graph.lake.current(asset) for asset in ALL_AFTER_IMAGES} == before
    assert graph.results.read_bytes() == results
    names = [folder.name for folder in (graph.lake_root / "mobilenet_features" / "_versions").iterdir()]
    assert names == [before["mobilenet_features"].name]

    # The next run makes its own, from what is right.
    success, failed, message = run(graph)
    assert success, message
    assert failed == {}
    assert len(graph.rows("mobilenet_features")) == before["mobilenet_features"].row_count - 1


def test_results_with_rows_missing_do_not_replace_the_good_ones(
    materialized: Materialized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = materialized.graph.copy(tmp_path)
    results = graph.results.read_bytes()
    before = graph.lake.current("pca_features_csv")
    write = pca_features_csv.write_results

    def write_three_rows(blocks: Any, folder: str) -> pa.Schema:
        return write((block.slice(0, 3) for block in itertools.islice(blocks, 1)), folder)

    with monkeypatch.context() as patch:
        patch.setattr(pca_features_csv, "write_results", write_three_rows)
        success, failed, _ = run(graph, ["pca_features_csv"], {"pca_features_csv": {"layout": "vector"}})
    assert not success
    assert failed == {"same_rows_as_scaled_features": {"rows": 3, "images": before.row_count}}
    assert graph.lake.current("pca_features_csv") == before
    assert graph.results.read_bytes() == results


def test_losing_most_of_the_source_replaces_nothing_unless_that_is_accepted(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    results = graph.results.read_bytes()
    files = sorted(graph.source.rglob("*.jpg"))
    for file in files[: len(files) // 2]:
        file.write_bytes(b"the disk is somewhere else")
    success, failed, message = run(graph)
    assert not success
    assert failed["keeps_previous_images"]["minimum"] == 0.8
    assert failed["keeps_previous_images"]["share_of_previous"] < 0.6
    assert "keeps_previous_images" in message
    assert "FRUITS_IMAGES" in message
    assert "min_share_of_previous: 0, accepts the loss" in message
    assert graph.results.read_bytes() == results
    assert not run(graph, config={"raw_images": {"reread": True}})[0]  # nor is that a way around it

    success, _, message = run(graph, config={"raw_images": {"min_share_of_previous": 0.0}})
    assert success, message
    assert graph.results.read_bytes() != results


def test_another_source_on_the_same_lake_is_said(materialized: Materialized, tmp_path: Path) -> None:
    graph = materialized.graph.copy(tmp_path)
    elsewhere = Graph(tmp_path / "elsewhere", graph.lake_root)
    shutil.copytree(graph.source / "Banana", elsewhere.source / "Banana")
    shutil.copytree(graph.source / "Corn", elsewhere.source / "Corn")
    success, failed, _ = run(elsewhere, ["raw_images"])
    assert success
    assert set(failed) == {"same_source_as_before", "readable_share"}
    assert run(elsewhere, ["raw_images"])[1].keys() == {"readable_share"}


def test_the_results_are_of_the_features_that_their_model_was_fitted_to(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    results = graph.results.read_bytes()
    graph.materialize(["scaled_features"], {"scaled_features": {"with_std": False}})
    success, failed, _ = run(graph, ["pca_features_csv"], {"pca_features_csv": {"layout": "vector"}})
    assert success
    assert failed == {"model_is_of_current_features": {"model_is_of_version": 0, "current_version": 1}}
    expected = pyarrow.csv.read_csv(pa.BufferReader(results))
    found = np.array(graph.rows("pca_features_csv")["pcaFeatures"].to_pylist())
    np.testing.assert_allclose(found, np.column_stack(expected.columns[2:]), atol=1e-9)

    success, failed, _ = run(graph, ["pca_model", "pca_features_csv"])
    assert success
    assert failed == {}


def test_a_model_whose_features_are_no_longer_kept_is_told_apart(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    version = graph.lake.current("scaled_features")
    graph.materialize(["scaled_features"], {"scaled_features": {"with_std": False}})
    for uri in version.table.uris:
        Path(uri).unlink()
    success, _, message = run(graph, ["pca_features_csv"], {"pca_features_csv": {"layout": "vector"}})
    assert not success
    assert "no longer has version 0 of scaled_features" in message
    assert "Materialize pca_model" in message


def test_scaled_features_of_an_earlier_release_are_not_taken_for_damaged(
    materialized: Materialized, tmp_path: Path
) -> None:
    """They lack the content's digest, by which photos are cut."""
    graph = materialized.graph.copy(tmp_path)
    for entry in (graph.lake_root / "scaled_features" / "_delta_log").glob("*.json"):
        before = entry.read_text()
        assert r"\"sha256\": \"string\", " in before
        entry.write_text(before.replace(r"\"sha256\": \"string\", ", ""))
    success, _, message = run(graph, ["fruit_classifier"])
    assert not success
    assert "lacks the column sha256. Materialize scaled_features and pca_model again" in message
    assert not list(graph.lake_root.rglob("*.damaged"))


def test_an_unchanged_graph_writes_nothing_and_says_so(materialized: Materialized, tmp_path: Path) -> None:
    graph = materialized.graph.copy(tmp_path)
    (graph.source / "Banana" / "broken.jpg").unlink()
    graph.materialize()
    before = {path: path.stat().st_mtime_ns for path in graph.lake_root.rglob("*") if path.is_file()}
    result = graph.materialize()
    after = {path: path.stat().st_mtime_ns for path in graph.lake_root.rglob("*") if path.is_file()}
    assert after == before
    assert len(result.get_asset_materialization_events()) == 8
    assert all(check.passed for check in result.get_asset_check_evaluations())
    (event,) = result.asset_materializations_for_node("raw_images")
    assert (event.metadata["read"].value, event.metadata["unchanged"].value) == (0, 38)
    assert "data:image/" in str(event.metadata["contact_sheet"].value)


def test_what_follows_from_a_table_that_was_removed_is_made_anew_where_the_source_has_changed(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    shutil.rmtree(graph.lake_root / "raw_images")  # as the message about a damaged log says
    (graph.source / "Banana" / "r_0_100.jpg").unlink()
    graph.materialize(UP_TO_RESULTS)
    paths = graph.rows("raw_images")["path"].to_pylist()
    assert "Banana/r_0_100.jpg" not in paths
    assert sorted(pa.csv.read_csv(graph.results)["path"].to_pylist()) == paths


def meanwhile(monkeypatch: pytest.MonkeyPatch, what: Callable[[], object]) -> None:
    """Let something happen while the first stage of a run is at work."""
    stage = raw_images.raw_images

    def interrupted(
        spark: SparkSession, inputs: Mapping[str, Stored], output: Output, params: raw_images.Params
    ) -> StageResult:
        monkeypatch.undo()
        what()
        return stage(spark, inputs, output, params)

    interrupted.__module__ = stage.__module__
    monkeypatch.setattr(raw_images, "raw_images", interrupted)


def test_of_two_runs_over_the_same_photos_the_second_takes_what_the_first_has_published(
    materialized: Materialized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = materialized.graph.copy(tmp_path)
    (graph.source / "Banana" / "broken.jpg").unlink()
    (graph.source / "Banana" / "r_0_100.jpg").unlink()
    meanwhile(monkeypatch, lambda: graph.materialize(["raw_images", "mobilenet_features"]))
    success, failed, message = run(graph)
    assert success, message
    assert failed == {}
    assert graph.lake.current("raw_images").number == 1
    assert graph.lake.current("mobilenet_features").number == 1


def test_of_two_runs_over_other_photos_the_second_fails_and_names_the_first(
    materialized: Materialized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = materialized.graph.copy(tmp_path)
    (graph.source / "Banana" / "broken.jpg").unlink()
    others: list[dg.ExecuteInProcessResult] = []

    def another_run_and_a_change() -> None:
        others.append(graph.materialize(["raw_images"]))
        (graph.source / "Banana" / "r_0_100.jpg").unlink()

    meanwhile(monkeypatch, another_run_and_a_change)
    success, _, message = run(graph)
    assert not success
    assert f"run {others[0].run_id} has published it while this run was at work" in message
    assert run(graph)[0]
    assert "Banana/r_0_100.jpg" not in graph.rows("pca_features_csv")["path"].to_pylist()
