"""The principal components."""

import itertools
from collections.abc import Mapping
from typing import Any, Self

import dagster as dg
from pydantic import Field, model_validator

from fruits_assets.assets.config import checked, config_of
from fruits_assets.assets.materialization import GROUP, OWNERS, Table, check, run_and_publish
from fruits_assets.assets.scaled_features import scaled_features
from fruits_assets.resources.failures import failed_in_words
from fruits_assets.resources.lake import Lake
from fruits_assets.resources.spark import SparkRunner

DEFAULT_N_COMPONENTS = 100
MAX_N_COMPONENTS = 1280
ORTHONORMAL_TOLERANCE = 1e-9
_COMPONENTS_SHOWN = 10

TABLE = Table(
    descriptions={
        "component": "Its number, from 1 on, by falling variance.",
        "explained_variance_ratio": "Share of the total variance, 0 to 1, that it explains.",
        "loadings": "Its 1280 entries: together of length 1, the largest positive.",
    },
    lineage={
        "explained_variance_ratio": [("scaled_features", "scaled_features")],
        "loadings": [("scaled_features", "scaled_features")],
    },
)


class PcaConfig(dg.Config):
    """Configuration of `pca_model`: a number of components or a share of the variance, not both."""

    n_components: int | None = Field(
        default=None,
        ge=1,
        le=MAX_N_COMPONENTS,
        description=f"How many components to keep; {DEFAULT_N_COMPONENTS} unless target_variance is set.",
    )
    target_variance: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Keep the fewest components that together explain this share, 0 to 1.",
    )
    min_total_variance: float = Field(
        default=0.5, ge=0, le=1, description="Below this share of the variance the check fails."
    )

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if self.n_components is not None and self.target_variance is not None:
            raise ValueError(
                f"n_components = {self.n_components} and target_variance = {self.target_variance} "
                "are both set: set one of them"
            )
        return self


@dg.asset(
    deps=[scaled_features],
    config_schema=checked(PcaConfig),
    group_name=GROUP,
    owners=OWNERS,
    kinds={"pyspark", "numpy"},
    code_version="2",
    check_specs=[
        dg.AssetCheckSpec(
            "components_are_orthonormal",
            asset="pca_model",
            description=f"No entry of |C'C - I| exceeds {ORTHONORMAL_TOLERANCE:g}.",
            blocking=True,
        ),
        dg.AssetCheckSpec(
            "explains_enough_variance",
            asset="pca_model",
            description="All components together explain at least `min_total_variance`.",
        ),
    ],
)
@failed_in_words()
def pca_model(context: dg.AssetExecutionContext, spark: SparkRunner, lake: Lake) -> dg.MaterializeResult:
    """A Spark ML PCAModel over the scaled features, by falling variance, the same at every run.

    `PCAModel.load` opens it anywhere; the table has its components for those without Spark.
    """
    from fruits_assets.stages import pca_model as stage

    config = config_of(context, PcaConfig)
    n_components = config.n_components
    if config.target_variance is None and n_components is None:
        n_components = DEFAULT_N_COMPONENTS
    published = run_and_publish(
        context,
        spark,
        lake,
        stage.pca_model,
        {"scaled_features": lake.current("scaled_features")},
        stage.Params(n_components, config.target_variance),
        TABLE,
        lambda facts: checks(facts, config),
        told_apart_by=["n_components"],
    )
    return published.result(metadata(published.facts, n_components))


def metadata(facts: Mapping[str, Any], asked_for: int | None) -> dict[str, Any]:
    """What the UI shows of a materialization."""
    from fruits_assets.report import plots

    ratios, n_components = facts["explained_variance_ratio"], facts["n_components"]
    shown = {
        "n_components": n_components,
        "total_explained_variance": facts["total_explained_variance"],
        "explained_variance_plot": dg.MetadataValue.md(
            plots.as_markdown(
                plots.explained_variance(facts["all_explained_variance_ratios"], n_components),
                "explained variance",
            )
        ),
        "components_needed": dg.MetadataValue.table(
            [
                dg.TableRecord({"explained variance": level, "components": n})
                for level, n in facts["n_components_for"].items()
            ]
        ),
        "first_components": dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {
                        "component": i,
                        "explained_variance_ratio": ratio,
                        "cumulative": cumulative,
                    }
                )
                for i, (ratio, cumulative) in enumerate(
                    itertools.islice(
                        zip(ratios, itertools.accumulate(ratios), strict=True), _COMPONENTS_SHOWN
                    ),
                    start=1,
                )
            ]
        ),
    }
    if asked_for is not None and n_components < asked_for:
        shown["fewer_than_asked"] = (
            f"{asked_for} components were asked for; {facts['n_images']} images span only "
            f"{facts['rank']} dimensions, so there are {n_components}."
        )
    return shown


def checks(facts: Mapping[str, Any], config: PcaConfig) -> list[dg.AssetCheckResult]:
    """The checks, from what the stage read back of the model that it saved."""
    deviation, total = facts["max_abs_gram_minus_identity"], facts["total_explained_variance"]
    return [
        check(
            "components_are_orthonormal",
            deviation <= ORTHONORMAL_TOLERANCE,
            max_abs_gram_minus_identity=deviation,
            maximum=ORTHONORMAL_TOLERANCE,
        ),
        check(
            "explains_enough_variance",
            total >= config.min_total_variance,
            total_explained_variance=total,
            minimum=config.min_total_variance,
        ),
    ]
