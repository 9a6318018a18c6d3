"""Saved models are Spark ML's, whichever Spark opens or has written them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
from pyspark.ml.feature import PCA, PCAModel, StandardScaler, StandardScalerModel
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from fruits_assets.stages.ml_models import save_logistic_regression, save_pca, save_standard_scaler, saved
from fruits_assets_tests.emr.cluster_environment import ClusterEnvironment

N_FEATURES, N_LABELS = 5, 3
_RANDOM = np.random.default_rng(1)
MEAN, STD = _RANDOM.normal(size=(2, N_FEATURES))
COMPONENTS, RATIOS = _RANDOM.normal(size=(N_FEATURES, 2)), np.array([0.7, 0.1])
COEFFICIENTS, INTERCEPTS = _RANDOM.normal(size=(N_LABELS, 2)), _RANDOM.normal(size=N_LABELS)
# In the cluster's own Python: what a model of each kind has in it.
_TELL = """
import json, sys
from pyspark.ml.classification import LogisticRegressionModel
from pyspark.ml.feature import PCAModel, StandardScalerModel
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
folder = sys.argv[1]
scaler, pca = StandardScalerModel.load(f"{folder}/scaler"), PCAModel.load(f"{folder}/pca")
classifier = LogisticRegressionModel.load(f"{folder}/classifier")
print(json.dumps([
    scaler.mean.toArray().tolist(), scaler.std.toArray().tolist(), pca.pc.toArray().tolist(),
    pca.explainedVariance.toArray().tolist(), classifier.coefficientMatrix.toArray().tolist(),
    classifier.interceptVector.toArray().tolist(), classifier.numClasses, scaler.getWithStd(), pca.getK(),
]))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of each kind."""
    folder = tmp_path_factory.mktemp("models")
    save_standard_scaler(f"{folder}/scaler", MEAN, STD, with_mean=True, with_std=False)
    save_pca(f"{folder}/pca", COMPONENTS, RATIOS)
    save_logistic_regression(f"{folder}/classifier", COEFFICIENTS, INTERCEPTS, 1e-5)
    return folder


@pytest.mark.slow
def test_spark_ml_loads_what_was_saved(spark: SparkSession, models: Path) -> None:
    scaler = StandardScalerModel.load(f"{models}/scaler")
    np.testing.assert_array_equal([scaler.mean.toArray(), scaler.std.toArray()], [MEAN, STD])
    assert (scaler.getWithMean(), scaler.getWithStd()) == (True, False)
    assert (scaler.getInputCol(), scaler.getOutputCol()) == ("features", "scaled_features")

    pca = PCAModel.load(f"{models}/pca")
    np.testing.assert_array_equal(pca.pc.toArray(), COMPONENTS)
    np.testing.assert_array_equal(pca.explainedVariance.toArray(), RATIOS)
    assert (pca.getK(), pca.getInputCol(), pca.getOutputCol()) == (2, "scaled_features", "pca_features")

    classifier = LogisticRegressionModel.load(f"{models}/classifier")
    np.testing.assert_array_equal(classifier.coefficientMatrix.toArray(), COEFFICIENTS)
    np.testing.assert_array_equal(classifier.interceptVector.toArray(), INTERCEPTS)
    assert (classifier.numClasses, classifier.numFeatures) == (N_LABELS, 2)
    assert (classifier.getFamily(), classifier.getFeaturesCol()) == ("multinomial", "pca_features")
    assert (classifier.getRegParam(), classifier.getStandardization()) == (1e-5, False)


@pytest.mark.slow
def test_the_clusters_spark_ml_loads_it_too(cluster_environment: ClusterEnvironment, models: Path) -> None:
    options = f"--conf 'spark.driver.extraJavaOptions={cluster_environment.java_options()}'"
    told = subprocess.run(
        [cluster_environment.python, "-c", _TELL, models],
        cwd=models,
        env={**cluster_environment.variables, "PYSPARK_SUBMIT_ARGS": f"{options} pyspark-shell"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    arrays = [MEAN, STD, COMPONENTS, RATIOS, COEFFICIENTS, INTERCEPTS]
    assert json.loads(told.stdout) == [*(array.tolist() for array in arrays), N_LABELS, False, 2]


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> DataFrame:
    values = [
        ([float(x) for x in row], float(i % N_LABELS)) for i, row in enumerate(_RANDOM.normal(size=(20, 4)))
    ]
    return spark.createDataFrame(values, ["x", "label"]).withColumn("x", array_to_vector(F.col("x")))


Fitted = Callable[[DataFrame], Any]


def a_scaler(rows: DataFrame) -> StandardScalerModel:
    return StandardScaler(withMean=True, inputCol="x", outputCol="y").fit(rows)


def a_pca(rows: DataFrame) -> PCAModel:
    return PCA(k=3, inputCol="x", outputCol="y").fit(rows)


def a_classifier(rows: DataFrame) -> Any:
    return LogisticRegression(family="multinomial", featuresCol="x", maxIter=2).fit(rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fit", "vectors", "save"),
    [
        (
            a_scaler,
            ("mean", "std"),
            lambda uri: save_standard_scaler(uri, MEAN, STD, True, True),
        ),
        (
            a_pca,
            ("pc", "explainedVariance"),
            lambda uri: save_pca(uri, COMPONENTS, RATIOS),
        ),
        (
            a_classifier,
            ("coefficientMatrix", "interceptVector"),
            lambda uri: save_logistic_regression(uri, COEFFICIENTS, INTERCEPTS, 0.1),
        ),
    ],
)
def test_what_spark_ml_has_saved_is_read_and_what_is_saved_here_looks_the_same(
    rows: DataFrame, tmp_path: Path, fit: Fitted, vectors: Sequence[str], save: Callable[[str], None]
) -> None:
    model = fit(rows)
    model.save(str(tmp_path / "theirs"))
    params, data = saved(str(tmp_path / "theirs"))
    for name in vectors:
        np.testing.assert_array_equal(data[name], getattr(model, name).toArray())
    assert {param.name: value for param, value in model.extractParamMap().items()}.items() >= params.items()

    save(str(tmp_path / "ours"))
    (ours,), (theirs,) = (list((tmp_path / of / "data").glob("*.parquet")) for of in ("ours", "theirs"))
    of_spark = b"org.apache.spark.sql.parquet.row.metadata"
    found, expected = (json.loads(pq.read_metadata(file).metadata[of_spark]) for file in (ours, theirs))
    assert by_name(found) == by_name(expected)
    assert saved(str(tmp_path / "ours"))[1].keys() == data.keys()


def by_name(schema: dict[str, Any]) -> dict[str, Any]:
    """The columns of a schema in JSON, whose order is nobody's business."""
    return {field["name"]: field for field in schema["fields"]}
