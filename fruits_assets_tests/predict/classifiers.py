"""A version of `fruit_classifier` as the asset publishes it: a genuine Spark ML model, and its references."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession
from upath import UPath

from fruits_assets.predict.predictor import CLASSES, CLASSIFIER, REFERENCES
from fruits_assets.resources.lake import Lake
from fruits_assets.resources.published import Version
from fruits_assets.stages.parquet import write_rows
from fruits_assets.stages.stage import StageResult, column_types
from fruits_assets.stages.stored import ROWS, Output
from fruits_assets_tests.graph import Graph

N_COMPONENTS = 10


def scores_of(graph: Graph) -> pa.Table:
    """path, label, sha256 and pca_features, the first scores of each photo, by path."""
    results = graph.rows("pca_features_csv")
    hashes = graph.rows("mobilenet_features").select(["path", "sha256"])
    scores = np.stack([results[f"pc_{i}"].to_numpy() for i in range(1, N_COMPONENTS + 1)], axis=1)
    assert results["path"].to_pylist() == hashes["path"].to_pylist()
    columns = [results["path"], results["label"], hashes["sha256"], pa.array(scores.tolist())]
    return pa.table(columns, names=["path", "label", "sha256", "pca_features"])


def publish_classifier(
    spark: SparkSession,
    graph: Graph,
    *,
    distance_threshold: float = 10.0,
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> Version:
    """Fit one to the scores that the lake has, and publish it; `renamed` labels have other names in it."""
    lake = Lake(root=str(graph.lake_root), keep_minutes=0)
    photos = scores_of(graph)
    labels = sorted(set(photos["label"].to_pylist()))
    rows = [
        (Vectors.dense(row["pca_features"]), float(labels.index(row["label"]))) for row in photos.to_pylist()
    ]
    model = LogisticRegression(featuresCol="pca_features", family="multinomial", regParam=0.01).fit(
        spark.createDataFrame(rows, ["pca_features", "label"])
    )
    with lake.new_version(CLASSIFIER, f"{uuid.uuid4().hex}-0") as output:
        model.save(f"{output.folder}/{CLASSIFIER}")
        classes = {
            "labels": [renamed.get(label, label) for label in labels],
            "n_components": N_COMPONENTS,
            "distance_threshold": distance_threshold,
            "left_out": [],
            "coefficients": model.coefficientMatrix.toArray().tolist(),
            "intercepts": model.interceptVector.toArray().tolist(),
        }
        (UPath(output.folder) / CLASSES).write_text(json.dumps(classes))
        return lake.publish(
            CLASSIFIER,
            output,
            result_of(output, photos),
            data_version="d1",
            code_version="1",
            inputs={asset: lake.current(asset) for asset in ("scaled_features", "pca_model")},
            params={},
        )


def result_of(output: Output, references: pa.Table) -> StageResult:
    """Of what a stage wrote with these photos as references, which are its rows as well."""
    rows = references.select(["path", "label"])
    tables = {
        ROWS: [write_rows(output, rows)],
        REFERENCES: [write_rows(output, references, REFERENCES)],
    }
    return StageResult(rows.num_rows, column_types(rows.schema), tables, {})


def saved_model(version: Version) -> LogisticRegressionModel:
    """As anyone's Spark loads it."""
    return LogisticRegressionModel.load(f"{version.folder}/{CLASSIFIER}")
