"""Takes the pictures of the README of the page that `make app` serves: `app_screenshots.py URL FOLDER`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import ViewportSize, sync_playwright

SAMPLES = Path(__file__).parents[1] / "fruits_assets" / "sample_images"
PHONE, LAPTOP = ViewportSize(width=360, height=1000), ViewportSize(width=1440, height=720)


def main(url: str, folder: Path) -> None:
    """Write app_phone.png and app_laptop.png, the second in dark colours."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, size, is_phone in (("phone", PHONE, True), ("laptop", LAPTOP, False)):
            page = browser.new_page(
                viewport=size,
                color_scheme="light" if is_phone else "dark",
                has_touch=is_phone,
                is_mobile=is_phone,
            )
            page.goto(url)
            page.set_input_files("#file", SAMPLES / "Kaki" / "r_3_100.jpg")
            page.wait_for_selector("#similar img")
            page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
            page.evaluate("scrollTo(0, 0)")
            page.screenshot(path=folder / f"app_{name}.png")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
