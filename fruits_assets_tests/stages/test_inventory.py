"""S3 Inventory reports as AWS describes them, on a pretended S3, against the listing of the same bucket."""

from __future__ import annotations

import gzip
import hashlib
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import pytest
from pyspark.sql import SparkSession

from fruits_assets.resources.failures import RefusedError
from fruits_assets.resources.image_source import ImageSource
from fruits_assets.stages.inventory import inventory_files, read_manifest
from fruits_assets.stages.listing import ListedFile, list_image_files
from fruits_assets.stages.raw_images import QUARANTINE, Params, raw_images
from fruits_assets.stages.stage import StageInputError
from fruits_assets_tests.conftest import write_image
from fruits_assets_tests.stages.inventory_reports import CREATED, Report, Row, parquet_file
from fruits_assets_tests.stages.running import run_stage, stored_rows
from fruits_assets_tests.stages.sources import IGNORED_FILES, ODD_NAMES

BUCKET, PREFIX, REPORTS = "plantation", "photos 2026/fruits", "plantation-reports"
SOURCE = f"s3://{BUCKET}/{PREFIX}"
MODIFIED_US = 1_772_368_259_000_000  # 2026-03-01 12:30:59 UTC
ODD_KEYS = [f"odd + names, 100%/{name}" for name in ODD_NAMES if "\n" not in name]  # which moto does not take


CSV, PARQUET = Report(BUCKET, "CSV"), Report(BUCKET, "Parquet")
both_formats = pytest.mark.parametrize("report", [CSV, PARQUET], ids=["CSV", "Parquet"])


def inside(name: str) -> str:
    return f"{PREFIX}/{name}"


def paths(manifest_uri: str, source: str = SOURCE) -> list[str]:
    return [file.path for file in inventory_files(manifest_uri, source, Counter())]


def rows_of_bucket(client: Any) -> list[Row]:
    """What a report made now would have."""
    entries = client.list_objects_v2(Bucket=BUCKET)["Contents"]
    return [Row(entry["Key"], entry["Size"], entry["LastModified"]) for entry in entries]


@pytest.fixture(scope="module")
def client(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A bucket with photos of odd names and what is none of the source's photos, and one for reports."""
    client = boto3.client("s3")
    for bucket in (BUCKET, REPORTS):
        client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
    image = write_image(tmp_path_factory.mktemp("image") / "1.png", "red").read_bytes()
    photos = [*ODD_KEYS, *IGNORED_FILES, "in the root.PNG", "citrus/lemon/1.png"]
    for key in [*(inside(name) for name in photos), f"{PREFIX}-old/1.png", "other/1.png"]:
        client.put_object(Bucket=BUCKET, Key=key, Body=image)
    client.put_object(Bucket=BUCKET, Key=inside("bad/text.jpg"), Body=b"I was a picture of limes")
    for folder in ("kiwi/", "called.png/"):
        client.put_object(Bucket=BUCKET, Key=inside(folder), Body=b"")
    return client


# What is taken from a report ------------------------------------------------------------------------


@both_formats
@pytest.mark.parametrize("source", [SOURCE, f"{SOURCE}/", f"s3://{BUCKET}", f"s3://{BUCKET}/"])
def test_a_report_gives_what_listing_the_bucket_gives(report: Report, source: str, client: Any) -> None:
    rows = rows_of_bucket(client)
    reported = sorted(inventory_files(report.put(rows[::2], rows[1::2]), source, Counter()))
    assert len(reported) >= len(ODD_KEYS) + 3
    assert reported == sorted(list_image_files(source, Counter()))


@both_formats
def test_a_file_has_the_size_and_the_time_of_the_report(report: Report, client: Any) -> None:
    uri = report.put([Row(inside("a+b c/100%25 é.png"), 5_000_000_000)])
    assert list(inventory_files(uri, SOURCE, Counter())) == [
        ListedFile("a+b c/100%25 é.png", 5_000_000_000, MODIFIED_US)
    ]


@both_formats
def test_older_versions_and_deleted_objects_are_passed_over(report: Report, client: Any) -> None:
    uri = replace(report, versions=True).put(
        [
            Row(inside("a/changed.png"), 1, is_latest=False),
            Row(inside("a/changed.png"), 2),
            Row(inside("a/deleted.png"), None, is_delete_marker=True),
            Row(inside("a/deleted.png"), 3, is_latest=False),
            Row(inside("a/restored.png"), None, is_latest=False, is_delete_marker=True),
            Row(inside("a/restored.png"), 4),
            Row(inside("a/before versions.png"), 5, is_latest=None),
        ]
    )
    assert [(file.path, file.size_bytes) for file in inventory_files(uri, SOURCE, Counter())] == [
        ("a/changed.png", 2),
        ("a/restored.png", 4),
        ("a/before versions.png", 5),
    ]


@both_formats
def test_keys_outside_of_the_prefix_hidden_ones_and_folders_are_passed_over(
    report: Report, client: Any
) -> None:
    names = [*IGNORED_FILES, "folder.png/", "", "a/1.png"]
    keys = [*(inside(name) for name in names), f"{PREFIX}-old/2.png", f"{PREFIX}.png", "3.png"]
    uri = report.put([Row(key) for key in keys])
    assert paths(uri) == ["a/1.png"]
    assert paths(uri, f"s3://{BUCKET}") == [
        inside("a/1.png"),
        f"{PREFIX}-old/2.png",
        f"{PREFIX}.png",
        "3.png",
    ]


def test_a_key_with_a_line_break_is_taken_from_a_csv_report(client: Any) -> None:
    assert paths(CSV.put([Row(inside("a/new\nline,\t'\".png"))])) == ["a/new\nline,\t'\".png"]


def test_a_manifest_may_lie_in_a_folder_while_its_data_files_are_on_s3(client: Any, tmp_path: Path) -> None:
    uri = CSV.put([Row(inside("a/1.png"))])
    key = uri.removeprefix(f"s3://{REPORTS}/")
    client.download_file(REPORTS, key, str(tmp_path / "manifest.json"))
    assert paths(str(tmp_path / "manifest.json")) == ["a/1.png"]


@both_formats
def test_a_report_of_several_batches_gives_all_of_its_rows(
    report: Report, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fruits_assets.stages.inventory._ROWS_PER_BATCH", 3)
    n_rows = 30_000 if report == CSV else 10  # Arrow's blocks of CSV are of a megabyte
    expected = [f"a/{i}.png" for i in range(n_rows)]
    assert paths(report.put([Row(inside(name)) for name in expected])) == expected


def test_the_age_of_the_report_is_logged_with_the_number_of_its_photos(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    uri = CSV.put([Row(inside("a/1.png")), Row("elsewhere/2.png")], [Row(inside("a/3.png"))])
    with caplog.at_level(logging.INFO, "fruits_assets.stages"):
        assert len(paths(uri)) == 2
    messages = [record.getMessage() for record in caplog.records if record.name == "fruits_assets.stages"]
    assert messages == [f"listing of 2 objects as of 2026-03-02 00:06:40 UTC from {uri}"]


# What is refused ------------------------------------------------------------------------------------


def refused(manifest_uri: str, source: str = SOURCE) -> str:
    """The message, which names the manifest and the setting."""
    with pytest.raises(StageInputError) as error:
        list(inventory_files(manifest_uri, source, Counter()))
    assert manifest_uri in str(error.value)
    assert "FRUITS_IMAGES_INVENTORY" in str(error.value)
    return str(error.value)


def test_a_report_on_another_bucket_is_refused(client: Any) -> None:
    message = refused(replace(CSV, changes={"sourceBucket": "orchid"}).put([Row(inside("a/1.png"))]))
    assert f"its sourceBucket is 'orchid'; expected: that of the images, '{SOURCE}'" in message


@pytest.mark.parametrize("file_format", ["ORC", "Avro"])
def test_a_report_of_another_format_is_refused(file_format: str, client: Any) -> None:
    message = refused(replace(CSV, changes={"fileFormat": file_format}).put([Row(inside("a/1.png"))]))
    assert f"its fileFormat is '{file_format}'; expected: CSV or Parquet" in message


@pytest.mark.parametrize(
    ("report", "schema", "missing"),
    [
        (CSV, "Bucket, Key, ETag", "last_modified_date, size"),
        (CSV, "Bucket, Key, Size, ETag", "last_modified_date"),
        (
            PARQUET,
            "message s3.inventory { required binary bucket (UTF8); optional int64 size; }",
            "key, last",
        ),
    ],
)
def test_a_report_without_size_or_time_is_refused(
    report: Report, schema: str, missing: str, client: Any
) -> None:
    message = refused(replace(report, changes={"fileSchema": schema}).put([Row(inside("a/1.png"))]))
    assert f"'{schema}', is without {missing}" in message
    assert "expected: a report configured with Size and LastModifiedDate" in message


@pytest.mark.parametrize(
    "missing", ["sourceBucket", "creationTimestamp", "fileFormat", "fileSchema", "files"]
)
def test_a_manifest_that_lacks_an_entry_is_refused(missing: str, client: Any) -> None:
    message = refused(replace(CSV, changes={missing: None}).put([Row(inside("a/1.png"))]))
    assert f"it is no manifest of S3 Inventory (KeyError: '{missing}')" in message


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "it is not JSON"),
        (b'{"sourceBucket": "planta', "it is not JSON"),
        (b"\xff", "it is not JSON"),
        (b"[]", "it is no manifest"),
        (b'{"fileFormat": "CSV", "fileSchema": null}', "it is no manifest"),
    ],
)
def test_what_is_no_manifest_is_refused(content: bytes, fault: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    assert fault in refused(str(tmp_path / "manifest.json"))


@pytest.mark.parametrize(
    "uri",
    [f"s3://{REPORTS}/none/manifest.json", "s3://no-such-bucket/manifest.json", "/no/such/manifest.json"],
)
def test_a_missing_manifest_is_refused(uri: str, client: Any) -> None:
    assert f"'{uri}': cannot be read" in refused(uri)


def damaged(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


@both_formats
@pytest.mark.parametrize("damage", [damaged, half], ids=["damaged", "half"])
def test_a_damaged_or_half_written_data_file_is_refused_before_anything_of_it_is_taken(
    report: Report, damage: Callable[[bytes], bytes], client: Any
) -> None:
    uri = report.put([Row(inside("a/1.png"))], [Row(inside("a/2.png"))])
    key = uri.removeprefix(f"s3://{REPORTS}/").replace("manifest.json", "data/1")
    content = client.get_object(Bucket=REPORTS, Key=key)["Body"].read()
    client.put_object(Bucket=REPORTS, Key=key, Body=damage(content))
    files = inventory_files(uri, SOURCE, Counter())
    assert next(files).path == "a/1.png"
    with pytest.raises(StageInputError):
        next(files)
    found, expected = (hashlib.md5(data).hexdigest() for data in (damage(content), content))
    assert f"the MD5 of 's3://{REPORTS}/{key}' is {found}; expected: {expected}" in refused(uri)


@both_formats
def test_a_missing_data_file_is_refused(report: Report, client: Any) -> None:
    uri = report.put([Row(inside("a/1.png"))], [Row(inside("a/missing.png"))])
    key = uri.removeprefix(f"s3://{REPORTS}/").replace("manifest.json", "data/1")
    client.delete_object(Bucket=REPORTS, Key=key)
    assert f"'s3://{REPORTS}/{key}' cannot be read" in refused(uri)


@pytest.mark.parametrize(
    ("report", "content"),
    [
        (CSV, b"not compressed"),
        (CSV, gzip.compress(b'"plantation","a.png"\n')),
        (CSV, gzip.compress(b'"plantation","a.png","many","2026-03-01T12:30:59.000Z","5d41402a"\n')),
        (PARQUET, b"no Parquet"),
        (replace(PARQUET, versions=True), parquet_file([Row("a.png")], BUCKET, versions=False)),
    ],
    ids=["no gzip", "fewer columns", "size in words", "no Parquet", "no versions"],
)
def test_a_data_file_that_is_not_as_the_manifest_says_is_refused(
    report: Report, content: bytes, client: Any
) -> None:
    message = refused(report.put_files([content]))
    assert f"cannot be read as {report.file_format}" in message


@pytest.mark.parametrize("source", ["/home/me/photos", "file:///photos", "gs://plantation/photos"])
def test_a_source_that_is_not_on_s3_takes_no_inventory(source: str, client: Any) -> None:
    message = refused(CSV.put([Row(inside("a/1.png"))]), source)
    assert f"the image source is '{source}'" in message
    assert "set FRUITS_IMAGES to the prefix" in message


# The resource and the stage ---------------------------------------------------------------------------


def set_up(images: ImageSource) -> None:
    with dg.build_resources({"images": images}):
        pass


def test_the_image_source_refuses_a_missing_or_foreign_report_and_reads_no_data_file_for_it(
    client: Any,
) -> None:
    uri = CSV.put([Row(inside("a/1.png"))])
    key = uri.removeprefix(f"s3://{REPORTS}/").replace("manifest.json", "data/0")
    client.delete_object(Bucket=REPORTS, Key=key)
    set_up(ImageSource(uri=SOURCE, inventory=uri))
    for source, inventory, fault in [
        (SOURCE, f"s3://{REPORTS}/none/manifest.json", "cannot be read"),
        ("s3://orchid/photos", uri, f"its sourceBucket is '{BUCKET}'"),
        ("/home/me/photos", uri, "the image source is '/home/me/photos'"),
    ]:
        with pytest.raises(RefusedError, match="S3 Inventory report") as error:
            set_up(ImageSource(uri=source, inventory=inventory))
        assert isinstance(error.value.__cause__, StageInputError)
        assert fault in str(error.value)


def test_the_fingerprint_of_an_image_source_is_that_of_its_report(client: Any) -> None:
    rows = rows_of_bucket(client)
    whole = ImageSource(uri=SOURCE, inventory=PARQUET.put(rows)).fingerprint()
    assert whole == ImageSource(uri=SOURCE).fingerprint()
    fewer = [row for row in rows if not row.key.endswith("lemon/1.png")]
    assert ImageSource(uri=SOURCE, inventory=PARQUET.put(fewer)).fingerprint() != whole


@both_formats
def test_the_stage_gives_the_rows_over_a_report_that_it_gives_over_the_listing(
    report: Report, client: Any, spark: SparkSession, tmp_path: Path
) -> None:
    listed = run_stage(spark, raw_images, {}, tmp_path / "listed", Params(SOURCE))
    uri = report.put(rows_of_bucket(client))
    reported = run_stage(spark, raw_images, {}, tmp_path / "reported", Params(SOURCE, uri))
    assert len(stored_rows(reported.table())) == len(ODD_KEYS) + 2

    def by_path(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(rows, key=lambda row: str(row["path"]))

    assert by_path(stored_rows(reported.table())) == by_path(stored_rows(listed.table()))
    assert stored_rows(reported.table(QUARANTINE)) == stored_rows(listed.table(QUARANTINE))
    assert reported.result.metadata["listing"] == listed.result.metadata["listing"]


def test_a_photo_that_was_deleted_since_the_report_goes_to_quarantine(
    client: Any, spark: SparkSession, tmp_path: Path
) -> None:
    rows = [*rows_of_bucket(client), Row(inside("citrus/lemon/deleted.png"))]
    ran = run_stage(spark, raw_images, {}, tmp_path, Params(SOURCE, CSV.put(rows)))
    reasons = {row["path"]: row["reason"] for row in stored_rows(ran.table(QUARANTINE))}
    assert reasons.keys() == {"bad/text.jpg", "citrus/lemon/deleted.png"}
    assert reasons["citrus/lemon/deleted.png"].startswith("cannot be read: ")
    assert len(stored_rows(ran.table())) == len(ODD_KEYS) + 2


def test_a_report_with_too_few_photos_of_the_source_is_named(
    client: Any, spark: SparkSession, tmp_path: Path
) -> None:
    uri = CSV.put([Row(inside("a/1.png")), Row("elsewhere/2.png")])
    with pytest.raises(StageInputError, match=rf"1 image file\(s\) in the report '{uri}', at least 2 needed"):
        run_stage(spark, raw_images, {}, tmp_path, Params(SOURCE, uri))


def test_the_manifest_tells_when_the_report_was_made_and_what_is_in_it(client: Any) -> None:
    manifest = read_manifest(PARQUET.put([Row(inside("a/1.png"))]), SOURCE)
    assert manifest.created == CREATED
    assert list(manifest.columns) == ["bucket", "key", "size", "last_modified_date", "e_tag"]
