"""All that the tests here want of Keras, in one process: TensorFlow takes seconds to start, and a gigabyte.

`python -m fruits_assets_tests.mobilenet.keras_work FOLDER`
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import keras
import numpy as np
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from fruits_assets.mobilenet import convert, weights
from fruits_assets.mobilenet.weights import DEMO, FLOAT32, INT8, UNTRAINED
from fruits_assets.photos.decoding import decode, model_input
from fruits_assets_tests.mobilenet.conftest import KERAS_FEATURES, REFUSED, WEIGHTS_FILES, sample_files

_SMALL = "small.weights.h5"


def _save_weights(model: keras.Model, folder: Path) -> None:
    """Files as users have them, and one of a smaller network."""
    whole = keras.applications.MobileNetV2(weights=None, include_top=True)
    for layer in whole.layers[1:-2]:
        layer.set_weights(model.get_layer(layer.name).get_weights())
    whole.save_weights(folder / "whole.weights.h5")
    model.save_weights(folder / "headless.weights.h5")
    whole.save(folder / "model.h5")
    # The format of the ImageNet file, which Keras reads and no longer writes.
    with h5py.File(folder / "legacy.h5", "w") as file:
        save_weights_to_hdf5_group(file, whole)
    keras.applications.MobileNetV2(weights=None, alpha=0.35).save_weights(folder / _SMALL)


def _once(to_flatbuffer: Callable[..., bytes]) -> Callable[..., bytes]:
    """One conversion, which takes seconds, for all sources that turn out to have the same weights."""
    made: dict[str, bytes] = {}

    def converted(model: keras.Model, *calibration: Any) -> bytes:
        arrays = (*model.get_weights(), *(images for images in calibration if images is not None))
        key = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
        if key not in made:
            made[key] = to_flatbuffer(model, *calibration)
        return made[key]

    return converted


def _convert(source: str, folder: Path, precision: str = FLOAT32) -> None:
    """What `convert` makes of a source, or what it says instead."""
    folder.mkdir()
    try:
        convert.convert(source, folder, precision)
    except (weights.WeightsError, convert.ConversionError) as error:
        (folder / REFUSED).write_text(f"{type(error).__name__}: {error}")


def main(folder: Path) -> None:
    """Fill the folder: features, files of weights, and a folder for each conversion."""
    with (
        patch.object(weights, "load", functools.cache(weights.load)),
        patch.object(convert, "to_flatbuffer", _once(convert.to_flatbuffer)),
    ):
        _work(folder)


def _work(folder: Path) -> None:
    # First, as in a process of its own: names in a network count what was made before.
    _convert(UNTRAINED, folder / "of untrained")
    model = weights.load(UNTRAINED).model
    inputs = np.stack([model_input(decode(file.read_bytes())) for file in sample_files()])
    features = model.predict(inputs.astype(np.float32) / 127.5 - 1, verbose=0)
    np.save(folder / KERAS_FEATURES, features)
    _save_weights(model, folder)
    for name in (*WEIGHTS_FILES, _SMALL):
        _convert(str(folder / name), folder / f"of {name}")
    _convert(DEMO, folder / "of demo")
    _convert(DEMO, folder / "of demo as int8", INT8)
    with patch.object(convert, "MAX_DIFFERENCE", 1e-12):  # below what rounding gives
        _convert(UNTRAINED, folder / "of strict")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
