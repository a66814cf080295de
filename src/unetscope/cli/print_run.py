"""What `run` and `measure` print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unetscope.cli.terminal import one_line, print_json, print_pairs

if TYPE_CHECKING:
    from unetscope.runs.analysed import AnalysedRun
    from unetscope.runs.forecast import Forecast


def print_forecast(forecast: Forecast) -> None:
    """What a run will take, as a table."""
    print_pairs("What this run will take", forecast.rows())


def print_run(run: AnalysedRun, page: Path, *, json: bool) -> None:
    """Where a finished run lies and how well its network does."""
    last = run.epochs[-1]
    if json:
        print_json(
            {"run": str(run.path), "report": str(page), "epoch": last.epoch, "validation_dice": last.validation_dice}
        )
        return
    print_pairs(
        "Run finished",
        [
            ("epochs trained", f"{last.epoch}"),
            ("validation Dice", f"{last.validation_dice:.3f}"),
            ("measured at epochs", ", ".join(map(str, run.flow.epochs))),
            ("run folder", one_line(str(run.path))),
            ("report", one_line(str(page))),
        ],
    )
