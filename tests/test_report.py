"""The file of the page: nothing foreign becomes markup, nothing is fetched, only its own script runs, and it appears whole or
not at all. What it looks like in a browser is for `test_page.py`.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runs import made_run
from unetscope import plots
from unetscope.base.errors import InvalidArgument
from unetscope.report import page as report_page
from unetscope.report.page import LARGEST_SVG_BYTES, SECTIONS, ReportFigure, write_report
from unetscope.report.report_data import report_data_of
from unetscope.table.records import EpochRecord

FOREIGN = (
    "<script>alert(1)</script>", "</style>", "</title>", '" onload="alert(1)', "' onerror='alert(1)", "{{ 7 * 7 }}",
    "{% raw %}", "&amp;", "<img src=http://example.org/a.png>", "--><b>", "[/x].png", "$x_1$", "javascript:alert(1)",
)  # fmt: skip
VOID = {"meta", "img", "input"}


class Page(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, its headings, its text."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[tuple[int, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag in {"h1", "h2", "h3", "h4"}:
            self.headings.append((int(tag[1]), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"style", "script"} & set(self.open):
            return
        self.text += data
        if self.open and re.fullmatch("h[1-4]", self.open[-1]):
            level, before = self.headings[-1]
            self.headings[-1] = level, before + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> list[ReportFigure]:
    """Two figures as a run has them: curves, and pictures of predictions."""
    folder = tmp_path_factory.mktemp("figures")
    records = [EpochRecord(e, 0.6, 0.1 * e, 0.5, 0.09 * e, 2.0) for e in range(6)]
    dice = plots.save(plots.dice_curves({"run": records}).figure, folder, "dice")
    mask = np.eye(8, dtype=np.uint8)
    rows = [("a.png", np.zeros((8, 8, 3), np.uint8), mask, {5: 255 * mask})]
    predictions = plots.save(plots.predictions(rows, [5])[0, 0].figure, folder, "predictions")
    return [
        ReportFigure("Dice during training", "Training and validation.", *dice),
        ReportFigure("Predicted masks", "Blue is found.", *predictions),
    ]


def a_run(**changes: Any) -> dict[str, Any]:
    return {"name": "paper-1", "notes": ["kmeans(k=64): H(Y) = 2.83 bits."], **changes}


def written(folder: Path, figures: list[ReportFigure] | tuple[()] = (), runs: Any = None, **changes: Any) -> Page:
    path = folder / "report.html"
    content = {"title": "Information flow: paper-1", "figures": figures, **changes}
    assert write_report(path, [a_run()] if runs is None else runs, **content) == path
    return Page(path)


def data_of(address: str | None) -> tuple[str, bytes]:
    match = re.fullmatch(r"data:image/(png|svg\+xml);base64,([A-Za-z0-9+/=]+)", address or "")
    assert match, f"not a picture in the page itself: {(address or '')[:60]}"
    return match[1], base64.b64decode(match[2], validate=True)


def kept(page: Page) -> Any:
    """The runs as the browser will read them."""
    (packed,) = re.findall(r'<script type="text/plain" id="runs">([A-Za-z0-9+/=]*)</script>', page.source)
    return json.loads(gzip.decompress(base64.b64decode(packed, validate=True)))


def test_a_page_holds_what_it_was_given(tmp_path, figures) -> None:
    runs = [a_run(series=[1.5, None, "</script>"]), a_run(name="b", notes=["é 日本"])]
    page = written(tmp_path, figures, runs)
    assert kept(page) == runs
    for text in ("Information flow: paper-1", "kmeans(k=64): H(Y) = 2.83 bits.", "é 日本", "Blue is found."):
        assert text in page.text


@pytest.mark.parametrize("text", FOREIGN)
def test_foreign_text_stays_text_wherever_it_stands(text, tmp_path, figures) -> None:
    plain = written(tmp_path, figures)
    foreign = [ReportFigure(text, text, figure.png, figure.svg) for figure in figures]
    page = written(tmp_path, foreign, [a_run(name=text, notes=[text], layers=[text])], title=text)
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    for (tag, attributes), (_, expected) in zip(page.elements, plain.elements, strict=True):
        assert attributes.keys() == expected.keys(), f"{text!r} gave <{tag}> an attribute"
        assert {k: v for k, v in attributes.items() if k != "alt"} == {k: v for k, v in expected.items() if k != "alt"}
    assert [image["alt"] for image in page.all("img")] == [f"{text}. {text}"] * 2
    assert page.text.count(text) >= 6
    assert page.headings[0] == (1, text)
    assert kept(page)[0]["layers"] == [text]


def test_text_that_no_encoding_knows_does_not_keep_the_page_from_being_written(tmp_path) -> None:
    page = written(tmp_path, [], [a_run(name="run\udcff é")], title="run\udcff é 日本")
    assert page.headings[0] == (1, "run? é 日本")
    assert kept(page)[0]["name"] == "run? é"


def test_a_page_refers_to_nothing_outside_and_runs_its_own_script_alone(tmp_path, figures) -> None:
    page = written(tmp_path, figures)
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form", "video", "audio"}
        assert not [name for name in attributes if name.startswith("on") or name in {"srcset", "action", "style"}]
        if "href" in attributes:
            assert (attributes["href"] or "").startswith("#")
        if "src" in attributes:
            data_of(attributes["src"])
    assert [attributes.get("type") for attributes in page.all("script")] == ["text/plain", None]
    outside_pictures = re.sub(r"data:image/[^\"]+", "", page.source).replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"https?:|[\"'(]//[a-z]|url\(|@import|@font-face", outside_pictures)


@pytest.mark.parametrize(("version", "connect"), [("", "'none'"), ("7", "'self'")])
def test_the_policy_allows_one_script_and_no_connection(tmp_path, version, connect) -> None:
    path = tmp_path / "page.html"
    path.write_text(report_page.page([a_run()], title="t", version=version), encoding="utf-8")
    page = Page(path)
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in (policy or "").split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules.get("connect-src", rules["default-src"]) == connect
    for kind in ("frame-src", "object-src", "font-src", "worker-src", "media-src"):
        assert rules.get(kind, rules["default-src"]) == "'none'"
    (script,) = re.findall(r"<script>(.*)</script>", page.source, re.DOTALL)
    assert rules["script-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    tags = [tag for tag, _ in page.elements]
    policies = [place for place, (_, attributes) in enumerate(page.elements) if attributes.get("http-equiv")]
    assert policies[0] < tags.index("style"), "the policy comes after what it must rule"


def test_every_anchor_is_there_once(tmp_path, figures) -> None:
    page = written(tmp_path, [*figures, *figures])
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {(a["href"] or "")[1:] for a in page.all("a")} <= set(ids)
    sections = [attributes["id"] for attributes in page.all("section")]
    assert [(a["href"] or "")[1:] for a in page.all("a")] == sections


def test_headings_are_in_order_and_the_language_is_named(tmp_path, figures) -> None:
    page = written(tmp_path, figures)
    assert page.all("html") == [{"lang": "en"}]
    assert page.source.startswith("<!doctype html>")
    assert page.headings[0] == (1, "Information flow: paper-1")
    assert [text for level, text in page.headings if level == 2] == [
        *(title for _, title in SECTIONS), "How to read this page",
    ]  # fmt: skip
    assert page.all("meta")[0] == {"charset": "utf-8"}
    assert "viewport" in {m.get("name") for m in page.all("meta")}


def test_each_picture_is_the_very_file_and_has_a_text(tmp_path, figures) -> None:
    page = written(tmp_path, figures)
    images = page.all("img")
    assert [data_of(image["src"]) for image in images] == [("svg+xml", figure.svg.read_bytes()) for figure in figures]
    assert [image["alt"] for image in images] == [f"{figure.title}. {figure.caption}" for figure in figures]


def test_the_png_is_taken_when_the_svg_is_large(tmp_path, figures) -> None:
    largest = LARGEST_SVG_BYTES
    large, fits = tmp_path / "large.svg", tmp_path / "fits.svg"
    large.write_bytes(b"<svg/>".ljust(largest + 1))
    fits.write_bytes(b"<svg/>".ljust(largest))
    png = figures[0].png
    kinds = {
        "both, the SVG large": (ReportFigure("t", "c", png, large), "png"),
        "both, the SVG just small enough": (ReportFigure("t", "c", png, fits), "svg+xml"),
    }
    page = written(tmp_path, [figure for figure, _ in kinds.values()])
    for image, (figure, kind) in zip(page.all("img"), kinds.values(), strict=True):
        file = figure.png if kind == "png" else figure.svg
        assert data_of(image["src"]) == (kind, file.read_bytes())


def test_a_figure_without_a_file_is_refused(tmp_path, figures) -> None:
    gone = tmp_path / "gone.svg"
    with pytest.raises(InvalidArgument) as refused:
        written(tmp_path, [ReportFigure("U-Plot", "caption", figures[0].png, gone)])
    assert str(refused.value) == f"figure 'U-Plot' has no file {str(gone)!r}"
    assert not list(tmp_path.iterdir())


def test_the_old_page_stays_when_the_new_one_fails(tmp_path, figures, monkeypatch) -> None:
    old = written(tmp_path, figures).source

    def fails(runs: Any = None, **changes: Any) -> None:
        with pytest.raises((ValueError, TypeError, OSError)):
            written(tmp_path, changes.pop("figures", figures), runs, **changes)
        assert (tmp_path / "report.html").read_text(encoding="utf-8") == old
        assert [file.name for file in tmp_path.iterdir()] == ["report.html"]

    fails([a_run(seed=object())])
    fails([a_run(bits=float("nan"))])
    fails(figures=[ReportFigure("gone", "caption", tmp_path / "gone.png", figures[0].svg)])

    def full(path: Path, text: str, **_: Any) -> None:
        path.write_bytes(text.encode()[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    fails()


def test_a_missing_folder_is_named(tmp_path) -> None:
    with pytest.raises(InvalidArgument) as refused:
        write_report(tmp_path / "gone" / "r.html", [a_run()], title="t")
    assert str(refused.value) == f"cannot write a report in {str(tmp_path / 'gone')!r}: no such folder"


def test_the_same_run_gives_the_same_page(tmp_path) -> None:
    run = made_run(tmp_path / "run", (0, 1, 3))
    one, other = (written(tmp_path, [], [report_data_of(run)]).source for _ in range(2))
    assert one == other
    levels = [level for level, _ in written(tmp_path).headings]
    assert all(below <= above + 1 for above, below in pairwise(levels))
