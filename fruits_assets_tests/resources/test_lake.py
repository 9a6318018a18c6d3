"""The lake: what is published stays readable whatever happens."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import polars as pl
import pyarrow as pa
import pytest
from dagster._core.definitions.scoped_resources_builder import ScopedResourcesBuilder
from upath import UPath

from fruits_assets.resources import published
from fruits_assets.resources.failures import RefusedError
from fruits_assets.resources.files import LakeError
from fruits_assets.resources.lake import Lake
from fruits_assets.resources.published import ConflictError, Version, derived_data_version, storage_options
from fruits_assets.stages.parquet import write_rows
from fruits_assets.stages.stored import Output, StoredFile, StoredTable
from fruits_assets_tests.resources import lakes
from fruits_assets_tests.resources.lakes import paths_in, publish, version_of_images


@contextmanager
def in_a_run(lake: Lake, run_id: str = "own", instance: dg.DagsterInstance | None = None) -> Iterator[Lake]:
    """The lake as the assets of a run get it."""
    with dg.DagsterInstance.ephemeral() as ephemeral:
        context = dg.InitResourceContext(
            resource_config={},
            resources=ScopedResourcesBuilder().build(None),
            resource_def=None,
            all_resource_defs={},
            instance=instance or ephemeral,
            dagster_run=dg.DagsterRun(job_name="a job", run_id=run_id),
        )
        with Lake(**lake.model_dump()).yield_for_execution(context) as of_run:
            yield of_run


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def lake(request: pytest.FixtureRequest, tmp_path: Path, s3: str) -> Lake:
    """A lake in a folder, and one in S3, where nothing is kept for those who may be reading."""
    if request.param == "folder":
        return Lake(root=str(tmp_path / "a lake = ö"), keep_versions=2, keep_minutes=0)
    bucket = f"lake-{uuid.uuid4().hex[:16]}"
    boto3.client("s3").create_bucket(
        Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-3"}
    )
    return Lake(root=f"s3://{bucket}/some/prefix", keep_versions=2, keep_minutes=0)


@pytest.fixture
def plain(lake: Lake, tmp_path: Path) -> Lake:
    """The same below a name without odd characters, which not every reader takes."""
    return lake if lake.root.startswith("s3://") else Lake(root=str(tmp_path / "plain"), keep_minutes=0)


@pytest.fixture
def local(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path / "lake"), keep_versions=2, keep_minutes=0)


def stable_text(lake: Lake) -> str:
    return (lake.place("images") / "results.txt").read_text()


def names_of_versions(lake: Lake) -> set[str]:
    return {folder.name for folder in (lake.place("images") / "_versions").iterdir()}


# What is published --------------------------------------------------------------------------------


def test_what_is_published_is_found_with_all_that_was_said(lake: Lake) -> None:
    one = publish(lake, "run-0", "a.jpg", asset="source")
    publish(lake, "run-0", "a.jpg", "b.jpg", quarantine=["c.jpg"], inputs={"source": one})
    found = lake.current("images")
    assert (found.name, found.number, found.row_count, found.data_version) == ("run-0", 0, 2, "d1")
    assert found.inputs == {"source": 0}
    assert found.facts == {"small": 1}  # the log stays small
    assert paths_in(found.table) == ["a.jpg", "b.jpg"]
    assert paths_in(found.table_of("quarantine")) == ["c.jpg"]
    assert found.is_intact()
    assert stable_text(lake) == "a text of another file"


def test_others_read_the_tables_with_what_they_have(plain: Lake) -> None:
    publish(plain, "run-0", "a.jpg", "b.jpg", quarantine=["c.jpg"])
    publish(plain, "run-1", "d.jpg")
    options = storage_options(plain.place("images"))
    place = str(plain.place("images"))
    assert pl.read_delta(place, storage_options=options)["path"].to_list() == ["d.jpg"]
    before = pl.read_delta(place, version=0, storage_options=options)
    assert sorted(before["path"]) == ["a.jpg", "b.jpg"]
    assert pl.read_delta(f"{place}/_quarantine", storage_options=options)["path"].to_list() == ["c.jpg"]


def test_until_it_is_published_nobody_sees_a_version(lake: Lake) -> None:
    publish(lake, "run-0", "old.jpg", text="old")
    with lake.new_version("images", "run-1") as output:
        (UPath(output.folder) / "results.txt").write_text("half of the ne")
        assert lake.current("images").name == "run-0"
        assert stable_text(lake) == "old"


def test_a_version_that_fails_is_removed_and_the_old_one_stays(lake: Lake) -> None:
    publish(lake, "run-0", "a.jpg")
    with pytest.raises(FileNotFoundError), lake.new_version("images", "run-1") as output:
        (UPath(output.folder) / "results.txt").write_bytes(Path("/nowhere").read_bytes())
    assert lake.current("images").name == "run-0"
    assert names_of_versions(lake) == {"run-0"}


def test_versions_share_the_files_that_have_not_changed(lake: Lake) -> None:
    first = publish(lake, "run-0", "a.jpg")
    second = publish(lake, "run-1", "b.jpg", kept=first.table.files)
    assert set(first.table.files) < set(second.table.files)
    third = publish(lake, "run-2", kept=second.table.files)
    assert third.number == 2
    assert paths_in(lake.current("images").table) == ["a.jpg", "b.jpg"]


def test_another_layout_of_the_columns_replaces_the_old_one(
    plain: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(plain, "run-0", "a.jpg")

    def scores(output: Output, *paths: str) -> StoredFile:
        return write_rows(output, pa.table({"path": list(paths), "pc_1": [0.5] * len(paths)}))

    monkeypatch.setattr(lakes, "rows", scores)
    publish(plain, "run-1", "a.jpg")
    place = plain.place("images")
    table = pl.read_delta(str(place), storage_options=storage_options(place))
    assert table.to_dicts() == [{"path": "a.jpg", "pc_1": 0.5}]
    assert paths_in(version_of_images(plain, 0).table) == ["a.jpg"]


def test_a_version_name_is_used_once(lake: Lake) -> None:
    publish(lake, "run-0", "a.jpg")
    with pytest.raises(LakeError, match="taken"), lake.new_version("images", "run-0"):
        pass
    assert lake.current("images").is_intact()


def test_a_table_that_was_never_published_is_an_error_that_says_what_to_do(lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"no published version of images. Materialize images first"):
        lake.current("images")


def test_a_lake_can_be_copied_and_moved(local: Lake, tmp_path: Path) -> None:
    publish(local, "run-0", "a.jpg", quarantine=["b.jpg"])
    shutil.copytree(local.root, tmp_path / "copy", symlinks=True)
    shutil.move(local.root, tmp_path / "moved")
    for name in ("copy", "moved"):
        elsewhere = Lake(root=str(tmp_path / name))
        assert elsewhere.current("images").is_intact()
        assert elsewhere.current("images").table.uri == str(tmp_path / name / "images")
        assert stable_text(elsewhere) == "a text of another file"


def test_a_copy_that_followed_the_links_is_put_right_by_the_next_publication(
    local: Lake, tmp_path: Path
) -> None:
    publish(local, "run-0", "a.jpg", text="old")
    shutil.copytree(local.root, tmp_path / "copy", symlinks=False)
    copy = Lake(root=str(tmp_path / "copy"))
    assert stable_text(copy) == "old"
    publish(copy, "run-1", "a.jpg", text="new")
    assert stable_text(copy) == "new"
    assert stable_text(local) == "old"


# Faults -------------------------------------------------------------------------------------------


def test_stable_files_change_as_one_and_a_kill_before_that_is_put_right_by_the_next_run(
    local: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(local, "run-0", "a.jpg", text="old")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(local, "run-1", "b.jpg", text="new")
    assert local.current("images").name == "run-1"  # it was published; only the files are behind
    assert stable_text(local) == "old"
    local.tidy(local.current("images"), ["results.txt"])
    assert stable_text(local) == "new"
    assert [path.name for path in local.place("images").iterdir() if path.name.startswith(".")] == []


def test_a_failure_after_the_publication_does_not_take_the_published_version_away(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(lake, "run-0", "a.jpg")

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("while old versions were looked for")

    with monkeypatch.context() as patch:
        patch.setattr("fruits_assets.resources.lake.show", fail)
        with pytest.raises(ConnectionError):
            publish(lake, "run-1", "b.jpg")
    assert lake.current("images").name == "run-1"
    assert lake.current("images").is_intact()


def test_housekeeping_that_fails_fails_no_run(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError("somebody else's file")

    monkeypatch.setattr("fruits_assets.resources.lake.remove_unkept", fail)
    assert publish(lake, "run-0", "a.jpg").number == 0


@pytest.mark.parametrize("content", ["", '{"commitInfo": {"timest', "\0" * 64])
def test_a_damaged_log_is_named_with_the_way_out(local: Lake, content: str) -> None:
    publish(local, "run-0", "a.jpg")
    publish(local, "run-1", "b.jpg")
    entry = local.place("images") / "_delta_log" / f"{1:020}.json"
    entry.write_text(content)
    with pytest.raises(LakeError, match="damaged") as error:
        local.current("images")
    assert str(entry) in str(error.value)
    assert "remove it: what was current before is so again" in str(error.value)
    entry.unlink()
    assert local.current("images").name == "run-0"


@pytest.mark.parametrize("how", ["its only entry was removed", "a run was killed before the first"])
def test_of_a_log_without_entries_nothing_is_current_and_the_next_run_makes_it_anew(
    local: Lake, how: str
) -> None:
    log = local.place("images") / "_delta_log"
    if how == "its only entry was removed":  # as the message about a damaged log says
        publish(local, "run-0", "a.jpg")
        (log / f"{0:020}.json").unlink()
    else:
        log.mkdir(parents=True)
        (log / "_commit_0123.json.tmp").write_text("half")
    assert local.find("images") is None
    version = publish(local, "run-1", "b.jpg")
    assert version.number == 0
    assert version == local.current("images")
    assert paths_in(version.table) == ["b.jpg"]


def test_what_the_log_has_beyond_what_is_known_is_passed_over(local: Lake) -> None:
    publish(local, "run-0", "a.jpg")
    entry = local.place("images") / "_delta_log" / f"{0:020}.json"
    lines = [json.loads(line) for line in entry.read_text().splitlines()]
    for line in lines:
        if "commitInfo" in line:
            record = json.loads(line["commitInfo"]["fruits_assets"])
            line["commitInfo"]["fruits_assets"] = json.dumps(record | {"of_a_later_release": 1})
    entry.write_text("\n".join(map(json.dumps, lines)))
    assert local.current("images").name == "run-0"


def test_a_commit_of_somebody_else_is_passed_over_and_followed(local: Lake) -> None:
    from deltalake import DeltaTable

    first = publish(local, "run-0", "a.jpg")
    second = publish(local, "run-1", "b.jpg", kept=first.table.files)
    DeltaTable(str(local.place("images"))).optimize.compact()
    assert local.current("images") == second
    assert publish(local, "run-2", "c.jpg").number == 3
    assert paths_in(local.current("images").table) == ["c.jpg"]
    assert len(pl.read_delta(str(local.place("images")))) == 1


def test_a_lake_of_an_earlier_release_is_refused_with_what_to_do(local: Lake) -> None:
    (local.place("images")).mkdir(parents=True)
    (local.place("images") / "current.json").write_text("{}")
    with pytest.raises(RefusedError, match=r"earlier release.*FRUITS_LAKE"), in_a_run(local):
        pass


@pytest.mark.parametrize(
    "fault", ["missing", "truncated", "flipped", "marked", "other file changed", "other file gone"]
)
def test_a_version_that_is_not_whole_is_known_as_such(local: Lake, fault: str) -> None:
    version = publish(local, "run-0", "a.jpg")
    (rows,) = (Path(uri) for uri in version.table.uris)
    other = Path(version.folder) / "results.txt"
    if fault == "missing":
        rows.unlink()
    if fault == "truncated":
        rows.write_bytes(rows.read_bytes()[:-1])
    if fault == "flipped":
        rows.write_bytes(bytes(byte ^ (i == 99) for i, byte in enumerate(rows.read_bytes())))
    if fault == "marked":
        rows.with_name(f"{rows.name}.damaged").touch()
    if fault == "other file changed":
        other.write_text("A text of another file")
    if fault == "other file gone":
        other.unlink()
    assert not local.current("images").is_intact()
    assert local.unchanged("images", "1", {}, {"k": 5}) is None
    with pytest.raises(LakeError, match="no longer has version 0 of images"):
        version_of_images(local, 0)


@pytest.mark.parametrize("root", ["{file}/below", "s3://no-such-bucket/lake"])
def test_a_place_that_cannot_be_written_to_is_refused_with_its_name(
    root: str, tmp_path: Path, s3: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    root = root.format(file=tmp_path / "file")
    with pytest.raises(RefusedError, match="cannot be written to") as error, in_a_run(Lake(root=root)):
        pass
    assert root in str(error.value)
    assert "FRUITS_LAKE" in str(error.value)


def test_a_full_disk_is_refused_before_any_work(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RefusedError, match=r"No space left on device.*free space there"), in_a_run(local):
        pass
    assert list(Path(local.root).iterdir()) == []


def test_looking_at_a_place_leaves_no_trace(tmp_path: Path) -> None:
    with in_a_run(Lake(root=str(tmp_path / "lake"))):
        pass
    assert [path.name for path in (tmp_path / "lake").rglob("*")] == ["_running"]


# Runs at once -------------------------------------------------------------------------------------


def test_a_run_sees_what_was_current_when_it_began_and_what_it_made_itself(lake: Lake) -> None:
    publish(lake, "before-0", "a.jpg", asset="images")
    publish(lake, "before-0", "a.jpg", asset="features")
    with in_a_run(lake) as of_run:
        publish(lake, "other-0", "b.jpg", asset="images")
        assert lake.current("images").name == "other-0"
        assert of_run.current("images").name == "before-0"
        assert of_run.find("made by the other later") is None
        publish(of_run, "own-0", "c.jpg", asset="features")
        assert of_run.current("features").name == "own-0"


def test_of_two_runs_the_second_to_publish_fails_and_names_the_first(lake: Lake) -> None:
    publish(lake, "before-0", "a.jpg")
    with in_a_run(lake) as of_run:
        publish(lake, "other-0", "b.jpg")
        with pytest.raises(ConflictError, match="run other has published it while"):
            publish(of_run, "own-0", "c.jpg")
    assert paths_in(lake.current("images").table) == ["b.jpg"]
    assert names_of_versions(lake) == {"before-0", "other-0"}


def test_of_two_first_publications_one_fails(lake: Lake) -> None:
    with in_a_run(lake) as of_run:
        publish(lake, "other-0", "b.jpg")
        with pytest.raises(ConflictError, match="run other"):
            publish(of_run, "own-0", "c.jpg")
    assert paths_in(lake.current("images").table) == ["b.jpg"]


def test_of_two_commits_of_one_number_one_fails_even_if_neither_removes_a_file(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(lake, "before-0", "a.jpg")
    number = published.next_number(lake.place("images"))
    publish(lake, "other-0", "b.jpg", kept=first.table.files)
    monkeypatch.setattr("fruits_assets.resources.lake.next_number", lambda place: number)
    monkeypatch.setattr("fruits_assets.resources.lake.current_version", lambda place: first)
    with pytest.raises(ConflictError):
        publish(lake, "own-0", "c.jpg", kept=first.table.files)
    monkeypatch.undo()
    assert paths_in(lake.current("images").table) == ["a.jpg", "b.jpg"]


# Retention ----------------------------------------------------------------------------------------


def test_only_the_last_versions_are_kept(lake: Lake) -> None:
    for i in range(4):
        publish(lake, f"run-{i}", f"{i}.jpg", quarantine=["bad.jpg"])
    assert names_of_versions(lake) == {"run-2", "run-3"}
    quarantine = {path.name for path in (lake.place("images") / "_quarantine").iterdir()}
    assert quarantine == {"_delta_log", "run-2", "run-3"}
    assert version_of_images(lake, 2).is_intact()
    with pytest.raises(LakeError, match="no longer has version 1"):
        version_of_images(lake, 1)


def test_a_file_that_a_kept_version_shares_outlives_the_version_that_wrote_it(lake: Lake) -> None:
    first = publish(lake, "run-0", "a.jpg")
    for i in (1, 2, 3):
        publish(lake, f"run-{i}", f"{i}.jpg", kept=first.table.files)
    assert "a.jpg" in paths_in(lake.current("images").table)
    assert not (UPath(first.folder) / "results.txt").exists()


def test_what_somebody_may_be_reading_stays_an_hour(lake: Lake) -> None:
    patient = replace_keep(lake, keep_versions=1, keep_minutes=60)
    first = publish(patient, "run-0", "a.jpg")
    for i in (1, 2):
        publish(patient, f"run-{i}", f"{i}.jpg")
    assert first.is_intact()
    impatient = replace_keep(lake, keep_versions=1, keep_minutes=0)
    impatient.tidy(impatient.current("images"))
    assert not first.is_intact()


def test_what_has_not_been_current_for_long_goes_though_few_versions_followed(lake: Lake) -> None:
    first = publish(lake, "run-0", "a.jpg")
    publish(lake, "run-1", "b.jpg")
    assert first.is_intact()
    short = replace_keep(lake, keep_days=0)
    short.tidy(short.current("images"))
    assert not first.is_intact()
    assert short.current("images").is_intact()


def replace_keep(lake: Lake, **keep: int) -> Lake:
    return Lake.model_validate({**lake.model_dump(), **keep})


def test_another_run_may_be_at_work_while_one_publishes(lake: Lake) -> None:
    with lake.new_version("images", "slow-0") as output:
        (UPath(output.folder) / "results.txt").write_text("slow")
        for i in range(3):
            publish(lake, f"run-{i}", f"{i}.jpg")
        assert (UPath(output.folder) / "results.txt").read_text() == "slow"


def die_at_work(root: str) -> None:
    with in_a_run(Lake(root=root)) as lake, lake.new_version("images", "dead-0") as output:
        (UPath(output.folder) / "half.parquet").write_text("half")
        (lake.place("images") / ".results.txt.0123").write_text("half")
        (lake.place("images") / "_delta_log" / "_commit_0123.json.tmp").write_text("half")
        os.kill(os.getpid(), 9)


@pytest.mark.parametrize("mark", ["as it was", "empty", "nonsense"])
def test_what_a_dead_run_left_behind_goes_with_the_next_whatever_its_mark_says(
    local: Lake, mark: str
) -> None:
    publish(local, "run-0", "a.jpg")
    process = multiprocessing.get_context("spawn").Process(target=die_at_work, args=(local.root,))
    process.start()
    process.join()
    assert process.exitcode == -9
    assert names_of_versions(local) == {"run-0", "dead-0"}
    for marker in (Path(local.root) / "_running").iterdir():
        if mark != "as it was":
            marker.write_text("" if mark == "empty" else "\0{")
    with in_a_run(local) as of_run:
        publish(of_run, "own-0", "b.jpg")
    assert names_of_versions(local) == {"run-0", "own-0"}
    left = {path.name for path in Path(local.root).rglob("*") if path.name.startswith((".", "_commit"))}
    assert left == set()
    assert list((Path(local.root) / "_running").iterdir()) == []


def test_a_run_whose_process_died_is_told_to_dagster_as_failed(local: Lake) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(dg.GraphDefinition("nothing").to_job())
        instance.report_engine_event("started", run)
        (Path(local.root) / "_running").mkdir(parents=True)
        (Path(local.root) / "_running" / run.run_id).touch()
        with in_a_run(local, instance=instance):
            pass
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        assert found.status == dg.DagsterRunStatus.FAILURE


# Taking over --------------------------------------------------------------------------------------


def test_a_derived_data_version_follows_code_inputs_and_identity_only() -> None:
    table = StoredTable("uri", ())
    one = Version("a", "v1", 1, "uri", table, 1, {}, "data")
    renamed = replace(one, name="v2", number=2, uri="elsewhere")
    changed = replace(one, data_version="other data")
    base = derived_data_version("1", {"a": one}, {"k": 5})
    assert derived_data_version("1", {"a": renamed}, {"k": 5}) == base
    assert derived_data_version("2", {"a": one}, {"k": 5}) != base
    assert derived_data_version("1", {"a": changed}, {"k": 5}) != base
    assert derived_data_version("1", {"a": one}, {"k": 6}) != base


def with_another_library(lake: Lake, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    real = metadata.version

    def version(name: str) -> str:
        return "0.1" if name == library else real(name)

    monkeypatch.setattr(metadata, "version", version)


def test_a_version_is_reused_only_for_the_same_code_parameters_and_libraries(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish(lake, "run-0", "a.jpg", params={"fingerprint": "f1", "batch_size": 2})
    assert lake.reusable("images", "1", fingerprint="f1") == version
    assert lake.reusable("images", "2", fingerprint="f1") is None
    assert lake.reusable("images", "1", fingerprint="f2") is None
    assert lake.reusable("another table", "1", fingerprint="f1") is None
    with_another_library(lake, "pillow", monkeypatch)
    assert lake.reusable("images", "1", fingerprint="f1") is None


def test_nothing_has_changed_if_code_inputs_parameters_and_libraries_are_the_same(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = publish(lake, "run-0", "a.jpg", asset="source")
    version = publish(lake, "run-0", "a.jpg", inputs={"source": source})
    facts: dict[str, Any] = {"small": 1, "large": [1, 2, 3]}
    assert lake.unchanged("images", "1", {"source": source}, {"k": 5}) == (version, facts)
    assert lake.unchanged("images", "2", {"source": source}, {"k": 5}) is None
    assert lake.unchanged("images", "1", {}, {"k": 5}) is None
    assert lake.unchanged("images", "1", {"source": replace(source, number=1)}, {"k": 5}) is None
    assert lake.unchanged("images", "1", {"source": source}, {"k": 6}) is None
    with_another_library(lake, "numpy", monkeypatch)
    assert lake.unchanged("images", "1", {"source": source}, {"k": 5}) is None


@pytest.mark.parametrize("data_version", ["d1", "d2"])
def test_a_table_that_was_removed_and_made_again_is_an_input_as_before_only_if_its_data_is_the_same(
    local: Lake, data_version: str
) -> None:
    source = publish(local, "run-0", "a.jpg", asset="source")
    version = publish(local, "run-0", "a.jpg", inputs={"source": source})
    shutil.rmtree(local.place("source").path)
    again = publish(local, "run-1", "b.jpg", asset="source", data_version=data_version)
    assert version.inputs == {"source": again.number}
    if data_version == "d1":
        assert local.unchanged("images", "1", {"source": again}, {"k": 5}) is not None
        assert local.input_of(version, "source", "Otherwise.") == again
    else:
        assert local.unchanged("images", "1", {"source": again}, {"k": 5}) is None
        with pytest.raises(LakeError, match=r"no longer has version 0 of source\. Otherwise\."):
            local.input_of(version, "source", "Otherwise.")


@pytest.mark.parametrize("fault", ["log entry gone", "file gone"])
def test_a_version_whose_quarantine_is_not_whole_is_no_longer_taken_over_and_fails_no_housekeeping(
    local: Lake, fault: str
) -> None:
    version = publish(local, "run-0", "a.jpg", quarantine=["b.jpg"])
    quarantine = local.place("images") / "_quarantine"
    if fault == "log entry gone":
        (quarantine / "_delta_log" / f"{0:020}.json").unlink()
    else:
        Path(version.table_of("quarantine").uris[0]).unlink()
    assert not version.is_intact()
    local.tidy(version, ["results.txt"])
    again = publish(local, "run-1", kept=version.table.files, quarantine=["b.jpg"])
    assert again.is_intact()
    assert paths_in(again.table_of("quarantine")) == ["b.jpg"]


def test_a_disk_that_is_full_while_it_is_published_is_told_and_changes_nothing(
    local: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(local, "run-0", "a.jpg", text="old")

    def full(*_: object) -> None:
        raise OSError("Generic LocalFileSystem error: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fruits_assets.resources.lake.commit", full)
        with pytest.raises(LakeError, match=r"Nothing was published: the disk of .* is full.*Free space"):
            publish(local, "run-1", "b.jpg", text="new")
    assert local.current("images").name == "run-0"
    assert stable_text(local) == "old"
    assert names_of_versions(local) == {"run-0"}


def test_a_run_that_finds_its_version_unchanged_does_not_take_a_later_ones_files_away(local: Lake) -> None:
    publish(local, "run-0", "a.jpg", text="old")
    with in_a_run(local) as of_run:
        publish(local, "other-0", "b.jpg", text="new")
        of_run.tidy(of_run.current("images"), ["results.txt"])
    assert stable_text(local) == "new"
