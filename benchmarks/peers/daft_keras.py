"""Daft with Keras: a class whose instances, one in a process for each core, keep the model."""

from __future__ import annotations

import os

import daft
import numpy as np
from components import command_line, write_components
from daft import DataType, Series
from decoding import pixels
from numpy.typing import NDArray

BATCH_SIZE = 32
N_CORES = len(os.sched_getaffinity(0))


@daft.cls(max_concurrency=N_CORES, use_process=True)
class Features:
    """Photos to features."""

    def __init__(self, weights: str, draft: bool) -> None:
        import tensorflow as tf
        from keras.applications import MobileNetV2

        # There is a process for each core already.
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.model = MobileNetV2(include_top=False, pooling="avg", weights=weights)
        self.draft = draft

    @daft.method.batch(return_dtype=DataType.fixed_size_list(DataType.float32(), 1280), batch_size=BATCH_SIZE)
    def __call__(self, contents: Series) -> NDArray[np.float32]:
        """A batch of files' bytes to (n, 1280)."""
        from keras.applications.mobilenet_v2 import preprocess_input

        photos = np.stack([pixels(content, self.draft) for content in contents.to_pylist()])
        features: NDArray[np.float32] = self.model.predict_on_batch(
            preprocess_input(photos.astype(np.float32))
        )
        return features


if __name__ == "__main__":
    arguments = command_line("weights of MobileNetV2 without its classifier, .h5")
    features = Features(arguments.network, arguments.draft)
    photos = daft.from_glob_path(f"{arguments.images}/**/*.jpg").select("path")
    photos = photos.with_column("content", photos["path"].download())
    rows = photos.select("path", features(photos["content"]).alias("features")).to_arrow()
    paths = [path.removeprefix("file://") for path in rows["path"].to_pylist()]
    matrix = rows["features"].combine_chunks().flatten().to_numpy().reshape(len(paths), -1)
    write_components(arguments.images, paths, matrix, arguments.csv)
