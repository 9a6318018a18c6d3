"""What a process that lives for long answers by."""

from __future__ import annotations

from pathlib import Path

import pytest

from fruits_assets.predict import live as live_module
from fruits_assets.predict.live import Live
from fruits_assets.resources.lake_reader import LakeReader
from fruits_assets_tests.graph import Graph
from fruits_assets_tests.predict.classifiers import publish_relabelled


@pytest.fixture(autouse=True)
def _looks_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "LOOK_EVERY_S", 0.0)


def test_a_lake_that_cannot_be_read_for_a_while_leaves_in_use_what_was(
    classified: Graph, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    graph = classified.copy(tmp_path)
    live = Live(LakeReader(str(graph.lake_root)))
    before = live.now()
    log = graph.lake_root / "raw_images" / "_delta_log"
    log.rename(tmp_path / "away")
    log.mkdir()
    (log / f"{0:020}.json").mkdir()
    caplog.clear()
    for _ in range(2):
        assert live.now() is before
    (said,) = caplog.messages
    assert f"'{graph.lake_root}' cannot be read" in said
    (log / f"{0:020}.json").rmdir()
    log.rmdir()
    (tmp_path / "away").rename(log)
    assert live.now() is before


def test_a_new_classifier_that_is_damaged_leaves_the_one_before_in_use(
    classified: Graph, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    graph = classified.copy(tmp_path)
    live = Live(LakeReader(str(graph.lake_root)))
    before = live.now()
    new = publish_relabelled(graph, {})
    classes = Path(new.folder, "classes.json")
    content = classes.read_bytes()
    classes.unlink()
    assert live.now() is before
    assert "Materialize fruit_classifier again" in caplog.messages[-1]
    classes.write_bytes(content)
    assert live.now().predictor.versions["fruit_classifier"] == new.number
