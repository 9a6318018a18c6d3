"""What the report shows, read from versions of the lake that belong together.

Of the photos, a block at a time is in memory, and a sample whose size does not grow with them. They are read
here, not in a stage: a page of some thousand photos is the work of one process, wherever the tables are, and
needs no cluster and no Spark.
"""

from __future__ import annotations

import heapq
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import fsspec
import numpy as np
import pyarrow as pa
from upath import UPath

from fruits_assets.photos.glimpse import glimpse
from fruits_assets.report.closeness import Neighbours, Outliers, ShapesInPasses, most_frequent, neighbours
from fruits_assets.report.page import (
    MAX_COMPONENTS,
    Classifier,
    Contents,
    Made,
    Mistake,
    Pair,
    Quarantine,
    shown_photos,
)
from fruits_assets.report.sampling import Photos, Sample, quotas
from fruits_assets.resources.lake import FACTS, Lake
from fruits_assets.resources.published import Version
from fruits_assets.stages.arrow import matrix
from fruits_assets.stages.parquet import batches_of, opened, row_group
from fruits_assets.stages.pca_features_csv import VECTOR_COLUMN
from fruits_assets.stages.pca_model import VARIANCE_LEVELS, components_for
from fruits_assets.stages.stored import StoredTable

# Every photo is compared with every other: 3 s of two cores, and 0.5 ms of drawing for each that is drawn.
MAX_COMPARED, MAX_DRAWN = 24_000, 3_000
# Of labels, what is kept takes a row of components each.
_MAX_SHAPES = 1000
_OUTLIERS, _PAIRS, _MISTAKES = 24, 12, 24
_QUARANTINE_SHOWN, _KINDS_SHOWN, _KINDS_COUNTED = 50, 12, 1000
# Of files that were set aside, so many are looked at once more, none that is larger.
_GLIMPSES, _GLIMPSE_BYTES, _GLIMPSE_PIXELS = 24, 8 * 1024**2, 64
_ROWS_PER_BLOCK = 4096
CLASSIFIER = "fruit_classifier"
_TEST = "test"  # the share of the photos that the classifier has not seen in any way


def belonging_together(lake: Lake) -> dict[str, Version]:
    """The current results and all that they were made of; the classifier, if it is of the same features.

    Raises:
        LakeError: something is not published, or what the results were made of is no longer kept.
    """
    results = lake.current("pca_features_csv")
    again = "Materialize {} and what follows from it again."

    def of(version: Version, asset: str) -> Version:
        return lake.input_of(version, asset, again.format(version.asset))

    scaled, model = of(results, "scaled_features"), of(results, "pca_model")
    features = of(scaled, "mobilenet_features")
    versions = [of(features, "raw_images"), of(features, "mobilenet_model"), features, scaled, model, results]
    classifier = lake.find(CLASSIFIER)
    if classifier is not None and all(
        used.asset not in classifier.inputs or classifier.was_made_of(used) for used in versions
    ):
        versions.append(classifier)
    return {version.asset: version for version in versions}


def contents_of(
    versions: Mapping[str, Version], photos_of: str, source: str, instance: dg.DagsterInstance
) -> Contents:
    """Everything for the page.

    Args:
        photos_of: whose photos these are, for people.
        source: where files that were set aside are still to be found; "" if that is not known.

    Raises:
        DamagedFileError: a file of a table is not what was written.
    """
    raw, model, results = (versions[name] for name in ("raw_images", "pca_model", "pca_features_csv"))
    counts = _counts(results.table)
    n_photos, n_components = sum(counts.values()), min(MAX_COMPONENTS, int(model.facts["n_components"]))
    shapes = ShapesInPasses(most_frequent(counts, _MAX_SHAPES), n_components)
    for block in _blocks(results, n_components):
        shapes.add(block)
    outliers = Outliers(shapes.shapes(), _OUTLIERS)
    sample = Sample(quotas(counts, MAX_COMPARED))
    for block in _blocks(results, n_components):
        outliers.add(block)
        sample.add(block)
    compared = sample.photos()
    near = neighbours(compared)
    quarantine = _quarantine(raw.table_of("quarantine"))
    ratios = _explained_variance_ratio(model)
    contents = Contents(
        title=f"{n_photos:,} photos of {len(counts):,} labels",
        photos_of=photos_of,
        made_at=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0"),
        tiles=_tiles(versions, n_photos, len(counts)),
        counts=counts,
        ignored=str(raw.facts["ignored"]),
        quarantine=quarantine,
        drawn=compared.of(quotas(counts, MAX_DRAWN)),
        n_compared=len(compared),
        nearest_has_same_label=near.share_with_same_label(compared.labels),
        thumbnails=_glimpses(source, quarantine) if source else {},
        explained_variance_ratio=ratios,
        n_components=int(model.facts["n_components"]),
        levels=_levels(ratios),
        shapes=shapes.shapes(),
        outliers=outliers.found(),
        pairs=_pairs(compared, near, of_two_labels=False),
        pairs_of_two_labels=_pairs(compared, near, of_two_labels=True),
        classifier=_classifier(versions[CLASSIFIER]) if CLASSIFIER in versions else None,
        made=[_made(version, instance) for version in versions.values()],
    )
    thumbnails = _thumbnails(raw.table, set(shown_photos(contents)))
    return replace(contents, thumbnails={**contents.thumbnails, **thumbnails})


def _counts(results: StoredTable) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for batch in batches_of(results.uris, ["label"]):
        counts.update(batch["label"].to_pylist())
    return dict(sorted(counts.items()))


def _blocks(results: Version, n_components: int) -> Iterator[Photos]:
    """All photos with their first components, in either layout of the file."""
    columns = [f"pc_{i}" for i in range(1, n_components + 1)]
    if VECTOR_COLUMN in results.schema:
        columns = [VECTOR_COLUMN]
    for batch in batches_of(results.table.uris, ["path", "label", *columns], _ROWS_PER_BLOCK):
        if columns == [VECTOR_COLUMN]:
            lists = batch[VECTOR_COLUMN]
            scores = matrix(lists, len(lists[0]))[:, :n_components]
        else:
            scores = np.column_stack([batch[name].to_numpy(zero_copy_only=False) for name in columns])
        yield Photos(batch["path"].to_pylist(), batch["label"].to_pylist(), scores.astype(np.float32))


def _tiles(versions: Mapping[str, Version], n_photos: int, n_labels: int) -> list[tuple[str, str]]:
    raw, network, model = (versions[name].facts for name in ("raw_images", "mobilenet_model", "pca_model"))
    n_quarantined = versions["raw_images"].table_of("quarantine").n_rows
    return [
        ("photos", f"{n_photos:,}"),
        ("labels", f"{n_labels:,}"),
        ("set aside", f"{n_quarantined:,}"),
        ("data", f"{float(str(raw['total_bytes'])) / 1e6:,.1f} MB"),
        ("personal metadata taken out of", f"{raw['n_stripped']:,} photos"),
        ("components", f"{model['n_components']:,}"),
        ("variance they explain", f"{100 * float(str(model['total_explained_variance'])):.2f} %"),
        ("network's weights", str(network["weights"]).split(" (")[0]),
    ]


def _quarantine(table: StoredTable) -> Quarantine:
    first: list[dict[str, str]] = []
    kinds: Counter[str] = Counter()
    for batch in batches_of(table.uris, ["path", "label", "reason"]):
        rows = batch.to_pylist()
        first += rows[: _QUARANTINE_SHOWN - len(first)]
        for row in rows:
            # The same reason with other numbers, or another name, is the same kind.
            kind = re.sub(r"\s*\(.*|:.*|'[^']*'", "", re.sub(r"\d[\d,.]*", "n", row["reason"])).strip()
            if kind in kinds or len(kinds) < _KINDS_COUNTED:
                kinds[kind] += 1
    return Quarantine(table.n_rows, dict(kinds.most_common(_KINDS_SHOWN)), first)


def _glimpses(source: str, quarantine: Quarantine) -> dict[str, bytes]:
    """What can be seen of the first files that were set aside, as far as they are still there."""
    filesystem, root = fsspec.url_to_fs(source)
    seen: dict[str, bytes] = {}
    for row in quarantine.first[:_GLIMPSES]:
        place = f"{root.rstrip('/')}/{row['path']}"
        with suppress(OSError):
            if filesystem.size(place) <= _GLIMPSE_BYTES:
                thumbnail = glimpse(filesystem.cat_file(place), _GLIMPSE_PIXELS)
                seen.update({row["path"]: thumbnail} if thumbnail else {})
    return seen


def _explained_variance_ratio(model: Version) -> list[float]:
    """Of all components that there are; where an erasure has left no facts, of those that were kept."""
    facts = UPath(model.folder) / FACTS
    if facts.exists():
        return list(json.loads(facts.read_text(encoding="utf-8"))["all_explained_variance_ratios"])
    column = "explained_variance_ratio"
    return [ratio for batch in batches_of(model.table.uris, [column]) for ratio in batch[column].to_pylist()]


def _levels(ratios: Sequence[float]) -> dict[str, int]:
    """How many components explain so much, where they do."""
    explained = np.cumsum(ratios)[-1]
    reached = [level for level in VARIANCE_LEVELS if explained >= level - 1e-12]
    return {f"{level:.0%}": components_for(np.asarray(ratios), level) for level in reached}


def _pairs(photos: Photos, near: Neighbours, of_two_labels: bool) -> list[Pair]:
    def named(photo: int) -> tuple[str, str]:
        return photos.paths[photo], photos.labels[photo]

    return [Pair(named(i), named(j), distance) for i, j, distance in near.pairs(of_two_labels, _PAIRS)]


def _thumbnails(images: StoredTable, paths: set[str]) -> dict[str, bytes]:
    """Those of some photos; row groups that have none of them are not read."""
    found: dict[str, bytes] = {}
    for uri in images.uris:
        with opened(uri) as file:
            for number in range(file.num_row_groups):
                names = row_group(file, number, ["path"])["path"].to_pylist()
                if paths.isdisjoint(names):
                    continue
                thumbnails = row_group(file, number, ["thumbnail"])["thumbnail"]
                for i, name in enumerate(names):
                    if name in paths:
                        found[name] = thumbnails[i].as_py()
    return found


def _classifier(version: Version) -> Classifier:
    """Of the photos that it was tested with: which label was taken for which how often, the surest errors."""
    counts: Counter[tuple[str, str]] = Counter()
    worst: list[tuple[float, str, str, str]] = []
    for batch in batches_of(version.table.uris, ["path", "label", "share", "predicted", "probability"]):
        for row in batch.to_pylist():
            if row["share"] != _TEST:
                continue
            counts[row["label"], row["predicted"]] += 1
            if row["label"] != row["predicted"]:
                found = (row["probability"], row["path"], row["label"], row["predicted"])
                (heapq.heappush if len(worst) < _MISTAKES else heapq.heappushpop)(worst, found)
    labels = sorted({label for pair in counts for label in pair})
    numbers = {label: i for i, label in enumerate(labels)}
    square = np.zeros((len(labels), len(labels)), np.int64)
    for (label, predicted), n in counts.items():
        square[numbers[label], numbers[predicted]] = n
    return Classifier(
        labels,
        square,
        _facts_of_classifier(version.facts),
        [
            Mistake(path, label, predicted, probability)
            for probability, path, label, predicted in sorted(worst, reverse=True)
        ],
    )


def _facts_of_classifier(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = [
        ("accuracy", f"{100 * facts['accuracy']:.1f} %"),
        ("macro F1", f"{facts['macro_f1']:.3f}"),
        ("photos tested", f"{facts['n_test']:,}"),
        ("photos trained with", f"{facts['n_training']:,}"),
    ]
    if "accuracy_low" in facts:
        low, high = 100 * facts["accuracy_low"], 100 * facts["accuracy_high"]
        shown.insert(1, ("accuracy, 95 % interval", f"{low:.1f} to {high:.1f} %"))
    return shown


def _made(version: Version, instance: dg.DagsterInstance) -> Made:
    """What it took, by Dagster's records of the run that made it, where these are at hand."""
    seconds, metadata = _recorded(version, instance)
    facts, remark = version.facts, ""
    if "images_per_s" in facts:
        remark = f"{facts['images_per_s']:,.0f} photos/s; {facts['n_computed']:,} computed"
    return Made(
        asset=version.asset,
        version=version.number,
        published_at=version.published_at,
        seconds=seconds,
        memory_mb=metadata.get("peak_memory_mb"),
        cost_usd=metadata.get("estimated_step_cost", metadata.get("estimated_cost")),
        remark=remark,
        code_version=version.code_version,
        data_version=version.data_version,
        params={name: value for name, value in version.params.items() if name != "source_sha256"},
        libraries=version.libraries,
    )


def _recorded(version: Version, instance: dg.DagsterInstance) -> tuple[float | None, dict[str, Any]]:
    """How long the asset's step took, and what its materialization told, in the run that made the version."""
    events = instance.get_records_for_run(
        version.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
    ).records
    told: dict[str, Any] = {}
    seconds = None
    for record in events:
        materialization = record.event_log_entry.asset_materialization
        if materialization and materialization.asset_key == dg.AssetKey(version.asset):
            told = {name: value.value for name, value in materialization.metadata.items()}
            key = record.event_log_entry.step_key
            for step in instance.get_run_step_stats(version.run_id, [key] if key else None):
                if step.start_time and step.end_time:
                    seconds = step.end_time - step.start_time
    return seconds, told


def rows_of(contents: Contents) -> pa.Table:
    """Whose photos the page names or shows: path, label, and whether in the scatter plot."""
    labels = _labels(contents)
    drawn = set(contents.drawn.paths)
    paths = list(labels)
    return pa.table(
        {
            "path": pa.array(paths, pa.string()),
            "label": pa.array([labels[path] for path in paths], pa.string()),
            "drawn": [path in drawn for path in paths],
        }
    )


def _labels(contents: Contents) -> dict[str, str]:
    pairs: Sequence[Pair] = (*contents.pairs, *contents.pairs_of_two_labels)
    worst = contents.classifier.worst if contents.classifier else ()
    return {
        **{row["path"]: row["label"] for row in contents.quarantine.first},
        **dict(zip(contents.drawn.paths, contents.drawn.labels, strict=True)),
        **{outlier.path: outlier.label for outlier in contents.outliers},
        **{path: label for pair in pairs for path, label in (pair.first, pair.second)},
        **{mistake.path: mistake.label for mistake in worst},
    }
