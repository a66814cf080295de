"""The verbs that show and hand over a run: `report`, `view` and `export`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated

import typer

from unetscope.base import InvalidArgument
from unetscope.cli.costs import measure_missing_costs
from unetscope.cli.flags import Json, Quiet, Run, Runs, Track
from unetscope.cli.progress import shown_progress
from unetscope.cli.terminal import one_line, print_json

COMPARISON = Path("comparison.html")


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
    from unetscope.runs import AnalysedRun, refuse_own_files
    from unetscope.runs import track as hand_over

    if to is not None or len(runs) > 1:
        refuse_own_files(to or COMPARISON)
    if to is not None and to.suffix.lower() not in (".html", ".htm"):
        raise InvalidArgument(f"--to writes a page: name it {to.with_suffix('.html')}, got {to}")
    if to is None and len(runs) > 1:
        _refuse_other_page(COMPARISON)
    analysed = list(map(AnalysedRun.open, runs))
    with shown_progress(quiet or json) as progress:
        for each in analysed:
            measure_missing_costs(each, progress)
        if len(analysed) > 1 or to is not None:
            page = compare(analysed, to or COMPARISON)
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
    from unetscope.table import COST_COLUMNS, EPOCH_COLUMNS, save_costs, save_epochs

    analysed = AnalysedRun.open(run)
    places = {"estimates": to, "epochs": epochs_to or _beside(to, "epochs")}
    if known := analysed.design_costs:
        places["costs"] = _beside(to, "costs")
    _refuse_places(list(places.values()))
    if epochs_to is None:
        _refuse_other_table(places["epochs"], EPOCH_COLUMNS, "name another with --epochs-to")
    if known:
        _refuse_other_table(places["costs"], COST_COLUMNS, "choose another name with --to")
    analysed.flow.save(places["estimates"])
    save_epochs(analysed.epochs, places["epochs"])
    if known:
        save_costs(((design.name, saved) for design, saved in known), places["costs"])
    written = {name: str(place) for name, place in places.items()}
    if json:
        print_json(written)
    else:
        typer.echo("\n".join(map(one_line, written.values())))


def _beside(path: Path, kind: str) -> Path:
    """The place of a further table beside one. Raises: InvalidArgument for what has no name, such as the root folder."""
    if not path.name:
        raise InvalidArgument(f"cannot save a table as {str(path)!r}: expected a name that ends in .csv or .parquet")
    return path.with_name(f"{path.stem}-{kind}{path.suffix}")


def _refuse_places(places: Sequence[Path]) -> None:
    """Raises: InvalidArgument for files of a run itself, and for two tables in one place."""
    from unetscope.runs import refuse_own_files

    for place in places:
        refuse_own_files(place)
    for first, second in combinations(places, 2):
        alike = [os.path.realpath(place).casefold() for place in (first, second)]  # some file systems tell no case
        if alike[0] == alike[1] or (first.exists() and second.exists() and first.samefile(second)):
            raise InvalidArgument(f"{first} and {second} are one place: two tables are written, choose another for one")


def _refuse_other_table(path: Path, columns: Sequence[str], remedy: str) -> None:
    """Raises: InvalidArgument for a file that nobody named, and that an earlier export did not write."""
    from unetscope.table import is_saved_table

    if path.is_file() and not is_saved_table(path, columns):
        raise InvalidArgument(f"{path} is there, and no earlier export wrote it: move it away, or {remedy}")


def _refuse_other_page(path: Path) -> None:
    """Raises: InvalidArgument for a page that nobody named, and that an earlier report did not write."""
    from unetscope.report import is_page

    if path.is_file() and not is_page(path):
        raise InvalidArgument(f"{path} is there, and no earlier report wrote it: name another page with --to")


def _has_screen() -> bool:
    """Whether a browser has somewhere to open: on a server it might take the terminal instead."""
    return sys.platform != "linux" or any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
