"""What the network sees in every photo."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from fruits_assets.assets.config import checked, config_of
from fruits_assets.assets.materialization import (
    GROUP,
    OWNERS,
    Table,
    check,
    code_version,
    run_and_publish,
)
from fruits_assets.assets.mobilenet_model import mobilenet_model
from fruits_assets.assets.raw_images import raw_images
from fruits_assets.resources.failures import failed_in_words
from fruits_assets.resources.lake import Lake
from fruits_assets.resources.spark import SparkRunner

ENGINE = "LiteRT (XNNPACK), one thread per task"

TABLE = Table(
    descriptions={
        "path": "Path of the image below the source.",
        "label": "Name of the folder that holds the image.",
        "sha256": "SHA-256 of the image's content: what the features belong to.",
        "features": "1280 outputs of the layer before MobileNetV2's classifier, each 0 to 6.",
    },
    lineage={
        "path": [("raw_images", "path")],
        "label": [("raw_images", "label")],
        "sha256": [("raw_images", "sha256")],
        "features": [("raw_images", "content"), ("raw_images", "pixels")],
    },
)


class FeaturesConfig(dg.Config):
    """Configuration of `mobilenet_features`."""

    batch_size: int = Field(
        default=2,
        ge=1,
        le=16,
        description="Images per call of the network; changes speed and memory (8 MB each) only.",
    )


@dg.asset(
    deps=[raw_images, mobilenet_model],
    config_schema=checked(FeaturesConfig),
    group_name=GROUP,
    owners=OWNERS,
    kinds={"pyspark", "tensorflow", "deltalake"},
    code_version="4",
    check_specs=[
        dg.AssetCheckSpec(
            "same_rows_as_raw_images",
            asset="mobilenet_features",
            description="Every image of raw_images has exactly one row, and no other has.",
            blocking=True,
        ),
        dg.AssetCheckSpec(
            "all_have_1280_features",
            asset="mobilenet_features",
            description="Every row has 1280 features.",
            blocking=True,
        ),
        dg.AssetCheckSpec(
            "all_finite",
            asset="mobilenet_features",
            description="No feature is missing, infinite or not a number.",
            blocking=True,
        ),
    ],
)
@failed_in_words()
def mobilenet_features(
    context: dg.AssetExecutionContext, spark: SparkRunner, lake: Lake
) -> dg.MaterializeResult:
    """1280 features of every photo, by MobileNetV2 without its classifier.

    Each worker decodes, resizes to 224 x 224 (bicubic) and runs the broadcast flatbuffer. Features of
    content that the previous version has, by the same network, are taken over.
    """
    from fruits_assets.stages import mobilenet_features as stage
    from fruits_assets.stages.plan import PREVIOUS

    config = config_of(context, FeaturesConfig)
    inputs = {name: lake.current(name) for name in ("raw_images", "mobilenet_model")}
    network = inputs["mobilenet_model"].facts
    fingerprint = str(network["fingerprint"])
    published = run_and_publish(
        context,
        spark,
        lake,
        stage.mobilenet_features,
        inputs,
        stage.Params(fingerprint, config.batch_size),
        TABLE,
        checks,
        told_apart_by=["fingerprint"],
        beside={
            PREVIOUS: lake.reusable("mobilenet_features", code_version(context), fingerprint=fingerprint)
        },
    )
    n_computed = published.facts["n_computed"] if published.is_new else 0
    return published.result(metadata(published.facts, n_computed, str(network["weights"])))


def metadata(facts: Mapping[str, Any], n_computed: int, weights: str) -> dict[str, Any]:
    """What the UI shows of a materialization."""
    from fruits_assets.report import plots

    return {
        "images_per_s": facts["images_per_s"],
        "computed": n_computed,
        "reused": facts["row_count"] - n_computed,
        "seconds": facts["seconds"],
        "engine": ENGINE,
        "weights": weights,
        "fingerprint": facts["fingerprint"][:12],
        "sparsity": facts["sparsity"],
        "feature_means": dg.MetadataValue.md(
            plots.as_markdown(
                plots.histogram(facts["feature_means"], "mean over the images", "Means of the 1280 features"),
                "histogram of feature means",
            )
        ),
    }


def checks(facts: Mapping[str, Any]) -> list[dg.AssetCheckResult]:
    """The checks, from what the stage found in the table that it wrote."""
    differences = {name: facts[f"n_{name}"] for name in ("missing", "unexpected", "duplicates")}
    return [
        check("same_rows_as_raw_images", not any(differences.values()), **differences),
        check(
            "all_have_1280_features",
            facts["n_wrong_length"] == 0,
            wrong_length=facts["n_wrong_length"],
        ),
        check("all_finite", facts["n_not_finite"] == 0, not_finite=facts["n_not_finite"]),
    ]
