"""The wiring: settings to resources, and everything that Dagster should know."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from pydantic import create_model, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fruits_assets.assets import (
    aws_bill,
    fruit_classifier,
    mobilenet_features,
    mobilenet_model,
    pca_features_csv,
    pca_model,
    raw_images,
    run_report,
    scaled_features,
)
from fruits_assets.jobs import compare_costs, every_evening, fruits_pipeline, nightly
from fruits_assets.resources.emr import EmrSpark
from fruits_assets.resources.emr import settings as cluster
from fruits_assets.resources.emr.cost import CostExplorer
from fruits_assets.resources.image_source import ImageSource
from fruits_assets.resources.lake import Lake
from fruits_assets.resources.spark import LocalSpark, SparkRunner
from fruits_assets.resources.weights import MobileNetWeights
from fruits_assets.sensors import source_changed
from fruits_assets.settings import LakeSettings, SettingError, SparkSettings, from_environment

SAMPLE_IMAGES = Path(__file__).with_name("sample_images")


class Settings(LakeSettings, SparkSettings):
    """Environment variables FRUITS_IMAGES, FRUITS_LAKE and so on: one for each field."""

    images: str = str(SAMPLE_IMAGES)
    images_inventory: str = ""
    lake_keep_versions: int = Lake.model_fields["keep_versions"]  # type: ignore[assignment] # with its limits
    lake_keep_minutes: int = Lake.model_fields["keep_minutes"]  # type: ignore[assignment]
    lake_keep_days: int = Lake.model_fields["keep_days"]  # type: ignore[assignment]
    weights: str = ""

    @field_validator("images")
    @classmethod
    def _the_same_for_a_worker(cls, value: str) -> str:
        # Whose current folder is another.
        return value if "://" in value else str(Path(value).expanduser().absolute())

    @property
    def weights_source(self) -> str:
        """The bundled images go with the bundled weights, photos with those of ImageNet."""
        default = "demo" if Path(self.images) == SAMPLE_IMAGES else "imagenet"
        return self.weights or default


class FromEmrEnvironment(BaseSettings):
    """FRUITS_EMR_REGION, FRUITS_EMR_STAGING_URI, ...: an environment variable for every field of EmrSpark."""

    model_config = SettingsConfigDict(env_prefix="FRUITS_EMR_")


EmrSettings = create_model(
    "EmrSettings",
    __base__=FromEmrEnvironment,
    **{name: (field.annotation, field) for name, field in cluster.EmrSettings.model_fields.items()},  # type: ignore[call-overload]
)


def resources(settings: Settings) -> dict[str, dg.ConfigurableResource]:
    """What the assets get, by the names under which they ask for it."""
    return {
        "images": ImageSource(uri=settings.images, inventory=settings.images_inventory),
        "lake": lake(settings),
        "spark": spark_runner(settings),
        "weights": MobileNetWeights(source=settings.weights_source),
    }


def lake(settings: Settings) -> Lake:
    """The lake of FRUITS_LAKE."""
    return Lake(
        root=settings.lake,
        keep_versions=settings.lake_keep_versions,
        keep_minutes=settings.lake_keep_minutes,
        keep_days=settings.lake_keep_days,
    )


def spark_runner(settings: Settings) -> SparkRunner:
    """The Spark of FRUITS_SPARK.

    Raises:
        SettingError: a cluster could not reach what the settings name.
    """
    if settings.spark == "local":
        return LocalSpark(master=settings.spark_master)
    if settings.spark_master != Settings.model_fields["spark_master"].default:
        raise SettingError(
            f"FRUITS_SPARK_MASTER={settings.spark_master} is for FRUITS_SPARK=local; an EMR cluster has its "
            "own. Unset it, or set FRUITS_SPARK to local."
        )
    uris = {"FRUITS_IMAGES": settings.images, "FRUITS_LAKE": settings.lake}
    if settings.images_inventory:
        uris["FRUITS_IMAGES_INVENTORY"] = settings.images_inventory
    for name, uri in uris.items():
        if not uri.startswith("s3://"):
            raise SettingError(
                f"FRUITS_SPARK=emr needs {name} to be an s3:// prefix, and it is '{uri}'. Set {name} to one, "
                "or FRUITS_SPARK to local."
            )
    return EmrSpark(**from_environment(EmrSettings).model_dump(), data_uris=uris)


GRAPH = dg.load_assets_from_modules(
    [
        raw_images,
        mobilenet_model,
        mobilenet_features,
        scaled_features,
        pca_model,
        pca_features_csv,
        fruit_classifier,
        run_report,
    ],
    include_specs=True,
)


def definitions(settings: Settings) -> dg.Definitions:
    """The graph and what starts it; with FRUITS_EMR_REAL_COST also what asks AWS for its cost."""
    given = resources(settings)
    graph = dg.Definitions(
        assets=GRAPH,
        jobs=[fruits_pipeline],
        schedules=[nightly],
        sensors=[source_changed],
        resources=given,
        executor=dg.in_process_executor,
    )
    spark = given["spark"]
    if not isinstance(spark, EmrSpark) or not spark.real_cost:
        return graph
    return dg.Definitions.merge(
        graph,
        dg.Definitions(
            assets=[aws_bill.aws_bill],
            asset_checks=[aws_bill.real_cost],
            jobs=[compare_costs],
            schedules=[every_evening],
            resources={"cost_explorer": cost_explorer(spark)},
        ),
    )


def cost_explorer(spark: EmrSpark) -> CostExplorer:
    """Of the account that the clusters are in.

    Raises:
        ValueError: these do not carry the tag by which to ask.
    """
    project = spark.named_tags.get("Project")
    if project is None:
        raise ValueError(
            f"FRUITS_EMR_REAL_COST=true needs Project=... in FRUITS_EMR_TAGS, which is '{spark.tags}': AWS "
            "tells costs apart by it. The outputs of bootstrap/emr-stack.yaml have it."
        )
    return CostExplorer(region=spark.region, project=project, daily_budget_usd=spark.daily_budget_usd)


defs = definitions(from_environment(Settings))
