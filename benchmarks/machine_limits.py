"""What the machine could do at most: the bare network engine, the bare decoder, and float32 arithmetic."""

from __future__ import annotations

import io
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from fruits_assets.mobilenet.extractor import Extractor, decoded_inputs
from fruits_assets.photos.decoding import DECODED_SIZE

# MobileNetV2 1.0 at 224 x 224: 300 million multiply-adds (Sandler et al. 2018, table 4), two operations each.
FLOP_PER_IMAGE = 0.6e9

_START_WAIT_S = 120.0
_WARM_UP_BATCHES = 4
_MATRIX_SIZE, _MULTIPLICATIONS = 2048, 20
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

_start: Barrier
_Share = TypeVar("_Share")


def engine_seconds(
    flatbuffer: bytes, batch_size: int, files: Sequence[bytes], n_images: int, n_processes: int
) -> float:
    """Wall time of the network over `n_images` decoded images, one single-threaded process per core, s.

    Every process decodes `files` beforehand, goes round and round over them, and begins when all are ready.
    """
    shares = [len(range(i, n_images, n_processes)) for i in range(n_processes)]
    return _seconds(partial(_infer, flatbuffer, batch_size, files), shares)


def decoder_seconds(photos: Sequence[Path], n_processes: int) -> float:
    """Wall time of Pillow's decoder over JPEG files, scaled as the product has them, one process per core, s.

    Every process reads its share beforehand, and begins when all are ready.
    """
    return _seconds(_decode, [photos[i::n_processes] for i in range(n_processes)])


def _seconds(work: Callable[[_Share], tuple[float, float]], shares: Sequence[_Share]) -> float:
    """From the first begin to the last end of a process for each share, s."""
    context = get_context("spawn")
    start = context.Barrier(len(shares))
    with ProcessPoolExecutor(len(shares), context, initializer=_share_start, initargs=(start,)) as pool:
        spans = list(pool.map(work, shares))
    # The clock is the machine's, the same for all processes.
    return max(end for _, end in spans) - min(begin for begin, _ in spans)


def _share_start(start: Barrier) -> None:
    global _start
    _start = start


def _infer(flatbuffer: bytes, batch_size: int, files: Sequence[bytes], n_images: int) -> tuple[float, float]:
    extractor = Extractor(flatbuffer, batch_size)
    images = list(decoded_inputs([""] * len(files), files))
    extractor.features(images[: _WARM_UP_BATCHES * batch_size])
    _start.wait(_START_WAIT_S)
    begin = time.monotonic()
    extractor.features(itertools.islice(itertools.cycle(images), n_images))
    return begin, time.monotonic()


def _decode(photos: Sequence[Path]) -> tuple[float, float]:
    files = [photo.read_bytes() for photo in photos]
    _start.wait(_START_WAIT_S)
    begin = time.monotonic()
    for file in files:
        with Image.open(io.BytesIO(file)) as image:
            image.draft(None, (DECODED_SIZE, DECODED_SIZE))
            image.load()
    return begin, time.monotonic()


def float32_flop_per_s(n_threads: int) -> float:
    """Best rate of a float32 matrix product by NumPy's BLAS on so many threads, FLOP/s."""
    # BLAS reads its number of threads when it is loaded: a process of its own, whatever this one has.
    with (
        _environment(dict.fromkeys(_BLAS_THREADS, str(n_threads))),
        ProcessPoolExecutor(1, get_context("spawn")) as own_process,
    ):
        return own_process.submit(_best_product).result()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _best_product() -> float:
    rng = np.random.default_rng(0)
    left, right = (rng.random((_MATRIX_SIZE, _MATRIX_SIZE), np.float32) for _ in range(2))
    product = np.empty_like(left)
    seconds = []
    for _ in range(_MULTIPLICATIONS):
        begin = time.monotonic()
        np.matmul(left, right, out=product)
        seconds.append(time.monotonic() - begin)
    return 2 * _MATRIX_SIZE**3 / min(seconds)
