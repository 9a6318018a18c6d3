"""The kinds of fruit that are drawn: none is in two sets, and drawing is reproducible."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fruits_assets.definitions import SAMPLE_IMAGES

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from draw_sample_images import draw
from fruit_kinds import KINDS
from fruit_renderer import render
from held_out_kinds import HELD_OUT_KINDS
from training_kinds import TRAINING_KINDS


def test_at_least_twenty_kinds_are_trained_on_and_none_of_them_is_held_out() -> None:
    trained_on = [*KINDS, *TRAINING_KINDS]
    assert len(trained_on) == len(set(trained_on)) >= 20
    assert set(trained_on).isdisjoint(HELD_OUT_KINDS)


@pytest.mark.parametrize("label", KINDS)
def test_the_bundled_images_are_what_the_tool_draws(label: str) -> None:
    bundled = np.asarray(Image.open(SAMPLE_IMAGES / label / "r_5_100.jpg").convert("RGB"), np.int16)
    drawn = np.asarray(draw(KINDS[label], 5, images_per_label=24, size=100, seed=0), np.int16)
    # What is left is JPEG's; another picture of the same kind differs by 10 and more.
    assert np.abs(bundled - drawn).mean() < 4


@pytest.mark.parametrize("label", [*TRAINING_KINDS, *HELD_OUT_KINDS])
def test_a_kind_fills_its_frame_and_varies(label: str) -> None:
    kind = (TRAINING_KINDS | HELD_OUT_KINDS)[label]
    first, second = (render(kind, np.random.default_rng(seed), 32, supersampling=1) for seed in (1, 2))
    share = (np.abs(first.astype(int) - 255).max(axis=2) > 40).mean()
    assert 0.05 < share < 0.95
    assert np.abs(first.astype(int) - second).mean() > 1
