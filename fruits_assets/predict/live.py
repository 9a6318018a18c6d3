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

PHOTOS = "raw_images"
LOOK_EVERY_S = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A predictor and the photos that it knows; `names` of the versions of photos and classifier."""

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
        """Take what is published; a classifier that cannot be used leaves the one before it in use."""
        before, said = self._published, ""
        try:
            images = self._lake.current(PHOTOS)
            predictor = before.predictor if before else None
            names = images.name, before.names[1] if before else ""
            try:
                classifier = self._lake.current(CLASSIFIER)
                if classifier.name != names[1]:
                    predictor = Predictor.of(self._lake)
                    predictor.warm_up()
                    names = images.name, classifier.name
                    logger.warning("answers are by %s", predictor.versions)
            except (LakeError, StageInputError) as error:
                said = str(error)
            if predictor and (before is None or names != before.names):
                known = set(predictor.references.rows["sha256"].to_pylist())
                self._published = Published(predictor, LakePhotos(images.table, known), names)
        except (LakeError, StageInputError) as error:
            said = str(error)
        if said and said != self._said:
            logger.warning(said)
        self._said = said
