"""Who reads which file of the source, and what becomes of the files of the previous version."""

from __future__ import annotations

import itertools
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from fruits_assets.stages.image_rows import SCHEMA
from fruits_assets.stages.listing import ListedFile
from fruits_assets.stages.parquet import DamagedFileError, TableWriter, batches_of, refuse_damaged
from fruits_assets.stages.plan import cut, file_bytes, kept_together
from fruits_assets.stages.sorting import Sorted
from fruits_assets.stages.stage import logger
from fruits_assets.stages.stored import Output, StoredFile, StoredTable

TO_READ_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("size_bytes", pa.int64()),
        ("modified", pa.int64()),
        ("reason", pa.string()),
    ]
)
_LISTED_PER_GROUP = 4096
_BYTES_PER_IMAGE = 128 * 1024  # what one takes that has hardly any


@dataclass(frozen=True)
class Task:
    """What becomes one file of the new version.

    Either files of the source, by their numbers in the list of those to read; or files of the previous
    version, each with the numbers of the rows to be copied; or one of those as it is.
    """

    to_read: range = range(0)
    copied: Sequence[tuple[str, Sequence[int]]] = ()
    kept: StoredFile | None = None


@dataclass(frozen=True)
class Plan:
    """The tasks of a run; `to_read` is the URI of a list of the files of the source that have to be read.

    `file_bytes`: of photos that were read, so many go into a file of the table.
    """

    tasks: Sequence[Task]
    to_read: str
    n_to_read: int
    file_bytes: int


def planned(previous: StoredTable, listing: Sorted[ListedFile], output: Output, n_cores: int) -> Plan:
    """What becomes of the files of the previous version, and which files of the source are read by whom.

    Listing and previous version are gone through side by side, in the order of the paths: what is held is a
    number for each image, not its path.
    """
    unchanged: dict[StoredFile, array[int]] = {}
    sizes: array[int] = array("q")
    with tempfile.TemporaryDirectory() as folder, TableWriter(output, TO_READ_SCHEMA) as writer:
        stored = Sorted(_stored_stamps(previous, unchanged), Path(folder))
        to_read = _changed(listing, stored, list(unchanged.values()))
        while files := list(itertools.islice(to_read, _LISTED_PER_GROUP)):
            sizes.extend(0 if file.reason else file.size_bytes for file in files)
            rows = [file._asdict() for file in files]
            writer.write(pa.RecordBatch.from_pylist(rows, TO_READ_SCHEMA))
    whole = [file for file, numbers in unchanged.items() if len(numbers) == file.n_rows]
    in_part = [file for file, numbers in unchanged.items() if 0 < len(numbers) < file.n_rows]
    kept, groups = kept_together(whole)
    copies = [*([file] for file in in_part), *groups]
    return Plan(
        [
            *(Task(to_read=part) for part in cut(sizes, n_cores, _BYTES_PER_IMAGE)),
            *(
                Task(copied=[(file.path, array("I", sorted(unchanged[file]))) for file in files])
                for files in copies
            ),
            *(Task(kept=file) for file in kept),
        ],
        f"{output.asset}/{writer.file.path}" if writer.file else "",
        len(sizes),
        file_bytes(sum(sizes)),
    )


class _Stamp(NamedTuple):
    """What is known of the file of the source that a stored image comes from, and where the image is."""

    path: str
    size_bytes: int
    modified: int
    file: int
    row: int


def _stored_stamps(table: StoredTable, unchanged: dict[StoredFile, array[int]]) -> Iterator[_Stamp]:
    """Those of all images of a table; gives each file that can be read a place in `unchanged`."""
    columns = ["path", "source_bytes", "modified"]
    for file in table.files:
        uri = f"{table.uri}/{file.path}"
        try:
            refuse_damaged(uri)
            rows = pa.Table.from_batches(batches_of([uri], columns), _schema_of(columns))
        except DamagedFileError as error:
            logger.warning(str(error))
            continue
        number = len(unchanged)
        unchanged[file] = array("I")
        stamps = zip(
            rows["path"].to_pylist(),
            rows["source_bytes"].to_pylist(),
            rows["modified"].cast(pa.int64()).to_pylist(),
            strict=True,
        )
        for row, stamp in enumerate(stamps):
            yield _Stamp(*stamp, number, row)


def _changed(
    listing: Iterable[ListedFile], stored: Iterable[_Stamp], unchanged: Sequence[array[int]]
) -> Iterator[ListedFile]:
    """The listed files that are not as they were; the rows of the others go to `unchanged`."""
    stamps = iter(stored)
    stamp = next(stamps, None)
    for file in listing:
        while stamp is not None and stamp.path < file.path:
            stamp = next(stamps, None)
        if stamp is not None and stamp[:3] == file[:3] and file.reason is None:
            unchanged[stamp.file].append(stamp.row)
        else:
            yield file


def _schema_of(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([SCHEMA.field(name) for name in columns])
