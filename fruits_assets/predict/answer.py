"""What is said of a photo, to programs and to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fruits_assets.predict.predictor import Prediction

UNKNOWN = "I don't know this one"
# Of a probability of at least so much, and of any less.
_CERTAINTY = ((0.95, "very sure"), (0.75, "fairly sure"), (0.0, "not sure"))


def certainty(probability: float) -> str:
    """A probability, 0 to 1, in words."""
    return next(words for at_least, words in _CERTAINTY if probability >= at_least)


def for_programs(prediction: Prediction, versions: Mapping[str, int]) -> dict[str, Any]:
    """As JSON has it.

    `label`, `probability` and `certainty` are null where the photo is not `known`, being unlike all that the
    classifier was trained on; the `runners_up` are then what it would say otherwise. `similar` photos are of
    the lake, `distance` is that to the first of them.
    """
    first = prediction.candidates[0] if prediction.is_known else None
    return {
        "known": prediction.is_known,
        "label": first and first.label,
        "probability": first and first.probability,
        "certainty": first and certainty(first.probability),
        "runners_up": [
            {"label": candidate.label, "probability": candidate.probability}
            for candidate in prediction.candidates[1 if first else 0 :]
        ],
        "similar": [
            {"path": photo.path, "label": photo.label, "sha256": photo.sha256, "distance": photo.distance}
            for photo in prediction.similar
        ],
        "distance": prediction.distance,
        "distance_threshold": prediction.distance_threshold,
        "versions": dict(versions),
    }
