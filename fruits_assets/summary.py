"""What a person wants to know after a run: `python -m fruits_assets.summary`."""

from __future__ import annotations

import pyarrow.parquet as pq

from fruits_assets.definitions import Settings, from_environment
from fruits_assets.resources.lake import Lake
from fruits_assets.stages.pca_features_csv import CSV, PARQUET

_ROWS, _COMPONENTS = 5, 4


def summary(lake: Lake) -> str:
    """Images per label, explained variance, where the results are and their first rows.

    Raises:
        LakeError: the graph has not been materialized.
    """
    images, network, model = map(lake.current, ("raw_images", "mobilenet_model", "pca_model"))
    lake.current("pca_features_csv")
    folder = lake.place("pca_features_csv")
    with (folder / PARQUET).open("rb") as file:
        table = pq.ParquetFile(file)
        labels = table.read(columns=["label"])["label"].value_counts().to_pylist()
        first_rows = next(table.iter_batches(_ROWS)).to_pylist()
    per_label = sorted((entry["values"], entry["counts"]) for entry in labels)
    facts = model.facts
    lines = [
        f"{images.row_count:,} images, {len(per_label)} labels, {images.facts['n_quarantined']} set aside",
        *(f"  {label:<20} {count:>7,}" for label, count in per_label),
        "",
        f"Network   MobileNetV2, weights: {network.facts['weights']}",
        f"PCA       {facts['n_components']} components explain "
        f"{100 * float(str(facts['total_explained_variance'])):.2f} % of the variance",
        f"Results   {folder / CSV}",
        f"          {folder / PARQUET}",
        "",
        *_table(first_rows),
    ]
    return "\n".join(lines)


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
    return str(value).replace("\n", "\\n")


def main() -> None:
    """Print the summary of the lake that the settings name."""
    print(f"\n{summary(Lake(root=from_environment(Settings).lake))}\n")


if __name__ == "__main__":
    main()
