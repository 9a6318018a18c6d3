"""Read a tree of image files into a table: checked, without personal metadata, the bad ones set aside.

The listing plans the writes: a task reads a range of it and writes a file of the table. The bytes of a
photo are in one worker and then in that file; Spark never moves, sorts or keeps them.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import Accumulator
from pyspark.sql import SparkSession

from fruits_assets.stages.image_rows import QUARANTINE_SCHEMA, SCHEMA, image_rows
from fruits_assets.stages.listing import ListedFile, list_image_files, listing_fingerprint, too_few
from fruits_assets.stages.parquet import (
    DamagedFileError,
    TableWriter,
    batches_of,
    refuse_damaged,
    rows_of,
    spread,
    write_rows,
)
from fruits_assets.stages.plan import LAST, PREVIOUS, cut, kept_together, row_keys
from fruits_assets.stages.progress import progress
from fruits_assets.stages.stage import StageInputError, StageResult, column_types, logger
from fruits_assets.stages.stored import ROWS, Output, Stored, StoredFile, StoredTable

QUARANTINE = "quarantine"
# Small enough that what reads the table again may start anywhere, and that a writer holds little.
ROW_GROUP_BYTES = 8 * 1024**2
_THUMBNAIL_LABELS, _THUMBNAILS_PER_LABEL = 24, 8
_REASONS_SHOWN = 50


@dataclass(frozen=True)
class Params:
    """`source`: the folder or s3:// prefix that holds `<label>/<file>`."""

    source: str


@dataclass(frozen=True)
class Task:
    """What becomes one file of the new version.

    Either listed files of the source, or rows of files of the previous version, each with the numbers of its
    rows, or one of those as it is.
    """

    listed: Sequence[ListedFile] = ()
    copied: Sequence[tuple[str, Sequence[int]]] = ()
    kept: StoredFile | None = None


@dataclass(frozen=True)
class Plan:
    """The tasks of a run, and how many files of the source they read."""

    tasks: Sequence[Task]
    n_to_read: int


@dataclass(frozen=True)
class ImageFacts:
    """What some images add up to; `paths` are the `row_keys` of their paths."""

    n_bytes: int
    n_stripped: int
    digest: int
    per_label: Mapping[str, int]
    paths: NDArray[np.uint64]


@dataclass(frozen=True)
class Done:
    """What a task wrote: a file of images, if any is readable, and one of those that are not."""

    images: StoredFile | None
    facts: ImageFacts | None
    quarantine: StoredFile | None
    reasons: Sequence[Mapping[str, str]]


def raw_images(
    spark: SparkSession, inputs: Mapping[str, Stored], output: Output, params: Params
) -> StageResult:
    """Write the images of a source, and its quarantine: path, label, reason.

    Files of the source with the size and the modification time that the previous version has are not read
    again. A file of the table in which nothing has changed is taken over, one with changed or vanished images
    is copied without these, new images go into new files.

    Args:
        inputs: `previous`, if there is one: a version that this stage wrote of the same source; `last`, if
            there is one: a version of this source that the new one is compared with.

    Raises:
        StageInputError: the source is missing or holds fewer than two image files, or fewer than two
            of them are readable.
    """
    listing = list_image_files(params.source)
    if len(listing) < 2:
        raise StageInputError(too_few(params.source, f"{len(listing)} image file(s)"))
    previous = inputs[PREVIOUS].table if PREVIOUS in inputs else StoredTable(output.asset, ())
    plan = planned(previous, listing, spark.sparkContext.defaultParallelism)
    with progress(spark, "reading images", plan.n_to_read) as done:
        work = _Work(params.source, previous.uri, output, done)
        results = spread(spark, plan.tasks).map(work).collect()
    table = StoredTable(output.asset, [result.images for result in results if result.images])
    facts = [result.facts for result in results if result.facts]
    quarantine = [result.quarantine for result in results if result.quarantine]
    reasons = list(itertools.chain.from_iterable(result.reasons for result in results))[:_REASONS_SHOWN]
    if table.n_rows < 2:
        found = "; ".join(f"{row['path']}: {row['reason']}" for row in reasons[:3])
        raise StageInputError(too_few(params.source, f"{table.n_rows} readable image(s) ({found})"))
    n_quarantined = sum(file.n_rows for file in quarantine)
    described = describe_images(facts)
    return StageResult(
        row_count=table.n_rows,
        schema=column_types(SCHEMA),
        tables={
            ROWS: table.files,
            QUARANTINE: quarantine or [write_rows(output, QUARANTINE_SCHEMA.empty_table(), QUARANTINE)],
        },
        metadata={
            **described,
            "n_quarantined": n_quarantined,
            "quarantined": reasons,
            "n_read": plan.n_to_read - n_quarantined,
            "n_unchanged": table.n_rows - (plan.n_to_read - n_quarantined),
            "n_previous": inputs[LAST].table.n_rows if LAST in inputs else 0,
            "n_lost": _n_lost(inputs[LAST].table, facts) if LAST in inputs else 0,
            "listing": listing_fingerprint(listing),
            "thumbnails": _thumbnails(table, facts),
        },
    )


def planned(previous: StoredTable, listing: Sequence[ListedFile], n_cores: int) -> Plan:
    """What becomes of the files of the previous version, and which files of the source are read by whom."""
    listed = {file.path: (file.size_bytes, file.modified) for file in listing if not file.reason}
    whole: list[StoredFile] = []
    in_part: list[Task] = []
    taken_over: set[str] = set()
    for file in previous.files:
        try:
            paths, stamps = _paths_and_stamps(previous, file)
        except DamagedFileError as error:
            logger.warning(str(error))
            continue
        unchanged = [
            i for i, (path, stamp) in enumerate(zip(paths, stamps, strict=True)) if listed.get(path) == stamp
        ]
        taken_over.update(paths[i] for i in unchanged)
        if len(unchanged) == file.n_rows:
            whole.append(file)
        elif unchanged:
            in_part.append(Task(copied=[(file.path, unchanged)]))
    kept, groups = kept_together(whole)
    together = [Task(copied=[(file.path, range(file.n_rows)) for file in group]) for group in groups]
    to_read = [file for file in listing if file.path not in taken_over]
    read = [Task(listed=part) for part in cut(to_read, lambda file: file.size_bytes, n_cores)]
    return Plan([*read, *in_part, *together, *(Task(kept=file) for file in kept)], len(to_read))


def _paths_and_stamps(table: StoredTable, file: StoredFile) -> tuple[list[str], list[tuple[int, int]]]:
    """Of each image in a file of the table: its path, and the size and time that its own file had."""
    uri = f"{table.uri}/{file.path}"
    refuse_damaged(uri)
    columns = ["path", "source_bytes", "modified"]
    rows = pa.Table.from_batches(batches_of([uri], columns), _schema_of(columns))
    stamps = zip(rows["source_bytes"].to_pylist(), rows["modified"].cast(pa.int64()).to_pylist(), strict=True)
    return rows["path"].to_pylist(), list(stamps)


def _schema_of(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([SCHEMA.field(name) for name in columns])


@dataclass(frozen=True)
class _Work:
    """What a worker does with a task."""

    source: str
    previous: str
    output: Output
    done: Accumulator[int]

    def __call__(self, task: Task) -> Done:
        if task.kept:
            return Done(task.kept, facts_of(f"{self.previous}/{task.kept.path}"), None, ())
        quarantine: list[dict[str, str]] = []
        with TableWriter(self.output, SCHEMA) as writer:
            rows = self._read(task.listed, quarantine) if task.listed else self._copied(task.copied)
            for batch in rows:
                writer.write(batch)
        images, set_aside = writer.file, None
        if quarantine:
            unreadable = pa.Table.from_pylist(quarantine, QUARANTINE_SCHEMA)
            set_aside = write_rows(self.output, unreadable, QUARANTINE)
        facts = facts_of(f"{self.output.asset}/{images.path}") if images else None
        return Done(images, facts, set_aside, quarantine[:_REASONS_SHOWN])

    def _read(
        self, files: Sequence[ListedFile], quarantine: list[dict[str, str]]
    ) -> Iterator[pa.RecordBatch]:
        """Row groups of the readable files; the other ones' reasons go to `quarantine`."""
        rows: list[dict[str, Any]] = []
        for row in image_rows(self.source, files):
            self.done.add(1)
            if "reason" in row:
                quarantine.append(row)
                continue
            rows.append(row)
            if sum(row["bytes"] for row in rows) >= ROW_GROUP_BYTES:
                yield pa.RecordBatch.from_pylist(rows, SCHEMA)
                rows = []
        if rows:
            yield pa.RecordBatch.from_pylist(rows, SCHEMA)

    def _copied(self, copied: Sequence[tuple[str, Sequence[int]]]) -> Iterator[pa.RecordBatch]:
        for path, numbers in copied:
            yield from rows_of(f"{self.previous}/{path}", SCHEMA.names, numbers)


def facts_of(uri: str) -> ImageFacts:
    """What the images of a stored file add up to, from its narrow columns."""
    per_label: Counter[str] = Counter()
    n_bytes = n_stripped = digest = 0
    paths = [np.empty(0, np.uint64)]
    for batch in batches_of([uri], ["path", "label", "sha256", "bytes", "stripped"]):
        columns = [batch[name].to_pylist() for name in ("path", "label", "sha256")]
        per_label.update(columns[1])
        n_bytes += sum(batch["bytes"].to_pylist())
        n_stripped += sum(batch["stripped"].to_pylist())
        for row in zip(*columns, strict=True):
            digest += int.from_bytes(hashlib.sha256("\0".join(row).encode()).digest())
        paths.append(row_keys(columns[0]))
    return ImageFacts(n_bytes, n_stripped, digest, per_label, np.concatenate(paths))


def describe_images(facts: Sequence[ImageFacts]) -> dict[str, Any]:
    """Count rows, duplicate paths, labels and bytes, and fold the content into one digest.

    The digest adds up a hash of each row, so that neither order nor files matter (AdHash: Bellare
    and Micciancio, "A New Paradigm for Collision-Free Hashing", 1997). Times are left out: a file that
    is copied again is the same data.
    """
    paths = np.concatenate([np.empty(0, np.uint64), *(part.paths for part in facts)])
    per_label: Counter[str] = Counter()
    for part in facts:
        per_label.update(part.per_label)
    return {
        "row_count": len(paths),
        "n_duplicate_paths": len(paths) - len(np.unique(paths)),
        "total_bytes": sum(part.n_bytes for part in facts),
        "n_stripped": sum(part.n_stripped for part in facts),
        "content_digest": hashlib.sha256(str(sum(part.digest for part in facts)).encode()).hexdigest(),
        "images_per_label": dict(sorted(per_label.items())),
    }


def _n_lost(last: StoredTable, facts: Sequence[ImageFacts]) -> int:
    """How many images of a version are not among these; of files that cannot be read, nobody knows."""
    paths = [np.empty(0, np.uint64)]
    for uri in last.uris:
        with suppress(DamagedFileError):
            paths += [row_keys(batch["path"].to_pylist()) for batch in batches_of([uri], ["path"])]
    return len(np.setdiff1d(np.concatenate(paths), np.concatenate([part.paths for part in facts])))


def _thumbnails(table: StoredTable, facts: Sequence[ImageFacts]) -> dict[str, list[str]]:
    """Label to the thumbnails, as base64 JPEG, of a few images, evenly spread over those of the label."""
    total: Counter[str] = Counter()
    for part in facts:
        total.update(part.per_label)
    wanted = {
        label: {i * total[label] // n for i in range(n)}
        for label in sorted(total)[:_THUMBNAIL_LABELS]
        for n in [min(_THUMBNAILS_PER_LABEL, total[label])]
    }
    seen: Counter[str] = Counter()
    found: dict[str, list[str]] = {label: [] for label in wanted}
    for uri, part in zip(table.uris, facts, strict=True):
        if any(
            not numbers.isdisjoint(range(seen[label], seen[label] + part.per_label.get(label, 0)))
            for label, numbers in wanted.items()
        ):
            numbers = Counter(seen)
            for batch in batches_of([uri], ["label", "thumbnail"]):
                for label, thumbnail in zip(batch["label"].to_pylist(), batch["thumbnail"], strict=True):
                    if numbers[label] in wanted.get(label, ()):
                        found[label].append(base64.b64encode(thumbnail.as_py()).decode())
                    numbers[label] += 1
        seen.update(part.per_label)
    return found
