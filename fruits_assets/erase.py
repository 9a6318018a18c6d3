"""Erase photos from the lake at once: `python -m fruits_assets.erase PATH...`, as the tables have it."""

from __future__ import annotations

import argparse
import sys

from upath import UPath

from fruits_assets.definitions import Settings, lake
from fruits_assets.resources.erasure import Erased, erase
from fruits_assets.resources.files import LakeError
from fruits_assets.settings import from_environment


def erase_photos(settings: Settings, paths: list[str]) -> Erased:
    """Erase photos that are no longer in the source.

    Raises:
        LakeError: one is still there, from where the next run would take it again; or see `erase`.
    """
    for path in paths:
        if (UPath(settings.images) / path).exists():
            raise LakeError(
                f"'{path}' is still in '{settings.images}', from where the next run would take it again. "
                "Remove it there first."
            )
    return erase(lake(settings), paths)


def main() -> None:
    """Print what went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="+", help="path below the source, for instance Banana/r_3_100.jpg")
    try:
        erased = erase_photos(from_environment(Settings), parser.parse_args().path)
    except LakeError as error:
        sys.exit(str(error))
    for table, n_rows in erased.rows.items():
        print(f"{table:<28} {n_rows} row(s)")
    if not erased.rows:
        print("no row has these paths")
    if erased.report:
        print("The report is removed; `make report` makes it anew.")
    print(f"{erased.n_bytes:,} bytes of earlier versions are off the disk.")
    print("Dagster's own records may show them still: delete those runs in its UI, or empty DAGSTER_HOME.")


if __name__ == "__main__":
    main()
