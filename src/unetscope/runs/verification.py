"""Retrain variants of a run, and compare their run folders with its verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unetscope.analysis import DICE_MARGIN, Judgement, Training, Verification, check_margin, guess_nats, judge
from unetscope.base import InvalidArgument, Progress, RunFolderError
from unetscope.runs.engines import Engine
from unetscope.runs.folder import RunFolder
from unetscope.runs.retraining import Trial, existing_trials, retrain, trials
from unetscope.table import REFERENCE, Variant, named_variants, parts_named


def verify(
    run: str | Path,
    variants: Sequence[str] = ("paper",),
    *,
    seeds: int | Sequence[int] = 3,
    engine: Engine | None = None,
    threads: int = 1,
    margin: float = DICE_MARGIN,
    progress: Progress | None = None,
) -> Verification:
    """Train what is not trained yet of a run's variants, and compare them with its verdicts.

    variants: names as of `table.named_variants`. seeds: how many, from the run's own on, or which. Called again
    after a kill, it goes on.

    Raises: RunFolderError for a folder that is no run, InvalidArgument for a variant or a seed that cannot be.
    """
    check_margin(margin)
    folder = RunFolder.open(run)
    chosen = chosen_variants(folder, variants)
    planned = trials(folder, chosen, chosen_seeds(folder, seeds))
    retrain(folder, planned, engine=engine, threads=threads, progress=progress)
    return verification(folder, planned, margin=margin)


def verification(run: RunFolder, planned: Sequence[Trial], *, margin: float = DICE_MARGIN) -> Verification:
    """Compare the trainings on the disk, finished or not. Raises: InvalidArgument for a margin that is no Dice."""
    return verification_of(judgement_of(run), run, planned, margin=margin)


def verification_of(
    judgement: Judgement | None, run: RunFolder, planned: Sequence[Trial], *, margin: float
) -> Verification:
    """The same for a run that is judged already."""
    check_margin(margin)
    trainings = tuple(training_of(trial) for trial in planned if RunFolder.exists(trial.path))
    last_epochs = [training.records[-1].epoch for training in trainings if training.records]
    reached, last = min(last_epochs, default=0), max(last_epochs, default=0)
    marked = judgement.epochs if judgement is not None else ()
    budgets = tuple(sorted({epoch for epoch in marked if epoch <= last} | {reached, last} - {0}))
    if not budgets:
        raise RunFolderError(f"{run.path} has no retrained variant: unetscope verify {run.path}")
    trained = {training.variant for training in trainings}
    variants = tuple(
        variant for variant in dict.fromkeys(trial.variant for trial in planned) if variant.name in trained
    )
    return Verification(variants, trainings, judgement, budgets, margin)


def chosen_variants(run: RunFolder, names: Sequence[str]) -> tuple[Variant, ...]:
    """Variants of a run's network, by name; `proposed` is what its verdicts leave of it."""
    if not run.own_network:
        raise InvalidArgument(
            f"{run.path} was measured in a loop of its own, and cannot be trained here: us.without_skips takes skips out of "
            "the network, to be trained in that loop"
        )
    network = run.configuration["network"]
    proposed = judge(run.flow()).design() if "proposed" in names else None
    return named_variants(names, depth=network["depth"], without=parts_named(network["without"]), proposed=proposed)


def chosen_seeds(run: RunFolder, seeds: int | Sequence[int]) -> tuple[int, ...]:
    """So many seeds from the run's own on, or those that are named. Raises: InvalidArgument for none."""
    first = int(run.configuration["seed"])
    chosen = tuple(range(first, first + seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not chosen or min(chosen) < 0:
        raise InvalidArgument(f"seeds must be one or more, and none negative, got {seeds}")
    return chosen


def judgement_of(run: RunFolder) -> Judgement | None:
    """The verdicts of a run, None if it was not measured enough to judge."""
    try:
        return judge(run.flow())
    except InvalidArgument:
        return None


def trained_variants(run: RunFolder) -> tuple[Trial, ...]:
    """All trained variants and seeds, the reference first."""
    if not run.own_network:
        return ()
    depth = int(run.configuration["network"]["depth"])
    return tuple(sorted(existing_trials(run), key=lambda trial: _order(trial, depth)))


def _order(trial: Trial, depth: int) -> tuple[Any, ...]:
    variant = trial.variant
    return variant.name != REFERENCE, depth - variant.depth, len(variant.without), variant.name, trial.seed


def training_of(trial: Trial) -> Training:
    """The training in the run folder of a trial."""
    folder = RunFolder.open(trial.path)
    ending = folder.ending or {}
    shares = [folder.facts["data"][part]["foreground share"] for part in ("train", "validation")]
    constant = ending.get("constant channels", {})
    return Training(trial.variant.name, trial.seed, folder.epochs(), guess_nats(*shares), constant, folder.failure)
