"""The report in a browser does what it says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from fruits_assets.report.page import page
from fruits_assets.report.sampling import Photos
from fruits_assets_tests.report.browser import PHONE, Opened, opened
from fruits_assets_tests.report.made_up import LABELS, clusters, color, contents

pytestmark = pytest.mark.slow

HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 2">',
    "$$x^2$$ \\(y\\)",
    "{{ 7 * 7 }} {% raw %}",
    "<!--",
    "'single' & \"double\"; `tick` ${window.hacked = 3}",
    "日本 🍎 \u202egnp",
    "line\nbreak",
]


@pytest.fixture(scope="module")
def shared(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    found = opened(browser, tmp_path_factory.mktemp("page"), contents(classifier=True))
    yield found
    found.page.close()


@pytest.fixture
def report(shared: Opened) -> Opened:
    """As it was when it was opened."""
    shared.page.reload()
    shared.page.wait_for_selector("html[data-ready]")
    return shared


@pytest.mark.parametrize("photo", [0, 7, 17])
def test_pointing_at_a_photo_shows_its_thumbnail_label_and_path(report: Opened, photo: int) -> None:
    photos = contents().drawn
    report.point_at(photo)
    tip = report.page.locator("#tip")
    expect(tip).to_be_visible()
    expect(tip).to_contain_text(photos.labels[photo])
    expect(tip).to_contain_text(photos.paths[photo])
    np.testing.assert_allclose(report.color_of("#tip .photo"), color(photo, len(photos)), atol=12)


def test_switching_a_label_off_hides_its_photos_and_no_others(report: Opened) -> None:
    photos = contents().drawn
    button = report.page.locator("#marks button", has_text="Kiwi")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    report.point_at(photos.labels.index("Kiwi"))
    expect(report.page.locator("#tip")).to_be_hidden()
    report.point_at(photos.labels.index("Lemon"))
    expect(report.page.locator("#tip")).to_contain_text("Lemon")
    button.click()
    report.point_at(photos.labels.index("Kiwi"))
    expect(report.page.locator("#tip")).to_contain_text("Kiwi")


def test_one_label_alone_and_all_again(report: Opened) -> None:
    pressed = report.page.locator("#marks button[aria-pressed=true]")
    report.page.locator("#marks button", has_text="Kiwi").dblclick()
    expect(pressed).to_have_count(1)
    expect(pressed).to_contain_text("Kiwi")
    report.page.locator("#none").click()
    expect(pressed).to_have_count(0)
    report.page.locator("#all").click()
    expect(pressed).to_have_count(len(LABELS))


def test_clicking_a_photo_lists_its_neighbours_the_nearest_first(report: Opened) -> None:
    photos = contents().drawn
    photo = 8
    distances = np.linalg.norm(photos.scores - photos.scores[photo], axis=1)
    expected = [i for i in np.argsort(distances) if i != photo][:10]
    report.page.mouse.click(*report.place_of(photo))
    rows = report.page.locator("#neighbours tr")
    expect(rows).to_have_count(11)
    expect(report.page.locator(".chosen")).to_contain_text(photos.paths[photo])
    for row, other in enumerate(expected, start=1):
        cells = rows.nth(row).locator("td")
        assert cells.all_text_contents()[1:3] == [photos.labels[other], photos.paths[other]]
        assert float(cells.nth(3).text_content() or "") == pytest.approx(distances[other], rel=0.01)
    shown = report.color_of("#neighbours tr:nth-child(2) .photo, #neighbours tr:nth-child(3) .photo")
    np.testing.assert_allclose(shown, color(int(expected[0]), len(photos)), atol=12)


def test_any_two_components_can_be_chosen(report: Opened) -> None:
    report.page.select_option("#across", label="component 4 (5.0 %)")
    report.page.select_option("#up", label="component 3 (15.0 %)")
    scores = contents().drawn.scores
    np.testing.assert_allclose(report.in_plot("[...source.data.x]"), scores[:, 3], atol=2e-3)
    np.testing.assert_allclose(report.in_plot("[...source.data.y]"), scores[:, 2], atol=2e-3)
    assert report.in_plot("plot.below[0].axis_label") == "component 4 (5.0 % of the variance)"


def test_the_wheel_zooms_and_the_page_stays_where_it_is(report: Opened) -> None:
    x, y = report.place_of(3)
    width = "plot.x_range.end - plot.x_range.start"
    before, scrolled = report.in_plot(width), report.page.evaluate("scrollY")
    report.page.mouse.move(x, y)
    report.page.mouse.wheel(0, -300)
    report.page.wait_for_timeout(200)
    assert report.in_plot(width) < 0.9 * before
    assert report.page.evaluate("scrollY") == scrolled


def test_a_cell_of_a_matrix_is_told_at_the_pointer(report: Opened) -> None:
    chart = report.page.locator("#confusion-chart")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box
    report.page.mouse.move(box["x"] + box["width"] * 0.85, box["y"] + box["height"] * 0.15)
    report.page.mouse.move(box["x"] + box["width"] * 0.87, box["y"] + box["height"] * 0.17)
    expect(report.page.locator("#tip")).to_contain_text("Banana, taken for Lemon")
    expect(report.page.locator("#tip")).to_contain_text("1 photo")


def test_the_classifier_is_shown_where_there_is_one(report: Opened) -> None:
    text = report.page.locator("#classifier").inner_text()
    assert "94.0 %" in text
    assert "Banana, taken for Lemon" in text
    assert "87 % sure" in text
    assert "Worst mistakes" not in page(contents())


def test_nothing_is_asked_of_any_host_whatever_one_does(report: Opened) -> None:
    report.point_at(2)
    report.page.mouse.click(*report.place_of(2))
    report.page.select_option("#across", index=2)
    report.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    report.page.wait_for_timeout(300)
    assert [url for url in report.asked if not url.startswith(("data:", "file:"))] == []
    assert report.errors == []


def test_hostile_names_are_shown_and_do_nothing(browser: Browser, tmp_path: Path) -> None:
    photos = clusters(HOSTILE, 3)
    found = opened(browser, tmp_path, contents(photos, classifier=True))
    assert found.page.evaluate("window.hacked") is None
    assert [url for url in found.asked if not url.startswith("data:")] == []
    assert found.errors == []
    names = found.page.locator("#marks bdi").all_text_contents()
    assert names == sorted(HOSTILE)
    found.point_at(0)
    expect(found.page.locator("#tip b")).to_have_text(photos.labels[0])
    found.page.mouse.click(*found.place_of(0))
    expect(found.page.locator(".chosen")).to_contain_text(photos.paths[0])
    assert found.page.evaluate("window.hacked") is None


def test_many_labels_and_long_names_stay_small_enough_to_send(browser: Browser, tmp_path: Path) -> None:
    photos = clusters([f"{i} {'long name ' * 24}" for i in range(1000)], 3)
    deep = Photos([f"{'deep/' * 700}{path}" for path in photos.paths], photos.labels, photos.scores)
    made = contents(deep, classifier=True)
    assert len(page(made).encode()) < 8_000_000
    found = opened(browser, tmp_path, made, PHONE)
    assert found.errors == []
    assert found.page.evaluate("document.documentElement.scrollWidth") == PHONE[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone_and_all_text_can_be_read(
    browser: Browser, tmp_path: Path, scheme: str
) -> None:
    found = opened(browser, tmp_path, contents(classifier=True), PHONE, scheme)
    assert found.page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    text, ground = (
        found.page.evaluate(f"getComputedStyle(document.body).{name}")
        for name in ("color", "backgroundColor")
    )
    assert contrast(text, ground) > 7
    axis = found.in_plot("plot.below[0].major_label_text_color.value ?? plot.below[0].major_label_text_color")
    assert contrast(axis, ground) > 4.5


def test_paper_is_light_and_has_everything(browser: Browser, tmp_path: Path) -> None:
    many = clusters([f"label {i:02}" for i in range(30)], 2)
    found = opened(browser, tmp_path, contents(many), scheme="dark")
    found.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    color = "plot.below[0].axis_label_text_color.value ?? plot.below[0].axis_label_text_color"
    assert contrast(found.in_plot(color), "#ffffff") > 7
    assert found.page.locator("details").count() == 3
    assert found.page.locator("details:not([open])").count() == 0
    charts = "[...document.querySelectorAll('.chart')]"
    widths = found.page.evaluate(f"{charts}.map(c => c.clientWidth * c.style.getPropertyValue('--fit'))")
    assert widths
    assert max(widths) <= 641  # pixels of A4
    found.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert contrast(found.in_plot(color), "#000000") > 7


def contrast(first: str, second: str) -> float:
    """As WCAG 2.2 defines the ratio, of colours as a browser writes them."""

    def luminance(text: str) -> float:
        if text.startswith("#"):
            values = [int(text[i : i + 2], 16) for i in (1, 3, 5)]
        else:
            values = [int(part) for part in text.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [(v / 255 / 12.92) if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in values]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_a_finger_tap_lists_neighbours_too(browser: Browser, tmp_path: Path) -> None:
    found = opened(browser, tmp_path, contents(), PHONE)
    found.page.touchscreen.tap(*found.place_of(4))
    expect(found.page.locator(".chosen")).to_contain_text(contents().drawn.paths[4])


def test_a_single_component_is_drawn_too(browser: Browser, tmp_path: Path) -> None:
    photos = clusters(LABELS, 4)
    one = Photos(photos.paths, photos.labels, photos.scores[:, :1])
    found = opened(
        browser, tmp_path, replace(contents(one), explained_variance_ratio=[1.0], levels={"80%": 1})
    )
    assert found.errors == []
    found.point_at(0)
    expect(found.page.locator("#tip")).to_be_visible()
