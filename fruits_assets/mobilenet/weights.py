"""Where the network's weights come from: found, verified, loaded into Keras."""

from __future__ import annotations

import hashlib
import io
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fruits_assets.photos.decoding import decode, model_input

if TYPE_CHECKING:
    import keras

SAMPLE_IMAGES = Path(__file__).parents[1] / "sample_images"
DEMO_WEIGHTS = Path(__file__).with_name("demo_weights.npz")
DEMO_SHA256 = "39cc9c891307899552ef9427077f92181fff4e449f986b88d9b07f5559282c85"
IMAGENET, DEMO, UNTRAINED = "imagenet", "demo", "untrained"
FLOAT32, INT8 = "float32", "int8"
_SEED = 20
_CALIBRATION_IMAGES_PER_LABEL = 2
_MAX_FAULT = 300  # Keras lists every layer
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_WAYS_OUT = (
    f"Set FRUITS_WEIGHTS to the path of a MobileNetV2 .h5 file, or to '{DEMO}' for the bundled weights."
)


class WeightsError(ValueError):
    """No usable weights; the message names the source and the ways out."""


@dataclass(frozen=True)
class LoadedWeights:
    """A headless Keras model, (n, 224, 224, 3) in -1..1 to (n, 1280), and where its weights are from."""

    model: keras.Model
    description: str


def check_source(source: str) -> None:
    """Refuse a source that cannot work, without importing TensorFlow.

    Raises:
        WeightsError: no such name, no such file, not HDF5, or TensorFlow is missing.
    """
    if source == DEMO:
        return
    if source not in (IMAGENET, UNTRAINED):
        path = Path(source).expanduser()
        if not path.is_file():
            raise WeightsError(
                f"Weights '{source}': no such file, and not '{IMAGENET}' or '{DEMO}'. {_WAYS_OUT}"
            )
        with path.open("rb") as file:
            if file.read(len(_HDF5_SIGNATURE)) != _HDF5_SIGNATURE:
                raise WeightsError(f"Weights '{source}': not an HDF5 file. {_WAYS_OUT}")
    _tensorflow_version(source)


def identity(source: str, precision: str) -> dict[str, str]:
    """What decides which flatbuffer a source becomes: as long as it is the same, so is that.

    The ImageNet weights stand for themselves: a release of Keras has one file of them. The bundled
    flatbuffer is that of the bundled weights, whatever is installed.

    Raises:
        WeightsError: TensorFlow would be needed and is missing.
    """
    known = {"source": source, "precision": precision}
    if source == DEMO:
        known["sha256"] = DEMO_SHA256
    elif source not in (IMAGENET, UNTRAINED):
        known["sha256"] = hashlib.sha256(Path(source).expanduser().read_bytes()).hexdigest()
    if is_bundled(source, precision):
        return known
    return known | {"tensorflow": _tensorflow_version(source), "keras": metadata.version("keras")}


def is_bundled(source: str, precision: str) -> bool:
    """Whether the flatbuffer of these weights comes with this package, so that nothing converts them."""
    return source == DEMO and precision == FLOAT32


def _tensorflow_version(source: str) -> str:
    """Of the TensorFlow that will convert these weights; found without importing it, which takes seconds.

    Raises:
        WeightsError: there is none.
    """
    # The first is the same without what needs a GPU.
    for name in ("tensorflow-cpu", "tensorflow"):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    raise WeightsError(
        f"Weights '{source}': TensorFlow, which converts them, is not installed. pip install "
        f"'fruits-assets[keras]', or set FRUITS_WEIGHTS to '{DEMO}' for the bundled weights as {FLOAT32}."
    )


def load(source: str) -> LoadedWeights:
    """Load headless MobileNetV2 (alpha 1.0, 224 x 224) with the weights of `source`.

    Args:
        source: `imagenet`, `demo` or the path of a Keras .h5 weights file, with or without the
            classifier; for tests, `untrained`.

    Raises:
        WeightsError: the weights are missing, damaged, cannot be fetched or are another network's.
    """
    check_source(source)
    if source == IMAGENET:
        return _imagenet()
    if source == DEMO:
        return _demo()
    if source == UNTRAINED:
        return _untrained()
    return _from_file(Path(source).expanduser())


def sample_inputs(n_per_label: int) -> NDArray[np.uint8]:
    """The first of the bundled images of each label, (n, 224, 224, 3), label by label."""
    files: list[Path] = []
    for label in sorted(os.listdir(SAMPLE_IMAGES)):
        files += sorted((SAMPLE_IMAGES / label).glob("*.jpg"))[:n_per_label]
    return np.stack([model_input(decode(file.read_bytes())) for file in files])


def _imagenet() -> LoadedWeights:
    import keras

    # Without a limit, a firewall that swallows packets keeps the run waiting for ever.
    socket.setdefaulttimeout(60)
    try:
        model = keras.applications.MobileNetV2(weights="imagenet", include_top=True)
    except Exception as error:  # Keras raises a bare Exception for a failed download
        raise WeightsError(
            f"The ImageNet weights are not in Keras' cache and could not be fetched: {error}. {_WAYS_OUT}"
        ) from error
    return LoadedWeights(_headless(model), f"imagenet (Keras {keras.__version__})")


def _demo() -> LoadedWeights:
    """The bundled weights (DEMO_MODEL.md), stored in half precision by `tools/train_demo_model.py`."""
    content = _demo_content()
    import keras

    model = _headless(keras.applications.MobileNetV2(weights=None, include_top=True))
    with np.load(io.BytesIO(content)) as stored:
        for variable in model.weights:
            variable.assign(stored[variable.path].astype(np.float32))
    return LoadedWeights(model, f"demo (trained on rendered fruit, SHA-256 {DEMO_SHA256[:12]})")


def _demo_content() -> bytes:
    content = DEMO_WEIGHTS.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != DEMO_SHA256:
        raise WeightsError(
            f"The bundled weights {DEMO_WEIGHTS} have SHA-256 {digest[:12]}..., not {DEMO_SHA256[:12]}...: "
            "the file is damaged. Install the package again."
        )
    return content


def _from_file(path: Path) -> LoadedWeights:
    import keras

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    description = f"{path.name} (SHA-256 {digest[:12]})"
    faults = []
    for has_classifier in (True, False):
        model = keras.applications.MobileNetV2(weights=None, include_top=has_classifier, pooling="avg")
        try:
            model.load_weights(path)
        except Exception as error:  # Keras has no class of its own for a file of another network
            faults.append(str(error)[:_MAX_FAULT])
        else:
            return LoadedWeights(_headless(model) if has_classifier else model, description)
    raise WeightsError(
        f"Weights '{path}': not those of MobileNetV2 with alpha 1.0 ({faults[0]}). {_WAYS_OUT}"
    )


def _untrained() -> LoadedWeights:
    """Random weights that keep their images apart: seeded, and calibrated on the sample images.

    With batch normalisation at its initial statistics the activations shrink layer by layer to about
    1e-17, and everything after them is rounding noise.
    """
    import keras

    keras.utils.set_random_seed(_SEED)
    model = _headless(keras.applications.MobileNetV2(weights=None, include_top=True))
    inputs = sample_inputs(_CALIBRATION_IMAGES_PER_LABEL)
    normalisations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in normalisations:
        layer.momentum = 0.0  # the moving statistics become those of this one batch
    model(inputs.astype(np.float32) / 127.5 - 1, training=True)
    return LoadedWeights(
        model,
        f"untrained (seed {_SEED}, batch normalisation calibrated on {len(inputs)} sample images)",
    )


def _headless(model: keras.Model) -> keras.Model:
    """Cut the classifier: the output becomes that of the layer before it, (n, 1280)."""
    import keras

    return keras.Model(model.input, model.layers[-2].output)
