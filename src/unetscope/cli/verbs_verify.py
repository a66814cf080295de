"""The verbs that retrain and hand over: `verify` and `slim`, and their output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unetscope.base import InvalidArgument, Progress, Terminated, whole_number
from unetscope.cli.costs import measure_missing_costs, print_costs
from unetscope.cli.expected import print_expected, print_widths
from unetscope.cli.flags import DryRun, Json, Network, Quiet, Run, as_code
from unetscope.cli.progress import shown_progress
from unetscope.cli.terminal import dice_of_classes, one_line, print_json, print_pairs, print_sentence, print_table
from unetscope.table import RULE_TITLES, check_margin

if TYPE_CHECKING:
    from rich.text import Text

    from unetscope.analysis import Row, Training, Verification
    from unetscope.runs import AnalysedRun, ExpectedWidth, Slim
    from unetscope.table import Agreement, Rule, ThinSkip


def verify(
    run: Run,
    variants: Annotated[
        list[str] | None,
        typer.Option(
            help="paper, skips, depths, proposed, no-skips, without-skip2, depth3, …; repeatable [default: paper]."
        ),
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="How many seeds, which, such as 0,1,5, or auto: added until a variant is decided.")
    ] = "3",
    trainings: Annotated[
        int | None, typer.Option(help="Most trainings of --seeds auto [default: 8 for every variant].")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Jobs at a time [default: as many as the cores carry].")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads of a job.")] = 1,
    engine: Annotated[str, typer.Option(help="local, ray or slurm.")] = "local",
    margin: Annotated[float | None, typer.Option(help="Loss of Dice that counts as none [default: 0.02].")] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="What builds the network: of a run in a loop of its own with --train, of a run begun elsewhere to let it run.",
            metavar="CODE",
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            help="Of a run in a loop of its own, what trains: FILE.py:NAME, called with model, seed, folder, epochs."
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of a training by --train [default: as were measured].")
    ] = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Retrain variants of a run's network over seeds, and compare them with the verdicts; started again, it continues."""
    from unetscope import runs
    from unetscope.analysis import DICE_MARGIN
    from unetscope.report import render_run

    loss = DICE_MARGIN if margin is None else margin
    check_margin(loss, "--margin")
    judged = runs.AnalysedRun.open(run, dice_margin=loss)
    _allow_code(judged, network, train, epochs, plan_only=dry_run)
    folder, chosen, auto = judged.folder, runs.chosen_variants(judged, variants or ["paper"]), seeds == runs.AUTO
    if trainings is not None and not auto:
        raise InvalidArgument("--trainings limits --seeds auto: a chosen number of seeds is trained whole")
    planned = runs.planned_trials(folder, chosen, runs.AUTO if auto else _seeds(seeds), trainings)
    trained_by = runs.engine_named(engine, workers=workers, threads=threads, gpu=runs.on_gpu(folder))
    widths = runs.expected_widths(judged, planned, auto=auto)
    if dry_run:
        at_once = runs.jobs_at_once(workers, threads, gpu=engine == "local" and runs.on_gpu(folder))
        seconds = runs.expected_seconds(folder, planned, workers=at_once, threads=threads)
        print_expected(planned, seconds, widths, margin=judged.dice_margin, json=json)
        if not json and (sentence := runs.trained_twice(folder, planned)):
            print_sentence(sentence)
        return
    if not json:
        print_widths(widths, judged.dice_margin)
    with shown_progress(quiet or json) as progress:
        with _told_how_to_go_on(progress):
            failed = runs.train_variants(
                judged, planned, auto=auto, engine=trained_by, threads=threads, progress=progress
            )
        verification = judged.verification_of(planned)
        measure_missing_costs(judged, progress)
        page = render_run(judged, progress=progress)
    reasons = {trial.name: reason for trial, reason in failed.items()}
    print_verification(verification, page, reasons, widths, judged, json=json)


def _allow_code(
    run: AnalysedRun, network: str | None, train: str | None, epochs: int | None, *, plan_only: bool
) -> None:
    """Keep how a run of a loop of its own is retrained, if that is named, and see that the code of a run may run."""
    from unetscope.runs import allow_code, name_own_loop

    if train is not None:
        name_own_loop(run, as_code(network), as_code(train, "--train"), epochs, plan_only=plan_only)
    elif epochs is not None:
        raise InvalidArgument("--epochs needs --train: a run of unetscope is retrained for as many epochs as it has")
    allow_code(run.folder, as_code(network))


@contextmanager
def _told_how_to_go_on(progress: Progress) -> Iterator[None]:
    """Say at an interrupt, or where the process is to end, that nothing is lost."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        progress.warn("stopped; the same command goes on where it was")
        if isinstance(stop, KeyboardInterrupt):
            raise typer.Exit(130) from None
        raise


def slim(
    run: Run,
    design: Annotated[
        str,
        typer.Option(
            help="What to leave out, such as without-skip1 or depth2 [default: what the verdicts propose].",
            show_default=False,
        ),
    ] = "proposed",
    thin: Annotated[
        list[str] | None,
        typer.Option(
            help="Directions of a skip to keep, such as skip1=4, of the whole network or of --design; repeatable. Several "
            "numbers, such as skip1=1,2,4, are compared, and no network is written.",
            show_default=False,
        ),
    ] = None,
    fine_tune: Annotated[int, typer.Option(help="Epochs to train the carried weights on.")] = 0,
    retrained: Annotated[
        bool, typer.Option("--retrained", help="Take the weights of its retraining by verify.")
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX too.")] = False,
    torch_export: Annotated[bool, typer.Option("--torch-export", help="Write a program of torch.export too.")] = False,
    network: Network = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write the smaller network with weights carried over, and its Dice before and after."""
    from unetscope.runs import Export, compare_thin, parse_thin
    from unetscope.runs import slim as make_slim
    from unetscope.training import MOST_EPOCHS_TRAINED

    whole_number(fine_tune, "--fine-tune", least=0, most=MOST_EPOCHS_TRAINED)
    kept = parse_thin(thin or ())
    if any(len(numbers) > 1 for numbers in kept.values()):
        if fine_tune or retrained or onnx or torch_export:
            raise InvalidArgument(
                "--thin with several numbers compares, and writes no network: name one number of each skip"
            )
        with shown_progress(quiet or json) as progress:
            whole, compared = compare_thin(run, kept, design, code=as_code(network), progress=progress)
        print_thin(run, whole, compared, json=json)
        return
    kinds: dict[Export, bool] = {"onnx": onnx, "torch": torch_export}
    with shown_progress(quiet or json) as progress:
        smaller = make_slim(
            run,
            design,
            thin={skip: number for skip, (number,) in kept.items()},
            fine_tune=fine_tune,
            retrained=retrained,
            exports=tuple(kind for kind, chosen in kinds.items() if chosen),
            code=as_code(network),
            progress=progress,
        )
    print_slim(smaller, json=json)


def _seeds(text: str) -> int | list[int]:
    """How many seeds, or which. Raises: InvalidArgument for text that says neither."""
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        raise InvalidArgument(f"--seeds {text:.60}: expected a number of seeds, seeds such as 0,1,5, or auto") from None
    return numbers if "," in text else numbers[0]


# By whether a rule was right: the sign behind its verdict, and the style.
MARKS: Mapping[Agreement, tuple[str, str]] = {"hit": (" ✓", ""), "miss": (" ✗", "bold red"), "open": ("", "dim")}


def print_verification(
    verification: Verification,
    page: Path,
    failed: Mapping[str, str],
    widths: Sequence[ExpectedWidth],
    run: AnalysedRun,
    *,
    json: bool,
) -> None:
    """Every variant's outcome beside its verdicts, how often each rule was right, and what variants cost.

    failed: why, of the trainings that failed, by name. widths: what was expected of the intervals.
    """
    scores: dict[str, dict[Agreement, int]] = {rule: verification.score(rule) for rule in RULE_TITLES}
    scores["verdict"] = verification.score()
    if json:
        expected = {"expected intervals": [width.as_dict() for width in widths]}
        outcomes = {**_verification_data(verification, run), "scores": scores, "failed": dict(failed)}
        print_json({**outcomes, **expected, "report": str(page)})
        return
    rows = verification.rows()
    reaches = "epoch at its target" if math.isnan(verification.target) else f"epoch at {verification.target:.3f} Dice"
    print_table(
        f"Retrained, after {verification.budgets[-1]} epochs",
        ("variant", "verdict", "expected to lose", "paper's rule", "outcome", reaches, "why"),
        [_outcome_row(verification, row) for row in rows],
    )
    print_costs(run, verification)
    for row in rows:
        if row.outcome.dice_per_class:
            print(f"Dice by class, {row.variant.name}: {dice_of_classes(row.outcome.dice_per_class, 40)}")
    for training in verification.trainings:
        if training.records and not training.sound and not training.failure:
            ended = "did not start" if training.started_at is None else "collapsed"
            print(f"{training.variant} with seed {training.seed} {ended}: {training.why_not}")
    for name, reason in failed.items():
        print(f"{name} failed: {one_line(reason)}")
    if (spread := verification.spread()).freedom:
        print(
            f"A training's score varies by {spread.residual:.2g} Dice with its seed (degrees of freedom: {spread.freedom:.0f})"
        )
    for subject, score in (("Verdicts", scores["verdict"]), ("The paper's rule", scores["plateau"])):
        print(f"{subject}: {score['hit']} right, {score['miss']} wrong, {score['open']} open")
    if stalled := [row.variant.name for row in rows if row.outcome.stalls]:
        print(f"Open because they start less often than the reference: {', '.join(stalled)}")
    print(f"report: {one_line(str(page))}")


def _verification_data(verification: Verification, run: AnalysedRun) -> dict[str, Any]:
    costs = run.costs
    outcomes = [
        {
            **asdict(row.outcome),
            "looks": verification.looks_taken(row.variant.name),
            "predicted": {"verdict": row.decision(), **row.predicted},
            "expected": None if row.expected is None else row.expected.as_dict(),
            "reaches target at": _reached(verification, row),
            "costs": None if (saved := costs.of(row.variant)) is None else saved.as_dict(),
        }
        for row in verification.rows()
    ]
    of_image = {"image": costs.shape, "costs of the whole": None if costs.whole is None else asdict(costs.whole)}
    return {"epoch": verification.budgets[-1], "target": verification.target, **of_image, "outcomes": outcomes}


def _outcome_row(verification: Verification, row: Row) -> tuple[str | Text, ...]:
    """A variant with its verdicts, its outcome, and when each seed reaches the target."""
    epochs = ", ".join(_reached_text(verification, training) for training in verification.of(row.variant.name))
    return (
        row.variant.name,
        _verdict_beside_outcome(row, None),
        "" if row.expected is None else row.expected.loss.text,
        _verdict_beside_outcome(row, "plateau"),
        row.outcome.decision,
        epochs,
        one_line(row.outcome.text),
    )


def print_slim(slim: Slim, *, json: bool) -> None:
    """Where the smaller network lies, what it saves and what it costs in Dice."""
    if json:
        print_json(slim.as_dict())
        return
    rows = [
        ("network", slim.text),
        *_slim_scores(slim),
        *([("Dice by class, as written", dice_of_classes(slim.dice_per_class, 30))] if slim.dice_per_class else []),
        *slim.savings.rows(),
        *(("also written", one_line(str(path))) for path in slim.exports),
    ]
    print_pairs("The smaller network", rows)
    if slim.loses:
        score = "The score" if slim.by_loop else "Dice"
        print(
            f"{score} fell by {slim.dice_whole - slim.dice:.2f}: --fine-tune N trains the carried weights on, "
            "verify and --retrained train anew"
        )
    print(f"model = {slim.loaded_by}")


def _slim_scores(slim: Slim) -> list[tuple[str, str]]:
    """The Dice of the whole and of the smaller network, or the scores of the user's loop."""
    epochs = "1 epoch" if slim.fine_tuned == 1 else f"{slim.fine_tuned} epochs"
    how = f"after {epochs} of fine-tuning" if slim.fine_tuned else "as written"
    if slim.by_loop:
        small = "not known: --fine-tune N calls the loop" if math.isnan(slim.dice) else f"{slim.dice:.4f}"
        return [("score of the loop, whole network", f"{slim.dice_whole:.4f}"), (f"score of the loop, {how}", small)]
    return [
        ("validation Dice in float32, whole network", f"{slim.dice_whole:.4f}"),
        ("validation Dice, weights carried over", f"{slim.dice_carried:.4f}"),
        (f"validation Dice, {how}", f"{slim.dice:.4f}"),
    ]


def print_thin(run: Path, whole: float, compared: Sequence[ThinSkip], *, json: bool) -> None:
    """What is left of skips with some of their directions."""
    picture = run / "slim" / "thin-skips.png"
    if json:
        print_json({"dice_whole": whole, "thin": [asdict(thin) for thin in compared], "picture": str(picture)})
        return
    rows = [
        (
            thin.skip,
            f"{thin.kept} of {thin.channels}",
            f"{thin.share:.1%}",
            "not known" if math.isnan(thin.told) else f"{thin.told:.3f}",
            f"{thin.dice:.4f}",
            f"{whole - thin.dice:.4f}",
        )
        for thin in compared
    ]
    print_table(
        "Thin skips, without training on",
        ("skip", "directions", "of its mean square", "told, bits a pixel", "validation Dice", "lost"),
        rows,
    )
    print(f"picture: {one_line(str(picture))}")
    print("one number of each skip writes the network, and --fine-tune N trains it on")


def _reached(verification: Verification, row: Row) -> list[int | None]:
    """Of each seed, the epoch at which the variant reaches the target."""
    return [training.reaches(verification.target) for training in verification.of(row.variant.name)]


def _reached_text(verification: Verification, training: Training) -> str:
    """When a training reaches the target, for people."""
    epoch = training.reaches(verification.target)
    if epoch is not None:
        return str(epoch)
    if math.isnan(verification.target):
        return "not known"
    ended = training.failure or (training.records and training.records[-1].epoch == verification.budgets[-1])
    return "never" if ended else "not yet"


def _verdict_beside_outcome(row: Row, rule: Rule | None) -> Text:
    """The verdict, or what a rule said, marked by whether it was right."""
    from rich.text import Text

    mark, style = MARKS[row.agreement(rule)]
    return Text(f"{row.decision(rule)}{mark}", style=style)
