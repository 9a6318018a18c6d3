"""What a listing has of a folder; that of a bucket is tested with the rest of S3."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fruits_assets.stages.listing import label_of, list_image_files, listing_fingerprint, refuse_empty
from fruits_assets.stages.stage import StageInputError
from fruits_assets_tests.conftest import write_image
from fruits_assets_tests.stages.sources import write_small_tree


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
    files = list_image_files(str(root))
    assert [file.path for file in files] == ["apple/0.png", "apple/2.png", "pear/1.png", "pear/3.png"]
    before = listing_fingerprint(files)
    assert listing_fingerprint(list_image_files(f"{root}/")) == before
    os.utime(root / "pear" / "1.png", (1, 1))
    touched = listing_fingerprint(list_image_files(str(root)))
    (root / "pear" / "1.png").unlink()
    assert len({before, touched, listing_fingerprint(list_image_files(str(root)))}) == 3


def test_of_two_links_to_a_folder_the_first_by_name_is_followed(tmp_path: Path) -> None:
    write_image(tmp_path / "elsewhere" / "1.png", "red")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("c", "a", "b"):
        (source / name).symlink_to(tmp_path / "elsewhere")
    assert [file.path for file in list_image_files(str(source))] == ["a/1.png"]


def test_empty_source_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(StageInputError, match=f"'{tmp_path}': no image file"):
        refuse_empty(str(tmp_path))
    with pytest.raises(StageInputError, match="no such folder"):
        refuse_empty(str(tmp_path / "missing"))
    write_image(tmp_path / "elsewhere" / "1.png", "red")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "link").symlink_to(tmp_path / "elsewhere")
    refuse_empty(str(tmp_path / "source"))
