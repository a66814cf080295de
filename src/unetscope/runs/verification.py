"""Retrain variants of a run, chosen by name and number of seeds, and compare them with its verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unetscope.analysis import DICE_MARGIN, Verification, check_margin
from unetscope.base import InvalidArgument, Progress
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.engines import Engine
from unetscope.runs.folder import RunFolder
from unetscope.runs.retraining import retrain, trials
from unetscope.table import Variant, named_variants, parts_named


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
    """Train the run's variants that are not trained yet, and compare them with its verdicts.

    variants: names as of `table.named_variants`. seeds: how many, from the run's own on, or which. Called again after a kill,
    it continues.

    Raises: RunFolderError for a folder that is no run, InvalidArgument for a variant or a seed that cannot be.
    """
    check_margin(margin)
    judged = AnalysedRun.open(run, dice_margin=margin)
    chosen = chosen_variants(judged, variants)
    planned = trials(judged.folder, chosen, chosen_seeds(judged.folder, seeds))
    retrain(judged.folder, planned, engine=engine, threads=threads, progress=progress)
    return judged.verification_of(planned)


def chosen_variants(run: AnalysedRun, names: Sequence[str]) -> tuple[Variant, ...]:
    """Variants of a run's network, by name; `proposed` is the design that its verdicts propose."""
    if not run.own_network:
        raise InvalidArgument(
            f"{run.path} was measured in a loop of its own, and cannot be trained here: us.without_skips takes skips out of "
            "the network, to be trained in that loop"
        )
    network = run.configuration["network"]
    proposed = run.judged().design() if "proposed" in names else None
    return named_variants(names, depth=network["depth"], without=parts_named(network["without"]), proposed=proposed)


def chosen_seeds(run: RunFolder, seeds: int | Sequence[int]) -> tuple[int, ...]:
    """So many seeds from the run's own on, or those that are named. Raises: InvalidArgument for none."""
    first = int(run.configuration["seed"])
    chosen = tuple(range(first, first + seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not chosen or min(chosen) < 0:
        raise InvalidArgument(f"seeds must be one or more, and none negative, got {seeds}")
    return chosen
