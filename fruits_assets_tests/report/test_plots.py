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
        plots.confusion(np.arange(len(labels) ** 2).reshape(len(labels), -1), labels),
        plots.mistakes([mistake(label, thumbnail("red")) for label in labels] + [mistake("gone", None)]),
    ]


def mistake(label: str, picture: str | None) -> dict[str, object]:
    return {"label": label, "predicted": f"not {label}", "probability": 0.987, "thumbnail": picture}


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


def test_a_confusion_matrix_of_131_labels_has_room_for_each_and_marks_every_mistake() -> None:
    labels = [f"Apple Golden {i}" for i in range(131)]
    counts = 40 * np.eye(131, dtype=int)
    counts[3, 70] = counts[99, 98] = 1
    figure = plots.confusion(counts, labels)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == labels
    marked = {(patch.get_y() + 0.5, patch.get_x() + 0.5) for patch in axes.patches}  # type: ignore[attr-defined]
    assert marked == {(3, 70), (99, 98)}
    # A label is written in letters of 6 points, 72 of which are an inch.
    shown = picture(plots.as_markdown(figure, "confusion matrix"))
    rows_to_an_inch = 131 / (figure.get_figheight() * axes.get_position().height)
    assert rows_to_an_inch < 72 / 6
    assert shown.width > 1600
    assert axes.get_title() == "5,240 of 5,242 test photos right"


def test_a_small_confusion_matrix_has_its_numbers() -> None:
    (axes,) = plots.confusion([[5, 2], [0, 7]], ["Fig", "Kiwi"]).axes
    assert [text.get_text() for text in axes.texts] == ["5", "2", "7"]


def test_a_mistake_says_what_was_said_and_what_is_right() -> None:
    axes = plots.mistakes([mistake("Fig", thumbnail("red")), mistake("Kiwi", None)]).axes
    assert axes[0].get_title() == "said: not Fig (99%)\nright: Fig"
    assert [text.get_text() for text in axes[1].texts] == ["no longer there"]
