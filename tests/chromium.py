"""A real browser for the tests of the page: Debian's chromium, driven by playwright, whose own browsers are not downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

READY = "html[data-ready]"
PATIENCE_MS = 20_000


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not here")
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("chromium, which shows the page, is not here: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page in the browser that remembers what it asked for and complained of."""

    def __init__(self, browser: Any, **about: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1400, "height": 900}, **about)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda said: said.type in {"error", "warning"} and self.complaints.append(said.text))
        self.page.on("pageerror", lambda mistake: self.complaints.append(str(mistake)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, where: Path | str) -> Any:
        """Go to a page and wait until it has drawn itself."""
        self.page.goto(where.as_uri() if isinstance(where, Path) else where)
        self.page.wait_for_selector(READY, timeout=PATIENCE_MS)
        return self.page

    def close(self) -> None:
        self.context.close()
