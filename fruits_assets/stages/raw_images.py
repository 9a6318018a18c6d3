"""Read a tree of image files into a table: checked, without personal metadata, the bad ones set aside.

The listing plans the writes: a task reads a range of it and writes files of the table. The bytes of a
photo are in one worker and then in its file; Spark never moves, sorts or keeps them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark import Accumulator
from pyspark.sql import SparkSession

from fruits_assets.stages.image_facts import ImageFacts, describe_images, facts_of, n_lost, thumbnails
from fruits_assets.stages.image_plan import TO_READ_SCHEMA, Task, planned
from fruits_assets.stages.image_rows import QUARANTINE_SCHEMA, SCHEMA, image_rows
from fruits_assets.stages.listing import ListedFile, listing_of, too_few
from fruits_assets.stages.parquet import TableWriter, remove, rows_of, spread, write_rows
from fruits_assets.stages.plan import FILE_BYTES, LAST, PREVIOUS
from fruits_assets.stages.progress import progress
from fruits_assets.stages.stage import StageInputError, StageResult, column_types
from fruits_assets.stages.stored import ROWS, Output, Stored, StoredFile, StoredTable

QUARANTINE = "quarantine"
# Small enough that what reads the table again may start anywhere, and that a writer holds little.
ROW_GROUP_BYTES = 8 * 1024**2
_REASONS_SHOWN = 50


@dataclass(frozen=True)
class Params:
    """`source`: the folder or s3:// prefix that holds `<label>/<file>`.

    `inventory`: the manifest.json of an S3 Inventory report that stands for its listing, if any.
    """

    source: str
    inventory: str = ""


@dataclass(frozen=True)
class Done:
    """What a task wrote: files of images, what is in each, and a file of those that are not readable."""

    images: Sequence[StoredFile]
    facts: Sequence[ImageFacts]
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
    previous = inputs[PREVIOUS].table if PREVIOUS in inputs else StoredTable(output.asset, ())
    with listing_of(params.source, params.inventory) as listing:
        if len(listing.files) < 2:
            place = f" in the report '{params.inventory}'" if params.inventory else ""
            raise StageInputError(too_few(params.source, f"{len(listing.files)} image file(s){place}"))
        fingerprint = listing.fingerprint()
        plan = planned(previous, listing.files, output, spark.sparkContext.defaultParallelism)
    with progress(spark, "reading images", plan.n_to_read) as done:
        work = _Work(params.source, previous.uri, output, plan.to_read, plan.file_bytes, done)
        results = spread(spark, plan.tasks).map(work).collect()
    if plan.to_read:
        remove(plan.to_read)
    table = StoredTable(output.asset, [file for result in results for file in result.images])
    facts = [of_file for result in results for of_file in result.facts]
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
            "n_lost": n_lost(inputs[LAST].table, facts) if LAST in inputs else 0,
            "ignored": listing.said_of_ignored(),
            "listing": fingerprint,
            "thumbnails": thumbnails(table, facts),
        },
    )


@dataclass(frozen=True)
class _Work:
    """What a worker does with a task."""

    source: str
    previous: str
    output: Output
    to_read: str
    file_bytes: int
    done: Accumulator[int]

    def __call__(self, task: Task) -> Done:
        if task.kept:
            return Done([task.kept], [facts_of(f"{self.previous}/{task.kept.path}")], None, ())
        quarantine: list[dict[str, str]] = []
        if task.to_read:
            images = self._written(self._read(task.to_read, quarantine), self.file_bytes)
        else:
            images = self._written(self._copied(task.copied), FILE_BYTES)
        set_aside = None
        if quarantine:
            unreadable = pa.Table.from_pylist(quarantine, QUARANTINE_SCHEMA)
            set_aside = write_rows(self.output, unreadable, QUARANTINE)
        facts = [facts_of(f"{self.output.asset}/{file.path}") for file in images]
        return Done(images, facts, set_aside, quarantine[:_REASONS_SHOWN])

    def _written(self, rows: Iterator[pa.RecordBatch], file_bytes: int) -> list[StoredFile]:
        """The files that the rows have become, of hardly more than so many bytes each."""
        files = []
        for first in rows:
            with TableWriter(self.output, SCHEMA) as writer:
                room = file_bytes
                for batch in itertools.chain([first], rows):
                    writer.write(batch)
                    room -= batch.nbytes
                    if room <= 0:
                        break
            assert writer.file
            files.append(writer.file)
        return files

    def _read(self, numbers: range, quarantine: list[dict[str, str]]) -> Iterator[pa.RecordBatch]:
        """Row groups of the readable files; the other ones' reasons go to `quarantine`."""
        listed = rows_of(self.to_read, TO_READ_SCHEMA.names, numbers)
        files = (ListedFile(**file) for batch in listed for file in batch.to_pylist())
        rows: list[dict[str, Any]] = []
        for row in image_rows(self.source, files):
            self.done.add(1)
            if "reason" in row:
                quarantine.append(row)
                continue
            rows.append(row)
            if sum(row["bytes"] for row in rows) >= min(ROW_GROUP_BYTES, self.file_bytes):
                yield _emptied(rows)
            del row
        if rows:
            yield _emptied(rows)

    def _copied(self, copied: Sequence[tuple[str, Sequence[int]]]) -> Iterator[pa.RecordBatch]:
        for path, numbers in copied:
            yield from rows_of(f"{self.previous}/{path}", SCHEMA.names, numbers)


def _emptied(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    """The rows as Arrow has them; photos are held once."""
    batch = pa.RecordBatch.from_pylist(rows, SCHEMA)
    rows.clear()
    return batch
