"""Files of tables: written whole or not at all, and never read as something else than was written."""

from __future__ import annotations

import errno
import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from pyspark.sql import SparkSession

from fruits_assets.stages.parquet import (
    DamagedFileError,
    TableWriter,
    batches_of,
    map_batches,
    opened,
    refuse_damaged,
    rows_of,
    shares,
    write_rows,
)
from fruits_assets.stages.stage import StageInputError
from fruits_assets.stages.stored import Output, StoredFile, StoredTable
from fruits_assets_tests.stages.running import flip_bit, stored_rows, truncate, write_table

SCHEMA = pa.schema([("path", pa.string()), ("label", pa.string()), ("values", pa.list_(pa.float32()))])


def rows(*numbers: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [{"path": f"{i:03}", "label": "kiwi", "values": [i, i + 0.5]} for i in numbers], SCHEMA
    )


def numbers_of(batches: Iterator[pa.RecordBatch]) -> list[list[int]]:
    """By batch."""
    return [[int(path) for path in batch["path"].to_pylist()] for batch in batches]


def all_numbers_of(batches: Iterator[pa.RecordBatch]) -> list[int]:
    return list(itertools.chain.from_iterable(numbers_of(batches)))


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(str(tmp_path / "asset"), "1")


def files_below(output: Output) -> list[str]:
    return [str(path) for path in Path(output.asset).rglob("*") if path.is_file()]


@pytest.fixture
def uri(output: Output) -> str:
    """A file of ten rows in groups of four, four and two."""
    with TableWriter(output, SCHEMA) as writer:
        for part in ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9)):
            writer.write(rows(*part))
    assert writer.file
    return f"{output.asset}/{writer.file.path}"


# Writing -----------------------------------------------------------------------------------------


def test_a_written_file_is_named_with_its_size_and_its_rows(output: Output) -> None:
    with TableWriter(output, SCHEMA) as writer:
        writer.write(rows(1, 2))
        writer.write(rows(3))
    assert writer.file
    assert writer.file.path.startswith("_versions/1/")
    (path,) = files_below(output)
    assert path == f"{output.asset}/{writer.file.path}"
    assert writer.file.size_bytes == Path(path).stat().st_size
    assert writer.file.n_rows == 3
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [2, 1]


def test_files_of_a_further_table_are_in_a_folder_of_that(output: Output) -> None:
    file = write_rows(output, pa.Table.from_batches([rows(1)]), "quarantine")
    assert files_below(output) == [f"{output.asset}/_quarantine/{file.path}"]
    assert file.path.startswith("1/")
    assert output.folder_of("quarantine") == f"{output.asset}/_quarantine"


def test_two_writers_of_one_version_do_not_meet(output: Output) -> None:
    table = pa.Table.from_batches([rows(1)])
    first, second = write_rows(output, table), write_rows(output, table)
    assert first.path != second.path
    assert len(files_below(output)) == 2


def fail_in_the_middle(writer: TableWriter) -> None:
    with writer:
        writer.write(rows(1, 2))
        raise RuntimeError("in the middle")


def test_a_task_that_fails_leaves_nothing(output: Output) -> None:
    writer = TableWriter(output, SCHEMA)
    with pytest.raises(RuntimeError, match="in the middle"):
        fail_in_the_middle(writer)
    assert writer.file is None
    assert files_below(output) == []


def write_two_rows(writer: TableWriter) -> None:
    with writer:
        writer.write(rows(1, 2))


def test_a_disk_that_is_full_at_the_end_leaves_nothing(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = TableWriter(output, SCHEMA)
    with monkeypatch.context() as patched:
        patched.setattr(pq.ParquetWriter, "close", full)
        with pytest.raises(OSError, match="No space left"):
            write_two_rows(writer)
    assert writer.file is None
    assert files_below(output) == []


def test_of_a_task_that_has_nothing_to_write_there_is_no_file(output: Output) -> None:
    with TableWriter(output, SCHEMA) as writer:
        pass
    assert writer.file is None
    assert files_below(output) == []


def test_a_table_without_rows_is_a_file_with_its_columns(output: Output) -> None:
    file = write_rows(output, SCHEMA.empty_table())
    assert file.n_rows == 0
    assert pq.read_table(f"{output.asset}/{file.path}").schema.equals(SCHEMA)


def test_pages_have_checksums_that_are_compared_when_they_are_read(uri: str) -> None:
    """Of any reader: one that is told not to look reads what is not what was written."""
    flip_bit(uri, "values")
    assert pq.read_table(uri)["values"].to_pylist()[-1] != [9, 9.5]
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(uri, page_checksum_verification=True)


def test_paths_have_the_statistics_that_ranges_are_planned_by(uri: str) -> None:
    metadata = pq.read_metadata(uri)
    groups = [metadata.row_group(i).column(0).statistics for i in range(3)]
    assert [(group.min, group.max) for group in groups] == [("000", "003"), ("004", "007"), ("008", "009")]


def test_pictures_are_not_compressed_a_second_time(output: Output) -> None:
    schema = pa.schema([("path", pa.string()), ("content", pa.binary()), ("thumbnail", pa.binary())])
    table = pa.Table.from_pylist([{"path": "1", "content": bytes(9999), "thumbnail": bytes(99)}], schema)
    group = pq.read_metadata(f"{output.asset}/{write_rows(output, table).path}").row_group(0)
    assert [group.column(i).compression for i in range(3)] == ["SNAPPY", "UNCOMPRESSED", "UNCOMPRESSED"]


# Reading -----------------------------------------------------------------------------------------


def test_batches_are_the_rows_of_the_files_in_order(uri: str, output: Output) -> None:
    second = f"{output.asset}/{write_rows(output, pa.Table.from_batches([rows(10, 11)])).path}"
    assert all_numbers_of(batches_of([uri, second], ["path"])) == list(range(12))
    assert max(map(len, numbers_of(batches_of([uri], ["path"], n_rows=3)))) <= 3
    (batch,) = batches_of([second], ["values"])
    assert batch.schema.names == ["values"]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0], [[0]]),
        ([9], [[9]]),
        ([1, 2, 5, 9], [[1, 2], [5], [9]]),
        ([4, 5, 6, 7], [[4, 5, 6, 7]]),
        (range(10), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]),
        ([3, 3, 4], [[3, 3], [4]]),
        ([1, 1, 2, 2, 2], [[1, 1, 2, 2, 2]]),
        ([], []),
    ],
)
def test_rows_are_found_by_their_numbers(uri: str, numbers: list[int], expected: list[list[int]]) -> None:
    assert numbers_of(rows_of(uri, ["path"], numbers)) == expected


@pytest.mark.parametrize("numbers", [[8, 8], [4, 4, 5, 5], [0, 0, 0, 0]])
def test_as_many_rows_as_a_group_has_are_not_always_all_of_them(uri: str, numbers: list[int]) -> None:
    """Two photos of the same content are two rows of one."""
    assert numbers_of(rows_of(uri, ["path"], numbers)) == [numbers]


def test_all_columns_of_a_row_belong_together(uri: str) -> None:
    (batch,) = rows_of(uri, SCHEMA.names, [5, 7])
    assert batch.to_pylist() == rows(5, 7).to_pylist()


# Damage ------------------------------------------------------------------------------------------


def read_batches(uri: str) -> None:
    list(batches_of([uri], SCHEMA.names))


def read_rows(uri: str) -> None:
    list(rows_of(uri, SCHEMA.names, range(10)))


def read_in_one_go(uri: str) -> None:
    with opened(uri) as file:
        file.read()


READERS = [read_batches, read_rows, read_in_one_go]


def flip_in_values(uri: str) -> None:
    flip_bit(uri, "values")


def flip_in_labels(uri: str) -> None:
    flip_bit(uri, "label")


def empty(uri: str) -> None:
    Path(uri).write_bytes(b"")


def overwrite(uri: str) -> None:
    Path(uri).write_text("path,label\n" * 100)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("damage", [truncate, empty, overwrite, flip_in_values, flip_in_labels])
def test_a_damaged_file_is_named_and_whoever_comes_next_sees_that_at_once(
    uri: str, damage: Callable[[str], None], read: Callable[[str], None]
) -> None:
    refuse_damaged(uri)
    damage(uri)
    refuse_damaged(uri)  # nobody has looked yet
    with pytest.raises(DamagedFileError, match=f"^'{uri}' is damaged \\("):
        read(uri)
    assert Path(f"{uri}.damaged").exists()
    with pytest.raises(DamagedFileError, match=f"^'{uri}' is damaged"):
        refuse_damaged(uri)


def flip_kind_of_first_page(uri: str) -> None:
    """In the header of a page, after the 4 bytes that every Parquet file begins with and a tag."""
    content = bytearray(Path(uri).read_bytes())
    content[5] ^= 1
    Path(uri).write_bytes(content)


def flip_name_of_column(uri: str) -> None:
    """In the description of the columns, at the end of the file."""
    content = bytearray(Path(uri).read_bytes())
    content[content.index(b"values")] ^= 1
    Path(uri).write_bytes(content)


@pytest.mark.parametrize("damage", [flip_kind_of_first_page, flip_name_of_column])
def test_damage_outside_of_what_has_checksums_is_not_read_as_fewer_rows_or_columns(
    output: Output, damage: Callable[[str], None]
) -> None:
    uri = f"{output.asset}/{write_rows(output, pa.Table.from_batches([rows(1, 2, 3)])).path}"
    damage(uri)
    with pytest.raises(DamagedFileError, match=f"^'{uri}' is damaged"):
        read_batches(uri)


@pytest.mark.parametrize("read", READERS)
def test_a_missing_file_is_named_and_needs_no_mark(uri: str, read: Callable[[str], None]) -> None:
    Path(uri).unlink()
    with pytest.raises(DamagedFileError, match=f"^'{uri}' is missing"):
        read(uri)
    assert not Path(f"{uri}.damaged").exists()


def test_damage_is_a_fault_of_the_input_and_says_what_makes_it_good(uri: str) -> None:
    truncate(uri)
    with pytest.raises(StageInputError, match="made anew when asset is materialized"):
        read_batches(uri)


def test_damage_in_columns_that_are_not_read_does_not_matter(uri: str) -> None:
    flip_bit(uri, "values")
    assert all_numbers_of(batches_of([uri], ["path", "label"])) == list(range(10))
    refuse_damaged(uri)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ECONNRESET, errno.ESTALE])
def test_a_fault_of_the_disk_or_the_network_is_passed_on_and_marks_no_file(
    uri: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "no way")

    with monkeypatch.context() as patched:
        patched.setattr(LocalFileSystem, "open", fail)
        with pytest.raises(OSError, match="no way") as caught:
            read_batches(uri)
    assert not isinstance(caught.value, DamagedFileError)
    assert caught.value.errno == number
    refuse_damaged(uri)


def test_a_fault_of_the_disk_while_a_file_is_being_read_does_not_mark_it_either(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(io.BytesIO):
        """Its end can be read, where the columns are described, and not its beginning, where they are."""

        def read(self, n_bytes: int | None = -1, /) -> bytes:
            if self.tell() < 100:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(n_bytes)

    # More than the 64 KB at the end that are read at first.
    many = [{"path": "1", "label": "kiwi", "values": list(range(50_000))}]
    uri = f"{output.asset}/{write_rows(output, pa.Table.from_pylist(many, SCHEMA)).path}"
    content = Path(uri).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(LocalFileSystem, "open", lambda *_: Failing(content))
        with opened(uri) as file:
            assert file.metadata.num_rows == 1
        with pytest.raises(OSError, match="Input/output error") as caught:
            read_batches(uri)
    assert caught.value.errno == errno.EIO
    refuse_damaged(uri)
    read_batches(uri)


def test_a_file_that_cannot_be_marked_is_reported_as_damaged_all_the_same(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    truncate(uri)
    monkeypatch.setattr(LocalFileSystem, "pipe_file", refuse)
    with pytest.raises(DamagedFileError, match="is damaged"):
        read_batches(uri)


def test_damage_on_s3_is_found_and_marked_as_in_a_folder(s3: str) -> None:
    boto3.client("s3").create_bucket(
        Bucket="cellar", CreateBucketConfiguration={"LocationConstraint": "eu-west-3"}
    )
    filesystem = fsspec.filesystem("s3")
    output = Output("s3://cellar/asset", "1")
    uri = f"{output.asset}/{write_rows(output, pa.Table.from_batches([rows(1, 2)])).path}"
    read_batches(uri)
    filesystem.pipe_file(uri, filesystem.cat_file(uri)[:200])
    with pytest.raises(DamagedFileError, match="is damaged"):
        read_batches(uri)
    with pytest.raises(DamagedFileError, match="is damaged"):
        refuse_damaged(uri)
    filesystem.rm(uri)
    with pytest.raises(DamagedFileError, match="is missing"):
        read_batches(uri)


# Tasks -------------------------------------------------------------------------------------------


def test_shares_are_all_files_once_and_about_equally_large(spark: SparkSession) -> None:
    n_cores = spark.sparkContext.defaultParallelism
    files = [StoredFile(f"{i:03}.parquet", 1000 * (i % 7 + 1), 1) for i in range(20 * n_cores)]
    divided = shares(spark, StoredTable("/table", files))
    assert sorted(file for share in divided for file in share) == files
    assert len(divided) == n_cores
    assert all(share == sorted(share) for share in divided)
    sizes = [sum(file.size_bytes for file in share) for share in divided]
    assert max(sizes) - min(sizes) <= 7000


def test_a_share_of_a_large_table_is_no_larger_than_a_task_should_be(spark: SparkSession) -> None:
    files = [StoredFile(f"{i:03}.parquet", 64 * 1024**2, 1) for i in range(100)]
    divided = shares(spark, StoredTable("/table", files))
    assert max(map(len, divided)) <= 2


@pytest.mark.parametrize("n_files", [0, 1])
def test_there_is_a_share_even_of_next_to_nothing(spark: SparkSession, n_files: int) -> None:
    files = [StoredFile("1.parquet", 10, 1)] * n_files
    assert shares(spark, StoredTable("/table", files)) == [files]


def test_tasks_get_every_row_once(spark: SparkSession, tmp_path: Path) -> None:
    table = write_table(tmp_path, *(pa.Table.from_batches([rows(*range(i, 50, 7))]) for i in range(7)))
    found = map_batches(spark, table, ["path"], all_numbers_of).collect()
    assert sorted(found) == list(range(50)) == sorted(int(row["path"]) for row in stored_rows(table))
