"""How far a photo is from those that a classifier has learned from."""

from __future__ import annotations

import numpy as np

from fruits_assets.stages.moments import Matrix
from fruits_assets.stages.photo_split import Numbers

_ROWS_PER_BLOCK = 256  # times 20,000 references: 41 MB


def nearest_distances(scores: Matrix, references: Matrix, own: Numbers) -> Matrix:
    """Euclidean distances (n,) of scores (n, d) to the nearest of the references (m, d), but for its own.

    `own` (n,) has the number of the reference that is the same photo, -1 where there is none.

    Distances by components' own scale, as Mahalanobis has them, tell unknown kinds less well: the last
    components are mostly noise.
    """
    squares = np.einsum("ij,ij->i", references, references)
    distances = np.empty(len(scores))
    for start in range(0, len(scores), _ROWS_PER_BLOCK):
        block = scores[start : start + _ROWS_PER_BLOCK]
        # Squared, less the square of each score, which is the same for all references.
        relative = block @ references.T
        relative *= -2
        relative += squares
        own_of_block = own[start : start + _ROWS_PER_BLOCK]
        has_own = np.flatnonzero(own_of_block >= 0)
        relative[has_own, own_of_block[has_own]] = np.inf
        # Of differences, since those of large squares lose the small distances.
        apart = block - references[relative.argmin(axis=1)]
        distances[start : start + _ROWS_PER_BLOCK] = np.sqrt(np.einsum("ij,ij->i", apart, apart))
    return distances
