"""The lake: what is published stays readable whatever happens."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import pytest
from upath import UPath

from fruits_assets.resources.lake import Lake, LakeError, Version, derived_data_version

FACTS: dict[str, Any] = {
    "row_count": 3,
    "schema": {"path": "string"},
    "data_version": "d1",
    "code_version": "1",
    "inputs": {},
    "params": {},
    "facts": {"small": 1, "large": [1, 2, 3]},
}


def publish(lake: Lake, version: str, content: str = "rows", **changes: Any) -> Version:
    with lake.new_version("table", version) as folder:
        (folder / "results.csv").write_text(content)
        return lake.publish("table", version, **{**FACTS, **changes}, stable_files=["results.csv"])


def set_up(lake: Lake) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        lake.setup_for_execution(dg.build_init_resource_context(instance=instance))


@pytest.fixture(params=["folder", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path, s3: str) -> Lake:
    """A lake in a folder, and one in S3."""
    if request.param == "folder":
        return Lake(root=str(tmp_path / "a lake = ö"), keep_versions=2)
    bucket = f"lake-{os.getpid()}-{abs(hash(tmp_path))}"
    boto3.client("s3").create_bucket(
        Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-3"}
    )
    return Lake(root=f"s3://{bucket}/some/prefix", keep_versions=2)


def test_what_is_published_is_found_with_all_that_was_said(lake: Lake) -> None:
    publish(lake, "run-0")
    found = lake.current("table")
    assert (found.version, found.row_count, found.data_version) == ("run-0", 3, "d1")
    assert found.facts == {"small": 1}  # current.json stays small
    assert found.uri.endswith("/table/versions/run-0")
    assert (lake.place("table") / "results.csv").read_text() == "rows"


def test_until_it_is_published_nobody_sees_a_version(lake: Lake) -> None:
    publish(lake, "run-0", "old")
    with lake.new_version("table", "run-1") as folder:
        (folder / "results.csv").write_text("half of the ne")
        assert lake.current("table").version == "run-0"
        assert (lake.place("table") / "results.csv").read_text() == "old"


def test_a_version_that_fails_is_removed_and_the_old_one_stays(lake: Lake) -> None:
    publish(lake, "run-0")
    with pytest.raises(FileNotFoundError), lake.new_version("table", "run-1") as folder:
        (folder / "results.csv").write_bytes(Path("/nowhere").read_bytes())
    assert lake.current("table").version == "run-0"
    names = [path.name for path in (lake.place("table") / "versions").iterdir()]
    assert names == ["run-0"]


def test_only_the_last_versions_are_kept(lake: Lake) -> None:
    for i in range(4):
        publish(lake, f"run-{i}")
    names = {path.name for path in (lake.place("table") / "versions").iterdir()}
    assert names == {"run-2", "run-3"}


def test_another_run_may_be_at_work_while_one_publishes(lake: Lake) -> None:
    with lake.new_version("table", "slow-0") as folder:
        (folder / "results.csv").write_text("slow")
        for i in range(3):
            publish(lake, f"run-{i}")
        assert (folder / "results.csv").read_text() == "slow"


def test_what_a_dead_run_left_behind_goes_in_time(lake: Lake) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=30)
    folder = lake.place("table") / "versions" / "dead-0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "_started.json").write_text(json.dumps({"started_at": long_ago.isoformat()}))
    (folder / "part").write_text("half")
    publish(lake, "run-0")
    assert [path.name for path in (lake.place("table") / "versions").iterdir()] == ["run-0"]


def test_a_version_name_is_used_once(lake: Lake) -> None:
    with (
        lake.new_version("table", "run-0"),
        pytest.raises(LakeError, match="taken"),
        lake.new_version("table", "run-0"),
    ):
        pass


def test_a_table_that_was_never_published_is_an_error_that_says_what_to_do(lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"no published version of table. Materialize table first"):
        lake.current("table")


def test_a_crash_while_current_json_is_replaced_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(root=str(tmp_path))
    publish(lake, "run-0")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            publish(lake, "run-1", row_count=99)
    assert lake.current("table").version == "run-0"
    publish(lake, "run-2")
    assert lake.current("table").version == "run-2"


def test_a_failure_after_the_publication_does_not_take_the_published_version_away(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(lake, "run-0", "old")

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("while old versions were looked for")

    monkeypatch.setattr(Lake, "_retire", fail)
    with pytest.raises(ConnectionError):
        publish(lake, "run-1", "new")
    assert lake.current("table").version == "run-1"
    assert (lake.place("table") / "versions" / "run-1" / "results.csv").read_text() == "new"


@pytest.mark.parametrize("root", ["{file}/below", "s3://no-such-bucket/lake"])
def test_a_place_that_cannot_be_written_to_is_refused_with_its_name(
    root: str, tmp_path: Path, s3: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    root = root.format(file=tmp_path / "file")
    with pytest.raises(LakeError, match="cannot be written to") as error:
        set_up(Lake(root=root))
    assert root in str(error.value)
    assert "FRUITS_LAKE" in str(error.value)


def test_looking_at_a_place_leaves_no_trace(tmp_path: Path) -> None:
    set_up(Lake(root=str(tmp_path / "lake")))
    assert list((tmp_path / "lake").iterdir()) == []


def test_a_derived_data_version_follows_code_inputs_and_identity_only() -> None:
    one = Version("a", "v1", "uri", 1, {}, "data")
    renamed = Version("a", "v2", "elsewhere", 1, {}, "data")
    changed = Version("a", "v2", "uri", 1, {}, "other data")
    base = derived_data_version("1", {"a": one}, {"k": 5})
    assert derived_data_version("1", {"a": renamed}, {"k": 5}) == base
    assert derived_data_version("2", {"a": one}, {"k": 5}) != base
    assert derived_data_version("1", {"a": changed}, {"k": 5}) != base
    assert derived_data_version("1", {"a": one}, {"k": 6}) != base


def test_a_version_is_reused_only_for_the_same_code_parameters_and_libraries(lake: Lake) -> None:
    published = publish(lake, "run-0", params={"fingerprint": "f1", "batch_size": 2})
    assert lake.reusable("table", "1", fingerprint="f1") == published
    assert lake.reusable("table", "2", fingerprint="f1") is None
    assert lake.reusable("table", "1", fingerprint="f2") is None
    assert lake.reusable("another table", "1", fingerprint="f1") is None
    current = lake.place("table") / "current.json"
    text = current.read_text()
    pillow = json.dumps(published.libraries["pillow"])
    current.write_text(text.replace(f'"pillow": {pillow}', '"pillow": "0.1"'))
    assert lake.reusable("table", "1", fingerprint="f1") is None
    current.write_text(text)
    folder = UPath(published.uri)
    folder.fs.rm(folder.path, recursive=True)
    assert lake.reusable("table", "1", fingerprint="f1") is None
