"""Small pictures of photos that the lake has."""

from __future__ import annotations

import functools
import io
from collections.abc import Collection
from typing import Any

import numpy as np
from PIL import Image

from fruits_assets.photos.decoding import IMAGE_SIZE, decode, fitting
from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.stages.parquet import batches_of, rows_of
from fruits_assets.stages.stage import StageInputError
from fruits_assets.stages.stored import StoredTable

SIZE = 240  # pixels of the longer side
_KEPT = 256


class LakePhotos:
    """Pictures of those photos of a version of `raw_images` that may be shown, by SHA-256 of the content.

    Args:
        may_be_shown: the SHA-256 of these.

    Raises:
        DamagedFileError: a file is missing or not what was written.
    """

    def __init__(self, images: StoredTable, may_be_shown: Collection[str]) -> None:
        self._places: dict[str, tuple[str, int]] = {}
        for uri in images.uris:
            n_rows = 0
            for batch in batches_of([uri], ["sha256"]):
                for number, sha256 in enumerate(batch["sha256"].to_pylist(), n_rows):
                    if sha256 in may_be_shown:
                        self._places[sha256] = uri, number
                n_rows += batch.num_rows
        self.jpeg = functools.lru_cache(_KEPT)(self._jpeg)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._places

    def _jpeg(self, sha256: str) -> bytes | None:
        """A JPEG made of a photo's pixels and nothing else of its file; None if the photo is gone."""
        if sha256 not in self:
            return None
        try:
            picture = _picture(*self._places[sha256])
        except (StageInputError, UnusableImageError):
            return None
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        return buffer.getvalue()


def _picture(uri: str, number: int) -> Image.Image:
    row = _row(uri, number, ["width", "height", "pixels"])
    size = fitting(row["width"], row["height"], SIZE)
    if row["pixels"] is None:
        return decode(_row(uri, number, ["content"])["content"]).rgb(size)
    pixels = np.frombuffer(row["pixels"], np.uint8).reshape(IMAGE_SIZE, IMAGE_SIZE, 3)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def _row(uri: str, number: int, columns: list[str]) -> dict[str, Any]:
    (batch,) = rows_of(uri, columns, [number])
    row: dict[str, Any] = batch.to_pylist()[0]
    return row
