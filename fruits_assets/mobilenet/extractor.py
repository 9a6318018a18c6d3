"""What a Spark worker runs: the bytes of an image file in, 1280 features out. No TensorFlow here."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from fruits_assets.photos.decoding import IMAGE_SIZE, decode, model_input
from fruits_assets.photos.formats import UnusableImageError

N_FEATURES = 1280
FLATBUFFER = "mobilenet_v2.tflite"  # its file in the lake


class Extractor:
    """A LiteRT interpreter of the headless network, on one thread, with a fixed batch size."""

    def __init__(self, flatbuffer: bytes, batch_size: int) -> None:
        self._interpreter = Interpreter(model_content=flatbuffer, num_threads=1)
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._batch = np.zeros((batch_size, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        self._interpreter.resize_tensor_input(self._input, self._batch.shape)
        self._interpreter.allocate_tensors()

    def features(self, images: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """The network's output for each (224, 224, 3) image, in order: (n_images, 1280)."""
        blocks = [np.empty((0, N_FEATURES), np.float32)]
        n_filled = 0
        for image in images:
            self._batch[n_filled] = image
            n_filled += 1
            if n_filled == len(self._batch):
                blocks.append(self._infer())
                n_filled = 0
        if n_filled:
            blocks.append(self._infer()[:n_filled])
        return np.concatenate(blocks)

    def _infer(self) -> NDArray[np.float32]:
        self._interpreter.set_tensor(self._input, self._batch)
        self._interpreter.invoke()
        features: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return features


_of_this_process: dict[tuple[str, int], Extractor] = {}


def worker_extractor(fingerprint: str, batch_size: int, flatbuffer: Callable[[], bytes]) -> Extractor:
    """The one extractor of this process: built by its first task, reused by all that follow.

    Args:
        flatbuffer: gives the network of this fingerprint; asked for once only.
    """
    key = fingerprint, batch_size
    if key not in _of_this_process:
        _of_this_process.clear()
        _of_this_process[key] = Extractor(flatbuffer(), batch_size)
    return _of_this_process[key]


def decoded_inputs(paths: Iterable[str], contents: Iterable[bytes]) -> Iterator[NDArray[np.uint8]]:
    """Model inputs of image files, one at a time so that a batch of photos is never held decoded.

    Raises:
        UnusableImageError: names the path.
    """
    for path, content in zip(paths, contents, strict=True):
        try:
            photo = decode(content)
        except UnusableImageError as error:
            raise UnusableImageError(f"{path}: {error}") from error
        yield model_input(photo)
