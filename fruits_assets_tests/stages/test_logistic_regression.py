"""The fit is the minimum that Spark ML looks for, wherever the scores are and however they are divided."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession

from fruits_assets.stages import logistic_regression, minimisation
from fruits_assets.stages.logistic_regression import Block, Fit, Parts, fit, log_probabilities, loss_of
from fruits_assets.stages.minimisation import minimum
from fruits_assets.stages.parquet import spread
from fruits_assets.stages.photo_split import TRAINING, VALIDATION

N_LABELS, N_SCORES, N_PHOTOS = 4, 6, 240


class Scored(NamedTuple):
    """Scores (n, d) that overlap, of falling variance and around no zero, their classes and shares (n,)."""

    scores: NDArray[np.float64]
    classes: NDArray[np.int64]
    shares: NDArray[np.int64]


@pytest.fixture(scope="module")
def photos() -> Scored:
    rng = np.random.default_rng(7)
    classes = np.arange(N_PHOTOS) % N_LABELS
    spread_of = 30.0 / np.arange(1, N_SCORES + 1) ** 2
    centres = rng.normal(size=(N_LABELS, N_SCORES))
    scores = (centres[classes] + 0.8 * rng.normal(size=(N_PHOTOS, N_SCORES))) * spread_of + 5
    return Scored(scores, classes, np.arange(N_PHOTOS) // N_LABELS % 3 % 2)


def divided(spark: SparkSession, photos: Scored, n_parts: int, n_bytes: int = 0) -> Parts:
    """Parts of all sizes, the first of which has no photo, on the workers unless said to be small."""
    order = np.random.default_rng(n_parts).permutation(N_PHOTOS)
    bounds = np.linspace(0, 1, n_parts) ** 2 * N_PHOTOS
    blocks = [
        Block(share, photos.scores[here], photos.classes[here], here)
        for rows in np.split(order, bounds.astype(int)[:-1])
        for share in (TRAINING, VALIDATION)
        for here in [rows[photos.shares[rows] == share]]
    ]
    return Parts(spread(spark, blocks), n_bytes)


def probabilities(fitted: Fit, photos: Scored) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.exp(
        log_probabilities(photos.scores @ fitted.coefficients.T + fitted.intercepts)
    )
    return found


ON_WORKERS, HERE = logistic_regression._GATHERED_BYTES + 1, 0


@pytest.mark.slow
def test_the_fit_is_spark_mls(spark: SparkSession, photos: Scored) -> None:
    fitted = fit(divided(spark, photos, 3, HERE), N_LABELS)
    training = photos.shares == TRAINING
    rows = [
        (Vectors.dense(row), float(label))
        for row, label in zip(photos.scores[training], photos.classes[training], strict=True)
    ]
    expected = LogisticRegression(
        regParam=fitted.regularisation, family="multinomial", standardization=False, tol=1e-12, maxIter=1000
    ).fit(spark.createDataFrame(rows, ["features", "label"]))
    np.testing.assert_allclose(fitted.coefficients, expected.coefficientMatrix.toArray(), atol=1e-5)
    np.testing.assert_allclose(fitted.intercepts, expected.interceptVector.toArray(), atol=1e-4)


def test_the_parts_do_not_matter(spark: SparkSession, photos: Scored) -> None:
    assert_same(spark, photos, divided(spark, photos, 5, HERE))


def test_it_does_not_matter_where_the_parts_are(
    spark: SparkSession, photos: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each pass is a job of Spark: a strong regularisation takes few of them.
    monkeypatch.setattr(logistic_regression, "CANDIDATES", (1.0,))
    assert_same(spark, photos, divided(spark, photos, 2, ON_WORKERS))


def assert_same(spark: SparkSession, photos: Scored, parts: Parts) -> None:
    expected = fit(divided(spark, photos, 3, HERE), N_LABELS)
    found = fit(parts, N_LABELS)
    assert found.regularisation == pytest.approx(expected.regularisation, rel=1e-9)
    np.testing.assert_allclose(probabilities(found, photos), probabilities(expected, photos), atol=1e-7)


def test_the_regularisation_is_the_one_with_the_least_loss_on_validation(
    spark: SparkSession, photos: Scored
) -> None:
    fitted = fit(divided(spark, photos, 2, HERE), N_LABELS)
    losses = [candidate.validation_loss for candidate in fitted.tried]
    assert [c.regularisation for c in fitted.tried] == sorted(
        (c.regularisation for c in fitted.tried), reverse=True
    )
    assert fitted.regularisation == fitted.tried[-2].regularisation
    assert len(losses) > 2
    # It stops at the first that brings less than a thousandth.
    assert all(later < earlier - 1e-3 for earlier, later in itertools.pairwise(losses[:-1]))
    assert losses[-1] >= losses[-2] - 1e-3
    validation = photos.shares == VALIDATION
    p = probabilities(fitted, photos)[validation, photos.classes[validation]]
    assert losses[-2] == pytest.approx(-np.log(p).mean(), abs=1e-2)


def test_a_weaker_regularisation_that_gains_next_to_nothing_is_not_taken(
    spark: SparkSession, photos: Scored
) -> None:
    apart = photos._replace(scores=photos.scores + 200 * np.eye(N_LABELS, N_SCORES)[photos.classes])
    fitted = fit(divided(spark, apart, 2, HERE), N_LABELS)
    last, before = fitted.tried[-1], fitted.tried[-2]
    assert before.validation_loss - 1e-3 < last.validation_loss < before.validation_loss
    assert fitted.regularisation == before.regularisation


def test_gradient_and_curvature_are_those_of_the_loss(photos: Scored) -> None:
    rng = np.random.default_rng(3)
    weights = rng.normal(size=(N_LABELS, N_SCORES + 1)) / 10
    mean = photos.scores.mean(axis=0)
    block = Block(TRAINING, photos.scores, photos.classes, np.arange(N_PHOTOS))
    loss = loss_of(block, weights, mean, with_curvature=True)
    assert loss.count == N_PHOTOS
    step = 1e-4
    for at in [(0, 0), (2, 3), (3, N_SCORES)]:
        moved = np.zeros_like(weights)
        moved[at] = step
        up, down = (loss_of(block, weights + sign * moved, mean) for sign in (1, -1))
        assert (up.total - down.total) / (2 * step) == pytest.approx(loss.gradient[at], rel=1e-5)
        slope_change = (up.gradient[at] - down.gradient[at]) / (2 * step)
        assert slope_change == pytest.approx(loss.curvature[at], rel=1e-5)


def test_probabilities_of_margins_as_large_as_they_come_are_finite() -> None:
    found = np.exp(log_probabilities(np.array([[1e4, -1e4, 0.0], [-1e308, 0.0, 1.0]])))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert found[0, 0] == 1


def quadratic(curvatures: NDArray[np.float64]) -> Callable[[NDArray[Any]], tuple[float, NDArray[Any]]]:
    return lambda x: (float(0.5 * (curvatures * (x - 1) ** 2).sum()), curvatures * (x - 1))


def test_the_minimum_is_found_though_the_curvature_that_is_told_is_wrong_by_far() -> None:
    curvatures = np.logspace(-1, 1, 30).reshape(3, 10)
    found = minimum(quadratic(curvatures), np.zeros((3, 10)), np.ones((3, 10)), 1e-16)
    assert found.has_converged
    np.testing.assert_allclose(found.at, 1, atol=1e-4)


def test_a_minimum_that_is_not_reached_is_said_to_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minimisation, "_MAX_ITERATIONS", 5)
    curvatures = np.logspace(-1, 1, 30)
    found = minimum(quadratic(curvatures), np.zeros(30), np.ones(30), 1e-16)
    assert not found.has_converged
