"""The flatbuffer against Keras, and every way to have no weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fruits_assets.mobilenet import convert, weights
from fruits_assets.mobilenet.extractor import (
    FLATBUFFER,
    Extractor,
    decoded_inputs,
)
from fruits_assets.photos.decoding import decode, model_input

pytestmark = pytest.mark.slow

# Keras runs in processes of its own here too: TensorFlow in the tests' would cost a gigabyte.
KERAS_FEATURES = """
import sys
import numpy as np
from pathlib import Path
from fruits_assets.mobilenet import weights
source, inputs, outputs, weights_file = sys.argv[1:]
model = weights.load(source).model
np.save(outputs, model.predict(np.load(inputs).astype("float32") / 127.5 - 1, verbose=0))
if weights_file:
    import keras
    whole = keras.applications.MobileNetV2(weights=None, include_top=True)
    for layer in whole.layers[1:-2]:
        layer.set_weights(model.get_layer(layer.name).get_weights())
    whole.save_weights(Path(weights_file, "whole.weights.h5"))
    model.save_weights(Path(weights_file, "headless.weights.h5"))
    whole.save(Path(weights_file, "model.h5"))
    # The format of the ImageNet file, which Keras reads and no longer writes.
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group
    import h5py
    with h5py.File(Path(weights_file, "legacy.h5"), "w") as file:
        save_weights_to_hdf5_group(file, whole)
    small = keras.applications.MobileNetV2(weights=None, alpha=0.35)
    small.save_weights(Path(weights_file, "small.weights.h5"))
"""


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def sample_files() -> list[Path]:
    return sorted(weights.SAMPLE_IMAGES.glob("*/r_1[05]_100.jpg"))


@pytest.fixture(scope="module")
def keras(sample_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Keras' own features of sample images, and its weights in files."""
    folder = tmp_path_factory.mktemp("keras")
    inputs = np.stack([model_input(decode(file.read_bytes())) for file in sample_files])
    np.save(folder / "inputs.npy", inputs)
    arguments = ("untrained", str(folder / "inputs.npy"), str(folder / "outputs.npy"), str(folder))
    done = run_python("-c", KERAS_FEATURES, *arguments)
    assert done.returncode == 0, done.stderr
    return {"features": np.load(folder / "outputs.npy"), "folder": folder}


def features_of(flatbuffer: Path, files: list[Path], batch_size: int = 4) -> np.ndarray[Any, Any]:
    contents = [file.read_bytes() for file in files]
    extractor = Extractor(flatbuffer.read_bytes(), batch_size)
    return extractor.features(decoded_inputs(map(str, files), contents))


def test_the_flatbuffer_gives_what_keras_predicts_on_the_sample_images(
    flatbuffer_folder: Path, sample_files: list[Path], keras: dict[str, Any]
) -> None:
    found = features_of(flatbuffer_folder / FLATBUFFER, sample_files)
    assert found.shape == (14, 1280)
    np.testing.assert_allclose(found, keras["features"], atol=1e-4)


def test_the_flatbuffer_has_its_weights_inside(network_report: convert.ConversionReport) -> None:
    assert 8.5e6 < network_report.size_bytes < 9.5e6
    assert network_report.n_parameters == 2_257_984


def test_untrained_features_tell_images_apart(flatbuffer_folder: Path, sample_files: list[Path]) -> None:
    found = features_of(flatbuffer_folder / FLATBUFFER, sample_files)
    assert found.std(axis=0).max() > 0.01
    assert 0.01 < found.mean() < 6


def test_the_same_weights_give_the_same_fingerprint(
    network_report: convert.ConversionReport, tmp_path: Path
) -> None:
    again = convert.convert_in_own_process("untrained", tmp_path, print)
    assert again.fingerprint == network_report.fingerprint


@pytest.mark.parametrize(
    ("precision", "max_difference", "min_cosine", "is_close"),
    [
        ("float32", 9e-5, 0.9999, True),
        ("float32", 2e-4, 1.0, False),
        ("float32", float("nan"), float("nan"), False),
        ("int8", 0.5, 0.991, True),
        ("int8", 0.5, 0.989, False),
        ("int8", 0.0, float("nan"), False),
    ],
)
def test_each_precision_is_held_to_what_it_can(
    precision: str, max_difference: float, min_cosine: float, is_close: bool
) -> None:
    assert convert.is_close(precision, max_difference, min_cosine) is is_close


@pytest.mark.parametrize("name", ["legacy.h5", "model.h5", "whole.weights.h5", "headless.weights.h5"])
def test_a_file_of_weights_with_or_without_the_classifier(
    name: str, keras: dict[str, Any], sample_files: list[Path], tmp_path: Path
) -> None:
    file = keras["folder"] / name
    steps: list[str] = []
    report = convert.convert_in_own_process(str(file), tmp_path, steps.append)
    found = features_of(tmp_path / FLATBUFFER, sample_files)
    np.testing.assert_allclose(found, keras["features"], atol=1e-4)
    assert report.weights.startswith(name)
    assert "converting to a LiteRT flatbuffer of float32" in steps


def test_weights_of_another_network_are_refused_by_name(keras: dict[str, Any], tmp_path: Path) -> None:
    file = keras["folder"] / "small.weights.h5"
    with pytest.raises(weights.WeightsError, match=r"not those of MobileNetV2") as error:
        convert.convert_in_own_process(str(file), tmp_path, print)
    assert str(file) in str(error.value)
    assert "'demo'" in str(error.value)


def test_imagenet_weights_that_cannot_be_fetched_name_the_two_ways_out(tmp_path: Path) -> None:
    # Nothing listens on port 9: the download fails at once, with a network or without.
    nowhere = "http://127.0.0.1:9"
    done = run_python(
        *("-m", "fruits_assets.mobilenet.convert", "imagenet", str(tmp_path / "out")),
        KERAS_HOME=str(tmp_path),
        http_proxy=nowhere,
        https_proxy=nowhere,
    )
    assert done.returncode == 1
    assert "could not be fetched" in done.stderr
    assert "FRUITS_WEIGHTS" in done.stderr
    assert ".h5" in done.stderr
    assert "'demo'" in done.stderr
    assert not (tmp_path / "out" / FLATBUFFER).exists()


@pytest.mark.parametrize("name", ["missing.h5", "text.h5", "imagnet"])
def test_a_source_that_is_not_there_is_refused_without_tensorflow(name: str, tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    source = name if name == "imagnet" else str(tmp_path / name)
    with pytest.raises(weights.WeightsError, match="FRUITS_WEIGHTS") as error:
        weights.check_source(source)
    assert source in str(error.value)
    assert "tensorflow" not in sys.modules


def test_a_flatbuffer_that_computes_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a process of its own, with the tolerance below what rounding gives."""
    code = (
        "import sys; from pathlib import Path; from fruits_assets.mobilenet import convert; "
        "convert.MAX_DIFFERENCE = 1e-12; convert.convert('untrained', Path(sys.argv[1]))"
    )
    done = run_python("-c", code, str(tmp_path))
    assert "differs from Keras by" in done.stderr
    assert list(tmp_path.iterdir()) == []
