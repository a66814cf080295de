"""A run of the paper's own protocol, with the trainings of Models 1 to 4: what docs/paper.md says of it comes from here."""

from __future__ import annotations

from pathlib import Path

from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.folder import RunFolder
from unetscope.runs.retraining import Trial, trained_variants
from unetscope.table.flow import Flow
from unetscope.table.parts import Variant
from unetscope.table.records import Estimate

PAPER_RATE = 1e-3  # the learning rate of the paper, in whose epochs its claims are
MODELS = ("model1", "model2", "model3", "model4")
MERGES = ("20", "17", "14", "11")  # from the top of the decoder down
FULL = 0.95  # of H(Y): what is called reached
BEGUN = 0.1  # Dice above which a network no longer predicts nothing


class Protocol:
    """A run of the paper's protocol, with the trainings of Models 1 to 4. Epochs are the paper's, unless they are said to be
    its own: an epoch at ten times the learning rate counts as ten.
    """

    def __init__(self, path: Path) -> None:
        self.run = AnalysedRun.open(path)
        self.config = self.run.configuration
        self.scale = self.config["training"]["learning_rate"] / PAPER_RATE
        self.epochs = round(self.config["training"]["epochs"] * self.scale)
        trials = {trial.variant.name: trial for trial in trained_variants(self.run.folder) if trial.seed == 0}
        if MODELS[0] not in trials and self.run.folder.trained_here and self.config["seed"] == 0:
            itself = Trial(Variant(MODELS[0], self.config["network"]["depth"], ()), 0, self.run.folder.path)
            trials = {MODELS[0]: itself, **trials}
        trainings = {name: self.run.training(trial) for name, trial in trials.items()}
        self.models = {name: training for name, training in trainings.items() if training.records}  # others wait
        self.folders = {name: RunFolder.open(trials[name].path) for name in self.models}
        self.name = path.name

    @property
    def title(self) -> str:
        """What was trained, in a few words."""
        training, size = self.config["training"], self.config["data"]["image_size"]
        sides = "×".join(map(str, size if isinstance(size, list) else (size, size)))
        return (
            f"Width {self.config['network']['width']}, {sides}, {training['epochs']:,} epochs at a learning rate of "
            f"{training['learning_rate']:g}"
        )

    @property
    def rate(self) -> float:
        """The learning rate."""
        return float(self.config["training"]["learning_rate"])

    def is_whole(self, name: str) -> bool:
        """Whether a model was trained to its last epoch."""
        return name in self.models and self.models[name].records[-1].epoch == self.config["training"]["epochs"]

    def best(self, name: str) -> tuple[float, float]:
        """The highest mean validation Dice of a model, and the paper's epoch at which it is."""
        record = max(self.models[name].records, key=lambda record: record.validation_dice)
        return record.validation_dice, record.epoch * self.scale

    def dice_by_epoch(self, name: str) -> dict[float, float]:
        """The mean validation Dice of a model by the paper's epoch."""
        return {record.epoch * self.scale: record.validation_dice for record in self.models[name].records}

    def training_dice_by_epoch(self, name: str) -> dict[float, float]:
        """The mean training Dice of a model over each epoch, by the paper's epoch."""
        return {record.epoch * self.scale: record.train_dice_running for record in self.models[name].records}

    def close_from(self, name: str, target: float) -> float | None:
        """The epoch from which a model has a Dice of so much."""
        reached = self.models[name].reaches(target)
        return None if reached is None else reached * self.scale

    def information(self, layer: str) -> list[Estimate]:
        """I(Y;M) of a layer by its first estimator, epoch after epoch."""
        return list(self._of_label.select(layer=layer).estimates)

    @property
    def _of_label(self) -> Flow:
        chosen = self.run.flow.select(quantity="I(Y;M)")
        return chosen.narrowed(estimator=None, resolution=None, labels=None)

    def full_from(self, layer: str) -> tuple[float | None, float, float]:
        """The epoch from which a layer tells 95 % of H(Y); the most that it tells; H(Y), in bits."""
        rows = self.information(layer)
        ceiling = rows[-1].ceiling
        reached = next((row.epoch * self.scale for row in rows if row.bits >= FULL * ceiling), None)
        return reached, max(row.bits for row in rows), ceiling

    def saturated_from(self, layer: str) -> float | None:
        """The epoch from which that number is a ceiling that any layer reaches which tells all images apart."""
        rows = self.run.flow.select(quantity="I(X;M)", layer=layer).narrowed(estimator=None, resolution=None)
        return next((row.epoch * self.scale for row in rows.estimates if row.saturated), None)


def begun_at(curve: dict[float, float]) -> float | None:
    """The first epoch of a training at which its Dice is that of a network which predicts something."""
    return next((epoch for epoch, dice in curve.items() if epoch > 0 and dice > BEGUN), None)


def epoch_text(epoch: float | None) -> str:
    """An epoch as a number, or that there is none."""
    return "never" if epoch is None else f"{epoch:,.0f}"
