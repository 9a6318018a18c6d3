"""The page in a real browser: Chromium by way of Playwright, where both are there."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from fruits_assets.predict.predictor import Predictor
from fruits_assets.predict.web import MAX_UPLOAD_BYTES
from fruits_assets.resources.lake_reader import LakeReader
from fruits_assets_tests.graph import Graph
from fruits_assets_tests.predict.classifiers import publish_relabelled
from fruits_assets_tests.predict.servers import Server, serving
from fruits_assets_tests.stages.sources import write_noise

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

PHONE = {"width": 360, "height": 740}
LAPTOP = {"width": 1440, "height": 900}
HOSTILE = "<img src=x onerror=document.title='taken'>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as started:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@dataclass(frozen=True)
class Served:
    """A server, and two photos that it knows: of what it calls `fruit`, and of what it calls HOSTILE."""

    server: Server
    photo: Path
    fruit: str
    hostile: Path


@pytest.fixture(scope="module")
def served(classified: Graph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Whose classifier has for one label a name that a careless page would run."""
    folder = tmp_path_factory.mktemp("page")
    graph = classified.copy(folder)
    predictor = Predictor.of(LakeReader(str(graph.lake_root)))
    photos: dict[str, Path] = {}
    for path in sorted(graph.source.glob("*/r_*.jpg")):
        if label := predictor.predict(path.read_bytes()).label:
            photos.setdefault(label, path)
    (fruit, photo), (another, hostile) = sorted(photos.items())[:2]
    publish_relabelled(graph, {another: HOSTILE})
    with serving(graph.lake_root, folder) as server:
        yield Served(server, photo, fruit, hostile)


@pytest.fixture(params=[PHONE, LAPTOP], ids=["phone", "laptop"])
def page(request: pytest.FixtureRequest, browser: Browser, served: Served) -> Iterator[Page]:
    """The page on either screen; nothing on it may go wrong by itself, and nothing be from elsewhere."""
    is_phone = request.param == PHONE
    context = browser.new_context(viewport=request.param, has_touch=is_phone, is_mobile=is_phone)
    opened = context.new_page()
    faults: list[str] = []
    urls: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda request: urls.append(request.url))
    opened.goto(served.server.url)
    yield opened
    context.close()
    assert [fault for fault in faults if not re.search("status of (422|503)", fault)] == []
    assert [url for url in urls if not url.startswith(f"{served.server.url}/")] == []


def said(page: Page) -> str:
    """What a screen reader says when there is an answer."""
    status = page.get_by_role("status")
    playwright.expect(status).to_have_text(re.compile(r"\.$"))
    return status.inner_text()


def fits(page: Page) -> bool:
    """Nothing has to be scrolled sideways for."""
    width: int = page.evaluate("document.documentElement.scrollWidth")
    assert page.viewport_size
    return width <= page.viewport_size["width"]


def test_a_chosen_photo_is_named_with_its_certainty_runners_up_and_similar_photos(
    page: Page, served: Served
) -> None:
    assert fits(page)
    page.set_input_files("#file", served.photo)
    assert re.fullmatch(re.escape(served.fruit) + r": (very|fairly|not) sure, .*%\.", said(page))
    playwright.expect(page.get_by_role("heading", name=served.fruit, level=2)).to_be_visible()
    playwright.expect(page.get_by_text(re.compile(r"^(very|fairly|not) sure$"))).to_be_visible()
    assert page.locator("#others li").count() == 3
    pictures = page.locator("#similar img")
    assert pictures.count() == 4
    for i in range(4):
        pictures.nth(i).evaluate("picture => picture.decode()")
    playwright.expect(page.get_by_role("img", name="The photo you chose")).to_be_visible()
    playwright.expect(page.locator("#versions")).to_contain_text("fruit_classifier 1")
    assert fits(page)


def test_an_unknown_fruit_is_said_to_be_so(page: Page, tmp_path: Path) -> None:
    page.set_input_files("#file", write_noise(tmp_path / "noise.png", size=100, seed=1))
    assert re.match("I don.t know this one: ", said(page))
    playwright.expect(page.get_by_role("heading", name=re.compile("I don.t know"))).to_be_visible()
    playwright.expect(page.locator("#certainty")).to_be_hidden()
    assert fits(page)


def test_a_bad_file_gets_the_reason_and_the_next_photo_its_answer(
    page: Page, served: Served, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not an image")
    page.set_input_files("#file", bad)
    assert "This file cannot be used: not an image (12 bytes)" in said(page)
    playwright.expect(page.get_by_role("heading", name="That did not work")).to_be_visible()
    assert fits(page)
    page.set_input_files("#file", served.photo)
    playwright.expect(page.get_by_role("heading", name=served.fruit, level=2)).to_be_visible()
    playwright.expect(page.get_by_role("heading", name="That did not work")).to_be_hidden()


def test_a_huge_file_is_not_even_sent(page: Page, tmp_path: Path) -> None:
    huge = tmp_path / "huge.jpg"
    huge.write_bytes(bytes(MAX_UPLOAD_BYTES + 1))
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.set_input_files("#file", huge)
    assert "more than 32 MB" in said(page)
    assert [url for url in sent if url.endswith("/predict")] == []


def test_a_picture_of_too_many_pixels_gets_the_reason(page: Page, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (60_000, 1_000)).save(buffer, "PNG")
    (tmp_path / "wide.png").write_bytes(buffer.getvalue())
    page.set_input_files("#file", tmp_path / "wide.png")
    assert "60,000 x 1,000 pixels, more than 51,000,000" in said(page)


def test_a_label_is_shown_as_the_text_that_it_is(page: Page, served: Served) -> None:
    page.set_input_files("#file", served.hostile)
    assert said(page).startswith(HOSTILE)
    assert page.locator("#fruit").inner_text() == HOSTILE
    assert page.title() == "What fruit is this?"
    assert page.locator("#fruit *").count() == 0
    assert fits(page)


def test_the_keyboard_reaches_a_button_that_opens_the_choice_of_a_file(page: Page, served: Served) -> None:
    # Around both keys: the browser hands the choice over from some moment after it was asked to on.
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Tab")
        named = page.evaluate("document.activeElement.labels[0].innerText")
        page.keyboard.press("Space")
    assert named in ("Take a photo", "Choose a photo")
    chooser.value.set_files(served.photo)
    assert said(page).startswith(f"{served.fruit}: ")


def test_a_phone_offers_its_camera_and_a_laptop_a_place_to_drop_a_photo(page: Page) -> None:
    is_phone = page.viewport_size == PHONE
    camera, place = page.get_by_text("Take a photo", exact=True), page.get_by_text("Drop a photo here")
    assert (camera.is_visible(), place.is_visible()) == (is_phone, not is_phone)
    assert page.locator("#camera").get_attribute("capture") == "environment"


def test_a_dropped_photo_is_looked_at(page: Page, served: Served) -> None:
    content = list(served.photo.read_bytes())
    drop = page.evaluate_handle(
        """content => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(content)], "photo.jpg"));
            return transfer;
        }""",
        content,
    )
    page.dispatch_event("#photo", "drop", {"dataTransfer": drop})
    assert said(page).startswith(f"{served.fruit}: ")


def test_a_busy_server_is_asked_again(page: Page, served: Served) -> None:
    turned_away: list[str] = []

    def once(route: Route) -> None:
        if turned_away:
            route.continue_()
        else:
            turned_away.append("once")
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"reason": "busy, ask again"})

    page.route("**/predict", once)
    page.set_input_files("#file", served.photo)
    assert said(page).startswith(f"{served.fruit}: ")
    assert turned_away
