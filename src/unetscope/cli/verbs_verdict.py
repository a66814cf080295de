"""The verbs that judge, retrain and slim: `verdict`, `verify` and `slim`."""

from __future__ import annotations

from typing import Annotated

import typer

from unetscope.base.errors import InvalidArgument
from unetscope.cli.options import DryRun, Json, Quiet, Run
from unetscope.cli.print_verdict import print_judgement
from unetscope.cli.print_verification import print_expected, print_slim, print_verification
from unetscope.cli.progress_bar import progress_bar


def verdict(
    run: Run,
    epoch: Annotated[int | None, typer.Option(help="Training budget, a measured epoch [default: the last].")] = None,
    margin: Annotated[
        float | None, typer.Option(help="Share of what the network tells that counts as nothing.")
    ] = None,
    cost: Annotated[bool, typer.Option("--cost/--no-cost", help="Time the proposed design on this machine.")] = True,
    json: Json = False,
) -> None:
    """Say which skips and levels the task needs, from which epoch, how sure, and what a network without the others saves."""
    from unetscope.analysis.verdict import MARGIN
    from unetscope.runs.analysed import AnalysedRun

    judged = AnalysedRun.open(run, margin=MARGIN if margin is None else margin)
    judgement = judged.judged()
    if epoch is not None:
        judgement.at(epoch)
    saved = None
    if cost and judged.own_network and (design := judgement.design(epoch)) is not None:
        from unetscope.runs.slimming import savings

        saved = savings(judged.folder, design)
    print_judgement(judged, epoch, saved, json=json)


def verify(
    run: Run,
    variants: Annotated[
        list[str] | None,
        typer.Option(
            help="paper, skips, depths, proposed, no-skips, without-skip2, depth3, …; repeatable [default: paper]."
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="How many seeds, or which, such as 0,1,5.")] = "3",
    workers: Annotated[int | None, typer.Option(help="Jobs at a time [default: as many as the cores carry].")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads of a job.")] = 1,
    engine: Annotated[str, typer.Option(help="local, ray or slurm.")] = "local",
    margin: Annotated[float | None, typer.Option(help="Loss of Dice that counts as none [default: 0.02].")] = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Retrain variants of a run's network over seeds, and hold the verdicts against them; started again, it goes on."""
    from unetscope.analysis.outcomes import DICE_MARGIN, check_margin
    from unetscope.report.render import render_run
    from unetscope.runs.analysed import AnalysedRun
    from unetscope.runs.engines import cores, engine_named
    from unetscope.runs.folder import RunFolder
    from unetscope.runs.retraining import expected_seconds, on_gpu, retrain, trials
    from unetscope.runs.verification import chosen_seeds, chosen_variants

    folder = RunFolder.open(run)
    chosen = chosen_variants(folder, variants or ["paper"])
    planned = trials(folder, chosen, chosen_seeds(folder, _seeds(seeds)))
    trained_by = engine_named(engine, workers=workers, threads=threads, gpu=on_gpu(folder))
    if dry_run:
        at_once = workers or max(1, cores() // threads)
        print_expected(planned, expected_seconds(folder, planned, workers=at_once, threads=threads), json=json)
        return
    loss = DICE_MARGIN if margin is None else margin
    check_margin(loss)
    with progress_bar(quiet or json) as progress:
        try:
            failed = retrain(folder, planned, engine=trained_by, threads=threads, progress=progress)
        except KeyboardInterrupt:
            progress.warn("stopped; the same command goes on where it was")
            raise typer.Exit(130) from None
        retrained = AnalysedRun(folder, dice_margin=loss)
        verification = retrained.verification_of(planned)
        page = render_run(retrained, progress=progress)
    print_verification(verification, page, {trial.name: reason for trial, reason in failed.items()}, json=json)


def slim(
    run: Run,
    design: Annotated[
        str,
        typer.Option(
            help="What to leave out, such as without-skip1 or depth2 [default: what the verdicts propose].",
            show_default=False,
        ),
    ] = "proposed",
    fine_tune: Annotated[int, typer.Option(help="Epochs to train the carried weights on.")] = 0,
    retrained: Annotated[
        bool, typer.Option("--retrained", help="Take the weights of its retraining by verify.")
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX too.")] = False,
    torch_export: Annotated[bool, typer.Option("--torch-export", help="Write a program of torch.export too.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write the smaller network with weights carried over, and its Dice before and after."""
    from unetscope.runs.slimming import Export
    from unetscope.runs.slimming import slim as make_slim

    if fine_tune < 0:
        raise InvalidArgument(f"--fine-tune must be 0 or more, got {fine_tune}")
    kinds: dict[Export, bool] = {"onnx": onnx, "torch": torch_export}
    with progress_bar(quiet or json) as progress:
        smaller = make_slim(
            run,
            design,
            fine_tune=fine_tune,
            retrained=retrained,
            exports=tuple(kind for kind, chosen in kinds.items() if chosen),
            progress=progress,
        )
    print_slim(smaller, json=json)


def _seeds(text: str) -> int | list[int]:
    """How many seeds, or which."""
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        raise InvalidArgument(f"--seeds {text}: expected a number of seeds, or seeds such as 0,1,5") from None
    return numbers if "," in text else numbers[0]
