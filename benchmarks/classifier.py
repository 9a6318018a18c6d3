"""Seconds to train the fruit classifier, regularisation search included, and how well it tells labels apart.

The stages scaled_features, pca_model and fruit_classifier run as they are over features of 131 labels that
overlap. scikit-learn's LogisticRegression then gets the same scores, the same cut of the photos and the same
regularisations. See README.md beside this file for the features and the method.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from measuring import cell, scratch_folder, table, timed
from numpy.typing import NDArray
from pyspark.ml.feature import PCAModel
from pyspark.sql import SparkSession

from fruits_assets.assets.fruit_classifier import ClassifierConfig
from fruits_assets.mobilenet.extractor import N_FEATURES
from fruits_assets.resources.spark import LocalSpark
from fruits_assets.stages import fruit_classifier, mobilenet_features, pca_model, scaled_features
from fruits_assets.stages.arrow import Matrix, fixed_length_arrays, matrix
from fruits_assets.stages.logistic_regression import Block, Parts, fit
from fruits_assets.stages.moments import moments_of
from fruits_assets.stages.parquet import batches_of, spread, write_rows
from fruits_assets.stages.pca_features_csv import scores_of
from fruits_assets.stages.photo_split import SHARES, TEST, TRAINING, VALIDATION, Split, split_photos
from fruits_assets.stages.stored import Output, Stored, StoredFile, StoredTable

MAX_SECONDS = 60
MAX_ACCURACY_LOST = 0.01  # against scikit-learn

_N_FACTORS = 256
_WITHIN = 12.0  # spread within a label, as a multiple of that between labels
_NOISE = 0.5
_N_SERIES, _WITHIN_SERIES = 3, 0.6  # photos of a label come in series that differ less among themselves
_ROWS_PER_TASK = 1024
_WARM_UP_LABELS, _WARM_UP_ROWS = 5, 200


@dataclass(frozen=True)
class Lake:
    """What the stages before the classifier have stored."""

    features: Stored
    scaled: Stored
    model: Stored

    @property
    def inputs(self) -> dict[str, Stored]:
        return {"scaled_features": self.scaled, "pca_model": self.model}


def write_features(spark: SparkSession, folder: Path, n_rows: int, n_labels: int, seed: int) -> Stored:
    """Write a features table: clusters that overlap, in 1280 columns from 0 to 6, many of them mostly 0."""
    output = Output(str(folder), "synthetic-0")
    starts = range(0, n_rows, _ROWS_PER_TASK)
    bounds = [(start, min(start + _ROWS_PER_TASK, n_rows)) for start in starts]
    files = spread(spark, bounds).map(_synthesize(output, n_labels, seed)).collect()
    return Stored(StoredTable(output.asset, files), output.folder)


def _synthesize(output: Output, n_labels: int, seed: int) -> Callable[[tuple[int, int]], StoredFile]:
    def synthesize(bounds: tuple[int, int]) -> StoredFile:
        of_all = np.random.default_rng(seed)
        weights = 1 / np.sqrt(np.arange(1, _N_FACTORS + 1))
        centres = of_all.standard_normal((n_labels, _N_FACTORS)) * weights
        series = of_all.standard_normal((n_labels, _N_SERIES, _N_FACTORS)) * weights
        loadings = of_all.standard_normal((_N_FACTORS, N_FEATURES)) / np.sqrt(weights @ weights)
        offset = of_all.uniform(-1.5, 1.0, N_FEATURES)
        ids = np.arange(*bounds)
        of_rows = np.random.default_rng([seed, bounds[0]])
        label = ids % n_labels
        own = of_rows.standard_normal((len(ids), _N_FACTORS)) * weights
        of_series = series[label, ids // n_labels % _N_SERIES]
        apart = np.sqrt(1 - _WITHIN_SERIES**2) * of_series + _WITHIN_SERIES * own
        values = (centres[label] + _WITHIN * apart) @ loadings / np.hypot(1, _WITHIN) + offset
        values += _NOISE * of_rows.standard_normal(values.shape)
        names = [f"label {number:03}" for number in label]
        columns = [
            pa.array([f"{name}/{number:08}.jpg" for name, number in zip(names, ids, strict=True)]),
            pa.array(names),
            pa.array([f"{number:064x}" for number in ids]),
            fixed_length_arrays(np.clip(values, 0, 6).astype(np.float32)),
        ]
        return write_rows(output, pa.table(columns, schema=mobilenet_features.SCHEMA))

    return synthesize


def run_before(spark: SparkSession, features: Stored, folder: Path, n_components: int) -> Lake:
    """The stages up to the classifier."""
    scaled, model = Output(str(folder / "scaled"), "run-0"), Output(str(folder / "pca"), "run-0")
    inputs = {"mobilenet_features": features}
    stored = scaled_features.scaled_features(spark, inputs, scaled, scaled_features.Params()).stored(scaled)
    result = pca_model.pca_model(
        spark, {"scaled_features": stored}, model, pca_model.Params(n_components, None)
    )
    return Lake(features, stored, result.stored(model))


def run_stage(spark: SparkSession, lake: Lake, folder: Path, seed: int) -> dict[str, Any]:
    """The stage as it is, with all that it writes and measures; returns its facts."""
    output = Output(str(folder / "classifier"), "run-0")
    return dict(fruit_classifier.fruit_classifier(spark, lake.inputs, output, default_params(seed)).metadata)


def default_params(seed: int) -> fruit_classifier.Params:
    """Those of the asset."""
    config = ClassifierConfig(seed=seed)
    return fruit_classifier.Params(
        config.n_components,
        config.validation_share,
        config.test_share,
        config.seed,
        config.group_pattern,
        config.refused_share,
    )


def scores(lake: Lake) -> Matrix:
    """Of all photos, in the order of the table."""
    components = PCAModel.load(f"{lake.model.folder}/{pca_model.MODEL}").pc.toArray()
    batches = batches_of(lake.scaled.table.uris, ["scaled_features"])
    return np.concatenate([scores_of(batch, components) for batch in batches])


def scores_of_training_alone(lake: Lake, split: Split, n_components: int) -> Matrix:
    """What the scores would be with mean, deviation and components of the training photos alone."""
    features = np.concatenate(
        [
            matrix(batch["features"], N_FEATURES)
            for batch in batches_of(lake.features.table.uris, ["features"])
        ]
    )[order_of(lake)]
    moments = moments_of(features[split.shares == TRAINING], full=False)
    scaled = (features - moments.mean) / np.where(moments.std > 0, moments.std, np.inf)
    found = pca_model.decompose(moments_of(scaled[split.shares == TRAINING], full=True))
    return scaled @ found.components[:, :n_components]


def order_of(lake: Lake) -> NDArray[np.int64]:
    """The rows of the features in the order of the scaled ones."""
    before, after = (
        np.concatenate([batch["path"].to_pylist() for batch in batches_of(stored.table.uris, ["path"])])
        for stored in (lake.features, lake.scaled)
    )
    return np.argsort(before)[np.argsort(np.argsort(after))]


def accuracy_of_fit(spark: SparkSession, of_photos: Matrix, split: Split) -> float:
    """Of the product's fit on given scores, on test photos."""
    blocks = [
        Block(share, of_photos[here], split.classes[here], np.flatnonzero(here))
        for share in (TRAINING, VALIDATION)
        if (here := split.shares == share).any()
    ]
    found = fit(Parts(spread(spark, blocks), 0), len(split.labels))
    margins = of_photos[split.shares == TEST] @ found.coefficients.T + found.intercepts
    return accuracy(margins.argmax(axis=1), split)


def accuracy(predicted: NDArray[Any], split: Split) -> float:
    """On the test photos."""
    return float((predicted == split.classes[split.shares == TEST]).mean())


def fit_by_sklearn(of_photos: Matrix, split: Split, regularisations: list[float]) -> float:
    """The same candidates, each beginning where the one before ended; returns the accuracy of the best."""
    from sklearn.linear_model import LogisticRegression

    training, validation, test = (split.shares == share for share in range(len(SHARES)))
    model = LogisticRegression(warm_start=True, max_iter=1000)
    best: tuple[float, float] = (np.inf, 0.0)
    for regularisation in regularisations:
        model.set_params(C=1 / (regularisation * training.sum()))
        model.fit(of_photos[training], split.classes[training])
        log_p = model.predict_log_proba(of_photos[validation])
        loss = -float(log_p[np.arange(len(log_p)), split.classes[validation]].mean())
        best = min(best, (loss, -accuracy(model.predict(of_photos[test]), split)))
    return -best[1]


def run(
    n_rows: int, n_labels: int, n_components: int, seed: int, spark: SparkSession, scratch: Path
) -> dict[str, Any]:
    """Run everything in `scratch`; returns the figures."""
    few = write_features(spark, scratch / "few", _WARM_UP_ROWS, _WARM_UP_LABELS, seed + 1)
    run_stage(spark, run_before(spark, few, scratch / "few", n_components), scratch / "few", seed)
    print(f"writing {n_rows:,} rows of {N_FEATURES} features of {n_labels} labels", flush=True)
    features = write_features(spark, scratch / "features", n_rows, n_labels, seed)
    lake = run_before(spark, features, scratch, n_components)

    print("training as the stage does", flush=True)
    facts, stage = timed(partial(run_stage, spark, lake, scratch, seed))
    split = split_photos(fruit_classifier.photos_of(lake.scaled.table), default_params(seed).cut)
    of_photos = scores(lake)
    print("training as scikit-learn does", flush=True)
    tried = [candidate["regularisation"] for candidate in facts["tried"]]
    sklearn_accuracy, sklearn = timed(partial(fit_by_sklearn, of_photos, split, tried))
    print("scaler and components of the training photos alone", flush=True)
    alone = accuracy_of_fit(spark, scores_of_training_alone(lake, split, n_components), split)
    return {
        "n_rows": n_rows,
        "n_labels": n_labels,
        "n_components": n_components,
        "n_cores": spark.sparkContext.defaultParallelism,
        "seconds": stage.seconds,
        "cpu_seconds": stage.cpu_seconds,
        "cores_elsewhere": stage.cores_elsewhere,
        "accuracy": facts["accuracy"],
        "accuracy_low": facts["accuracy_low"],
        "accuracy_high": facts["accuracy_high"],
        "macro_f1": facts["macro_f1"],
        "calibration_error": facts["calibration_error"],
        "regularisation": facts["regularisation"],
        "accuracy_all_fitted_to_training": alone,
        "sklearn_seconds": sklearn.seconds,
        "sklearn_cpu_seconds": sklearn.cpu_seconds,
        "sklearn_accuracy": sklearn_accuracy,
    }


def run_by_components(
    n_rows: int, n_labels: int, numbers: Sequence[int], seed: int, spark: SparkSession, scratch: Path
) -> dict[int, dict[str, float]]:
    """For the first so many components: their share of the variance, and the accuracy on test photos."""
    features = write_features(spark, scratch / "features", n_rows, n_labels, seed)
    lake = run_before(spark, features, scratch, max(numbers))
    split = split_photos(fruit_classifier.photos_of(lake.scaled.table), default_params(seed).cut)
    of_photos = scores(lake)
    explained = np.cumsum(PCAModel.load(f"{lake.model.folder}/{pca_model.MODEL}").explainedVariance.toArray())
    found = {}
    for number in sorted(numbers):
        of_first, fitted = timed(partial(accuracy_of_fit, spark, of_photos[:, :number], split))
        share = float(explained[number - 1])
        found[number] = {"accuracy": of_first, "explained_variance": share, "seconds": fitted.seconds}
        print(f"{number} components: {share:.1%} of the variance, {of_first:.2%} right", flush=True)
    return found


def for_people(figures: Mapping[str, Any]) -> str:
    """The figures as a table, with what belongs to the project alone below it."""
    lines = [
        ("accuracy on test photos", "accuracy", ".4f"),
        ("seconds", "seconds", ".1f"),
        ("CPU time, s", "cpu_seconds", ".1f"),
    ]
    title = (
        f"{figures['n_rows']:,} photos, {figures['n_labels']} labels, {figures['n_components']} components"
    )
    rows = [
        (what, [cell(figures.get(prefix + name), form) for prefix in ("", "sklearn_")])
        for what, name, form in lines
    ]
    return "\n".join(
        [
            table(title, ["the stage", "scikit-learn"], rows),
            f"accuracy: {figures['accuracy_low']:.4f} to {figures['accuracy_high']:.4f} at 95 % (Wilson)",
            "accuracy with scaler and components, too, of the training photos alone: "
            f"{figures['accuracy_all_fitted_to_training']:.4f}",
        ]
    )


def main() -> None:
    """Command line; the last line is JSON, and the exit status 1 when it is too slow or not as accurate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=22688, help="photos (22688)")
    parser.add_argument("--labels", type=int, default=131, help="how many (131)")
    parser.add_argument("--components", type=int, default=100, help="scores of each photo (100)")
    parser.add_argument("--by-components", type=int, nargs="+", help="instead: accuracy by how many are used")
    parser.add_argument("--seed", type=int, default=0, help="of features and cut (0)")
    arguments = parser.parse_args()
    spark = LocalSpark().session
    if arguments.by_components:
        with scratch_folder() as scratch:
            by_components = run_by_components(
                arguments.rows, arguments.labels, arguments.by_components, arguments.seed, spark, scratch
            )
            spark.stop()
        print(f"\n{json.dumps(by_components)}", flush=True)
        return
    with scratch_folder() as scratch:
        figures = run(arguments.rows, arguments.labels, arguments.components, arguments.seed, spark, scratch)
        spark.stop()
    print(f"\n{for_people(figures)}\n\n{json.dumps(figures)}", flush=True)
    if figures["seconds"] > MAX_SECONDS:
        sys.exit(f"The stage took {figures['seconds']:.0f} s, more than {MAX_SECONDS}.")
    if figures["accuracy"] < figures["sklearn_accuracy"] - MAX_ACCURACY_LOST:
        sys.exit("scikit-learn is more accurate on the same scores.")


if __name__ == "__main__":
    main()
