"""Runs of the paper's own protocol, as docs/data keeps them: what docs/paper.md says comes from these tables alone.

A run of days is not kept, its tables are. Epochs are the paper's everywhere: an epoch at ten times its learning rate counts
as ten.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.folder import RunFolder
from unetscope.runs.retraining import Trial, trained_variants
from unetscope.table.flow import Flow, save_epochs
from unetscope.table.parts import Variant
from unetscope.table.records import Estimate, Layer, Skip

PAPER_RATE = 1e-3  # the learning rate of the paper
PAPER_EPOCHS = 10_000
MODELS = ("model1", "model2", "model3", "model4")
MERGES = ("20", "17", "14", "11")  # from the top of the decoder down
FULL = 0.95  # of H(Y): what is called reached
BEGUN = 0.1  # Dice above which a network no longer predicts nothing
WINDOW = 200  # epochs over which a Dice is a median: from one epoch to the next it jumps by tenths
TENTH = 1000  # epochs over which two models are compared


class Model:
    """The mean Dice of one of Models 1 to 4 along its training, without the network that is not trained yet.

    facts: whether it was trained to the end, whether it has started, and if not, why not.
    """

    def __init__(self, rows: pd.DataFrame, scale: float, facts: Mapping[str, Any]) -> None:
        rows = rows[rows["epoch"] > 0]
        self.epochs: NDArray[np.int64] = np.round(rows["epoch"].to_numpy() * scale).astype(int)
        self.single: NDArray[np.float64] = rows["validation_dice"].to_numpy()
        self.training: NDArray[np.float64] = rows["train_dice_running"].to_numpy()
        self.seconds = float(rows["seconds"].sum())
        self.is_whole: bool = facts["whole"]
        self.why_not: str = facts["why_not"]
        self.has_started: bool = facts["started"]
        self._window = 2 * round(WINDOW / scale / 2) + 1
        self.dice = self.medians(self.single)

    def medians(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Each the median of those about it."""
        return np.asarray(median_filter(values, size=self._window, mode="nearest"))

    @property
    def last(self) -> int:
        """The last epoch that it was trained for."""
        return int(self.epochs[-1])

    @property
    def begins(self) -> int | None:
        """The first epoch at which its Dice is that of a network which predicts something."""
        return _first(self.epochs, self.single > BEGUN)

    @property
    def best(self) -> tuple[float, int]:
        """The largest median, and its epoch."""
        at = int(np.argmax(self.dice))
        return float(self.dice[at]), int(self.epochs[at])

    def reaches(self, dice: float) -> int | None:
        """The first epoch at which the median is so much."""
        return _first(self.epochs, self.dice >= dice)

    def at(self, epoch: float) -> float:
        """The median at an epoch; of one that is not there, that at the one before."""
        return float(self.dice[max(0, int(np.searchsorted(self.epochs, epoch, side="right")) - 1)])

    def level(self, until: float) -> float:
        """The median over the tenth of the paper's epochs that ends at this one."""
        return float(np.median(self.single[(self.epochs > until - TENTH) & (self.epochs <= until)]))


def _first(epochs: NDArray[np.int64], holds: NDArray[np.bool_]) -> int | None:
    return int(epochs[np.argmax(holds)]) if holds.any() else None


class Protocol:
    """A run with its trainings of Models 1 to 4, from docs/data. facts: what `keep_run` returned."""

    def __init__(self, name: str, facts: Mapping[str, Any], data: Path) -> None:
        self.name, self.facts = name, facts
        self.rate = float(facts["learning rate"])
        self.scale = self.rate / PAPER_RATE
        self.models = {
            model: Model(pd.read_parquet(data / f"paper_{name}_{model}.parquet"), self.scale, about)
            for model, about in facts["models"].items()
        }
        layers = [Layer(**{key: _tuples(value) for key, value in each.items()}) for each in facts["layers"]]
        self.flow = Flow(
            tuple(layers),
            tuple(Skip(**each) for each in facts["skips"]),
            _estimates(data / f"paper_{name}_flow.parquet", self.scale),
        )

    @property
    def title(self) -> str:
        """What was trained, in a few words."""
        return title_of(self.facts)

    @property
    def label(self) -> str:
        """The same in fewer words, for tables."""
        return f"width {self.facts['width']}, {_sides(self.facts)}, rate {self.rate:g}"

    @property
    def epochs(self) -> int:
        """How many the training is to have."""
        return round(self.facts["epochs"] * self.scale)

    @property
    def is_measured_to_the_end(self) -> bool:
        """Whether the last epoch that was measured is the last of the training."""
        return self.flow.epochs[-1] >= self.epochs

    @cached_property
    def _of_label(self) -> Flow:
        return self.flow.select(quantity="I(Y;M)").narrowed(estimator=None, resolution=None, labels=None)

    def information(self, layer: str) -> list[Estimate]:
        """I(Y;M) of a layer by the first estimator and labels, epoch after epoch."""
        return list(self._of_label.select(layer=layer).estimates)

    def full_from(self, layer: str, share: float = FULL) -> int | None:
        """The epoch from which a layer tells this share of H(Y)."""
        return next((row.epoch for row in self.information(layer) if row.bits >= share * row.ceiling), None)

    def saturated_from(self, layer: str) -> int | None:
        """The epoch from which that number is a ceiling that any layer reaches which tells all images apart."""
        rows = self.flow.select(quantity="I(X;M)", layer=layer).narrowed(estimator=None, resolution=None)
        return next((row.epoch for row in rows.estimates if row.saturated), None)


def title_of(facts: Mapping[str, Any]) -> str:
    """What was trained, in a few words."""
    rate = facts["learning rate"]
    return f"Width {facts['width']}, {_sides(facts)}, {facts['epochs']:,} epochs at a learning rate of {rate:g}"


def _sides(facts: Mapping[str, Any]) -> str:
    return "×".join(map(str, facts["image size"]))


def _tuples(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _estimates(path: Path, scale: float) -> tuple[Estimate, ...]:
    table = pd.read_parquet(path)
    columns = [each.name for each in fields(Estimate) if each.name in table]
    rows = table[columns].astype({"reason": object}).to_dict("records")
    return tuple(replace(row, epoch=round(row.epoch * scale)) for row in (Estimate(**row) for row in rows))


def keep_run(path: Path, data: Path) -> dict[str, Any]:
    """Write the tables of a run folder, its estimates and the epochs of every model, as Parquet; what else the page tells of it."""
    run = AnalysedRun.open(path)
    config, flow = run.configuration, run.flow
    trials = trials_of_models(run)
    trainings = {name: run.training(trials[name]) for name in MODELS if name in trials}
    trainings = {name: training for name, training in trainings.items() if training.records}  # others wait
    flow.save(data / f"paper_{path.name}_flow.parquet")
    for name, training in trainings.items():
        save_epochs(training.records, data / f"paper_{path.name}_{name}.parquet")
    return facts_of(run) | {
        "models": {
            name: {
                "whole": training.ended(config["training"]["epochs"]) and not training.failure,
                "started": training.started_at is not None,
                "why_not": "" if training.started_at is not None else training.why_not,
            }
            for name, training in trainings.items()
        },
        "moves": _moves({name: trials[name].path for name in trainings}),
        "layers": [asdict(layer) for layer in flow.layers],
        "skips": [asdict(skip) for skip in flow.skips],
    }


def trials_of_models(run: AnalysedRun) -> dict[str, Trial]:
    """By its name, the training of every model with the run's own seed; the run itself is Model 1 until that is another."""
    config = run.configuration
    trials = {trial.variant.name: trial for trial in trained_variants(run.folder) if trial.seed == config["seed"]}
    if MODELS[0] not in trials and run.folder.trained_here:
        itself = Trial(Variant(MODELS[0], config["network"]["depth"], ()), config["seed"], run.folder.path)
        trials = {MODELS[0]: itself, **trials}
    return trials


def facts_of(run: AnalysedRun) -> dict[str, Any]:
    """What was trained, on what, and where."""
    config, images = run.configuration, run.facts["data"]
    size = config["data"]["image_size"]
    return {
        "width": config["network"]["width"],
        "image size": size if isinstance(size, list) else [size, size],
        "epochs": config["training"]["epochs"],
        "learning rate": config["training"]["learning_rate"],
        "precision": config["training"]["precision"],
        "seed": config["seed"],
        "images": {part: images[part]["images"] for part in ("train", "validation")},
        "device": run.facts["device"],
        "torch": run.facts["versions"]["torch"],
    }


def _moves(folders: Mapping[str, Path]) -> list[str]:
    """Which trainings went on elsewhere, and what changed there but where images lie."""
    said = []
    for name, folder in folders.items():
        for move in RunFolder.open(folder).facts.get("moves", ()):
            changed = "; ".join(line for line in move["changed"] if not line.startswith("data."))
            said.append(f"{name} went on elsewhere from its epoch {move['epoch']} on ({changed})")
    return said


def last_of_all(models: Sequence[Model]) -> int:
    """The last epoch that all models have."""
    return min(model.last for model in models)


def epoch_text(epoch: float | None) -> str:
    """An epoch as a number, or that there is none."""
    return "never" if epoch is None else f"{epoch:,.0f}"


def number_text(value: float, places: int = 3) -> str:
    """A number, or a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:z.{places}f}"
