"""From a listed file to a row of `raw_images`: fetched, checked, without personal metadata; or a reason."""

from __future__ import annotations

import functools
import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import fsspec
import pyarrow as pa

from fruits_assets.photos.checking import checked
from fruits_assets.photos.decoding import IMAGE_SIZE, Photo, fitting, model_input
from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.stages.listing import ListedFile, label_of

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("content", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("modified", pa.timestamp("us", tz="UTC")),
        ("source_bytes", pa.int64()),
        ("stripped", pa.bool_()),
        ("thumbnail", pa.binary()),
        ("pixels", pa.binary()),
    ]
)
QUARANTINE_SCHEMA = pa.schema([("path", pa.string()), ("label", pa.string()), ("reason", pa.string())])

# With the largest picture that is accepted, what a worker may take.
MAX_IMAGE_BYTES = 128 * 1024**2
_THUMBNAIL_SIZE = 64
# Ten times those that are stored beside it.
MIN_BYTES_WITH_PIXELS = 10 * 3 * IMAGE_SIZE**2
_FETCH_THREADS = 8  # one file of S3 takes tens of milliseconds, nearly all of it waiting
_FETCHED_AHEAD_BYTES = 32 * 1024**2


def image_rows(source: str, files: Iterable[ListedFile]) -> Iterator[dict[str, Any]]:
    """A row for every file, in order: of `SCHEMA`, or of `QUARANTINE_SCHEMA` with the reason.

    Files are fetched ahead, so many bytes at most; one picture at a time is decoded.
    """
    filesystem, root = fsspec.url_to_fs(source)
    root = root.rstrip("/")

    def fetch(file: ListedFile) -> bytes | str:
        try:
            return content_of(file, lambda: filesystem.cat_file(f"{root}/{file.path}"))
        except UnusableImageError as error:
            return str(error)

    for file, fetched in _fetched_ahead(files, fetch):
        found = [_checked(file, fetched) if isinstance(fetched, bytes) else {"reason": fetched}]
        # A photo may be large: what has been handed over is not held here until the next one comes.
        del fetched
        yield {"path": file.path, "label": label_of(source, file.path)} | found.pop()


def content_of(file: ListedFile, read: Callable[[], bytes]) -> bytes:
    """What `read` gives of a listed file.

    Raises:
        UnusableImageError: it is not read, being no file or too large, or cannot be.
    """
    if file.reason:
        raise UnusableImageError(file.reason)
    if file.size_bytes > MAX_IMAGE_BYTES:
        raise UnusableImageError(f"{file.size_bytes:,} bytes, more than {MAX_IMAGE_BYTES:,}")
    try:
        return read()
    except OSError as error:
        raise UnusableImageError(f"cannot be read: {error.strerror or error}") from error


def _fetched_ahead(
    files: Iterable[ListedFile], fetch: Callable[[ListedFile], bytes | str]
) -> Iterator[tuple[ListedFile, bytes | str]]:
    waiting: deque[tuple[ListedFile, Future[bytes | str]]] = deque()
    n_bytes = 0
    try:
        for file in files:
            while waiting and n_bytes + file.size_bytes > _FETCHED_AHEAD_BYTES:
                n_bytes -= waiting[0][0].size_bytes
                yield _first(waiting)
            waiting.append((file, _threads().submit(fetch, file)))
            n_bytes += file.size_bytes
        while waiting:
            yield _first(waiting)
    finally:
        for _, future in waiting:
            future.cancel()


@functools.cache
def _threads() -> ThreadPoolExecutor:
    # Of the process: to start them costs as much as to fetch a photo, and a task has a few of these.
    return ThreadPoolExecutor(_FETCH_THREADS)


def _first(waiting: deque[tuple[ListedFile, Future[bytes | str]]]) -> tuple[ListedFile, bytes | str]:
    file, future = waiting.popleft()
    return file, future.result()


def _checked(file: ListedFile, content: bytes) -> dict[str, Any]:
    try:
        photo, stored = checked(content)
    except UnusableImageError as error:
        return {"reason": str(error)}
    return {
        "content": stored,
        "width": photo.width,
        "height": photo.height,
        "bytes": len(stored),
        "sha256": hashlib.sha256(stored).hexdigest(),
        "modified": file.modified,
        "source_bytes": file.size_bytes,
        "stripped": stored != content,
        "thumbnail": _thumbnail(photo),
        # What the network looks at: where the file is much larger, nobody needs to decode it again.
        "pixels": model_input(photo).tobytes() if len(stored) >= MIN_BYTES_WITH_PIXELS else None,
    }


def _thumbnail(photo: Photo) -> bytes:
    size = fitting(photo.width, photo.height, _THUMBNAIL_SIZE)
    buffer = io.BytesIO()
    photo.rgb(size, reducing_gap=3.0).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
