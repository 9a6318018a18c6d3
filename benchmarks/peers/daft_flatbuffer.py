"""Daft with this project's flatbuffer: one LiteRT interpreter in a process for each core."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import daft
import numpy as np
from components import command_line, write_components
from daft import DataType, Series
from decoding import pixels
from numpy.typing import NDArray

BATCH_SIZE = 32
IMAGES_PER_CALL = 2  # of the interpreter, as this project has it
N_CORES = len(os.sched_getaffinity(0))


@daft.cls(max_concurrency=N_CORES, use_process=True)
class Features:
    """Photos to features."""

    def __init__(self, flatbuffer: str, draft: bool) -> None:
        from fruits_assets.mobilenet.extractor import Extractor

        self.extractor = Extractor(Path(flatbuffer).read_bytes(), IMAGES_PER_CALL)
        self.draft = draft

    @daft.method.batch(return_dtype=DataType.fixed_size_list(DataType.float32(), 1280), batch_size=BATCH_SIZE)
    def __call__(self, contents: Series) -> NDArray[np.float32]:
        """A batch of files' bytes to (n, 1280)."""
        return self.extractor.features(pixels(content, self.draft) for content in contents.to_pylist())


if __name__ == "__main__":
    # Daft imports TensorFlow where it is installed, which it need not be for a flatbuffer: seconds.
    sys.modules["tensorflow"] = None  # type: ignore[assignment]  # None is what makes an import fail
    arguments = command_line("flatbuffer of MobileNetV2 without its classifier")
    features = Features(arguments.network, arguments.draft)
    photos = daft.from_glob_path(f"{arguments.images}/**/*.jpg").select("path")
    photos = photos.with_column("content", photos["path"].download())
    rows = photos.select("path", features(photos["content"]).alias("features")).to_arrow()
    paths = [path.removeprefix("file://") for path in rows["path"].to_pylist()]
    matrix = rows["features"].combine_chunks().flatten().to_numpy().reshape(len(paths), -1)
    write_components(arguments.images, paths, matrix, arguments.csv)
