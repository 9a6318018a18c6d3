"""What a person wants to know after a run: `python -m fruits_assets.summary`."""

from __future__ import annotations

import os

import dagster as dg
import pyarrow.parquet as pq
from dagster import AssetCheckEvaluation

from fruits_assets.assets.materialization import REPORT_FILE
from fruits_assets.definitions import Settings, defs, lake
from fruits_assets.resources.lake import REPORT, Lake
from fruits_assets.resources.published import Version
from fruits_assets.settings import from_environment
from fruits_assets.stages.parquet import batches_of
from fruits_assets.stages.pca_features_csv import CSV, PARQUET
from fruits_assets.terminal import printable

_ROWS, _COMPONENTS = 5, 4


def summary(of: Lake) -> str:
    """Images per label, explained variance, where the results are and their first rows.

    Raises:
        LakeError: the graph has not been materialized.
    """
    images, network, model, classifier = map(
        of.current, ("raw_images", "mobilenet_model", "pca_model", "fruit_classifier")
    )
    of.current("pca_features_csv")
    folder = of.place("pca_features_csv")
    with (folder / PARQUET).open("rb") as file:
        table = pq.ParquetFile(file)
        labels = table.read(columns=["label"])["label"].value_counts().to_pylist()
        first_rows = next(table.iter_batches(_ROWS)).to_pylist()
    per_label = sorted((entry["values"], entry["counts"]) for entry in labels)
    facts = model.facts
    lines = [
        f"{images.row_count:,} images, {len(per_label)} labels, {images.facts['n_quarantined']} set aside",
        f"ignored: {images.facts['ignored']}",
        *(f"  {printable(label):<20} {count:>7,}" for label, count in per_label),
        "",
        f"Network   MobileNetV2, weights: {network.facts['weights']}",
        f"PCA       {facts['n_components']} components explain "
        f"{100 * float(str(facts['total_explained_variance'])):.2f} % of the variance",
        f"Results   {folder / CSV}",
        f"          {folder / PARQUET}",
        *([f"Report    {of.place(REPORT) / REPORT_FILE}"] if of.find(REPORT) else []),
        "",
        *_table(first_rows),
        "",
        *_classifier(classifier),
    ]
    return "\n".join(lines)


def _classifier(version: Version) -> list[str]:
    """How good it is, and what it says of one photo that it has not learned from: one that it gets right."""
    facts = version.facts
    accuracy, low, high = (
        f"{100 * float(str(facts[name])):.1f}" for name in ("accuracy", "accuracy_low", "accuracy_high")
    )
    lines = [
        f"Classifier {accuracy} % of {facts['n_test']} test photos right (95 %: {low} to {high} %), "
        f"{facts['n_labels']} labels"
    ]
    columns = ["path", "label", "share", "predicted", "probability"]
    rows = (row for batch in batches_of(version.table.uris, columns) for row in batch.to_pylist())
    right = (row for row in rows if row["share"] == "test" and row["predicted"] == row["label"])
    if example := min(right, key=lambda row: str(row["path"]), default=None):
        lines.append(
            f"Example    {printable(example['path'])} is {printable(example['predicted'])} "
            f"({100 * example['probability']:.1f} %)"
        )
    return lines


def _table(rows: list[dict[str, object]]) -> list[str]:
    """The first columns of the rows, aligned; a cell shows what is in the file, shortened."""
    names = list(rows[0])[: 2 + _COMPONENTS]
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "  ..."
        for line in cells
    ]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        return "[" + ", ".join(f"{number:.4f}" for number in value[:_COMPONENTS])
    return printable(str(value))


def failed_checks(instance: dg.DagsterInstance) -> list[str]:
    """The checks that did not pass when their asset was last looked at, with their numbers."""
    keys = sorted(defs.resolve_asset_graph().asset_check_keys)
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    lines = []
    for key in keys:
        event = records[key].event if key in records else None
        details = event.dagster_event.event_specific_data if event and event.dagster_event else None
        if isinstance(details, AssetCheckEvaluation) and not details.passed:
            numbers = ", ".join(f"{name} {value.value}" for name, value in details.metadata.items())
            lines.append(f"Check failed: {key.asset_key.to_user_string()} {key.name} ({numbers})")
    return lines


def main() -> None:
    """Print the summary of the lake that the settings name, and the failed checks of DAGSTER_HOME."""
    print(f"\n{summary(lake(from_environment(Settings)))}\n")
    if "DAGSTER_HOME" in os.environ:
        with dg.DagsterInstance.get() as instance:
            print("".join(f"{line}\n" for line in failed_checks(instance)))


if __name__ == "__main__":
    main()
