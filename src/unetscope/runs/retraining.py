"""Retrain variants of a run's network over several seeds, each training a job of its own.

Only the jobs need torch. RUN/verification/VARIANT/seed-K is the run folder of one job.
"""

from __future__ import annotations

import heapq
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from unetscope.base import InvalidArgument, NoProgress, Progress, RunFolderError
from unetscope.runs.engines import Engine, engine_named
from unetscope.runs.folder import LOCK, RunFolder, locked_file
from unetscope.runs.moves import keep_move, other_than_moved
from unetscope.runs.own_loops import can_be_retrained, configuration_of
from unetscope.table import REFERENCE, Variant, parts_named
from unetscope.training import RunConfig, checkpoint_name, overridden_config, validated_config

FOLDER = "verification"
MOST_TRIALS = 1000  # retrainings of a run; opening one takes milliseconds
PATIENCE = 60.0  # seconds, for another process that makes the folders of trainings


@dataclass(frozen=True)
class Trial:
    """One variant trained with one seed, in a run folder of its own."""

    variant: Variant
    seed: int
    path: Path

    @property
    def name(self) -> str:
        """Its name, for people."""
        return f"{self.variant.name} with seed {self.seed}"


def trials(run: RunFolder, variants: Sequence[Variant], seeds: Sequence[int]) -> tuple[Trial, ...]:
    """Every variant with every seed, seed after seed, so that finished trainings can be compared early.

    A network that was trained before under another name, such as `proposed` and `model2`, keeps its folder.
    """
    if repeated := [seed for place, seed in enumerate(seeds) if seed in seeds[:place]]:
        raise InvalidArgument(f"seed {repeated[0]} stands twice: the same training would count as two")
    trained = {(trial.variant.depth, trial.variant.without): trial.path.parent for trial in existing_trials(run)}
    homes = {
        variant: trained.get((variant.depth, variant.without), run.path / FOLDER / variant.name) for variant in variants
    }
    return tuple(Trial(variant, seed, homes[variant] / f"seed-{seed}") for seed in seeds for variant in variants)


def existing_trials(run: RunFolder) -> tuple[Trial, ...]:
    """All variants and seeds that have a run folder, by name and seed.

    Raises: RunFolderError for one that is no retraining of its name, and for more than anybody trains: each is opened.
    """
    existing = []
    folders = sorted((run.path / FOLDER).glob("*/seed-*"))
    if len(folders) > MOST_TRIALS:
        raise RunFolderError(f"{run.path / FOLDER} has {len(folders)} retrainings, at most {MOST_TRIALS} are read")
    for folder in folders:
        seed = re.fullmatch(r"seed-(\d+)", folder.name)
        if seed and RunFolder.exists(folder):
            trained = RunFolder.open(folder)
            if not trained.trained_here:
                raise RunFolderError(f"{folder} is a run that no verify began: remove it")
            if (of := trained.configuration["seed"]) != int(seed[1]):
                raise RunFolderError(f"{folder} was trained with seed {of}: remove it, or give it back its name")
            network = trained.configuration["network"]
            variant = Variant(folder.parent.name, network["depth"], parts_named(network["without"]))
            existing.append(Trial(variant, int(seed[1]), folder))
    return tuple(existing)


def trained_variants(run: RunFolder) -> tuple[Trial, ...]:
    """All variants and seeds that have a run folder, the reference first, then from the largest network to the smallest."""
    if not can_be_retrained(run):
        return ()
    depth = int(configuration_of(run)["network"]["depth"])

    def place(trial: Trial) -> tuple[Any, ...]:
        variant = trial.variant
        return variant.name != REFERENCE, depth - variant.depth, len(variant.without), variant.name, trial.seed

    return tuple(sorted(existing_trials(run), key=place))


def retrain(
    run: RunFolder,
    planned: Sequence[Trial],
    *,
    engine: Engine | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[Trial, str]:
    """Train the trials that are not finished, each from its newest checkpoint; the reason of each that failed.

    Raises: RunFolderError if a trial began with another configuration.
    """
    progress = progress or NoProgress()
    engine = engine or engine_named("local", threads=threads, gpu=on_gpu(run))
    with _making_trials(run):
        folders = {trial: _folder(run, trial, threads) for trial in planned}
    epochs = configuration_of(run)["training"]["epochs"]
    before = sum(max(0, folder.last_epoch()) for folder in folders.values())
    progress.stage("retraining", len(planned) * epochs, before)

    def look() -> None:
        done = {trial: max(0, folder.last_epoch()) for trial, folder in folders.items()}
        busy = [f"{trial.variant.name} seed {trial.seed}" for trial, epoch in done.items() if 0 < epoch < epochs]
        finished = sum(folder.ending is not None for folder in folders.values())
        progress.advance(
            sum(done.values()), "; ".join(filter(None, (f"{finished} of {len(planned)} done", ", ".join(busy))))
        )

    left = {folder.path: trial for trial, folder in folders.items() if folder.ending is None}
    for trial in left.values():
        folders[trial].failed("")
    failed = {left[path]: reason for path, reason in engine.run(list(left), look).items()}
    for trial, reason in failed.items():
        folders[trial].failed(reason)
    look()
    return failed


def on_gpu(run: RunFolder) -> bool:
    """Whether the run's network, and so every variant, is trained on a GPU."""
    return bool(configuration_of(run)["training"]["device"] == "cuda")


def expected_seconds(run: RunFolder, planned: Sequence[Trial], *, workers: int, threads: int = 1) -> float:
    """Roughly the seconds that the remaining trainings take, from those of the run's own epochs.

    Of a run in a loop of its own, from those of trainings that have begun; NaN before any has.

    Jobs start in their order, each as soon as a worker is free. It assumes that twice the threads are twice as fast, and that
    every variant costs as much as the whole network.
    """
    trained = [RunFolder.open(trial.path).epochs() for trial in existing_trials(run)] if not run.trained_here else []
    records = run.epochs()[1:] if run.trained_here else [record for records in trained for record in records]
    if not records and not run.trained_here:
        return math.nan
    if not records:
        raise RunFolderError(
            f"{run.path} has trained no epoch yet: finish it with unetscope run --out {run.path} --resume"
        )
    config = configuration_of(run)
    # the median: one epoch during which the machine slept can last longer than all others together
    epoch = median(record.seconds for record in records) * (config["threads"] or 1) / threads
    epochs = config["training"]["epochs"]
    done = [
        RunFolder.open(trial.path).last_epoch() if RunFolder.exists(trial.path) else epochs * _is_trained_as(run, trial)
        for trial in planned
    ]
    busy = [0] * workers  # epochs until each worker is free
    for left in (epochs - max(0, last) for last in done):
        heapq.heapreplace(busy, busy[0] + left)
    return epoch * max(busy)


@contextmanager
def _making_trials(run: RunFolder) -> Iterator[None]:
    """Keep other processes from making the folders of this run's trials meanwhile: each would find half of the other's."""
    lock = run.path / FOLDER / LOCK
    lock.parent.mkdir(exist_ok=True)
    with locked_file(lock, PATIENCE, f"{lock.parent} is in use: another process is beginning trainings of this run"):
        yield


def _folder(run: RunFolder, trial: Trial, threads: int) -> RunFolder:
    """The run folder of a trial, made if it is not there; that of the run's own training takes it over.

    How many threads trained a network makes no other network of it, so those of the run may differ from those of the trials.
    """
    config = _configuration(run, trial, threads).model_dump(mode="json")
    if not RunFolder.exists(trial.path):
        if _is_trained_as(run, trial):
            return _taken_over(run, trial.path, config | {"threads": run.configuration["threads"]})
        return RunFolder.create(trial.path, {"configuration": config, "facts": run.facts})
    folder = RunFolder.open(trial.path)
    begun = validated_config(folder.configuration).model_dump(mode="json")
    if _is_trained_as(run, trial) and begun["threads"] == run.configuration["threads"]:
        config |= {"threads": begun["threads"]}
    if changed := other_than_moved(begun, config):
        raise RunFolderError(
            f"{folder.path} was begun with another configuration ({'; '.join(changed)}): remove that folder to train it anew"
        )
    if folder.ending is None:  # it goes on where the run does
        keep_move(folder, validated_config(config))
    return folder


def _is_trained_as(run: RunFolder, trial: Trial) -> bool:
    """Whether the run itself is the training of a trial: of the whole network, with its own seed, to its last epoch."""
    if not run.trained_here or trial.variant.name != REFERENCE or trial.seed != run.configuration["seed"]:
        return False
    epochs = run.configuration["training"]["epochs"]
    return run.last_epoch() == epochs and (run.checkpoints / checkpoint_name(epochs)).is_dir()


def trained_twice(run: RunFolder, planned: Sequence[Trial]) -> str:
    """That the run's own training, which has not ended, is not taken for the reference of its seed; nothing if it is not so."""
    if not run.trained_here or not 0 < run.last_epoch() < (epochs := run.configuration["training"]["epochs"]):
        return ""
    for trial in planned:
        if (trial.variant.name, trial.seed) == (REFERENCE, run.configuration["seed"]) and not RunFolder.exists(
            trial.path
        ):
            return (
                f"{run.path} has trained {run.last_epoch():,} of {epochs:,} epochs, so {trial.name} is trained again from the "
                f"beginning: finish the run first (unetscope run --out {run.path} --resume), and it is taken for that one"
            )
    return ""


def _taken_over(run: RunFolder, path: Path, config: dict[str, Any]) -> RunFolder:
    """A trial with the epochs and the last checkpoint of the run: its job finds nothing left to train, and finishes it."""
    folder = RunFolder.create(path, {"configuration": config, "facts": run.facts})
    folder.take_over(run)
    last = checkpoint_name(config["training"]["epochs"])
    folder.checkpoints.mkdir()
    beside = folder.checkpoints / f".{last}.{os.getpid()}.part"
    shutil.copytree(run.checkpoints / last, beside)
    beside.rename(folder.checkpoints / last)
    return folder


def _configuration(run: RunFolder, trial: Trial, threads: int) -> RunConfig:
    changed: dict[str, Any] = {
        **{f"network.{name}": value for name, value in trial.variant.network.items()},
        "seed": trial.seed,
        "threads": threads,
    }
    return overridden_config(configuration_of(run), changed)
