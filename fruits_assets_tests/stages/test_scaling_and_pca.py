"""Scaling and PCA, against NumPy and against Spark ML on the same data."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pyspark.ml.feature import PCA, PCAModel, StandardScaler, StandardScalerModel
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from fruits_assets.stages import mobilenet_features, pca_features_csv, pca_model, scaled_features
from fruits_assets.stages.moments import moments_of
from fruits_assets.stages.stage import StageInputError

N_FEATURES = 1280
N_IMAGES = 60
CONSTANT = 17


@pytest.fixture(scope="module")
def features() -> NDArray[np.float32]:
    """Like a network's output: positive, of very different sizes, correlated, one column constant."""
    rng = np.random.default_rng(5)
    hidden = rng.normal(size=(N_IMAGES, 8)) @ rng.normal(size=(8, N_FEATURES))
    values = np.abs(hidden + 0.3 * rng.normal(size=hidden.shape)) * rng.uniform(0.01, 3, N_FEATURES)
    values[:, CONSTANT] = 0.7
    return values.astype(np.float32)


def write_features(spark: SparkSession, values: NDArray[np.float32], folder: Path, n_parts: int) -> str:
    rows = [(f"{i:04}.jpg", f"kind {i % 3}", f"{i:064x}", row.tolist()) for i, row in enumerate(values)]
    table = spark.sparkContext.parallelize(rows, n_parts).toDF(mobilenet_features.FEATURES_SCHEMA)
    table.write.parquet(str(folder / mobilenet_features.FEATURES))
    return str(folder)


@pytest.fixture(scope="module")
def folders(
    spark: SparkSession, features: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """All stages from features on, run once."""
    return run_stages(spark, features, tmp_path_factory.mktemp("pca"), n_parts=3)


def run_stages(
    spark: SparkSession, features: NDArray[np.float32], root: Path, n_parts: int
) -> dict[str, str]:
    """Write a features table in so many parts and run all stages after it; the folder of each."""
    uris = {"mobilenet_features": write_features(spark, features, root / "features", n_parts)}
    for name in ("scaled_features", "pca_model", "pca_features_csv"):
        uris[name] = str(root / name)
    scaled_features.scaled_features(spark, uris, uris["scaled_features"], scaled_features.Params())
    pca_model.pca_model(spark, uris, uris["pca_model"], pca_model.Params(20, None))
    pca_features_csv.pca_features_csv(
        spark, uris, uris["pca_features_csv"], pca_features_csv.Params("columns")
    )
    return uris


def column(table: DataFrame, name: str) -> NDArray[np.float64]:
    rows = table.sort("path").select(name).collect()
    return np.asarray([list(row[name]) for row in rows], dtype=np.float64)


def read(spark: SparkSession, uri: str, table: str) -> DataFrame:
    return spark.read.parquet(f"{uri}/{table}")


def reference_scaled(features: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = features.astype(np.float64)
    std = exact.std(axis=0, ddof=1)
    std[CONSTANT] = np.inf
    scaled: NDArray[np.float64] = (exact - exact.mean(axis=0)) / std
    return scaled


def scaled_values(spark: SparkSession, folders: dict[str, str]) -> NDArray[np.float64]:
    table = read(spark, folders["scaled_features"], scaled_features.SCALED_FEATURES)
    return column(table, "scaled_features")


def test_scaling_is_numpys(
    spark: SparkSession, folders: dict[str, str], features: NDArray[np.float32]
) -> None:
    scaled = scaled_values(spark, folders)
    np.testing.assert_allclose(scaled, reference_scaled(features), atol=1e-6)
    assert not scaled[:, CONSTANT].any()


def test_scaling_is_spark_mls(spark: SparkSession, folders: dict[str, str]) -> None:
    table = read(spark, folders["mobilenet_features"], mobilenet_features.FEATURES)
    vectors = table.select("path", array_to_vector(F.col("features").cast("array<double>")).alias("x"))
    scaler = StandardScaler(withMean=True, withStd=True, inputCol="x", outputCol="y").fit(vectors)
    expected = column(scaler.transform(vectors).select("path", vector_to_array(F.col("y")).alias("y")), "y")
    np.testing.assert_allclose(scaled_values(spark, folders), expected, atol=1e-5)


def test_anyone_can_load_the_scaler_and_gets_the_same_table(
    spark: SparkSession, folders: dict[str, str]
) -> None:
    model = StandardScalerModel.load(f"{folders['scaled_features']}/{scaled_features.SCALER}")
    assert (model.getWithMean(), model.getWithStd()) == (True, True)
    table = read(spark, folders["mobilenet_features"], mobilenet_features.FEATURES)
    vectors = table.withColumn("features", array_to_vector(F.col("features").cast("array<double>")))
    transformed = model.transform(vectors).withColumn("y", vector_to_array(F.col("scaled_features")))
    np.testing.assert_allclose(scaled_values(spark, folders), column(transformed, "y"), atol=1e-5)


@pytest.mark.parametrize(("with_mean", "with_std"), [(False, True), (True, False)])
def test_each_half_of_the_scaling_can_be_switched_off(
    spark: SparkSession,
    folders: dict[str, str],
    features: NDArray[np.float32],
    tmp_path: Path,
    with_mean: bool,
    with_std: bool,
) -> None:
    params = scaled_features.Params(with_mean, with_std)
    scaled_features.scaled_features(spark, folders, str(tmp_path), params)
    scaled = column(read(spark, str(tmp_path), scaled_features.SCALED_FEATURES), "scaled_features")
    exact = features.astype(np.float64)
    mean = exact.mean(axis=0) if with_mean else 0.0
    std = exact.std(axis=0, ddof=1) if with_std else np.ones(N_FEATURES)
    is_varying = np.arange(N_FEATURES) != CONSTANT
    expected = (exact - mean)[:, is_varying] / std[is_varying]
    np.testing.assert_allclose(scaled[:, is_varying], expected, rtol=1e-5, atol=1e-6)


def test_components_and_variances_are_those_of_numpys_svd(
    spark: SparkSession, folders: dict[str, str]
) -> None:
    scaled = scaled_values(spark, folders)
    _, singular, rows = np.linalg.svd(scaled - scaled.mean(axis=0), full_matrices=False)
    ratios = singular**2 / (singular**2).sum()
    model = PCAModel.load(f"{folders['pca_model']}/{pca_model.MODEL}")
    np.testing.assert_allclose(model.explainedVariance.toArray(), ratios[:20], rtol=1e-9)
    overlap = np.abs(np.sum(model.pc.toArray() * rows[:20].T, axis=0))
    np.testing.assert_allclose(overlap, 1, atol=1e-9)


def test_components_and_variances_are_spark_mls(spark: SparkSession, folders: dict[str, str]) -> None:
    table = read(spark, folders["scaled_features"], scaled_features.SCALED_FEATURES)
    vectors = table.select(array_to_vector(F.col("scaled_features").cast("array<double>")).alias("x"))
    expected = PCA(k=20, inputCol="x", outputCol="y").fit(vectors)
    model = PCAModel.load(f"{folders['pca_model']}/{pca_model.MODEL}")
    np.testing.assert_allclose(
        model.explainedVariance.toArray(), expected.explainedVariance.toArray(), rtol=1e-9
    )
    ours, theirs = model.pc.toArray(), expected.pc.toArray()
    signs = np.sign(np.sum(ours * theirs, axis=0))
    np.testing.assert_allclose(ours, theirs * signs, atol=1e-6)


def test_the_saved_model_gives_the_scores_in_the_csv_file(
    spark: SparkSession, folders: dict[str, str]
) -> None:
    table = read(spark, folders["scaled_features"], scaled_features.SCALED_FEATURES)
    vectors = table.withColumn(
        "scaled_features", array_to_vector(F.col("scaled_features").cast("array<double>"))
    )
    model = PCAModel.load(f"{folders['pca_model']}/{pca_model.MODEL}")
    scores = model.transform(vectors).withColumn("y", vector_to_array(F.col("pca_features")))
    with Path(folders["pca_features_csv"], "results.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "label", *(f"pc_{i}" for i in range(1, 21))]
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    found = np.array([[float(cell) for cell in row[2:]] for row in rows])
    np.testing.assert_allclose(found, column(scores, "y"), rtol=1e-9, atol=1e-9)


def test_csv_and_parquet_hold_the_same_doubles_to_the_last_bit(folders: dict[str, str]) -> None:
    folder = Path(folders["pca_features_csv"])
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for expected, row in zip(pq.read_table(folder / "results.parquet").to_pylist(), rows, strict=True):
        assert {**row, **{k: float(v) for k, v in row.items() if k.startswith("pc_")}} == expected


def test_the_sign_makes_the_largest_entry_of_each_component_positive(folders: dict[str, str]) -> None:
    components = PCAModel.load(f"{folders['pca_model']}/{pca_model.MODEL}").pc.toArray()
    largest = np.abs(components).argmax(axis=0)
    assert (components[largest, np.arange(20)] > 0).all()


def test_another_partitioning_gives_the_same_file(
    spark: SparkSession, folders: dict[str, str], features: NDArray[np.float32], tmp_path: Path
) -> None:
    uris = run_stages(spark, features, tmp_path, n_parts=11)
    ours, first = (
        pq.read_table(Path(place["pca_features_csv"]) / "results.parquet") for place in (uris, folders)
    )
    assert ours["path"] == first["path"]
    for i in range(1, 21):
        np.testing.assert_allclose(
            ours[f"pc_{i}"].to_numpy(), first[f"pc_{i}"].to_numpy(), rtol=1e-6, atol=1e-6
        )


def test_data_of_few_dimensions_gets_the_components_that_exist(
    spark: SparkSession, features: NDArray[np.float32], tmp_path: Path
) -> None:
    uris = {
        "mobilenet_features": write_features(spark, features[:5], tmp_path / "features", 2),
        "scaled_features": str(tmp_path / "scaled"),
    }
    scaled_features.scaled_features(spark, uris, uris["scaled_features"], scaled_features.Params())
    result = pca_model.pca_model(spark, uris, str(tmp_path / "pca"), pca_model.Params(100, None))
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
    uris = {"mobilenet_features": write_features(spark, features[:1], tmp_path / "features", 1)}
    with pytest.raises(StageInputError, match="at least 2"):
        scaled_features.scaled_features(spark, uris, str(tmp_path / "scaled"), scaled_features.Params())
    assert not (tmp_path / "scaled").exists()


def test_the_vector_layout_is_one_bracketed_list_that_reads_back_exactly(
    spark: SparkSession, folders: dict[str, str], tmp_path: Path
) -> None:
    pca_features_csv.pca_features_csv(spark, folders, str(tmp_path), pca_features_csv.Params("vector"))
    with (tmp_path / "results.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "label", "pcaFeatures"]
    table = pq.read_table(tmp_path / "results.parquet")
    for row, expected in zip(rows, table["pcaFeatures"].to_pylist(), strict=True):
        assert row[2].startswith("[")
        assert row[2].endswith("]")
        assert [float(number) for number in row[2][1:-1].split(",")] == expected


def test_a_csv_file_that_lost_its_end_is_reported_and_not_raised(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text('path,label,pc_1\n"a","b",1.5\n"c","d"\n')
    facts = pca_features_csv.describe_csv(str(file))
    assert facts["parse_error"]
