"""Runs to one HTML file that draws itself and needs no network.

The data of the runs (names of layers, files and labels among them) are embedded compressed and shown as text; all other text of
the page is escaped by jinja2. The content security policy of the page allows only its own script, by its hash, and no
connection; a served page may connect to its own server only.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from unetscope.base import InvalidArgument, whole_file

SCRIPTS = (
    "dom.js",
    "scales.js",
    "run.js",
    "network.js",
    "charts.js",
    "panels.js",
    "page.js",
)  # each uses those before it
SECTIONS = (
    ("network", "The network"),
    ("u-plots", "U-Plots"),
    ("planes", "Information planes"),
    ("parts", "Skips and levels"),
    ("verification", "Verified by retraining"),
    ("dice", "Dice during training"),
    ("predictions", "Predicted masks along training"),
    ("clusters", "Masks by cluster"),
    ("numbers", "Ceilings and diagnostics"),
    ("facts", "The run"),
)
TITLE = "Information flow: "  # how the title of every page begins, within its first bytes
HEAD_BYTES = 4096
LARGEST_SVG_BYTES = 250_000  # above it, the PNG is smaller


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """A figure of the page that does not move with the epoch, as the files that `unetscope.plots.save` writes.

    caption: one or two sentences on what it shows.
    """

    title: str
    caption: str
    png: Path
    svg: Path


def write_report(
    path: str | Path, runs: Sequence[Mapping[str, Any]], *, title: str, figures: Sequence[ReportFigure] = ()
) -> Path:
    """Write the page of one or more runs, whole or not at all; returns its path.

    runs: the results of `report_data_of`.
    Raises: InvalidArgument if the folder or a figure's file is missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(Path(folder, "r.html"), [{"name": "a", "notes": ["</script>"]}], title="<wbr>")
    ...     "<wbr>" in page.read_text(), "&lt;wbr&gt;" in page.read_text()
    (False, True)
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InvalidArgument(f"cannot write a report in {str(path.parent)!r}: no such folder")
    html = page(runs, title=title, figures=figures)
    with whole_file(path) as beside:
        beside.write_text(html, encoding="utf-8", errors="replace")  # a file's name need not be valid Unicode
    return path


def page(
    runs: Sequence[Mapping[str, Any]], *, title: str, figures: Sequence[ReportFigure] = (), version: str = ""
) -> str:
    """The page as text. version: of the runs, for a served page, which asks its server for newer data."""
    script, style = _script(), _asset("page.css")
    return _template().render(
        title=title,
        several=len(runs) > 1,
        sections=SECTIONS,
        notes=[(run["name"], run["notes"]) for run in runs],
        figures=[(figure, _embedded(figure)) for figure in figures],
        packed=packed(runs),
        script=script,
        style=style,
        policy=_policy(script, live=bool(version)),
        version=version,
    )


def title_of(runs: Sequence[Path]) -> str:
    """The title of the page of these run folders."""
    return f"{TITLE}{', '.join(run.resolve().name for run in runs)}"


def is_page(path: Path) -> bool:
    """Whether a file is a page that this package wrote."""
    with path.open("rb") as file:
        return f"<title>{TITLE}".encode() in file.read(HEAD_BYTES)


def packed(runs: Sequence[Mapping[str, Any]]) -> str:
    """The data of runs as compressed JSON in base64, which contains no markup."""
    text = as_json(runs)
    return base64.b64encode(gzip.compress(text, mtime=0)).decode()


def as_json(runs: Sequence[Mapping[str, Any]]) -> bytes:
    """The data of runs as JSON; a lone surrogate, which a file name may contain, becomes a question mark."""
    return json.dumps(runs, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
        "utf-8", errors="replace"
    )


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("unetscope.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja")


@cache
def _asset(name: str) -> str:
    return files("unetscope.report").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    """All scripts of the page as one, in a function of its own so that it defines no globals."""
    body = "\n".join(map(_asset, SCRIPTS))
    return f'"use strict";\n(() => {{\n{body}}})();\n'


def _policy(script: str, *, live: bool) -> str:
    """The content security policy. The script sets styles on elements, which no hash covers, so inline styles are allowed."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = ["default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'"]
    return "; ".join([*allowed, *["connect-src 'self'"] * live, "base-uri 'none'", "form-action 'none'"])


def _embedded(figure: ReportFigure) -> str:
    """The figure as a data URL: the SVG, or the PNG if the SVG is large."""
    for file in (figure.png, figure.svg):
        if not file.is_file():
            raise InvalidArgument(f"figure {figure.title!r} has no file {str(file)!r}")
    small = figure.svg.stat().st_size <= LARGEST_SVG_BYTES
    kind, file = ("svg+xml", figure.svg) if small else ("png", figure.png)
    return f"data:image/{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
