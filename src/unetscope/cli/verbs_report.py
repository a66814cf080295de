"""The verbs that show and hand over a run: `report`, `view` and `export`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from unetscope.cli.costs import measure_missing_costs
from unetscope.cli.flags import Json, Quiet, Run, Runs, Track
from unetscope.cli.progress import shown_progress
from unetscope.cli.terminal import one_line, print_json


def report(
    runs: Runs,
    to: Annotated[
        Path | None, typer.Option(help="Page to write [default: RUN/report.html; of several, comparison.html here].")
    ] = None,
    track: Track = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Draw the figures and write the page of a run again, or one page of several runs."""
    from unetscope.report import compare, render_run
    from unetscope.runs import AnalysedRun
    from unetscope.runs import track as hand_over

    analysed = list(map(AnalysedRun.open, runs))
    with shown_progress(quiet or json) as progress:
        for each in analysed:
            measure_missing_costs(each, progress)
        if len(analysed) > 1 or to is not None:
            page = compare(analysed, to or Path("comparison.html"))
        else:
            page = render_run(analysed[0], progress=progress)
    if track is not None:
        for each in analysed:
            hand_over(each, track)
    print_json({"report": str(page)}) if json else typer.echo(one_line(str(page)))


def view(
    runs: Runs,
    host: Annotated[
        str, typer.Option(help="Interface to serve on; any other than this one lets others in the network ask.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Port [default: the one of the last time, else any free one].")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
) -> None:
    """Serve the page of a run to this machine's browser, live while it trains; ends with Ctrl+C."""
    import webbrowser

    from unetscope.base import end_with_parent
    from unetscope.report import opening, server
    from unetscope.runs import RunFolder

    if with_parent:
        end_with_parent()
    else:
        for run in runs:
            RunFolder.open(run)
    with server(runs, host=host, port=port) as serving:
        typer.echo(f"{', '.join(one_line(str(run)) for run in runs)}: {serving.url}", err=with_parent)
        if browser and _has_screen() and (door := opening(serving)):
            webbrowser.open(door)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            raise typer.Exit from None


def export(
    run: Run,
    to: Annotated[Path, typer.Option(help="Table of estimates to write: .csv or .parquet.")],
    epochs_to: Annotated[
        Path | None, typer.Option(help="Table of Dice and loss to write [default: beside, NAME-epochs].")
    ] = None,
    json: Json = False,
) -> None:
    """Write the estimates, and beside them the Dice and loss of every epoch and what designs cost, as CSV or Parquet."""
    from unetscope.runs import AnalysedRun
    from unetscope.table import save_costs, save_epochs

    analysed = AnalysedRun.open(run)
    estimates = analysed.flow.save(to)
    epochs = save_epochs(analysed.epochs, epochs_to or to.with_name(f"{to.stem}-epochs{to.suffix}"))
    written = {"estimates": str(estimates), "epochs": str(epochs)}
    if known := analysed.design_costs:
        of_designs = ((design.name, saved) for design, saved in known)
        written["costs"] = str(save_costs(of_designs, to.with_name(f"{to.stem}-costs{to.suffix}")))
    if json:
        print_json(written)
    else:
        typer.echo("\n".join(map(one_line, written.values())))


def _has_screen() -> bool:
    """Whether a browser has somewhere to open: on a server it might take the terminal instead."""
    return sys.platform != "linux" or any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
