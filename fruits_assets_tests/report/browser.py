"""A report in a real browser: what is where on the screen, and what the page asks for."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page

from fruits_assets.report.page import Contents, page

DESKTOP, PHONE = (1280, 900), (360, 740)


@dataclass
class Opened:
    """A report that is open in a browser, what it asked for beside itself, and its errors."""

    page: Page
    asked: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def place_of(self, photo: int) -> tuple[float, float]:
        """Where a photo of the scatter plot is in the window; scrolls there."""
        self.page.locator("#scatter-chart").scroll_into_view_if_needed()
        x, y = self.page.evaluate(
            """photo => {
                const plot = Bokeh.documents.flatMap(d => d.roots()).find(r => r.name === "scatter");
                const view = [...Bokeh.index].find(v => v.model === plot);
                const drawn = view.views.get_one(plot.renderers[0]);
                const { x, y } = plot.renderers[0].data_source.data;
                const canvas = view.canvas_view.el.getBoundingClientRect();
                return [canvas.left + drawn.coordinates.x_scale.compute(x[photo]),
                        canvas.top + drawn.coordinates.y_scale.compute(y[photo])];
            }""",
            photo,
        )
        return x, y

    def point_at(self, photo: int) -> None:
        """Move the pointer to a photo, from somewhere else."""
        x, y = self.place_of(photo)
        self.page.mouse.move(x - 60, y - 60)
        self.page.mouse.move(x, y, steps=3)

    def color_of(self, selector: str) -> NDArray[np.int64]:
        """What the middle of an element shows: red, green, blue."""
        shot = self.page.locator(selector).first.screenshot()
        picture = Image.open(io.BytesIO(shot)).convert("RGB")
        return np.array(picture.getpixel((picture.width // 2, picture.height // 2)))

    def in_plot(self, code: str) -> Any:
        """What an expression over the scatter `plot` and its `source` is."""
        return self.page.evaluate(
            "() => { const plot = Bokeh.documents.flatMap(d => d.roots()).find(r => r.name === 'scatter');"
            f"const source = plot.renderers[0].data_source; return {code}; }}"
        )


def opened(
    browser: Browser, folder: Path, contents: Contents, size: tuple[int, int] = DESKTOP, scheme: Any = "light"
) -> Opened:
    """Write the page and open it, ready drawn."""
    file = folder / "report.html"
    file.write_text(page(contents), encoding="utf-8")
    return opened_file(browser, file, size, scheme)


def opened_file(
    browser: Browser, file: Path, size: tuple[int, int] = DESKTOP, scheme: Any = "light"
) -> Opened:
    """Open a page, ready drawn."""
    is_phone = size == PHONE
    window = browser.new_page(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        is_mobile=is_phone,
        has_touch=is_phone,
    )
    found = Opened(window)
    window.on("request", lambda request: found.asked.append(request.url))
    window.on("websocket", lambda socket: found.asked.append(socket.url))
    window.on("pageerror", lambda error: found.errors.append(str(error)))
    window.on("console", lambda line: found.errors.append(line.text) if line.type == "error" else None)
    window.goto(file.as_uri())
    window.wait_for_selector("html[data-ready]")
    found.asked.remove(file.as_uri())
    return found
