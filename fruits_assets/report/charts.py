"""The charts of the report page, by Bokeh: numbers in, a figure out. Colours of text are the page's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bokeh.models import (
    BasicTicker,
    BooleanFilter,
    CDSView,
    ColumnDataSource,
    CustomJS,
    FactorRange,
    FixedTicker,
    HoverTool,
    LinearAxis,
    LinearColorMapper,
    NumeralTickFormatter,
    PanTool,
    Range1d,
    TapTool,
)
from bokeh.models.annotations.legends import ColorBar
from bokeh.palettes import Cividis256
from bokeh.plotting import figure
from numpy.typing import NDArray

# Paul Tol's "bright" scheme without its grey: told apart with any colour vision, on white and on black.
COLORS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#EE9944")
MARKERS = (
    "circle",
    "triangle",
    "square",
    "diamond",
    "inverted_triangle",
    "star",
    "hex",
    "plus",
    "x",
    "asterisk",
)
_BAR, _LINE = COLORS[0], COLORS[1]
_MAX_NAMED = 40  # labels along an axis
_TOOLS = "pan,wheel_zoom,box_zoom,reset,save"
# What a pointer shows is told by the page, which has the thumbnails.
_TELL = "window.report?.tell(cb_data, {name!r})"


def mark(number: int) -> tuple[str, str, bool]:
    """Colour, marker and whether it is filled, of the label of that number: no two of 140 are the same."""
    return (
        COLORS[number % len(COLORS)],
        MARKERS[number % len(MARKERS)],
        number // (len(COLORS) * len(MARKERS)) % 2 == 0,
    )


def scatter(labels: Sequence[int], first: NDArray[np.float32], second: NDArray[np.float32]) -> Any:
    """Photos, by the numbers of their labels, on two components; the page puts others in their place."""
    marks = [mark(label) for label in labels]
    source = ColumnDataSource(
        {
            "x": first,
            "y": second,
            "color": [color for color, _, _ in marks],
            "marker": [marker for _, marker, _ in marks],
            "alpha": np.array([0.75 if filled else 0.0 for _, _, filled in marks], np.float32),
        },
        name="photos",
    )
    plot = _figure("scatter", height=560, tools=f"{_TOOLS},tap", active_scroll="wheel_zoom")
    plot.scatter(
        "x",
        "y",
        source=source,
        view=CDSView(filter=BooleanFilter(booleans=[True] * len(labels))),
        marker="marker",
        size=9,
        line_color="color",
        fill_color="color",
        fill_alpha="alpha",
        line_width=1.2,
        nonselection_alpha=0.35,
        nonselection_fill_alpha="alpha",
        selection_line_width=4,
    )
    plot.add_tools(_pointer("scatter"))
    plot.select_one(TapTool).behavior = "select"
    plot.xaxis.axis_label, plot.yaxis.axis_label = "component 1", "component 2"
    return plot


def explained_variance(ratios: Sequence[float], n_components: int, needed: Mapping[str, int]) -> Any:
    """The share of each component, (rank,), how the shares add up, and where they pass some levels."""
    shown = min(len(ratios), max([n_components, *needed.values()]))
    numbers, percent = np.arange(1, shown + 1), 100 * np.asarray(ratios)
    cumulated = percent.cumsum()[:shown]
    source = ColumnDataSource({"number": numbers, "share": percent[:shown], "cumulated": cumulated})
    plot = _figure(
        "variance", height=340, tools=_TOOLS, x_range=Range1d(start=0.4, end=shown + 0.6, bounds="auto")
    )
    plot.y_range = Range1d(start=0, end=1.08 * float(percent[0]))
    plot.extra_y_ranges = {"cumulated": Range1d(start=0, end=105)}
    plot.vbar("number", top="share", width=0.8, color=_BAR, source=source, legend_label="each component")
    plot.add_layout(
        LinearAxis(
            y_range_name="cumulated",
            axis_label="cumulated (% of the variance)",
            axis_label_text_font_style="normal",
        ),
        "right",
    )
    plot.line(
        "number",
        "cumulated",
        y_range_name="cumulated",
        color=_LINE,
        line_width=2.5,
        source=source,
        legend_label="cumulated",
    )
    plot.scatter(
        list(needed.values()),
        [float(cumulated[n - 1]) for n in needed.values()],
        y_range_name="cumulated",
        color=_LINE,
        size=9,
    )
    plot.add_tools(
        HoverTool(
            tooltips=[
                ("component", "@number"),
                ("each", "@share{0.00} %"),
                ("cumulated", "@cumulated{0.00} %"),
            ],
            mode="vline",
            renderers=[plot.renderers[0]],
        )
    )
    plot.xaxis.axis_label, plot.yaxis[0].axis_label = "component", "each (% of the variance)"
    plot.legend.location = "center_right"
    return plot


def bars(values: Mapping[str, float], unit: str, name: str) -> Any:
    """Horizontal bars, the first on top."""
    names = _distinct(values)
    plot = _figure(name, height=70 + 22 * len(names), tools="", y_range=FactorRange(factors=names[::-1]))
    source = ColumnDataSource({"name": names, "value": list(values.values())})
    plot.hbar("name", right="value", height=0.72, color=_BAR, source=source)
    plot.x_range = Range1d(start=0, end=1.08 * max([*values.values(), 1e-9]))
    plot.add_tools(HoverTool(tooltips=[("", "@name"), (unit, "@value{0,0.[0]}")]))
    plot.xaxis.axis_label = unit
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0.[0]")
    plot.ygrid.visible = False
    return plot


def label_matrix(
    values: NDArray[np.float64],
    labels: Sequence[str],
    name: str,
    what: str,
    axes: tuple[str, str],
    is_high_far: bool,
) -> Any:
    """A square of cells, (n_labels, n_labels): row, from the top, and column are labels.

    Cells that are not finite are empty.
    """
    n = len(labels)
    finite = values[np.isfinite(values)]
    high = float(finite.max()) if len(finite) and finite.max() > 0 else 1.0
    plot = _figure(name, tools=_TOOLS, height=640, max_width=760)
    plot.x_range, plot.y_range = Range1d(start=-0.5, end=n - 0.5), Range1d(start=n - 0.5, end=-0.5)
    palette = list(reversed(Cividis256)) if is_high_far else list(Cividis256)
    colors = LinearColorMapper(palette=palette, low=0.0, high=high, nan_color="rgba(0,0,0,0)")
    cells = np.where(np.isfinite(values), values, np.nan).astype(np.float32)
    plot.image(image=[cells], x=-0.5, y=-0.5, dw=n, dh=n, color_mapper=colors, origin="bottom_left")
    plot.add_layout(
        ColorBar(color_mapper=colors, title=what, ticker=BasicTicker(desired_num_ticks=5), padding=8), "below"
    )
    plot.add_tools(_pointer(name))
    for axis in (plot.xaxis[0], plot.yaxis[0]):
        axis.ticker = FixedTicker(ticks=list(range(n)) if n <= _MAX_NAMED else [])
        axis.major_label_overrides = dict(enumerate(_distinct(labels)))
    plot.xaxis.axis_label, plot.yaxis.axis_label = axes
    plot.xaxis.major_label_orientation = "vertical"
    plot.grid.visible = False
    return plot


def _figure(name: str, **how: Any) -> Any:
    plot = figure(
        **{
            "name": name,
            "sizing_mode": "stretch_width",
            "toolbar_location": "above" if how["tools"] else None,
            "output_backend": "canvas",
            "background_fill_color": None,
            "border_fill_color": None,
            "outline_line_color": None,
            **how,
        }
    )
    plot.toolbar.logo = None
    for axis in plot.axis:
        axis.axis_label_text_font_style = "normal"
    for pan in plot.select(PanTool):
        pan.name = "pan"
    return plot


def _pointer(name: str) -> HoverTool:
    return HoverTool(tooltips=None, callback=CustomJS(code=_TELL.format(name=name)))


def _distinct(labels: Sequence[str] | Mapping[str, float]) -> list[str]:
    """As text along an axis: Bokeh would fetch a typesetter for what is between two pairs of dollars."""
    shown = [label.replace("$$", "$\u200b$").replace("\\", "\\\u200b") for label in labels]
    shortened = [text if len(text) <= 28 else text[:27] + "…" for text in shown]
    seen: dict[str, int] = {}
    for i, text in enumerate(shortened):
        shortened[i] = text + "\u200b" * seen.get(text, 0)  # Bokeh takes equal names for one
        seen[text] = seen.get(text, 0) + 1
    return shortened
