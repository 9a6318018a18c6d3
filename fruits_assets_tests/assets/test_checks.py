"""Every check fails on the fault it looks for, found in real tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.ml.feature import PCAModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from fruits_assets.assets import (
    mobilenet_features,
    mobilenet_model,
    pca_features_csv,
    pca_model,
    raw_images,
    scaled_features,
)
from fruits_assets.mobilenet import convert
from fruits_assets.stages import ml_models
from fruits_assets.stages import mobilenet_features as features_stage
from fruits_assets.stages import pca_features_csv as csv_stage
from fruits_assets.stages import pca_model as pca_stage
from fruits_assets.stages import raw_images as raw_stage
from fruits_assets.stages import scaled_features as scaling_stage
from fruits_assets_tests.conftest import write_image
from fruits_assets_tests.graph import Graph, Materialized


def failed(checks: Iterable[dg.AssetCheckResult]) -> set[str]:
    return {str(check.check_name) for check in checks if not check.passed}


def table(spark: SparkSession, materialized: Materialized, asset: str, name: str) -> DataFrame:
    return spark.read.parquet(f"{materialized.graph.lake.current(asset).uri}/{name}")


def test_unreadable_images_and_a_single_label_fail_their_checks_in_a_real_run(
    spark: SparkSession, tmp_path: Path
) -> None:
    for i in range(9):
        write_image(tmp_path / "source" / "Kiwi" / f"{i}.png", (10 * i, 20, 30))
    (tmp_path / "source" / "Kiwi" / "broken.png").write_bytes(b"")
    result = Graph(tmp_path / "source", tmp_path / "lake").materialize(["raw_images"])
    evaluations = result.get_asset_check_evaluations()
    assert {e.check_name for e in evaluations if not e.passed} == {
        "readable_share",
        "at_least_two_labels",
    }
    (share,) = [e for e in evaluations if e.check_name == "readable_share"]
    assert share.metadata["readable_share"].value == pytest.approx(0.9)


def test_a_path_that_occurs_twice(spark: SparkSession, materialized: Materialized) -> None:
    images = table(spark, materialized, "raw_images", raw_stage.IMAGES)
    facts = raw_stage.describe_images(images.union(images.limit(1))) | {"n_quarantined": 0}
    assert failed(raw_images.checks(facts)) == {"no_duplicate_paths"}


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
def test_faulty_features(
    spark: SparkSession, materialized: Materialized, tmp_path: Path, fault: str, check: str
) -> None:
    images = table(spark, materialized, "raw_images", raw_stage.IMAGES)
    features = table(spark, materialized, "mobilenet_features", features_stage.FEATURES)
    first = features.sort("path").limit(1)
    rest = features.join(first.select("path"), "path", how="left_anti").select(features.columns)
    number = {"not a number": "nan", "infinite": "inf"}.get(fault)
    rows = {
        "a missing row": rest,
        "a row twice": features.union(first),
        "a foreign row": rest.union(first).union(first.withColumn("path", F.lit("nowhere.jpg"))),
        "a short row": rest.union(first.withColumn("features", F.slice("features", 1, 1279))),
        "a null row": rest.union(first.withColumn("features", F.lit(None).cast("array<float>"))),
    }
    value = F.lit(float(number) if number else None).cast("float")
    replaced = F.concat(F.slice("features", 1, 1279), F.array(value))
    faulty = rows.get(fault, rest.union(first.withColumn("features", replaced)))
    faulty.write.parquet(f"{tmp_path}/faulty.parquet")
    facts = features_stage.describe_features(spark, f"{tmp_path}/faulty.parquet", images)
    assert failed(mobilenet_features.checks(facts)) == {check}


def test_sound_features_pass(spark: SparkSession, materialized: Materialized) -> None:
    facts = features_stage.describe_features(
        spark,
        f"{materialized.graph.lake.current('mobilenet_features').uri}/{features_stage.FEATURES}",
        table(spark, materialized, "raw_images", raw_stage.IMAGES),
    )
    assert failed(mobilenet_features.checks(facts)) == set()


def test_features_that_are_not_scaled(
    spark: SparkSession, materialized: Materialized, tmp_path: Path
) -> None:
    features = table(spark, materialized, "mobilenet_features", features_stage.FEATURES)
    unscaled = features.withColumnRenamed("features", "scaled_features")
    unscaled.write.parquet(f"{tmp_path}/unscaled.parquet")
    facts = scaling_stage.describe_scaled(spark, f"{tmp_path}/unscaled.parquet")
    both = {"means_are_zero", "standard_deviations_are_one"}
    assert failed(scaled_features.checks(facts, scaled_features.ScalingConfig())) == both
    off = scaled_features.ScalingConfig(with_mean=False, with_std=False)
    assert failed(scaled_features.checks(facts, off)) == set()


def test_components_that_are_not_orthonormal(spark: SparkSession) -> None:
    components = np.eye(6)[:, :2]
    components[0, 1] = 0.01
    model: PCAModel = ml_models.pca_model(spark, components, np.array([0.6, 0.3]))
    facts = pca_stage.describe_model(model)
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
    facts = csv_stage.describe_csv(str(file)) | {"expected_columns": expected, "n_images": n_images}
    assert check in failed(pca_features_csv.checks(facts))
    if check != "file_parses":
        assert failed(pca_features_csv.checks(facts)) == {check}


def test_a_flatbuffer_that_is_not_keras(
    monkeypatch: pytest.MonkeyPatch, network_report: convert.ConversionReport
) -> None:
    assert failed(mobilenet_model.checks(network_report)) == set()
    monkeypatch.setattr(convert, "MAX_DIFFERENCE", network_report.max_difference / 2)
    assert failed(mobilenet_model.checks(network_report)) == {"matches_keras"}
