"""What a Spark worker runs: the bytes of an image file in, 1280 features out. No TensorFlow here."""

import io
import warnings
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

IMAGE_SIZE = 224
N_FEATURES = 1280
FLATBUFFER = "mobilenet_v2.tflite"  # its file in the lake

# Pillow's own definition of a decompression bomb. It only warns up to twice this size; `decode_rgb`
# refuses, and so its warning would say everything twice.
MAX_PIXELS = 89_478_485
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# Pillow knows many more, some of which start other programs: a photo is one of these.
# JPEG includes the multi-picture files of phones (MPO, which is not openable by that name); GIF turns up
# under other formats' names.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

_ORIENTATION_TAG = 0x0112
# EXIF 2.32, table 4: what turns the stored pixels upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnusableImageError(ValueError):
    """The bytes are no image that features can be taken from; the message is the reason."""


def decode_rgb(content: bytes) -> Image.Image:
    """Decode an image file to 8-bit RGB, upright; of an animation, the first frame.

    Transparent pixels become white, 16-bit grey is scaled to 8 bits, every other mode is converted
    by Pillow.

    Raises:
        UnusableImageError: empty, no image, damaged, too many pixels, or floating-point pixels.
    """
    if not content:
        raise UnusableImageError("empty file (0 bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnusableImageError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
            image.load()
            return _upright(_to_rgb(image), orientation(image))
    except UnusableImageError:
        raise
    except Image.DecompressionBombError as error:
        raise UnusableImageError(f"more than {MAX_PIXELS:,} pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise UnusableImageError(f"not an image ({len(content):,} bytes)") from error
    except MemoryError:
        raise  # a fault of the machine, not of the file
    except Exception as error:  # Pillow's decoders raise whatever the damage happens to hit
        raise UnusableImageError(f"damaged image: {type(error).__name__}: {error}") from error


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; unreadable EXIF data says nothing, so 1."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata does not make a picture unusable
        return 1
    return value if value in _UPRIGHT else 1


def _upright(image: Image.Image, stored: int) -> Image.Image:
    return image.transpose(_UPRIGHT[stored]) if stored in _UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode == "F":
        raise UnusableImageError("floating-point pixels have no defined white")
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255, which turns a 16-bit photo white.
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise UnusableImageError("32-bit integer pixels have no defined white")
        grey[grey == image.info.get("transparency", -1)] = 65535  # a PNG may declare one grey transparent
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def model_input(image: Image.Image) -> NDArray[np.uint8]:
    """Resize an RGB image to the network's input, (224, 224, 3) uint8, by Pillow's bicubic filter.

    The scaling to -1..1 is part of the flatbuffer.
    """
    resized = image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return np.asarray(resized)


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
            image = decode_rgb(content)
        except UnusableImageError as error:
            raise UnusableImageError(f"{path}: {error}") from error
        yield model_input(image)
