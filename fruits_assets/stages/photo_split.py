"""Which photos a classifier learns from and on which it is measured: a cut that their content decides."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fruits_assets.stages.stage import StageInputError

TRAINING, VALIDATION, TEST = range(3)
SHARES = ("training", "validation", "test")
LEFT_OUT = "left out"
MIN_UNITS = len(SHARES)
_LABELS_NAMED = 10

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Photos:
    """Path, label and SHA-256 of the content of n photos."""

    paths: Sequence[str]
    labels: Sequence[str]
    contents: Sequence[str]


@dataclass(frozen=True)
class Cut:
    """How photos are cut: two shares of them, 0 to 1, training gets the rest; and what stays together.

    `group_pattern` is a regular expression that is searched in each path: photos of which it finds the same
    (the same groups, if it has any) are on one side. Where it is empty only copies of a photo are.
    """

    validation_share: float
    test_share: float
    seed: int
    group_pattern: str = ""


@dataclass(frozen=True)
class Split:
    """What n photos are used for.

    `labels` are those that take part, sorted. `classes` (n,) has the number in it of each photo's label,
    `shares` (n,) the number in `SHARES`; both are -1 where the label is left out. `left_out` counts the
    photos of each of those. `units` (n,) numbers, from 0 on, the sets of photos that were kept together.
    """

    labels: Sequence[str]
    classes: Numbers
    shares: Numbers
    left_out: Mapping[str, int]
    units: Numbers

    def count(self, share: int) -> int:
        """How many photos it has."""
        return int((self.shares == share).sum())


def split_photos(photos: Photos, cut: Cut) -> Split:
    """Cut photos into training, validation and test, within each label by a hash of seed and content.

    Copies of one photo, whatever their labels, and photos of one group are a unit, which is not torn apart.
    Of a label with three units or more each share gets one at least; with fewer, a label is left out.

    Raises:
        StageInputError: the pattern is found in no path; or fewer than two labels have enough photos.
    """
    units = _units(photos.contents, _groups(photos.paths, cut.group_pattern))
    n_units = int(units.max()) + 1
    names, classes = np.unique(np.array(photos.labels, object), return_inverse=True)
    sizes = np.bincount(units)
    # By label, and there by hash.
    order = _in_hash_order(units, photos.contents, cut.seed)
    label_of_unit = _label_of_each(units, classes, n_units)[order]
    order = order[np.argsort(label_of_unit, kind="stable")]
    share_of_unit = np.empty(n_units, np.int64)
    for of_label in np.split(order, np.cumsum(np.bincount(label_of_unit, minlength=len(names)))[:-1]):
        share_of_unit[of_label] = _cut(sizes[of_label], cut)
    return _without_rare_labels([str(name) for name in names], classes, share_of_unit[units], units)


def _cut(sizes: Numbers, cut: Cut) -> Numbers:
    """The share of each of some units in a row, of so many photos: by where its middle is."""
    middles = (np.cumsum(sizes) - sizes / 2) / max(1, sizes.sum())
    bounds = [1 - cut.validation_share - cut.test_share, 1 - cut.test_share]
    shares: Numbers = np.searchsorted(bounds, middles, side="right")
    if len(shares) >= MIN_UNITS:
        shares[0], shares[-1] = TRAINING, TEST
        if VALIDATION not in shares:
            shares[min(int((shares == TRAINING).sum()), len(shares) - 2)] = VALIDATION
    return shares


def _without_rare_labels(labels: Sequence[str], classes: Numbers, shares: Numbers, units: Numbers) -> Split:
    counts = np.zeros((len(labels), len(SHARES)), np.int64)
    np.add.at(counts, (classes, shares), 1)
    takes_part = (counts > 0).all(axis=1)
    left_out = {labels[i]: int(counts[i].sum()) for i in np.flatnonzero(~takes_part).tolist()}
    if takes_part.sum() < 2:
        raise StageInputError(_too_few(labels, left_out))
    classes = np.where(takes_part, np.cumsum(takes_part) - 1, -1)[classes]
    return Split(
        [label for label in labels if label not in left_out],
        classes,
        np.where(classes >= 0, shares, -1),
        left_out,
        units,
    )


def _too_few(labels: Sequence[str], left_out: Mapping[str, int]) -> str:
    if len(labels) == 1:
        return (
            f"All photos have the label '{labels[0]}', so there is nothing to tell apart. A classifier needs "
            "photos of at least two labels: put them into a folder each below FRUITS_IMAGES."
        )
    named = ", ".join(f"'{label}' ({n})" for label, n in list(left_out.items())[:_LABELS_NAMED])
    more = " ..." if len(left_out) > _LABELS_NAMED else ""
    return (
        f"{len(labels) - len(left_out)} of {len(labels)} labels have photos for training, validation and "
        f"test, at least 2 needed. Too few photos are in {named}{more}: add some, so that each has at least "
        f"{MIN_UNITS} that are neither copies nor kept together by group_pattern."
    )


def _groups(paths: Sequence[str], pattern: str) -> Sequence[str | None]:
    """What the pattern finds in each path, None where it finds nothing."""
    if not pattern:
        return [None] * len(paths)
    compiled = re.compile(pattern)
    found = [compiled.search(path) for path in paths]
    if not any(found):
        raise StageInputError(
            f"group_pattern {pattern!r} is found in none of {len(paths)} paths, the first of which is "
            f"'{min(paths)}'. Correct it in the configuration of fruit_classifier, or leave it empty."
        )
    return [
        "\0".join(text or "" for text in match.groups() or (match.group(),)) if match else None
        for match in found
    ]


def _units(contents: Sequence[str], groups: Sequence[str | None]) -> Numbers:
    """Numbers from 0 on of sets of photos that content or group ties together, be it by way of others."""
    _, by_content = np.unique(np.array(contents, object), return_inverse=True)
    keys = [
        f"content {content}" if group is None else f"group {group}"
        for content, group in zip(contents, groups, strict=True)
    ]
    _, by_group = np.unique(np.array(keys, object), return_inverse=True)
    units = np.arange(len(keys))
    while True:
        # Each photo takes the least number among those it is tied to, until none changes.
        before = units
        for tie in (by_content, by_group):
            least = np.full(int(tie.max()) + 1, len(keys))
            np.minimum.at(least, tie, units)
            units = least[tie]
        if np.array_equal(units, before):
            return np.unique(units, return_inverse=True)[1]


def _in_hash_order(units: Numbers, contents: Sequence[str], seed: int) -> Numbers:
    """The units in the order of a hash: of the content that comes first in each."""
    first: dict[int, str] = {}
    for unit, content in zip(units.tolist(), contents, strict=True):
        first[unit] = min(content, first.get(unit, content))
    return np.array(sorted(first, key=lambda unit: _hash(seed, first[unit])))


def _hash(seed: int, content: str) -> bytes:
    return hashlib.blake2b(f"{seed} {content}".encode(), digest_size=16).digest()


def _label_of_each(units: Numbers, classes: Numbers, n_units: int) -> Numbers:
    """The label of a unit; where it has several, that of most of its photos, the first one of those."""
    counts: list[Counter[int]] = [Counter() for _ in range(n_units)]
    for unit, label in zip(units.tolist(), classes.tolist(), strict=True):
        counts[unit][label] += 1
    return np.array([min(count, key=lambda label: (-count[label], label)) for count in counts])


def chosen_references(photos: Photos, split: Split, seed: int, at_most: int) -> Numbers:
    """The numbers of so many training photos, by path: of each label its part, by the hash of the cut.

    Of copies there is only the one whose path comes first. Parts are rounded up.
    """
    first: dict[str, int] = {}
    for number in np.flatnonzero(split.shares == TRAINING).tolist():
        content = photos.contents[number]
        if content not in first or photos.paths[number] < photos.paths[first[content]]:
            first[content] = number
    of_label: list[list[int]] = [[] for _ in split.labels]
    for content in sorted(first, key=lambda content: _hash(seed, content)):
        of_label[split.classes[first[content]]].append(first[content])
    part = min(1.0, at_most / len(first))
    chosen = [number for numbers in of_label for number in numbers[: math.ceil(part * len(numbers))]]
    return np.array(sorted(chosen, key=lambda number: photos.paths[number]), np.int64)
