"""What `fruits predict` takes: from the shell to the first answer, and for a photo more.

Over a lake that the graph makes of the sample images, unless one is given. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from classified_lake import FRUITS, classified_lake, environment
from measuring import scratch_folder, table
from phone_photos import write_photos

from fruits_assets.definitions import SAMPLE_IMAGES

MAX_START_S, MAX_MS_PER_PHOTO = 2.0, 30.0
_COPIES = 3  # of the sample images, so that starting is a small part of their time
_PHONE_PHOTOS, _MEGAPIXELS = 40, 12


def seconds_of(lake: Path, *photos: Path) -> tuple[float, int]:
    """Of a process of its own over photos or folders: wall time, s, and how many photos it told of."""
    started = time.perf_counter()
    done = subprocess.run(
        [*FRUITS, "predict", "--json", *map(str, photos)],
        env=environment(lake),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return time.perf_counter() - started, len(done.stdout.splitlines())


def ms_per_photo(lake: Path, start_s: float, rounds: int, *photos: Path) -> float:
    """The best of some rounds, without the start, milliseconds."""
    best, n_photos = min(seconds_of(lake, *photos) for _ in range(rounds))
    return 1000 * (best - start_s) / n_photos


def main() -> None:
    """Command line; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lake", help="a folder that has fruit_classifier; default: made first")
    parser.add_argument("--rounds", type=int, default=9, help="how often one photo is told; default: 9")
    options = parser.parse_args()
    one = SAMPLE_IMAGES / "Banana" / "r_3_100.jpg"
    with scratch_folder() as scratch:
        lake = classified_lake(options.lake, scratch)
        starts = [seconds_of(lake, one)[0] for _ in range(options.rounds)]
        start_s = statistics.median(starts)
        per_photo = ms_per_photo(lake, start_s, 3, *[SAMPLE_IMAGES] * _COPIES)
        write_photos(scratch / "phone", _PHONE_PHOTOS, _MEGAPIXELS, seed=1)
        per_phone_photo = ms_per_photo(lake, start_s, 3, scratch / "phone")
    rows = [
        ("from the shell to the first answer, s: median", [f"{start_s:.2f}"]),
        ("the slowest of them", [f"{max(starts):.2f}"]),
        ("a photo more of 100 x 100 pixels, ms", [f"{per_photo:.1f}"]),
        (f"a photo more of {_MEGAPIXELS} megapixels, ms", [f"{per_phone_photo:.1f}"]),
    ]
    print("\n" + table("fruits predict", [""], rows) + "\n")
    figures = {"start_s": start_s, "max_start_s": max(starts), "ms_per_photo": per_photo}
    print(json.dumps({**figures, "ms_per_phone_photo": per_phone_photo}))
    if start_s > MAX_START_S or per_photo > MAX_MS_PER_PHOTO:
        sys.exit(f"More than {MAX_START_S:.0f} s to the first answer, or {MAX_MS_PER_PHOTO:.0f} ms a photo.")


if __name__ == "__main__":
    main()
