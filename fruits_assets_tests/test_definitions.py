"""What loading the code location gives and costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import boto3
import dagster as dg
import pytest
from pyspark.sql import SparkSession

from fruits_assets.definitions import GRAPH, SAMPLE_IMAGES, Settings, defs, resources
from fruits_assets.resources.lake import Lake
from fruits_assets.resources.spark import LocalSpark
from fruits_assets.settings import from_environment
from fruits_assets_tests.conftest import write_image
from fruits_assets_tests.stages.inventory_reports import Report, Row


def test_loading_imports_neither_tensorflow_nor_pyspark_nor_matplotlib() -> None:
    code = (
        "import sys, fruits_assets.definitions as d; d.defs.get_repository_def(); "
        "heavy = {'tensorflow', 'keras', 'pyspark', 'matplotlib', 'numpy', 'pandas'}; "
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_definitions_are_whole() -> None:
    dg.Definitions.validate_loadable(defs)


def test_schedule_and_sensor_are_off_until_switched_on() -> None:
    repository = defs.get_repository_def()
    assert repository.get_schedule_def("nightly").default_status == dg.DefaultScheduleStatus.STOPPED
    assert repository.get_sensor_def("source_changed").default_status == dg.DefaultSensorStatus.STOPPED


def test_the_job_runs_in_one_process() -> None:
    assert defs.resolve_job_def("fruits_pipeline").executor_def is dg.in_process_executor


def test_the_bundled_images_go_with_the_bundled_weights_and_photos_with_imagenet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("IMAGES", "LAKE", "SPARK", "WEIGHTS"):
        monkeypatch.delenv(f"FRUITS_{name}", raising=False)
    assert Settings().weights_source == "demo"
    assert Settings().images == str(SAMPLE_IMAGES)
    monkeypatch.setenv("FRUITS_IMAGES", str(tmp_path))
    assert Settings().weights_source == "imagenet"
    monkeypatch.setenv("FRUITS_WEIGHTS", "demo")
    assert Settings().weights_source == "demo"


def test_an_unknown_spark_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUITS_SPARK", "databricks")
    with pytest.raises(ValueError, match=r"FRUITS_SPARK=databricks: Input should be 'local' or 'emr'"):
        from_environment(Settings)


@pytest.mark.parametrize(
    "master",
    [
        "local",
        "local[2]",
        "local[*, 3]",
        "local-cluster[2,1,1024]",
        "spark://10.0.0.1:7077",
        "spark://a:7077,b:7077",
        "yarn",
        "k8s://https://10.0.0.1:6443",
    ],
)
def test_the_spark_master_reaches_the_local_spark(master: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUITS_SPARK_MASTER", master)
    runner = resources(from_environment(Settings))["spark"]
    assert isinstance(runner, LocalSpark)
    assert runner.master == master


@pytest.mark.parametrize("master", ["", "local[0]", "local[two]", "spark://host", "host:7077", "yarn "])
def test_a_malformed_spark_master_is_refused_with_what_it_may_be(
    master: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRUITS_SPARK_MASTER", master)
    with pytest.raises(ValueError, match="no Spark master") as error:
        from_environment(Settings)
    assert str(error.value).startswith(f"FRUITS_SPARK_MASTER={master}: ")
    assert "spark://host:port" in str(error.value)


def test_emr_refuses_the_master_of_another_cluster() -> None:
    settings = Settings(
        spark="emr", spark_master="spark://host:7077", images="s3://bucket/photos", lake="s3://bucket/lake"
    )
    with pytest.raises(ValueError, match=r"FRUITS_SPARK_MASTER=spark://host:7077 is for FRUITS_SPARK=local"):
        resources(settings)


def test_images_in_a_relative_folder_are_the_same_for_a_worker_with_another_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings(images="photos").images == str(tmp_path / "photos")
    assert Settings(images="s3://bucket/photos").images == "s3://bucket/photos"


def test_the_inventory_of_the_setting_stands_for_the_listing_and_is_not_told_in_the_lake(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, report = boto3.client("s3"), Report("hothouse", "Parquet")
    for bucket in (report.bucket, report.destination):
        client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
    image = write_image(tmp_path / "1.png", "red").read_bytes()
    for key in ("Fig/1.png", "Kiwi/2.png", "Kiwi/came later.png"):
        client.put_object(Bucket=report.bucket, Key=key, Body=image)
    uri = report.put([Row("Fig/1.png", len(image)), Row("Kiwi/2.png", len(image))])
    lake_root = tmp_path / "lake"
    for name, value in {"IMAGES": "s3://hothouse", "IMAGES_INVENTORY": uri, "LAKE": str(lake_root)}.items():
        monkeypatch.setenv(f"FRUITS_{name}", value)
    assets = cast("Sequence[dg.AssetsDefinition]", GRAPH)
    dg.materialize(assets, resources=resources(from_environment(Settings)), selection=["raw_images"])
    version = Lake(root=str(lake_root)).current("raw_images")
    assert version.row_count == 2
    assert version.params.keys() == {"source_sha256"}


@pytest.mark.parametrize(
    ("settings", "place", "fix"),
    [
        ({"images": "{tmp}/missing"}, "{tmp}/missing", "FRUITS_IMAGES"),
        ({"images": "{tmp}/empty"}, "{tmp}/empty", "FRUITS_IMAGES"),
        ({"weights": "{tmp}/missing.h5"}, "{tmp}/missing.h5", "FRUITS_WEIGHTS"),
        ({"lake": "{tmp}/file/lake"}, "{tmp}/file/lake", "FRUITS_LAKE"),
        (
            {"images": "s3://photos", "images_inventory": "{tmp}/manifest.json"},
            "{tmp}/manifest.json",
            "FRUITS_IMAGES_INVENTORY",
        ),
    ],
)
def test_a_missing_thing_stops_the_run_before_its_first_step(
    settings: dict[str, str], place: str, fix: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "empty" / "Kiwi").mkdir(parents=True)
    given = {"images": str(SAMPLE_IMAGES), "lake": str(tmp_path / "lake"), "weights": "demo"}
    given |= {name: value.format(tmp=tmp_path) for name, value in settings.items()}
    job = dg.Definitions(
        assets=defs.assets,
        jobs=defs.jobs,
        resources=resources(Settings(**given)),  # type: ignore[arg-type]
    ).resolve_job_def("fruits_pipeline")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        messages = " ".join(str(event) for event in result.all_events)
    assert not result.success
    assert not [event for event in result.all_events if event.is_step_start]
    assert place.format(tmp=tmp_path) in messages
    assert fix in messages


def test_the_sensor_requests_a_run_once_for_every_change(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_image(source / "Kiwi" / "1.png", "green")
    sensor = defs.get_repository_def().get_sensor_def("source_changed")
    images = resources(Settings(images=str(source)))["images"]

    def tick(cursor: str | None) -> tuple[list[dg.RunRequest], str | None]:
        with dg.DagsterInstance.ephemeral() as instance:
            context = dg.build_sensor_context(
                instance, cursor=cursor, resources={"images": images}, definitions=defs
            )
            data = sensor.evaluate_tick(context)
            return list(data.run_requests or []), data.cursor

    first, cursor = tick(None)
    assert len(first) == 1
    assert tick(cursor)[0] == []
    write_image(source / "Kiwi" / "2.png", "green")
    second, changed = tick(cursor)
    assert len(second) == 1
    assert second[0].run_key != first[0].run_key
    (source / "Kiwi" / "2.png").unlink()
    assert tick(changed)[0][0].run_key == first[0].run_key
