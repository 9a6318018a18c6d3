"""Ray Data with Keras: actors, one for each core, that keep the model."""

from __future__ import annotations

import os

import numpy as np
import ray
from components import command_line, write_components
from decoding import pixels
from local_ray import local_ray
from numpy.typing import NDArray

BATCH_SIZE = 32
N_CORES = len(os.sched_getaffinity(0))
# With a whole one for each actor, nothing would be left for reading, and Ray would wait for ever.
CPUS_PER_ACTOR = 0.5


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

    def __call__(self, batch: dict[str, NDArray]) -> dict[str, NDArray]:
        """A batch of files' paths and bytes to paths and (n, 1280)."""
        from keras.applications.mobilenet_v2 import preprocess_input

        photos = np.stack([pixels(content, self.draft) for content in batch["bytes"]])
        features = self.model.predict_on_batch(preprocess_input(photos.astype(np.float32)))
        return {"path": batch["path"], "features": features}


if __name__ == "__main__":
    arguments = command_line("weights of MobileNetV2 without its classifier, .h5")
    with local_ray():
        photos = ray.data.read_binary_files(
            str(arguments.images), include_paths=True, file_extensions=["jpg"]
        )
        rows = photos.map_batches(
            Features,
            fn_constructor_args=[arguments.network, arguments.draft],
            batch_size=BATCH_SIZE,
            compute=ray.data.ActorPoolStrategy(size=N_CORES),
            num_cpus=CPUS_PER_ACTOR,
        ).take_all()
    paths, features = [row["path"] for row in rows], np.stack([row["features"] for row in rows])
    write_components(arguments.images, paths, features, arguments.csv)
