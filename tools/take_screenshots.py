"""Take the pictures of README and docs: `python tools/take_screenshots.py`, after `make run`.

Needs Playwright (of the `dev` extra) and Debian's Chromium.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

REPOSITORY = Path(__file__).parents[1]
PICTURES = REPOSITORY / "docs" / "pictures"
REPORT = REPOSITORY / "lake" / "run_report" / "report.html"
SAMPLE = REPOSITORY / "fruits_assets" / "sample_images" / "Kaki" / "r_3_100.jpg"
_N_COLORS = 128  # of a picture: enough for a page, and a third of the bytes


def save(page: Page, name: str, selector: str = "body", max_height: int | None = None) -> None:
    """Save what an element of a page shows."""
    shot = Image.open(io.BytesIO(page.locator(selector).first.screenshot())).convert("RGB")
    if max_height and shot.height > max_height:
        shot = shot.crop((0, 0, shot.width, max_height))
    file = PICTURES / f"{name}.png"
    shot.quantize(_N_COLORS).save(file, optimize=True)
    print(f"{file.relative_to(REPOSITORY)}: {shot.width} x {shot.height}, {file.stat().st_size / 1e3:.0f} kB")


def opened(browser: Browser, url: str, width: int, height: int) -> Page:
    """A page in a window of that size."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(url)
    page.wait_for_load_state("networkidle")
    return page


@contextlib.contextmanager
def app() -> Iterator[str]:
    """The page for phones, served on some free port meanwhile."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "fruits_assets.command_line", "app", "--port", str(port)]
    process = subprocess.Popen(command, cwd=REPOSITORY)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Take all pictures."""
    if not REPORT.exists():
        sys.exit(f"There is no '{REPORT}'. Run the graph first: make run")
    if (chromium := shutil.which("chromium")) is None:
        sys.exit("There is no chromium here. On Debian: apt-get install chromium")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, app() as url:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        report = opened(browser, REPORT.as_uri(), 1100, 900)
        save(report, "report", max_height=1250)
        save(report, "scatter", "#scatter")
        for name, width, height in (("app-phone", 360, 740), ("app-desktop", 1440, 900)):
            page = opened(browser, url, width, height)
            page.set_input_files("#file", SAMPLE)
            page.get_by_role("heading", name="Kaki", level=2).wait_for()
            save(page, name)
        browser.close()


if __name__ == "__main__":
    main()
