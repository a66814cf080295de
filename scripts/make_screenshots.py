"""Write screenshots of a run's page for the README, light and dark: python scripts/make_screenshots.py RUN

RUN: a run folder with its page, such as that of scripts/make_study.py. Writes docs/figures/page_light.png and page_dark.png.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
WIDTH, HEIGHT = 1400, 1180


def main() -> None:
    """Open the page in both colour schemes and save screenshots."""
    page_of_run = Path(sys.argv[1], "report.html").resolve()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)
            page.goto(page_of_run.as_uri())
            page.wait_for_selector("html[data-ready]")
            page.screenshot(path=FIGURES / f"page_{scheme}.png")
        browser.close()


if __name__ == "__main__":
    main()
