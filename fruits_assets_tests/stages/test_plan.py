"""Which items make a task, and which files of a table are put together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fruits_assets.stages import plan
from fruits_assets.stages.plan import cut, kept_together, row_keys
from fruits_assets.stages.stored import StoredFile

MB = 1024**2


def sizes_of_parts(sizes: Sequence[int], n_cores: int, bytes_per_item: int = 0) -> list[list[int]]:
    return [list(sizes[part.start : part.stop]) for part in cut(sizes, n_cores, bytes_per_item)]


# Tasks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_cores", [1, 4, 64])
def test_the_parts_are_the_whole_in_its_order(n_cores: int) -> None:
    sizes = np.random.default_rng(n_cores).integers(0, 9 * MB, 500).tolist()
    parts = sizes_of_parts(sizes, n_cores)
    assert [size for part in parts for size in part] == sizes
    assert all(parts)


def test_of_nothing_there_is_no_part() -> None:
    assert sizes_of_parts([], 4) == []


def test_a_single_item_is_a_part() -> None:
    assert sizes_of_parts([5], 4) == [[5]]


def test_every_core_has_many_tasks_where_there_is_enough_to_do() -> None:
    parts = sizes_of_parts([5 * MB] * 400, n_cores=4)
    assert 4 * 16 <= len(parts) <= 4 * 64


def test_a_little_work_is_not_cut_into_tasks_that_are_over_at_once() -> None:
    parts = sizes_of_parts([100_000] * 100, n_cores=64)
    assert 2 <= len(parts) <= 5


def test_a_core_has_two_tasks_even_where_there_is_little_to_do() -> None:
    assert len(sizes_of_parts([MB] * 32, n_cores=2)) == 4


def test_items_cost_more_than_their_bytes() -> None:
    assert len(sizes_of_parts([0] * 1000, n_cores=4)) == 1
    assert len(sizes_of_parts([0] * 1000, n_cores=4, bytes_per_item=MB)) > 16


@pytest.mark.parametrize("n_cores", [1, 1000])
def test_no_part_is_larger_than_a_file_should_be(n_cores: int) -> None:
    parts = sizes_of_parts([3 * MB] * 10_000, n_cores)
    assert max(map(sum, parts)) <= plan.FILE_BYTES
    if n_cores == 1:
        assert min(map(sum, parts[:-1])) > plan.FILE_BYTES - 8 * MB


def test_an_item_that_is_larger_than_a_file_should_be_is_a_part_of_its_own() -> None:
    huge = 2 * plan.FILE_BYTES
    assert [huge] in sizes_of_parts([1, huge, 1], n_cores=2)
    assert sizes_of_parts([huge, huge], n_cores=2) == [[huge], [huge]]


# Files -------------------------------------------------------------------------------------------


def files_of(*sizes: int) -> list[StoredFile]:
    return [StoredFile(f"{i:04}.parquet", size, 1) for i, size in enumerate(sizes)]


def test_files_stay_while_there_are_few_small_ones() -> None:
    files = files_of(100 * MB, *[1] * 256)
    kept, groups = kept_together(files)
    assert sorted(kept) == files
    assert groups == []


def test_of_too_many_small_files_the_smallest_are_put_together_and_large_ones_stay() -> None:
    files = files_of(64 * MB, *range(MB, MB + 300), 500 * MB)
    kept, groups = kept_together(files)
    assert groups == [files[1:18]]  # 2 % of 864 MB
    assert kept == [files[0], *files[18:]]


def test_a_run_writes_little_for_putting_files_together(monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(*[MB] * 1000, 2000 * MB)
    _, groups = kept_together(files)
    together = sum(file.size_bytes for group in groups for file in group)
    assert 0 < together <= 0.02 * 3000 * MB


def test_what_is_put_together_is_no_larger_than_a_file_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_REWRITTEN_SHARE", 1.0)
    sizes = np.random.default_rng(0).integers(1, plan.FILE_BYTES // 2, 400).tolist()
    kept, groups = kept_together(files_of(*sizes))
    assert len(kept) + sum(map(len, groups)) == 400
    assert len(kept) <= 1
    assert all(groups)
    assert max(sum(file.size_bytes for file in group) for group in groups) <= plan.FILE_BYTES


def test_small_files_become_few_step_by_step_however_small_the_table() -> None:
    files = files_of(*[MB] * 1000)
    for _ in range(1000):
        kept, groups = kept_together(files)
        if not groups:
            break
        merged = files_of(*(sum(file.size_bytes for file in group) for group in groups))
        files = files_of(*(file.size_bytes for file in (*kept, *merged)))
    assert len(files) <= 256
    assert sum(file.size_bytes for file in files) == 1000 * MB


def test_a_table_without_files_stays_so() -> None:
    assert kept_together([]) == ([], [])


# Keys --------------------------------------------------------------------------------------------


def test_equal_rows_have_equal_keys_and_others_do_not() -> None:
    rows = [
        ("a", "b"),
        ("ab", ""),
        ("", "ab"),
        ("b", "a"),
        ("a", "c"),
        ("A", "b"),
        ("ä", "b"),
        ("a\u0308", "b"),
    ]
    keys = row_keys(*zip(*rows, strict=True))
    assert keys.dtype == np.uint64
    assert len(set(keys.tolist())) == len(rows)
    again = row_keys(*zip(*reversed(rows), strict=True))
    assert again[::-1].tolist() == keys.tolist()


def test_keys_are_the_same_in_every_process() -> None:
    """They are compared with those of workers, whose `hash` is another one."""
    assert row_keys(["Banana/1.jpg"]).tolist() == [int.from_bytes(DIGEST, "little")]


# blake2b of 8 bytes, as b2sum -l 64 gives it.
DIGEST = bytes.fromhex("f834649d50cba105")


def test_no_rows_have_no_keys() -> None:
    assert row_keys([]).tolist() == row_keys([], []).tolist() == []


def test_columns_of_unequal_length_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        row_keys(["a", "b"], ["c"])
