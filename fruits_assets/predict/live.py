"""What the lake has published by now, for a process that lives for long."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from fruits_assets.predict.lake_photos import LakePhotos
from fruits_assets.predict.predictor import CLASSIFIER, Predictor
from fruits_assets.resources.files import LakeError
from fruits_assets.resources.lake_reader import LakeReader
from fruits_assets.stages.stage import StageInputError

LOOK_EVERY_S = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A predictor, pictures of the photos that it knows, and the names of the versions that these are of."""

    predictor: Predictor
    photos: LakePhotos
    names: tuple[str, str]


class Live:
    """The published classifier, looked for again every two seconds; for several threads."""

    def __init__(self, lake: LakeReader) -> None:
        self._lake = lake
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._published: Published | None = None
        self._said = ""

    def now(self) -> Published:
        """What is published. While a new version is read, others get the one before it.

        Raises:
            LakeError: there is none that can be used; says what to materialize.
        """
        is_due = time.monotonic() - self._looked >= LOOK_EVERY_S
        if (is_due or self._published is None) and self._lock.acquire(blocking=self._published is None):
            try:
                if time.monotonic() - self._looked >= LOOK_EVERY_S:
                    self._look()
                    self._looked = time.monotonic()
            finally:
                self._lock.release()
        if self._published is None:
            raise LakeError(self._said)
        return self._published

    def _look(self) -> None:
        """Take what is published; where it cannot be used, what was used before stays."""
        try:
            versions = self._lake.current(CLASSIFIER), self._lake.current("raw_images")
            names = versions[0].name, versions[1].name
            if self._published is None or self._published.names != names:
                predictor = Predictor.of(self._lake)
                known = set(predictor.references.rows["sha256"].to_pylist())
                photos = LakePhotos(versions[1].table, known)
                predictor.warm_up()
                self._published = Published(predictor, photos, names)
                logger.warning("answers are by %s", predictor.versions)
            self._said = ""
        except (LakeError, StageInputError) as error:
            if str(error) != self._said:
                logger.warning(str(error))
            self._said = str(error)
