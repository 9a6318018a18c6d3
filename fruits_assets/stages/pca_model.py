"""Principal component analysis of the scaled features: one distributed pass and one eigendecomposition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession
from threadpoolctl import threadpool_limits

from fruits_assets.mobilenet.extractor import N_FEATURES
from fruits_assets.stages import ml_models
from fruits_assets.stages.arrow import Matrix, fixed_length_arrays
from fruits_assets.stages.moments import Moments, column_moments
from fruits_assets.stages.parquet import write_rows
from fruits_assets.stages.progress import progress
from fruits_assets.stages.stage import StageInputError, StageResult, column_types
from fruits_assets.stages.stored import ROWS, Output, Stored

MODEL = "pca_model"
SCHEMA = pa.schema(
    [
        ("component", pa.int32()),
        ("explained_variance_ratio", pa.float64()),
        ("loadings", pa.list_(pa.float64())),
    ]
)
VARIANCE_LEVELS = (0.80, 0.90, 0.95, 0.99)


@dataclass(frozen=True)
class Params:
    """Either how many components, or the share of the variance (0 to 1) that they have to explain."""

    n_components: int | None
    target_variance: float | None


@dataclass(frozen=True)
class Decomposition:
    """Principal components by falling variance: all n that the data has, or the first n of them.

    `components` is (n_features, n), each a column of length 1; `explained_variance_ratio` (n,) adds up
    to 1 over all.
    """

    components: Matrix
    explained_variance_ratio: Matrix

    @classmethod
    def saved(cls, folder: str) -> Self:
        """That of the PCAModel in a version of this asset."""
        _, data = ml_models.saved(f"{folder}/{MODEL}")
        return cls(data["pc"], data["explainedVariance"])


def pca_model(
    spark: SparkSession, inputs: Mapping[str, Stored], output: Output, params: Params
) -> StageResult:
    """Fit and save a Spark ML PCAModel over the scaled features, and its components as a table.

    Where the data spans fewer dimensions than asked for, the model has as many components as there are.

    Args:
        inputs: `scaled_features`.

    Raises:
        StageInputError: fewer than two images, or all images have the same features.
    """
    table = inputs["scaled_features"].table
    if table.n_rows < 2:
        raise StageInputError(f"{table.n_rows} image(s) have no covariance: at least 2 needed.")
    with progress(spark, "computing the covariance", table.n_rows) as done:
        moments = column_moments(spark, table, "scaled_features", N_FEATURES, full=True, done=done)
    decomposition = decompose(moments)
    ratios = decomposition.explained_variance_ratio
    n_components = choose_n_components(ratios, params)
    components = decomposition.components[:, :n_components]
    ml_models.save_pca(f"{output.folder}/{MODEL}", components, ratios[:n_components])
    numbers = np.arange(1, n_components + 1, dtype=np.int32)
    rows = pa.table([numbers, ratios[:n_components], fixed_length_arrays(components.T)], schema=SCHEMA)
    return StageResult(
        row_count=n_components,
        schema=column_types(SCHEMA),
        tables={ROWS: [write_rows(output, rows)]},
        metadata={
            **describe_model(Decomposition.saved(output.folder)),
            "n_images": table.n_rows,
            "rank": len(ratios),
            "all_explained_variance_ratios": ratios.tolist(),
            "n_components_for": {f"{level:.0%}": components_for(ratios, level) for level in VARIANCE_LEVELS},
        },
    )


def decompose(moments: Moments) -> Decomposition:
    """Eigenvectors and -values of the covariance, without the directions in which there is none.

    The sign of an eigenvector is arbitrary: here its entry of largest magnitude is positive, so that
    another partitioning of the data gives the same components.

    Raises:
        StageInputError: the covariance is zero.
    """
    # Threads of BLAS wait for one another by spinning: beside other programs it takes them ten times as long
    # as one thread, which needs half a second for 1280 features.
    with threadpool_limits(1, "blas"):
        variances, components = np.linalg.eigh(moments.covariance)
    variances, components = variances[::-1], components[:, ::-1]
    # The bound below which an eigenvalue is rounding error, as in numpy.linalg.matrix_rank.
    noise = variances[0] * len(variances) * np.finfo(np.float64).eps
    rank = min(int((variances > noise).sum()), moments.count - 1)
    if not rank:
        raise StageInputError(
            "All images have the same features, so there is no component to find. "
            "Check that the source holds different images."
        )
    variances, components = variances[:rank], components[:, :rank]
    largest = np.abs(components).argmax(axis=0)
    components = components * np.sign(components[largest, np.arange(rank)])
    return Decomposition(components, variances / variances.sum())


def choose_n_components(explained_variance_ratio: Matrix, params: Params) -> int:
    """As many as asked for and there are, or the fewest that explain the target."""
    if params.target_variance is not None:
        return components_for(explained_variance_ratio, params.target_variance)
    assert params.n_components is not None
    return min(params.n_components, len(explained_variance_ratio))


def components_for(explained_variance_ratio: Matrix, level: float) -> int:
    """The fewest components that together explain at least this share, 0 to 1, of the variance."""
    # Ratios add up to 1 but for rounding: 100 % must not ask for a component more than there is.
    reached = np.cumsum(explained_variance_ratio) >= level - 1e-12
    return int(reached.argmax()) + 1 if reached.any() else len(explained_variance_ratio)


def describe_model(model: Decomposition) -> dict[str, Any]:
    """What a saved model explains, and how far its components are from orthonormal.

    `max_abs_gram_minus_identity` is the largest entry of |C'C - I| for components C.
    """
    ratios = model.explained_variance_ratio
    gram = model.components.T @ model.components
    return {
        "n_components": len(ratios),
        "explained_variance_ratio": ratios.tolist(),
        "total_explained_variance": float(ratios.sum()),
        "max_abs_gram_minus_identity": float(np.abs(gram - np.eye(len(gram))).max()),
    }
