"""Retrain variants of a run, chosen by name and number of seeds, and compare them with its verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unetscope.analysis import (
    ASSUMED_RESIDUAL,
    DICE_MARGIN,
    LOOKS,
    Verification,
    check_margin,
    expected_half_width,
    look_level,
    seeds_for,
    seeds_to_add,
)
from unetscope.base import InvalidArgument, NoProgress, Progress, TrainingError, plain_number, shown, whole_number
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.code_consent import LOOP_NETWORK, allow_code
from unetscope.runs.engines import Engine, checked_counts
from unetscope.runs.folder import RunFolder
from unetscope.runs.own_loops import Train, configuration_of, name_loop
from unetscope.runs.retraining import Trial, existing_trials, retrain, trained_twice, trials
from unetscope.runs.seed_plans import keep_auto, keep_comparison
from unetscope.table import CONFIDENCE, REFERENCE, Part, Variant, named_variants, parts_named

AUTO: Literal["auto"] = "auto"
MOST_SEEDS = 1000
LARGEST_SEED = 2**53 - 1  # that every reader of JSON takes as it is
TRAININGS_PER_VARIANT = 8  # with `--seeds auto`, if no number of trainings is given


def verify(
    run: str | Path,
    variants: Sequence[str] = ("paper",),
    *,
    seeds: int | Sequence[int] | Literal["auto"] = 3,
    trainings: int | None = None,
    engine: Engine | None = None,
    threads: int = 1,
    margin: float = DICE_MARGIN,
    build: str | Callable[[], Any] | None = None,
    train: str | Train | None = None,
    epochs: int | None = None,
    code: str | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Train the run's variants that are not trained yet, and compare them with its verdicts.

    variants: names as of `table.named_variants`. seeds: how many, from the run's own on, or which; `"auto"` adds seeds until a
    variant is decided, within so many trainings of all variants (8 times their number, unless `trainings` says otherwise).
    Called again after a kill, it continues. code: the network's, of a run that was begun elsewhere, as consent to run it.

    Of a run that was measured in a loop of its own, `build()` makes the whole network, and `train(model, seed, folder, epochs)`
    trains what it is given, and returns or yields its score by epoch: a Dice, or whatever the margin is a margin of. They are
    functions at the top of a file, or their names. epochs: of each training, by default as many as were measured.

    Raises: RunFolderError for a folder that is no run, InvalidArgument for no variants, or for a variant, a seed or
    a number that cannot be, TrainingError if every training fails in its first epoch.
    """
    check_margin(margin)
    _check_names(variants)
    _, threads = checked_counts(None, threads)
    judged = AnalysedRun.open(run, dice_margin=margin)
    if not _is_auto(seeds):
        chosen_seeds(judged.folder, seeds, first=0)  # raises before the loop is kept with the run
    if build is not None or train is not None:
        name_own_loop(judged, build, train, epochs)
    allow_code(judged.folder, code)
    to_train = chosen_variants(judged, variants)
    planned = planned_trials(judged.folder, to_train, seeds, trainings)
    progress = progress or NoProgress()
    failed = train_variants(judged, planned, auto=_is_auto(seeds), engine=engine, threads=threads, progress=progress)
    for trial, reason in failed.items():
        progress.warn(f"{trial.name} failed: {reason}")
    from unetscope.runs.design_costs import keep_costs  # with torch, which the jobs alone need before

    for name, reason in keep_costs(judged.folder, judged.designs).items():
        progress.warn(f"what {name} saves is not known: {reason}")
    return judged.verification_of(planned)


def _is_auto(seeds: object) -> bool:
    return isinstance(seeds, str) and seeds == AUTO


def name_own_loop(
    run: AnalysedRun,
    build: str | Callable[[], Any] | None,
    train: str | Train | None,
    epochs: int | None = None,
    *,
    plan_only: bool = False,
) -> None:
    """Keep with a run of a loop of its own how its variants are retrained; as a plan, for this process alone.

    Raises: as `own_loops.name_loop`.
    """
    if build is None or train is None:
        raise InvalidArgument("build and train go together: what makes the network, and what trains it")
    name_loop(run.folder, build, train, epochs=epochs, plan_only=plan_only)


def planned_trials(
    run: RunFolder,
    variants: Sequence[Variant],
    seeds: int | Sequence[int] | Literal["auto"],
    trainings: int | None = None,
) -> tuple[Trial, ...]:
    """All trainings to do; with `"auto"` the most that there will be, of which only those that decide something are done.

    Raises: InvalidArgument for seeds or a number of trainings that cannot be.
    """
    if not _is_auto(seeds):
        if trainings is not None:
            raise InvalidArgument("trainings limits seeds that are added as needed: it goes with seeds auto")
        return trials(run, variants, chosen_seeds(run, seeds))
    most = TRAININGS_PER_VARIANT * len(variants) if trainings is None else trainings
    if plain_number(most) is None or isinstance(most, float):
        raise InvalidArgument(f"trainings must be a whole number, got {shown(most)}")
    if most < (fewest := LOOKS[0] * min(2, len(variants))):
        raise InvalidArgument(
            f"trainings must be {fewest} or more, for {LOOKS[0]} seeds of the reference and of a variant, got {most}"
        )
    return trials(run, variants, chosen_seeds(run, LOOKS[-1]))[:most]


def train_variants(
    run: AnalysedRun,
    planned: Sequence[Trial],
    *,
    auto: bool = False,
    engine: Engine | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[Trial, str]:
    """Train the trials that are not finished; with `auto` only those that decide something. The reason of each that failed.

    Raises: TrainingError if there is nothing to compare, as none of them got to an epoch.
    """
    if progress is not None and (sentence := trained_twice(run.folder, planned)):
        progress.warn(sentence)
    failed = _trained(run, planned, auto=auto, engine=engine, threads=threads, progress=progress)
    if failed and not any(RunFolder.open(trial.path).last_epoch() > 0 for trial in planned if trial.path.exists()):
        trial, reason = next(iter(failed.items()))
        raise TrainingError(f"nothing can be compared, as no training got to an epoch: {trial.name} failed: {reason}")
    return failed


def _trained(
    run: AnalysedRun,
    planned: Sequence[Trial],
    *,
    auto: bool,
    engine: Engine | None,
    threads: int,
    progress: Progress | None,
) -> dict[Trial, str]:
    """Train as `train_variants` says. The reason of each that failed."""
    if not auto:
        reasons = retrain(run.folder, planned, engine=engine, threads=threads, progress=progress)
        keep_comparison(run.folder, planned)
        return reasons
    keep_auto(run.folder, planned)
    failed: dict[Trial, str] = {}
    before: tuple[Trial, ...] = ()
    while (batch := next_trials(run, planned)) and batch != before:  # an engine that trains nothing is not asked again
        failed |= retrain(run.folder, batch, engine=engine, threads=threads, progress=progress)
        before = batch
    return failed


def next_trials(run: AnalysedRun, planned: Sequence[Trial]) -> tuple[Trial, ...]:
    """Of the most trainings that there may be, those to do before the next comparison; none if it is over.

    The choice follows from what is stored, so a stopped command goes on where it was.
    """
    variants = tuple(dict.fromkeys(trial.variant for trial in planned))
    config = configuration_of(run.folder)
    first = int(config["seed"])
    possible = {
        (trial.variant.name, trial.seed): trial
        for trial in trials(run.folder, variants, range(first, first + LOOKS[-1]))
    }
    begun = [trial for trial in possible.values() if RunFolder.exists(trial.path)]
    names = [variant.name for variant in variants]
    verification = run.verification_of(begun) if begun else Verification(variants, (), None, (), run.dice_margin)
    epochs = int(config["training"]["epochs"])
    added = seeds_to_add(verification, names, first=first, epochs=epochs, trainings=len(planned))
    return tuple(possible[job] for job in added)


@dataclass(frozen=True)
class ExpectedWidth:
    """How narrow the intervals of a verification will be.

    half_width: of the interval with so many seeds, in Dice; NaN with one. seeds_for_margin: the fewest with which it is no
    wider than the margin; None if more than 64 would be needed. residual: the standard deviation of a training's score over
    seeds, measured on this many degrees of freedom; assumed if there are none. images: the half-width over images, of earlier
    trainings; NaN if there are none, and then not contained. level: of the interval.
    """

    seeds: int
    variants: int
    half_width: float
    seeds_for_margin: int | None
    residual: float
    freedom: float
    images: float
    level: float = CONFIDENCE

    @property
    def assumed(self) -> bool:
        """Whether no earlier training tells the residual."""
        return self.freedom == 0

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {**asdict(self), "assumed": self.assumed}


def expected_widths(run: AnalysedRun, planned: Sequence[Trial], *, auto: bool = False) -> tuple[ExpectedWidth, ...]:
    """How narrow the intervals will be: at the planned number of seeds, or at every look of `--seeds auto`.

    The spread over seeds is that of the run's earlier trainings, pooled over variants, if there are any.
    """
    check_margin(run.dice_margin)
    variants = len({trial.variant for trial in planned})
    counts = LOOKS if auto else (len({trial.seed for trial in planned}),)
    residual, freedom, images = _measured(run)
    if not residual > 0:
        residual, freedom = ASSUMED_RESIDUAL, 0.0
    over_images = 0.0 if math.isnan(images) else images
    needed = seeds_for(run.dice_margin, variants, residual, over_images)
    widths = []
    for seeds in counts:
        level = look_level(seeds) if auto else CONFIDENCE
        half = math.hypot(expected_half_width(seeds, variants, residual, level), over_images)
        widths.append(ExpectedWidth(seeds, variants, half, needed, residual, freedom, images, level))
    return tuple(widths)


def _measured(run: AnalysedRun) -> tuple[float, float, float]:
    """The residual of the finished trainings, its degrees of freedom, and the half-width over images; NaN, 0, NaN of none."""
    finished = [trial for trial in existing_trials(run.folder) if RunFolder.open(trial.path).ending is not None]
    if REFERENCE not in {trial.variant.name for trial in finished}:
        return math.nan, 0.0, math.nan
    verification = run.verification_of(finished)
    spread, images = verification.spread(), verification.image_half_widths()
    return spread.residual, spread.freedom, float(np.median(images)) if images else math.nan


def chosen_variants(run: AnalysedRun, names: Sequence[str]) -> tuple[Variant, ...]:
    """Variants of a run's network, by name; `proposed` is the design that its verdicts propose.

    Raises: InvalidArgument for none, and for names that mean nothing.
    """
    _check_names(names)
    network = configuration_of(run.folder)["network"]
    proposed = run.judged().design() if "proposed" in names else None
    without = parts_named(network["without"])
    skips = {*_skips_there(run), *without} if network.get("code") else None
    return named_variants(names, depth=network["depth"], without=without, proposed=proposed, skips=skips)


def _check_names(variants: Sequence[str]) -> None:
    """Raises: InvalidArgument for no variants: the reference alone is trained for nothing."""
    if isinstance(variants, str) or not isinstance(variants, Sequence) or not variants:
        raise InvalidArgument(f"variants must be a list of names, such as ['no-skips'], got {shown(variants)}")


def _skips_there(run: AnalysedRun) -> tuple[Part, ...]:
    """The skips of a run's network: of a loop of its own all that the network has, whichever were measured."""
    of_loop = run.facts.get(LOOP_NETWORK, {}).get("skips", ())
    return parts_named(of_loop) if of_loop else tuple(skip.part for skip in run.flow.skips)


def chosen_seeds(run: RunFolder, seeds: int | Sequence[int] | str, *, first: int | None = None) -> tuple[int, ...]:
    """So many seeds from the run's own on, or from `first`; or those that are named.

    Raises: InvalidArgument for none, for more than `MOST_SEEDS`, and for what is no seed.
    """
    if (number := plain_number(seeds)) is not None:
        if not number >= 1:
            raise InvalidArgument(f"seeds must be one or more, and none negative, got {shown(seeds)}")
        count = whole_number(seeds, "seeds", least=1, most=MOST_SEEDS)
        first = int(configuration_of(run)["seed"]) if first is None else first
        return chosen_seeds(run, range(first, first + count))
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise InvalidArgument(f"seeds must be a number of seeds, or a list of them, got {shown(seeds)}")
    numbers = tuple(islice(seeds, MOST_SEEDS + 1))
    if len(numbers) > MOST_SEEDS:
        raise InvalidArgument(f"seeds must be at most {MOST_SEEDS}, got more")
    if not numbers or any((plain_number(seed) or 0) < 0 for seed in numbers):
        raise InvalidArgument(f"seeds must be one or more, and none negative, got {shown(seeds)}")
    return tuple(whole_number(seed, "a seed", least=0, most=LARGEST_SEED) for seed in numbers)
