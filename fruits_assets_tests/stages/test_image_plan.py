"""Which images are read, which are copied and which files stay: two lists are gone through side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from fruits_assets.stages import image_plan, plan, sorting
from fruits_assets.stages.image_plan import TO_READ_SCHEMA, planned
from fruits_assets.stages.image_rows import SCHEMA
from fruits_assets.stages.listing import ListedFile
from fruits_assets.stages.parquet import rows_of
from fruits_assets.stages.sorting import Sorted
from fruits_assets.stages.stored import Output, StoredTable
from fruits_assets_tests.stages.running import paths_of, truncate, write_table

STAMPS = pa.schema([SCHEMA.field(name) for name in ("path", "source_bytes", "modified")])


def file(path: str, size_bytes: int = 1000, modified: int = 1, reason: str | None = None) -> ListedFile:
    return ListedFile(path, size_bytes, modified, reason)


A, B, C, D, E, F = [file(f"kiwi/{letter}.png") for letter in "abcdef"]
FILES = ([A, B], [C, D], [E, F])
LISTING = [A, B, C, D, E, F]


def images_of(folder: Path, *files: Sequence[ListedFile]) -> StoredTable:
    """A previous version, as far as a plan looks at it."""
    parts = [[dict(zip(STAMPS.names, listed[:3], strict=True)) for listed in of_file] for of_file in files]
    return write_table(folder / "raw_images", *(pa.Table.from_pylist(part, STAMPS) for part in parts))


@dataclass(frozen=True)
class Planned:
    """A plan in the test's own words: kept files by their place; of files that are copied, what remains of
    each; and what is read, a list for each task."""

    kept: list[int]
    copied: list[list[list[str]]]
    read: list[list[ListedFile]]


def plan_of(previous: StoredTable, listing: Iterable[ListedFile], folder: Path, n_cores: int = 2) -> Planned:
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    found = planned(previous, Sorted(listing, runs), Output(str(folder / "raw_images"), "new"), n_cores)
    kept, copied, read = [], [], []
    for task in found.tasks:
        if task.kept:
            kept.append(list(previous.files).index(task.kept))
        elif task.copied:
            assert all(list(numbers) == sorted(set(numbers)) for _, numbers in task.copied)
            parts = [(paths_of(f"{previous.uri}/{path}"), numbers) for path, numbers in task.copied]
            copied.append([[paths[number] for number in numbers] for paths, numbers in parts])
        else:
            batches = rows_of(found.to_read, TO_READ_SCHEMA.names, task.to_read)
            read.append([ListedFile(**row) for batch in batches for row in batch.to_pylist()])
    assert found.n_to_read == sum(map(len, read))
    assert bool(found.to_read) is bool(found.n_to_read)
    return Planned(sorted(kept), copied, read)


def test_without_a_previous_version_everything_is_read_in_the_order_of_the_paths(tmp_path: Path) -> None:
    nothing = StoredTable(str(tmp_path / "raw_images"), ())
    assert plan_of(nothing, [F, B, A, D, E, C], tmp_path) == Planned([], [], [LISTING])


def test_of_an_unchanged_source_nothing_is_read_or_copied_and_no_list_is_left(tmp_path: Path) -> None:
    assert plan_of(images_of(tmp_path, *FILES), reversed(LISTING), tmp_path) == Planned([0, 1, 2], [], [])
    assert not list((tmp_path / "raw_images" / "_versions" / "new").iterdir())


@pytest.mark.parametrize("changed", [file(C.path, size_bytes=999), file(C.path, modified=2)])
def test_an_image_of_another_size_or_time_is_read_and_its_neighbour_is_copied(
    tmp_path: Path, changed: ListedFile
) -> None:
    previous = images_of(tmp_path, *FILES)
    assert plan_of(previous, [A, B, changed, D, E, F], tmp_path) == Planned([0, 2], [[[D.path]]], [[changed]])


def test_two_images_that_change_places_are_read(tmp_path: Path) -> None:
    previous = images_of(tmp_path, [A, file("kiwi/b.png", 5)], [file("kiwi/c.png", 6), D])
    swapped = [file("kiwi/b.png", 6), file("kiwi/c.png", 5)]
    expected = Planned([], [[[A.path]], [[D.path]]], [swapped])
    assert plan_of(previous, [A, *swapped, D], tmp_path) == expected


@pytest.mark.parametrize("vanished", LISTING)
def test_the_file_of_a_vanished_image_is_copied_without_it(tmp_path: Path, vanished: ListedFile) -> None:
    rest = [listed for listed in LISTING if listed != vanished]
    (remains,) = [[f.path for f in of_file if f != vanished] for of_file in FILES if vanished in of_file]
    kept = [i for i, of_file in enumerate(FILES) if vanished not in of_file]
    assert plan_of(images_of(tmp_path, *FILES), rest, tmp_path) == Planned(kept, [[remains]], [])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_file_whose_images_have_all_vanished_is_left_out(tmp_path: Path, number: int) -> None:
    rest = [listed for i, of_file in enumerate(FILES) if i != number for listed in of_file]
    kept = [i for i in range(3) if i != number]
    assert plan_of(images_of(tmp_path, *FILES), rest, tmp_path) == Planned(kept, [], [])


@pytest.mark.parametrize("path", ["apple/c.png", "kiwi/c 2.png", "kiwi/d/c.png", "lime/c.png"])
def test_a_renamed_image_is_read_and_its_old_row_is_not_copied(tmp_path: Path, path: str) -> None:
    renamed = file(path)
    found = plan_of(images_of(tmp_path, *FILES), [A, B, renamed, D, E, F], tmp_path)
    assert found == Planned([0, 2], [[[D.path]]], [[renamed]])


# A space and a full stop sort before a slash, capitals before small letters.
@pytest.mark.parametrize(
    "path",
    [
        "kiwi/a",
        "kiwi/a.pn",
        "kiwi/a.png2",
        "kiwi/a/b.png",
        "kiwi/b .png",
        "kiwi",
        "kiwi.png",
        "kiwi 2/c.png",
        "KIWI/c.png",
        "apple/1.png",
        "zebra/1.png",
        "kiwi/ç.png",
        "kiwi/🍎.png",
        "kiwi/\uffff.png",
    ],
)
def test_a_new_image_is_read_wherever_it_sorts_and_no_other_is(tmp_path: Path, path: str) -> None:
    new = file(path)
    assert plan_of(images_of(tmp_path, *FILES), [*LISTING, new], tmp_path) == Planned([0, 1, 2], [], [[new]])


def test_an_image_that_can_no_longer_be_read_is_not_taken_over(tmp_path: Path) -> None:
    """Its row would be in the table and in the quarantine."""
    unreadable = file(C.path, reason="cannot be read: Permission denied")
    found = plan_of(images_of(tmp_path, *FILES), [A, B, unreadable, D, E, F], tmp_path)
    assert found == Planned([0, 2], [[[D.path]]], [[unreadable]])


def test_of_a_folder_that_cannot_be_listed_no_image_is_taken_over(tmp_path: Path) -> None:
    folder = file("kiwi", 0, 0, "folder cannot be listed: Permission denied")
    previous = images_of(tmp_path, *FILES, [file("lime/1.png")])
    assert plan_of(previous, [folder, file("lime/1.png")], tmp_path) == Planned([3], [], [[folder]])


def test_rows_that_are_not_in_the_order_of_their_paths_are_found(tmp_path: Path) -> None:
    """Files that were put together are so, and what they hold lies between what others do."""
    previous = images_of(tmp_path, [F, B, D], [E, A, C])
    assert plan_of(previous, LISTING, tmp_path) == Planned([0, 1], [], [])
    changed = file(D.path, modified=2)
    expected = Planned([], [[[F.path, B.path]], [[E.path, C.path]]], [[changed]])
    assert plan_of(previous, [F, E, changed, C, B], tmp_path) == expected


def test_small_files_that_are_put_together_keep_the_order_of_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_MAX_SMALL_FILES", 1)
    monkeypatch.setattr(plan, "_REWRITTEN_SHARE", 1.0)
    previous = images_of(tmp_path, [F, B], [A, E])
    found = plan_of(previous, [A, B, E, F], tmp_path)
    assert (found.kept, found.read, len(found.copied)) == ([], [], 1)
    # Which file is first depends on their sizes, which no reader does.
    assert sorted(found.copied[0]) == [[A.path, E.path], [F.path, B.path]]


def test_a_damaged_file_is_read_again_and_the_ones_around_it_stay(tmp_path: Path) -> None:
    previous = images_of(tmp_path, *FILES)
    truncate(previous.uris[1])
    assert plan_of(previous, LISTING, tmp_path) == Planned([0, 2], [], [[C, D]])


def test_what_is_read_is_divided_by_bytes_and_the_unreadable_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_plan, "_BYTES_PER_IMAGE", 0)
    monkeypatch.setattr(plan, "_MIN_TASK_BYTES", 1000)
    monkeypatch.setattr(plan, "_TASK_BYTES", 1000)
    sizes = [900, 100, 500, 10**12, 500, 1]
    listing = [file(f"{i}.png", size, reason="no" if size > 1000 else None) for i, size in enumerate(sizes)]
    nothing = StoredTable(str(tmp_path / "raw_images"), ())
    assert plan_of(nothing, listing, tmp_path).read == [listing[:2], listing[2:5], listing[5:]]


def numbered(numbers: Iterable[int]) -> list[ListedFile]:
    """Of numbers that do not sort like their text; every seventh has changed since `images_of` them."""
    return [file(f"{i % 3}/{i}.png", modified=2 if i % 7 == 0 else 1) for i in numbers]


def make_runs_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "_RECORDS_PER_RUN", 16)
    monkeypatch.setattr(sorting, "_RECORDS_PER_READ", 5)


def make_groups_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_plan, "_LISTED_PER_GROUP", 4)


def make_tasks_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_plan, "_BYTES_PER_IMAGE", 0)
    monkeypatch.setattr(plan, "_MIN_TASK_BYTES", 3000)
    monkeypatch.setattr(plan, "_TASK_BYTES", 3000)


@pytest.mark.parametrize(
    "changes",
    [
        (),
        (make_runs_small,),
        (make_groups_small,),
        (make_tasks_small,),
        (make_runs_small, make_groups_small, make_tasks_small),
    ],
)
def test_a_plan_does_not_depend_on_how_much_is_held_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: Sequence[Callable[[pytest.MonkeyPatch], None]],
) -> None:
    """0 to 99 were there, of which 0 to 9 have vanished; 100 to 119 are new."""
    for change in changes:
        change(monkeypatch)
    before = [listed._replace(modified=1) for listed in numbered(range(100))]
    listing = numbered(range(119, 9, -1))
    found = plan_of(images_of(tmp_path, before[::2], before[1::2]), listing, tmp_path)
    unchanged = {listed.path for listed in listing} & {listed.path for listed in before}
    unchanged -= {listed.path for listed in listing if listed.modified == 2}
    assert found.copied == [
        [[listed.path for listed in of_file if listed.path in unchanged]]
        for of_file in (before[::2], before[1::2])
    ]
    to_read = sorted(listed for listed in listing if listed.path not in unchanged)
    assert list(itertools.chain.from_iterable(found.read)) == to_read
    assert len(to_read) == 13 + 20
    assert len(found.read) == (11 if make_tasks_small in changes else 2)
