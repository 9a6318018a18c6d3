"""What Keras does for the tests here, once for the whole run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fruits_assets.mobilenet import weights
from fruits_assets.mobilenet.convert import REPORT, ConversionReport
from fruits_assets.mobilenet.extractor import FLATBUFFER, Extractor, decoded_inputs
from fruits_assets_tests.one_at_a_time import one_at_a_time

WEIGHTS_FILES = ("legacy.h5", "model.h5", "whole.weights.h5", "headless.weights.h5")
KERAS_FEATURES, REFUSED = "features.npy", "refused.txt"


def sample_files() -> list[Path]:
    """Fourteen sample images, two of each label."""
    return sorted(weights.SAMPLE_IMAGES.glob("*/r_1[05]_100.jpg"))


def features_of(flatbuffer: Path, files: list[Path], batch_size: int = 4) -> NDArray[np.float32]:
    """What a flatbuffer gives of images, (n, 1280)."""
    contents = [file.read_bytes() for file in files]
    extractor = Extractor(flatbuffer.read_bytes(), batch_size)
    return extractor.features(decoded_inputs(map(str, files), contents))


@dataclass(frozen=True)
class KerasWork:
    """The folder that `keras_work.py` has filled."""

    folder: Path

    @property
    def features(self) -> NDArray[np.float32]:
        """Keras' own, of the sample files, by the untrained network."""
        found: NDArray[np.float32] = np.load(self.folder / KERAS_FEATURES)
        return found

    def flatbuffer(self, name: str) -> Path:
        """What a source has become."""
        return self.folder / f"of {name}" / FLATBUFFER

    def report(self, name: str) -> ConversionReport:
        """What is told of that."""
        told: dict[str, Any] = json.loads((self.folder / f"of {name}" / REPORT).read_text())
        return ConversionReport(**told)

    def refusal(self, name: str) -> str:
        """Why a source has become nothing, which it has."""
        (said,) = (self.folder / f"of {name}").iterdir()
        assert said.name == REFUSED
        return said.read_text()


@pytest.fixture(scope="session")
def keras(shared_folder: Path) -> KerasWork:
    """Made by the first process among those that divide the tests that asks for it."""
    folder = shared_folder / "keras"
    with one_at_a_time(shared_folder / "keras.lock"):
        if not folder.exists():
            folder.mkdir()
            command = [sys.executable, "-m", "fruits_assets_tests.mobilenet.keras_work", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-4000:]
    return KerasWork(folder)
