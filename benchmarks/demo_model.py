"""How well the principal components tell fruits apart, with the trained demo weights and with untrained ones.

Every image is given the label of its nearest neighbour among all others (leave one out, Euclidean distance
over the columns pc_1 ... pc_k that the graph wrote): once for the bundled sample images, once for kinds of
fruit that the demo model has never seen, drawn by this command. Then the classifier of the sample images is
asked about those kinds: it should know none of them. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import cast

import dagster as dg
import numpy as np
import pyarrow.parquet as pq
from measuring import scratch_folder, table
from numpy.typing import NDArray

from fruits_assets.definitions import GRAPH, SAMPLE_IMAGES, Settings, resources
from fruits_assets.mobilenet.weights import DEMO, UNTRAINED
from fruits_assets.predict.predictor import Predictor
from fruits_assets.resources.lake import Lake
from fruits_assets.stages.pca_features_csv import PARQUET

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
from draw_sample_images import JPEG_QUALITY, draw
from held_out_kinds import HELD_OUT_KINDS

SIZE = 100
CLASSIFIER, RESULTS = "fruit_classifier", "pca_features_csv"
_CUTS = 20  # into training, validation and test: of one, the test photos are few


def draw_held_out(folder: Path, images_per_kind: int, seed: int) -> None:
    """Write `<label>/<number>.jpg` of the kinds that no model is trained on, posed like the sample images."""
    labels = [label for label in HELD_OUT_KINDS for _ in range(images_per_kind)]
    indices = [index for _ in HELD_OUT_KINDS for index in range(images_per_kind)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        list(
            processes.map(
                draw_one, repeat(folder), labels, indices, repeat(images_per_kind), repeat(seed), chunksize=8
            )
        )


def draw_one(folder: Path, label: str, index: int, images_per_kind: int, seed: int) -> None:
    """Write one image."""
    file = folder / label / f"{index}.jpg"
    file.parent.mkdir(parents=True, exist_ok=True)
    draw(HELD_OUT_KINDS[label], index, images_per_kind, SIZE, seed).save(file, quality=JPEG_QUALITY)


def pca_features(
    images: Path, weights: str, lake: Path
) -> tuple[NDArray[np.float64], NDArray[np.str_], float]:
    """Materialize the graph; return its components (n, k), the labels (n,) and the explained variance."""
    settings = Settings(images=str(images), lake=str(lake), weights=weights)
    dg.materialize(
        cast("Sequence[dg.AssetsDefinition]", GRAPH),
        resources=resources(settings),
        selection=dg.AssetSelection.assets(RESULTS).upstream(),
    )
    results = pq.read_table(lake / RESULTS / PARQUET)
    names = [name for name in results.column_names if name.startswith("pc_")]
    explained = Lake(root=str(lake)).current("pca_model").facts["total_explained_variance"]
    components = np.stack([results[name].to_numpy() for name in names], axis=1)
    return (
        components.astype(np.float64),
        np.array(results["label"].to_pylist()),
        float(cast(float, explained)),
    )


def nearest_neighbour_accuracy(points: NDArray[np.float64], labels: NDArray[np.str_]) -> float:
    """Share of the points (n, k) whose nearest other point has the same label."""
    squares = (points**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * points @ points.T
    np.fill_diagonal(distances, np.inf)
    return float((labels[distances.argmin(axis=1)] == labels).mean())


def refused(lake: Path, drawings: Path) -> dict[str, float]:
    """By the classifier of the sample images in a lake, cut again and again: the share called unlike any."""
    unknown, known = [], []
    contents = [file.read_bytes() for file in sorted(drawings.rglob("*.jpg"))]
    settings = Settings(images=str(SAMPLE_IMAGES), lake=str(lake))
    for seed in range(_CUTS):
        dg.materialize(
            cast("Sequence[dg.AssetsDefinition]", GRAPH),
            resources=resources(settings),
            selection=[CLASSIFIER],
            run_config={"ops": {CLASSIFIER: {"config": {"seed": seed}}}},
        )
        of_cut = Lake(root=str(lake))
        known.append(cast(float, of_cut.current(CLASSIFIER).facts["test_refused"]))
        predictor = Predictor.of(of_cut)
        unknown.append(np.mean([not predictor.predict(content).is_known for content in contents]))
    return {"unknown_refused": float(np.mean(unknown)), "known_refused": float(np.mean(known))}


def run(images_per_kind: int, seed: int, scratch: Path) -> dict[str, dict[str, float]]:
    """Accuracy by weights and images, and the explained variance of each graph."""
    draw_held_out(scratch / "held out", images_per_kind, seed)
    sources = {"sample_images": SAMPLE_IMAGES, "held_out_kinds": scratch / "held out"}
    figures: dict[str, dict[str, float]] = {}
    for weights in (DEMO, UNTRAINED):
        figures[weights] = {}
        for name, source in sources.items():
            points, labels, explained = pca_features(source, weights, scratch / weights / name)
            figures[weights][name] = nearest_neighbour_accuracy(points, labels)
            figures[weights][f"{name}_explained_variance"] = explained
    figures[CLASSIFIER] = refused(scratch / DEMO / "sample_images", scratch / "held out")
    return figures


def main() -> None:
    """Command line; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images-per-kind", type=int, default=24, help="of the kinds that are held out")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with scratch_folder() as scratch:
        figures = run(arguments.images_per_kind, arguments.seed, scratch)
    rows = [
        (name.replace("_", " "), [f"{100 * figures[weights][name]:.1f} %" for weights in (DEMO, UNTRAINED)])
        for name in ("sample_images", "held_out_kinds")
    ]
    print("\n" + table("nearest neighbour, leave one out", [DEMO, UNTRAINED], rows))
    of_classifier = figures[CLASSIFIER]
    rows = [
        ("of kinds that nothing was trained on", [f"{100 * of_classifier['unknown_refused']:.1f} %"]),
        ("of the test photos", [f"{100 * of_classifier['known_refused']:.1f} %"]),
    ]
    print(table(f"the classifier, over {_CUTS} cuts", ["called unlike any"], rows))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
