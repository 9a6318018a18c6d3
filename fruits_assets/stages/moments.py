"""Mean, variance and covariance of wide columns in one distributed pass, numerically safe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark import Accumulator
from pyspark.sql import SparkSession

from fruits_assets.stages.arrow import Matrix, matrix
from fruits_assets.stages.parquet import map_batches
from fruits_assets.stages.stored import StoredTable


@dataclass(frozen=True)
class Moments:
    """Of n rows with d values: `mean` (d,) and the sums of products of deviations from it.

    `scatter` is (d, d) if the covariance is wanted, else its diagonal only, (d,).
    """

    count: int
    mean: Matrix
    scatter: Matrix

    @property
    def std(self) -> Matrix:
        """Standard deviations with n - 1, (d,); exactly 0 for a constant column."""
        squares = self.scatter if self.scatter.ndim == 1 else self.scatter.diagonal()
        return np.sqrt(squares / max(1, self.count - 1))

    @property
    def covariance(self) -> Matrix:
        """Covariance with n - 1, (d, d)."""
        return self.scatter / (self.count - 1)


def moments_of(rows: Matrix, full: bool) -> Moments:
    """Moments of a (n, d) matrix, n >= 1.

    Deviations are taken from the first row before the mean is: a column of large, nearly equal numbers
    keeps its variance, and a constant one has exactly none.
    """
    shifted = rows - rows[0]
    shift_mean = shifted.mean(axis=0)
    shifted -= shift_mean
    scatter = shifted.T @ shifted if full else np.einsum("ij,ij->j", shifted, shifted)
    return Moments(len(rows), rows[0] + shift_mean, scatter)


def merge(left: Moments, right: Moments) -> Moments:
    """Moments of two sets of rows together (Chan, Golub and LeVeque 1979, equations 2.1)."""
    count = left.count + right.count
    if not left.count or not right.count:
        return left if left.count else right
    delta = right.mean - left.mean
    weight = left.count * right.count / count
    scatter = np.outer(delta, delta) if left.scatter.ndim == 2 else delta * delta
    scatter *= weight
    scatter += left.scatter
    scatter += right.scatter
    return Moments(count, left.mean + delta * (right.count / count), scatter)


def column_moments(
    spark: SparkSession,
    table: StoredTable,
    column: str,
    n_columns: int,
    full: bool = False,
    done: Accumulator[int] | None = None,
) -> Moments:
    """Moments of a column of a table: one pass, partial results merged as a tree.

    Args:
        column: array<float> or array<double> of length `n_columns`.
        full: the whole covariance rather than the variances.
        done: gets the number of rows as they are read.

    Memory: a (d, d) matrix of float64 per task and on the driver if `full`, else a few vectors.
    """

    def partial_moments(batches: Iterator[pa.RecordBatch]) -> Iterator[Moments]:
        yield moments_of_batches(batches, column, n_columns, full, done)

    none = Moments(0, np.zeros(n_columns), np.zeros(n_columns))
    return map_batches(spark, table, [column], partial_moments).treeAggregate(none, merge, merge)


def moments_of_batches(
    batches: Iterable[pa.RecordBatch],
    column: str,
    n_columns: int,
    full: bool = False,
    done: Accumulator[int] | None = None,
) -> Moments:
    """Moments of a column of all rows of some batches; see `column_moments`."""
    total = Moments(0, np.zeros(n_columns), np.zeros(n_columns))
    for batch in batches:
        if batch.num_rows:
            total = merge(total, moments_of(matrix(batch[column], n_columns), full))
        if done is not None:
            done.add(batch.num_rows)
    return total
