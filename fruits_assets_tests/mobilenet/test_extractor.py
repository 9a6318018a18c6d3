from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fruits_assets.mobilenet.extractor import (
    FLATBUFFER,
    Extractor,
    decoded_inputs,
    worker_extractor,
)
from fruits_assets.photos.decoding import decode, model_input
from fruits_assets.photos.formats import UnusableImageError

PNG = io.BytesIO()
Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)).save(PNG, "PNG")
NOISE = PNG.getvalue()


def test_decoding_a_table_names_the_unusable_path() -> None:
    inputs = decoded_inputs(["a/good.png", "a/bad.png"], [NOISE, b"oops"])
    assert next(inputs).shape == (224, 224, 3)
    with pytest.raises(UnusableImageError, match=r"^a/bad\.png: not an image"):
        next(inputs)


# Features ----------------------------------------------------------------------------------------


def test_model_input_is_pillows_bicubic() -> None:
    photo = decode(NOISE)
    expected = np.asarray(photo.picture.resize((224, 224), Image.Resampling.BICUBIC))
    found = model_input(photo)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, np.asarray(photo.picture.resize((224, 224), Image.Resampling.BILINEAR)))


def test_features_do_not_depend_on_the_batch_size(flatbuffer_folder: Path) -> None:
    flatbuffer = (flatbuffer_folder / FLATBUFFER).read_bytes()
    images = np.random.default_rng(0).integers(0, 256, (7, 224, 224, 3), np.uint8)
    one_by_one = Extractor(flatbuffer, batch_size=1).features(images)
    by_three = Extractor(flatbuffer, batch_size=3)
    assert one_by_one.shape == (7, 1280)
    assert one_by_one.dtype == np.float32
    assert len(np.unique(one_by_one, axis=0)) == 7
    np.testing.assert_allclose(by_three.features(images), one_by_one, atol=1e-5)
    np.testing.assert_allclose(by_three.features(images[:2]), one_by_one[:2], atol=1e-5)  # a stale batch


def test_no_images_give_no_features(flatbuffer_folder: Path) -> None:
    extractor = Extractor((flatbuffer_folder / FLATBUFFER).read_bytes(), batch_size=2)
    assert extractor.features([]).shape == (0, 1280)


def test_a_worker_builds_one_extractor_for_each_network(flatbuffer_folder: Path) -> None:
    asked = []

    def load() -> bytes:
        asked.append(1)
        return (flatbuffer_folder / FLATBUFFER).read_bytes()

    first = worker_extractor("of a test", 2, load)
    assert worker_extractor("of a test", 2, load) is first
    assert len(asked) == 1
    assert worker_extractor("another", 2, load) is not first
    assert worker_extractor("another", 1, load) is not worker_extractor("of a test", 2, load)


def test_extractor_does_without_tensorflow() -> None:
    listed = subprocess.run(
        [sys.executable, "-c", "import sys, fruits_assets.mobilenet.extractor; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "fruits_assets.mobilenet.extractor" in listed
    assert {"tensorflow", "keras", "pyspark", "dagster"}.isdisjoint(listed)
