"""The classifier: what it stores belongs together, and what it tells of itself is true."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image
from pyspark.ml.classification import LogisticRegressionModel
from pyspark.ml.feature import PCAModel
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from fruits_assets.stages import classifier_facts, fruit_classifier, ml_models, scaled_features
from fruits_assets.stages.arrow import fixed_length_arrays
from fruits_assets.stages.classifier_facts import Judged, wilson
from fruits_assets.stages.fruit_classifier import CLASSES, MODEL, REFERENCES, Params
from fruits_assets.stages.logistic_regression import log_probabilities
from fruits_assets.stages.nearest import nearest_distances
from fruits_assets.stages.photo_split import SHARES
from fruits_assets.stages.stage import StageInputError
from fruits_assets.stages.stored import Stored, StoredTable
from fruits_assets_tests.stages.running import Ran, as_dataframe, run_stage, stored_rows, write_table

N_FEATURES, N_COMPONENTS = 1280, 12
LABELS = ["fig", "kiwi", "plum"]
N_OF_LABEL = 30
DEFAULTS = Params(None, 0.2, 0.2, 0, "", 0.05)


def rows_of_kinds(n_of_label: Mapping[str, int], seed: int = 3, apart: float = 1.0) -> pa.Table:
    """Scaled features of so many photos of each label, in clusters that overlap where `apart` is small."""
    rng = np.random.default_rng(seed)
    labels = [label for label, n in n_of_label.items() for _ in range(n)]
    centres = {label: apart * rng.normal(size=N_FEATURES) for label in n_of_label}
    values = np.stack([centres[label] + 2 * rng.normal(size=N_FEATURES) for label in labels])
    numbers = range(len(labels))
    return pa.table(
        [
            pa.array([f"{label}/{i:03}.jpg" for label, i in zip(labels, numbers, strict=True)]),
            pa.array(labels),
            pa.array([f"{i:064x}" for i in numbers]),
            fixed_length_arrays(values.astype(np.float32)),
        ],
        schema=scaled_features.SCHEMA,
    )


def inputs_of(root: Path, rows: pa.Table, n_files: int = 3) -> dict[str, Stored]:
    """A table of scaled features in so many files, and the model of its components."""
    parts = [rows.take(list(range(i, len(rows), n_files))) for i in range(n_files)]
    scaled = Stored(write_table(root / "scaled", *parts), str(root / "scaled"))
    values = np.array(rows["scaled_features"].to_pylist(), np.float64)
    _, _, components = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    signs = np.sign(components[:, 0])[:N_COMPONENTS]
    ml_models.save_pca(
        str(root / "pca" / "pca_model"), components[:N_COMPONENTS].T * signs, np.full(N_COMPONENTS, 0.01)
    )
    return {
        "scaled_features": scaled,
        "pca_model": Stored(StoredTable(str(root / "pca"), []), str(root / "pca")),
    }


def run(spark: SparkSession, inputs: Mapping[str, Stored], asset: Path, params: Params = DEFAULTS) -> Ran:
    return run_stage(spark, fruit_classifier.fruit_classifier, inputs, asset, params)


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    """Three labels that overlap, and one of which there are too few photos."""
    return rows_of_kinds({**dict.fromkeys(LABELS, N_OF_LABEL), "quince": 2}, apart=0.25)


@pytest.fixture(scope="module")
def inputs(rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stored]:
    return inputs_of(tmp_path_factory.mktemp("inputs"), rows)


@pytest.fixture(scope="module")
def ran(spark: SparkSession, inputs: dict[str, Stored], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run(spark, inputs, tmp_path_factory.mktemp("classifier"))


def scores_of(rows: pa.Table, inputs: Mapping[str, Stored]) -> NDArray[np.float64]:
    components = PCAModel.load(f"{inputs['pca_model'].folder}/pca_model").pc.toArray()
    found: NDArray[np.float64] = np.array(rows["scaled_features"].to_pylist(), np.float64) @ components
    return found


def by_path(ran: Ran, table: str = "") -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in stored_rows(ran.table(table))}


def test_every_photo_has_a_row_and_its_share(ran: Ran, rows: pa.Table) -> None:
    found = by_path(ran)
    assert found.keys() == set(rows["path"].to_pylist())
    counts = Counter((row["label"], row["share"]) for row in found.values())
    for label in LABELS:
        assert [counts.pop((label, share)) for share in SHARES] == [18, 6, 6]
    assert counts == {("quince", "left out"): 2}
    facts = ran.result.metadata
    assert facts["labels"] == LABELS
    assert facts["left_out"] == {"quince": 2}
    assert (facts["n_training"], facts["n_validation"], facts["n_test"], facts["n_left_out"]) == (
        54,
        18,
        18,
        2,
    )


@pytest.mark.slow
def test_anyone_can_load_the_model_and_gets_the_rows_of_the_table(
    spark: SparkSession, ran: Ran, rows: pa.Table, inputs: dict[str, Stored]
) -> None:
    model = LogisticRegressionModel.load(f"{ran.folder}/{MODEL}")
    assert (model.numClasses, model.numFeatures) == (3, N_COMPONENTS)
    scores = pa.table({"path": rows["path"], "pca_features": fixed_length_arrays(scores_of(rows, inputs))})
    table = as_dataframe(spark, write_table(ran.folder / "scores", scores))
    vectors = table.withColumn("pca_features", array_to_vector(F.col("pca_features")))
    p = vector_to_array(F.col("probability")).alias("p")
    said = model.transform(vectors).select("path", "prediction", p)
    found = by_path(ran)
    for row in said.collect():
        assert found[row["path"]]["predicted"] == LABELS[int(row["prediction"])]
        assert found[row["path"]]["probability"] == pytest.approx(max(row["p"]), abs=1e-12)


def test_the_saved_model_is_the_one_that_training_photos_ask_for(
    ran: Ran, rows: pa.Table, inputs: dict[str, Stored]
) -> None:
    """At the minimum, the regularisation holds against what the photos pull at the coefficients."""
    model = LogisticRegressionModel.load(f"{ran.folder}/{MODEL}")
    coefficients = model.coefficientMatrix.toArray()
    found = by_path(ran)
    training = np.array([found[path]["share"] == "training" for path in rows["path"].to_pylist()])
    scores = scores_of(rows, inputs)[training]
    p = np.exp(log_probabilities(scores @ coefficients.T + model.interceptVector.toArray()))
    labels = rows["label"].filter(pa.array(training)).to_pylist()
    pull = (np.eye(3)[[LABELS.index(label) for label in labels]] - p).T @ scores / len(scores)
    np.testing.assert_allclose(pull, ran.result.metadata["regularisation"] * coefficients, atol=1e-6)


def test_its_numbers_are_there_for_those_without_spark(
    ran: Ran, rows: pa.Table, inputs: dict[str, Stored]
) -> None:
    classes = json.loads((ran.folder / CLASSES).read_text(encoding="utf-8"))
    assert classes["labels"] == LABELS
    assert classes["n_components"] == N_COMPONENTS
    assert classes["left_out"] == [["quince", 2]]
    margins = scores_of(rows, inputs) @ np.array(classes["coefficients"]).T + classes["intercepts"]
    found = by_path(ran)
    said = [LABELS[i] for i in margins.argmax(axis=1)]
    assert said == [found[path]["predicted"] for path in rows["path"].to_pylist()]
    known = [row["distance"] for row in found.values() if row["share"] in ("training", "validation")]
    # A twentieth of photos like these 72 are further away.
    assert classes["distance_threshold"] == sorted(known)[69]


def test_distances_are_to_the_nearest_other_reference(
    ran: Ran, rows: pa.Table, inputs: dict[str, Stored]
) -> None:
    references = by_path(ran, REFERENCES)
    found = by_path(ran)
    assert references.keys() == {path for path, row in found.items() if row["share"] == "training"}
    assert list(references) == sorted(references)
    scores = dict(zip(rows["path"].to_pylist(), scores_of(rows, inputs), strict=True))
    contents = dict(zip(rows["path"].to_pylist(), rows["sha256"].to_pylist(), strict=True))
    for path, row in references.items():
        np.testing.assert_allclose(row["pca_features"], scores[path], atol=1e-9)
        assert row["sha256"] == contents[path]
    for path, row in found.items():
        apart = [np.linalg.norm(scores[path] - scores[other]) for other in references if other != path]
        assert row["distance"] == pytest.approx(min(apart), rel=1e-9)


def test_what_is_told_of_the_test_photos_is_what_the_table_says(ran: Ran) -> None:
    facts = ran.result.metadata
    test = [row for row in by_path(ran).values() if row["share"] == "test"]
    right = sum(row["predicted"] == row["label"] for row in test)
    assert 6 < right < 18  # neither all nor few, so that this says something
    assert facts["accuracy"] == pytest.approx(right / 18)
    assert (facts["accuracy_low"], facts["accuracy_high"]) == wilson(right / 18, 18)
    for row, label in zip(facts["per_label"], LABELS, strict=True):
        are = [r for r in test if r["label"] == label]
        said = [r for r in test if r["predicted"] == label]
        both = sum(r["predicted"] == label for r in are)
        assert row["photos"] == len(are)
        assert row["recall"] == pytest.approx(both / len(are))
        assert row["precision"] == (pytest.approx(both / len(said)) if said else None)
    assert facts["macro_f1"] == pytest.approx(np.mean([row["f1"] for row in facts["per_label"]]))
    assert sum(map(sum, facts["confusion"])) == 18
    wrong = sorted((r for r in test if r["predicted"] != r["label"]), key=lambda r: -r["probability"])
    assert [m["path"] for m in facts["mistakes"]] == [r["path"] for r in wrong]
    json.dumps(dict(facts))  # as the lake keeps it


def test_other_files_of_the_same_photos_give_the_same_classifier(
    spark: SparkSession, ran: Ran, rows: pa.Table, tmp_path: Path
) -> None:
    order = np.random.default_rng(9).permutation(len(rows))
    other = run(spark, inputs_of(tmp_path, rows.take(order), n_files=7), tmp_path / "classifier")
    found, expected = by_path(other), by_path(ran)
    assert found.keys() == expected.keys()
    for path, row in expected.items():
        for name in ("label", "share", "predicted"):
            assert found[path][name] == row[name]
        assert found[path]["probability"] == pytest.approx(row["probability"], abs=1e-6)
        assert found[path]["distance"] == pytest.approx(row["distance"], rel=1e-6)
    assert list(by_path(other, REFERENCES)) == list(by_path(ran, REFERENCES))


def test_frames_of_one_object_are_not_compared_with_each_other(
    spark: SparkSession, inputs: dict[str, Stored], ran: Ran, tmp_path: Path
) -> None:
    # Of 30 photos in a row ten are of one object.
    pattern = Params(None, 0.2, 0.2, 0, r"^(.*/.*)\d\.jpg$", 0.05)
    grouped = run(spark, inputs, tmp_path, pattern)
    object_of = {path: path[:-5] for path in by_path(grouped)}
    scores = {path: np.array(row["pca_features"]) for path, row in by_path(grouped, REFERENCES).items()}
    for path in scores:
        others = [other for other in scores if object_of[other] != object_of[path]]
        nearest = min(np.linalg.norm(scores[path] - scores[other]) for other in others)
        assert by_path(grouped)[path]["distance"] == pytest.approx(nearest)
    assert grouped.result.metadata["n_units"] == 10
    assert ran.result.metadata["n_units"] == 92


def test_the_first_components_are_used_and_no_more_than_there_are(
    spark: SparkSession, inputs: dict[str, Stored], tmp_path: Path
) -> None:
    few = run(spark, inputs, tmp_path, Params(4, 0.2, 0.2, 0, "", 0.05))
    assert few.result.metadata["n_components"] == 4
    assert LogisticRegressionModel.load(f"{few.folder}/{MODEL}").numFeatures == 4
    assert {len(row["pca_features"]) for row in stored_rows(few.table(REFERENCES))} == {4}


def test_a_single_label_is_an_error_before_anything_is_written(spark: SparkSession, tmp_path: Path) -> None:
    inputs = inputs_of(tmp_path, rows_of_kinds({"kiwi": 8}))
    with pytest.raises(StageInputError, match="All photos have the label 'kiwi'"):
        run(spark, inputs, tmp_path / "classifier")
    assert not (tmp_path / "classifier").exists()


def test_mistakes_have_the_picture_of_their_own_content(
    spark: SparkSession, inputs: dict[str, Stored], ran: Ran, rows: pa.Table, tmp_path: Path
) -> None:
    mistakes = ran.result.metadata["mistakes"]
    assert len(mistakes) > 1
    assert {mistake["thumbnail"] for mistake in mistakes} == {None}  # there are no images
    contents = dict(zip(rows["path"].to_pylist(), rows["sha256"].to_pylist(), strict=True))
    paths = rows["path"].to_pylist()
    images = pa.table(
        {
            "path": paths,
            # Another photo has taken the place of the worst one since.
            "sha256": [contents[p] if p != mistakes[0]["path"] else "0" * 64 for p in paths],
            "thumbnail": [thumbnail(i) for i in range(len(paths))],
        }
    )
    stored = Stored(write_table(tmp_path / "raw", images.slice(0, 50), images.slice(50)), "")
    again = run(spark, {**inputs, "raw_images": stored}, tmp_path / "classifier").result.metadata["mistakes"]
    assert [m["path"] for m in again] == [m["path"] for m in mistakes]
    assert again[0]["thumbnail"] is None
    for mistake in again[1:]:
        assert base64.b64decode(mistake["thumbnail"]) == thumbnail(paths.index(mistake["path"]))


def thumbnail(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


# The measures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (1, 2, 0.0945, 0.9055)],
)
def test_wilsons_interval(right: int, n: int, low: float, high: float) -> None:
    """81 of 263 is the example of Newcombe 1998, table I, method 3."""
    assert list(wilson(right / n, n)) == pytest.approx([low, high], abs=5e-5)


def judged(right: list[bool], probability: list[float]) -> Judged:
    classes = np.zeros(len(right), np.int64)
    return Judged(classes, np.where(right, 0, 1), np.array(probability), np.zeros(len(right)))


def test_calibration_compares_what_was_said_with_what_was_right() -> None:
    rows = classifier_facts.calibration(judged([True, False, True, True], [0.95, 0.85, 0.85, 1.0]))
    assert [(row["from"], row["photos"], row["accuracy"]) for row in rows] == [(0.8, 2, 0.5), (0.9, 2, 1.0)]
    assert [row["mean_probability"] for row in rows] == pytest.approx([0.85, 0.975])


@pytest.mark.parametrize(
    ("n", "share", "rank"), [(99, 0.01, 99), (199, 0.01, 198), (10, 0.01, 10), (99, 0.1, 90)]
)
def test_the_threshold_is_beyond_all_but_the_configured_share(n: int, share: float, rank: int) -> None:
    distances = np.random.default_rng(0).permutation(n).astype(np.float64) + 1
    none = judged([], [])
    first, second = (
        Judged(np.zeros(len(part), np.int64), np.zeros(len(part), np.int64), np.ones(len(part)), part)
        for part in (distances[:7], distances[7:])
    )
    facts = classifier_facts.ClassifiedFacts({0: first, 1: second, 2: none}, [])
    assert classifier_facts.threshold([facts], share) == rank
    assert classifier_facts.refused([facts], 1, rank) == pytest.approx((distances[7:] > rank).mean())


def test_nearest_distances_are_exact_though_the_points_are_far_from_zero() -> None:
    rng = np.random.default_rng(1)
    references = 1e4 + rng.normal(size=(700, 5))
    scores = 1e4 + rng.normal(size=(600, 5))
    scores[7] = references[3]
    their_units, units = rng.integers(0, 300, 700), rng.integers(0, 400, 600)
    units[7] = their_units[3]
    apart = np.linalg.norm(scores[:, None] - references[None], axis=2)
    apart[units[:, None] == their_units] = np.inf
    found = nearest_distances(scores, units, references, their_units)
    np.testing.assert_allclose(found, apart.min(axis=1), rtol=1e-4)
