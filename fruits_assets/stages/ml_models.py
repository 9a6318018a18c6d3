"""Genuine Spark ML models from NumPy results, so that anyone can load and use them."""

from __future__ import annotations

from typing import Any

from pyspark.ml.classification import LogisticRegressionModel
from pyspark.ml.common import _py2java
from pyspark.ml.feature import PCAModel, StandardScalerModel
from pyspark.ml.linalg import DenseMatrix, DenseVector
from pyspark.sql import SparkSession

from fruits_assets.stages.moments import Matrix, Moments


def standard_scaler_model(
    spark: SparkSession, moments: Moments, with_mean: bool, with_std: bool
) -> StandardScalerModel:
    """A StandardScalerModel with these means and standard deviations, from `features` on."""
    model = StandardScalerModel(
        _new_java_model(
            spark,
            "feature.StandardScalerModel",
            DenseVector(moments.std),
            DenseVector(moments.mean),
        )
    )
    model._resetUid("fruits_standard_scaler")
    model._set(withMean=with_mean, withStd=with_std, inputCol="features", outputCol="scaled_features")
    return model


def pca_model(spark: SparkSession, components: Matrix, explained_variance_ratio: Matrix) -> PCAModel:
    """A PCAModel with these components, (n_features, n_components), each a column."""
    n_features, n_components = components.shape
    pc = DenseMatrix(n_features, n_components, components.ravel(order="F"))
    java_model = _new_java_model(spark, "feature.PCAModel", pc, DenseVector(explained_variance_ratio))
    model = PCAModel(java_model)
    model._resetUid("fruits_pca")
    model._set(k=n_components, inputCol="scaled_features", outputCol="pca_features")
    return model


def logistic_regression_model(
    spark: SparkSession, coefficients: Matrix, intercepts: Matrix, regularisation: float
) -> LogisticRegressionModel:
    """A multinomial LogisticRegressionModel of (n_labels, n_components) and (n_labels,), from scores on."""
    n_labels, n_components = coefficients.shape
    matrix = DenseMatrix(n_labels, n_components, coefficients.ravel(order="F"))
    name = "classification.LogisticRegressionModel"
    model = LogisticRegressionModel(
        _new_java_model(spark, name, matrix, DenseVector(intercepts), n_labels, True)
    )
    model._resetUid("fruits_classifier")
    model._set(
        featuresCol="pca_features", family="multinomial", regParam=regularisation, standardization=False
    )
    return model


def _new_java_model(spark: SparkSession, name: str, *arguments: Any) -> Any:
    # The constructors are for Spark's own packages in Scala, and public for the JVM.
    context: Any = spark.sparkContext
    java_class = context._jvm.org.apache.spark.ml
    for part in name.split("."):
        java_class = getattr(java_class, part)
    return java_class(name.rpartition(".")[2], *(_py2java(context, argument) for argument in arguments))
