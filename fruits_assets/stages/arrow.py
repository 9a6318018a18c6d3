"""Between Arrow batches and NumPy matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

# Arrow's own allocator keeps much of what a task once needed; this one gives it back. In workers, too.
pa.set_memory_pool(pa.system_memory_pool())


def matrix(column: pa.Array, n_columns: int) -> Matrix:
    """A column of arrays of equal length as a (n_rows, n_columns) matrix.

    Raises:
        ValueError: some array is missing or has another length.
    """
    flat = column.flatten()
    # Unlike `to_numpy`, DLPack does not import pandas, which takes a quarter of a second; it knows no nulls.
    values: NDArray[Any] = flat.to_numpy(zero_copy_only=False) if flat.null_count else np.from_dlpack(flat)
    lengths = column.value_lengths()
    if column.null_count or any(length.as_py() != n_columns for length in lengths.unique()):
        raise ValueError(f"arrays of {n_columns} values expected, found lengths {lengths.unique()}")
    return values.reshape(len(column), n_columns).astype(np.float64, copy=False)


def fixed_length_arrays(values: NDArray[np.float32] | NDArray[np.float64]) -> pa.ListArray:
    """The rows of a matrix as a column of arrays, without a copy of its values."""
    n_rows, n_columns = values.shape
    offsets = np.arange(0, (n_rows + 1) * n_columns, n_columns, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)))
