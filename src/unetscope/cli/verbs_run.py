"""The verbs that train and measure: `run` and `measure`."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unetscope.base import InvalidArgument, RunFolderError, Terminated
from unetscope.cli.costs import measure_missing_costs
from unetscope.cli.flags import Json, Network, Quiet, Run, Sweep, Track, as_code, takes, with_sweep
from unetscope.cli.progress import shown_progress
from unetscope.cli.terminal import dice_of_classes, one_line, print_json, print_pairs, print_sentence
from unetscope.table import settings
from unetscope.training import (
    FILES_ONLY,
    PRESETS,
    UNET_ONLY,
    RunConfig,
    alternatives,
    flag_words,
    overridden_config,
    parse_epochs,
    preset_config,
    run_flags,
)

if TYPE_CHECKING:
    from unetscope.runs import AnalysedRun, Forecast


RUN_FLAGS = run_flags(RunConfig)
MEASURE_FLAGS = tuple(
    flag for flag in RUN_FLAGS if flag.name in {f"measuring.{setting.name}" for setting in settings()}
)


@takes(RUN_FLAGS)
def run(
    out: Annotated[Path | None, typer.Option(help="Run folder to make [default: runs/PRESET].")] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"{alternatives(PRESETS)} [default: demo without --data, else quick].")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where this run was stopped.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it will take in time, memory and disk.")
    ] = False,
    *,
    values: Mapping[str, Any],
    sweep: Sweep = False,
    track: Track = None,
    live: Annotated[bool, typer.Option("--open", help="Open the page in a browser, live while it trains.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train a U-Net or a network of your own, measure how information flows through it, draw and report it."""
    code = values.get("network.code")
    config, folder = _configured(preset, with_sweep(values, RUN_FLAGS) if sweep else values, out, resume)
    _refuse_values_of_files(config, values)
    _refuse_values_of_unet(config, values)
    if dry_run:
        from unetscope.runs import forecast_run

        with shown_progress(quiet or json) as progress:
            place = folder if resume or out is not None else None  # the usual folder may hold an earlier run
            forecast = forecast_run(config, place, resume=resume, code=code, progress=progress)
        print_json(forecast.as_dict()) if json else print_forecast(forecast, config)
        return
    from unetscope.report import render_run
    from unetscope.runs import AnalysedRun, check_tracker
    from unetscope.runs import run as run_experiment
    from unetscope.runs import track as hand_over

    with shown_progress(quiet or json) as progress:
        if track is not None:
            check_tracker(track)
        try:
            with _viewed(folder) if live else nullcontext():
                trained = run_experiment(config, folder, resume=resume, code=code, progress=progress, track=track)
                finished = AnalysedRun(trained)
                measure_missing_costs(finished, progress)
                page = render_run(finished, progress=progress)
            if track is not None:
                hand_over(finished, track)
        except KeyboardInterrupt:
            progress.warn(f"stopped; go on with: unetscope run --out {folder} --resume")
            raise typer.Exit(130) from None
        except Terminated:
            progress.warn(f"stopped after its last checkpoint; go on with: unetscope run --out {folder} --resume")
            raise
    print_run(finished, page, json=json)


@takes(MEASURE_FLAGS, negatable=False)
def measure(
    run: Run,
    *,
    values: Mapping[str, Any],
    sweep: Sweep = False,
    epochs: Annotated[
        str | None, typer.Option(help="Epochs with a checkpoint, such as 10,100 [default: all measured].")
    ] = None,
    network: Network = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Measure the kept checkpoints of a run again, with what is named; what was measured before stays."""
    from unetscope.report import render_run
    from unetscope.runs import AnalysedRun, measure_again

    values = with_sweep(values, MEASURE_FLAGS) if sweep else values
    named = {name.removeprefix("measuring."): value for name, value in values.items()}
    chosen = [] if epochs is None else parse_epochs("--epochs", epochs)
    with shown_progress(quiet or json) as progress:
        measured = AnalysedRun(measure_again(run, named, epochs=chosen, code=as_code(network), progress=progress))
        measure_missing_costs(measured, progress)
        page = render_run(measured, progress=progress)
    print_run(measured, page, title="Measured again", json=json)


def _refuse_values_of_files(config: RunConfig, values: Mapping[str, Any]) -> None:
    """Refuse flags about files of images where images are synthetic. Raises: InvalidArgument, which names the flag."""
    for flag in RUN_FLAGS:
        if flag.name in FILES_ONLY and flag.name in values and config.data.path is None:
            raise InvalidArgument(f"{flag.words[0]} needs --data: the images to train on")


def _refuse_values_of_unet(config: RunConfig, values: Mapping[str, Any]) -> None:
    """Refuse flags of this package's U-Net for another network. Raises: InvalidArgument, which names the flag."""
    for flag in RUN_FLAGS:
        of_code = flag.name in ("network.arguments", "network.output")
        if flag.name in values and config.network.code is None and of_code:
            raise InvalidArgument(f"{flag.words[0]} needs --network: the code that builds your network")
        if flag.name in values and config.network.code is not None and flag.name in UNET_ONLY:
            raise InvalidArgument(
                f"{flag.words[0]} is of the U-Net of this package: with --network, give --network-args NAME=VALUE"
            )


def viewer_command(folder: Path) -> list[str]:
    """What serves the page of a run as long as this process lives.

    -P: no module is taken from the current folder, which may be somebody else's.
    """
    return [sys.executable, "-P", "-m", "unetscope", "view", str(folder), "--with-parent"]


@contextmanager
def _viewed(folder: Path) -> Iterator[None]:
    """Serve the page of a run from a process of its own, which neither slows the training nor outlives it."""
    with subprocess.Popen(viewer_command(folder), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as viewer:  # noqa: S603
        try:
            yield
        finally:
            viewer.kill()


def _configured(
    preset: str | None, overrides: Mapping[str, Any], out: Path | None, resume: bool
) -> tuple[RunConfig, Path]:
    """The configuration asked for, and its run folder; a resumed run that names no preset keeps its own."""
    from unetscope.runs import RunFolder, configuration_to_resume

    usual = "quick" if "data.path" in overrides else "demo"
    name = usual if preset is None else preset
    folder = out or Path("runs") / name
    words = {flag.name: flag.words[0] for flag in RUN_FLAGS if flag.name in overrides}
    if resume and preset is None and RunFolder.exists(folder):
        return overridden_config(configuration_to_resume(RunFolder.open(folder)), overrides, words), folder
    return preset_config(name, overrides, words), folder


def print_forecast(forecast: Forecast, config: RunConfig) -> None:
    """What a run will take, as a table, and every value that it will have."""
    print_pairs("What this run will take", forecast.rows())
    print_sentence(f"Its values, by the preset {config.preset} unless you named them: {shlex.join(flag_words(config))}")


def print_run(run: AnalysedRun, page: Path, *, title: str = "Run finished", json: bool) -> None:
    """Where a finished run lies and how well its network does."""
    from unetscope.report import UNLEARNT

    if not run.epochs:
        raise RunFolderError(f"{run.path} has no epoch in its table of epochs: restore it")
    last = run.epochs[-1]
    if json:
        print_json(
            {
                "run": str(run.path),
                "report": str(page),
                "epoch": last.epoch,
                "validation_dice": last.validation_dice,
                **({"dice_per_class": last.dice_per_class} if last.dice_per_class else {}),
            }
        )
        return
    print_pairs(
        title,
        [
            ("epochs trained", f"{last.epoch}"),
            ("validation Dice", f"{last.validation_dice:.3f}"),
            *([("Dice by class", dice_of_classes(last.dice_per_class))] if last.dice_per_class else []),
            ("measured at epochs", ", ".join(map(str, run.flow.epochs))),
            ("run folder", one_line(str(run.path))),
            ("report", one_line(str(page))),
        ],
    )
    if not run.has_learnt:
        print_sentence(UNLEARNT)
