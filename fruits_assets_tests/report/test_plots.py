"""Plots say what their numbers say, whatever the labels are."""

from __future__ import annotations

import base64
import io
import re
import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fruits_assets.report import plots

ODD_LABELS = ["$\\frac{1}{0}$", "日本 🍎", "a\nb", ""]


def picture(markdown: str) -> Image.Image:
    found = re.fullmatch(r"!\[[^\]]*\]\(data:image/(png|jpeg);base64,([A-Za-z0-9+/=]+)\)", markdown)
    assert found
    return Image.open(io.BytesIO(base64.b64decode(found[2])))


def thumbnail(color: str) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), color).save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


def every_plot(labels: list[str]) -> list[Figure]:
    return [
        plots.images_per_label({label: i + 1 for i, label in enumerate(labels)}),
        plots.contact_sheet({label: [thumbnail("red")] * (i + 1) for i, label in enumerate(labels)}),
        plots.histogram(np.arange(10.0), "x", "title"),
        plots.explained_variance([0.7, 0.2, 0.1], 2),
        plots.scatter([(label, float(i), -float(i)) for i, label in enumerate(labels)], [0.7, 0.2]),
    ]


@pytest.mark.parametrize("labels", [["Kiwi"], ODD_LABELS])
def test_every_plot_becomes_a_picture_without_a_warning(labels: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in every_plot(labels):
            assert picture(plots.as_markdown(figure, "plot")).width > 100


def test_bars_are_the_counts_and_what_is_left_out_is_told() -> None:
    axes = plots.images_per_label({f"label {i:03}": i + 1 for i in range(50)}).axes[0]
    assert [int(bar.get_width()) for bar in axes.patches] == list(range(50, 10, -1))  # type: ignore[attr-defined]
    assert "10 labels not shown" in axes.get_title()


def test_the_scree_plot_says_what_the_kept_components_explain() -> None:
    axes = plots.explained_variance([0.7, 0.2, 0.1], 2).axes[0]
    assert axes.get_title() == "2 components explain 90.0 % of the variance"


def test_a_single_component_has_a_scatter_plot_too() -> None:
    axes = plots.scatter([("Kiwi", 1.0, 0.0), ("Kiwi", -1.0, 0.0)], [1.0]).axes[0]
    assert axes.get_ylabel() == "no second component"
