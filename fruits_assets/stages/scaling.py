"""What scaling does to features, for Spark's workers and for whoever has no Spark."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

import fsspec
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

# The folder of a version of `scaled_features` that has the Spark ML StandardScalerModel.
SCALER = "standard_scaler_model"


@dataclass(frozen=True)
class Scaling:
    """x becomes (x - `mean`) * `factor`; both are float64, one value for each feature."""

    mean: NDArray[np.float64]
    factor: NDArray[np.float64]

    @classmethod
    def of(cls, mean: NDArray[np.float64], std: NDArray[np.float64], with_mean: bool, with_std: bool) -> Self:
        """As Spark ML's StandardScalerModel has it: a constant feature becomes 0."""
        std = std if with_std else np.ones_like(std)
        factor = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0)
        return cls(mean if with_mean else np.zeros_like(mean), factor)

    @classmethod
    def saved(cls, uri: str) -> Self:
        """Of a saved StandardScalerModel, without Spark.

        `metadata` is a line of JSON with the parameters, `data` a row of Parquet whose vectors are structs as
        `VectorUDT` of pyspark.ml.linalg writes them, in Spark 3.5 as in 4; this project's are dense.
        """
        filesystem, folder = fsspec.url_to_fs(uri)
        (metadata,) = filesystem.glob(f"{folder}/metadata/part-*")
        (data,) = filesystem.glob(f"{folder}/data/part-*.parquet")
        told = json.loads(filesystem.cat_file(metadata))
        params = {**told["defaultParamMap"], **told["paramMap"]}
        with filesystem.open(data, "rb") as file:
            (row,) = pq.ParquetFile(file).read().to_pylist()
        mean, std = (np.array(row[name]["values"], np.float64) for name in ("mean", "std"))
        return cls.of(mean, std, params["withMean"], params["withStd"])

    def scaled(self, features: NDArray[np.float64]) -> NDArray[np.float32]:
        """Rows of features, (n_rows, n_features), computed in float64 and rounded to what is stored."""
        return ((features - self.mean) * self.factor).astype(np.float32)
