"""Scaling and PCA, against NumPy and against Spark ML on the same data."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pyspark.ml.feature import PCA, PCAModel, StandardScaler, StandardScalerModel
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from fruits_assets.stages import mobilenet_features, pca_features_csv, pca_model, scaled_features
from fruits_assets.stages.arrow import fixed_length_arrays
from fruits_assets.stages.moments import moments_of
from fruits_assets.stages.scaling import SCALER
from fruits_assets.stages.stage import StageInputError
from fruits_assets.stages.stored import Stored, StoredTable
from fruits_assets_tests.stages.running import (
    Ran,
    as_dataframe,
    run_stage,
    stored_rows_of_file,
    write_table,
)

N_FEATURES = 1280
N_IMAGES = 60
CONSTANT = 17
BOTH = scaled_features.Params(with_mean=True, with_std=True)


@pytest.fixture(scope="module")
def features() -> NDArray[np.float32]:
    """Like a network's output: positive, of very different sizes, correlated, one column constant."""
    rng = np.random.default_rng(5)
    hidden = rng.normal(size=(N_IMAGES, 8)) @ rng.normal(size=(8, N_FEATURES))
    values = np.abs(hidden + 0.3 * rng.normal(size=hidden.shape)) * rng.uniform(0.01, 3, N_FEATURES)
    values[:, CONSTANT] = 0.7
    return values.astype(np.float32)


def write_features(values: NDArray[np.float32], asset: Path, n_files: int) -> Stored:
    """A features table whose files take turns: each has paths from first to last."""
    n_rows = len(values)
    names = [
        pa.array(column)
        for column in (
            [f"{i:04}.jpg" for i in range(n_rows)],
            [f"kind {i % 3}" for i in range(n_rows)],
            [f"{i:064x}" for i in range(n_rows)],
        )
    ]
    table = pa.table([*names, fixed_length_arrays(values)], schema=mobilenet_features.SCHEMA)
    parts = [table.take(list(range(i, n_rows, n_files))) for i in range(n_files)]
    return Stored(write_table(asset, *parts), str(asset))


@pytest.fixture(scope="module")
def stored(
    spark: SparkSession, features: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Stored]:
    """All stages from features on, run once."""
    return run_stages(spark, features, tmp_path_factory.mktemp("pca"), n_files=3)


def run_stages(
    spark: SparkSession, features: NDArray[np.float32], root: Path, n_files: int
) -> dict[str, Stored]:
    """Write a features table in so many files and run all stages after it; what each has stored."""
    stored = {"mobilenet_features": write_features(features, root / "features", n_files)}
    stored["scaled_features"] = run_scaling(spark, stored, root / "scaled").stored
    stored["pca_model"] = run_pca(spark, stored, root / "pca", pca_model.Params(20, None)).stored
    stored["pca_features_csv"] = run_projection(spark, stored, root / "csv", "columns").stored
    return stored


def run_scaling(
    spark: SparkSession, inputs: Mapping[str, Stored], asset: Path, params: scaled_features.Params = BOTH
) -> Ran:
    return run_stage(spark, scaled_features.scaled_features, inputs, asset, params)


def run_pca(spark: SparkSession, inputs: Mapping[str, Stored], asset: Path, params: pca_model.Params) -> Ran:
    return run_stage(spark, pca_model.pca_model, inputs, asset, params)


def run_projection(
    spark: SparkSession, inputs: Mapping[str, Stored], asset: Path, layout: pca_features_csv.Layout
) -> Ran:
    params = pca_features_csv.Params(layout)
    return run_stage(spark, pca_features_csv.pca_features_csv, inputs, asset, params)


def column(table: DataFrame, name: str) -> NDArray[np.float64]:
    rows = table.sort("path").select(name).collect()
    return np.asarray([list(row[name]) for row in rows], dtype=np.float64)


def reference_scaled(features: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = features.astype(np.float64)
    std = exact.std(axis=0, ddof=1)
    std[CONSTANT] = np.inf
    scaled: NDArray[np.float64] = (exact - exact.mean(axis=0)) / std
    return scaled


def scaled_values(spark: SparkSession, stored: Mapping[str, Stored]) -> NDArray[np.float64]:
    return column(as_dataframe(spark, stored["scaled_features"].table), "scaled_features")


def test_scaling_is_numpys(
    spark: SparkSession, stored: dict[str, Stored], features: NDArray[np.float32]
) -> None:
    scaled = scaled_values(spark, stored)
    np.testing.assert_allclose(scaled, reference_scaled(features), atol=1e-6)
    assert not scaled[:, CONSTANT].any()


@pytest.mark.slow
def test_scaling_is_spark_mls(spark: SparkSession, stored: dict[str, Stored]) -> None:
    table = as_dataframe(spark, stored["mobilenet_features"].table)
    vectors = table.select("path", array_to_vector(F.col("features").cast("array<double>")).alias("x"))
    scaler = StandardScaler(withMean=True, withStd=True, inputCol="x", outputCol="y").fit(vectors)
    expected = column(scaler.transform(vectors).select("path", vector_to_array(F.col("y")).alias("y")), "y")
    np.testing.assert_allclose(scaled_values(spark, stored), expected, atol=1e-5)


@pytest.mark.slow
def test_anyone_can_load_the_scaler_and_gets_the_same_table(
    spark: SparkSession, stored: dict[str, Stored]
) -> None:
    model = StandardScalerModel.load(f"{stored['scaled_features'].folder}/{SCALER}")
    assert (model.getWithMean(), model.getWithStd()) == (True, True)
    table = as_dataframe(spark, stored["mobilenet_features"].table)
    vectors = table.withColumn("features", array_to_vector(F.col("features").cast("array<double>")))
    transformed = model.transform(vectors).withColumn("y", vector_to_array(F.col("scaled_features")))
    np.testing.assert_allclose(scaled_values(spark, stored), column(transformed, "y"), atol=1e-5)


@pytest.mark.parametrize(("with_mean", "with_std"), [(False, True), (True, False)])
def test_each_half_of_the_scaling_can_be_switched_off(
    spark: SparkSession,
    stored: dict[str, Stored],
    features: NDArray[np.float32],
    tmp_path: Path,
    with_mean: bool,
    with_std: bool,
) -> None:
    params = scaled_features.Params(with_mean, with_std)
    scaled_table = run_scaling(spark, stored, tmp_path, params).table()
    scaled = column(as_dataframe(spark, scaled_table), "scaled_features")
    exact = features.astype(np.float64)
    mean = exact.mean(axis=0) if with_mean else 0.0
    std = exact.std(axis=0, ddof=1) if with_std else np.ones(N_FEATURES)
    is_varying = np.arange(N_FEATURES) != CONSTANT
    expected = (exact - mean)[:, is_varying] / std[is_varying]
    np.testing.assert_allclose(scaled[:, is_varying], expected, rtol=1e-5, atol=1e-6)


def test_components_and_variances_are_those_of_numpys_svd(
    spark: SparkSession, stored: dict[str, Stored]
) -> None:
    scaled = scaled_values(spark, stored)
    _, singular, rows = np.linalg.svd(scaled - scaled.mean(axis=0), full_matrices=False)
    ratios = singular**2 / (singular**2).sum()
    model = PCAModel.load(f"{stored['pca_model'].folder}/{pca_model.MODEL}")
    np.testing.assert_allclose(model.explainedVariance.toArray(), ratios[:20], rtol=1e-9)
    overlap = np.abs(np.sum(model.pc.toArray() * rows[:20].T, axis=0))
    np.testing.assert_allclose(overlap, 1, atol=1e-9)


@pytest.mark.slow
def test_components_and_variances_are_spark_mls(spark: SparkSession, stored: dict[str, Stored]) -> None:
    table = as_dataframe(spark, stored["scaled_features"].table)
    vectors = table.select(array_to_vector(F.col("scaled_features").cast("array<double>")).alias("x"))
    expected = PCA(k=20, inputCol="x", outputCol="y").fit(vectors)
    model = PCAModel.load(f"{stored['pca_model'].folder}/{pca_model.MODEL}")
    np.testing.assert_allclose(
        model.explainedVariance.toArray(), expected.explainedVariance.toArray(), rtol=1e-9
    )
    ours, theirs = model.pc.toArray(), expected.pc.toArray()
    signs = np.sign(np.sum(ours * theirs, axis=0))
    np.testing.assert_allclose(ours, theirs * signs, atol=1e-6)


@pytest.mark.slow
def test_the_saved_model_gives_the_scores_in_the_csv_file(
    spark: SparkSession, stored: dict[str, Stored]
) -> None:
    table = as_dataframe(spark, stored["scaled_features"].table)
    vectors = table.withColumn(
        "scaled_features", array_to_vector(F.col("scaled_features").cast("array<double>"))
    )
    model = PCAModel.load(f"{stored['pca_model'].folder}/{pca_model.MODEL}")
    scores = model.transform(vectors).withColumn("y", vector_to_array(F.col("pca_features")))
    with Path(stored["pca_features_csv"].folder, "results.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "label", *(f"pc_{i}" for i in range(1, 21))]
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    found = np.array([[float(cell) for cell in row[2:]] for row in rows])
    np.testing.assert_allclose(found, column(scores, "y"), rtol=1e-9, atol=1e-9)


def test_csv_and_parquet_hold_the_same_doubles_to_the_last_bit(stored: dict[str, Stored]) -> None:
    folder = Path(stored["pca_features_csv"].folder)
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for expected, row in zip(pq.read_table(folder / "results.parquet").to_pylist(), rows, strict=True):
        assert {**row, **{k: float(v) for k, v in row.items() if k.startswith("pc_")}} == expected


def test_the_sign_makes_the_largest_entry_of_each_component_positive(stored: dict[str, Stored]) -> None:
    components = PCAModel.load(f"{stored['pca_model'].folder}/{pca_model.MODEL}").pc.toArray()
    largest = np.abs(components).argmax(axis=0)
    assert (components[largest, np.arange(20)] > 0).all()


def test_another_partitioning_gives_the_same_file(
    spark: SparkSession, stored: dict[str, Stored], features: NDArray[np.float32], tmp_path: Path
) -> None:
    others = run_stages(spark, features, tmp_path, n_files=11)
    ours, first = (
        pq.read_table(Path(place["pca_features_csv"].folder) / "results.parquet")
        for place in (others, stored)
    )
    assert ours["path"] == first["path"]
    for i in range(1, 21):
        np.testing.assert_allclose(
            ours[f"pc_{i}"].to_numpy(), first[f"pc_{i}"].to_numpy(), rtol=1e-6, atol=1e-6
        )


def test_data_of_few_dimensions_gets_the_components_that_exist(
    spark: SparkSession, features: NDArray[np.float32], tmp_path: Path
) -> None:
    stored = {"mobilenet_features": write_features(features[:5], tmp_path / "features", 2)}
    stored["scaled_features"] = run_scaling(spark, stored, tmp_path / "scaled").stored
    result = run_pca(spark, stored, tmp_path / "pca", pca_model.Params(100, None)).result
    assert result.row_count == result.metadata["rank"] == 4
    assert result.metadata["total_explained_variance"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("target", "expected"), [(0.5, 1), (0.6, 1), (0.61, 2), (0.9, 2), (0.95, 3), (1.0, 3)]
)
def test_a_target_variance_picks_the_fewest_components_that_reach_it(target: float, expected: int) -> None:
    ratios = np.array([0.6, 0.3, 0.1])
    assert pca_model.choose_n_components(ratios, pca_model.Params(None, target)) == expected


def test_identical_images_have_no_component_and_the_error_says_so() -> None:
    with pytest.raises(StageInputError, match="same features"):
        pca_model.decompose(moments_of(np.ones((4, 6)), full=True))


def test_a_single_image_is_an_error_before_any_model_is_written(
    spark: SparkSession, features: NDArray[np.float32], tmp_path: Path
) -> None:
    stored = {"mobilenet_features": write_features(features[:1], tmp_path / "features", 1)}
    with pytest.raises(StageInputError, match="at least 2"):
        run_scaling(spark, stored, tmp_path / "scaled")
    assert not (tmp_path / "scaled").exists()


def test_the_vector_layout_is_one_bracketed_list_that_reads_back_exactly(
    spark: SparkSession, stored: dict[str, Stored], tmp_path: Path
) -> None:
    folder = run_projection(spark, stored, tmp_path, "vector").folder
    with (folder / "results.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "label", "pcaFeatures"]
    table = pq.read_table(folder / "results.parquet")
    for row, expected in zip(rows, table["pcaFeatures"].to_pylist(), strict=True):
        assert row[2].startswith("[")
        assert row[2].endswith("]")
        assert [float(number) for number in row[2][1:-1].split(",")] == expected


def test_a_csv_file_that_lost_its_end_is_reported_and_not_raised(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text('path,label,pc_1\n"a","b",1.5\n"c","d"\n')
    facts = pca_features_csv.describe_csv(str(file))
    assert facts["parse_error"]


# What a stage leaves behind, and how it divides the work -----------------------------------------


def test_every_stage_names_exactly_the_files_that_it_left(stored: dict[str, Stored]) -> None:
    for name in ("scaled_features", "pca_model", "pca_features_csv"):
        table = stored[name].table
        left = {
            str(path) for path in Path(table.uri).rglob("*.parquet") if "model" not in path.parent.parent.name
        }
        assert set(table.uris) == left
        for file, uri in zip(table.files, table.uris, strict=True):
            assert file.size_bytes == Path(uri).stat().st_size
            assert file.n_rows == len(stored_rows_of_file(uri))


def test_the_table_of_components_has_the_columns_of_the_model(stored: dict[str, Stored]) -> None:
    (uri,) = stored["pca_model"].table.uris
    rows = stored_rows_of_file(uri)
    model = PCAModel.load(f"{stored['pca_model'].folder}/{pca_model.MODEL}")
    assert [row["component"] for row in rows] == list(range(1, 21))
    assert [row["explained_variance_ratio"] for row in rows] == model.explainedVariance.toArray().tolist()
    assert [row["loadings"] for row in rows] == model.pc.toArray().T.tolist()


def test_the_features_are_measured_as_they_were_stored(
    spark: SparkSession, stored: dict[str, Stored]
) -> None:
    """The check is of the file, so that a fault of the writing would be seen."""
    for uri in stored["scaled_features"].table.uris:
        values = np.array([row["scaled_features"] for row in stored_rows_of_file(uri)])
        found = scaled_features.moments_of_file(uri)
        assert found.count == len(values)
        np.testing.assert_allclose(found.mean, values.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(found.std, values.std(axis=0, ddof=1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_cores", [1, 3, 8, 1000])
def test_ranges_of_paths_hold_every_row_once_wherever_the_rows_are(tmp_path: Path, n_cores: int) -> None:
    """Files that overlap and one that does not, in row groups of which some have a single path."""
    rng = np.random.default_rng(n_cores)
    names = [f"{kind}/{i:03}.jpg" for kind in ("Äpfel", "kiwi", "🍎") for i in range(40)]
    shuffled = rng.permutation(names[:-20]).tolist()
    files = [
        file
        for paths, per_group in (
            (shuffled[:60], 7),
            (shuffled[60:], 1),
            (names[-20:], 6),
        )
        for file in write_table(tmp_path, pa.table({"path": paths}), rows_per_group=per_group).files
    ]
    table = StoredTable(str(tmp_path), files)
    ranges = pca_features_csv.path_ranges(table, n_cores)
    assert len(ranges) > 1 or n_cores == 1
    assert [rows.start for rows in ranges] == sorted({rows.start for rows in ranges})
    found: Counter[str] = Counter()
    for rows in ranges:
        for uri, numbers in rows.groups.items():
            assert len(set(numbers)) == len(numbers)
            for number in numbers:
                paths = pq.ParquetFile(uri).read_row_group(number)["path"].to_pylist()
                found.update(p for p in paths if p >= rows.start and (rows.end is None or p < rows.end))
    assert found == Counter(names)
