"""Run the network over every image: 1280 features each."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import Accumulator, Broadcast
from pyspark.sql import SparkSession

from fruits_assets.mobilenet.extractor import (
    FLATBUFFER,
    N_FEATURES,
    decoded_inputs,
    worker_extractor,
)
from fruits_assets.photos.decoding import IMAGE_SIZE
from fruits_assets.stages.arrow import fixed_length_arrays, matrix
from fruits_assets.stages.image_rows import MIN_BYTES_WITH_PIXELS
from fruits_assets.stages.parquet import (
    DamagedFileError,
    TableWriter,
    batches_of,
    refuse_damaged,
    rows_of,
    spread,
)
from fruits_assets.stages.plan import PREVIOUS, cut, kept_together, row_keys
from fruits_assets.stages.progress import progress
from fruits_assets.stages.stage import StageInputError, StageResult, column_types, logger
from fruits_assets.stages.stored import ROWS, Output, Stored, StoredFile, StoredTable

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("sha256", pa.string()),
        ("features", pa.list_(pa.float32())),
    ]
)
_IDENTITY = ["path", "label", "sha256"]
# Rows of a table by where they are: `place` is the number of the file times 2^32, plus that of the row.
_ROW_BITS = 32
_PLACED = pa.schema(
    [*((name, pa.string()) for name in _IDENTITY), ("bytes", pa.int64()), ("place", pa.int64())]
)
_ROW_BYTES = 4 * N_FEATURES
# To infer an image takes as long as to decode one of so many bytes.
_INFERENCE_BYTES = 512 * 1024
_MAX_IMAGES = 2048  # of a task, 15 s


@dataclass(frozen=True)
class Params:
    """`fingerprint`: SHA-256 of the flatbuffer; `batch_size`: images per call of the interpreter."""

    fingerprint: str
    batch_size: int


@dataclass(frozen=True)
class Task:
    """What becomes one file of the new version.

    Either images to infer, by file and the numbers of their rows in it; or rows of files of the previous
    version, with path, label and sha256 of the image that each is of now; or one of these files as it is.
    """

    images: Sequence[tuple[str, Sequence[int]]] = ()
    copied: Sequence[tuple[str, Sequence[int]]] = ()
    copied_for: Sequence[Sequence[str]] = ()
    kept: StoredFile | None = None


@dataclass(frozen=True)
class Plan:
    """The tasks of a run; `images` has the `row_keys` of all images."""

    tasks: Sequence[Task]
    n_to_compute: int
    images: NDArray[np.uint64]


@dataclass(frozen=True)
class FeatureFacts:
    """What the rows of a file add up to; `images` are the `row_keys` of those they say they are of.

    `sums` has the sum of each feature over the `n_sound` rows that have 1280 finite numbers, `n_zeros` counts
    the zeros among these.
    """

    images: NDArray[np.uint64]
    n_sound: int
    n_wrong_length: int
    n_not_finite: int
    n_zeros: int
    sums: NDArray[np.float64]


def mobilenet_features(
    spark: SparkSession, inputs: Mapping[str, Stored], output: Output, params: Params
) -> StageResult:
    """Write path, label, sha256 of the content and features array<float>[1280] of every image.

    What an image gives follows from its content and the network alone: features of content that is in
    the previous version are taken from there, whole files of it where nothing has changed.

    Args:
        inputs: `raw_images` and `mobilenet_model`; `previous`, if there is one, a version that this stage
            wrote with the same flatbuffer.

    Raises:
        StageInputError: the flatbuffer is not the one of the fingerprint.
        DamagedFileError: a file of images is not what was written.
    """
    flatbuffer = _verified_flatbuffer(f"{inputs['mobilenet_model'].folder}/{FLATBUFFER}", params.fingerprint)
    started = time.monotonic()
    images = inputs["raw_images"].table
    previous = inputs[PREVIOUS].table if PREVIOUS in inputs else StoredTable(output.asset, ())
    plan = planned(previous, images, spark.sparkContext.defaultParallelism)
    with (
        _broadcast(spark, flatbuffer if plan.n_to_compute else b"") as network,
        progress(spark, "extracting features", plan.n_to_compute) as done,
    ):
        work = _Work(previous.uri, output, network, params, done)
        results = spread(spark, plan.tasks).map(work).collect()
    seconds = time.monotonic() - started
    files = [file for file, _ in results]
    n_rows = sum(file.n_rows for file in files)
    return StageResult(
        row_count=n_rows,
        schema=column_types(SCHEMA),
        tables={ROWS: files},
        metadata={
            **describe_features([facts for _, facts in results], plan.images),
            "fingerprint": params.fingerprint,
            "seconds": seconds,
            "images_per_s": n_rows / seconds,
            "n_computed": plan.n_to_compute,
            "n_reused": n_rows - plan.n_to_compute,
        },
    )


@contextmanager
def _broadcast(spark: SparkSession, value: bytes) -> Iterator[Broadcast[bytes]]:
    broadcast = spark.sparkContext.broadcast(value)
    try:
        yield broadcast
    finally:
        broadcast.destroy()


def planned(previous: StoredTable, images: StoredTable, n_cores: int) -> Plan:
    """What becomes of the files of the previous version, and which images are inferred by whom.

    Raises:
        DamagedFileError: a file of images cannot be read.
    """
    wanted = pa.concat_tables(
        [_PLACED.empty_table(), *(_rows(images, i, [*_IDENTITY, "bytes"]) for i in range(len(images.files)))]
    )
    readable, stored = _readable(previous)
    # A file of features stays if there is an image for each of its rows.
    matching = stored.join(wanted.select(_IDENTITY), _IDENTITY, join_type="left semi", use_threads=False)
    n_matching = np.bincount(_files_of(matching), minlength=len(previous.files))
    kept, _ = kept_together(
        [previous.files[i] for i in readable if n_matching[i] == previous.files[i].n_rows]
    )
    kept_files = set(kept)
    is_kept = np.isin(_files_of(stored), [i for i in readable if previous.files[i] in kept_files])
    rest = wanted.join(
        stored.filter(pa.array(is_kept)).select(_IDENTITY),
        _IDENTITY,
        join_type="left anti",
        use_threads=False,
    )
    sources = stored.group_by("sha256", use_threads=False).aggregate([("place", "min")])
    copied = (
        rest.select(_IDENTITY)
        .join(sources, "sha256", join_type="inner", use_threads=False)
        .sort_by("place_min")
    )
    computed = rest.join(
        sources.select(["sha256"]), "sha256", join_type="left anti", use_threads=False
    ).sort_by("place")
    places, place_of_copy = computed["place"].to_pylist(), copied["place_min"].to_pylist()
    copied_for = list(zip(*_identity(copied), strict=True))
    return Plan(
        [
            *(
                Task(images=_by_file(images, places[part.start : part.stop]))
                for part in cut(
                    _bytes_to_decode(computed), n_cores, _INFERENCE_BYTES, _MAX_IMAGES * _INFERENCE_BYTES
                )
            ),
            *(
                Task(
                    copied=_by_file(previous, place_of_copy[part.start : part.stop]),
                    copied_for=copied_for[part.start : part.stop],
                )
                for part in cut([_ROW_BYTES] * copied.num_rows, n_cores)
            ),
            *(Task(kept=file) for file in kept),
        ],
        computed.num_rows,
        row_keys(*_identity(wanted)),
    )


def _bytes_to_decode(images: pa.Table) -> list[int]:
    """Of each image; a large one was decoded when it was read."""
    return [size if size < MIN_BYTES_WITH_PIXELS else 0 for size in images["bytes"].to_pylist()]


def _rows(table: StoredTable, number: int, columns: Sequence[str] = _IDENTITY) -> pa.Table:
    """Columns of a file's rows, and where these are."""
    uri = f"{table.uri}/{table.files[number].path}"
    refuse_damaged(uri)
    schema = pa.schema([_PLACED.field(name) for name in columns])
    rows = pa.Table.from_batches(batches_of([uri], columns), schema)
    places = (number << _ROW_BITS) + np.arange(rows.num_rows)
    sizes = rows["bytes"] if "bytes" in columns else pa.nulls(rows.num_rows, pa.int64())
    return pa.table([*(rows[name] for name in _IDENTITY), sizes, places], schema=_PLACED)


def _readable(table: StoredTable) -> tuple[list[int], pa.Table]:
    """The numbers of the files that can be read, and all their rows."""
    readable, parts = [], [_PLACED.empty_table()]
    for number in range(len(table.files)):
        try:
            parts.append(_rows(table, number))
        except DamagedFileError as error:
            logger.warning(str(error))
        else:
            readable.append(number)
    return readable, pa.concat_tables(parts)


def _identity(rows: pa.Table) -> list[list[str]]:
    return [rows[name].to_pylist() for name in _IDENTITY]


def _files_of(rows: pa.Table) -> NDArray[np.int64]:
    places: NDArray[np.int64] = rows["place"].to_numpy()
    return places >> _ROW_BITS


def _by_file(table: StoredTable, places: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Places in rising order as URIs of files and the numbers of rows in each."""
    return [
        (f"{table.uri}/{table.files[number].path}", [place - (number << _ROW_BITS) for place in of_file])
        for number, of_file in itertools.groupby(places, lambda place: place >> _ROW_BITS)
    ]


@dataclass(frozen=True)
class _Work:
    """What a worker does with a task."""

    previous: str
    output: Output
    network: Broadcast[bytes]
    params: Params
    done: Accumulator[int]

    def __call__(self, task: Task) -> tuple[StoredFile, FeatureFacts]:
        if task.kept:
            return task.kept, facts_of(f"{self.previous}/{task.kept.path}")
        with TableWriter(self.output, SCHEMA) as writer:
            for batch in self._computed(task.images) if task.images else _copied(task):
                writer.write(batch)
        assert writer.file
        return writer.file, facts_of(f"{self.output.asset}/{writer.file.path}")

    def _computed(self, images: Sequence[tuple[str, Sequence[int]]]) -> Iterator[pa.RecordBatch]:
        params = self.params
        # A task that finds it built does not even read the broadcast.
        extractor = worker_extractor(params.fingerprint, params.batch_size, lambda: self.network.value)
        identities: list[pa.RecordBatch] = []

        def inputs() -> Iterator[NDArray[np.uint8]]:
            for uri, numbers in images:
                yield from _model_inputs(uri, numbers, identities)
                self.done.add(len(numbers))

        # Of all at once, so that only the task's last call of the network can be for less than a batch.
        features = fixed_length_arrays(extractor.features(inputs()))
        (identity,) = pa.Table.from_batches(identities).combine_chunks().to_batches()
        yield pa.RecordBatch.from_arrays([*identity.columns, features], schema=SCHEMA)


def _model_inputs(
    uri: str, numbers: Sequence[int], identities: list[pa.RecordBatch]
) -> Iterator[NDArray[np.uint8]]:
    """Of some rows of a file of images; which they are goes to `identities`.

    Large photos were decoded when they were read; of the others, the files are.
    """
    start = 0
    for batch in rows_of(uri, [*_IDENTITY, "pixels"], numbers):
        here = numbers[start : start + batch.num_rows]
        is_missing = batch["pixels"].is_null().to_pylist()
        without = [number for number, missing in zip(here, is_missing, strict=True) if missing]
        contents = (value.as_py() for rows in rows_of(uri, ["content"], without) for value in rows["content"])
        for path, pixels in zip(batch["path"].to_pylist(), batch["pixels"], strict=True):
            if pixels.is_valid:
                yield np.frombuffer(pixels.as_buffer(), np.uint8).reshape(IMAGE_SIZE, IMAGE_SIZE, 3)
            else:
                yield from decoded_inputs([path], [next(contents)])
        identities.append(batch.select(_IDENTITY))
        start += batch.num_rows


def _copied(task: Task) -> Iterator[pa.RecordBatch]:
    images = iter(task.copied_for)
    for uri, numbers in task.copied:
        for batch in rows_of(uri, ["features"], numbers):
            identity = zip(*itertools.islice(images, batch.num_rows), strict=True)
            columns = [pa.array(column, pa.string()) for column in identity]
            yield pa.RecordBatch.from_arrays([*columns, batch["features"]], schema=SCHEMA)


def facts_of(uri: str) -> FeatureFacts:
    """What the rows of a stored file add up to."""
    images = [np.empty(0, np.uint64)]
    n_sound = n_wrong_length = n_not_finite = n_zeros = 0
    sums = np.zeros(N_FEATURES)
    for batch in batches_of([uri], SCHEMA.names):
        images.append(row_keys(*(batch[name].to_pylist() for name in _IDENTITY)))
        column = batch["features"]
        lengths = column.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
        values = matrix(column.filter(pa.array(lengths == N_FEATURES)), N_FEATURES)
        is_finite = np.isfinite(values).all(axis=1)
        sound = values[is_finite]
        n_sound += len(sound)
        n_wrong_length += int((lengths != N_FEATURES).sum())
        n_not_finite += int((~is_finite).sum())
        n_zeros += int((sound == 0).sum())
        sums += sound.sum(axis=0)
    return FeatureFacts(np.concatenate(images), n_sound, n_wrong_length, n_not_finite, n_zeros, sums)


def describe_features(facts: Sequence[FeatureFacts], images: NDArray[np.uint64]) -> dict[str, Any]:
    """Compare stored features with the images they should be of, and summarise their values.

    `n_missing` and `n_unexpected` count images and rows without the other, `n_duplicates` repeated rows;
    `sparsity` is the share of zeros among the values of well-formed rows, `feature_means` has one value
    per feature.
    """
    rows = np.concatenate([np.empty(0, np.uint64), *(part.images for part in facts)])
    distinct = np.unique(rows)
    n_sound = sum(part.n_sound for part in facts)
    sums = sum((part.sums for part in facts), np.zeros(N_FEATURES))
    return {
        "row_count": len(rows),
        "n_missing": len(np.setdiff1d(images, distinct)),
        "n_unexpected": len(np.setdiff1d(distinct, images)),
        "n_duplicates": len(rows) - len(distinct),
        "n_wrong_length": sum(part.n_wrong_length for part in facts),
        "n_not_finite": sum(part.n_not_finite for part in facts),
        "sparsity": sum(part.n_zeros for part in facts) / max(1, n_sound * N_FEATURES),
        "feature_means": (sums / max(1, n_sound)).tolist(),
    }


def _verified_flatbuffer(uri: str, fingerprint: str) -> bytes:
    with fsspec.open(uri, "rb") as file:
        flatbuffer: bytes = file.read()
    found = hashlib.sha256(flatbuffer).hexdigest()
    if found != fingerprint:
        raise StageInputError(
            f"The network at '{uri}' has SHA-256 {found[:12]}..., not {fingerprint[:12]}... as "
            "published. Materialize mobilenet_model again."
        )
    return flatbuffer
