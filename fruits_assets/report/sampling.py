"""Which photos a report looks at: of very many, some of every label, and the same ones at every run."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Photos:
    """Some photos: path and label of each, and its scores (n_photos, n_components)."""

    paths: Sequence[str]
    labels: Sequence[str]
    scores: Scores

    def __len__(self) -> int:
        return len(self.paths)

    def of(self, quotas: Mapping[str, int]) -> Photos:
        """At most so many of each label."""
        sample = Sample(quotas)
        sample.add(self)
        return sample.photos()


def quotas(counts: Mapping[str, int], at_most: int) -> dict[str, int]:
    """How many photos of each label: small labels whole, of the others the same number.

    Where there are more labels than photos are wanted, the smallest labels have none.
    """
    left, wanted = at_most, {}
    for n_before, (label, count) in enumerate(sorted(counts.items(), key=lambda item: (item[1], item[0]))):
        wanted[label] = min(count, left // (len(counts) - n_before))
        left -= wanted[label]
    return wanted


class Sample:
    """Takes photos block by block and keeps those with the smallest hash of the path: so many of a label.

    Neither the order of the photos nor what else there is decides about one of them but its label's quota.
    """

    def __init__(self, wanted: Mapping[str, int]) -> None:
        self._wanted = wanted
        self._kept: dict[str, list[tuple[int, str, Scores]]] = {}

    def add(self, photos: Photos) -> None:
        """Look at more photos."""
        for path, label, scores in zip(photos.paths, photos.labels, photos.scores, strict=True):
            kept, n_wanted = self._kept.setdefault(label, []), self._wanted.get(label, 0)
            # The largest hash comes first.
            key = -int.from_bytes(blake2b(path.encode(), digest_size=8).digest())
            if len(kept) < n_wanted:
                heapq.heappush(kept, (key, path, scores.copy()))
            elif n_wanted and key > kept[0][0]:
                heapq.heapreplace(kept, (key, path, scores.copy()))

    def photos(self) -> Photos:
        """What is kept, by label and path."""
        rows = sorted(
            ((label, path, scores) for label, kept in self._kept.items() for _, path, scores in kept),
            key=lambda row: row[:2],
        )
        n_components = len(rows[0][2]) if rows else 0
        scores = np.array([row[2] for row in rows], np.float32).reshape(len(rows), n_components)
        return Photos([path for _, path, _ in rows], [label for label, _, _ in rows], scores)
