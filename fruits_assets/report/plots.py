"""Plots for asset metadata: arrays in, a figure out; `as_markdown` puts it into the UI.

Figures are made without pyplot, whose state is shared by the threads of a process.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike
from PIL import Image

matplotlib.rcParams["text.parse_math"] = False  # a label may contain dollar signs
_COLOR = "#2f6f4f"
_ACCENT = "#d9822b"
_PADDING_INCHES = 0.1
_MAX_BARS = 40
_MAX_LEGEND = 20
_MAX_NUMBERED = 25  # labels, up to which a confusion matrix has its numbers written in
_MISTAKES_PER_ROW, _MAX_TITLE = 6, 22


def as_markdown(figure: Figure, what: str, file_format: str = "png") -> str:
    """The figure as an image inside a piece of Markdown."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A label in a script that the font lacks is drawn as boxes, which is no news to anyone.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # "tight" would draw everything once more, to find the same box.
        box = figure.get_tightbbox().padded(_PADDING_INCHES)
        figure.savefig(buffer, format=file_format, dpi=100, bbox_inches=box)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f"![{what}](data:image/{file_format};base64,{encoded})"


def images_per_label(counts: Mapping[str, int]) -> Figure:
    """Horizontal bars, one per label; of very many labels the most frequent."""
    shown = dict(sorted(counts.items(), key=lambda item: -item[1])[:_MAX_BARS])
    figure = Figure(figsize=(7, 1 + 0.28 * len(shown)))
    axes = figure.subplots()
    bars = axes.barh(list(shown), list(shown.values()), color=_COLOR)
    axes.bar_label(bars, padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("images")
    left_out = len(counts) - len(shown)
    axes.set_title("Images per label" + (f" ({left_out} labels not shown)" if left_out else ""))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def contact_sheet(thumbnails: Mapping[str, Sequence[str]]) -> Figure:
    """A row of small pictures, base64 JPEG, for each label."""
    n_columns = max(map(len, thumbnails.values()))
    figure = Figure(figsize=(1.6 + 0.85 * n_columns, 0.85 * len(thumbnails)))
    # One pair of axes for all pictures, in cells of 1 x 1: a pair for each takes a second.
    axes = figure.subplots()
    axes.set_axis_off()
    for row, (label, pictures) in enumerate(thumbnails.items()):
        axes.text(-0.6, row, label, ha="right", va="center")
        for column, picture in enumerate(pictures):
            image = Image.open(io.BytesIO(base64.b64decode(picture)))
            width, height = (0.48 * side / max(image.size) for side in image.size)
            axes.imshow(image, extent=(column - width, column + width, row + height, row - height))
    axes.set(xlim=(-0.5, n_columns - 0.5), ylim=(len(thumbnails) - 0.5, -0.5))
    return figure


def histogram(values: ArrayLike, xlabel: str, title: str) -> Figure:
    """Counts of values in 50 bins."""
    figure = Figure(figsize=(7, 3))
    axes = figure.subplots()
    axes.hist(np.asarray(values), bins=50, color=_COLOR)
    axes.set(xlabel=xlabel, ylabel="features", title=title)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def explained_variance(ratios: Sequence[float], n_components: int) -> Figure:
    """Scree plot: the share of each component, (rank,), and how the shares add up."""
    figure = Figure(figsize=(7, 3.6))
    axes = figure.subplots()
    numbers = np.arange(1, len(ratios) + 1)
    # One patch: bars of their own take longer to draw than all of the rest.
    axes.stairs(100 * np.asarray(ratios), np.arange(len(ratios) + 1) + 0.5, fill=True, color=_COLOR)
    axes.set(xlabel="component", ylabel="explained variance (%)")
    axes.set_xlim(0.5, min(len(ratios), 2 * n_components) + 0.5)
    cumulative = axes.twinx()
    cumulative.plot(numbers, 100 * np.cumsum(ratios), color=_ACCENT)
    cumulative.set_ylabel("cumulative (%)", color=_ACCENT)
    cumulative.set_ylim(0, 104)
    axes.axvline(n_components + 0.5, color="grey", linestyle="--", linewidth=1)
    kept = 100 * float(np.sum(ratios[:n_components]))
    axes.set_title(f"{n_components} components explain {kept:.1f} % of the variance")
    return figure


def scatter(points: Sequence[tuple[str, float, float]], ratios: Sequence[float]) -> Figure:
    """Label, PC1 and PC2 of images, a colour and a mark per label."""
    figure = Figure(figsize=(7, 5))
    axes = figure.subplots()
    labels = sorted({label for label, _, _ in points})
    colors = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for i, label in enumerate(labels):
        coordinates = np.array([(x, y) for of, x, y in points if of == label])
        axes.scatter(
            coordinates[:, 0],
            coordinates[:, 1],
            s=22,
            alpha=0.8,
            label=label if i < _MAX_LEGEND else None,
            color=colors[i % len(colors)],
            marker="osD^vP*X"[i // len(colors) % 8],
        )
    axes.set_xlabel(f"PC1 ({100 * ratios[0]:.1f} % of the variance)")
    axes.set_ylabel(f"PC2 ({100 * ratios[1]:.1f} %)" if len(ratios) > 1 else "no second component")
    axes.set_title("Images on their first two components")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _shortened(label: str) -> str:
    return label if len(label) <= _MAX_TITLE else f"{label[: _MAX_TITLE - 1]}…"


def confusion(counts: ArrayLike, labels: Sequence[str]) -> Figure:
    """Photos by right label, a row each, and by what was said, (n_labels, n_labels).

    A colour is the share of the row, with a scale that shows a single mistake among many photos.
    """
    matrix = np.asarray(counts)
    n_labels = len(labels)
    is_numbered = n_labels <= _MAX_NUMBERED
    inches, points = (0.42, 9) if is_numbered else (0.14, 6)
    size = 1.5 + inches * n_labels
    figure = Figure(figsize=(size, size))
    axes = figure.subplots()
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap="Greens", norm=PowerNorm(0.4, 0, 1))
    numbers = np.arange(n_labels)
    axes.set_xticks(numbers, labels, rotation=90, fontsize=points)
    axes.set_yticks(numbers, labels, fontsize=points)
    axes.set(xlabel="said", ylabel="right")
    for row, column in zip(*np.nonzero(matrix), strict=True):
        if is_numbered:
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=color)
        if row != column:
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=_ACCENT))
    right, total = int(matrix.diagonal().sum()), int(matrix.sum())
    axes.set_title(f"{right:,} of {total:,} test photos right")
    return figure


def mistakes(found: Sequence[Mapping[str, Any]]) -> Figure:
    """Small pictures of `thumbnail`, base64 JPEG or None, with what was said of each and what is right."""
    n_rows = max(1, -(-len(found) // _MISTAKES_PER_ROW))
    figure = Figure(figsize=(1.9 * _MISTAKES_PER_ROW, 1.9 * n_rows))
    grid = figure.subplots(n_rows, _MISTAKES_PER_ROW, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, mistake in zip(grid.flat, found, strict=False):
        said, right = (_shortened(mistake[name]) for name in ("predicted", "label"))
        axes.set_title(f"said: {said} ({mistake['probability']:.0%})\nright: {right}", fontsize=7)
        if mistake["thumbnail"] is None:
            axes.text(0.5, 0.5, "no longer there", ha="center", va="center", transform=axes.transAxes)
        else:
            axes.imshow(Image.open(io.BytesIO(base64.b64decode(mistake["thumbnail"]))))
    figure.subplots_adjust(wspace=0.3, hspace=0.45)
    return figure
