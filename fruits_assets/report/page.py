"""The report as one HTML file that asks no host for anything: numbers and thumbnails in, text out."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fruits_assets.report.closeness import LabelShapes, Outlier
from fruits_assets.report.sampling import Photos
from fruits_assets.report.sprites import Sheets, sheets

# What does not grow: Bokeh's script is 1.3 MB, 3,000 photos of 100 components take 0.8.
MAX_SHEET_BYTES = 4_000_000
MAX_COMPONENTS = 100
MAX_MATRIX_LABELS = 150
_MAX_PATH_SHOWN = 160
_LABELS_ON_SHEET, _PHOTOS_OF_LABEL = 150, 8
_MAX_BARS, _MAX_LISTED = 20, 1000


@dataclass(frozen=True)
class Quarantine:
    """Files that were set aside: how many, of which kinds, and the first of them: path, label, reason."""

    n_files: int
    kinds: Mapping[str, int]
    first: Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Pair:
    """Two photos, as path and label, and their distance in component space."""

    first: tuple[str, str]
    second: tuple[str, str]
    distance: float


@dataclass(frozen=True)
class Mistake:
    """A photo that the classifier took for something else."""

    path: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Classifier:
    """What the classifier made of photos that it was not trained with.

    `counts` is (n_labels, n_labels): rows are the labels of the photos, columns what was predicted. `facts`
    are for people: name and value.
    """

    labels: Sequence[str]
    counts: NDArray[np.int64]
    facts: Sequence[tuple[str, str]]
    worst: Sequence[Mistake]


@dataclass(frozen=True)
class Made:
    """One asset's version: what it took to make, if that was recorded, and what it was made of."""

    asset: str
    version: int
    published_at: str
    seconds: float | None
    memory_mb: float | None
    cost_usd: float | None
    remark: str
    code_version: str
    data_version: str
    params: Mapping[str, Any]
    libraries: Mapping[str, str]


@dataclass(frozen=True)
class Contents:
    """All that the page shows.

    Args:
        photos_of: whose photos these are, for people.
        tiles: the most important numbers, with their names.
        counts: photos of each label, of all photos.
        drawn: the photos in the scatter plot.
        n_compared: among how many photos near-duplicates were looked for.
        thumbnails: JPEGs of every photo that is shown anywhere, by path; without one there is a grey field.
        levels: how many components explain so much of the variance.
    """

    title: str
    photos_of: str
    made_at: str
    tiles: Sequence[tuple[str, str]]
    counts: Mapping[str, int]
    ignored: str
    quarantine: Quarantine
    drawn: Photos
    n_compared: int
    nearest_has_same_label: float
    thumbnails: Mapping[str, bytes]
    explained_variance_ratio: Sequence[float]
    n_components: int
    levels: Mapping[str, int]
    shapes: LabelShapes
    outliers: Sequence[Outlier]
    pairs: Sequence[Pair]
    pairs_of_two_labels: Sequence[Pair]
    classifier: Classifier | None
    made: Sequence[Made]


def shown_photos(contents: Contents) -> list[str]:
    """The paths of all photos that the page shows, once each: those of the scatter plot first."""
    paths = [
        *contents.drawn.paths,
        *(row["path"] for row in contents.quarantine.first if row["path"] in contents.thumbnails),
        *(outlier.path for outlier in contents.outliers),
        *(
            path
            for pair in (*contents.pairs, *contents.pairs_of_two_labels)
            for path, _ in (pair.first, pair.second)
        ),
        *(mistake.path for mistake in (contents.classifier.worst if contents.classifier else ())),
    ]
    return list(dict.fromkeys(paths))


def page(contents: Contents) -> str:
    """The whole file."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("page")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["n"] = lambda value: f"{value:,}"
    environment.filters["path"] = shown_path
    cells = {path: i for i, path in enumerate(shown_photos(contents))}
    nothing = _grey_pixel()
    pictures = sheets([contents.thumbnails.get(path, nothing) for path in cells], MAX_SHEET_BYTES)
    labels = sorted(set(contents.drawn.labels))
    frequent = sorted(contents.counts.items(), key=lambda item: (-item[1], item[0]))
    return environment.get_template("report.html.j2").render(
        contents=contents,
        n_labels=len(contents.counts),
        listed=sorted(frequent[:_MAX_LISTED]),
        marks=_marks(labels, contents.drawn),
        contact_sheet=_contact_sheet(contents),
        cells=cells,
        pictures=pictures,
        closest=contents.shapes.closest(12),
        styles=_asset("report.css"),
        script=_asset("report.js"),
        bokeh=_bokeh(),
        data=_json(_data(contents, labels, pictures)),
        charts=_json(_charts(contents, labels, dict(frequent[:_MAX_BARS]))),
        has_matrix=len(contents.shapes.labels) <= MAX_MATRIX_LABELS,
        n_bars=_MAX_BARS,
        n_components=min(contents.n_components, MAX_COMPONENTS),
    )


def shown_path(path: str) -> str:
    """A path for people: the end of a long one."""
    return path if len(path) <= _MAX_PATH_SHOWN else f"…{path[-_MAX_PATH_SHOWN + 1 :]}"


def _marks(labels: Sequence[str], drawn: Photos) -> list[dict[str, Any]]:
    from fruits_assets.report.charts import mark

    n_drawn: dict[str, int] = {}
    for label in drawn.labels:
        n_drawn[label] = n_drawn.get(label, 0) + 1
    marks = []
    for number, label in enumerate(labels):
        color, marker, filled = mark(number)
        marks.append(
            {
                "number": number,
                "label": label,
                "n": n_drawn.get(label, 0),
                "color": color,
                "marker": marker,
                "filled": filled,
            }
        )
    return marks


def _contact_sheet(contents: Contents) -> list[tuple[str, list[str]]]:
    rows: dict[str, list[str]] = {}
    for path, label in zip(contents.drawn.paths, contents.drawn.labels, strict=True):
        if len(row := rows.setdefault(label, [])) < _PHOTOS_OF_LABEL:
            row.append(path)
    return list(rows.items())[:_LABELS_ON_SHEET]


def _data(contents: Contents, labels: Sequence[str], pictures: Sheets) -> dict[str, Any]:
    """What the page's script works with: scores as 16-bit integers, each component in its own unit."""
    scores = contents.drawn.scores[:, :MAX_COMPONENTS]
    units = np.maximum(np.abs(scores).max(axis=0, initial=0), 1e-30) / 32767
    numbers = {label: i for i, label in enumerate(labels)}
    return {
        "labels": list(labels),
        "label": [numbers[label] for label in contents.drawn.labels],
        "path": [shown_path(path) for path in contents.drawn.paths],
        "units": [float(f"{unit:.6g}") for unit in units],
        "scores": base64.b64encode(np.rint(scores / units).astype("<i2").tobytes()).decode(),
        "percent": [100 * ratio for ratio in contents.explained_variance_ratio[: scores.shape[1]]],
        "cell": pictures.cell,
        "columns": pictures.columns,
        "rows": pictures.rows,
        "separation": _separation(contents.shapes),
        "confusion": _confusion(contents.classifier),
    }


def _separation(shapes: LabelShapes) -> dict[str, Any]:
    order = shapes.in_order_of_closeness() if 1 < len(shapes.labels) <= MAX_MATRIX_LABELS else []
    apart = shapes.separations()[np.ix_(order, order)] if order else np.zeros((0, 0))
    return {"labels": [shapes.labels[i] for i in order], "values": _rounded(apart)}


def _confusion(classifier: Classifier | None) -> dict[str, Any]:
    if classifier is None or len(classifier.labels) > MAX_MATRIX_LABELS:
        return {"labels": [], "values": []}
    return {"labels": list(classifier.labels), "values": classifier.counts.tolist()}


def _rounded(values: NDArray[np.float64]) -> list[list[float | None]]:
    return [[float(f"{value:.3g}") if np.isfinite(value) else None for value in row] for row in values]


def _charts(contents: Contents, labels: Sequence[str], frequent: Mapping[str, int]) -> dict[str, Any]:
    """What Bokeh's script draws, by the id of the element to draw it in."""
    from bokeh.core.types import ID
    from bokeh.embed import json_item

    from fruits_assets.report import charts

    numbers = {label: i for i, label in enumerate(labels)}
    scores = contents.drawn.scores
    second = scores[:, 1] if scores.shape[1] > 1 else np.zeros(len(scores), np.float32)
    figures = {
        "labels-chart": charts.bars(frequent, "photos", "labels"),
        "variance-chart": charts.explained_variance(
            contents.explained_variance_ratio, contents.n_components, contents.levels
        ),
        "scatter-chart": charts.scatter(
            [numbers[label] for label in contents.drawn.labels], scores[:, 0], second
        ),
    }
    seconds = {made.asset: made.seconds for made in contents.made if made.seconds is not None}
    if seconds:
        figures["time-chart"] = charts.bars(seconds, "seconds", "time")
    separation, confusion = _separation(contents.shapes), _confusion(contents.classifier)
    if separation["labels"]:
        values = np.array(separation["values"], np.float64)
        np.fill_diagonal(values, np.nan)
        figures["separation-chart"] = charts.label_matrix(
            values,
            separation["labels"],
            "separation",
            "distance in units of spread",
            ("label", "label"),
            True,
        )
    if confusion["labels"]:
        counts = np.array(confusion["values"], np.float64)
        share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        figures["confusion-chart"] = charts.label_matrix(
            np.where(counts > 0, share, np.nan),
            confusion["labels"],
            "confusion",
            "% of the photos of a label",
            ("predicted", "label of the photo"),
            True,
        )
    return {place: json_item(plot, ID(place)) for place, plot in figures.items()}


def _json(value: Any) -> Any:
    """JSON that can stand in a script element, whatever names it has."""
    from markupsafe import Markup

    return Markup(json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _bokeh() -> Any:
    """Bokeh's own script: only what draws charts."""
    from bokeh.resources import Resources
    from markupsafe import Markup

    script = Resources(mode="inline", components=["bokeh"], log_level="warn").js_raw
    return Markup("\n".join(script).replace("</script", "<\\/script"))


def _asset(name: str) -> Any:
    from markupsafe import Markup

    return Markup(Path(__file__).with_name("page").joinpath(name).read_text(encoding="utf-8"))


def _grey_pixel() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (190, 190, 190)).save(buffer, "JPEG")
    return buffer.getvalue()
