"""Keras to a frozen LiteRT flatbuffer, in a process of its own.

TensorFlow brings a gigabyte of memory and a page of start-up messages: both stay in that process.
`python -m fruits_assets.mobilenet.convert WEIGHTS FOLDER` does it by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fruits_assets.mobilenet import weights
from fruits_assets.mobilenet.extractor import FLATBUFFER, Extractor
from fruits_assets.mobilenet.weights import FLOAT32, INT8, WeightsError
from fruits_assets.photos.decoding import IMAGE_SIZE

if TYPE_CHECKING:
    import keras

REPORT = "report.json"
MAX_DIFFERENCE = 1e-4
# Of int8 features with those of Keras, image by image; with the demo's weights it is above 0.999.
MIN_COSINE = 0.99
_PROBE_IMAGES = 8
_CALIBRATION_IMAGES_PER_LABEL = 8
_HEARTBEAT_S = 8.0
_ERROR_PREFIX = "WeightsError: "


class ConversionError(RuntimeError):
    """The flatbuffer could not be made or does not compute what Keras computes."""


@dataclass(frozen=True)
class ConversionReport:
    """What is worth knowing about a flatbuffer; `fingerprint` is the SHA-256 of its bytes.

    `max_difference` and `min_cosine` compare features with those of Keras, on a batch of sample images.
    """

    weights: str
    precision: str
    fingerprint: str
    n_parameters: int
    size_bytes: int
    max_difference: float
    min_cosine: float
    keras_version: str
    tensorflow_version: str


def to_flatbuffer(model: keras.Model, calibration: NDArray[np.uint8] | None = None) -> bytes:
    """Convert a headless model to LiteRT: uint8 (n, 224, 224, 3) in, float32 (n, 1280) out.

    The scaling x / 127.5 - 1 becomes part of the graph, so a worker hands over pixels as they are.

    Args:
        calibration: images (n, 224, 224, 3) whose activations decide the ranges of 8-bit integers: weights
            and activations become these (post-training quantization: Jacob et al. 2018, "Quantization and
            Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference").
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    @tf.function(  # type: ignore[untyped-decorator]  # TensorFlow has no type hints
        input_signature=[tf.TensorSpec([None, IMAGE_SIZE, IMAGE_SIZE, 3], tf.uint8)]
    )
    def features(images: tf.Tensor) -> tf.Tensor:
        return model(tf.cast(images, tf.float32) / 127.5 - 1.0, training=False)

    # A graph with variables converts without a complaint, to 180 KB of zeros.
    frozen = convert_variables_to_constants_v2(features.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in calibration)
    flatbuffer: bytes = converter.convert()
    return flatbuffer


def convert(source: str, folder: Path, precision: str = FLOAT32) -> ConversionReport:
    """Load weights, write the flatbuffer and its report into `folder`, compare it with Keras.

    Raises:
        WeightsError: see `weights.load`.
        ConversionError: the two differ by more than 1e-4 on a probe batch (int8: the cosine of an image is
            below 0.99), or all features are 0.
    """
    print("starting TensorFlow", flush=True)
    import keras
    import tensorflow as tf

    print(f"loading the weights '{source}'", flush=True)
    loaded = weights.load(source)
    print(f"converting to a LiteRT flatbuffer of {precision}", flush=True)
    images = weights.sample_inputs(_CALIBRATION_IMAGES_PER_LABEL + 1)
    is_probe = np.arange(len(images)) % (_CALIBRATION_IMAGES_PER_LABEL + 1) == 0
    flatbuffer = to_flatbuffer(loaded.model, images[~is_probe] if precision == INT8 else None)
    probe = images[is_probe][:_PROBE_IMAGES]
    print(f"comparing {len(probe)} probe images with Keras", flush=True)
    expected = np.asarray(loaded.model(probe.astype(np.float32) / 127.5 - 1, training=False))
    found = Extractor(flatbuffer, batch_size=len(probe)).features(probe)
    max_difference, min_cosine = float(np.abs(found - expected).max()), _min_cosine(found, expected)
    if not found.any() or not is_close(precision, max_difference, min_cosine):
        raise ConversionError(
            f"The {precision} flatbuffer of '{source}' differs from Keras by {max_difference:.3g} on a probe "
            f"batch, smallest cosine {min_cosine:.4f} (allowed: {MAX_DIFFERENCE:g}, for int8 a cosine of "
            f"{MIN_COSINE}), mean feature {found.mean():.3g}"
        )
    report = ConversionReport(
        weights=loaded.description,
        precision=precision,
        fingerprint=hashlib.sha256(flatbuffer).hexdigest(),
        n_parameters=loaded.model.count_params(),
        size_bytes=len(flatbuffer),
        max_difference=max_difference,
        min_cosine=min_cosine,
        keras_version=keras.__version__,
        tensorflow_version=tf.__version__,
    )
    (folder / FLATBUFFER).write_bytes(flatbuffer)
    (folder / REPORT).write_text(json.dumps(asdict(report), indent=2))
    return report


def is_close(precision: str, max_difference: float, min_cosine: float) -> bool:
    """Whether a flatbuffer computes what Keras computes, as far as its precision can."""
    return min_cosine >= MIN_COSINE if precision == INT8 else max_difference <= MAX_DIFFERENCE


def _min_cosine(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny)).min())


def convert_in_own_process(
    source: str, folder: Path, log: Callable[[str], None], precision: str = FLOAT32
) -> ConversionReport:
    """`convert` in a fresh Python; `log` gets a line per step and one at least every 10 s.

    Raises:
        WeightsError, ConversionError: as `convert`, with the process' last words.
    """
    started = time.monotonic()
    command = [sys.executable, "-m", "fruits_assets.mobilenet.convert", source, str(folder), precision]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            # TensorFlow writes code to temporary files, which go with the folder whatever happens.
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TMPDIR": str(folder)},
        )
        assert process.stdout is not None
        lines = process.stdout

        def forward() -> None:
            for line in lines:
                # A download draws its progress bar over itself; its last state is enough.
                log(line.rstrip().rsplit("\r", 1)[-1])

        reader = threading.Thread(target=forward, daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                try:
                    process.wait(_HEARTBEAT_S)
                except subprocess.TimeoutExpired:
                    log(f"still at work on the model, {time.monotonic() - started:.0f} s")
        finally:
            process.kill()
            process.wait()
            reader.join()
        errors.seek(0)
        last_words = errors.read()[-4000:].strip()
    if process.returncode:
        message = last_words.rsplit(_ERROR_PREFIX, 1)
        if len(message) == 2:
            raise WeightsError(message[1])
        raise ConversionError(f"Converting '{source}' failed:\n{last_words}")
    return ConversionReport(**json.loads((folder / REPORT).read_text()))


def main() -> None:
    """Command line: weights source and output folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", help="imagenet, demo or the path of a Keras .h5 file")
    parser.add_argument("folder", type=Path, help=f"gets {FLATBUFFER} and {REPORT}")
    parser.add_argument("precision", nargs="?", choices=(FLOAT32, INT8), default=FLOAT32)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    convert(arguments.weights, arguments.folder, arguments.precision)


if __name__ == "__main__":
    main()
