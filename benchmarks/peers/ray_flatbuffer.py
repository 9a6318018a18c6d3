"""Ray Data with this project's flatbuffer: actors, one for each core, with a LiteRT interpreter each."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import ray
from components import command_line, write_components
from decoding import pixels
from local_ray import local_ray
from numpy.typing import NDArray

BATCH_SIZE = 32
IMAGES_PER_CALL = 2  # of the interpreter, as this project has it
N_CORES = len(os.sched_getaffinity(0))
# With a whole one for each actor, nothing would be left for reading, and Ray would wait for ever.
CPUS_PER_ACTOR = 0.5


class Features:
    """Photos to features."""

    def __init__(self, flatbuffer: str, draft: bool) -> None:
        from fruits_assets.mobilenet.extractor import Extractor

        self.extractor = Extractor(Path(flatbuffer).read_bytes(), IMAGES_PER_CALL)
        self.draft = draft

    def __call__(self, batch: dict[str, NDArray]) -> dict[str, NDArray]:
        """A batch of files' paths and bytes to paths and (n, 1280)."""
        features = self.extractor.features(pixels(content, self.draft) for content in batch["bytes"])
        return {"path": batch["path"], "features": features}


if __name__ == "__main__":
    arguments = command_line("flatbuffer of MobileNetV2 without its classifier")
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
