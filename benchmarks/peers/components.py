"""What all peers end with: features standardised, principal components, CSV. By scikit-learn."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

N_COMPONENTS = 100


def command_line(network: str) -> argparse.Namespace:
    """The arguments of every peer: `images`, `csv`, `network` and `draft`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path, help="folder that holds <label>/<file>.jpg")
    parser.add_argument("csv", type=Path, help="is written: path, label, pc_1 ...")
    parser.add_argument("network", help=network)
    parser.add_argument(
        "--draft", action="store_true", help="let libjpeg scale large photos while it decodes"
    )
    return parser.parse_args()


def write_components(images: Path, paths: Sequence[str], features: NDArray[np.float32], output: Path) -> None:
    """Standardise features (n, 1280), write their components as CSV; print the ratios of variance as JSON."""
    # The covariance is the exact way and, with more rows than columns, the fastest one.
    pca = PCA(min(N_COMPONENTS, len(paths) - 1), svd_solver="covariance_eigh")
    scores = pca.fit_transform(StandardScaler().fit_transform(features.astype(np.float64)))
    relative = [Path(path).relative_to(images) for path in paths]
    columns = {"path": [str(path) for path in relative], "label": [path.parent.name for path in relative]}
    numbered = {f"pc_{number}": column for number, column in enumerate(scores.T, start=1)}
    pyarrow.csv.write_csv(pa.table({**columns, **numbered}).sort_by("path"), output)
    print(json.dumps({"explained_variance_ratio": pca.explained_variance_ratio_.tolist()}))
