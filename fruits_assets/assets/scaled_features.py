"""The features on one scale."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from fruits_assets.assets.config import checked, config_of
from fruits_assets.assets.materialization import GROUP, OWNERS, Table, check, run_and_publish
from fruits_assets.assets.mobilenet_features import mobilenet_features
from fruits_assets.resources.failures import failed_in_words
from fruits_assets.resources.lake import Lake
from fruits_assets.resources.spark import SparkRunner

# Scaled values are float32, whose rounding is 6e-8 of a value; sums of many stay well below this.
TOLERANCE = 1e-4

TABLE = Table(
    descriptions={
        "path": "Path of the image below the source.",
        "label": "Name of the folder that holds the image.",
        "sha256": "SHA-256 of the image's content.",
        "scaled_features": "The 1280 features with mean 0 and standard deviation 1 (n - 1) over all images.",
    },
    lineage={
        "path": [("mobilenet_features", "path")],
        "label": [("mobilenet_features", "label")],
        "sha256": [("mobilenet_features", "sha256")],
        "scaled_features": [("mobilenet_features", "features")],
    },
)


class ScalingConfig(dg.Config):
    """Configuration of `scaled_features`."""

    with_mean: bool = Field(default=True, description="Subtract each feature's mean.")
    with_std: bool = Field(default=True, description="Divide each feature by its standard deviation.")


@dg.asset(
    deps=[mobilenet_features],
    config_schema=checked(ScalingConfig),
    group_name=GROUP,
    owners=OWNERS,
    kinds={"pyspark", "deltalake"},
    code_version="3",
    check_specs=[
        dg.AssetCheckSpec(
            "means_are_zero",
            asset="scaled_features",
            description=f"No feature's mean is further than {TOLERANCE:g} from 0.",
            blocking=True,
        ),
        dg.AssetCheckSpec(
            "standard_deviations_are_one",
            asset="scaled_features",
            description=f"No feature's standard deviation is off 1 by more than {TOLERANCE:g} (constant: 0).",
            blocking=True,
        ),
    ],
)
@failed_in_words()
def scaled_features(
    context: dg.AssetExecutionContext, spark: SparkRunner, lake: Lake
) -> dg.MaterializeResult:
    """The features with mean 0 and standard deviation 1, and the StandardScalerModel that did it.

    Without this, the components would follow whichever features have the largest numbers.
    """
    from fruits_assets.stages import scaled_features as stage

    config = config_of(context, ScalingConfig)
    published = run_and_publish(
        context,
        spark,
        lake,
        stage.scaled_features,
        {"mobilenet_features": lake.current("mobilenet_features")},
        stage.Params(config.with_mean, config.with_std),
        TABLE,
        lambda facts: checks(facts, config),
    )
    facts = published.facts
    metadata = {
        "constant_features": facts["n_constant_features"],
        "max_abs_mean": facts["max_abs_mean"],
        "max_abs_std_minus_1": facts["max_abs_std_minus_1"],
    }
    return published.result(metadata)


def checks(facts: Mapping[str, Any], config: ScalingConfig) -> list[dg.AssetCheckResult]:
    """The checks, from what the stage found in its table; a scaling that is off cannot fail."""
    mean, deviation = facts["max_abs_mean"], facts["max_abs_std_minus_1"]
    return [
        check(
            "means_are_zero",
            not config.with_mean or mean <= TOLERANCE,
            max_abs_mean=mean,
            switched_on=config.with_mean,
        ),
        check(
            "standard_deviations_are_one",
            not config.with_std or deviation <= TOLERANCE,
            max_abs_std_minus_1=deviation,
            constant_features=facts["n_constant_features"],
            switched_on=config.with_std,
        ),
    ]
