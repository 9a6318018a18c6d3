"""Multinomial logistic regression over scores that stay where Spark keeps them.

What is minimised is the function of Spark ML's LogisticRegression with standardization=False: the mean of
-log p of the right label, plus regParam / 2 times the sum of the squared coefficients, intercepts apart.
Standardised scores would give the noise of the last components the weight of the first. Spark ML's own
optimiser takes seconds for each of some hundred passes over 15,000 photos of 131 labels, as the JVM
multiplies its matrices itself; here NumPy does, where the scores are, and the driver adds up partial sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from pyspark import RDD, StorageLevel

from fruits_assets.stages.arrow import Matrix
from fruits_assets.stages.minimisation import minimum
from fruits_assets.stages.photo_split import TRAINING, VALIDATION, Numbers
from fruits_assets.stages.stage import logger

Found = TypeVar("Found")

# So little is gone through faster where it is added up than by tasks, which take longer to start.
_GATHERED_BYTES = 64 * 1024**2
# What is tried, strongest first, as shares of the scores' total variance.
CANDIDATES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
# A weaker regularisation has to take so much off the mean of -log p.
_GAIN = 1e-3
# How far above its minimum the function may be: for a comparison, and so that no probability moves by 1e-6.
_ROUGH, _EXACT = 1e-4, 1e-16
_SMALLEST_CURVATURE = 1e-12


@dataclass(frozen=True)
class Block:
    """Scores (n, d) of photos of one share, float64, their classes (n,), and their numbers among all (n,)."""

    share: int
    scores: Matrix
    classes: Numbers
    numbers: Numbers


@dataclass(frozen=True)
class Loss:
    """Of n photos: the sum of -log p of the right label, how many were right, and derivatives of the sum.

    `gradient` and `curvature`, the diagonal of the second derivatives, are those by (K, d + 1) weights, the
    last column of which are the intercepts.
    """

    count: int
    total: float
    n_right: int
    gradient: Matrix
    curvature: Matrix

    def __add__(self, other: Loss) -> Loss:
        return Loss(
            self.count + other.count,
            self.total + other.total,
            self.n_right + other.n_right,
            self.gradient + other.gradient,
            self.curvature + other.curvature,
        )


@dataclass(frozen=True)
class Candidate:
    """A regularisation that was tried: regParam, and loss and accuracy on the validation photos."""

    regularisation: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Fit:
    """`coefficients` (K, d) and `intercepts` (K,), which add up to 0 over the labels, and what was tried."""

    coefficients: Matrix
    intercepts: Matrix
    regularisation: float
    tried: Sequence[Candidate]


class Parts:
    """Blocks in parts that are gone through some hundred times: kept by Spark, or here if they are small."""

    def __init__(self, blocks: RDD[Block], n_bytes: int) -> None:
        """Together the blocks have so many bytes."""
        is_small = n_bytes <= _GATHERED_BYTES
        self._blocks = blocks.mapPartitions(_merged)
        self._here = self._blocks.collect() if is_small else None
        if not is_small:
            self._blocks.persist(StorageLevel.MEMORY_AND_DISK)

    def map(self, function: Callable[[Iterable[Block]], Iterator[Found]]) -> list[Found]:
        """What a function makes of each part, in the order of the parts, not that in which they are done."""
        if self._here is None:
            return self._blocks.mapPartitions(function).collect()
        return list(function(self._here))

    def forget(self) -> None:
        """Keep them no longer."""
        self._blocks.unpersist()


def _merged(blocks: Iterable[Block]) -> Iterator[Block]:
    """One block for each share: of many small ones, most of the time would go into calls."""
    of_share: dict[int, list[Block]] = {}
    for block in blocks:
        of_share.setdefault(block.share, []).append(block)
    for share, found in of_share.items():
        yield Block(
            share,
            np.concatenate([block.scores for block in found]),
            np.concatenate([block.classes for block in found]),
            np.concatenate([block.numbers for block in found]),
        )


def fit(blocks: Parts, n_labels: int) -> Fit:
    """Choose the regularisation on the validation photos and fit to the training photos.

    From the strongest on, each begins where the one before has ended, until one brings nothing.
    """
    mean, total_variance = _moments(blocks)
    weights = np.zeros((n_labels, len(mean) + 1))
    chosen, chosen_weights = None, weights
    tried: list[Candidate] = []
    for share in CANDIDATES:
        regularisation = share * total_variance
        weights = _fitted(blocks, weights, mean, regularisation, _ROUGH)
        loss = _loss(blocks, VALIDATION, weights, mean)
        found = Candidate(regularisation, loss.total / loss.count, loss.n_right / loss.count)
        tried.append(found)
        logger.info(
            f"regularisation {regularisation:.3g}: validation loss {found.validation_loss:.4f}, "
            f"accuracy {found.validation_accuracy:.2%}"
        )
        if chosen and found.validation_loss > chosen.validation_loss - _GAIN:
            break
        chosen, chosen_weights = found, weights
    assert chosen
    weights = _fitted(blocks, chosen_weights, mean, chosen.regularisation, _EXACT)
    weights -= weights.mean(axis=0)
    coefficients = weights[:, :-1]
    return Fit(coefficients, weights[:, -1] - coefficients @ mean, chosen.regularisation, tried)


def _moments(blocks: Parts) -> tuple[Matrix, float]:
    """Mean (d,) and total variance of the training scores."""

    def partial_sums(part: Iterable[Block]) -> Iterator[tuple[int, Matrix, float]]:
        for block in part:
            if block.share == TRAINING:
                yield len(block.scores), block.scores.sum(axis=0), float((block.scores**2).sum())

    counts, sums, squares = zip(*blocks.map(partial_sums), strict=True)
    mean = np.sum(sums, axis=0) / sum(counts)
    return mean, sum(squares) / sum(counts) - float(mean @ mean)


def _fitted(blocks: Parts, start: Matrix, mean: Matrix, regularisation: float, tolerance: float) -> Matrix:
    penalty = np.full(start.shape[1], regularisation)
    penalty[-1] = 0

    def evaluate(weights: Matrix) -> tuple[float, Matrix]:
        loss = _loss(blocks, TRAINING, weights, mean)
        value = loss.total / loss.count + 0.5 * float((penalty * weights**2).sum())
        return value, loss.gradient / loss.count + penalty * weights

    loss = _loss(blocks, TRAINING, start, mean, with_curvature=True)
    curvature = np.maximum(loss.curvature / loss.count + penalty, _SMALLEST_CURVATURE)
    found = minimum(evaluate, start, curvature, tolerance)
    if not found.has_converged:
        logger.warning(
            f"The fit with regularisation {regularisation:.3g} has not converged to {tolerance:g} after "
            f"{found.n_evaluations} passes; the model is what it had come to."
        )
    return found.at


def _loss(blocks: Parts, share: int, weights: Matrix, mean: Matrix, with_curvature: bool = False) -> Loss:
    part_of = _partial_loss(share, weights, mean, with_curvature)
    return sum_of(blocks.map(part_of), weights)


def sum_of(parts: Iterable[Loss], weights: Matrix) -> Loss:
    """The loss of all parts together."""
    total = Loss(0, 0.0, 0, np.zeros_like(weights), np.zeros_like(weights))
    for part in parts:
        total += part
    return total


def _partial_loss(
    share: int, weights: Matrix, mean: Matrix, with_curvature: bool
) -> Callable[[Iterable[Block]], Iterator[Loss]]:
    def partial_loss(part: Iterable[Block]) -> Iterator[Loss]:
        yield sum_of(
            (loss_of(block, weights, mean, with_curvature) for block in part if block.share == share), weights
        )

    return partial_loss


def loss_of(block: Block, weights: Matrix, mean: Matrix, with_curvature: bool = False) -> Loss:
    """The loss of weights (K, d + 1) over scores less their mean, and its derivatives."""
    photos = np.arange(len(block.scores))
    # Step by step in one matrix (K, n): most of the time goes to memory, and sums over a few labels are
    # faster by whole rows.
    p = weights[:, :-1] @ block.scores.T
    p += (weights[:, -1] - weights[:, :-1] @ mean)[:, np.newaxis]
    p -= p.max(axis=0)
    of_right = p[block.classes, photos]
    total = -float(of_right.sum())
    n_right = int((of_right == 0).sum())
    np.exp(p, out=p)
    sums = p.sum(axis=0)
    total += float(np.log(sums).sum())
    p /= sums
    curvature = np.zeros_like(weights)
    if with_curvature:
        curvature[:, :-1] = (p * (1 - p)) @ (block.scores - mean) ** 2
        curvature[:, -1] = (p * (1 - p)).sum(axis=1)
    p[block.classes, photos] -= 1
    by_intercept = p.sum(axis=1)
    by_coefficient = p @ block.scores - np.outer(by_intercept, mean)
    return Loss(len(photos), total, n_right, np.column_stack([by_coefficient, by_intercept]), curvature)


def log_probabilities(margins: Matrix) -> Matrix:
    """The logarithm of the softmax of each row, (n, K)."""
    shifted: Matrix = margins - margins.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted
