"""Training, validation and test: decided by content alone, and nothing that belongs together torn apart."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from fruits_assets.stages.photo_split import (
    TRAINING,
    Cut,
    Photos,
    Split,
    chosen_references,
    split_photos,
)
from fruits_assets.stages.stage import StageInputError

CUT = Cut(validation_share=0.2, test_share=0.2, seed=0)
FRAMES = r"^(.*/[a-z]*\d*_)\d+_100\.jpg$"


def content(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def photos(*of: tuple[str, str]) -> Photos:
    """Paths and what is in the file; the label is the folder."""
    return Photos(
        [path for path, _ in of],
        [path.rsplit("/", 1)[0] for path, _ in of],
        [content(text) for _, text in of],
    )


def distinct(**n_of_label: int) -> Photos:
    """So many different photos of each label."""
    return photos(
        *((f"{label}/{i}.jpg", f"{label} {i}") for label, n in n_of_label.items() for i in range(n))
    )


def share_of_path(all_photos: Photos, split: Split) -> dict[str, int]:
    return dict(zip(all_photos.paths, split.shares.tolist(), strict=True))


def test_every_label_is_cut_into_the_configured_shares() -> None:
    split = split_photos(distinct(kiwi=100, fig=10, plum=25), CUT)
    counts = Counter(zip(split.classes.tolist(), split.shares.tolist(), strict=True))
    assert split.labels == ["fig", "kiwi", "plum"]
    for label, total in enumerate((10, 100, 25)):
        assert [counts[label, share] for share in range(3)] == [0.6 * total, 0.2 * total, 0.2 * total]
    other = split_photos(distinct(kiwi=100, fig=10), Cut(0.1, 0.3, 0))
    assert [other.count(share) for share in range(3)] == [66, 11, 33]


def test_the_order_and_the_names_of_the_photos_do_not_matter() -> None:
    some = distinct(kiwi=30, fig=30)
    order = np.random.default_rng(1).permutation(60)
    shuffled = Photos(*([column[i] for i in order] for column in (some.paths, some.labels, some.contents)))
    for cut in (CUT, replace(CUT, group_pattern=r"^.*/\d")):
        expected = share_of_path(some, split_photos(some, cut))
        assert share_of_path(shuffled, split_photos(shuffled, cut)) == expected
    renamed = replace(some, paths=[f"{path}.renamed" for path in some.paths])
    np.testing.assert_array_equal(split_photos(renamed, CUT).shares, split_photos(some, CUT).shares)


def test_another_seed_is_another_cut() -> None:
    some = distinct(kiwi=30, fig=30)
    one, other = (split_photos(some, replace(CUT, seed=seed)).shares for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_copies_of_a_photo_are_on_one_side_even_under_two_labels() -> None:
    copies = [
        (f"{label}/{name}.jpg", f"{i}")
        for i in range(40)
        for label, name in (("kiwi", f"{i}"), ("kiwi", f"{i} again"), ("fig", f"{i} by mistake"))
    ]
    some = photos(*copies, *((f"fig/{i}.jpg", f"fig {i}") for i in range(40)))
    split = split_photos(some, CUT)
    sides = defaultdict(set)
    for of_content, share in zip(some.contents, split.shares.tolist(), strict=True):
        sides[of_content].add(share)
    assert {len(found) for found in sides.values()} == {1}
    assert len(set(split.units.tolist())) == 80


def test_frames_of_one_object_are_on_one_side_and_copies_tie_objects_together() -> None:
    frames = [
        (f"{label}/{series}_{i}_100.jpg", f"{label} {series} {i}")
        for label in ("kiwi", "fig")
        for series in ("r", "r2", "r3", "r4")
        for i in range(20)
    ]
    # A frame of r3 that is also in r4 makes one set of the two.
    some = photos(*frames, ("kiwi/r4_99_100.jpg", "kiwi r3 0"), ("kiwi/alone.jpg", "alone"))
    split = split_photos(some, replace(CUT, group_pattern=FRAMES))
    sides = defaultdict(set)
    for path, share in share_of_path(some, split).items():
        sides[path.rsplit("_", 2)[0]].add(share)
    assert {len(found) for found in sides.values()} == {1}
    assert sides["kiwi/r3"] == sides["kiwi/r4"]
    assert len(set(split.units.tolist())) == 8
    assert {share for found in sides.values() for share in found} == {0, 1, 2}
    apart = split_photos(some, CUT)
    assert len({share_of_path(some, apart)[f"kiwi/r_{i}_100.jpg"] for i in range(20)}) == 3


@pytest.mark.parametrize("sizes", [(1, 1, 1), (100, 1, 1), (1, 1, 100), (50, 50, 1, 1), (1, 1, 1, 100)])
def test_three_objects_are_enough_however_many_frames_each_has(sizes: tuple[int, ...]) -> None:
    frames = [
        (f"{label}/{number}_{i}_100.jpg", f"{label} {number} {i}")
        for label in ("kiwi", "fig")
        for number, size in enumerate(sizes)
        for i in range(size)
    ]
    for seed in range(8):
        split = split_photos(photos(*frames), replace(CUT, seed=seed, group_pattern=r"^.*/\d+_"))
        for label in range(2):
            assert set(split.shares[split.classes == label].tolist()) == {0, 1, 2}


def test_labels_with_too_few_photos_are_named_and_left_out() -> None:
    some = distinct(kiwi=9, fig=2, plum=9, date=3)
    split = split_photos(some, CUT)
    assert split.labels == ["date", "kiwi", "plum"]
    assert split.left_out == {"fig": 2}
    shares = share_of_path(some, split)
    assert [shares[f"fig/{i}.jpg"] for i in range(2)] == [-1, -1]
    assert sorted(shares[f"date/{i}.jpg"] for i in range(3)) == [0, 1, 2]


def test_copies_do_not_make_a_label_large_enough() -> None:
    some = photos(
        *((f"fig/{i}.jpg", f"fig {i % 2}") for i in range(10)),
        *((f"{label}/{i}.jpg", f"{label} {i}") for label in ("kiwi", "plum") for i in range(5)),
    )
    assert split_photos(some, CUT).left_out == {"fig": 10}


def test_a_single_label_is_an_error_that_says_so() -> None:
    with pytest.raises(StageInputError, match=r"All photos have the label 'kiwi'.*two labels.*FRUITS_IMAGES"):
        split_photos(distinct(kiwi=20), CUT)


def test_labels_that_all_have_too_few_photos_are_an_error_that_names_them() -> None:
    with pytest.raises(
        StageInputError, match=r"1 of 3 labels .* 'fig' \(1\), 'plum' \(2\): add some.*least 3"
    ):
        split_photos(distinct(kiwi=20, fig=1, plum=2), CUT)


def test_a_pattern_that_no_path_has_is_an_error_that_shows_a_path() -> None:
    with pytest.raises(StageInputError, match=r"'frame_\\\\d\+' is found in none of 20 paths.*'fig/0.jpg'"):
        split_photos(distinct(kiwi=10, fig=10), replace(CUT, group_pattern=r"frame_\d+"))


def test_references_are_training_photos_of_all_labels_in_proportion_each_content_once() -> None:
    some = distinct(kiwi=100, fig=20)
    twice = Photos(
        [*some.paths, *(f"kiwi/copy of {i}.jpg" for i in range(100))],
        [*some.labels, *["kiwi"] * 100],
        [*some.contents, *some.contents[:100]],
    )
    split = split_photos(twice, CUT)
    everything = chosen_references(twice, split, seed=0, at_most=1000)
    assert (split.shares[everything] == TRAINING).all()
    assert len({twice.contents[i] for i in everything}) == len(everything) == 72
    assert [twice.paths[i] for i in everything] == sorted(twice.paths[i] for i in everything)
    assert not any("copy" in twice.paths[i] for i in everything)
    few = chosen_references(twice, split, seed=0, at_most=12)
    assert Counter(twice.labels[i] for i in few) == {"kiwi": 10, "fig": 2}
    assert set(few.tolist()) <= set(everything.tolist())
