"""Contents of a report, made up: photos of one colour each, in clusters by label."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from fruits_assets.report.closeness import Outliers, ShapesInPasses, neighbours
from fruits_assets.report.page import Classifier, Contents, Made, Mistake, Pair, Quarantine
from fruits_assets.report.sampling import Photos

LABELS = ["Banana", "Kiwi", "Lemon"]


def color(photo: int, n_photos: int) -> tuple[int, int, int]:
    """Another one for each photo."""
    red, green, blue = colorsys.hsv_to_rgb(photo / n_photos, 0.9, 0.5 + 0.5 * (photo % 2))
    return round(255 * red), round(255 * green), round(255 * blue)


def jpeg(of: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, of).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def clusters(labels: Sequence[str], per_label: int, n_components: int = 4, seed: int = 1) -> Photos:
    """Photos of each label around a place of its own."""
    rng = np.random.default_rng(seed)
    places = rng.normal(0, 20, (len(labels), n_components))
    names = [label for label in labels for _ in range(per_label)]
    scores = np.repeat(places, per_label, axis=0) + rng.normal(0, 1.5, (len(names), n_components))
    paths = [f"{label}/{i}.jpg" for i, label in enumerate(names)]
    return Photos(paths, names, scores.astype(np.float32))


def contents(
    photos: Photos | None = None, thumbnails: Mapping[str, bytes] | None = None, classifier: bool = False
) -> Contents:
    """What a page of these photos shows, computed from them."""
    photos = photos or clusters(LABELS, 6)
    labels = sorted(set(photos.labels))
    n = len(photos)
    adding = ShapesInPasses(labels, photos.scores.shape[1])
    adding.add(photos)
    outliers = Outliers(adding.shapes(), 6)
    outliers.add(photos)
    near = neighbours(photos)

    def pairs(of_two_labels: bool) -> list[Pair]:
        return [
            Pair((photos.paths[i], photos.labels[i]), (photos.paths[j], photos.labels[j]), distance)
            for i, j, distance in near.pairs(of_two_labels, 4)
        ]

    made = Made(
        asset="pca_features_csv",
        version=3,
        published_at="2026-01-02T03:04:05.678+00:00",
        seconds=1.5,
        memory_mb=None,
        cost_usd=0.0123,
        remark="",
        code_version="2",
        data_version="abcdef0123456789",
        params={"layout": "columns"},
        libraries={"numpy": "2"},
    )
    return Contents(
        title=f"{n} photos of {len(labels)} labels",
        photos_of="Photos of a test.",
        made_at="1 January 2026",
        tiles=[("photos", str(n))],
        counts={label: photos.labels.count(label) for label in labels},
        ignored="none",
        quarantine=Quarantine(1, {"not an image": 1}, [{"path": "a/b.jpg", "label": "a", "reason": "empty"}]),
        drawn=photos,
        n_compared=n,
        nearest_has_same_label=near.share_with_same_label(photos.labels),
        thumbnails=thumbnails or {path: jpeg(color(i, n)) for i, path in enumerate(photos.paths)},
        explained_variance_ratio=[0.5, 0.3, 0.15, 0.05],
        n_components=3,
        levels={"80%": 2, "90%": 3},
        shapes=adding.shapes(),
        outliers=outliers.found(),
        pairs=pairs(False),
        pairs_of_two_labels=pairs(True),
        classifier=_classifier(photos, labels) if classifier else None,
        made=[made, replace(made, asset="raw_images", seconds=None, cost_usd=None)],
    )


def _classifier(photos: Photos, labels: Sequence[str]) -> Classifier:
    counts = 5 * np.eye(len(labels), dtype=np.int64)
    counts[0, -1] = 1
    mistake = Mistake(photos.paths[0], labels[0], labels[-1], 0.87)
    return Classifier(list(labels), counts, [("accuracy", "94.0 %")], [mistake])
