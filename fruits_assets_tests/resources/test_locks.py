"""Marks of what is under way."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import BinaryIO

import pytest

from fruits_assets.resources.locks import held, is_held


def test_a_mark_is_held_until_the_last_one_lets_go_and_is_gone_then(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with held(mark):
        with held(mark):
            assert is_held(mark)
        assert is_held(mark)
    assert not is_held(mark)
    assert list(tmp_path.iterdir()) == []


def test_a_mark_that_a_dead_process_has_left_is_not_held_and_can_be(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    assert not is_held(mark)
    with held(mark):
        assert is_held(mark)
    assert list(tmp_path.iterdir()) == []


def test_a_mark_is_not_seen_before_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "mark"
    lock, was_there = fcntl.flock, []

    def locking(file: BinaryIO, operation: int) -> None:
        was_there.append(mark.exists())
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", locking)
    with held(mark):
        assert was_there == [False]


def test_of_a_mark_that_is_removed_just_before_it_is_held_another_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    lock = fcntl.flock

    def removing(file: BinaryIO, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        mark.unlink()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", removing)
    with held(mark):
        assert is_held(mark)
