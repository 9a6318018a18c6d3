"""How many photos a second `fruits app` tells of, asked by several clients at once, and in what memory.

Over a lake that the graph makes of the sample images, unless one is given. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import http.client
import io
import itertools
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from classified_lake import FRUITS, classified_lake, environment
from measuring import scratch_folder, table
from phone_photos import write_photos
from PIL import Image

from fruits_assets.definitions import SAMPLE_IMAGES
from fruits_assets.photos.formats import MAX_PIXELS
from fruits_assets.resources.process_memory import peak_mb

_PHONE_PHOTOS, _MEGAPIXELS = 24, 12
_WIDTH = 10_000  # of the largest picture
_WARM_UP = 16


@dataclass
class Load:
    """What clients that ask one photo after the other have got."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    errors: int = 0

    @property
    def photos_per_s(self) -> float:
        return len(self.latencies_ms) / self.seconds

    def percentile(self, share: int) -> float:
        """Of the time from the request to the whole answer, ms."""
        return statistics.quantiles(self.latencies_ms, n=100)[share - 1]


@contextmanager
def serving(lake: Path) -> Iterator[tuple[int, int]]:
    """Process id and port of a server over the lake."""
    command = [*FRUITS, "app", "--port", "0"]
    process = subprocess.Popen(command, env=environment(lake), stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield process.pid, int(process.stdout.readline().rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.wait()


def ask(port: int, photos: Sequence[bytes], n_photos: int, n_clients: int) -> Load:
    """Let clients at once ask for so many photos together, each over a connection of its own."""
    load, numbers = Load(), itertools.count()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while (number := next(numbers)) < n_photos:
            started = time.perf_counter()
            connection.request("POST", "/predict", photos[number % len(photos)])
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                load.latencies_ms.append(1000 * (time.perf_counter() - started))
            else:
                load.errors += 1
        connection.close()

    clients = [threading.Thread(target=client) for _ in range(n_clients)]
    started = time.perf_counter()
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    load.seconds = time.perf_counter() - started
    return load


def largest_picture() -> bytes:
    """As many pixels as are accepted, in a small file."""
    buffer = io.BytesIO()
    Image.new("RGB", (_WIDTH, MAX_PIXELS // _WIDTH), "tomato").save(buffer, "PNG")
    return buffer.getvalue()


def row(load: Load, mb: float) -> list[str]:
    """Its figures as text."""
    times = (f"{load.percentile(share):.0f}" for share in (50, 95))
    return [f"{load.photos_per_s:.1f}", *times, str(load.errors), f"{mb:.0f}"]


def main() -> None:
    """Command line; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lake", help="a folder that has fruit_classifier; default: made first")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--photos", type=int, default=2000, help="of 100 x 100 pixels; default: 2000")
    options = parser.parse_args()
    samples = [file.read_bytes() for file in sorted(SAMPLE_IMAGES.glob("*/*.jpg"))]
    with scratch_folder() as scratch:
        lake = classified_lake(options.lake, scratch)
        write_photos(scratch / "phone", _PHONE_PHOTOS, _MEGAPIXELS, seed=1)
        of_phones = [file.read_bytes() for file in sorted((scratch / "phone").glob("*/*.jpg"))]
        with serving(lake) as (pid, port):
            ask(port, samples, _WARM_UP, options.clients)
            small = ask(port, samples, options.photos, options.clients)
            small_mb = peak_mb(pid)
            large = ask(port, of_phones, 5 * _PHONE_PHOTOS, options.clients)
            large_mb = peak_mb(pid)
            largest = ask(port, [largest_picture()], 2 * options.clients, options.clients)
            largest_mb = peak_mb(pid)
    columns = ["photos/s", "p50, ms", "p95, ms", "errors", "peak so far, MB"]
    rows = [
        ("100 x 100 pixels", row(small, small_mb)),
        (f"{_MEGAPIXELS} megapixels", row(large, large_mb)),
        ("the largest picture that is accepted", row(largest, largest_mb)),
    ]
    print(f"\n{table(f'{options.clients} clients at once', columns, rows)}\n")
    errors = small.errors + large.errors + largest.errors
    figures = {
        "clients": options.clients,
        "photos_per_s": small.photos_per_s,
        "p50_ms": small.percentile(50),
        "p95_ms": small.percentile(95),
        "errors": errors,
        "phone_photos_per_s": large.photos_per_s,
        "phone_p95_ms": large.percentile(95),
        "peak_mb": small_mb,
        "largest_peak_mb": largest_mb,
    }
    print(json.dumps(figures))
    if errors:
        sys.exit(f"{errors} photo(s) got no answer.")


if __name__ == "__main__":
    main()
