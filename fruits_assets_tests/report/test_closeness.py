"""Distances in component space, against definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fruits_assets.report.closeness import (
    LabelShapes,
    Outliers,
    ShapesInPasses,
    most_frequent,
    neighbours,
)
from fruits_assets.report.sampling import Photos
from fruits_assets_tests.report.made_up import clusters


def shapes_of(photos: Photos, n_blocks: int = 1) -> LabelShapes:
    adding = ShapesInPasses(sorted(set(photos.labels)), photos.scores.shape[1])
    for rows in np.array_split(np.arange(len(photos)), n_blocks):
        adding.add(some(photos, rows))
    return adding.shapes()


def some(photos: Photos, rows: NDArray[np.int64]) -> Photos:
    return Photos([photos.paths[i] for i in rows], [photos.labels[i] for i in rows], photos.scores[rows])


@pytest.mark.parametrize("n_blocks", [1, 4])
def test_means_and_spreads_are_those_of_all_blocks_together(n_blocks: int) -> None:
    photos = clusters(["a", "b", "c"], 7)
    shapes = shapes_of(photos, n_blocks)
    own = photos.scores[7:14].astype(np.float64)
    np.testing.assert_allclose(shapes.means[1], own.mean(axis=0), rtol=1e-12)
    spread = np.sqrt(((own - own.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert shapes.spreads[1] == pytest.approx(spread)
    apart = np.linalg.norm(shapes.means[0] - shapes.means[1]) / np.hypot(*shapes.spreads[:2])
    assert shapes.separations()[0, 1] == pytest.approx(apart)
    assert shapes.closest(1)[0][2] == min(apart for *_, apart in shapes.closest(3))


def test_single_photos_have_no_spread_and_no_outliers() -> None:
    photos = Photos(["a/1", "b/1"], ["a", "b"], np.array([[1e4, 2.0], [3.0, 4.0]], np.float32))
    shapes = shapes_of(photos)
    assert shapes.spreads.tolist() == [0, 0]
    assert np.isinf(shapes.separations()[0, 1])
    assert shapes.closest(5) == []
    assert shapes.in_order_of_closeness() == [0, 1]
    outliers = Outliers(shapes, 3)
    outliers.add(photos)
    assert outliers.found() == []


def test_the_same_photo_many_times_has_no_spread() -> None:
    photos = Photos([f"a/{i}" for i in range(9)], ["a"] * 9, np.full((9, 3), 1234.567, np.float32))
    assert shapes_of(photos).spreads.tolist() == [0]


def test_labels_stand_beside_those_they_are_close_to() -> None:
    names = ["far", "left", "right", "near left"]
    places = {"far": 100.0, "left": 0.0, "right": 50.0, "near left": 4.0}
    rows = [(name, places[name] + step) for name in names for step in (-1, 0, 1)]
    photos = Photos(
        [f"{name}/{x}" for name, x in rows],
        [name for name, _ in rows],
        np.array([[x] for _, x in rows], np.float32),
    )
    shapes = shapes_of(photos)
    assert [shapes.labels[i] for i in shapes.in_order_of_closeness()] == ["far", "right", "near left", "left"]
    assert shapes.closest(1)[0][:2] == ("left", "near left")


@pytest.mark.parametrize("n_blocks", [1, 5])
def test_the_outlier_of_a_label_is_found_in_whatever_block_it_is(n_blocks: int) -> None:
    photos = clusters(["a", "b"], 20)
    photos.scores[33] += 40
    shapes, outliers = shapes_of(photos), Outliers(shapes_of(photos), 4)
    for rows in np.array_split(np.arange(len(photos)), n_blocks):
        outliers.add(some(photos, rows))
    found = outliers.found()
    assert len(found) == 4
    assert found[0].path == photos.paths[33]
    away = np.linalg.norm(photos.scores[33] - shapes.means[1]) / shapes.spreads[1]
    assert found[0].times == pytest.approx(away)
    assert [outlier.times for outlier in found] == sorted((o.times for o in found), reverse=True)


def test_neighbours_are_those_of_all_distances_written_out() -> None:
    photos = clusters(["a", "b", "c"], 400, n_components=3)  # more than a block
    near = neighbours(photos)
    scores = photos.scores.astype(np.float64)
    names = np.array(photos.labels)
    for photo in (0, 511, 512, 1199):
        away = np.linalg.norm(scores - scores[photo], axis=1)
        away[photo] = np.inf
        assert near.distances[photo] == pytest.approx(away.min())
        assert near.distances_to_another_label[photo] == pytest.approx(away[names != names[photo]].min())
    agreeing = np.mean([photos.labels[i] == photos.labels[j] for i, j in enumerate(near.nearest)])
    assert near.share_with_same_label(photos.labels) == agreeing


def test_a_photo_is_in_one_pair_and_copies_come_first() -> None:
    photos = clusters(["a", "b"], 10)
    photos.scores[3] = photos.scores[15]  # under two labels
    photos.scores[5] = photos.scores[6]
    near = neighbours(photos)
    pairs = near.pairs(of_two_labels=False, n_pairs=6)
    assert {pair[:2] for pair in pairs[:2]} == {(3, 15), (5, 6)}
    assert [pair[2] for pair in pairs[:2]] == [0, 0]
    in_pairs = [photo for pair in pairs for photo in pair[:2]]
    assert len(in_pairs) == len(set(in_pairs))
    assert near.pairs(of_two_labels=True, n_pairs=1) == [(3, 15, 0.0)]


def test_of_a_single_label_there_is_no_pair_of_two() -> None:
    assert neighbours(clusters(["a"], 5)).pairs(of_two_labels=True, n_pairs=3) == []


def test_the_most_frequent_labels_are_kept_by_name() -> None:
    assert most_frequent({"b": 5, "a": 1, "c": 9, "d": 5}, 2) == ["b", "c"]
