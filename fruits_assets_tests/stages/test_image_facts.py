"""Which images of a table are shown."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from fruits_assets.stages.image_facts import facts_of, thumbnails
from fruits_assets.stages.stored import StoredTable
from fruits_assets_tests.stages.running import write_table

# A label, and what tells its image from the others.
Shown = tuple[str, str]


def images_of(folder: Path, *files: Sequence[Shown]) -> StoredTable:
    """A table whose thumbnails are names."""
    parts = [
        pa.Table.from_pylist(
            [
                {
                    "path": f"{label}/{name}.png",
                    "label": label,
                    "sha256": hashlib.sha256(name.encode()).hexdigest(),
                    "bytes": 1,
                    "stripped": False,
                    "thumbnail": name.encode(),
                }
                for label, name in file
            ]
        )
        for file in files
    ]
    return write_table(folder, *parts)


def shown(table: StoredTable) -> dict[str, list[str]]:
    found = thumbnails(table, [facts_of(uri) for uri in table.uris])
    return {label: [base64.b64decode(one).decode() for one in of_label] for label, of_label in found.items()}


def numbered(label: str, start: int, stop: int) -> list[Shown]:
    return [(label, str(i)) for i in range(start, stop)]


def test_of_a_few_images_all_are_shown_in_the_order_of_the_table(tmp_path: Path) -> None:
    table = images_of(tmp_path, [("pear", "1"), ("kiwi", "2")], [("kiwi", "3"), ("kiwi", "1")])
    assert shown(table) == {"kiwi": ["2", "3", "1"], "pear": ["1"]}


EVENLY = ["0", "2", "5", "7", "10", "12", "15", "17"]


@pytest.mark.parametrize("cuts", [(20,), (10, 20), (1, 2, 3, 19, 20), tuple(range(1, 21))])
def test_those_shown_are_spread_evenly_over_a_label_however_it_is_divided(
    tmp_path: Path, cuts: tuple[int, ...]
) -> None:
    files = [numbered("kiwi", start, stop) for start, stop in zip((0, *cuts), cuts, strict=False)]
    assert shown(images_of(tmp_path, *files)) == {"kiwi": EVENLY}


def test_labels_that_share_files_are_counted_on_their_own(tmp_path: Path) -> None:
    mixed = [
        image for pair in zip(numbered("kiwi", 0, 20), numbered("pear", 0, 20), strict=True) for image in pair
    ]
    assert shown(images_of(tmp_path, mixed[:7], mixed[7:30], mixed[30:])) == {"kiwi": EVENLY, "pear": EVENLY}


def test_of_many_labels_the_first_by_name_are_shown(tmp_path: Path) -> None:
    images = [(f"{i:02}", "1") for i in range(40)]
    assert list(shown(images_of(tmp_path, images[30:], images[:30]))) == [f"{i:02}" for i in range(24)]


def test_files_of_which_nothing_is_shown_are_not_opened(tmp_path: Path) -> None:
    table = images_of(tmp_path, *([image] for image in numbered("kiwi", 0, 20)))
    facts = [facts_of(uri) for uri in table.uris]
    for number, uri in enumerate(table.uris):
        if str(number) not in EVENLY:
            Path(uri).unlink()
    assert len(thumbnails(table, facts)["kiwi"]) == 8
