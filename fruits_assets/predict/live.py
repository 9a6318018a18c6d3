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
    """A predictor and the photos that it knows; `names` of the versions of classifier and photos."""

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
            predictor, classifier_name = (before.predictor, before.names[0]) if before else (None, "")
            try:
                classifier = self._lake.current(CLASSIFIER)
                if classifier.name != classifier_name:
                    predictor, classifier_name = Predictor.of(self._lake), classifier.name
                    predictor.warm_up()
                    logger.warning("answers are by %s", predictor.versions)
            except (LakeError, StageInputError) as error:
                said = str(error)
            # Also of a classifier that stays: what is erased is not to be shown any more.
            images = self._lake.current(PHOTOS)
            names = classifier_name, images.name
            if predictor and (before is None or names != before.names):
                known = set(predictor.references.rows["sha256"].to_pylist())
                self._published = Published(predictor, LakePhotos(images.table, known), names)
        except (LakeError, StageInputError) as error:
            said = said or str(error)
        except Exception as error:  # fsspec's file systems share no class of errors
            said = f"The lake '{self._lake.root}' cannot be read: {type(error).__name__}: {error}"
        if said and said != self._said:
            logger.warning(said)
        self._said = said
