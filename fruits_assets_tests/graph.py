"""A small graph, materialized once, and a way to materialize it elsewhere."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from fruits_assets.definitions import GRAPH, SAMPLE_IMAGES, Settings, resources
from fruits_assets.resources.lake import Lake

# Characters that have a meaning in CSV, in globs, in partition folders or in URIs.
ODD_NAMES = [
    "a b,c.jpg",
    'say "hi".jpg',
    "line\nbreak.jpg",
    "k=v.jpg",
    "100%20.jpg",
    "q?#*[1]{a,b}.jpg",
    "back\\slash.jpg",
    "naïve-ÅÄÖ-日本.jpg",
    "🍎.jpg",
    "'single';$.jpg",
]
PROJECT = Path(__file__).parents[1]
_PER_LABEL = 4
# Of the whole graph's source: of the seven labels of the samples, and the odd ones.
N_IMAGES = 7 * _PER_LABEL + len(ODD_NAMES)
# Untrained, the network tells fruits apart hardly better than by chance.
ANY_CLASSIFIER: dict[str, dict[str, Any]] = {
    "fruit_classifier": {"min_errors_avoided": 0.0, "min_accuracy": 0.0, "max_calibration_error": 1.0}
}


@dataclass
class Graph:
    """A source and a lake, to be materialized with the product's own resources; `keep` is for retention."""

    source: Path
    lake_root: Path
    weights: str = "untrained"
    keep: Mapping[str, int] = field(default_factory=dict)

    @property
    def lake(self) -> Lake:
        return Lake(root=str(self.lake_root))

    @property
    def results(self) -> Path:
        return self.lake_root / "pca_features_csv" / "results.csv"

    def materialize(
        self,
        selection: Sequence[str] | None = None,
        config: dict[str, dict[str, Any]] | None = None,
        **more: Any,
    ) -> dg.ExecuteInProcessResult:
        """Materialize, with whatever classifier; `config` is by asset, `more` is for Dagster."""
        everywhere = ANY_CLASSIFIER if selection is None or "fruit_classifier" in selection else {}
        of_graph = {"images": str(self.source), "lake": str(self.lake_root), "weights": self.weights}
        settings = Settings.model_validate({**of_graph, **self.keep})
        return dg.materialize(
            cast("Sequence[dg.AssetsDefinition]", GRAPH),
            resources=resources(settings),
            selection=selection,
            run_config=run_config({**everywhere, **(config or {})}),
            **more,
        )

    def copy(self, folder: Path) -> Graph:
        """The same, to be changed freely: everything in a lake is relative to it."""
        copied = Graph(folder / "source", folder / "lake", self.weights)
        shutil.copytree(self.source, copied.source, symlinks=True)
        shutil.copytree(self.lake_root, copied.lake_root, symlinks=True)
        # All that a lake knows of its source.
        before, after = (sha256(str(graph.source).encode()).hexdigest() for graph in (self, copied))
        for entry in copied.lake_root.glob("raw_images/_delta_log/*.json"):
            entry.write_text(entry.read_text().replace(before, after))
        return copied

    def rows(self, asset: str) -> pa.Table:
        """The published rows of an asset, by path where they have one."""
        tables = [pq.read_table(uri) for uri in self.lake.current(asset).table.uris]
        rows = pa.concat_tables(tables)
        return rows.sort_by("path") if "path" in rows.column_names else rows


def run_config(of_assets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A run's configuration, from that of assets by their names."""
    return {"ops": {asset: {"config": dict(values)} for asset, values in of_assets.items()}}


def write_run_config(file: Path, of_assets: Mapping[str, Mapping[str, Any]]) -> Path:
    """The same as a file, for a command."""
    file.write_text(yaml.dump(run_config(of_assets)))
    return file


def dagster_home(folder: Path) -> Path:
    """DAGSTER_HOME with the settings of `make run`, in a new folder; Dagster has made its databases there."""
    return Path(shutil.copytree(_first_home().name, folder))


@functools.cache
def _first_home() -> tempfile.TemporaryDirectory[str]:
    # To make them takes Dagster a second, from the second time on a twentieth of that.
    home = tempfile.TemporaryDirectory()
    shutil.copy(PROJECT / ".dagster_home" / "dagster.yaml", home.name)
    with dg.DagsterInstance.from_config(home.name):
        return home


def sample_source(folder: Path, images_per_label: int = _PER_LABEL) -> Path:
    """A few of the sample images of each label, and one label whose names are odd."""
    for label in sorted(SAMPLE_IMAGES.iterdir()):
        (folder / label.name).mkdir(parents=True)
        for file in sorted(label.glob("*.jpg"))[:images_per_label]:
            shutil.copy(file, folder / label.name)
    odd = folder / 'Ödd, "label" = 1'
    odd.mkdir()
    originals = sorted(SAMPLE_IMAGES.glob("Banana/*.jpg"))[images_per_label:]
    for name, original in zip(ODD_NAMES, originals, strict=False):
        shutil.copy(original, odd / name)
    return folder


@dataclass
class Materialized:
    """A graph after its first run, and what Dagster recorded of that: not to be changed, but copied."""

    graph: Graph
    events: Sequence[dg.DagsterEvent]

    def metadata(self, asset: str) -> dict[str, Any]:
        found = [event.materialization for event in self.events if event.is_step_materialization]
        (of_asset,) = [it for it in found if it.asset_key == dg.AssetKey(asset)]
        return {name: value.value for name, value in of_asset.metadata.items()}

    @property
    def is_success(self) -> bool:
        return any(event.is_job_success for event in self.events)

    @property
    def evaluations(self) -> Sequence[dg.AssetCheckEvaluation]:
        kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
        return [event.asset_check_evaluation_data for event in self.events if event.event_type == kind]


def materialized_once(root: Path) -> Materialized:
    """The whole graph over a few images, one of them broken, materialized for real, unless it has been."""
    graph, recorded = Graph(root / "source", root / "lake"), root / "events.json"
    if not recorded.exists():
        shutil.rmtree(root, ignore_errors=True)
        sample_source(graph.source)
        (graph.source / "Banana" / "broken.jpg").write_bytes(b"not an image")
        recorded.write_text(dg.serialize_value(graph.materialize().all_events))
    events = dg.deserialize_value(recorded.read_text(), list)
    return Materialized(graph, events)
