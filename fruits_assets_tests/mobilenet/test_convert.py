"""The flatbuffer against Keras, and every way to have no weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fruits_assets.mobilenet import convert, weights
from fruits_assets.mobilenet.extractor import FLATBUFFER
from fruits_assets_tests.conftest import conversion_steps
from fruits_assets_tests.mobilenet.conftest import WEIGHTS_FILES, KerasWork, features_of, sample_files

pytestmark = pytest.mark.slow


def test_the_flatbuffer_gives_what_keras_predicts_on_the_sample_images(
    flatbuffer_folder: Path, keras: KerasWork
) -> None:
    found = features_of(flatbuffer_folder / FLATBUFFER, sample_files())
    assert found.shape == (14, 1280)
    np.testing.assert_allclose(found, keras.features, atol=1e-4)


def test_the_flatbuffer_has_its_weights_inside(network_report: convert.ConversionReport) -> None:
    assert 8.5e6 < network_report.size_bytes < 9.5e6
    assert network_report.n_parameters == 2_257_984


def test_untrained_features_tell_images_apart(flatbuffer_folder: Path) -> None:
    found = features_of(flatbuffer_folder / FLATBUFFER, sample_files())
    assert found.std(axis=0).max() > 0.01
    assert 0.01 < found.mean() < 6


def test_a_process_of_its_own_gives_the_same_weights_the_same_fingerprint_and_tells_its_steps(
    network_report: convert.ConversionReport, shared_folder: Path, keras: KerasWork
) -> None:
    assert network_report.fingerprint == keras.report("untrained").fingerprint
    steps = conversion_steps(shared_folder).read_text().splitlines()
    assert "converting to a LiteRT flatbuffer of float32" in steps


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


@pytest.mark.parametrize("name", WEIGHTS_FILES)
def test_a_file_of_weights_with_or_without_the_classifier(name: str, keras: KerasWork) -> None:
    found = features_of(keras.flatbuffer(name), sample_files())
    np.testing.assert_allclose(found, keras.features, atol=1e-4)
    assert keras.report(name).weights.startswith(name)


def test_weights_of_another_network_are_refused_by_name(keras: KerasWork) -> None:
    said = keras.refusal("small.weights.h5")
    file = keras.folder / "small.weights.h5"
    assert said.startswith(f"WeightsError: Weights '{file}': not those of MobileNetV2")
    assert "'demo'" in said


def test_imagenet_weights_that_cannot_be_fetched_name_the_two_ways_out(tmp_path: Path) -> None:
    # Nothing listens on port 9: the download fails at once, with a network or without.
    nowhere = "http://127.0.0.1:9"
    done = subprocess.run(
        [sys.executable, "-m", "fruits_assets.mobilenet.convert", "imagenet", str(tmp_path / "out")],
        env={**os.environ, "KERAS_HOME": str(tmp_path), "http_proxy": nowhere, "https_proxy": nowhere},
        capture_output=True,
        text=True,
        check=False,
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


def test_a_flatbuffer_that_computes_something_else_is_refused(keras: KerasWork) -> None:
    assert "differs from Keras by" in keras.refusal("strict")
