"""The page: nothing foreign becomes markup, nothing is fetched or run, and it appears whole or not at all."""

from __future__ import annotations

import base64
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unetscope import plots, report
from unetscope.errors import InvalidArgument
from unetscope.records import EpochRecord
from unetscope.report import ReportFigure, write_report

FOREIGN = (
    "<script>alert(1)</script>", "</style>", "</title>", '" onload="alert(1)', "' onerror='alert(1)", "{{ 7 * 7 }}",
    "{% raw %}", "&amp;", "<img src=http://example.org/a.png>", "--><b>", "[/x].png", "$x_1$", "javascript:alert(1)",
)  # fmt: skip
VOID = {"meta", "img"}


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
        if "style" in self.open:
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


def written(folder: Path, figures: list[ReportFigure], **changes: Any) -> Page:
    content: dict[str, Any] = {
        "title": "Information flow: paper-1",
        "summary": "After 100 epochs the network reaches a validation Dice of 0.883.",
        "facts": {
            "Run": {"seed": 0, "rate": 1e-4, "epochs": None, "marked": (0, 1, 10)},
            "Software": {"torch": "2.10", "none": []},
        },
        "figures": figures,
        "notes": ["kmeans(k=64): H(Y) = 2.83 bits."],
    }
    path = folder / "report.html"
    assert write_report(path, **{**content, **changes}) == path
    return Page(path)


def data_of(address: str | None) -> tuple[str, bytes]:
    found = re.fullmatch(r"data:image/(png|svg\+xml);base64,([A-Za-z0-9+/=]+)", address or "")
    assert found, f"not a picture in the page itself: {(address or '')[:60]}"
    return found[1], base64.b64decode(found[2], validate=True)


def test_a_page_says_what_it_was_given(tmp_path, figures) -> None:
    page = written(tmp_path, figures)
    for said in (
        "Information flow: paper-1",
        "After 100 epochs the network reaches a validation Dice of 0.883.",
        "kmeans(k=64): H(Y) = 2.83 bits.",
        "Blue is found.",
        "0, 1, 10",
        "0.0001",
    ):
        assert said in page.text
    facts = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page.source)
    assert facts == [
        ("seed", "0"), ("rate", "0.0001"), ("epochs", "—"), ("marked", "0, 1, 10"), ("torch", "2.10"), ("none", "—"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", FOREIGN)
def test_foreign_text_stays_text_wherever_it_stands(text, tmp_path, figures) -> None:
    plain = written(tmp_path, figures)
    page = written(
        tmp_path,
        [ReportFigure(text, text, figure.png, figure.svg) for figure in figures],
        title=text,
        summary=text,
        notes=[text],
        facts={text: {text: text, "list": [text], "path": Path(text)}, "Software": {"torch": {text: text}}},
    )
    assert [tag for tag, _ in page.elements if tag not in {"dt", "dd"}] == [
        tag for tag, _ in plain.elements if tag not in {"dt", "dd"}
    ]
    for (tag, attributes), (_, expected) in zip(
        [e for e in page.elements if e[0] not in {"dt", "dd"}],
        [e for e in plain.elements if e[0] not in {"dt", "dd"}],
        strict=True,
    ):
        assert attributes.keys() == expected.keys(), f"{text!r} gave <{tag}> an attribute"
        assert {k: v for k, v in attributes.items() if k != "alt"} == {k: v for k, v in expected.items() if k != "alt"}
    assert [image["alt"] for image in page.all("img")] == [f"{text}. {text}"] * 2
    assert page.text.count(text) >= 12
    assert page.headings[0] == (1, text)


def test_text_that_no_encoding_knows_does_not_keep_the_page_from_being_written(tmp_path, figures) -> None:
    page = written(tmp_path, figures, title="run\udcff é 日本")
    assert page.headings[0] == (1, "run? é 日本")


def test_a_page_refers_to_nothing_outside_and_runs_nothing(tmp_path, figures) -> None:
    page = written(tmp_path, figures)
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form", "input", "video", "audio"}
        assert not [name for name in attributes if name.startswith("on") or name in {"srcset", "action", "style"}]
        if "href" in attributes:
            assert (attributes["href"] or "").startswith("#")
        if "src" in attributes:
            data_of(attributes["src"])
    outside_pictures = re.sub(r"data:image/[^\"]+", "", page.source)
    assert not re.findall(r"https?:|//[a-z]|url\(|@import|@font-face", outside_pictures)


def test_the_policy_forbids_scripts_and_connections(tmp_path, figures) -> None:
    page = written(tmp_path, figures)
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in (policy or "").split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for kind in ("script-src", "connect-src", "frame-src", "object-src", "font-src"):
        assert rules.get(kind, rules["default-src"]) == "'none'"
    tags = [tag for tag, _ in page.elements]
    metas = [index for index, tag in enumerate(tags) if tag == "meta"]
    policies = [i for i in metas if page.elements[i][1].get("http-equiv")]
    assert policies[0] < tags.index("style"), "the policy comes after what it must rule"


def test_every_anchor_is_there_once(tmp_path, figures) -> None:
    page = written(tmp_path, [*figures, *figures])
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert [(a["href"] or "")[1:] for a in page.all("a")] == ids
    assert len(page.all("figure")) == 4


def test_headings_are_in_order_and_the_language_is_named(tmp_path, figures) -> None:
    page = written(tmp_path, figures)
    assert page.all("html") == [{"lang": "en"}]
    assert page.source.startswith("<!doctype html>")
    assert page.headings == [
        (1, "Information flow: paper-1"),
        (2, "What this run says"),
        (2, "How to read this page"),
        (2, "Figures"),
        (3, "1. Dice during training"),
        (3, "2. Predicted masks"),
        (2, "The run"),
        (3, "Run"),
        (3, "Software"),
    ]
    assert page.all("meta")[0] == {"charset": "utf-8"}
    assert "viewport" in {m.get("name") for m in page.all("meta")}


def test_a_page_without_figures_notes_and_facts_is_a_page(tmp_path) -> None:
    page = written(tmp_path, [], notes=[], facts={})
    assert page.all("img") == page.all("ul") == page.all("figure") == []
    assert "Figures" not in page.text
    levels = [level for level, _ in page.headings]
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_each_picture_is_the_very_file_and_has_a_text(tmp_path, figures) -> None:
    page = written(tmp_path, figures)
    images = page.all("img")
    assert [data_of(image["src"]) for image in images] == [("svg+xml", figure.svg.read_bytes()) for figure in figures]
    assert [image["alt"] for image in images] == [f"{figure.title}. {figure.caption}" for figure in figures]


def test_the_png_is_taken_when_the_svg_is_large_or_absent(tmp_path, figures) -> None:
    largest = report.page.LARGEST_SVG_BYTES
    large, fits = tmp_path / "large.svg", tmp_path / "fits.svg"
    large.write_bytes(b"<svg/>".ljust(largest + 1))
    fits.write_bytes(b"<svg/>".ljust(largest))
    png = figures[0].png
    kinds = {
        "both, the SVG large": (ReportFigure("t", "c", png, large), "png"),
        "both, the SVG just small enough": (ReportFigure("t", "c", png, fits), "svg+xml"),
        "a large SVG alone": (ReportFigure("t", "c", None, large), "svg+xml"),
        "a PNG alone": (ReportFigure("t", "c", png), "png"),
    }
    page = written(tmp_path, [figure for figure, _ in kinds.values()])
    for image, (figure, kind) in zip(page.all("img"), kinds.values(), strict=True):
        file = figure.png if kind == "png" else figure.svg
        assert data_of(image["src"]) == (kind, file.read_bytes())


def test_a_figure_without_a_file_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidArgument) as refused:
        written(tmp_path, [ReportFigure("U-Plot", "caption")])
    assert str(refused.value) == "figure 'U-Plot' has neither a PNG nor an SVG file"
    assert not list(tmp_path.iterdir())


def test_the_old_page_stays_when_the_new_one_fails(tmp_path, figures, monkeypatch) -> None:
    old = written(tmp_path, figures).source

    class Unreadable:
        def __str__(self) -> str:
            raise ValueError("cannot be told")

    def fails(**changes: Any) -> None:
        with pytest.raises((ValueError, OSError)):
            written(tmp_path, changes.pop("figures", figures), **changes)
        assert (tmp_path / "report.html").read_text(encoding="utf-8") == old
        assert [file.name for file in tmp_path.iterdir()] == ["report.html"]

    fails(facts={"Run": {"seed": Unreadable()}})
    fails(figures=[ReportFigure("gone", "caption", tmp_path / "gone.png")])

    def full(path: Path, text: str, **_: Any) -> None:
        path.write_bytes(text.encode()[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    fails()


def test_the_same_run_gives_the_same_page(tmp_path, figures) -> None:
    one, other = written(tmp_path, figures).source, written(tmp_path, figures).source
    assert one == other
    assert str(tmp_path) not in one


def test_facts_are_told_as_people_read_them(tmp_path) -> None:
    values = {"on": True, "nan": math.nan, "third": 1 / 3, "large": 1941105, "nested": [1.0, None, ("a", 2)]}
    page = written(tmp_path, [], facts={"items": values})
    told = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page.source))
    assert told == {"on": "yes", "nan": "—", "third": "0.333333", "large": "1941105", "nested": "1, —, a, 2"}


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium, which shows the page, is not here")
def test_a_browser_shows_the_page(tmp_path, figures) -> None:
    large = ReportFigure("<script>document.title = 1</script>", "drawn as PNG", figures[1].png)
    written(tmp_path, [*figures, large])
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        "--window-size=1100,2400", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
    ]  # fmt: skip

    def shown(path: Path, shot: Path) -> tuple[Page, str]:
        done = subprocess.run(
            ["chromium", *flags, f"--screenshot={shot}", "--dump-dom", path.as_uri()],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        dom = path.with_suffix(".dom")
        dom.write_text(done.stdout, encoding="utf-8")
        return Page(dom), done.stderr

    page, said = shown(tmp_path / "report.html", tmp_path / "page.png")
    assert "Content Security Policy" not in said, "something on the page was refused"
    assert len(page.all("img")) == 3
    assert page.headings[0] == (1, "Information flow: paper-1")
    with Image.open(tmp_path / "page.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    blue = (np.abs(pixels - (0, 114, 178)).sum(axis=2) < 12).sum()
    assert blue > 200, "the pictures do not show"

    tampered = tmp_path / "tampered.html"
    script = "<script>document.querySelector('h1').textContent = 'run'</script></body>"
    tampered.write_text(page.source.replace("</body>", script), encoding="utf-8")
    page, said = shown(tampered, tmp_path / "tampered.png")
    assert page.headings[0] == (1, "Information flow: paper-1"), "the page's own policy let a script run"
    assert "Content Security Policy" in said
