"""What scaling does to features, for Spark's workers and for whoever has no Spark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fruits_assets.stages import ml_models

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
        """Of a saved StandardScalerModel."""
        params, data = ml_models.saved(uri)
        return cls.of(data["mean"], data["std"], params["withMean"], params["withStd"])

    def scaled(self, features: NDArray[np.float64]) -> NDArray[np.float32]:
        """Rows of features, (n_rows, n_features), computed in float64 and rounded to what is stored."""
        return ((features - self.mean) * self.factor).astype(np.float32)
