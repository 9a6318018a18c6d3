"""What lies close together in component space, and what lies apart: labels, and photos."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fruits_assets.report.sampling import Photos, Scores

Matrix = NDArray[np.float64]

_DISTANCES_PER_BLOCK = 2**21  # in memory at once: 8 MB
# Of two photos, each is as far from their mean as the other.
_MIN_PHOTOS_WITH_OUTLIERS = 3


@dataclass(frozen=True)
class LabelShapes:
    """Where the photos of a label are: their mean (n_labels, n_components), and their spread (n_labels,).

    The spread is the root of the mean squared distance to the mean.
    """

    labels: Sequence[str]
    counts: NDArray[np.int64]
    means: Matrix
    spreads: Matrix

    def separations(self) -> Matrix:
        """Of each two labels, (n_labels, n_labels): the distance of their means in units of their spreads.

        The unit is the root of the sum of both squared spreads: below about 1 the two overlap. Labels
        without spread, of a single photo say, are infinitely apart; the diagonal is 0.
        """
        squares = (self.means**2).sum(axis=1)
        distances = np.sqrt(
            np.maximum(squares[:, None] + squares[None, :] - 2 * self.means @ self.means.T, 0)
        )
        units = np.sqrt(self.spreads[:, None] ** 2 + self.spreads[None, :] ** 2)
        apart: Matrix = np.divide(distances, units, out=np.full_like(distances, np.inf), where=units > 0)
        np.fill_diagonal(apart, 0)
        return apart

    def closest(self, n_pairs: int) -> list[tuple[str, str, float]]:
        """The labels that are least apart, the closest first."""
        apart = self.separations()
        first, second = np.triu_indices(len(self.labels), 1)
        order = np.argsort(apart[first, second], kind="stable")[:n_pairs]
        return [
            (self.labels[i], self.labels[j], float(apart[i, j]))
            for i, j in zip(first[order], second[order], strict=True)
            if np.isfinite(apart[i, j])
        ]

    def in_order_of_closeness(self) -> list[int]:
        """Label numbers such that each is followed by the closest of those that are left."""
        apart = self.separations()
        order, left = [0], list(range(1, len(self.labels)))
        while left:
            closest = min(left, key=apart[order[-1]].__getitem__)
            left.remove(closest)
            order.append(closest)
        return order


class ShapesInPasses:
    """Adds up the photos of some labels, block by block."""

    def __init__(self, labels: Sequence[str], n_components: int) -> None:
        self._numbers = {label: i for i, label in enumerate(labels)}
        self._counts = np.zeros(len(labels), np.int64)
        self._sums = np.zeros((len(labels), n_components))
        self._squares = np.zeros(len(labels))

    def add(self, photos: Photos) -> None:
        """Look at more photos; those of other labels are passed over."""
        numbers = np.array([self._numbers.get(label, -1) for label in photos.labels])
        scores = photos.scores.astype(np.float64)
        for number in np.unique(numbers[numbers >= 0]):
            own = scores[numbers == number]
            self._counts[number] += len(own)
            self._sums[number] += own.sum(axis=0)
            self._squares[number] += (own**2).sum()

    def shapes(self) -> LabelShapes:
        """What they add up to."""
        counts = np.maximum(self._counts, 1)
        means = self._sums / counts[:, None]
        variances = self._squares / counts - (means**2).sum(axis=1)
        # Rounding leaves a trace of a variance that is none.
        noise = 1e-12 * self._squares / counts
        spreads = np.sqrt(np.where(variances > noise, variances, 0))
        return LabelShapes(list(self._numbers), self._counts, means, spreads)


@dataclass(frozen=True, order=True)
class Outlier:
    """A photo whose distance to its label's mean is `times` the label's spread."""

    times: float
    path: str
    label: str


class Outliers:
    """Takes photos block by block and keeps those farthest from others of their label."""

    def __init__(self, shapes: LabelShapes, n_kept: int) -> None:
        self._shapes, self._n_kept = shapes, n_kept
        enough = (shapes.counts >= _MIN_PHOTOS_WITH_OUTLIERS) & (shapes.spreads > 0)
        self._numbers = {label: i for i, label in enumerate(shapes.labels) if enough[i]}
        self._kept: list[Outlier] = []

    def add(self, photos: Photos) -> None:
        """Look at more photos."""
        numbers = np.array([self._numbers.get(label, -1) for label in photos.labels])
        (rows,) = np.nonzero(numbers >= 0)
        distances = np.linalg.norm(photos.scores[rows] - self._shapes.means[numbers[rows]], axis=1)
        times = distances / self._shapes.spreads[numbers[rows]]
        for i in np.argsort(-times)[: self._n_kept]:
            found = Outlier(float(times[i]), photos.paths[rows[i]], photos.labels[rows[i]])
            (heapq.heappush if len(self._kept) < self._n_kept else heapq.heappushpop)(self._kept, found)

    def found(self) -> list[Outlier]:
        """The farthest first."""
        return sorted(self._kept, reverse=True)


@dataclass(frozen=True)
class Neighbours:
    """Of each photo, (n_photos,): the nearest other one and its distance, of any label and of another label.

    Where there is no other label, that distance is infinite.
    """

    nearest: NDArray[np.int64]
    distances: Matrix
    nearest_of_another_label: NDArray[np.int64]
    distances_to_another_label: Matrix

    def pairs(self, of_two_labels: bool, n_pairs: int) -> list[tuple[int, int, float]]:
        """The photos that are closest to each other, each in one pair at most, the closest first."""
        nearest, distances = (
            (self.nearest_of_another_label, self.distances_to_another_label)
            if of_two_labels
            else (self.nearest, self.distances)
        )
        taken: set[int] = set()
        pairs: list[tuple[int, int, float]] = []
        for i in np.argsort(distances, kind="stable"):
            j = int(nearest[i])
            if len(pairs) == n_pairs or not np.isfinite(distances[i]):
                break
            if not taken & {int(i), j}:
                taken |= {int(i), j}
                pairs.append((min(int(i), j), max(int(i), j), float(distances[i])))
        return pairs

    def share_with_same_label(self, labels: Sequence[str]) -> float:
        """Share, 0 to 1, of the photos whose nearest has their own label."""
        names = np.array(labels, object)
        return float((names == names[self.nearest]).mean())


def neighbours(photos: Photos) -> Neighbours:
    """The nearest of each photo among these, two at least, by comparing all with all.

    Of time n_photos^2 x n_components; of memory, see `_DISTANCES_PER_BLOCK`.
    """
    scores = photos.scores
    squares = (scores.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
    numbers = {label: i for i, label in enumerate(dict.fromkeys(photos.labels))}
    codes = np.array([numbers[label] for label in photos.labels])
    nearest, of_another = np.zeros(len(photos), np.int64), np.zeros(len(photos), np.int64)
    for rows in _blocks(len(photos), len(photos)):
        # Of the squared distance, what differs from column to column.
        apart = scores[rows] @ scores.T
        apart *= -2
        apart += squares
        apart[np.arange(len(apart)), np.arange(rows.start, rows.stop)] = np.inf
        nearest[rows] = apart.argmin(axis=1)
        apart[codes[rows, None] == codes] = np.inf
        of_another[rows] = apart.argmin(axis=1)
    return Neighbours(
        nearest,
        _distances(scores, nearest),
        of_another,
        np.where(codes == codes[of_another], np.inf, _distances(scores, of_another)),
    )


def _distances(scores: Scores, others: NDArray[np.int64]) -> Matrix:
    """Exact ones, of each photo to its other: the differences of squares above are off for near ones."""
    distances = np.empty(len(scores))
    for rows in _blocks(len(scores), scores.shape[1]):
        apart = scores[rows].astype(np.float64) - scores[others[rows]]
        distances[rows] = np.linalg.norm(apart, axis=1)
    return distances


def _blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    n_at_once = max(1, _DISTANCES_PER_BLOCK // max(1, n_columns))
    for start in range(0, n_rows, n_at_once):
        yield slice(start, min(start + n_at_once, n_rows))


def counted(labels: Sequence[str], into: dict[str, int]) -> None:
    """Add up how many there are of each label."""
    for label in labels:
        into[label] = into.get(label, 0) + 1


def most_frequent(counts: Mapping[str, int], n_labels: int) -> list[str]:
    """So many labels at most, by name."""
    return sorted(sorted(counts, key=lambda label: (-counts[label], label))[:n_labels])
