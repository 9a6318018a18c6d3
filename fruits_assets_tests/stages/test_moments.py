"""Mean, variance and covariance, against NumPy in one piece."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from fruits_assets.stages.moments import Moments, column_moments, merge, moments_of

N_COLUMNS = 7


def correlated(n_rows: int, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(N_COLUMNS, N_COLUMNS))
    return rng.normal(size=(n_rows, N_COLUMNS)) @ mixing + rng.normal(size=N_COLUMNS)


def distributed(spark: SparkSession, rows: NDArray[np.float64], n_partitions: int, full: bool) -> Moments:
    parts = spark.sparkContext.parallelize([(row.tolist(),) for row in rows], n_partitions)
    with tempfile.TemporaryDirectory() as folder:
        parts.toDF("values array<double>").write.parquet(f"{folder}/table.parquet")
        return column_moments(spark, f"{folder}/table.parquet", "values", N_COLUMNS, full=full)


@pytest.mark.parametrize("n_partitions", [1, 3, 40])
def test_the_covariance_is_numpys_under_any_partitioning_even_with_empty_partitions(
    spark: SparkSession, n_partitions: int
) -> None:
    rows = correlated(30)
    moments = distributed(spark, rows, n_partitions, full=True)
    assert moments.count == 30
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(rows.T), rtol=1e-10, atol=1e-12)


def test_the_diagonal_alone_gives_the_same_standard_deviations(spark: SparkSession) -> None:
    rows = correlated(25)
    moments = distributed(spark, rows, 4, full=False)
    assert moments.scatter.shape == (N_COLUMNS,)
    np.testing.assert_allclose(moments.std, rows.std(axis=0, ddof=1), rtol=1e-12)


def test_a_mean_of_a_million_does_not_cost_the_variance(spark: SparkSession) -> None:
    rows = np.random.default_rng(3).normal(loc=1e6, size=(4000, N_COLUMNS))
    exact = (rows - 1e6).std(axis=0, ddof=1)
    np.testing.assert_allclose(distributed(spark, rows, 5, full=False).std, exact, rtol=1e-9)
    np.testing.assert_allclose(distributed(spark, rows, 5, full=True).std, exact, rtol=1e-9)


def test_a_constant_column_has_a_standard_deviation_of_exactly_zero(spark: SparkSession) -> None:
    rows = correlated(31)
    rows[:, 2] = 0.1  # its sum is not 31 times itself in floating point
    moments = distributed(spark, rows, 4, full=True)
    assert moments.std[2] == 0
    assert moments.mean[2] == 0.1


def test_merging_with_nothing_changes_nothing() -> None:
    nothing = Moments(0, np.zeros(N_COLUMNS), np.zeros(N_COLUMNS))
    something = moments_of(correlated(5), full=False)
    assert merge(nothing, something) is something
    assert merge(something, nothing) is something


def test_an_array_of_another_length_is_an_error_that_gives_the_lengths(
    spark: SparkSession, tmp_path: Path
) -> None:
    table = spark.createDataFrame([([1.0] * N_COLUMNS,), ([1.0, 2.0],)], "values array<double>")
    table.coalesce(1).write.parquet(f"{tmp_path}/table.parquet")
    with pytest.raises(Exception, match=r"arrays of 7 values expected"):
        column_moments(spark, f"{tmp_path}/table.parquet", "values", N_COLUMNS)
