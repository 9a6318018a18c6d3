"""How far a photo is from those that a classifier has learned from."""

from __future__ import annotations

import itertools

import numpy as np

from fruits_assets.stages.arrow import Matrix
from fruits_assets.stages.photo_split import Numbers

_ROWS_PER_BLOCK = 256  # times 20,000 references: 41 MB


def nearest_distances(scores: Matrix, units: Numbers, references: Matrix, their_units: Numbers) -> Matrix:
    """Euclidean distances (n,) of scores (n, d) to the nearest of the references (m, d) of another unit.

    `units` (n,) and `their_units` (m,) have the number of the set of photos that is kept together: to copies
    and to further frames of the same object, a photo is nearer than any other will be.

    Distances by components' own scale, as Mahalanobis has them, tell unknown kinds less well: the last
    components are mostly noise.
    """
    order = np.argsort(their_units, kind="stable")
    references, their_units = references[order], their_units[order]
    own = zip(
        *(np.searchsorted(their_units, units, side).tolist() for side in ("left", "right")), strict=True
    )
    squares = np.einsum("ij,ij->i", references, references)
    distances = np.empty(len(scores))
    for start in range(0, len(scores), _ROWS_PER_BLOCK):
        block = scores[start : start + _ROWS_PER_BLOCK]
        # Squared, less the square of each score, which is the same for all references.
        relative = block @ references.T
        relative *= -2
        relative += squares
        for of_score, (first, end) in zip(relative, itertools.islice(own, len(block)), strict=True):
            of_score[first:end] = np.inf
        # Of differences, since those of large squares lose the small distances.
        apart = block - references[relative.argmin(axis=1)]
        distances[start : start + _ROWS_PER_BLOCK] = np.sqrt(np.einsum("ij,ij->i", apart, apart))
    return distances
