"""Photos like those of phones, to work on: JPEGs of many megapixels with what a camera notes in them."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fruits_assets.mobilenet.weights import SAMPLE_IMAGES

SIZES = {12: (4000, 3000), 48: (8000, 6000)}  # megapixels to width and height, as sensors of 4:3 have them

_SCENES = 14  # two of each of the seven fruits
_MARGIN = 256  # by so many pixels a scene is wider and higher than the photos that are cut out of it
_QUALITIES = (88, 93)  # of the JPEGs, the last one excluded
_GRAIN = 5.0  # standard deviation of a sensor's noise, of 255: 2.3 MB at 12 megapixels
_CHROMA_HALVED = 2  # Pillow's number for 4:2:0
_SIDEWAYS_EVERY = 4  # so many photos, one was taken with the phone held upright
_MAKE, _MODEL, _ORIENTATION, _GPS = 0x010F, 0x0110, 0x0112, 0x8825  # EXIF 2.32, tables 4, 3 and 15
_UPRIGHT, _TURN_CLOCKWISE = 1, 6


def write_photos(folder: Path, n_photos: int, megapixels: int, seed: int) -> None:
    """Write `<label>/<number>.jpg`, no two with the same pixels, on all cores.

    To make a scene takes longer than to encode a photo, so there are few, and photos are cut out of them at
    random places. The result depends on the arguments only.
    """
    n_scenes = min(_SCENES, n_photos)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as processes:
        numbers = [range(scene, n_photos, n_scenes) for scene in range(n_scenes)]
        jobs = [processes.submit(_write, folder, of_one, megapixels, seed) for of_one in numbers]
        for job in jobs:
            job.result()


def _write(folder: Path, numbers: range, megapixels: int, seed: int) -> None:
    """Write the photos of one scene."""
    rng = np.random.default_rng([seed, numbers.start])
    width, height = SIZES[megapixels]
    labels = sorted(path for path in SAMPLE_IMAGES.iterdir() if path.is_dir())
    label = labels[numbers.start % len(labels)]
    samples = sorted(label.glob("*.jpg"))
    sample = Image.open(samples[int(rng.integers(len(samples)))]).convert("RGB")
    scene = _scene(sample, width + _MARGIN, height + _MARGIN, rng)
    (folder / label.name).mkdir(parents=True, exist_ok=True)
    # Places differ, also modulo the 8 pixels of a JPEG's blocks.
    places = rng.choice(_MARGIN**2, len(numbers), replace=False)
    for number, place in zip(numbers, places, strict=True):
        top, left = divmod(int(place), _MARGIN)
        photo = Image.fromarray(scene[top : top + height, left : left + width])
        photo.save(
            folder / label.name / f"{number:06}.jpg",
            quality=int(rng.integers(*_QUALITIES)),
            subsampling=_CHROMA_HALVED,
            exif=_exif(number),
        )


def _scene(sample: Image.Image, width: int, height: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A sample enlarged, with structure of several sizes and the grain of a sensor: (height, width, 3)."""
    # Dimmed, since grain on the samples' white background would be cut off.
    dimmed = sample.point(lambda value: value * 0.85)
    enlarged = dimmed.resize((width, height), Image.Resampling.BICUBIC)
    structure = np.zeros((height, width), np.int8)
    for cell_pixels, strength in ((400, 24), (60, 10), (12, 6)):
        cells = rng.integers(0, 256, (height // cell_pixels + 1, width // cell_pixels + 1), np.uint8)
        smooth = Image.fromarray(cells).resize((width, height), Image.Resampling.BILINEAR)
        structure += ((np.asarray(smooth, np.int16) - 128) * strength // 128).astype(np.int8)
    tile = (rng.standard_normal((1024, 1024, 3)) * _GRAIN).round().clip(-127, 127).astype(np.int8)
    scene = np.asarray(enlarged).copy()
    for top in range(0, height, len(tile)):  # in strips: whole, a scene of 48 megapixels takes a gigabyte
        rows = slice(top, top + len(tile))
        strip = scene[rows].astype(np.int16) + structure[rows, :, np.newaxis]
        strip += np.tile(tile, (1, width // len(tile) + 1, 1))[: len(strip), :width]
        scene[rows] = strip.clip(0, 255)
    return scene


def _exif(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[_MAKE], exif[_MODEL] = "Fruit Phones", "Model 12"
    exif[_ORIENTATION] = _UPRIGHT if number % _SIDEWAYS_EVERY else _TURN_CLOCKWISE
    seconds = Fraction(number % 6000, 100)
    exif.get_ifd(_GPS).update({1: "N", 2: (48, 51, seconds), 3: "E", 4: (2, 21, seconds)})
    return exif
