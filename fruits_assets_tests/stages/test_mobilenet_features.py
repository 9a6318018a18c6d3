"""Which features are taken over, copied and computed, and that each image gets its own."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from fruits_assets.mobilenet.convert import ConversionReport
from fruits_assets.mobilenet.extractor import FLATBUFFER, N_FEATURES
from fruits_assets.photos.decoding import decode, model_input
from fruits_assets.stages import image_rows, plan
from fruits_assets.stages.mobilenet_features import SCHEMA, Params, mobilenet_features, planned
from fruits_assets.stages.parquet import DamagedFileError, batches_of
from fruits_assets.stages.plan import PREVIOUS, row_keys
from fruits_assets.stages.stage import StageInputError
from fruits_assets.stages.stored import Stored, StoredTable
from fruits_assets_tests.stages.running import (
    Ran,
    flip_bit,
    run_stage,
    stages_of_jobs,
    stored_rows,
    stored_rows_of_file,
    truncate,
    write_table,
)

# Path, label and content of an image; one letter stands for a photo.
Photo = tuple[str, str, str]

A, B, C, D, E, F = [(f"kiwi/{letter}.png", "kiwi", letter) for letter in "abcdef"]
FILES = ([A, B], [C, D], [E, F])


def identity(photo: Photo) -> dict[str, str]:
    path, label, content = photo
    return {"path": path, "label": label, "sha256": content}


def images_of(folder: Path, *files: Sequence[Photo], sizes: Sequence[int] = ()) -> StoredTable:
    numbered = iter(sizes or [1000] * 100)
    parts = [
        pa.Table.from_pylist([identity(photo) | {"bytes": next(numbered)} for photo in f]) for f in files
    ]
    return write_table(folder / "raw_images", *parts)


def features_of(folder: Path, *files: Sequence[Photo]) -> StoredTable:
    """Of which the first value tells the content."""
    parts = [
        pa.Table.from_pylist(
            [identity(photo) | {"features": [float(ord(photo[2]))] * 3} for photo in f], SCHEMA
        )
        for f in files
    ]
    return write_table(folder / "mobilenet_features", *parts)


@dataclass(frozen=True)
class Planned:
    """A plan in the test's own words: kept files by their place, copies as pairs of old and new."""

    kept: list[int]
    copied: list[tuple[Photo, Photo]]
    computed: list[Photo]


def photos_in(uri: str) -> list[Photo]:
    return [(row["path"], row["label"], row["sha256"]) for row in stored_rows_of_file(uri)]


def rows_at(places: Iterable[tuple[str, Sequence[int]]]) -> list[Photo]:
    return [photos_in(uri)[number] for uri, numbers in places for number in numbers]


def plan_of(previous: StoredTable, images: StoredTable, n_cores: int = 2) -> Planned:
    found = planned(previous, images, n_cores)
    kept, copied, computed = [], [], []
    for task in found.tasks:
        if task.kept:
            kept.append(list(previous.files).index(task.kept))
        elif task.copied:
            new = [(path, label, sha256) for path, label, sha256 in task.copied_for]
            copied += list(zip(rows_at(task.copied), new, strict=True))
        else:
            computed += rows_at(task.images)
    assert found.n_to_compute == len(computed)
    expected = row_keys(*zip(*(photo for uri in images.uris for photo in photos_in(uri)), strict=True))
    assert sorted(found.images.tolist()) == sorted(expected.tolist())
    return Planned(sorted(kept), sorted(copied), computed)


def test_without_a_previous_version_all_images_are_inferred(tmp_path: Path) -> None:
    images = images_of(tmp_path, *FILES)
    assert plan_of(StoredTable(str(tmp_path / "none"), ()), images) == Planned([], [], [A, B, C, D, E, F])


def test_files_in_which_nothing_has_changed_are_kept_by_reference(tmp_path: Path) -> None:
    previous, images = features_of(tmp_path, *FILES), images_of(tmp_path, *FILES)
    assert plan_of(previous, images) == Planned([0, 1, 2], [], [])


def test_it_does_not_matter_how_the_images_are_divided_into_files(tmp_path: Path) -> None:
    previous, images = features_of(tmp_path, *FILES), images_of(tmp_path, [F, D, B], [E], [C, A])
    assert plan_of(previous, images) == Planned([0, 1, 2], [], [])


def test_without_a_vanished_image_its_file_is_copied(tmp_path: Path) -> None:
    previous, images = features_of(tmp_path, *FILES), images_of(tmp_path, [A, B], [C], [E, F])
    assert plan_of(previous, images) == Planned([0, 2], [(C, C)], [])


def test_a_file_whose_images_have_all_vanished_is_left_out(tmp_path: Path) -> None:
    previous, images = features_of(tmp_path, *FILES), images_of(tmp_path, [A, B], [E, F])
    assert plan_of(previous, images) == Planned([0, 2], [], [])


@pytest.mark.parametrize(
    "renamed", [("kiwi/z.png", "kiwi", "c"), ("lime/c.png", "lime", "c"), ("kiwi/a/c.png", "a", "c")]
)
def test_a_renamed_photo_is_copied_and_not_inferred(tmp_path: Path, renamed: Photo) -> None:
    previous, images = features_of(tmp_path, *FILES), images_of(tmp_path, [A, B], [renamed, D], [E, F])
    assert plan_of(previous, images) == Planned([0, 2], sorted([(C, renamed), (D, D)]), [])


def test_a_copied_photo_is_copied_and_not_inferred(tmp_path: Path) -> None:
    again, once_more = ("lime/c.png", "lime", "c"), ("lime/f.png", "lime", "f")
    previous, images = features_of(tmp_path, *FILES), images_of(tmp_path, *FILES, [again, once_more])
    assert plan_of(previous, images) == Planned([0, 1, 2], [(C, again), (F, once_more)], [])


def test_new_images_are_inferred_and_the_files_of_others_stay(tmp_path: Path) -> None:
    new = [("lime/x.png", "lime", "x"), ("lime/y.png", "lime", "y")]
    previous, images = features_of(tmp_path, *FILES), images_of(tmp_path, *FILES, new)
    assert plan_of(previous, images) == Planned([0, 1, 2], [], new)


def test_an_image_with_other_content_is_inferred_and_its_neighbours_are_copied(tmp_path: Path) -> None:
    changed = (C[0], C[1], "x")
    previous, images = features_of(tmp_path, *FILES), images_of(tmp_path, [A, B], [changed, D], [E, F])
    assert plan_of(previous, images) == Planned([0, 2], [(D, D)], [changed])


def test_two_photos_that_change_places_keep_their_own_features(tmp_path: Path) -> None:
    c, d = (C[0], C[1], "d"), (D[0], D[1], "c")
    previous, images = features_of(tmp_path, *FILES), images_of(tmp_path, [A, B], [c, d], [E, F])
    assert plan_of(previous, images) == Planned([0, 2], [(C, d), (D, c)], [])


def test_many_small_files_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_MAX_SMALL_FILES", 2)
    monkeypatch.setattr(plan, "_REWRITTEN_SHARE", 1.0)
    previous, images = features_of(tmp_path, *FILES), images_of(tmp_path, *FILES)
    assert plan_of(previous, images) == Planned([], [(x, x) for x in (A, B, C, D, E, F)], [])
    assert len(planned(previous, images, 2).tasks) == 1


def test_the_work_is_divided_by_the_bytes_of_the_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fruits_assets.stages.mobilenet_features._INFERENCE_BYTES", 0)
    monkeypatch.setattr(plan, "_MIN_TASK_BYTES", 1000)
    monkeypatch.setattr(plan, "_TASK_BYTES", 1000)
    images = images_of(tmp_path, *FILES, sizes=[900, 100, 500, 300, 200, 1])
    tasks = planned(StoredTable(str(tmp_path / "none"), ()), images, 2).tasks
    assert [rows_at(task.images) for task in tasks] == [[A, B], [C, D, E], [F]]


def mark(uri: str) -> None:
    """As whoever reads the features next does, on finding that they are not what was written."""
    flip_bit(uri, "features")
    with pytest.raises(DamagedFileError):
        list(batches_of([uri], ["features"]))


def flip_in_sha256(uri: str) -> None:
    flip_bit(uri, "sha256")


def lose(uri: str) -> None:
    Path(uri).unlink()


@pytest.mark.parametrize("damage", [lose, truncate, flip_in_sha256, mark])
def test_features_in_a_damaged_file_are_computed_again_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[str], None]
) -> None:
    previous, images = features_of(tmp_path, *FILES), images_of(tmp_path, *FILES)
    damage(previous.uris[1])
    assert plan_of(previous, images).computed == [C, D]
    assert [task.kept for task in planned(previous, images, 2).tasks if task.kept] == [
        previous.files[0],
        previous.files[2],
    ]
    warning = caplog.records[0]
    assert warning.levelname == "WARNING"
    assert f"'{previous.uris[1]}' is " in warning.getMessage()
    assert "is made anew when" in warning.getMessage()


@pytest.mark.parametrize("damage", [lose, truncate, flip_in_sha256])
def test_a_damaged_file_of_images_is_an_error_that_names_it(
    tmp_path: Path, damage: Callable[[str], None]
) -> None:
    previous, images = features_of(tmp_path, *FILES), images_of(tmp_path, *FILES)
    damage(images.uris[1])
    with pytest.raises(
        DamagedFileError, match=f"'{images.uris[1]}' is .* made anew when raw_images is materialized"
    ):
        planned(previous, images, 2)


# With the network --------------------------------------------------------------------------------


def photo(path: str, color: tuple[int, int, int]) -> dict[str, Any]:
    buffer = io.BytesIO()
    pixels = np.full((24, 24, 3), color, np.uint8)
    pixels[:12, :12] = 255 - pixels[:12, :12]
    Image.fromarray(pixels).save(buffer, "PNG")
    content = buffer.getvalue()
    return {
        "path": path,
        "label": path.split("/")[0],
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "content": content,
        "pixels": None,
    }


IMAGES = pa.schema(
    [image_rows.SCHEMA.field(name) for name in ("path", "label", "sha256", "bytes", "content", "pixels")]
)
RED, GREEN, BLUE, GREY, PINK = (200, 9, 9), (9, 200, 9), (9, 9, 200), (99, 99, 99), (250, 150, 190)


@dataclass(frozen=True)
class Orchard:
    """Runs of the stage over photos that change, with the untrained network."""

    spark: SparkSession
    root: Path
    network: Path
    fingerprint: str

    def run(self, version: str, *files: Sequence[dict[str, Any]], previous: Ran | None = None) -> Ran:
        tables = (pa.Table.from_pylist(list(rows), IMAGES) for rows in files)
        images = write_table(self.root / f"images {version}", *tables)
        inputs = {
            "raw_images": Stored(images, images.uri),
            "mobilenet_model": Stored(StoredTable(str(self.network), ()), str(self.network)),
        }
        if previous:
            inputs[PREVIOUS] = previous.stored
        params = Params(self.fingerprint, batch_size=2)
        return run_stage(self.spark, mobilenet_features, inputs, self.root / "features", params, version)


@pytest.fixture
def orchard(
    spark: SparkSession, tmp_path: Path, flatbuffer_folder: Path, network_report: ConversionReport
) -> Orchard:
    return Orchard(spark, tmp_path, flatbuffer_folder, network_report.fingerprint)


def by_path(ran: Ran) -> dict[str, list[float]]:
    rows = stored_rows(ran.table())
    found = {row["path"]: row["features"] for row in rows}
    assert len(found) == len(rows) == ran.result.row_count
    assert all(len(features) == N_FEATURES for features in found.values())
    return found


def faults(ran: Ran) -> dict[str, int]:
    names = ("n_missing", "n_unexpected", "n_duplicates", "n_wrong_length", "n_not_finite")
    return {name: ran.result.metadata[name] for name in names if ran.result.metadata[name]}


def test_of_a_photo_that_was_decoded_when_it_was_read_the_file_is_not_decoded_again(orchard: Orchard) -> None:
    files = [photo(f"kiwi/{i}.png", color) for i, color in enumerate((RED, GREEN, BLUE, GREY))]
    expected = by_path(orchard.run("1", files))
    for i in (1, 3):
        pixels = model_input(decode(files[i]["content"]))
        files[i] |= {"content": b"not looked at", "pixels": pixels.tobytes()}
    assert by_path(orchard.run("2", files)) == expected


def test_every_image_gets_the_features_of_its_own_content_whatever_is_taken_over(orchard: Orchard) -> None:
    first = orchard.run(
        "1",
        [photo("kiwi/1.png", RED), photo("kiwi/2.png", GREEN)],
        [photo("kiwi/3.png", BLUE), photo("kiwi/4.png", GREY)],
    )
    assert faults(first) == {}
    assert (first.result.metadata["n_computed"], first.result.metadata["n_reused"]) == (4, 0)
    assert len({tuple(features) for features in by_path(first).values()}) == 4
    now = (
        [photo("kiwi/1.png", RED), photo("kiwi/2.png", GREEN)],
        [photo("kiwi/3.png", BLUE)],
        [photo("lime/4.png", GREY), photo("lime/1.png", RED), photo("lime/new.png", PINK)],
    )
    second = orchard.run("2", *now, previous=first)
    assert faults(second) == {}
    assert (second.result.metadata["n_computed"], second.result.metadata["n_reused"]) == (1, 5)
    from_scratch = by_path(orchard.run("3", *now))
    assert by_path(second).keys() == from_scratch.keys()
    for path, features in by_path(second).items():
        np.testing.assert_allclose(features, from_scratch[path], atol=1e-5, err_msg=path)
    assert {row["label"] for row in stored_rows(second.table())} == {"kiwi", "lime"}


def test_the_copy_of_a_photo_has_its_features_when_a_neighbour_has_vanished(orchard: Orchard) -> None:
    first = orchard.run("1", [photo("kiwi/1.png", RED), photo("kiwi/2.png", GREEN)])
    second = orchard.run("2", [photo("kiwi/1.png", RED), photo("lime/1.png", RED)], previous=first)
    assert by_path(second) == {path: by_path(first)["kiwi/1.png"] for path in ("kiwi/1.png", "lime/1.png")}


def test_without_a_change_the_version_consists_of_the_same_files(orchard: Orchard) -> None:
    photos = [photo("kiwi/1.png", RED), photo("kiwi/2.png", GREEN)]
    first = orchard.run("1", photos)
    second = orchard.run("2", photos, previous=first)
    assert second.table() == first.table()
    assert not list(second.folder.glob("*"))
    assert (second.result.metadata["n_computed"], second.result.metadata["n_reused"]) == (0, 2)
    for name in ("sparsity", "feature_means", "row_count"):
        assert second.result.metadata[name] == first.result.metadata[name]


def test_a_run_is_one_round_of_tasks_that_exchange_nothing(orchard: Orchard) -> None:
    kept, neighbour = [photo("kiwi/1.png", RED)], photo("kiwi/2.png", GREEN)
    with stages_of_jobs(orchard.spark) as of_first:
        first = orchard.run("1", kept, [neighbour, photo("kiwi/3.png", BLUE)])
    with stages_of_jobs(orchard.spark) as of_second:
        second = orchard.run("2", kept, [neighbour, photo("kiwi/new.png", PINK)], previous=first)
    assert (second.result.metadata["n_computed"], second.result.metadata["n_reused"]) == (1, 2)
    for stages in (of_first, of_second):
        assert 1 <= len(stages) <= 6
        assert set(stages) == {1}


def test_a_network_that_is_not_the_published_one_is_refused(orchard: Orchard) -> None:
    other = Orchard(orchard.spark, orchard.root, orchard.network, "0" * 64)
    with pytest.raises(StageInputError, match=rf"{FLATBUFFER}' has SHA-256 .*Materialize mobilenet_model"):
        other.run("1", [photo("kiwi/1.png", RED)])
