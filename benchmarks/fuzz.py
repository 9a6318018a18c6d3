"""Damaged photos through decoding and stripping, one after the other in a process of limited memory.

Sound photos of every format are mutated: bits flipped, cut, text spliced in, blocks doubled or removed,
lengths changed. Each must be refused by the one exception that says so, or come out with the same pixels.
See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from measuring import table

from fruits_assets.resources.process_memory import peak_mb

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests, which are not installed, have the mutations

from fruits_assets_tests.photos.mutations import ACCEPTED, BAD, REFUSED, mutated, outcome
from fruits_assets_tests.photos.photo_files import ORDINARY, PERSONAL

PHOTOS = ORDINARY | PERSONAL
MAX_ADDRESS_SPACE = 6 * 1024**3
HANG_S = 20.0
OUT_OF_MEMORY, HANG, CRASH = "out_of_memory", "hangs", "crashes"
ALL_BAD = (*BAD, OUT_OF_MEMORY, HANG, CRASH)
COLUMNS = (ACCEPTED, REFUSED, *ALL_BAD)


def damaged(kind: str, seed: int, number: int) -> bytes:
    """The same bytes for the same arguments."""
    return mutated(PHOTOS[kind](), random.Random(f"{kind} {seed} {number}"))


def serve(connection: Connection, seed: int) -> None:
    """Try what is asked for, in a process of its own: the outcome and the peak of memory so far, MB."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # libtiff complains of every file
    while True:
        try:
            kind, number = connection.recv()
        except EOFError:
            return
        try:
            result = outcome(damaged(kind, seed, number))
        except MemoryError:
            result = OUT_OF_MEMORY
        connection.send((result, peak_mb(os.getpid())))


@dataclass
class Child:
    """A process that tries inputs; one that hangs or crashes is replaced."""

    seed: int
    process: BaseProcess | None = None
    connection: Connection | None = None
    peak_mb: float = 0.0

    def outcome(self, kind: str, number: int) -> str:
        """What became of an input, with `HANG` and `CRASH` among the outcomes."""
        if self.connection is None:
            self._start()
        assert self.connection
        self.connection.send((kind, number))
        try:
            if not self.connection.poll(HANG_S):
                self.stop()
                return HANG
            result, peak = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.stop()
            return CRASH
        self.peak_mb = max(self.peak_mb, peak)
        return str(result)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.seed), daemon=True)
        self.process.start()
        theirs.close()

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self.process and self.connection:
            self.process.kill()
            self.process.join()
            self.connection.close()
        self.process = self.connection = None


def main() -> None:
    """Command line; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder to write inputs with a bad outcome into")
    arguments = parser.parse_args()
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in PHOTOS}
    seconds = dict.fromkeys(PHOTOS, 0.0)
    child, slowest_s = Child(arguments.seed), 0.0
    for number in range(arguments.inputs):
        kind = list(PHOTOS)[number % len(PHOTOS)]
        started = time.monotonic()
        result = child.outcome(kind, number)
        took = time.monotonic() - started
        seconds[kind] += took
        # The first of a process waits for its imports.
        slowest_s = max(slowest_s, took) if number else 0.0
        counts[kind][result] += 1
        if result in ALL_BAD:
            print(f"{kind}, input {number} of seed {arguments.seed}: {result}")
            if arguments.keep:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                name = f"{kind.replace(' ', '_')}-{arguments.seed}-{number}"
                (arguments.keep / name).write_bytes(damaged(kind, arguments.seed, number))
    child.stop()
    rows = [
        (
            kind,
            [
                *(f"{n:,}" for n in (c[ACCEPTED], c[REFUSED], sum(c[bad] for bad in ALL_BAD))),
                f"{seconds[kind]:.1f}",
            ],
        )
        for kind, c in counts.items()
    ]
    print("\n" + table("made from", [ACCEPTED, REFUSED, "bad", "seconds"], rows) + "\n")
    total = sum(counts.values(), Counter[str]())
    figures = {
        "inputs": arguments.inputs,
        "seed": arguments.seed,
        **{column: total[column] for column in COLUMNS},
        "seconds": sum(seconds.values()),
        "slowest_s": slowest_s,
        "peak_mb": child.peak_mb,
    }
    print(json.dumps(figures))
    if any(total[column] for column in ALL_BAD):
        sys.exit("Some photos neither kept their pixels nor were refused properly.")


if __name__ == "__main__":
    main()
