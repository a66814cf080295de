"""Runs to their figures and their page, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unetscope import plots
from unetscope.base.progress import NoProgress, Progress
from unetscope.report.figures import drawings
from unetscope.report.page import ReportFigure, title_of, write_report
from unetscope.report.report_data import report_data_of
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.folder import RunFolder


def render_run(run: RunFolder | AnalysedRun, *, progress: Progress | None = None) -> Path:
    """Draw every figure of a run as PNG and SVG and write `report.html`; returns the page's path."""
    run = AnalysedRun.of(run)
    progress = progress or NoProgress()
    planned = list(drawings(run))
    progress.stage("figures", len(planned))
    run.folder.figures.mkdir(exist_ok=True)
    stills = []
    for done, drawing in enumerate(planned):
        progress.advance(done, drawing.title)
        png, svg = plots.save(drawing.figure(), run.folder.figures, drawing.name)
        if drawing.still:
            stills.append(ReportFigure(drawing.title, drawing.caption, png, svg))
    progress.advance(len(planned))
    return write_report(run.path / "report.html", [report_data_of(run)], title=title_of([run.path]), figures=stills)


def compare(runs: Sequence[RunFolder | AnalysedRun], path: str | Path) -> Path:
    """Write one page of several runs, side by side; returns its path."""
    return write_report(path, [report_data_of(run) for run in runs], title=title_of([run.path for run in runs]))
