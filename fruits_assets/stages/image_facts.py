"""What stored images are: how many, of which labels, which content; and a few of them to look at."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fruits_assets.stages.parquet import DamagedFileError, batches_of
from fruits_assets.stages.plan import row_keys
from fruits_assets.stages.stored import StoredTable

_THUMBNAIL_LABELS, _THUMBNAILS_PER_LABEL = 24, 8


@dataclass(frozen=True)
class ImageFacts:
    """What some images add up to; `paths` are the `row_keys` of their paths."""

    n_bytes: int
    n_stripped: int
    digest: int
    per_label: Mapping[str, int]
    paths: NDArray[np.uint64]


def facts_of(uri: str) -> ImageFacts:
    """What the images of a stored file add up to, from its narrow columns."""
    per_label: Counter[str] = Counter()
    n_bytes = n_stripped = digest = 0
    paths = [np.empty(0, np.uint64)]
    for batch in batches_of([uri], ["path", "label", "sha256", "bytes", "stripped"]):
        columns = [batch[name].to_pylist() for name in ("path", "label", "sha256")]
        per_label.update(columns[1])
        n_bytes += sum(batch["bytes"].to_pylist())
        n_stripped += sum(batch["stripped"].to_pylist())
        for row in zip(*columns, strict=True):
            digest += int.from_bytes(hashlib.sha256("\0".join(row).encode()).digest())
        paths.append(row_keys(columns[0]))
    return ImageFacts(n_bytes, n_stripped, digest, per_label, np.concatenate(paths))


def describe_images(facts: Sequence[ImageFacts]) -> dict[str, Any]:
    """Count rows, duplicate paths, labels and bytes, and fold the content into one digest.

    The digest adds up a hash of each row, so that neither order nor files matter (AdHash: Bellare
    and Micciancio, "A New Paradigm for Collision-Free Hashing", 1997). Times are left out: a file that
    is copied again is the same data.
    """
    paths = np.concatenate([np.empty(0, np.uint64), *(part.paths for part in facts)])
    per_label: Counter[str] = Counter()
    for part in facts:
        per_label.update(part.per_label)
    return {
        "row_count": len(paths),
        "n_duplicate_paths": len(paths) - len(np.unique(paths)),
        "total_bytes": sum(part.n_bytes for part in facts),
        "n_stripped": sum(part.n_stripped for part in facts),
        "content_digest": hashlib.sha256(str(sum(part.digest for part in facts)).encode()).hexdigest(),
        "images_per_label": dict(sorted(per_label.items())),
    }


def n_lost(last: StoredTable, facts: Sequence[ImageFacts]) -> int:
    """How many images of a version are not among these; of files that cannot be read, nobody knows."""
    paths = [np.empty(0, np.uint64)]
    for uri in last.uris:
        with suppress(DamagedFileError):
            paths += [row_keys(batch["path"].to_pylist()) for batch in batches_of([uri], ["path"])]
    return len(np.setdiff1d(np.concatenate(paths), np.concatenate([part.paths for part in facts])))


def thumbnails(table: StoredTable, facts: Sequence[ImageFacts]) -> dict[str, list[str]]:
    """Label to the thumbnails, as base64 JPEG, of a few images, evenly spread over those of the label."""
    total: Counter[str] = Counter()
    for part in facts:
        total.update(part.per_label)
    wanted = {
        label: {i * total[label] // n for i in range(n)}
        for label in sorted(total)[:_THUMBNAIL_LABELS]
        for n in [min(_THUMBNAILS_PER_LABEL, total[label])]
    }
    seen: Counter[str] = Counter()
    found: dict[str, list[str]] = {label: [] for label in wanted}
    for uri, part in zip(table.uris, facts, strict=True):
        if any(
            not numbers.isdisjoint(range(seen[label], seen[label] + part.per_label.get(label, 0)))
            for label, numbers in wanted.items()
        ):
            numbers = Counter(seen)
            for batch in batches_of([uri], ["label", "thumbnail"]):
                for label, thumbnail in zip(batch["label"].to_pylist(), batch["thumbnail"], strict=True):
                    if numbers[label] in wanted.get(label, ()):
                        found[label].append(base64.b64encode(thumbnail.as_py()).decode())
                    numbers[label] += 1
        seen.update(part.per_label)
    return found
