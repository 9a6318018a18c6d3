"""Draw the sample images bundled with the package.

The same arguments give the same bytes: every image has its own random generator, seeded from
the seed, the label and the number of the image.
"""

import argparse
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fruit_kinds import KINDS
from fruit_renderer import Kind, render
from PIL import Image, ImageDraw

PACKAGE_FOLDER = Path(__file__).resolve().parent.parent / "fruits_assets" / "sample_images"
JPEG_QUALITY = 90
SHEET_MARGIN = 4
SHEET_HEADING = 14


def draw(kind: Kind, index: int, images_per_label: int, size: int, seed: int) -> Image.Image:
    """Return image number `index` of a kind of fruit, `size` pixels square."""
    # crc32, unlike hash(), is the same in every process.
    rng = np.random.default_rng([seed, zlib.crc32(kind.label.encode()), index])
    turn = 2 * np.pi * index / images_per_label
    return Image.fromarray(render(kind, rng, size, turn=turn))


def contact_sheet(pictures: dict[str, list[Image.Image]]) -> Image.Image:
    """Return all pictures on one sheet, a heading and a row for each label."""
    size = next(iter(pictures.values()))[0].width
    columns = max(map(len, pictures.values()))
    row_height = SHEET_HEADING + size + SHEET_MARGIN
    sheet = Image.new("RGB", (columns * (size + SHEET_MARGIN), len(pictures) * row_height), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (label, images) in enumerate(pictures.items()):
        pen.text((SHEET_MARGIN, row * row_height), label, fill="black")
        for column, image in enumerate(images):
            sheet.paste(image, (column * (size + SHEET_MARGIN), row * row_height + SHEET_HEADING))
    return sheet


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PACKAGE_FOLDER, help="folder to write to")
    parser.add_argument("--images-per-label", type=int, default=24)
    parser.add_argument("--size", type=int, default=100, help="width and height in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--contact-sheet", type=Path, metavar="FILE.png", help="also write a sheet")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw every kind of fruit into its own folder."""
    options = parse_arguments(arguments)
    pictures: dict[str, list[Image.Image]] = {}
    for label, kind in KINDS.items():
        folder = options.out / label
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(options.images_per_label):
            image = draw(kind, index, options.images_per_label, options.size, options.seed)
            image.save(folder / f"r_{index}_{options.size}.jpg", quality=JPEG_QUALITY, optimize=True)
            pictures.setdefault(label, []).append(image)
    if options.contact_sheet:
        contact_sheet(pictures).save(options.contact_sheet)


if __name__ == "__main__":
    main()
