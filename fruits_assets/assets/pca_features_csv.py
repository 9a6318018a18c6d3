"""The result: a matrix of principal components per photo."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import dagster as dg
from pydantic import Field

from fruits_assets.assets.config import checked, config_of
from fruits_assets.assets.materialization import GROUP, OWNERS, Table, check, run_and_publish
from fruits_assets.assets.pca_model import pca_model
from fruits_assets.assets.scaled_features import scaled_features
from fruits_assets.resources.failures import failed_in_words
from fruits_assets.resources.lake import Lake
from fruits_assets.resources.published import Version
from fruits_assets.resources.spark import SparkRunner

_COMPONENTS_SHOWN = 3

TABLE = Table(
    descriptions={
        "path": "Path of the image below the source.",
        "label": "Name of the folder that holds the image.",
        "pcaFeatures": "Scores of the image on all components, by falling variance.",
        "pc_1": "Scores of the image on the components, by falling variance.",
    },
    lineage={
        "path": [("scaled_features", "path")],
        "label": [("scaled_features", "label")],
        **{
            name: [("scaled_features", "scaled_features"), ("pca_model", "loadings")]
            for name in ("pcaFeatures", "pc_1")
        },
    },
)


class Layout(Enum):
    """How the components stand in the file."""

    columns = "columns"
    vector = "vector"


class CsvConfig(dg.Config):
    """Configuration of `pca_features_csv`."""

    layout: Layout = Field(
        default=Layout.columns,
        description="columns: path,label,pc_1..pc_k; vector: path,label,pcaFeatures, a bracketed list.",
    )


@dg.asset(
    deps=[scaled_features, pca_model],
    config_schema=checked(CsvConfig),
    group_name=GROUP,
    owners=OWNERS,
    kinds={"pyspark", "csv", "deltalake"},
    code_version="2",
    check_specs=[
        dg.AssetCheckSpec(
            "model_is_of_current_features",
            asset="pca_features_csv",
            description="The model was fitted to the current scaled features; those that it was fitted to "
            "are what is projected.",
        ),
        dg.AssetCheckSpec(
            "same_rows_as_scaled_features",
            asset="pca_features_csv",
            description="The file has a row for every image.",
            blocking=True,
        ),
        dg.AssetCheckSpec(
            "has_k_columns",
            asset="pca_features_csv",
            description="path, label and one column per component of the model (or one for all).",
            blocking=True,
        ),
        dg.AssetCheckSpec(
            "file_parses",
            asset="pca_features_csv",
            description="A CSV reader takes the whole file, and every component is a number.",
            blocking=True,
        ),
    ],
)
@failed_in_words()
def pca_features_csv(
    context: dg.AssetExecutionContext, spark: SparkRunner, lake: Lake
) -> dg.MaterializeResult:
    """`results.csv` and `results.parquet`: path, label and principal components of every photo.

    Both are in the asset's folder of the lake, where the file is always a complete one.
    """
    from fruits_assets.stages import pca_features_csv as stage

    config = config_of(context, CsvConfig)
    model, current = lake.current("pca_model"), lake.current("scaled_features")
    fitted_to = lake.input_of(model, "scaled_features", "Materialize pca_model again.")
    published = run_and_publish(
        context,
        spark,
        lake,
        stage.pca_features_csv,
        {"scaled_features": fitted_to, "pca_model": model},
        stage.Params(config.layout.value),
        TABLE,
        lambda facts: checks(facts, fitted_to, current),
        stable_files=[stage.CSV, stage.PARQUET],
    )
    files = lake.place("pca_features_csv")
    return published.result(
        {
            "results_csv": dg.MetadataValue.path(str(files / stage.CSV)),
            "results_parquet": dg.MetadataValue.path(str(files / stage.PARQUET)),
            **metadata(published.facts),
        }
    )


def metadata(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the UI shows of a materialization."""
    from fruits_assets.report import plots

    shown = facts["columns"][: 2 + _COMPONENTS_SHOWN]
    return {
        "rows": facts["n_csv_rows"],
        "columns": len(facts["columns"]),
        "size_mb": facts["size_bytes"] / 1e6,
        "first_rows": dg.MetadataValue.table(
            [dg.TableRecord({name: row[name] for name in shown}) for row in facts["first_rows"]]
        ),
        "first_two_components": dg.MetadataValue.md(
            plots.as_markdown(
                plots.scatter(facts["points"], facts["explained_variance_ratio"]), "PC1 and PC2"
            )
        ),
    }


def checks(facts: Mapping[str, Any], fitted_to: Version, current: Version) -> list[dg.AssetCheckResult]:
    """The checks, from what the stage read back of the file that it wrote.

    Args:
        fitted_to: the scaled features that the model was fitted to, which were projected.
        current: the current ones.
    """
    n_columns, expected = len(facts["columns"]), len(facts["expected_columns"])
    return [
        check(
            "model_is_of_current_features",
            fitted_to.data_version == current.data_version,
            severity=dg.AssetCheckSeverity.WARN,
            model_is_of_version=fitted_to.number,
            current_version=current.number,
        ),
        check(
            "same_rows_as_scaled_features",
            facts["n_csv_rows"] == facts["n_images"],
            rows=facts["n_csv_rows"],
            images=facts["n_images"],
        ),
        check(
            "has_k_columns",
            facts["columns"] == facts["expected_columns"],
            columns=n_columns,
            expected=expected,
        ),
        check(
            "file_parses",
            facts["parse_error"] is None,
            error=facts["parse_error"] or "none",
        ),
    ]
