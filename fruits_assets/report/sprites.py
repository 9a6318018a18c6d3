"""Many thumbnails as one or a few pictures: a page that shows thousands stays small and makes no request."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

# Cell and quality, the best first: what is tried until all sheets together are small enough.
_WAYS = [(64, 70), (64, 50), (64, 30), (48, 50), (48, 30), (32, 40), (32, 15), (16, 20), (16, 1)]
_COLUMNS = 32
_MAX_ROWS = 64  # more pixels than a phone's browser decodes would go missing
_BACKGROUND = (236, 236, 236)


@dataclass(frozen=True)
class Sheets:
    """`uris` are pictures of `columns` x `rows` cells of `cell` pixels: photo i is in cell i, row by row."""

    cell: int
    columns: int
    rows: int
    uris: Sequence[str]


def sheets(thumbnails: Sequence[bytes], max_bytes: int) -> Sheets:
    """The thumbnails, JPEGs of any shape, on sheets of at most so many bytes in all, as data URIs.

    Of many, the cells are smaller or the compression is stronger.
    """
    for cell, quality in _WAYS:
        pictures = _encoded(thumbnails, cell, quality)
        if sum(map(len, pictures)) * 4 / 3 <= max_bytes:
            break
    encoded = [base64.b64encode(picture).decode() for picture in pictures]
    return Sheets(cell, _COLUMNS, _MAX_ROWS, [f"data:image/webp;base64,{text}" for text in encoded])


def _encoded(thumbnails: Sequence[bytes], cell: int, quality: int) -> list[bytes]:
    pictures = []
    per_sheet = _COLUMNS * _MAX_ROWS
    for start in range(0, len(thumbnails), per_sheet):
        on_it = thumbnails[start : start + per_sheet]
        sheet = Image.new("RGB", (_COLUMNS * cell, -(-len(on_it) // _COLUMNS) * cell), _BACKGROUND)
        for i, thumbnail in enumerate(on_it):
            picture = Image.open(io.BytesIO(thumbnail)).convert("RGB")
            picture.thumbnail((cell, cell))
            left, top = i % _COLUMNS * cell, i // _COLUMNS * cell
            sheet.paste(picture, (left + (cell - picture.width) // 2, top + (cell - picture.height) // 2))
        buffer = io.BytesIO()
        sheet.save(buffer, "WEBP", quality=quality, method=4)
        pictures.append(buffer.getvalue())
    return pictures
