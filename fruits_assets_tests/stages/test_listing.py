"""What a listing has of a folder; that of a bucket is tested with the rest of S3."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fruits_assets.stages.listing import label_of, list_image_files, listing_of, refuse_empty
from fruits_assets.stages.stage import StageInputError
from fruits_assets_tests.conftest import write_image
from fruits_assets_tests.stages.sources import IGNORED_FILES, fingerprint_of, listed, write_small_tree


@pytest.mark.parametrize(
    ("source", "path", "label"),
    [
        ("/data/fruits/", "a.png", "fruits"),
        ("s3://bucket/fruits/", "a.png", "fruits"),
        ("s3://bucket", "a.png", "bucket"),
        ("s3://bucket", "kiwi/a.png", "kiwi"),
    ],
)
def test_label_of_a_file_right_in_the_source_is_the_sources_name(source: str, path: str, label: str) -> None:
    assert label_of(source, path) == label


def test_listing_is_sorted_and_its_fingerprint_changes_with_any_file(tmp_path: Path) -> None:
    root = write_small_tree(tmp_path)
    assert [file.path for file in listed(root)] == ["apple/0.png", "apple/2.png", "pear/1.png", "pear/3.png"]
    before = fingerprint_of(root)
    assert fingerprint_of(f"{root}/") == before
    os.utime(root / "pear" / "1.png", (1, 1))
    touched = fingerprint_of(root)
    (root / "pear" / "1.png").unlink()
    assert len({before, touched, fingerprint_of(root)}) == 3


def test_of_two_links_to_a_folder_the_first_by_name_is_followed(tmp_path: Path) -> None:
    write_image(tmp_path / "elsewhere" / "1.png", "red")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("c", "a", "b"):
        (source / name).symlink_to(tmp_path / "elsewhere")
    assert [file.path for file in list_image_files(str(source), Counter())] == ["a/1.png"]


def test_empty_source_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(StageInputError, match=f"'{tmp_path}': no image file"):
        refuse_empty(str(tmp_path))
    with pytest.raises(StageInputError, match="no such folder"):
        refuse_empty(str(tmp_path / "missing"))
    write_image(tmp_path / "elsewhere" / "1.png", "red")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "link").symlink_to(tmp_path / "elsewhere")
    refuse_empty(str(tmp_path / "source"))


def test_listed_are_all_images_at_any_depth_but_hidden_ones(tmp_path: Path) -> None:
    for name in IGNORED_FILES:
        write_image(tmp_path / name, "red", format="PNG")
    write_image(tmp_path / "in the root.png", "red")
    write_image(tmp_path / "a" / "b" / "c" / "UPPER.JPG", "red")
    for suffix in ("jpeg", "webp", "bmp", "tif", "TIFF", "jfif", "jpe", "GIF"):
        write_image(tmp_path / "a" / f"1.{suffix}", "red")
    (tmp_path / "a" / "1.HEIC").touch()
    assert [file.path for file in listed(tmp_path)] == [
        "a/1.GIF",
        "a/1.HEIC",
        "a/1.TIFF",
        "a/1.bmp",
        "a/1.jfif",
        "a/1.jpe",
        "a/1.jpeg",
        "a/1.tif",
        "a/1.webp",
        "a/b/c/UPPER.JPG",
        "in the root.png",
    ]


def test_what_has_another_suffix_is_counted_by_it(tmp_path: Path) -> None:
    write_small_tree(tmp_path)
    for name in ("a.MOV", "apple/b.mov", "c.dng", "README", ".hidden.mov", "apple/.thumbnails/d.mov"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with listing_of(str(tmp_path)) as listing:
        assert listing.ignored == {".dng": 1, ".mov": 2, "without suffix": 1}
        assert listing.said_of_ignored() == "2 .mov, 1 .dng, 1 without suffix"
        before = listing.fingerprint()
    (tmp_path / "e.dng").touch()
    assert fingerprint_of(tmp_path) != before


def test_a_file_is_listed_with_its_size_and_its_time_in_microseconds(tmp_path: Path) -> None:
    image = write_image(tmp_path / "a" / "1.png", "red")
    os.utime(image, ns=(0, 1_700_000_000_123_456_789))
    (file,) = list_image_files(str(tmp_path), Counter())
    assert file == ("a/1.png", image.stat().st_size, 1_700_000_000_123_456, None)


def test_what_cannot_be_an_image_is_listed_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "dangling.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).touch()
    assert {file.path: file.reason for file in list_image_files(str(tmp_path), Counter())} == {
        "caf\\xe9.jpg": "file name is not valid UTF-8",
        "dangling.jpg": "cannot be read: No such file or directory",
        "pipe.jpg": "not a regular file",
    }


def test_a_folder_that_cannot_be_listed_is_named_and_the_others_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small_tree(tmp_path)
    scandir = os.scandir

    def refused(folder: str) -> Iterator[os.DirEntry[str]]:
        if os.path.basename(folder) == "pear":  # the tests may be run by root, whom no folder refuses
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    listed = {file.path: file.reason for file in list_image_files(str(tmp_path), Counter())}
    assert label_of(str(tmp_path), "pear/*") == "pear"
    assert listed == {
        "apple/0.png": None,
        "apple/2.png": None,
        "pear/*": "folder cannot be listed: Permission denied",
    }


def test_links_that_lead_in_a_circle_end(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "1.png", "red")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert [file.path for file in list_image_files(str(tmp_path), Counter())] == ["a/1.png"]
