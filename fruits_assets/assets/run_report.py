"""One page to look at and to pass on."""

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import dagster as dg
from pydantic import Field
from upath import UPath

from fruits_assets.assets.config import checked, config_of
from fruits_assets.assets.fruit_classifier import fruit_classifier
from fruits_assets.assets.materialization import (
    GROUP,
    OWNERS,
    REPORT_FILE,
    Table,
    check,
    make_and_publish,
)
from fruits_assets.assets.mobilenet_features import mobilenet_features
from fruits_assets.assets.mobilenet_model import mobilenet_model
from fruits_assets.assets.pca_features_csv import pca_features_csv
from fruits_assets.assets.pca_model import pca_model
from fruits_assets.assets.raw_images import origin_of, raw_images
from fruits_assets.assets.scaled_features import scaled_features
from fruits_assets.resources.failures import failed_in_words
from fruits_assets.resources.image_source import ImageSource
from fruits_assets.resources.lake import Lake

MAX_BYTES = 8_000_000

TABLE = Table(
    descriptions={
        "path": "Path, below the source, of a photo that the page shows.",
        "label": "Name of the folder that holds the image.",
        "drawn": "Whether it is in the scatter plot.",
    },
    lineage={
        "path": [("pca_features_csv", "path")],
        "label": [("pca_features_csv", "label")],
        "drawn": [("pca_features_csv", "path")],
    },
)


class ReportConfig(dg.Config):
    """Configuration of `run_report`."""

    photos_of: str = Field(
        default="",
        description="Whose photos these are and who answers for them, for the head of the page; if "
        "empty, the name of the source.",
    )


@dg.asset(
    deps=[
        raw_images,
        mobilenet_model,
        mobilenet_features,
        scaled_features,
        pca_model,
        pca_features_csv,
        fruit_classifier,
    ],
    config_schema=checked(ReportConfig),
    group_name=GROUP,
    owners=OWNERS,
    kinds={"html", "bokeh"},
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(
            "asks_no_host",
            asset="run_report",
            description="Nothing in the page names another place to fetch something from.",
            blocking=True,
        ),
        dg.AssetCheckSpec(
            "small_enough_to_send",
            asset="run_report",
            description=f"At most {MAX_BYTES / 1e6:.0f} MB.",
        ),
    ],
)
@failed_in_words()
def run_report(context: dg.AssetExecutionContext, lake: Lake, images: ImageSource) -> dg.MaterializeResult:
    """`report.html`: what went in, what came out and how photos lie to each other, in one file to pass on.

    It holds thumbnails and paths. An erasure removes it.
    """
    import pyarrow as pa

    from fruits_assets.assets.report_contents import belonging_together, contents_of, rows_of
    from fruits_assets.report.page import page
    from fruits_assets.stages.parquet import write_rows
    from fruits_assets.stages.stage import StageResult, column_types
    from fruits_assets.stages.stored import ROWS, Output

    versions = belonging_together(lake)
    photos_of = config_of(context, ReportConfig).photos_of
    source = images.uri if versions["raw_images"].params == origin_of(images) else ""

    def make(output: Output) -> StageResult:
        whose = photos_of or (f"Photos of {source_name(source)}." if source else "")
        contents = contents_of(versions, whose, source, context.instance)
        pa.default_memory_pool().release_unused()  # of reading all photos; to draw takes as much
        text = page(contents)
        (UPath(output.folder) / REPORT_FILE).write_text(text, encoding="utf-8")
        rows = rows_of(contents)
        facts = {
            "size_bytes": len(text.encode()),
            "n_photos": sum(contents.counts.values()),
            "n_shown": rows.num_rows,
            "n_compared": contents.n_compared,
            "asked": asked_of_others(text),
        }
        return StageResult(
            rows.num_rows, column_types(rows.schema), {ROWS: [write_rows(output, rows)]}, facts
        )

    published = make_and_publish(
        context, lake, make, versions, {"photos_of": photos_of}, TABLE, checks, stable_files=[REPORT_FILE]
    )
    return published.result(
        {
            "photos_shown": published.facts["n_shown"],
            "size_mb": published.facts["size_bytes"] / 1e6,
        }
    )


def checks(facts: Mapping[str, Any]) -> list[dg.AssetCheckResult]:
    """The checks, from what was found in the page."""
    return [
        check("asks_no_host", not facts["asked"], asked=", ".join(facts["asked"]) or "none"),
        check(
            "small_enough_to_send",
            facts["size_bytes"] <= MAX_BYTES,
            size_bytes=facts["size_bytes"],
            maximum=MAX_BYTES,
        ),
    ]


def source_name(uri: str) -> str:
    """Of the source, what may be passed on: a folder's own name, not where somebody has it."""
    return uri if "://" in uri else UPath(uri).name


class _Places(HTMLParser):
    """Collects what a browser would fetch for the elements and the style of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data", "poster") and value:
                self.found.append(value)

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "style":
            self.found += re.findall(r"""(?:url\(|@import)\s*['"]?([^'")]+)""", data)


def asked_of_others(text: str) -> list[str]:
    """Of a page, the places other than itself that its elements name."""
    places = _Places()
    places.feed(text)
    return [place for place in places.found if not place.startswith(("#", "data:"))]
