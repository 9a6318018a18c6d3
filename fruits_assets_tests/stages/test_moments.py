"""Mean, variance and covariance, against NumPy in one piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from fruits_assets.stages.arrow import fixed_length_arrays
from fruits_assets.stages.moments import Moments, column_moments, merge, moments_of
from fruits_assets_tests.stages.running import write_table

N_COLUMNS = 7


def correlated(n_rows: int, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(N_COLUMNS, N_COLUMNS))
    return rng.normal(size=(n_rows, N_COLUMNS)) @ mixing + rng.normal(size=N_COLUMNS)


def distributed(
    spark: SparkSession, rows: NDArray[np.float64], n_files: int, full: bool, folder: Path
) -> Moments:
    parts = [pa.table({"values": fixed_length_arrays(part)}) for part in np.array_split(rows, n_files)]
    return column_moments(spark, write_table(folder, *parts), "values", N_COLUMNS, full=full)


@pytest.mark.parametrize("n_files", [1, 3, 40])
def test_the_covariance_is_numpys_under_any_partitioning_even_with_empty_files(
    spark: SparkSession, tmp_path: Path, n_files: int
) -> None:
    rows = correlated(30)
    moments = distributed(spark, rows, n_files, full=True, folder=tmp_path)
    assert moments.count == 30
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(rows.T), rtol=1e-10, atol=1e-12)


def test_the_diagonal_alone_gives_the_same_standard_deviations(spark: SparkSession, tmp_path: Path) -> None:
    rows = correlated(25)
    moments = distributed(spark, rows, 4, full=False, folder=tmp_path)
    assert moments.scatter.shape == (N_COLUMNS,)
    np.testing.assert_allclose(moments.std, rows.std(axis=0, ddof=1), rtol=1e-12)


def test_a_mean_of_a_million_does_not_cost_the_variance(spark: SparkSession, tmp_path: Path) -> None:
    rows = np.random.default_rng(3).normal(loc=1e6, size=(4000, N_COLUMNS))
    exact = (rows - 1e6).std(axis=0, ddof=1)
    for full in (False, True):
        moments = distributed(spark, rows, 5, full, tmp_path)
        np.testing.assert_allclose(moments.std, exact, rtol=1e-9)


def test_a_constant_column_has_a_standard_deviation_of_exactly_zero(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = correlated(31)
    rows[:, 2] = 0.1  # its sum is not 31 times itself in floating point
    moments = distributed(spark, rows, 4, full=True, folder=tmp_path)
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
    table = write_table(tmp_path, pa.table({"values": [[1.0] * N_COLUMNS, [1.0, 2.0]]}))
    with pytest.raises(Exception, match=r"arrays of 7 values expected"):
        column_moments(spark, table, "values", N_COLUMNS)
