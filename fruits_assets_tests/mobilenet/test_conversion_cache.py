"""Weights are converted once by each user, whatever lake they are for; the demo's come converted."""

from __future__ import annotations

import hashlib
import shutil
from importlib import metadata
from pathlib import Path

import pytest

from fruits_assets.mobilenet import conversion_cache
from fruits_assets.mobilenet.conversion_cache import cache_folder, converted
from fruits_assets.mobilenet.convert import ConversionReport
from fruits_assets.mobilenet.extractor import FLATBUFFER
from fruits_assets.mobilenet.weights import DEMO, FLOAT32, INT8, WeightsError, check_source, identity


@pytest.fixture
def conversions(
    flatbuffer_folder: Path,
    network_report: ConversionReport,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """An empty cache, and the sources that are converted, which takes no time here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sources: list[str] = []

    def convert(source: str, folder: Path, log: object, precision: str) -> ConversionReport:
        sources.append(source)
        shutil.copytree(flatbuffer_folder, folder, dirs_exist_ok=True)
        return network_report

    monkeypatch.setattr(conversion_cache, "convert_in_own_process", convert)
    return sources


def ask(folder: Path, source: str = "untrained", precision: str = FLOAT32, **more: str) -> ConversionReport:
    folder.mkdir()
    return converted(identity(source, precision) | more, folder, print)


def test_the_second_lake_gets_what_the_first_one_got(
    conversions: list[str], tmp_path: Path, flatbuffer_folder: Path
) -> None:
    first, second = ask(tmp_path / "first"), ask(tmp_path / "second")
    assert conversions == ["untrained"]
    assert first == second
    wanted = (flatbuffer_folder / FLATBUFFER).read_bytes()
    assert (tmp_path / "second" / FLATBUFFER).read_bytes() == wanted


def test_other_weights_or_another_converter_are_converted(conversions: list[str], tmp_path: Path) -> None:
    ask(tmp_path / "a")
    ask(tmp_path / "b", sha256="of other weights")
    ask(tmp_path / "c", tensorflow="another release")
    ask(tmp_path / "d", precision=INT8)
    assert len(conversions) == 4


@pytest.mark.parametrize("name", [FLATBUFFER, "report.json"])
def test_what_is_damaged_is_converted_again(conversions: list[str], tmp_path: Path, name: str) -> None:
    ask(tmp_path / "a")
    (entry,) = cache_folder().iterdir()
    (entry / name).write_bytes(b"damaged")
    ask(tmp_path / "b")
    ask(tmp_path / "c")
    assert len(conversions) == 2


def test_a_cache_that_cannot_be_written_to_fails_nothing(
    conversions: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("in the way")
    ask(tmp_path / "a")
    ask(tmp_path / "b")
    assert len(conversions) == 2
    assert "not kept for other lakes" in capsys.readouterr().out


def test_only_a_few_are_kept(conversions: list[str], tmp_path: Path) -> None:
    for i in range(7):
        ask(tmp_path / str(i), sha256=str(i))
    assert len(list(cache_folder().iterdir())) == 4
    ask(tmp_path / "again", sha256="6")
    assert len(conversions) == 7


@pytest.fixture
def without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment of `make run`."""

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)


@pytest.mark.usefixtures("without_tensorflow")
def test_the_network_of_the_demo_needs_no_conversion_and_no_tensorflow(
    conversions: list[str], tmp_path: Path
) -> None:
    check_source(DEMO)
    report = ask(tmp_path / "a", DEMO)
    assert conversions == []
    assert report.precision == FLOAT32
    flatbuffer = (tmp_path / "a" / FLATBUFFER).read_bytes()
    assert hashlib.sha256(flatbuffer).hexdigest() == report.fingerprint


def test_a_damaged_network_of_the_demo_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(conversion_cache.BUNDLED, tmp_path / "bundled")
    with (tmp_path / "bundled" / FLATBUFFER).open("r+b") as file:
        file.write(b"damaged")
    monkeypatch.setattr(conversion_cache, "BUNDLED", tmp_path / "bundled")
    with pytest.raises(WeightsError, match=rf"{tmp_path}/bundled is damaged\. Install the package again"):
        ask(tmp_path / "a", DEMO)


@pytest.mark.usefixtures("without_tensorflow")
def test_what_has_to_be_converted_says_before_all_work_what_is_missing() -> None:
    way_out = r"TensorFlow, .* is not installed\. pip install 'fruits-assets\[keras\]', or set FRUITS_WEIGHTS"
    with pytest.raises(WeightsError, match=f"Weights 'imagenet': {way_out}"):
        check_source("imagenet")
    with pytest.raises(WeightsError, match=f"Weights 'demo': {way_out}"):
        identity(DEMO, INT8)
