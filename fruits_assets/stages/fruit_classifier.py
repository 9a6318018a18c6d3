"""What fruit a photo shows: multinomial logistic regression on its component scores."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import fsspec
import numpy as np
import pyarrow as pa
from pyspark import Accumulator
from pyspark.sql import SparkSession

from fruits_assets.stages import ml_models
from fruits_assets.stages.arrow import Matrix, fixed_length_arrays
from fruits_assets.stages.classifier_facts import (
    ClassifiedFacts,
    describe_classified,
    facts_of,
    refused,
    threshold,
    with_thumbnails,
    worst,
)
from fruits_assets.stages.logistic_regression import Block, Parts, fit, log_probabilities
from fruits_assets.stages.nearest import nearest_distances
from fruits_assets.stages.parquet import TableWriter, batches_of, shares, spread, write_rows
from fruits_assets.stages.pca_features_csv import scores_of
from fruits_assets.stages.pca_model import Decomposition
from fruits_assets.stages.photo_split import (
    LEFT_OUT,
    SHARES,
    TEST,
    TRAINING,
    VALIDATION,
    Cut,
    Numbers,
    Photos,
    Split,
    chosen_references,
    split_photos,
)
from fruits_assets.stages.progress import progress
from fruits_assets.stages.stage import StageResult, column_types, logger
from fruits_assets.stages.stored import ROWS, Output, Stored, StoredFile, StoredTable

MODEL = "fruit_classifier"
# What the model's numbers mean, and these numbers for those without Spark.
CLASSES = "classes.json"
REFERENCES = "references"
IMAGES = "raw_images"
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("share", pa.string()),
        ("predicted", pa.string()),
        ("probability", pa.float64()),
        ("distance", pa.float64()),
    ]
)
REFERENCES_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("sha256", pa.string()),
        ("pca_features", pa.list_(pa.float64())),
    ]
)
MAX_REFERENCES = 20_000
_IDENTITY = ["path", "label", "sha256"]


@dataclass(frozen=True)
class Params:
    """How many components are used, None for all that there are; how photos are cut, see `Cut`.

    `refused_share` is the part, 0 to 1, of photos of known kinds that may be called unlike any.
    """

    n_components: int | None
    validation_share: float
    test_share: float
    seed: int
    group_pattern: str
    refused_share: float

    @property
    def cut(self) -> Cut:
        return Cut(self.validation_share, self.test_share, self.seed, self.group_pattern)


@dataclass(frozen=True)
class Weights:
    """`coefficients` (n_labels, n_components) and `intercepts` (n_labels,)."""

    coefficients: Matrix
    intercepts: Matrix

    @classmethod
    def saved(cls, uri: str) -> Self:
        """Of the model as anyone loads it, who then gets the very numbers that are in the table."""
        _, data = ml_models.saved(uri)
        return cls(data["coefficientMatrix"], data["interceptVector"])


@dataclass(frozen=True)
class FileOfPhotos:
    """A file of scaled features, and of each of its n rows class, share and unit: see `Split`.

    `first` is the number of the first row among all photos.
    """

    file: StoredFile
    first: int
    classes: Numbers
    shares: Numbers
    units: Numbers


def fruit_classifier(
    spark: SparkSession, inputs: Mapping[str, Stored], output: Output, params: Params
) -> StageResult:
    """Fit and save a Spark ML LogisticRegressionModel, and write what it says of every photo.

    The rows are path, label, share, predicted label, its probability, and the Euclidean distance of the
    scores to the nearest reference that is not kept together with the photo. `references` has the scores of
    training photos: they tell which are most similar, and by their distance whether a photo is unlike all.

    Scaler and components were fitted to all photos, those of validation and test included. They have seen no
    label, and of many photos each moves them little, but the accuracy is not quite that of photos which
    nothing has seen; `benchmarks/classifier.py` prints both.

    Args:
        inputs: `scaled_features` and `pca_model`, which was fitted to them; `raw_images`, if there are any,
            for pictures of the mistakes.

    Raises:
        StageInputError: fewer than two labels have enough photos, or no path matches the pattern.
    """
    table = inputs["scaled_features"].table
    components = Decomposition.saved(inputs["pca_model"].folder).components[:, : params.n_components]
    photos = photos_of(table)
    split = split_photos(photos, params.cut)
    counts = ", ".join(f"{split.count(share):,} for {name}" for share, name in enumerate(SHARES))
    logger.info(f"{len(split.labels)} labels, photos: {counts}; labels left out: {len(split.left_out)}")
    chosen = chosen_references(photos, split, params.seed, MAX_REFERENCES)
    tasks = _tasks(spark, table, split)

    with progress(spark, "projecting features", table.n_rows) as done:
        blocks = spread(spark, tasks).flatMap(_blocks(table.uri, components, done))
        parts = Parts(blocks, table.n_rows * components.shape[1] * components.itemsize)
        references = _scores_of(parts, chosen)
    try:
        fitted = fit(parts, len(split.labels))
    finally:
        parts.forget()
    model = f"{output.folder}/{MODEL}"
    ml_models.save_logistic_regression(model, fitted.coefficients, fitted.intercepts, fitted.regularisation)
    saved = Weights.saved(model)

    with progress(spark, "classifying photos", table.n_rows) as done:
        units = split.units[chosen]
        classify = _classified(table.uri, output, components, saved, references, units, split.labels, done)
        classified = spread(spark, tasks).map(classify).collect()
    facts = [of_file for _, of_file in classified]
    beyond = threshold(facts, params.refused_share)
    _write_classes(output, split, saved, beyond)
    mistakes = worst(list(itertools.chain.from_iterable(of_file.mistakes for of_file in facts)))
    images = inputs[IMAGES].table if IMAGES in inputs else StoredTable(output.asset, ())
    files = [file for file, _ in classified]
    return StageResult(
        row_count=sum(file.n_rows for file in files),
        schema=column_types(SCHEMA),
        tables={
            ROWS: files,
            REFERENCES: [write_rows(output, _reference_rows(photos, chosen, references), REFERENCES)],
        },
        metadata={
            **describe_classified(facts, split.labels),
            "n_photos": table.n_rows,
            "n_labels": len(split.labels),
            "n_left_out": sum(split.left_out.values()),
            "n_units": len(np.unique(split.units)),
            "n_components": components.shape[1],
            "n_references": len(chosen),
            "regularisation": fitted.regularisation,
            "distance_threshold": beyond,
            "test_refused": refused(facts, TEST, beyond),
            "labels": list(split.labels),
            "left_out": dict(split.left_out),
            "tried": [candidate.__dict__ for candidate in fitted.tried],
            "mistakes": with_thumbnails(spark, images, mistakes, photos),
        },
    )


def photos_of(table: StoredTable) -> Photos:
    """All photos of scaled features, in the order of the files and their rows."""
    rows = pa.Table.from_batches(
        batches_of(table.uris, _IDENTITY), pa.schema([(name, pa.string()) for name in _IDENTITY])
    )
    return Photos(*(rows[name].to_pylist() for name in _IDENTITY))


def _tasks(spark: SparkSession, table: StoredTable, split: Split) -> list[list[FileOfPhotos]]:
    of_file: dict[StoredFile, FileOfPhotos] = {}
    first = 0
    for file in table.files:
        rows = slice(first, first + file.n_rows)
        of_file[file] = FileOfPhotos(file, first, split.classes[rows], split.shares[rows], split.units[rows])
        first += file.n_rows
    return [[of_file[file] for file in part] for part in shares(spark, table)]


def _batches(
    uri: str, files: Sequence[FileOfPhotos], columns: Sequence[str]
) -> Iterator[tuple[FileOfPhotos, slice, pa.RecordBatch]]:
    """The batches of some files, and which rows of the file they are."""
    for of_photos in files:
        start = 0
        for batch in batches_of(StoredTable(uri, [of_photos.file]).uris, columns):
            yield of_photos, slice(start, start + batch.num_rows), batch
            start += batch.num_rows


def _blocks(
    uri: str, components: Matrix, done: Accumulator[int]
) -> Callable[[Sequence[FileOfPhotos]], Iterator[Block]]:
    """The scores of training and validation photos."""

    def blocks(files: Sequence[FileOfPhotos]) -> Iterator[Block]:
        for of_photos, rows, batch in _batches(uri, files, ["scaled_features"]):
            scores = scores_of(batch, components)
            numbers = of_photos.first + np.arange(rows.start, rows.stop)
            for share in (TRAINING, VALIDATION):
                here = of_photos.shares[rows] == share
                yield Block(share, scores[here], of_photos.classes[rows][here], numbers[here])
            done.add(batch.num_rows)

    return blocks


def _scores_of(parts: Parts, chosen: Numbers) -> Matrix:
    """The scores of training photos, by their numbers, in the order of these."""

    def picked(part: Iterable[Block]) -> Iterator[tuple[Numbers, Matrix]]:
        for block in part:
            here = np.isin(block.numbers, chosen)
            yield block.numbers[here], block.scores[here]

    numbers, scores = zip(*parts.map(picked), strict=True)
    order = np.argsort(np.concatenate(numbers))
    return np.concatenate(scores)[order[np.searchsorted(np.sort(chosen), chosen)]]


def _classified(
    uri: str,
    output: Output,
    components: Matrix,
    weights: Weights,
    references: Matrix,
    their_units: Numbers,
    labels: Sequence[str],
    done: Accumulator[int],
) -> Callable[[Sequence[FileOfPhotos]], tuple[StoredFile, ClassifiedFacts]]:
    """Classify the photos of a task into one file; its facts are those of what is stored."""
    names, share_names = pa.array(labels, pa.string()), pa.array([*SHARES, LEFT_OUT])

    def classify(files: Sequence[FileOfPhotos]) -> tuple[StoredFile, ClassifiedFacts]:
        with TableWriter(output, SCHEMA) as writer:
            for of_photos, rows, batch in _batches(uri, files, ["path", "label", "scaled_features"]):
                scores = scores_of(batch, components)
                log_p = log_probabilities(scores @ weights.coefficients.T + weights.intercepts)
                columns = [
                    batch["path"],
                    batch["label"],
                    share_names.take(pa.array(of_photos.shares[rows] % len(share_names))),
                    names.take(pa.array(log_p.argmax(axis=1))),
                    pa.array(np.exp(log_p.max(axis=1))),
                    pa.array(nearest_distances(scores, of_photos.units[rows], references, their_units)),
                ]
                writer.write(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
                done.add(batch.num_rows)
        assert writer.file
        return writer.file, facts_of(f"{output.asset}/{writer.file.path}", labels)

    return classify


def _reference_rows(photos: Photos, chosen: Numbers, scores: Matrix) -> pa.Table:
    identity = [
        pa.array([column[i] for i in chosen.tolist()], pa.string())
        for column in (photos.paths, photos.labels, photos.contents)
    ]
    return pa.table([*identity, fixed_length_arrays(scores)], schema=REFERENCES_SCHEMA)


def _write_classes(output: Output, split: Split, weights: Weights, beyond: float) -> None:
    classes: dict[str, Any] = {
        "labels": list(split.labels),
        "left_out": list(split.left_out.items()),
        "n_components": weights.coefficients.shape[1],
        "distance_threshold": beyond,
        "coefficients": weights.coefficients.tolist(),
        "intercepts": weights.intercepts.tolist(),
    }
    with fsspec.open(f"{output.folder}/{CLASSES}", "w", encoding="utf-8") as file:
        json.dump(classes, file)
