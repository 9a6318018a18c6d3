"""The options of Spark's JVM, and the archive of its classes."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from fruits_assets.resources import jvm


def test_an_archive_that_does_not_fit_is_passed_over_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "of another Java" / "spark.jsa"
    monkeypatch.setattr(jvm, "ARCHIVE", archive)
    without = jvm.java_options("-Done=1")
    archive.parent.mkdir()
    archive.write_bytes(bytes(100_000))
    options = jvm.java_options("-Done=1")
    assert set(shlex.split(options)) - set(shlex.split(without)) == {f"-XX:SharedArchiveFile={archive}"}
    done = subprocess.run(
        ["java", *shlex.split(options), "-version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "warning" not in done.stderr.lower()
    assert "version" in done.stderr
