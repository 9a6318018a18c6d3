"""A browser for the tests of the report."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Error, sync_playwright


# Not of the whole run: while it is there, its event loop is in the way of Dagster's.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium: the system's, or Playwright's own."""
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        except Error as error:
            pytest.skip(f"no Chromium (apt-get install chromium, or playwright install chromium): {error}")
        yield chromium
        chromium.close()
