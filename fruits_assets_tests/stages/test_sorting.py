"""The order of records, of which there may be more than fit into memory."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest

from fruits_assets.stages import sorting
from fruits_assets.stages.listing import ListedFile
from fruits_assets.stages.sorting import Sorted

# Of equal keys, the rest cannot be compared: a reason is text or none.
Record = tuple[str, object]


def shuffled(n_records: int, n_keys: int) -> list[Record]:
    """Records of keys of unequal length that occur several times, each with what tells it from the others."""
    keys = np.random.default_rng(n_records).integers(0, n_keys, n_records).tolist()
    return [(f"kiwi/{key}.png", f"number {i}" if i % 2 else None) for i, key in enumerate(keys)]


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "_RECORDS_PER_RUN", 10)
    monkeypatch.setattr(sorting, "_RECORDS_PER_READ", 3)


@pytest.mark.usefixtures("small_runs")
@pytest.mark.parametrize("n_records", [0, 1, 9, 10, 11, 30, 95])
def test_records_of_several_runs_are_those_of_one_sort(tmp_path: Path, n_records: int) -> None:
    records = shuffled(n_records, n_keys=1000)
    found = Sorted(iter(records), tmp_path)
    assert list(found) == sorted(records, key=itemgetter(0))
    assert len(found) == n_records
    assert len(list(tmp_path.iterdir())) == n_records // 10


@pytest.mark.usefixtures("small_runs")
def test_records_of_equal_keys_stay_in_the_order_they_came_in(tmp_path: Path) -> None:
    records = shuffled(95, n_keys=4)
    assert list(Sorted(records, tmp_path)) == sorted(records, key=itemgetter(0))


@pytest.mark.usefixtures("small_runs")
def test_records_can_be_gone_through_again_and_side_by_side(tmp_path: Path) -> None:
    records = shuffled(35, n_keys=1000)
    found = Sorted(records, tmp_path)
    assert list(found) == list(found)
    assert [first for first, _ in zip(found, found, strict=True)] == list(found)
    next(iter(found))  # one that is given up takes nothing from the others
    assert list(found) == sorted(records, key=itemgetter(0))


@pytest.mark.usefixtures("small_runs")
def test_several_sorts_share_a_folder(tmp_path: Path) -> None:
    some, others = shuffled(25, n_keys=1000), shuffled(35, n_keys=1000)
    found, found_others = Sorted(some, tmp_path), Sorted(others, tmp_path)
    assert list(found) == sorted(some, key=itemgetter(0))
    assert list(found_others) == sorted(others, key=itemgetter(0))


@pytest.mark.usefixtures("small_runs")
def test_listed_files_come_back_as_they_were(tmp_path: Path) -> None:
    files = [
        ListedFile(f"pêche/{19 - i}🍎.png", i, -i, "not a regular file" if i == 3 else None)
        for i in range(20)
    ]
    found = list(Sorted(files, tmp_path))
    assert found == sorted(files)
    assert all(isinstance(file, ListedFile) for file in found)


def test_few_records_are_not_written_to_disk(tmp_path: Path) -> None:
    assert len(list(Sorted(shuffled(5000, n_keys=1000), tmp_path / "no such folder"))) == 5000
