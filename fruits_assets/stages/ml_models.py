"""Models of Spark ML as files: anyone's `load` opens them, and no JVM is needed to write or to read them.

The folder of a model has `metadata`, a line of JSON with class and parameters, and `data`, a row of Parquet
in which vectors and matrices are the structs that VectorUDT and MatrixUDT of pyspark.ml.linalg make of
them; which columns are such stands in the file's own metadata. Spark 3.5 writes and reads that, and so does
Spark 4. Its SQL, which would do the same, takes seconds to start for models of one row.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fruits_assets.stages.arrow import Matrix, fixed_length_arrays, matrix

_DENSE = 1
_VALUES = pa.list_(pa.field("element", pa.float64(), nullable=False))
_NUMBERS = pa.list_(pa.field("element", pa.int32(), nullable=False))
_KIND = pa.field("type", pa.int8(), nullable=False)
_VECTOR = pa.struct([_KIND, ("size", pa.int32()), ("indices", _NUMBERS), ("values", _VALUES)])
_MATRIX = pa.struct(
    [
        _KIND,
        pa.field("numRows", pa.int32(), nullable=False),
        pa.field("numCols", pa.int32(), nullable=False),
        ("colPtrs", _NUMBERS),
        ("rowIndices", _NUMBERS),
        ("values", _VALUES),
        pa.field("isTransposed", pa.bool_(), nullable=False),
    ]
)
_SPARK_TYPES = {pa.int8(): "byte", pa.int32(): "integer", pa.float64(): "double", pa.bool_(): "boolean"}


def save_standard_scaler(uri: str, mean: Matrix, std: Matrix, with_mean: bool, with_std: bool) -> None:
    """A StandardScalerModel with these means and standard deviations, (n_features,), from `features` on."""
    columns = {"inputCol": "features", "outputCol": "scaled_features"}
    params = {**columns, "withMean": with_mean, "withStd": with_std}
    _save(uri, "feature.StandardScalerModel", "fruits_standard_scaler", params, {"std": std, "mean": mean})


def save_pca(uri: str, components: Matrix, explained_variance_ratio: Matrix) -> None:
    """A PCAModel with these components, (n_features, n_components), each a column."""
    columns = {"inputCol": "scaled_features", "outputCol": "pca_features"}
    data = {"pc": components, "explainedVariance": explained_variance_ratio}
    _save(uri, "feature.PCAModel", "fruits_pca", {**columns, "k": components.shape[1]}, data)


def save_logistic_regression(
    uri: str, coefficients: Matrix, intercepts: Matrix, regularisation: float
) -> None:
    """A multinomial LogisticRegressionModel of (n_labels, n_components) and (n_labels,), from scores on."""
    n_labels, n_components = coefficients.shape
    params = {
        "featuresCol": "pca_features",
        "family": "multinomial",
        "regParam": float(regularisation),
        "standardization": False,
    }
    data = {
        "numClasses": n_labels,
        "numFeatures": n_components,
        "interceptVector": intercepts,
        "coefficientMatrix": coefficients,
        "isMultinomial": True,
    }
    _save(uri, "classification.LogisticRegressionModel", "fruits_classifier", params, data)


def saved(uri: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and data of a saved model; vectors and matrices, which have to be dense, as float64.

    Raises:
        pyarrow.ArrowException: the data is not what was written.
    """
    filesystem, folder = fsspec.url_to_fs(uri)
    (metadata,) = filesystem.glob(f"{folder}/metadata/part-*")
    (data,) = filesystem.glob(f"{folder}/data/part-*.parquet")
    told = json.loads(filesystem.cat_file(metadata))
    with filesystem.open(data, "rb") as file:
        row = pq.ParquetFile(file, page_checksum_verification=True).read(use_threads=False).combine_chunks()
    return (
        {**told["defaultParamMap"], **told["paramMap"]},
        {name: _as_numpy(row[name].chunk(0)) for name in row.column_names},
    )


def _save(uri: str, name: str, uid: str, params: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    import pyspark

    metadata = {
        "class": f"org.apache.spark.ml.{name}",
        "timestamp": int(time.time() * 1000),
        "sparkVersion": pyspark.__version__,
        "uid": uid,
        "paramMap": params,
        "defaultParamMap": {},  # those of the class
    }
    filesystem, folder = fsspec.url_to_fs(uri)
    for part in ("metadata", "data"):
        filesystem.makedirs(f"{folder}/{part}", exist_ok=True)
    filesystem.pipe_file(f"{folder}/metadata/part-00000", f"{json.dumps(metadata)}\n".encode())
    columns = {name: _as_arrow(value) for name, value in data.items()}
    # A number is always there.
    schema = pa.schema(
        [pa.field(name, found.type, pa.types.is_struct(found.type)) for name, found in columns.items()]
    )
    schema = schema.with_metadata({"org.apache.spark.sql.parquet.row.metadata": _spark_schema(schema)})
    row = pa.table(list(columns.values()), schema)
    with filesystem.open(f"{folder}/data/part-00000.parquet", "wb") as file:
        pq.write_table(row, file, write_page_checksum=True)


def _as_arrow(value: Matrix | int | bool) -> pa.Array:
    """One row of a column."""
    if isinstance(value, bool):
        return pa.array([value])
    if isinstance(value, int):
        return pa.array([value], pa.int32())
    kind, none = pa.array([_DENSE], pa.int8()), pa.array([None], _NUMBERS)
    # Of a matrix, column by column.
    values = fixed_length_arrays(value.ravel(order="F")[np.newaxis].astype(np.float64)).cast(_VALUES)
    sizes = [pa.array([n], pa.int32()) for n in value.shape]
    if value.ndim == 1:
        return pa.StructArray.from_arrays([kind, *sizes, none, values], fields=list(_VECTOR))
    parts = [kind, *sizes, none, none, values, pa.array([False])]
    return pa.StructArray.from_arrays(parts, fields=list(_MATRIX))


def _as_numpy(column: pa.Array) -> Any:
    if not pa.types.is_struct(column.type):
        return column[0].as_py()
    told = {
        field.name: column.field(field.name)[0].as_py() for field in column.type if field.name != "values"
    }
    lists = column.field("values")
    values = matrix(lists, lists.value_lengths()[0].as_py())[0]
    if "numRows" not in told:
        return values
    shape = told["numRows"], told["numCols"]
    return values.reshape(shape, order="C" if told["isTransposed"] else "F")


def _spark_schema(row: pa.Schema) -> str:
    """As `StructType.json` of pyspark.sql.types has it, for vectors without importing all of pyspark.ml."""
    return json.dumps({"type": "struct", "fields": [_spark_field(field) for field in row]})


def _spark_field(field: pa.Field) -> dict[str, Any]:
    return {
        "name": field.name,
        "type": _spark_type(field.type),
        "nullable": field.nullable,
        "metadata": {},
    }


def _spark_type(kind: pa.DataType) -> str | dict[str, Any]:
    if pa.types.is_list(kind):
        return {"type": "array", "elementType": _spark_type(kind.value_type), "containsNull": False}
    if not pa.types.is_struct(kind):
        return _SPARK_TYPES[kind]
    name = "ml.linalg.VectorUDT" if kind == _VECTOR else "ml.linalg.MatrixUDT"
    fields = [_spark_field(field) for field in kind]
    return {
        "type": "udt",
        "class": f"org.apache.spark.{name}",
        "pyClass": f"pyspark.{name}",
        "sqlType": {"type": "struct", "fields": fields},
    }
