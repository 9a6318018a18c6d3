"""The photos, checked and packed, without personal metadata."""

import hashlib
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
from fruits_assets.resources.failures import failed_in_words
from fruits_assets.resources.image_source import ImageSource
from fruits_assets.resources.lake import Lake
from fruits_assets.resources.spark import SparkRunner

MIN_READABLE_SHARE = 0.95
MIN_LABELS = 2

TABLE = Table(
    descriptions={
        "path": "Path of the image below the source, as the source has it.",
        "label": "Name of the folder that holds the image.",
        "content": "The image file, without personal metadata, its pixels as they were.",
        "width": "Width of the upright image in pixels.",
        "height": "Height of the upright image in pixels.",
        "bytes": "Size of `content` in bytes.",
        "sha256": "SHA-256 of `content`, in hexadecimal.",
        "modified": "When the source file was last written to, UTC: often when the photo was taken.",
        "source_bytes": "Size of the source file in bytes.",
        "stripped": "Whether the source file had more than the picture, which `content` has not.",
        "thumbnail": "A JPEG of at most 64 x 64 pixels.",
        "pixels": "Of a large photo, what the network looks at: 224 x 224 x 3 bytes, in sRGB.",
    },
    lineage={
        "path": [("source_images", "path")],
        "label": [("source_images", "path")],
        "content": [("source_images", "content")],
        "width": [("source_images", "content")],
        "height": [("source_images", "content")],
        "bytes": [("source_images", "content")],
        "sha256": [("source_images", "content")],
        "modified": [("source_images", "modified")],
        "source_bytes": [("source_images", "content")],
        "stripped": [("source_images", "content")],
        "thumbnail": [("source_images", "content")],
        "pixels": [("source_images", "content")],
    },
)

source_images = dg.AssetSpec(
    "source_images",
    description="The folder or s3:// prefix of FRUITS_IMAGES: `<label>/<file>`, any depth.",
    group_name=GROUP,
    kinds={"jpeg"},
)


class RawImagesConfig(dg.Config):
    """Configuration of `raw_images`."""

    reread: bool = Field(
        default=False,
        description="Read every file, even those whose size and modification time are as before.",
    )
    min_share_of_previous: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="At least this share of the images of the last version must still be readable in the "
        "source, or nothing is published; 0 accepts any loss.",
    )


@dg.asset(
    deps=[source_images],
    config_schema=checked(RawImagesConfig),
    group_name=GROUP,
    owners=OWNERS,
    kinds={"pyspark", "deltalake"},
    code_version="5",
    check_specs=[
        dg.AssetCheckSpec(
            "keeps_previous_images",
            asset="raw_images",
            description="Of the last version's images, at least `min_share_of_previous` are still readable.",
            blocking=True,
        ),
        dg.AssetCheckSpec(
            "same_source_as_before",
            asset="raw_images",
            description="The images come from where those of the last version came from.",
        ),
        dg.AssetCheckSpec(
            "readable_share",
            asset="raw_images",
            description=f"At least {MIN_READABLE_SHARE:.0%} of the source's images could be read.",
        ),
        dg.AssetCheckSpec(
            "at_least_two_labels",
            asset="raw_images",
            description="Images of a single label cannot be told apart.",
        ),
        dg.AssetCheckSpec(
            "no_duplicate_paths",
            asset="raw_images",
            description="A path is the key of every table of the graph.",
            blocking=True,
        ),
    ],
)
@failed_in_words()
def raw_images(
    context: dg.AssetExecutionContext, spark: SparkRunner, lake: Lake, images: ImageSource
) -> dg.MaterializeResult:
    """The photos of the source as a table: decodable, upright, without EXIF, XMP or IPTC.

    Files that are no use go to a quarantine table with the reason, and the run goes on. Files whose size
    and modification time are those of the previous version are taken over from it.
    """
    from fruits_assets.stages import raw_images as stage
    from fruits_assets.stages.plan import LAST, PREVIOUS

    config = config_of(context, RawImagesConfig)
    origin = origin_of(images)
    last = lake.find("raw_images")
    is_other_source = last is not None and last.params != origin
    published = run_and_publish(
        context,
        spark,
        lake,
        stage.raw_images,
        {},
        stage.Params(images.uri, images.inventory),
        TABLE,
        lambda facts: checks(facts, config.min_share_of_previous, is_other_source),
        told_apart_by=["content_digest"],
        beside={
            LAST: None if is_other_source else last,
            PREVIOUS: None if config.reread else lake.reusable("raw_images", code_version(context)),
        },
        recorded_params=origin,
        is_unchanged=lambda facts: (
            not config.reread and not facts["n_quarantined"] and facts["listing"] == images.fingerprint()
        ),
    )
    n_read = published.facts["n_read"] if published.is_new else 0
    return published.result(metadata(images.uri, published.facts, n_read))


def origin_of(images: ImageSource) -> dict[str, str]:
    """What a version records of its source: by it the same one is known, but not found."""
    return {"source_sha256": hashlib.sha256(images.uri.encode()).hexdigest()}


def metadata(source: str, facts: Mapping[str, Any], n_read: int) -> dict[str, Any]:
    """What the UI shows of a materialization."""
    from fruits_assets.report import plots

    per_label = facts["images_per_label"]
    return {
        "source": dg.MetadataValue.path(source),
        "labels": len(per_label),
        "quarantined": facts["n_quarantined"],
        "ignored": facts["ignored"],
        "images_per_label": dg.MetadataValue.table(
            [dg.TableRecord({"label": label, "images": n}) for label, n in per_label.items()],
            schema=dg.TableSchema([dg.TableColumn("label", "string"), dg.TableColumn("images", "int")]),
        ),
        "contact_sheet": dg.MetadataValue.md(
            plots.as_markdown(plots.contact_sheet(facts["thumbnails"]), "contact sheet", "jpeg")
        ),
        "images_per_label_plot": dg.MetadataValue.md(
            plots.as_markdown(plots.images_per_label(per_label), "images per label")
        ),
        "size_mb": facts["total_bytes"] / 1e6,
        "stripped_of_personal_metadata": facts["n_stripped"],
        "read": n_read,
        "unchanged": facts["row_count"] - n_read,
        "quarantined_files": dg.MetadataValue.table(
            [dg.TableRecord(row) for row in facts["quarantined"]],
            schema=dg.TableSchema([dg.TableColumn(name, "string") for name in ("path", "label", "reason")]),
        ),
    }


def checks(
    facts: Mapping[str, Any], min_share_of_previous: float, is_other_source: bool
) -> list[dg.AssetCheckResult]:
    """The checks, from what the stage found in the table that it wrote."""
    n_images, n_quarantined = facts["row_count"], facts["n_quarantined"]
    readable_share = n_images / max(1, n_images + n_quarantined)
    n_labels = len(facts["images_per_label"])
    n_previous = facts["n_previous"]
    share_of_previous = 1 - facts["n_lost"] / max(1, n_previous)
    return [
        check(
            "keeps_previous_images",
            share_of_previous >= min_share_of_previous,
            remedy="See whether the folder of FRUITS_IMAGES is all there; the configuration of raw_images, "
            "min_share_of_previous: 0, accepts the loss.",
            share_of_previous=share_of_previous,
            minimum=min_share_of_previous,
            previous=n_previous,
            lost=facts["n_lost"],
        ),
        check(
            "same_source_as_before",
            not is_other_source,
            severity=dg.AssetCheckSeverity.WARN,
            images_of_another_source=facts["row_count"] if is_other_source else 0,
        ),
        check(
            "readable_share",
            readable_share >= MIN_READABLE_SHARE,
            readable_share=readable_share,
            minimum=MIN_READABLE_SHARE,
            quarantined=n_quarantined,
        ),
        check("at_least_two_labels", n_labels >= MIN_LABELS, labels=n_labels),
        check(
            "no_duplicate_paths",
            facts["n_duplicate_paths"] == 0,
            duplicates=facts["n_duplicate_paths"],
        ),
    ]
