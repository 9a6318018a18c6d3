"""The predictor gives what the graph gives, and says what is missing."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import boto3
import numpy as np
import pytest
from PIL import Image
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession

from fruits_assets.mobilenet.convert import ConversionReport
from fruits_assets.predict.answer import for_programs
from fruits_assets.predict.predictor import Predictor
from fruits_assets.resources.files import LakeError
from fruits_assets.resources.lake_reader import LakeReader
from fruits_assets.stages.mobilenet_features import Params as FeatureParams
from fruits_assets.stages.mobilenet_features import mobilenet_features
from fruits_assets.stages.parquet import DamagedFileError
from fruits_assets.stages.raw_images import Params as RawParams
from fruits_assets.stages.raw_images import raw_images
from fruits_assets.stages.stored import Stored, StoredTable
from fruits_assets_tests.graph import Graph
from fruits_assets_tests.photos.heic_files import heif_file, irot, photo_pixels, tiled_photo
from fruits_assets_tests.photos.photo_files import ORDINARY, PERSONAL, turned_exif
from fruits_assets_tests.predict.classifiers import a_reference, rows_of, saved_model
from fruits_assets_tests.stages.running import flip_bit, run_stage, stored_rows
from fruits_assets_tests.stages.sources import write_noise


@pytest.fixture(scope="module")
def predictor(classified: Graph) -> Predictor:
    return Predictor.of(LakeReader(str(classified.lake_root)))


def test_scores_labels_probabilities_and_distances_are_those_of_the_graph(
    classified: Graph, predictor: Predictor
) -> None:
    results = {row["path"]: row for row in classified.rows("pca_features_csv").to_pylist()}
    references = rows_of(classified.lake.current("fruit_classifier").table_of("references"))
    contents = set(references["sha256"].to_pylist())
    hashes = dict(
        zip(*classified.rows("raw_images").select(["path", "sha256"]).to_pydict().values(), strict=True)
    )
    n_compared = 0
    for row in classified.rows("fruit_classifier").to_pylist():
        prediction = predictor.predict((classified.source / row["path"]).read_bytes())
        of_photo = results[row["path"]]
        stored = np.array([of_photo[f"pc_{i + 1}"] for i in range(len(prediction.scores))])
        np.testing.assert_allclose(prediction.scores, stored, rtol=1e-5, atol=1e-5)
        assert prediction.candidates[0].label == row["predicted"]
        assert prediction.candidates[0].probability == pytest.approx(row["probability"], abs=1e-5)
        if hashes[row["path"]] not in contents:
            assert prediction.distance == pytest.approx(row["distance"], rel=1e-5)
            n_compared += 1
    assert len(prediction.scores) == len(of_photo) - 2
    assert n_compared


def test_probabilities_are_those_of_the_saved_spark_model(classified: Graph, predictor: Predictor) -> None:
    model = saved_model(classified.lake.current("fruit_classifier"))
    for path in classified.rows("raw_images")["path"].to_pylist()[::7]:
        prediction = predictor.predict((classified.source / path).read_bytes())
        used = Vectors.dense(prediction.scores[: model.numFeatures])
        expected = sorted(model.predictProbability(used).toArray(), reverse=True)
        found = [candidate.probability for candidate in prediction.candidates]
        assert found == pytest.approx(expected[: len(found)], abs=1e-9)


def test_photos_of_any_kind_give_what_the_graph_makes_of_them(
    predictor: Predictor,
    spark: SparkSession,
    flatbuffer_folder: Path,
    network_report: ConversionReport,
    tmp_path: Path,
) -> None:
    """Of the features that the stages write; large photos come to these by way of their pixels."""
    source = tmp_path / "source" / "kiwi"
    source.mkdir(parents=True)
    for name, content in {**ORDINARY, **PERSONAL}.items():
        (source / f"{name}.jpg").write_bytes(content())
    (source / "phone.heic").write_bytes(heif_file(tiled_photo(photo_pixels((90, 70)), 64, irot(1))))
    noise = np.random.default_rng(3).integers(0, 256, (1300, 1500, 3), np.uint8)
    Image.fromarray(noise).save(source / "large.jpg", quality=95, exif=turned_exif())
    images = run_stage(spark, raw_images, {}, tmp_path / "raw_images", RawParams(str(source.parent)))
    features = run_stage(
        spark,
        mobilenet_features,
        {
            "raw_images": images.stored,
            "mobilenet_model": Stored(StoredTable("", ()), str(flatbuffer_folder)),
        },
        tmp_path / "mobilenet_features",
        FeatureParams(network_report.fingerprint, batch_size=2),
    )
    has_pixels = {row["path"]: row["pixels"] is not None for row in stored_rows(images.table())}
    assert has_pixels["kiwi/large.jpg"]
    rows = stored_rows(features.table())
    assert len(rows) == len(ORDINARY) + len(PERSONAL) + 2
    for row in rows:
        expected = predictor.scaling.scaled(np.array([row["features"]]))[0] @ predictor.components
        found = predictor.predict((source.parent / row["path"]).read_bytes()).scores
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5, err_msg=row["path"])


def test_the_most_similar_photo_of_one_that_the_classifier_was_trained_on_is_itself(
    classified: Graph, predictor: Predictor
) -> None:
    photos = rows_of(classified.lake.current("fruit_classifier").table_of("references")).to_pylist()
    places = np.array([photo["pca_features"] for photo in photos])
    for photo in photos[::3]:
        prediction = predictor.predict((classified.source / photo["path"]).read_bytes())
        distances = np.sort(np.linalg.norm(places - np.array(photo["pca_features"]), axis=1))
        assert prediction.similar[0].sha256 == photo["sha256"]
        assert prediction.is_known
        found = [similar.distance for similar in prediction.similar]
        assert found == pytest.approx(distances[: len(found)], abs=1e-5)


def test_a_photo_unlike_all_others_is_not_known(predictor: Predictor, tmp_path: Path) -> None:
    noise = write_noise(tmp_path / "noise.png", size=100, seed=1)
    prediction = predictor.predict(noise.read_bytes())
    assert prediction.distance is not None
    assert prediction.distance > predictor.classifier.distance_threshold
    assert prediction.label is None
    assert prediction.candidates


def test_a_lake_on_s3_gives_the_same_answer(classified: Graph, predictor: Predictor, s3: str) -> None:
    bucket = f"lake-{uuid.uuid4().hex[:16]}"
    client = boto3.client("s3")
    client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
    for file in classified.lake_root.rglob("*"):
        if file.is_file():
            client.upload_file(str(file), bucket, f"a/{file.relative_to(classified.lake_root)}")
    content = (classified.source / a_reference(classified, "Kaki")).read_bytes()
    there, here = Predictor.of(LakeReader(f"s3://{bucket}/a")).predict(content), predictor.predict(content)
    assert for_programs(there, {}) == for_programs(here, {})


def test_an_empty_lake_names_the_asset_to_materialize(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="no published version of fruit_classifier"):
        Predictor.of(LakeReader(str(tmp_path)))


def remove_model(graph: Graph) -> None:
    """What the current versions were made of is no longer kept."""
    shutil.rmtree(graph.lake.current("pca_model").folder)


def damage_classes(graph: Graph) -> None:
    Path(graph.lake.current("fruit_classifier").folder, "classes.json").write_text("{}")


def damage_flatbuffer(graph: Graph) -> None:
    (file,) = Path(graph.lake.current("mobilenet_model").folder).glob("*.tflite")
    file.write_bytes(file.read_bytes()[:-1])


def damage_references(graph: Graph) -> None:
    (uri,) = graph.lake.current("fruit_classifier").table_of("references").uris
    flip_bit(uri, "pca_features")


@pytest.mark.parametrize(
    ("damage", "asset"),
    [
        (remove_model, "pca_model"),
        (damage_classes, "fruit_classifier"),
        (damage_flatbuffer, "mobilenet_model"),
        (damage_references, "fruit_classifier"),
    ],
)
def test_a_lake_with_something_missing_says_what_and_what_to_materialize(
    classified: Graph, tmp_path: Path, damage: Callable[[Graph], None], asset: str
) -> None:
    graph = classified.copy(tmp_path)
    damage(graph)
    with pytest.raises(
        (LakeError, DamagedFileError),
        match=rf"{asset}\b.* [Mm]aterialize.*fruit_classifier|when {asset} is materialized",
    ):
        Predictor.of(LakeReader(str(graph.lake_root)))
