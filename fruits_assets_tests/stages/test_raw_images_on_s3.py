from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest
from pyspark.sql import SparkSession

from fruits_assets.stages.listing import refuse_empty
from fruits_assets.stages.plan import PREVIOUS
from fruits_assets.stages.raw_images import QUARANTINE, Params, raw_images
from fruits_assets.stages.stage import StageInputError
from fruits_assets_tests.conftest import write_image
from fruits_assets_tests.stages.running import run_stage, stored_rows
from fruits_assets_tests.stages.sources import IGNORED_FILES, ODD_NAMES, fingerprint_of, listed
from fruits_assets_tests.stages.test_raw_images import Run, run

pytestmark = pytest.mark.slow

BUCKET, PREFIX = "orchard", "photos 2026/fruits"
SOURCE = f"s3://{BUCKET}/{PREFIX}"
NAMES = [name for name in ODD_NAMES if "\n" not in name]  # S3 takes a line break in a key, moto does not


def write_tree(root: Path) -> Path:
    for i, name in enumerate(NAMES):
        write_image(root / "odd names, 100%" / name, (i, 0, 0), size=(4, 4))
    for name in IGNORED_FILES:
        write_image(root / name, "red", format="PNG")
    write_image(root / "in the root.png", "blue")
    write_image(root / "citrus" / "lemon" / "nested.PNG", "yellow")
    (root / "bad").mkdir()
    (root / "bad" / "zero.jpg").touch()
    (root / "bad" / "text.jpg").write_text("I was a picture of limes")
    return root


def upload(client: Any, root: Path, prefix: str) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            key = f"{prefix}/{path.relative_to(root)}"
            client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree") / "fruits")


@pytest.fixture(scope="module")
def client(s3: str, tree: Path) -> Any:
    """A bucket with the tree, a neighbour whose prefix starts alike, and an object that is a folder."""
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
    upload(client, tree, PREFIX)
    client.put_object(Bucket=BUCKET, Key=f"{PREFIX}-old/apple/1.png", Body=b"another prefix")
    client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/kiwi/", Body=b"")
    return client


def test_listing_equals_that_of_a_folder(client: Any, tree: Path) -> None:
    on_s3, in_folder = listed(SOURCE), listed(tree)
    assert len(on_s3) == len(NAMES) + 4
    assert [(file.path, file.size_bytes) for file in on_s3] == [
        (file.path, file.size_bytes) for file in in_folder
    ]
    assert listed(f"{SOURCE}/") == on_s3


def test_rows_equal_those_of_a_folder(client: Any, spark: SparkSession, tree: Path, tmp_path: Path) -> None:
    on_s3 = run(spark, SOURCE, tmp_path / "on_s3")
    in_folder = run(spark, tree, tmp_path / "in_folder")

    def rows(of: Run) -> list[tuple[str, str, str, int, int]]:
        columns = ("path", "label", "sha256", "width", "height")
        return sorted(tuple(row[name] for name in columns) for row in of.images.values())

    assert len(rows(on_s3)) == len(NAMES) + 2
    assert rows(on_s3) == rows(in_folder)
    assert on_s3.quarantine.keys() == {"bad/zero.jpg", "bad/text.jpg"}
    assert on_s3.quarantine == in_folder.quarantine
    assert on_s3.result.metadata["content_digest"] == in_folder.result.metadata["content_digest"]


def test_a_table_on_s3_holds_what_one_in_a_folder_does_and_is_taken_over_too(
    client: Any, spark: SparkSession, tmp_path: Path
) -> None:
    params = Params(SOURCE)
    in_folder = run_stage(spark, raw_images, {}, tmp_path, params)
    on_s3 = run_stage(spark, raw_images, {}, f"s3://{BUCKET}/lake/raw_images", params)
    assert stored_rows(on_s3.table()) == stored_rows(in_folder.table())
    assert stored_rows(on_s3.table(QUARANTINE)) == stored_rows(in_folder.table(QUARANTINE))
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix="lake/raw_images/")["Contents"]
    assert {f"s3://{BUCKET}/{entry['Key']}": entry["Size"] for entry in listed} == {
        uri: file.size_bytes
        for table in (on_s3.table(), on_s3.table(QUARANTINE))
        for uri, file in zip(table.uris, table.files, strict=True)
    }
    inputs = {PREVIOUS: on_s3.stored}
    again = run_stage(spark, raw_images, inputs, on_s3.output.asset, params, version="2")
    assert again.table() == on_s3.table()
    assert again.result.metadata["n_read"] == 0


def test_file_right_in_a_bucket_gets_the_buckets_name(
    client: Any, spark: SparkSession, tmp_path: Path
) -> None:
    client.create_bucket(Bucket="grove", CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
    content = write_image(tmp_path / "1.png", "red").read_bytes()
    for key in ("1.png", "2.png", "plum/3.png"):
        client.put_object(Bucket="grove", Key=key, Body=content)
    images = run(spark, "s3://grove", tmp_path / "output").images
    assert {path: row["label"] for path, row in images.items()} == {
        "1.png": "grove",
        "2.png": "grove",
        "plum/3.png": "plum",
    }


@pytest.mark.parametrize(
    "source", ["s3://no-such-bucket/fruits", "s3://no-such-bucket", f"s3://{BUCKET}/no such"]
)
def test_missing_bucket_or_prefix_is_named(client: Any, source: str) -> None:
    for look in (listed, refuse_empty):
        with pytest.raises(StageInputError, match=f"'{source}': no such folder or prefix.*FRUITS_IMAGES"):
            look(source)


def test_prefix_without_images_is_refused(client: Any) -> None:
    client.put_object(Bucket=BUCKET, Key="texts/notes.txt", Body=b"no image")
    with pytest.raises(StageInputError, match="texts': no image file"):
        refuse_empty(f"s3://{BUCKET}/texts")
    refuse_empty(SOURCE)


def test_fingerprint_changes_when_an_object_is_overwritten(client: Any) -> None:
    def fingerprint() -> str:
        return fingerprint_of(f"s3://{BUCKET}/changing")

    client.put_object(Bucket=BUCKET, Key="changing/apple/1.png", Body=b"before")
    before = fingerprint()
    assert fingerprint() == before
    client.put_object(Bucket=BUCKET, Key="changing/apple/1.png", Body=b"longer than before")
    assert fingerprint() != before


def test_keys_with_empty_segments_are_images_too(client: Any, spark: SparkSession, tmp_path: Path) -> None:
    content = write_image(tmp_path / "1.png", "red").read_bytes()
    for key in ("apple/a.png", "apple//b.png", "/c.png", "apple/folder/"):
        client.put_object(Bucket=BUCKET, Key=f"segments/{key}", Body=content)
    images = run(spark, f"s3://{BUCKET}/segments", tmp_path / "output").images
    assert images.keys() == {"apple/a.png", "apple//b.png", "/c.png"}
