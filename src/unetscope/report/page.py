"""Figures and facts to one HTML file without scripts and without network access. Imports errors and files only.

Everything foreign (names of layers, of files, of labels) is escaped by jinja2; figures are embedded as images, in which a
browser runs no script, and the page's own policy forbids scripts and connections altogether.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from unetscope.errors import InvalidArgument
from unetscope.files import whole_file

LARGEST_SVG_BYTES = 250_000  # above it, the PNG is the smaller way to show the same


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """One figure of the page, as the files that `unetscope.plots.save` wrote; at least one of them.

    title: also its anchor in the table of contents. caption: one or two sentences on what is seen.
    """

    title: str
    caption: str
    png: Path | None = None
    svg: Path | None = None


def write_report(
    path: str | Path,
    *,
    title: str,
    summary: str,
    facts: Mapping[str, Mapping[str, Any]],
    figures: Sequence[ReportFigure],
    notes: Sequence[str] = (),
) -> Path:
    """Write the page, whole or not at all; returns its path.

    summary: the run in a sentence or two. facts: section, then name, then value. notes: what a reader must know before
    believing the figures.
    Raises: InvalidArgument if the folder or a figure's file is missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(Path(folder, "r.html"), title="<wbr>", summary="", facts={"Run": {"seed": 0}}, figures=[])
    ...     "<wbr>" in page.read_text(), "&lt;wbr&gt;" in page.read_text()
    (False, True)
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InvalidArgument(f"cannot write a report in {str(path.parent)!r}: no such folder")
    environment = Environment(
        loader=PackageLoader("unetscope.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["value"] = _value
    html = environment.get_template("page.html.jinja").render(
        title=title,
        summary=summary,
        facts=facts,
        notes=notes,
        figures=[(f"figure-{number}", figure, _embedded(figure)) for number, figure in enumerate(figures, 1)],
    )
    with whole_file(path) as beside:
        beside.write_text(html, encoding="utf-8", errors="replace")  # a file's name need not be valid Unicode
    return path


def _embedded(figure: ReportFigure) -> str:
    """The figure as a data address: the SVG, unless it is large and there is a PNG."""
    for file in (figure.png, figure.svg):
        if file is not None and not file.is_file():
            raise InvalidArgument(f"figure {figure.title!r} has no file {str(file)!r}")
    small = figure.svg is not None and figure.svg.stat().st_size <= LARGEST_SVG_BYTES
    if figure.svg is not None and (small or figure.png is None):
        kind, file = "svg+xml", figure.svg
    elif figure.png is not None:
        kind, file = "png", figure.png
    else:
        raise InvalidArgument(f"figure {figure.title!r} has neither a PNG nor an SVG file")
    return f"data:image/{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def _value(value: Any) -> str:
    """A fact as people read it: lists with commas, absent values as a dash, floats without noise."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value != value:  # NaN alone differs from itself
        return "—"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value) or "—"
    return str(value)
