"""`fruits predict`: what fruit is on photos, one after the other."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.predict.answer import UNKNOWN, certainty, for_programs
from fruits_assets.predict.predictor import Prediction, Predictor
from fruits_assets.resources.files import LakeError
from fruits_assets.resources.lake_reader import LakeReader
from fruits_assets.settings import LakeSettings, from_environment
from fruits_assets.stages.image_rows import content_of
from fruits_assets.stages.listing import ListedFile, local_file, local_files
from fruits_assets.stages.stage import StageInputError
from fruits_assets.terminal import printable

_DESCRIPTION = "Tell what fruit is on photos, by the classifier that the lake of FRUITS_LAKE has published."
_EPILOG = "Exit status: 0; 1 if a file is no usable photo, or the lake has no classifier."


def main(arguments: Sequence[str]) -> int:
    """Print what is on the photos; returns the exit status."""
    parser = argparse.ArgumentParser("fruits predict", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("photo", nargs="+", help="a photo, or a folder whose photos are meant, at any depth")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each photo")
    options = parser.parse_args(arguments)
    try:
        lake = LakeReader(from_environment(LakeSettings).lake)
        predictor = Predictor.of(lake)
        predictor.warm_up()
        n_photos = n_bad = 0
        for file, answer in predicted(predictor, found(options.photo)):
            n_photos += 1
            n_bad += isinstance(answer, str)
            _tell(file, answer, predictor, as_json=options.json)
        if not n_photos:
            print("No photo there.", file=sys.stderr)
        elif not options.json and n_photos > n_bad:
            said = ", ".join(f"{asset} {number}" for asset, number in predictor.versions.items())
            print(f"\nBy {said} of {printable(str(lake.path))}")
        sys.stdout.flush()
    except (LakeError, StageInputError) as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # of `fruits predict ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return 1 if n_bad or not n_photos else 0


def found(arguments: Iterable[str]) -> Iterator[tuple[str, ListedFile]]:
    """The photos meant, each with the folder that its path is relative to; those of a folder are sorted."""
    for argument in arguments:
        if not os.path.isdir(argument):
            yield "", local_file("", argument)
            continue
        for file in sorted(local_files(argument, Counter())):
            yield argument, file


def predicted(
    predictor: Predictor, files: Iterable[tuple[str, ListedFile]]
) -> Iterator[tuple[str, Prediction | str]]:
    """Of each file, in order, its path and what is on it, or the reason why that cannot be told.

    A thread for each core decodes and infers, which Python's lock is not held for; few files are ahead.
    """

    def answer(folder: str, file: ListedFile) -> Prediction | str:
        try:
            return predictor.predict(content_of(file, Path(folder, file.path).read_bytes))
        except UnusableImageError as error:
            return str(error)

    n_threads = os.cpu_count() or 1
    waiting: deque[tuple[str, Future[Prediction | str]]] = deque()
    with ThreadPoolExecutor(n_threads) as threads:
        try:
            for folder, file in files:
                waiting.append((os.path.join(folder, file.path), threads.submit(answer, folder, file)))
                if len(waiting) > 2 * n_threads:
                    path, future = waiting.popleft()
                    yield path, future.result()
            for path, future in waiting:
                yield path, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _tell(path: str, answer: Prediction | str, predictor: Predictor, as_json: bool) -> None:
    if as_json:
        told: dict[str, Any] = {"path": path}
        if isinstance(answer, str):
            told["reason"] = answer
        else:
            told |= for_programs(answer, predictor.versions)
        print(json.dumps(told))
    elif isinstance(answer, str):
        print(f"{printable(path)}: {printable(answer)}", file=sys.stderr)
    else:
        print("\n".join(_for_people(path, answer)))


def _for_people(path: str, answer: Prediction) -> Iterator[str]:
    """Some lines, of which nothing can write anywhere but on them."""
    first, *others = answer.candidates
    if answer.is_known:
        said = f"{printable(first.label)}, {first.probability:.1%} ({certainty(first.probability)})"
    else:
        said = UNKNOWN
    yield f"{printable(path)}: {said}"
    if answer.is_known and others:
        yield "    or " + ", ".join(f"{printable(other.label)} {other.probability:.1%}" for other in others)
    if answer.similar:
        names = ", ".join(printable(photo.path) for photo in answer.similar)
        yield f"    most like {names}"
        yield f"    distance {answer.distance:.1f}, known up to {answer.distance_threshold:.1f}"
