"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what it will take.")]
Sweep = Annotated[
    bool, typer.Option("--sweep", help="KDE and binning over seven decades of noise variance and four of bin size.")
]
Track = Annotated[
    str | None,
    typer.Option(
        help="Tracker to give scalars and figures to: tensorboard, mlflow or wandb, in the run folder, offline."
    ),
]
Run = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]
Runs = Annotated[list[Path], typer.Argument(help="One run folder, or several to stand side by side.", metavar="RUN...")]
