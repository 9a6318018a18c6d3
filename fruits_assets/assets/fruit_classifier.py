"""What fruit a photo shows."""

import re
from collections.abc import Mapping
from typing import Any, Self

import dagster as dg
from pydantic import Field, field_validator, model_validator

from fruits_assets.assets.config import checked, config_of
from fruits_assets.assets.materialization import GROUP, OWNERS, Table, check, run_and_publish
from fruits_assets.assets.pca_model import MAX_N_COMPONENTS, pca_model
from fruits_assets.assets.raw_images import raw_images
from fruits_assets.assets.scaled_features import scaled_features
from fruits_assets.resources.failures import failed_in_words
from fruits_assets.resources.files import LakeError
from fruits_assets.resources.lake import Lake
from fruits_assets.resources.spark import SparkRunner

_SCORES = [("scaled_features", "scaled_features"), ("pca_model", "loadings")]
_LEARNED = [*_SCORES, ("scaled_features", "label"), ("scaled_features", "sha256")]

TABLE = Table(
    descriptions={
        "path": "Path of the image below the source.",
        "label": "Name of the folder that holds the image: what is right.",
        "share": "What the photo was used for: training, validation or test; or left out, as its label has "
        "too few.",
        "predicted": "The most probable label.",
        "probability": "How probable that is, 0 to 1.",
        "distance": "From the photo's scores to those of the nearest training photo that it was not kept "
        "together with: Euclidean.",
    },
    lineage={
        "path": [("scaled_features", "path")],
        "label": [("scaled_features", "label")],
        "share": [("scaled_features", name) for name in ("path", "label", "sha256")],
        "predicted": _LEARNED,
        "probability": _LEARNED,
        "distance": _LEARNED,
    },
)


class ClassifierConfig(dg.Config):
    """Configuration of `fruit_classifier`."""

    n_components: int | None = Field(
        default=None,
        ge=1,
        le=MAX_N_COMPONENTS,
        description="How many of the model's components are used, the first ones; all if not set.",
    )
    validation_share: float = Field(
        default=0.2, gt=0, lt=1, description="Share of the photos on which the regularisation is chosen."
    )
    test_share: float = Field(
        default=0.2, gt=0, lt=1, description="Share of the photos on which it is measured; the rest trains."
    )
    seed: int = Field(default=0, description="Another one cuts the photos in another way.")
    group_pattern: str = Field(
        default="",
        description="Regular expression, searched in each path: photos of which it finds the same are on one "
        r"side of the cut. ^(.*/[a-z]*\d*_)\d+_100\.jpg$ keeps the frames of one turning fruit of Fruits-360 "
        "together, which are nearly the same picture: over frames of fruits it has learned from, a "
        "classifier looks better than it is with a fruit that it has never seen.",
    )
    refused_share: float = Field(
        default=0.02,
        ge=0,
        lt=0.5,
        description="Of photos of known kinds, this share is further from training than the threshold beyond "
        "which a photo is unlike all.",
    )
    min_errors_avoided: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Of the errors that always saying the most frequent label makes, at least this share "
        "must be avoided, or nothing is published; 0 accepts any classifier.",
    )
    min_accuracy: float = Field(
        default=0.9, ge=0, le=1, description="Below this accuracy on test photos a check fails."
    )
    max_calibration_error: float = Field(
        default=0.1, ge=0, le=1, description="Above this expected calibration error a check fails."
    )

    @field_validator("group_pattern")
    @classmethod
    def _is_a_pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"no regular expression of Python: {error}") from error
        return value

    @model_validator(mode="after")
    def _leaves_some_for_training(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share = {self.validation_share} and test_share = {self.test_share} leave "
                "nothing for training: together they must be less than 1"
            )
        return self


@dg.asset(
    deps=[scaled_features, pca_model, raw_images],
    config_schema=checked(ClassifierConfig),
    group_name=GROUP,
    owners=OWNERS,
    kinds={"pyspark", "numpy", "deltalake"},
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(
            "beats_the_most_frequent_label",
            asset="fruit_classifier",
            description="Of the errors that always saying the most frequent label makes, at least "
            "`min_errors_avoided` are avoided.",
            blocking=True,
        ),
        dg.AssetCheckSpec(
            "accurate_enough",
            asset="fruit_classifier",
            description="The accuracy on test photos is at least `min_accuracy`.",
        ),
        dg.AssetCheckSpec(
            "probabilities_are_calibrated",
            asset="fruit_classifier",
            description="The expected calibration error on test photos is at most `max_calibration_error`: "
            "of what is said with 80 %, 80 % is right.",
        ),
    ],
)
@failed_in_words()
def fruit_classifier(
    context: dg.AssetExecutionContext, spark: SparkRunner, lake: Lake
) -> dg.MaterializeResult:
    """A Spark ML LogisticRegressionModel over the component scores, and what it says of every photo.

    `LogisticRegressionModel.load` opens it anywhere; `classes.json` has its numbers for those without Spark.
    Photos are cut into training, validation and test by a hash of their content, so that no photo is on two
    sides. Scaler and components were fitted to all photos.
    """
    from fruits_assets.stages import fruit_classifier as stage

    config = config_of(context, ClassifierConfig)
    model = lake.current("pca_model")
    scaled = lake.input_of(model, "scaled_features", "Materialize pca_model again.")
    if "sha256" not in scaled.schema:
        raise LakeError(
            f"Version {scaled.number} of scaled_features in '{scaled.uri}' was written by an earlier release "
            "and lacks the column sha256. Materialize scaled_features and pca_model again."
        )
    published = run_and_publish(
        context,
        spark,
        lake,
        stage.fruit_classifier,
        {"scaled_features": scaled, "pca_model": model},
        stage.Params(
            config.n_components,
            config.validation_share,
            config.test_share,
            config.seed,
            config.group_pattern,
            config.refused_share,
        ),
        TABLE,
        lambda facts: checks(facts, config),
        beside={stage.IMAGES: lake.find("raw_images")},
    )
    return published.result(metadata(published.facts, config.n_components))


def metadata(facts: Mapping[str, Any], asked_for: int | None) -> dict[str, Any]:
    """What the UI shows of a materialization."""
    from fruits_assets.report import plots

    shown: dict[str, Any] = {
        "confusion_matrix": dg.MetadataValue.md(
            plots.as_markdown(plots.confusion(facts["confusion"], facts["labels"]), "confusion matrix")
        ),
    }
    if facts["mistakes"]:
        shown["worst_mistakes"] = dg.MetadataValue.md(
            plots.as_markdown(plots.mistakes(facts["mistakes"]), "worst mistakes", "jpeg")
        )
    shown |= {
        "accuracy": facts["accuracy"],
        "accuracy_95_percent": _interval(facts, "accuracy"),
        "macro_f1": facts["macro_f1"],
        "macro_f1_95_percent": _interval(facts, "macro_f1"),
        "training_accuracy": facts["training_accuracy"],
        "validation_accuracy": facts["validation_accuracy"],
        "most_frequent_label_accuracy": facts["baseline"],
        "calibration_error": facts["calibration_error"],
        "photos": _records(
            [{name: facts[f"n_{name}"] for name in ("training", "validation", "test", "left_out")}]
        ),
        "labels": facts["n_labels"],
        "labels_left_out": _records([{"label": name, "photos": n} for name, n in facts["left_out"].items()]),
        "sets_kept_together": facts["n_units"],
        "n_components": facts["n_components"],
        "regularisation": facts["regularisation"],
        "regularisations_tried": _records(facts["tried"]),
        "per_label": _records(facts["per_label"]),
        "calibration": _records(facts["calibration"]),
        "distance_threshold": facts["distance_threshold"],
        "test_photos_refused": facts["test_refused"],
        "references": facts["n_references"],
    }
    if asked_for is not None and facts["n_components"] < asked_for:
        shown["fewer_than_asked"] = (
            f"{asked_for} components were asked for; pca_model has {facts['n_components']}."
        )
    return shown


def _interval(facts: Mapping[str, Any], name: str) -> str:
    return (
        f"{facts[f'{name}_low']:.4f} to {facts[f'{name}_high']:.4f} (Wilson, {facts['n_test']} test photos)"
    )


def _records(rows: list[dict[str, Any]]) -> dg.MetadataValue:
    return dg.MetadataValue.table(
        [dg.TableRecord(row) for row in rows],
        schema=dg.TableSchema([dg.TableColumn(name) for name in rows[0]] if rows else []),
    )


def checks(facts: Mapping[str, Any], config: ClassifierConfig) -> list[dg.AssetCheckResult]:
    """The checks, from what the stage read back of the table that it wrote."""
    accuracy, baseline = facts["accuracy"], facts["baseline"]
    avoided = max(0.0, (accuracy - baseline) / (1 - baseline)) if baseline < 1 else 0.0
    return [
        check(
            "beats_the_most_frequent_label",
            avoided >= config.min_errors_avoided,
            remedy="See in worst_mistakes and per_label whether the labels are right; the configuration of "
            "fruit_classifier, min_errors_avoided: 0, publishes it all the same.",
            errors_avoided=avoided,
            minimum=config.min_errors_avoided,
            accuracy=accuracy,
            most_frequent_label_accuracy=baseline,
            test_photos=facts["n_test"],
        ),
        check(
            "accurate_enough",
            accuracy >= config.min_accuracy,
            severity=dg.AssetCheckSeverity.WARN,
            accuracy=accuracy,
            minimum=config.min_accuracy,
        ),
        check(
            "probabilities_are_calibrated",
            facts["calibration_error"] <= config.max_calibration_error,
            severity=dg.AssetCheckSeverity.WARN,
            calibration_error=facts["calibration_error"],
            maximum=config.max_calibration_error,
        ),
    ]
