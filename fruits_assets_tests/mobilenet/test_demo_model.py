"""The bundled weights: whole, small, and good for what they are bundled for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fruits_assets.mobilenet import convert, weights
from fruits_assets.mobilenet.conversion_cache import converted
from fruits_assets.mobilenet.extractor import FLATBUFFER
from fruits_assets_tests.mobilenet.conftest import KerasWork, features_of

pytestmark = pytest.mark.slow

LABELS = 7


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, convert.ConversionReport]:
    """The folder of the demo model's flatbuffer, and what was told of its conversion."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, converted(weights.identity("demo", weights.FLOAT32), folder, print)


def some_files() -> list[Path]:
    """Every eighth sample image."""
    return sorted(weights.SAMPLE_IMAGES.glob("*/*.jpg"))[5::8]


def test_the_bundled_network_is_what_the_bundled_weights_become(
    demo: tuple[Path, convert.ConversionReport], keras: KerasWork
) -> None:
    report = keras.report("demo")
    assert report.weights == demo[1].weights
    assert report.n_parameters == demo[1].n_parameters
    found = features_of(demo[0] / FLATBUFFER, some_files())
    np.testing.assert_allclose(found, features_of(keras.flatbuffer("demo"), some_files()), atol=1e-5)


def test_the_file_is_small_and_is_the_one_that_the_model_card_tells_of() -> None:
    content = weights.DEMO_WEIGHTS.read_bytes()
    assert len(content) < 5e6
    assert hashlib.sha256(content).hexdigest() == weights.DEMO_SHA256
    assert weights.DEMO_SHA256 in weights.DEMO_WEIGHTS.with_name("DEMO_MODEL.md").read_text()


def test_a_damaged_file_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = bytearray(weights.DEMO_WEIGHTS.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(content)
    monkeypatch.setattr(weights, "DEMO_WEIGHTS", damaged)
    with pytest.raises(weights.WeightsError, match=rf"{damaged}.*the file is damaged. Install"):
        weights.load("demo")


def test_the_report_names_the_weights(demo: tuple[Path, convert.ConversionReport]) -> None:
    assert demo[1].weights == f"demo (trained on rendered fruit, SHA-256 {weights.DEMO_SHA256[:12]})"
    assert 8.5e6 < demo[1].size_bytes < 9.5e6


def nearest_have_the_same_label(features: NDArray[np.float32], labels: NDArray[np.str_]) -> float:
    """Leave one out, after scaling as the graph scales: all components together keep these distances."""
    std = features.std(axis=0, ddof=1, dtype=np.float64)
    scaled = (features - features.mean(axis=0)) / np.where(std > 0, std, np.inf)
    distances = ((scaled[:, None] - scaled) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    return float((labels[distances.argmin(axis=1)] == labels).mean())


def test_it_tells_the_sample_images_apart_better_than_untrained_weights_do(
    demo: tuple[Path, convert.ConversionReport], flatbuffer_folder: Path
) -> None:
    files = sorted(weights.SAMPLE_IMAGES.glob("*/*.jpg"))
    labels = np.array([file.parent.name for file in files])
    assert len(set(labels)) == LABELS

    def accuracy(folder: Path) -> float:
        return nearest_have_the_same_label(features_of(folder / FLATBUFFER, files), labels)

    trained = accuracy(demo[0])
    assert trained >= 0.98
    assert trained > accuracy(flatbuffer_folder)


def test_integers_of_8_bits_are_a_third_of_the_size_and_give_nearly_the_same_features(
    demo: tuple[Path, convert.ConversionReport], keras: KerasWork
) -> None:
    report = keras.report("demo as int8")

    def features(flatbuffer: Path) -> NDArray[np.float32]:
        found = features_of(flatbuffer, some_files())
        unit: NDArray[np.float32] = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit

    cosines = (features(demo[0] / FLATBUFFER) * features(keras.flatbuffer("demo as int8"))).sum(axis=1)
    assert cosines.min() > 0.998
    assert cosines.max() < 1 - 1e-6  # so little is not of float32
    assert 0.998 < report.min_cosine < 1 - 1e-6
    assert report.precision == "int8"
    assert 2e6 < report.size_bytes < demo[1].size_bytes / 2.5
    assert report.fingerprint != demo[1].fingerprint
