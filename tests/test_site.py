"""The site builds without a warning, needs no other server, and its code, commands and numbers are right."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import unetscope

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
WRITTEN = sorted(path for path in DOCS.rglob("*.md"))
NUMBER = re.compile(r"(?<![\w./-])\d[\d,]*(?:\.\d+)?(?![\w])")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.long
def test_every_page_is_built_and_in_the_contents(site: Path) -> None:
    for page in WRITTEN:
        built = site / page.relative_to(DOCS).with_suffix(".html")
        assert built.is_file(), f"{page.name} was not built"
    contents = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in WRITTEN if str(page.relative_to(DOCS)) not in contents] == []


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|iframe|source)[^>]+src="([^"]+)"', text)
        fetched += re.findall(r'<link[^>]+rel="(?:stylesheet|preload|icon|preconnect)"[^>]+href="([^"]+)"', text)
        assert [address for address in fetched if "//" in address] == [], page.name
    styles = "".join(style.read_text(encoding="utf-8") for style in site.rglob("*.css"))
    assert not re.findall(r"url\(['\"]?https?:", styles)


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    documented = {line.split(".")[-1] for line in re.findall(r"^::: (\S+)$", pages, re.MULTILINE)}
    public = {name for name in unetscope.__all__ if not isinstance(getattr(unetscope, name), ModuleType)}
    moved = {path.split(".")[-1] for path in unetscope._MOVED.values()}
    assert {*public, *moved, *unetscope.plots.__all__} <= documented
    built = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    for name in documented:
        assert re.search(rf'id="unetscope\.[\w.]*\b{name}"', built), f"{name} has no entry"
    assert "&gt;&gt;&gt;" in built, "no example is shown"


@pytest.mark.long
@pytest.mark.parametrize("threads", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_the_code_of_your_own_network_runs(tmp_path: Path, threads: str) -> None:
    code = "\n".join(
        re.findall(r"```python\n(.*?)```", (DOCS / "your-network.md").read_text(encoding="utf-8"), re.DOTALL)
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "skip1" in done.stdout
    assert "True torch.Size([1, 1, 32, 32])" in done.stdout
    assert (tmp_path / "runs" / "mine" / "flow.sqlite").is_file()


def test_the_tutorial_has_the_words_and_commands_of_its_script() -> None:
    script: dict[str, Any] = runpy.run_path(str(REPOSITORY / "scripts" / "make_tutorial.py"))
    kept = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    outputs = iter(re.findall(r"```text\n(.*?)\n```\n", kept, re.DOTALL))
    assert "\n".join(script["page"](["" if step.figure else next(outputs) for step in script["STEPS"]])) == kept
    for step in script["STEPS"]:
        if step.figure:
            assert (DOCS / "figures" / f"tutorial_{step.figure}.png").is_file()


@pytest.mark.slow
def test_the_tutorial_is_what_its_script_writes_and_every_command_works(tmp_path: Path) -> None:
    script: dict[str, Any] = runpy.run_path(str(REPOSITORY / "scripts" / "make_tutorial.py"))
    done = subprocess.run(
        [sys.executable, REPOSITORY / "scripts" / "make_tutorial.py", "--small", "--to", tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    bare = script["without_outputs"]
    kept, anew = ((folder / "tutorial.md").read_text(encoding="utf-8") for folder in (DOCS, tmp_path))
    assert bare(kept) == bare(anew)


def test_the_drawing_and_the_table_of_the_architecture_have_every_package() -> None:
    script: dict[str, Any] = runpy.run_path(str(REPOSITORY / "scripts" / "make_architecture.py"))
    assert script["DRAWING"].read_text(encoding="utf-8") == script["drawing"]()
    table = re.findall(r"^\| `(\w+)` \|", (DOCS / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert table == [package for column in script["columns"]() for package in column]


def test_pages_without_a_script_have_no_numbers_of_their_own() -> None:
    """The numbers in the guides come from the pages of results."""
    evidence = "".join(
        (DOCS / name).read_text(encoding="utf-8")
        for name in ("estimators.md", "results.md", "study.md", "networks.md", "performance.md")
    )
    allowed = {"0", "1", "2", "3", "0.5", "0.05", "95", "127.0.0.1", "2018", "2021", "1e-6"}
    for name in ("index.md", "reading-a-u-plot.md", "choosing-an-estimator.md", "faq.md"):
        prose = re.sub(
            r"```.*?```|`[^`]*`|\]\([^)]*\)|^\d\. ",
            "",
            (DOCS / name).read_text(encoding="utf-8"),
            flags=re.DOTALL | re.MULTILINE,
        )
        foreign = {number for number in NUMBER.findall(prose) if number not in allowed and number not in evidence}
        assert foreign == set(), f"{name} has numbers that no page of results has"
