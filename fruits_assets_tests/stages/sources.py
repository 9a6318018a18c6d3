"""Folders of images, as tests of several modules want them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fruits_assets.stages.listing import ListedFile, listing_of
from fruits_assets_tests.conftest import write_image

ODD_NAMES = [
    "two  spaces.png",
    "a,b;c.png",
    "single'double\"back\\slash.png",
    "new\nline\ttab.png",
    "key=value.png",
    "100%25 %20.png",
    "number#1.png",
    "what?.png",
    "star*.png",
    "[x]{y}.png",
    "10:30.png",
    "pêche à la crème.png",
    "pe\u0302che.png",
    "桃.png",
    "🍎.png",
    "~.png",
    "$HOME.png",
    "-v.png",
    "null.png",
    "two.dots..png",
]
IGNORED_FILES = ["notes.txt", ".hidden.png", ".folder/inside.png", "apple/.thumbnails/1.png", "no suffix"]


def listed(source: str | Path) -> list[ListedFile]:
    """All image files of a source, by path."""
    with listing_of(str(source)) as listing:
        return list(listing.files)


def fingerprint_of(source: str | Path) -> str:
    with listing_of(str(source)) as listing:
        return listing.fingerprint()


def write_small_tree(root: Path) -> Path:
    for i in range(4):
        write_image(root / ("apple", "pear")[i % 2] / f"{i}.png", (40 * i, 0, 0), size=(3, 3))
    return root


def write_noise(path: Path, size: int, seed: int) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)
    return path
