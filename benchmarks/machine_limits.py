"""What the machine could do at most: the bare network engine, and float32 arithmetic as such."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier

import numpy as np

from fruits_assets.mobilenet.extractor import Extractor, decoded_inputs

# MobileNetV2 1.0 at 224 x 224: 300 million multiply-adds (Sandler et al. 2018, table 4), two operations each.
FLOP_PER_IMAGE = 0.6e9

_START_WAIT_S = 120.0
_WARM_UP_BATCHES = 4
_MATRIX_SIZE, _MULTIPLICATIONS = 2048, 20
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

_start: Barrier


def engine_seconds(
    flatbuffer: bytes, batch_size: int, files: Sequence[bytes], n_images: int, n_processes: int
) -> float:
    """Wall time of the network over `n_images` decoded images, one single-threaded process per core, s.

    Every process decodes `files` beforehand, goes round and round over them, and begins when all are ready.
    """
    context = get_context("spawn")
    shares = [len(range(i, n_images, n_processes)) for i in range(n_processes)]
    with ProcessPoolExecutor(
        n_processes, context, initializer=_share_start, initargs=(context.Barrier(n_processes),)
    ) as pool:
        spans = list(pool.map(partial(_infer, flatbuffer, batch_size, files), shares))
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
