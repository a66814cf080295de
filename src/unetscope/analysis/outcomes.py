"""The verdicts compared with retraining: variants against the run's own network, paired by seed.

A training that did not start, or whose output has become constant, is no evidence about a skip: it is left out, and counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unetscope.analysis.verdict import Judgement
from unetscope.base import InvalidArgument
from unetscope.table import (
    AGREEMENT_MARKS,
    REFERENCE,
    RULE_TITLES,
    Agreement,
    Decision,
    EpochRecord,
    Interval,
    Rule,
    Variant,
    cautious,
    effective_groups,
    group_values,
    student,
    too_few_groups,
)

DICE_MARGIN = 0.02  # a loss of Dice that counts as none
STARTED_SHARE = 0.1  # of the guess's cross-entropy that a network which has learnt anything is below it
FEWEST_SEEDS = 2  # pairs of them: of one, nobody knows what another would change
STALLS_FROM = 0.05  # chance of so few starts: below it a variant starts less often
CONSTANT_RANGE = 1e-3  # between the largest and the smallest probability: below it an output is constant
State = Literal["started", "not started", "collapsed", "failed", "not there yet"]


@dataclass(frozen=True)
class Training:
    """One variant trained with one seed, as read from its run folder.

    guess: the cross-entropy, in nats a pixel, of the best guess without looking at an image. constant: by layer, the share of
    channels that are the same everywhere at the end (empty before it). failure: why it ended before its last epoch, if it did.
    groups: the number of each validation image's group; none if images are independent.
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

    @property
    def started_at(self) -> int | None:
        """The first epoch at which the loss is a tenth below that of the best guess; None if there is none."""
        below = (1 - STARTED_SHARE) * self.guess
        return next((record.epoch for record in self.records if record.validation_loss < below), None)

    def state(self, epoch: int) -> State:
        """The state of the training after so many epochs; one that starts at a later epoch counts as started."""
        if epoch not in self._by_epoch:
            return "failed" if self.failure else "not there yet"
        if self.started_at is None:
            return "not started"
        constant = self.started_at <= epoch and self._by_epoch[epoch].validation_range < CONSTANT_RANGE
        return "collapsed" if constant else "started"

    @property
    def sound(self) -> bool:
        """Whether it has started and not collapsed or failed, so that it may be compared."""
        return bool(self.records) and not self.failure and self.state(self.records[-1].epoch) == "started"

    def dice(self, epoch: int) -> NDArray[np.float64]:
        """Dice of every validation image after an epoch."""
        return np.asarray(self._by_epoch[epoch].dice_per_image, dtype=np.float64)

    def mean_dice(self, epoch: int) -> float:
        """Mean validation Dice after an epoch."""
        return self._by_epoch[epoch].validation_dice

    def dice_per_class(self, epoch: int) -> tuple[float, ...]:
        """Of class maps, mean validation Dice of each class after an epoch; NaN for one that no image has."""
        return self._by_epoch[epoch].dice_per_class

    def reaches(self, dice: float) -> int | None:
        """The first epoch with a mean validation Dice of so much or more; None if there is none."""
        return next((record.epoch for record in self.records if record.validation_dice >= dice), None)

    @property
    def why_not(self) -> str:
        """For a training that did not start or has failed: the failure, which layers are dead, or that none is."""
        if self.failure or not self.constant:
            return self.failure or "it has not ended, and no layer was looked at"
        dead = [label for label, share in self.constant.items() if share == 1]
        return f"layer {dead[0]} is the same for every image" if dead else "no layer is dead: it may start later"


@dataclass(frozen=True)
class Outcome:
    """How a retrained variant compares with the reference after so many epochs.

    difference: of Dice, variant less reference, over images, then over pairs of seeds. pairs: seeds at which both started.
    started, seeds: of the variant's trainings that got so far. stalls: whether fewer of them start than of the reference's, by
    more than chance. decision: `redundant` if what is left out costs less than the margin, `needed` if more, else, or if the
    variant stalls, `undecided`. dice_per_class: of class maps, the mean over the seeds that started.
    """

    variant: str
    epoch: int
    dice: float
    difference: Interval
    pairs: int
    started: int
    seeds: int
    stalls: bool
    decision: Decision
    text: str
    dice_per_class: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """A variant's verdicts beside its outcome, at one budget."""

    variant: Variant
    outcome: Outcome
    predicted: dict[Rule, Decision]

    def agreement(self, rule: Rule = "conditional") -> Agreement:
        """Whether a rule was right; open where the rule or the outcome is undecided."""
        decisions = {self.predicted.get(rule, "undecided"), self.outcome.decision}
        return "open" if "undecided" in decisions else "hit" if len(decisions) == 1 else "miss"


@dataclass(frozen=True)
class Verification:
    """Trainings of variants of one run, compared with its verdicts.

    judgement: of the run, None if it was not measured enough. budgets: the epochs at which they are compared. margin: of Dice.
    """

    variants: tuple[Variant, ...]
    trainings: tuple[Training, ...]
    judgement: Judgement | None
    budgets: tuple[int, ...]
    margin: float

    def of(self, variant: str) -> tuple[Training, ...]:
        """The trainings of a variant, by seed. Raises: InvalidArgument if there are none."""
        trainings = tuple(training for training in self.trainings if training.variant == variant)
        if not trainings:
            names = ", ".join(trained.name for trained in self.variants)
            raise InvalidArgument(f"variant {variant!r} was not trained: there are {names}")
        return trainings

    def outcome(self, variant: str, epoch: int) -> Outcome:
        """How a variant compares with the reference after so many epochs.

        The interval of the difference covers other seeds and other images: Student's over pairs of seeds and over images, their
        halves added as squares. Of images in groups it is over groups, and there is none over fewer than five. Trainings
        that did not start are not compared, but fewer starts than the reference has (Fisher's exact test, one-sided, 5 %)
        rule out `redundant`.

        Raises: InvalidArgument if trainings of one seed were validated on different numbers of images.
        """
        states, started = self._states(variant, epoch)
        of_reference, reference = self._states(REFERENCE, epoch)
        pairs = [
            _dice_difference(training, reference[seed], epoch)
            for seed, training in started.items()
            if seed in reference
        ]
        groups = next((training.groups for training in started.values()), ())
        difference = _paired(*_labelled(np.stack(pairs), groups)) if pairs else Interval(math.nan, math.nan, math.nan)
        p = fewer_starts(states.count("started"), len(states), of_reference.count("started"), len(of_reference))
        dice = [training.mean_dice(epoch) for training in started.values()]
        decision, text = self._decided(variant, difference, len(pairs), states)
        if stalls := p <= STALLS_FROM:
            decision = "undecided"
            text = f"{states.count('started')} of {len(states)} trainings start, {of_reference.count('started')} of "
            text += f"{len(of_reference)} of the reference's (p = {p:.2g}): without it a training starts less often"
        mean = float(np.mean(dice)) if dice else math.nan
        by_class = [training.dice_per_class(epoch) for training in started.values()]
        of_classes = tuple(np.mean(by_class, axis=0).tolist()) if by_class else ()
        started_count = states.count("started")
        return Outcome(
            variant, epoch, mean, difference, len(pairs), started_count, len(states), stalls, decision, text, of_classes
        )

    def _states(self, variant: str, epoch: int) -> tuple[list[State], dict[int, Training]]:
        """The states of a variant's trainings that got to an epoch, and by seed those that have started."""
        states = [(training, training.state(epoch)) for training in self.of(variant)]
        started = {training.seed: training for training, state in states if state == "started"}
        return [state for _, state in states if state != "not there yet"], started

    def _decided(self, variant: str, difference: Interval, pairs: int, states: Sequence[State]) -> tuple[Decision, str]:
        if variant == REFERENCE:
            return "undecided", "the reference"
        stuck = sum(state != "started" for state in states)
        out = (
            f"; {stuck} of {len(states)} trainings did not start, collapsed or failed, and are not counted"
            if stuck
            else ""
        )
        if pairs < FEWEST_SEEDS:
            few = "1 pair of seeds is" if pairs == 1 else "no pairs of seeds are"
            return "undecided", f"{few} too few to compare{out}"
        if not difference.high > difference.low:
            why = _too_few_groups(self.of(variant)[0].groups)
            return (
                "undecided",
                f"{difference.value:+.3f} Dice, and there is no interval{f': {why}' if why else ''}{out}",
            )
        by = f"{difference.value:+.3f} Dice ({difference.low:+.3f} to {difference.high:+.3f}), {pairs} pairs of seeds{out}"
        if difference.low > -self.margin:
            return "redundant", f"{by}: a loss under {self.margin:g}"
        if difference.high < -self.margin:
            return "needed", f"{by}: a loss over {self.margin:g}"
        return "undecided", f"{by}: a loss of {self.margin:g} lies between"

    @property
    def target(self) -> float:
        """The Dice that every variant is to reach: the best of the reference's mean curve, less the margin; NaN without one.

        The curve is of the seeds that got furthest: one that was cut short would end it early.
        """
        sound = [training.records for training in self.of(REFERENCE) if training.sound]
        last = max((records[-1].epoch for records in sound), default=0)
        curves = [[record.validation_dice for record in records] for records in sound if records[-1].epoch == last]
        return float(np.mean(curves, axis=0).max()) - self.margin if curves else math.nan

    def rows(self, epoch: int | None = None) -> tuple[Row, ...]:
        """Every variant but the reference at a budget, by default the last."""
        epoch = self.budgets[-1] if epoch is None else epoch
        return tuple(
            Row(variant, self.outcome(variant.name, epoch), self._predicted(variant, epoch))
            for variant in self.variants
            if variant.name != REFERENCE
        )

    def _predicted(self, variant: Variant, epoch: int) -> dict[Rule, Decision]:
        if self.judgement is None or epoch not in self.judgement.epochs:
            return {}
        return {rule: self.judgement.of_variant(variant, rule=rule, epoch=epoch) for rule in RULE_TITLES}

    def score(self, rule: Rule = "conditional", epochs: Sequence[int] | None = None) -> dict[Agreement, int]:
        """How many verdicts of a rule were right, wrong and open, at the last budget or at several."""
        chosen = [self.budgets[-1]] if epochs is None else epochs
        counts = Counter(row.agreement(rule) for epoch in chosen for row in self.rows(epoch))
        return {agreement: counts[agreement] for agreement in AGREEMENT_MARKS}


def _labelled(values: NDArray[np.float64], groups: Sequence[int]) -> tuple[NDArray[np.float64], Sequence[int]]:
    """Differences [seeds, images], and groups, without the images that have no Dice, as those without a labelled pixel."""
    kept = np.asarray(np.isfinite(values).all(axis=0))
    return values[:, kept], tuple(group for group, is_kept in zip(groups, kept, strict=False) if is_kept)


def _paired(values: NDArray[np.float64], groups: Sequence[int] = ()) -> Interval:
    """The mean of differences [seeds, images], with an interval over both; without one if there is one seed, or one image.

    groups: of each image, if they are not independent: then the interval is over groups, and there is none if they are too few.
    """
    if not values.size:
        return Interval(math.nan, math.nan, math.nan)
    seeds, images = student(values.mean(axis=1)), cautious(values.mean(axis=0))
    if groups:
        of_groups = group_values(values.mean(axis=0), np.ones(len(groups)), groups)
        images = cautious(of_groups, effective_groups(np.bincount(groups)))
    if values.shape[1] < 2 or _too_few_groups(groups):
        return Interval(seeds.value, math.nan, math.nan)
    low, high = (
        math.hypot(of_seeds - seeds.value, of_images - images.value)
        for of_seeds, of_images in ((seeds.low, images.low), (seeds.high, images.high))
    )
    return Interval(seeds.value, seeds.value - low, seeds.value + high)


def _too_few_groups(groups: Sequence[int]) -> str:
    """Why validation images in these groups give no interval; empty if they do, or are in none."""
    if not groups:
        return ""
    sizes = np.bincount(groups)
    return too_few_groups(int((sizes > 0).sum()), effective_groups(sizes))


def _dice_difference(training: Training, reference: Training, epoch: int) -> NDArray[np.float64]:
    """Dice of a variant less that of the reference, image by image."""
    dice, of_reference = training.dice(epoch), reference.dice(epoch)
    if dice.shape != of_reference.shape:
        raise InvalidArgument(
            f"{training.variant} and {reference.variant} with seed {training.seed} were validated on {len(dice)} and "
            f"{len(of_reference)} images"
        )
    if training.groups and len(training.groups) != len(dice):
        raise InvalidArgument(
            f"{training.variant} with seed {training.seed} was validated on {len(dice)} images, and its facts have the groups "
            f"of {len(training.groups)}"
        )
    return dice - of_reference


def fewer_starts(started: int, seeds: int, of_reference: int, its_seeds: int) -> float:
    """The chance of so few starts, or fewer, if a variant starts as often as the reference: Fisher's exact test, one-sided.

    >>> fewer_starts(0, 3, 3, 3)
    0.05
    """
    all_started, everyone = started + of_reference, seeds + its_seeds
    ways = math.comb(everyone, seeds)
    return sum(
        math.comb(all_started, k) * math.comb(everyone - all_started, seeds - k) / ways for k in range(started + 1)
    )


def guess_nats(train_share: float, validation_share: float) -> float:
    """Cross-entropy of a constant guess at the training foreground's share, in nats a validation pixel.

    >>> round(guess_nats(0.5, 0.2), 4)      # ln 2, whatever the masks
    0.6931
    """
    p = min(max(train_share, 1e-7), 1 - 1e-7)
    return -(validation_share * math.log(p) + (1 - validation_share) * math.log1p(-p))


def guess_of_classes(train_shares: Sequence[float], validation_shares: Sequence[float]) -> float:
    """The same of several classes, by the share of pixels that each has.

    >>> round(guess_of_classes([1 / 3] * 3, [1.0, 0.0, 0.0]), 4)      # ln 3, whatever the masks
    1.0986
    """
    return -sum(
        share * math.log(max(guess, 1e-7)) for guess, share in zip(train_shares, validation_shares, strict=True)
    )
