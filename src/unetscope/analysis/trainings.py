"""One training of a variant as its run folder tells it: whether it started, and how well it does."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unetscope.table import EpochRecord

STARTED_SHARE = 0.1  # of the guess's cross-entropy that a network which has learnt anything is below it
SCORED_SHARE = 10  # a training is scored by the last of so many parts of its epochs, and by one epoch at least
CONSTANT_RANGE = 1e-3  # between the largest and the smallest probability: below it an output is constant
State = Literal["started", "not started", "collapsed", "failed", "not there yet"]


@dataclass(frozen=True)
class Training:
    """One variant trained with one seed, as read from its run folder.

    guess: the cross-entropy, in nats a pixel, of the best guess without looking at an image; NaN if no loss is known.
    constant: by layer, the share of channels that are the same everywhere at the end (empty before it). failure: why it ended
    before its last epoch, if it did. groups: the number of each validation image's group; none if images are independent.
    """

    variant: str
    seed: int
    records: tuple[EpochRecord, ...]
    guess: float
    constant: dict[str, float]
    failure: str = ""
    groups: tuple[int, ...] = ()

    @cached_property
    def _by_epoch(self) -> dict[int, EpochRecord]:
        return {record.epoch: record for record in self.records}

    @cached_property
    def started_at(self) -> int | None:
        """The first epoch at which the loss is a tenth below that of the best guess, or is not known; None without one."""
        below, unknown = (1 - STARTED_SHARE) * self.guess, math.isnan(self.guess)
        return next((record.epoch for record in self.records if unknown or record.validation_loss < below), None)

    def state(self, epoch: int) -> State:
        """The state of the training after so many epochs; one that starts at a later epoch counts as started."""
        if epoch not in self._by_epoch:
            return "failed" if self.failure else "not there yet"
        if self.started_at is None:
            return "not started"
        constant = self.started_at <= epoch and self._by_epoch[epoch].validation_range < CONSTANT_RANGE
        return "collapsed" if constant else "started"

    def ended(self, epochs: int) -> bool:
        """Whether it has trained so many epochs, or has failed before."""
        return self.state(epochs) != "not there yet"

    @property
    def sound(self) -> bool:
        """Whether it has started and not collapsed or failed, so that it may be compared."""
        return bool(self.records) and not self.failure and self.state(self.records[-1].epoch) == "started"

    def dice(self, epoch: int) -> NDArray[np.float64]:
        """Dice of every validation image, as the mean of the last tenth of so many epochs; of all images, if no more is kept.

        Up to 19 epochs a tenth is the last one. Epochs that are not recorded do not count.
        """
        scored = self._scored(epoch)
        by_image = [record.dice_per_image for record in scored if record.dice_per_image]
        values = by_image or [(record.validation_dice,) for record in scored]
        return np.mean(np.asarray(values, dtype=np.float64), axis=0)

    @property
    def scored_whole(self) -> bool:
        """Whether it has one score an epoch, of a loop of the user's, and none of each image."""
        return math.isnan(self.guess) and not any(record.dice_per_image for record in self.records)

    def scored_as_a_whole(self) -> Training:
        """The same with one score an epoch, and none of each image."""
        return replace(self, records=tuple(replace(record, dice_per_image=()) for record in self.records))

    def score(self, epoch: int) -> float:
        """The mean of `dice` over the images that have one."""
        dice = self.dice(epoch)
        return float(dice[np.isfinite(dice)].mean()) if np.isfinite(dice).any() else math.nan

    def mean_dice(self, epoch: int) -> float:
        """Mean validation Dice of the same epochs as `dice`."""
        return float(np.mean([record.validation_dice for record in self._scored(epoch)]))

    def dice_per_class(self, epoch: int) -> tuple[float, ...]:
        """Of class maps, mean validation Dice of each class in the same epochs; NaN for one that no image has."""
        by_class = [record.dice_per_class for record in self._scored(epoch) if record.dice_per_class]
        return tuple(np.mean(by_class, axis=0).tolist()) if by_class else ()

    def _scored(self, epoch: int) -> list[EpochRecord]:
        first = epoch - max(1, epoch // SCORED_SHARE) + 1
        return [self._by_epoch[each] for each in range(first, epoch + 1) if each in self._by_epoch]

    def reaches(self, dice: float) -> int | None:
        """The first epoch with a mean validation Dice of so much or more; None if there is none."""
        return next((record.epoch for record in self.records if record.validation_dice >= dice), None)

    @property
    def why_not(self) -> str:
        """For a training that did not start or has failed: the failure, which layers are dead, or that none is."""
        if self.failure or not self.constant:
            return self.failure or "it has not ended, and no layer was looked at"
        dead = [label for label, share in self.constant.items() if share == 1]
        return (
            f"layer {dead[0]} is the same for every image" if dead else "no layer is dead, so more epochs may start it"
        )
