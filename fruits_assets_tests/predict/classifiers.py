"""A further version of `fruit_classifier`, made without training anything."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml.classification import LogisticRegressionModel

from fruits_assets.predict.predictor import CLASSES, CLASSIFIER, REFERENCES
from fruits_assets.resources.lake import Lake
from fruits_assets.resources.published import Version
from fruits_assets.stages.parquet import batches_of, write_rows
from fruits_assets.stages.stage import StageResult
from fruits_assets.stages.stored import ROWS, StoredTable
from fruits_assets_tests.graph import Graph


def publish_relabelled(graph: Graph, names: Mapping[str, str]) -> Version:
    """Publish the current classifier again, with other names for some of its labels."""
    lake = Lake(root=str(graph.lake_root), keep_minutes=0)
    before = lake.current(CLASSIFIER)
    with lake.new_version(CLASSIFIER, f"{uuid.uuid4().hex}-0") as output:
        shutil.copytree(f"{before.folder}/{CLASSIFIER}", f"{output.folder}/{CLASSIFIER}")
        classes = json.loads(Path(before.folder, CLASSES).read_text(encoding="utf-8"))
        classes["labels"] = [names.get(label, label) for label in classes["labels"]]
        Path(output.folder, CLASSES).write_text(json.dumps(classes), encoding="utf-8")
        tables = {
            name: [write_rows(output, rows_of(before.table_of(name)), name)] for name in (ROWS, REFERENCES)
        }
        return lake.publish(
            CLASSIFIER,
            output,
            StageResult(before.row_count, before.schema, tables),
            data_version="relabelled",
            code_version=before.code_version,
            inputs={asset: lake.current(asset) for asset in before.inputs},
            params=before.params,
        )


def rows_of(table: StoredTable) -> pa.Table:
    """All rows."""
    columns = pq.read_schema(table.uris[0]).names
    return pa.Table.from_batches(batches_of(table.uris, columns))


def saved_model(version: Version) -> LogisticRegressionModel:
    """As anyone's Spark loads it."""
    return LogisticRegressionModel.load(f"{version.folder}/{CLASSIFIER}")


def a_reference(graph: Graph, label: str) -> str:
    """The path of a photo of this label that the classifier was trained on."""
    rows = rows_of(graph.lake.current(CLASSIFIER).table_of(REFERENCES)).to_pylist()
    return min(str(row["path"]) for row in rows if row["label"] == label)
