"""The whole graph with a local Spark: what it stores, shows and promises."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import boto3
import dagster as dg
import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.ml.feature import PCAModel
from pyspark.sql import SparkSession

from fruits_assets.assets.raw_images import TABLE as RAW_TABLE
from fruits_assets.definitions import GRAPH, SAMPLE_IMAGES, Settings, defs, resources
from fruits_assets.stages.moments import moments_of
from fruits_assets_tests.graph import (
    ANY_CLASSIFIER,
    N_IMAGES,
    ODD_NAMES,
    Graph,
    Materialized,
    run_config,
)

pytestmark = pytest.mark.slow

ASSETS = [
    "raw_images",
    "mobilenet_model",
    "mobilenet_features",
    "scaled_features",
    "pca_model",
    "pca_features_csv",
    "fruit_classifier",
    "run_report",
]


def test_every_asset_is_published_with_its_rows_and_passes_its_checks(materialized: Materialized) -> None:
    assert materialized.is_success
    rows = {asset: materialized.graph.lake.current(asset).row_count for asset in ASSETS}
    assert rows == {
        "raw_images": N_IMAGES,
        "mobilenet_model": 1,
        "mobilenet_features": N_IMAGES,
        "scaled_features": N_IMAGES,
        "pca_model": N_IMAGES - 1,
        "pca_features_csv": N_IMAGES,
        "fruit_classifier": N_IMAGES,
        "run_report": N_IMAGES + 1,  # it shows what was set aside, too
    }
    assert len(materialized.evaluations) == 22
    # One of 39 files is broken on purpose: 97 % are readable.
    assert [e.check_name for e in materialized.evaluations if not e.passed] == []


def test_odd_names_survive_to_the_csv_and_back(materialized: Materialized) -> None:
    with materialized.graph.results.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    label = 'Ödd, "label" = 1'
    assert {row["path"] for row in rows if row["label"] == label} == {f"{label}/{name}" for name in ODD_NAMES}


def test_the_csv_is_the_pca_of_what_keras_would_have_seen(materialized: Materialized) -> None:
    """From the published features on, in NumPy alone."""
    table = materialized.graph.rows("mobilenet_features")
    features = np.array(table["features"].to_pylist())
    std = features.std(axis=0, ddof=1)
    scaled = (features - features.mean(axis=0)) / np.where(std > 0, std, np.inf)
    _, _, rows = np.linalg.svd(scaled, full_matrices=False)
    first = rows[0] * np.sign(rows[0][np.abs(rows[0]).argmax()])
    found = pq.read_table(materialized.graph.results.with_suffix(".parquet"))
    assert found["path"].to_pylist() == table["path"].to_pylist()
    np.testing.assert_allclose(found["pc_1"].to_numpy(), scaled @ first, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("asset", "names"),
    [
        (
            "raw_images",
            {
                "images_per_label",
                "images_per_label_plot",
                "contact_sheet",
                "size_mb",
                "ignored",
                "quarantined",
                "quarantined_files",
                "stripped_of_personal_metadata",
                "read",
                "unchanged",
            },
        ),
        (
            "mobilenet_model",
            {
                "weights",
                "precision",
                "fingerprint",
                "parameters",
                "size_mb",
                "max_difference_from_keras",
                "min_cosine_with_keras",
            },
        ),
        (
            "mobilenet_features",
            {
                "computed",
                "reused",
                "images_per_s",
                "seconds",
                "engine",
                "fingerprint",
                "weights",
                "sparsity",
                "feature_means",
            },
        ),
        ("scaled_features", {"constant_features", "max_abs_mean", "max_abs_std_minus_1"}),
        (
            "pca_model",
            {
                "total_explained_variance",
                "explained_variance_plot",
                "first_components",
                "components_needed",
                "fewer_than_asked",
            },
        ),
        (
            "pca_features_csv",
            {"rows", "columns", "size_mb", "first_rows", "first_two_components", "results_csv"},
        ),
        (
            "fruit_classifier",
            {
                "accuracy",
                "accuracy_95_percent",
                "macro_f1",
                "macro_f1_95_percent",
                "most_frequent_label_accuracy",
                "calibration_error",
                "calibration",
                "per_label",
                "photos",
                "labels_left_out",
                "regularisations_tried",
                "distance_threshold",
                "confusion_matrix",
                "worst_mistakes",
            },
        ),
    ],
)
def test_the_ui_shows(materialized: Materialized, asset: str, names: set[str]) -> None:
    shown = materialized.metadata(asset)
    assert names <= shown.keys()
    assert shown["report"].endswith("lake/run_report/report.html")
    assert "dagster/uri" in shown
    assert {"dagster/row_count", "dagster/column_schema", "dagster/column_lineage"} <= shown.keys()
    kinds = ("plot", "sheet", "means", "two_components", "matrix", "mistakes")
    pictures = {name for name in names if name.endswith(kinds)}
    assert set(list(shown)[1 : 1 + len(pictures)]) == pictures  # on top, after the report's place
    assert all("data:image/" in shown[name] for name in pictures)


def test_the_quarantine_and_the_weights_are_told(materialized: Materialized) -> None:
    raw = materialized.metadata("raw_images")
    assert raw["quarantined"] == 1
    (row,) = raw["quarantined_files"].records
    assert row.data == {
        "path": "Banana/broken.jpg",
        "label": "Banana",
        "reason": "not an image (12 bytes): not JPEG, HEIC, AVIF, PNG, WebP, TIFF, BMP or GIF",
    }
    assert "untrained" in materialized.metadata("mobilenet_features")["weights"]


def test_the_documented_columns_are_those_that_are_stored(materialized: Materialized) -> None:
    version = materialized.graph.lake.current("raw_images")
    assert list(version.schema) == list(RAW_TABLE.descriptions)
    schema = materialized.metadata("pca_features_csv")["dagster/column_schema"]
    assert [column.name for column in schema.columns] == ["path", "label", f"pc_1 to pc_{N_IMAGES - 1}"]
    lineage = materialized.metadata("pca_features_csv")["dagster/column_lineage"].deps_by_column
    assert lineage.keys() == {column.name for column in schema.columns}
    origin = {column.column_name for column in lineage[f"pc_1 to pc_{N_IMAGES - 1}"]}
    assert origin == {"scaled_features", "loadings"}
    assert all(column.description for column in schema.columns)


def test_the_published_model_is_a_spark_ml_model(spark: SparkSession, materialized: Materialized) -> None:
    model = PCAModel.load(f"{materialized.graph.lake.current('pca_model').folder}/pca_model")
    assert model.pc.toArray().shape == (1280, N_IMAGES - 1)


def test_the_log_is_small_and_says_what_made_the_table(materialized: Materialized) -> None:
    (entry,) = (materialized.graph.lake_root / "mobilenet_features" / "_delta_log").glob("*.json")
    assert entry.stat().st_size < 20_000
    assert "Banana" not in entry.read_text()  # it outlives the rows
    current = materialized.graph.lake.current("mobilenet_features")
    assert current.inputs == {"raw_images": 0, "mobilenet_model": 0}
    assert current.params["batch_size"] == 2
    assert {"pyspark", "numpy", "ai-edge-litert"} <= current.libraries.keys()


def test_a_second_run_over_the_same_photos_keeps_every_data_version(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    before = {asset: graph.lake.current(asset) for asset in ASSETS}
    for file in graph.source.rglob("*.jpg"):
        os.utime(file)
    selection = [asset for asset in ASSETS if asset != "mobilenet_model"]
    graph.materialize(selection)
    for asset in selection:
        after = graph.lake.current(asset)
        assert after.number == before[asset].number + 1
        assert after.data_version == before[asset].data_version


def counts(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    """Of images, from the metadata of the two assets that take over what is unchanged."""
    names = {"raw_images": ("read", "unchanged"), "mobilenet_features": ("computed", "reused")}
    return {
        name: event.metadata[name].value
        for asset, wanted in names.items()
        for event in result.asset_materializations_for_node(asset)
        for name in wanted
    }


def spoil_without_a_trace(file: Path) -> None:
    """Other bytes, same size, same modification time."""
    status = file.stat()
    file.write_bytes(bytes(status.st_size))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_unchanged_photos_are_neither_read_nor_computed_again(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    images, features = (graph.lake.current(asset).data_version for asset in ASSETS[:3:2])
    spoil_without_a_trace(graph.source / "Lemon" / "r_0_100.jpg")
    result = graph.materialize(["raw_images", "mobilenet_features"])
    assert counts(result) == {"read": 0, "unchanged": N_IMAGES, "computed": 0, "reused": N_IMAGES}
    assert graph.lake.current("raw_images").data_version == images
    assert graph.lake.current("mobilenet_features").data_version == features
    assert all(check.passed for check in result.get_asset_check_evaluations())

    read_all = graph.materialize(["raw_images"], {"raw_images": {"reread": True}})
    assert counts(read_all) == {"read": N_IMAGES - 1, "unchanged": 0}
    assert graph.lake.current("raw_images").facts["n_quarantined"] == 2


def test_only_new_content_is_computed(materialized: Materialized, tmp_path: Path) -> None:
    graph = materialized.graph.copy(tmp_path)

    def features(graph: Graph) -> dict[str, list[float]]:
        table = graph.rows("mobilenet_features").to_pydict()
        return dict(zip(table["path"], table["features"], strict=True))

    before = features(graph)
    (graph.source / "Banana" / "r_0_100.jpg").unlink()
    shutil.move(graph.source / "Lemon" / "r_0_100.jpg", graph.source / "Lemon" / "renamed.jpg")
    shutil.copy(SAMPLE_IMAGES / "Corn" / "r_9_100.jpg", graph.source / "Corn" / "new.jpg")
    shutil.copy(SAMPLE_IMAGES / "Kaki" / "r_9_100.jpg", graph.source / "Kaki" / "r_0_100.jpg")
    result = graph.materialize(["raw_images", "mobilenet_features"])
    assert counts(result) == {
        "read": 3,
        "unchanged": N_IMAGES - 3,
        "computed": 2,
        "reused": N_IMAGES - 2,
    }
    after = features(graph)
    expected = dict(before)
    expected["Lemon/renamed.jpg"] = expected.pop("Lemon/r_0_100.jpg")
    del expected["Banana/r_0_100.jpg"]
    assert after.keys() == {*expected, "Corn/new.jpg"}
    assert after["Kaki/r_0_100.jpg"] != before["Kaki/r_0_100.jpg"]
    del expected["Kaki/r_0_100.jpg"]
    assert expected.items() <= after.items()

    everything = Graph(graph.source, tmp_path / "fresh lake")
    everything.materialize(["raw_images", "mobilenet_model", "mobilenet_features"])
    assert features(everything) == after


def test_unchanged_weights_are_converted_once_and_a_damaged_flatbuffer_again(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)

    def converted() -> bool:
        """Whether TensorFlow was at work, in a run that gives the same flatbuffer."""
        before = graph.lake.current("mobilenet_model")
        result = graph.materialize(["mobilenet_model"])
        after = graph.lake.current("mobilenet_model")
        (event,) = result.asset_materializations_for_node("mobilenet_model")
        reused = bool(event.metadata["reused"].value)
        assert (after == before) is reused  # what is unchanged is not published anew
        assert after.data_version == before.data_version
        flatbuffer = (Path(after.folder) / "mobilenet_v2.tflite").read_bytes()
        assert hashlib.sha256(flatbuffer).hexdigest() == after.facts["fingerprint"]
        assert all(check.passed for check in result.get_asset_check_evaluations())
        return not reused

    assert not converted()
    (Path(graph.lake.current("mobilenet_model").folder) / "mobilenet_v2.tflite").write_bytes(b"damaged")
    assert converted()


def test_one_new_photo_changes_the_data_versions_from_there_on_and_removed_ones_disappear(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    before = {asset: graph.lake.current(asset).data_version for asset in ASSETS}
    (graph.source / "Banana" / "broken.jpg").unlink()
    removed = graph.source / "Lemon" / "r_0_100.jpg"
    shutil.move(removed, graph.source / "Lemon" / "renamed.jpg")
    selection = ["raw_images", "mobilenet_features"]
    graph.materialize(selection)
    for asset in selection:
        assert graph.lake.current(asset).data_version != before[asset]
    paths = graph.rows("mobilenet_features")["path"].to_pylist()
    assert "Lemon/renamed.jpg" in paths
    assert "Lemon/r_0_100.jpg" not in paths


def test_settings_that_change_the_data_change_its_version_and_others_do_not(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)

    def version_after(asset: str, config: dict[str, object]) -> str:
        graph.materialize([asset], {asset: config})
        return graph.lake.current(asset).data_version

    everything = graph.lake.current("pca_model").data_version
    assert version_after("pca_model", {"n_components": 500}) == everything  # there are only 37
    five = version_after("pca_model", {"n_components": 5})
    assert five != everything
    ratios = PCAModel.load(f"{graph.lake.current('pca_model').folder}/pca_model").explainedVariance
    target = float(ratios.toArray().sum()) - 1e-9
    assert version_after("pca_model", {"target_variance": target}) == five
    vector = version_after("pca_features_csv", {"layout": "vector"})
    assert version_after("pca_features_csv", {"layout": "columns"}) != vector


def test_the_vector_layout_is_published_under_the_same_name(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    result = graph.materialize(["pca_features_csv"], {"pca_features_csv": {"layout": "vector"}})
    assert all(e.passed for e in result.get_asset_check_evaluations())
    assert graph.results.read_text(encoding="utf-8").startswith("path,label,pcaFeatures\n")


def test_a_lake_on_s3_gets_the_same_results(spark: SparkSession, s3: str, materialized: Materialized) -> None:
    boto3.client("s3").create_bucket(
        Bucket="lakes", CreateBucketConfiguration={"LocationConstraint": "eu-west-3"}
    )
    settings = Settings(images=str(materialized.graph.source), lake="s3://lakes/lake", weights="untrained")
    result = dg.materialize(
        cast("Sequence[dg.AssetsDefinition]", GRAPH),
        resources=resources(settings),
        run_config=run_config(ANY_CLASSIFIER),
    )
    assert result.success
    with fsspec.open("s3://lakes/lake/pca_features_csv/results.parquet", "rb") as file:
        found = pq.read_table(file)
    expected = pq.read_table(materialized.graph.results.with_suffix(".parquet"))
    assert found["path"] == expected["path"]
    np.testing.assert_allclose(found["pc_1"].to_numpy(), expected["pc_1"].to_numpy(), rtol=1e-6, atol=1e-6)


def test_an_asset_without_its_input_says_which_to_materialize_first(
    spark: SparkSession, tmp_path: Path, materialized: Materialized
) -> None:
    graph = Graph(materialized.graph.source, tmp_path / "empty")
    with pytest.raises(Exception, match=r"no published version of scaled_features. Materialize"):
        graph.materialize(["pca_model"])


def test_a_failing_stage_leaves_the_published_version_and_no_rubbish(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    before = graph.lake.current("mobilenet_features")
    shutil.copy(SAMPLE_IMAGES / "Corn" / "r_9_100.jpg", graph.source / "Corn" / "new.jpg")
    graph.materialize(["raw_images"])
    for uri in graph.lake.current("raw_images").table.uris:
        flip_bits_of_the_pictures(Path(uri))
    with pytest.raises(Exception, match=r"is damaged.*made anew when raw_images is materialized"):
        graph.materialize(["mobilenet_features"])
    assert graph.lake.current("mobilenet_features") == before
    versions = [folder.name for folder in (graph.lake_root / "mobilenet_features/_versions").iterdir()]
    assert versions == [before.name]

    # What was found damaged is read from the source by the next run, which then has all it needs.
    result = graph.materialize(["raw_images", "mobilenet_features"])
    assert counts(result)["read"] == 1
    assert counts(result)["computed"] == 1
    assert len(graph.rows("mobilenet_features")) == N_IMAGES + 1


def flip_bits_of_the_pictures(file: Path) -> None:
    """64 bytes in the middle of the column that has the pictures."""
    column = pq.ParquetFile(file).metadata.row_group(0).column(2)
    assert column.path_in_schema == "content"
    content = bytearray(file.read_bytes())
    start = column.data_page_offset + column.total_compressed_size // 2
    content[start : start + 64] = bytes(byte ^ 0xFF for byte in content[start : start + 64])
    file.write_bytes(content)


def test_a_damaged_network_is_named_before_a_stage_fails_over_it(
    materialized: Materialized, tmp_path: Path
) -> None:
    graph = materialized.graph.copy(tmp_path)
    (Path(graph.lake.current("mobilenet_model").folder) / "mobilenet_v2.tflite").write_bytes(b"changed")
    (graph.source / "Banana" / "r_0_100.jpg").unlink()
    with pytest.raises(
        Exception, match=r"mobilenet_model in .* is damaged.*Materialize mobilenet_model again"
    ):
        graph.materialize(["raw_images", "mobilenet_features"])


def test_every_asset_explains_itself() -> None:
    for asset in ASSETS:
        spec = defs.resolve_asset_graph().get(dg.AssetKey(asset)).assets_def.specs_by_key[dg.AssetKey(asset)]
        assert spec.description
        assert spec.group_name == "fruits"
        assert spec.owners
        assert spec.kinds
        assert spec.code_version


def test_moments_of_the_published_features_are_those_in_the_scaler(materialized: Materialized) -> None:
    features = np.array(materialized.graph.rows("mobilenet_features")["features"].to_pylist(), np.float64)
    shown = materialized.metadata("scaled_features")
    assert shown["constant_features"] == (moments_of(features, full=False).std == 0).sum()
