"""A sample has some of every label, is the same at every run, and does not grow."""

from __future__ import annotations

import numpy as np
import pytest

from fruits_assets.report.sampling import Photos, Sample, quotas


def photos(*paths: str) -> Photos:
    labels = [path.split("/")[0] for path in paths]
    return Photos(list(paths), labels, np.arange(len(paths), dtype=np.float32).reshape(-1, 1))


def many(label: str, n: int) -> list[str]:
    return [f"{label}/{i}" for i in range(n)]


@pytest.mark.parametrize(
    ("at_most", "expected"),
    [
        (100, {"rare": 2, "some": 10, "many": 50}),
        (22, {"rare": 2, "some": 10, "many": 10}),
        (12, {"rare": 2, "some": 5, "many": 5}),
        (3, {"rare": 1, "some": 1, "many": 1}),
        (1, {"rare": 0, "some": 0, "many": 1}),
    ],
)
def test_small_labels_are_whole_and_the_others_have_the_same_number(
    at_most: int, expected: dict[str, int]
) -> None:
    assert quotas({"many": 50, "rare": 2, "some": 10}, at_most) == expected


def test_blocks_and_their_order_decide_nothing() -> None:
    paths = [*many("a", 30), *many("b", 5)]
    wanted = quotas({"a": 30, "b": 5}, 12)
    whole = photos(*paths).of(wanted)
    backwards = Sample(wanted)
    for i in range(len(paths), 0, -7):
        backwards.add(photos(*paths[max(0, i - 7) : i][::-1]))
    assert backwards.photos().paths == whole.paths
    assert whole.labels == ["a"] * 7 + ["b"] * 5
    assert whole.paths == sorted(whole.paths)


def test_scores_stay_with_their_photo() -> None:
    paths = many("a", 30)
    found = photos(*paths).of({"a": 10})
    assert [paths.index(path) for path in found.paths] == found.scores[:, 0].tolist()


def test_a_smaller_sample_is_part_of_a_larger_one() -> None:
    everything = photos(*many("a", 40), *many("b", 40))
    larger = everything.of({"a": 20, "b": 20})
    assert larger.of({"a": 5, "b": 5}).paths == everything.of({"a": 5, "b": 5}).paths
    assert len(larger.of({"a": 5, "b": 5})) == 10


def test_no_photos_are_a_sample_too() -> None:
    assert len(photos().of({})) == 0
