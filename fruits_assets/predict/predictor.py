"""What fruit a photo shows, by the published network, scaler, components and classifier."""

from __future__ import annotations

import json
import queue
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from upath import UPath

from fruits_assets.mobilenet.extractor import FLATBUFFER, N_FEATURES, Extractor
from fruits_assets.photos.checking import checked
from fruits_assets.photos.decoding import IMAGE_SIZE, model_input
from fruits_assets.resources.lake_reader import LakeReader
from fruits_assets.resources.published import Version, refuse_damaged
from fruits_assets.stages.arrow import matrix
from fruits_assets.stages.parquet import batches_of
from fruits_assets.stages.scaling import SCALER, Scaling
from fruits_assets.stages.stored import StoredTable
from fruits_assets.terminal import native_code_says_nothing

CLASSIFIER = "fruit_classifier"
CLASSES = "classes.json"
REFERENCES = "references"
N_CANDIDATES = 4
N_SIMILAR = 4


@dataclass(frozen=True)
class Candidate:
    """A label, and how probable it is, 0 to 1."""

    label: str
    probability: float


@dataclass(frozen=True)
class SimilarPhoto:
    """A photo of the lake, and how far its component scores are from those asked about."""

    path: str
    label: str
    sha256: str
    distance: float


@dataclass(frozen=True)
class Prediction:
    """What is said of a photo.

    `candidates` are by falling probability, `similar` photos by rising distance.
    `scores` are the photo's on all components, as `pca_features_csv` has them.
    """

    candidates: Sequence[Candidate]
    similar: Sequence[SimilarPhoto]
    distance_threshold: float
    scores: NDArray[np.float64]

    @property
    def distance(self) -> float | None:
        """To the nearest photo of the lake; None where there is none left."""
        return self.similar[0].distance if self.similar else None

    @property
    def is_known(self) -> bool:
        """Whether the photo is like any that the classifier was trained on: otherwise it cannot be told."""
        return self.distance is not None and self.distance <= self.distance_threshold

    @property
    def label(self) -> str | None:
        """The fruit, if it is a known one."""
        return self.candidates[0].label if self.is_known else None


@dataclass(frozen=True)
class References:
    """Photos that the classifier was trained on: path, label and sha256 in `rows`.

    `scores` are (n_rows, n_components), `squares` (n_rows,) their scalar products with themselves.
    """

    rows: pa.Table
    scores: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def read(cls, table: StoredTable, n_components: int) -> Self:
        """All of them.

        Raises:
            DamagedFileError: a file is missing or not what was written.
        """
        names = ["path", "label", "sha256"]
        rows, scores = [], [np.empty((0, n_components))]
        for batch in batches_of(table.uris, [*names, "pca_features"]):
            rows.append(batch.select(names))
            scores.append(matrix(batch["pca_features"], n_components))
        schema = pa.schema([(name, pa.string()) for name in names])
        all_scores = np.concatenate(scores)
        squares = np.einsum("ij,ij->i", all_scores, all_scores)
        return cls(pa.Table.from_batches(rows, schema), all_scores, squares)

    def nearest(self, scores: NDArray[np.float64]) -> list[SimilarPhoto]:
        """The nearest photos by Euclidean distance, for scores (n_components,)."""
        # Squared, less the square of the scores, which is the same for all. Which photos are the nearest
        # follows from that, but not how far they are: large squares lose small distances.
        relative = self.squares - 2 * (self.scores @ scores)
        found = [
            SimilarPhoto(**row, distance=float(np.linalg.norm(self.scores[number] - scores)))
            for number in np.argsort(relative, kind="stable")[:N_SIMILAR].tolist()
            for row in self.rows.slice(number, 1).to_pylist()
        ]
        return sorted(found, key=lambda photo: photo.distance)


@dataclass(frozen=True)
class Classifier:
    """A multinomial logistic regression, and beyond which distance from all references it is not asked.

    `coefficients` are (n_labels, n_components), `intercepts` (n_labels,).
    """

    labels: Sequence[str]
    coefficients: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    distance_threshold: float

    def candidates(self, scores: NDArray[np.float64]) -> list[Candidate]:
        """The most probable labels, by the softmax of the margins, for scores (n_components,)."""
        margins = self.coefficients @ scores + self.intercepts
        raised = np.exp(margins - margins.max())
        probabilities = raised / raised.sum()
        best = np.argsort(-probabilities, kind="stable")[:N_CANDIDATES]
        return [Candidate(self.labels[i], float(probabilities[i])) for i in best]


@dataclass(frozen=True)
class Predictor:
    """One set of versions that belong together, in memory: nothing of the lake is read any more.

    May be used by several threads at once: there are as many interpreters of the network as that took.
    """

    versions: Mapping[str, int]
    network: bytes
    scaling: Scaling
    components: NDArray[np.float64]
    classifier: Classifier
    references: References
    _idle: queue.SimpleQueue[Extractor] = field(default_factory=queue.SimpleQueue, repr=False)

    @classmethod
    def of(cls, lake: LakeReader) -> Self:
        """The published classifier with what it was made of.

        Raises:
            LakeError: something is not there; says which asset to materialize.
        """
        classifier = lake.current(CLASSIFIER)
        refuse_damaged(classifier)
        used: dict[str, Version] = {CLASSIFIER: classifier}
        for asset, made_of in (
            ("scaled_features", CLASSIFIER),
            ("pca_model", CLASSIFIER),
            ("mobilenet_features", "scaled_features"),
            ("mobilenet_model", "mobilenet_features"),
        ):
            otherwise = f"Materialize {asset} and what follows from it, up to {CLASSIFIER}."
            used[asset] = lake.input_of(used[made_of], asset, otherwise)
        classes = json.loads((UPath(classifier.folder) / CLASSES).read_text(encoding="utf-8"))
        return cls(
            versions={asset: version.number for asset, version in used.items()},
            network=(UPath(used["mobilenet_model"].folder) / FLATBUFFER).read_bytes(),
            scaling=Scaling.saved(f"{used['scaled_features'].folder}/{SCALER}"),
            components=_components(used["pca_model"].table),
            classifier=Classifier(
                classes["labels"],
                np.array(classes["coefficients"], np.float64),
                np.array(classes["intercepts"], np.float64),
                classes["distance_threshold"],
            ),
            references=References.read(classifier.table_of(REFERENCES), classes["n_components"]),
        )

    def predict(self, content: bytes) -> Prediction:
        """What a photo shows, from the bytes of its file.

        Raises:
            UnusableImageError: the file would go to the quarantine; says why.
        """
        photo, _ = checked(content)
        scores = self.scores(model_input(photo))
        used = scores[: self.references.scores.shape[1]]
        return Prediction(
            self.classifier.candidates(used),
            self.references.nearest(used),
            self.classifier.distance_threshold,
            scores,
        )

    def warm_up(self) -> None:
        """Build the first interpreter before there is a photo; a process' first tells how it computes."""
        with native_code_says_nothing():
            self.scores(np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8))

    def scores(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Of (224, 224, 3) pixels, on all components, as the graph computes them."""
        try:
            extractor = self._idle.get_nowait()
        except queue.Empty:
            extractor = Extractor(self.network, batch_size=1)
        features = extractor.features([image]).astype(np.float64)
        self._idle.put(extractor)
        scores: NDArray[np.float64] = self.scaling.scaled(features)[0].astype(np.float64) @ self.components
        return scores


def _components(table: StoredTable) -> NDArray[np.float64]:
    """(n_features, n_components), by falling variance."""
    batches = list(batches_of(table.uris, ["component", "loadings"]))
    numbers = [number for batch in batches for number in batch["component"].to_pylist()]
    loadings = np.concatenate([matrix(batch["loadings"], N_FEATURES) for batch in batches])
    return np.ascontiguousarray(loadings[np.argsort(numbers)].T)
