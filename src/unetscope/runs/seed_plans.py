"""How the seeds of a run's variants were chosen, kept beside their trainings: RUN/verification/seeds.json.

A number of seeds that is raised because of a result gives wider intervals than one that was chosen before. So every number of
seeds at which a variant was compared is kept, and whether `--seeds auto` added them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unetscope.analysis import SeedPlan
from unetscope.runs.description import read_seed_plans, write_object
from unetscope.runs.folder import RunFolder
from unetscope.runs.own_loops import configuration_of
from unetscope.runs.retraining import FOLDER, Trial
from unetscope.table import REFERENCE

PLANS = "seeds.json"


def seed_plans(run: RunFolder, trials: Iterable[Trial]) -> dict[str, SeedPlan]:
    """The plans of variants, by name; of a folder of an older version, in which there are none, one look.

    Raises: RunFolderError if they cannot be read.
    """
    kept = _read(run)
    config = configuration_of(run)
    first, epochs = int(config["seed"]), int(config["training"]["epochs"])
    plans = {}
    for trial in trials:
        compared = kept.get(trial.path.parent.name, {})
        looks = max(1, len(compared.get("compared", ())))
        plans[trial.variant.name] = SeedPlan(looks, first if compared.get("auto") else None, epochs)
    return plans


def keep_comparison(run: RunFolder, trials: Sequence[Trial]) -> None:
    """Note that variants were compared at the seeds of these trials. The same seeds again are no further look."""
    kept = _read(run)
    for home, seeds in _seeds_by_home(trials).items():
        compared = kept.setdefault(home, {}).setdefault("compared", [])
        if seeds not in compared:
            compared.append(seeds)
    _write(run, kept)


def keep_auto(run: RunFolder, trials: Sequence[Trial]) -> None:
    """Note that the seeds of the variants of these trials are added as they are needed."""
    kept = _read(run)
    for home in _seeds_by_home(trials):
        kept.setdefault(home, {})["auto"] = True
    _write(run, kept)


def _seeds_by_home(trials: Sequence[Trial]) -> dict[str, list[int]]:
    """By folder of a variant other than the reference, its seeds."""
    homes: dict[str, list[int]] = {}
    for trial in trials:
        if trial.variant.name != REFERENCE:
            homes.setdefault(trial.path.parent.name, []).append(trial.seed)
    return {home: sorted(seeds) for home, seeds in homes.items()}


def _place(run: RunFolder) -> Path:
    return run.path / FOLDER / PLANS


def _read(run: RunFolder) -> dict[str, dict[str, Any]]:
    place = _place(run)
    return read_seed_plans(place) if place.is_file() else {}


def _write(run: RunFolder, kept: Mapping[str, Any]) -> None:
    _place(run).parent.mkdir(exist_ok=True)
    write_object(_place(run), kept)
