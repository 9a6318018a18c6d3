"""How good a classifier is, told from its stored table: accuracy, confusion, calibration, mistakes."""

from __future__ import annotations

import base64
import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from fruits_assets.stages.arrow import Matrix
from fruits_assets.stages.parquet import batches_of, rows_of, shares, spread
from fruits_assets.stages.photo_split import SHARES, TEST, TRAINING, VALIDATION, Numbers, Photos
from fruits_assets.stages.stored import StoredFile, StoredTable

N_MISTAKES = 24
_N_BINS = 10
_Z = 1.96  # of the normal distribution, for an interval of 95 %


@dataclass(frozen=True)
class Judged:
    """Of the photos of one share in a stored file: right class, what was said, how surely, how far away."""

    classes: Numbers
    predicted: Numbers
    probability: Matrix
    distance: Matrix

    def __add__(self, other: Judged) -> Judged:
        return Judged(
            np.concatenate([self.classes, other.classes]),
            np.concatenate([self.predicted, other.predicted]),
            np.concatenate([self.probability, other.probability]),
            np.concatenate([self.distance, other.distance]),
        )

    @property
    def is_right(self) -> NDArray[np.bool_]:
        return np.equal(self.predicted, self.classes)


@dataclass(frozen=True, order=True)
class Mistake:
    """A test photo that was taken for another, and how surely."""

    probability: float
    path: str
    label: str
    predicted: str


@dataclass(frozen=True)
class ClassifiedFacts:
    """What the rows of a stored file add up to; `judged` is by share, `mistakes` are the worst of test."""

    judged: Mapping[int, Judged]
    mistakes: Sequence[Mistake]


def facts_of(uri: str, labels: Sequence[str]) -> ClassifiedFacts:
    """What the rows of a stored file add up to."""
    number_of = {label: number for number, label in enumerate(labels)}
    none = np.empty(0, np.int64)
    judged = {share: Judged(none, none, np.empty(0), np.empty(0)) for share in range(len(SHARES))}
    mistakes: list[Mistake] = []
    for batch in batches_of([uri], ["path", "label", "share", "predicted", "probability", "distance"]):
        rows = batch.to_pydict()
        share_of_row = np.array(rows["share"])
        classes = np.array([number_of.get(label, -1) for label in rows["label"]])
        predicted = np.array([number_of[label] for label in rows["predicted"]])
        probability, distance = np.array(rows["probability"]), np.array(rows["distance"])
        for share, name in enumerate(SHARES):
            here = share_of_row == name
            judged[share] += Judged(classes[here], predicted[here], probability[here], distance[here])
        wrong = np.flatnonzero((share_of_row == SHARES[TEST]) & (classes != predicted)).tolist()
        names = ("path", "label", "predicted")
        found = [Mistake(rows["probability"][i], *(rows[name][i] for name in names)) for i in wrong]
        mistakes = worst([*mistakes, *found])
    return ClassifiedFacts(judged, mistakes)


def worst(mistakes: Sequence[Mistake]) -> list[Mistake]:
    """The surest first; of equally sure ones in a fixed order."""
    return heapq.nlargest(N_MISTAKES, mistakes)


def describe_classified(facts: Sequence[ClassifiedFacts], labels: Sequence[str]) -> dict[str, Any]:
    """Sum up stored rows, all measures being those of the test photos unless their name says otherwise.

    Intervals are those of Wilson (1927) at 95 %; that of macro F1, which is no proportion, takes it for one.
    `confusion` has a row for each right label and a column for each that was said. `baseline` is the accuracy
    of always saying the most frequent label of training. For `calibration_error` see `calibration`.
    """
    judged = {
        share: sum((part.judged[share] for part in facts[1:]), facts[0].judged[share])
        for share in range(len(SHARES))
    }
    test = judged[TEST]
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (test.classes, test.predicted), 1)
    per_label = measures_per_label(confusion, labels)
    n_test = len(test.classes)
    accuracy = float(test.is_right.mean())
    macro_f1 = float(np.mean([row["f1"] for row in per_label]))
    most_frequent = int(np.bincount(judged[TRAINING].classes, minlength=len(labels)).argmax())
    bins = calibration(test)
    return {
        **{f"n_{name}": len(judged[share].classes) for share, name in enumerate(SHARES)},
        **{
            f"{name}_accuracy": float(judged[share].is_right.mean())
            for share, name in enumerate(SHARES)
            if share != TEST
        },
        "accuracy": accuracy,
        **dict(zip(("accuracy_low", "accuracy_high"), wilson(accuracy, n_test), strict=True)),
        "macro_f1": macro_f1,
        **dict(zip(("macro_f1_low", "macro_f1_high"), wilson(macro_f1, n_test), strict=True)),
        "baseline": float((test.classes == most_frequent).mean()),
        "most_frequent_label": labels[most_frequent],
        "calibration_error": sum(
            row["photos"] / n_test * abs(row["accuracy"] - row["mean_probability"]) for row in bins
        ),
        "calibration": bins,
        "per_label": per_label,
        "confusion": confusion.tolist(),
    }


def wilson(share: float, n: int) -> tuple[float, float]:
    """The interval at 95 % of a proportion that was found in n cases (Wilson 1927)."""
    middle = share + _Z**2 / (2 * n)
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def measures_per_label(confusion: Numbers, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Precision (None if the label was never said), recall with its interval, and F1 of each label."""
    right = confusion.diagonal()
    are, said = confusion.sum(axis=1), confusion.sum(axis=0)
    rows = []
    for i, label in enumerate(labels):
        recall = right[i] / are[i]
        low, high = wilson(recall, are[i])
        rows.append(
            {
                "label": label,
                "photos": int(are[i]),
                "precision": float(right[i] / said[i]) if said[i] else None,
                "recall": float(recall),
                "recall_low": float(low),
                "recall_high": float(high),
                "f1": float(2 * right[i] / (are[i] + said[i])),
            }
        )
    return rows


def calibration(judged: Judged) -> list[dict[str, Any]]:
    """Photos by the probability of what was said, in ten equal ranges, those without photos left out.

    The expected calibration error (Guo et al. 2017, equation 3) is the mean difference of accuracy and mean
    probability, weighted by photos.
    """
    numbers = np.minimum((judged.probability * _N_BINS).astype(np.int64), _N_BINS - 1)
    rows = []
    for number in np.unique(numbers):
        here = numbers == number
        rows.append(
            {
                "from": float(number / _N_BINS),
                "photos": int(here.sum()),
                "mean_probability": float(judged.probability[here].mean()),
                "accuracy": float(judged.is_right[here].mean()),
            }
        )
    return rows


def threshold(facts: Sequence[ClassifiedFacts], refused_share: float) -> float:
    """The distance beyond which a photo is like none of training.

    Of photos of known kinds, the share `refused_share`, 0 to 1, is further away: of the n photos of training
    and validation, none of them compared with itself, it is the distance of rank (n + 1) (1 - refused_share)
    as in conformal prediction (Papadopoulos et al. 2002), or the largest.
    """
    known = [part.judged[share].distance for part in facts for share in (TRAINING, VALIDATION)]
    distances = np.sort(np.concatenate(known))
    rank = min(len(distances), math.ceil((len(distances) + 1) * (1 - refused_share)))
    return float(distances[rank - 1])


def refused(facts: Sequence[ClassifiedFacts], share: int, beyond: float) -> float:
    """The part of the photos of a share, 0 to 1, that are further away than this."""
    return float(np.concatenate([part.judged[share].distance > beyond for part in facts]).mean())


def with_thumbnails(
    spark: SparkSession, images: StoredTable, mistakes: Sequence[Mistake], photos: Photos
) -> list[dict[str, Any]]:
    """The mistakes for a contact sheet: `thumbnail` is a base64 JPEG, None if the photo is no longer there.

    Args:
        images: of `raw_images`; looked through for little but paths, if there is a mistake at all.
        photos: with the content of the mistakes: another photo may have taken the place since.
    """
    paths = {mistake.path for mistake in mistakes}
    wanted = {
        path: content for path, content in zip(photos.paths, photos.contents, strict=True) if path in paths
    }

    def thumbnails(part: Sequence[StoredFile]) -> list[tuple[str, str]]:
        found = []
        for uri in StoredTable(images.uri, part).uris:
            numbers, row = [], 0
            for batch in batches_of([uri], ["path", "sha256"]):
                pairs = zip(batch["path"].to_pylist(), batch["sha256"].to_pylist(), strict=True)
                numbers += [row + i for i, (path, content) in enumerate(pairs) if wanted.get(path) == content]
                row += batch.num_rows
            for batch in rows_of(uri, ["path", "thumbnail"], numbers):
                for path, thumbnail in zip(batch["path"].to_pylist(), batch["thumbnail"], strict=True):
                    found.append((path, base64.b64encode(thumbnail.as_py()).decode()))
        return found

    parts = shares(spark, images) if wanted else []
    by_path = dict(spread(spark, parts).flatMap(thumbnails).collect())
    return [
        {
            "path": mistake.path,
            "label": mistake.label,
            "predicted": mistake.predicted,
            "probability": mistake.probability,
            "thumbnail": by_path.get(mistake.path),
        }
        for mistake in mistakes
    ]
