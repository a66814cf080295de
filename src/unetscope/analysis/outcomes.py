"""The verdicts compared with retraining: variants against the run's own network, paired by seed.

A training is scored by the mean Dice of the last tenth of its epochs, which is quieter than that of the last. One that did not
start, or whose output has become constant, is no evidence about a skip: it is left out, and counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from unetscope.analysis.looks import LOOKS, Look, SeedPlan, level_of_added, look_level
from unetscope.analysis.paired_differences import (
    dice_differences,
    interval_over_images,
    paired_interval,
    why_no_interval_over_images,
)
from unetscope.analysis.spread import Spread, pooled_spread
from unetscope.analysis.starts import fewer_starts
from unetscope.analysis.trainings import State, Training
from unetscope.analysis.verdict import Judgement
from unetscope.base import InvalidArgument
from unetscope.table import (
    AGREEMENT_MARKS,
    CONFIDENCE,
    REFERENCE,
    RULE_TITLES,
    Agreement,
    Decision,
    ExpectedLoss,
    Interval,
    Rule,
    Variant,
    check_margin,
)

FEWEST_SEEDS = 2  # pairs of them: of one, nobody knows what another would change


@dataclass(frozen=True)
class Outcome:
    """How a retrained variant compares with the reference after so many epochs.

    difference: of Dice, variant less reference, over images, then over pairs of seeds. pairs: seeds at which both started.
    started, seeds: of the variant's trainings that got so far. stalls: whether fewer of them start than of the reference's, by
    more than chance. decision: `redundant` if what is left out costs less than the margin, `needed` if more, else, or if the
    variant stalls, `undecided`. level: of the interval. residual: the standard deviation of one training's score, pooled over
    variants; NaN if nothing tells it. dice_per_class: of class maps, the mean over the seeds that started.
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
    level: float = CONFIDENCE
    residual: float = math.nan
    dice_per_class: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """A variant's verdicts beside its outcome, at one budget.

    predicted: the decision of each rule on all that it lacks. expected: the Dice that it was expected to lose, None if that is
    not known.
    """

    variant: Variant
    outcome: Outcome
    predicted: dict[Rule, Decision]
    expected: ExpectedLoss | None = None

    def decision(self, rule: Rule | None = None) -> Decision:
        """What a rule said; without one, the verdict: that of the loss where one is expected, else that of bits."""
        rule = rule or ("conditional" if self.expected is None else "loss")
        return self.predicted.get(rule, "undecided")

    def agreement(self, rule: Rule | None = None) -> Agreement:
        """Whether a rule was right, or without one the verdict; open where it or the outcome is undecided."""
        decisions = {self.decision(rule), self.outcome.decision}
        return "open" if "undecided" in decisions else "hit" if len(decisions) == 1 else "miss"


@dataclass(frozen=True)
class Verification:
    """Trainings of variants of one run, compared with its verdicts.

    judgement: of the run, None if it was not measured enough. budgets: the epochs at which they are compared. margin: of Dice.
    plans: by variant, how its seeds were chosen; without one, all at once. others: trainings of further variants of the run,
    which tell how much scores vary over seeds.
    Raises: InvalidArgument unless the margin is between 0 and 1.
    """

    variants: tuple[Variant, ...]
    trainings: tuple[Training, ...]
    judgement: Judgement | None
    budgets: tuple[int, ...]
    margin: float
    plans: Mapping[str, SeedPlan] = field(default_factory=dict)
    others: tuple[Training, ...] = ()

    def __post_init__(self) -> None:
        check_margin(self.margin)

    def of(self, variant: str) -> tuple[Training, ...]:
        """The trainings of a variant, by seed. Raises: InvalidArgument if there are none."""
        trainings = tuple(training for training in self.trainings if training.variant == variant)
        if not trainings:
            names = ", ".join(trained.name for trained in self.variants)
            raise InvalidArgument(f"variant {variant!r} was not trained: there are {names}")
        return trainings

    def outcome(self, variant: str, epoch: int) -> Outcome:
        """How a variant compares with the reference after so many epochs.

        The interval of the difference covers other seeds and other images: Student's over pairs of seeds, by the spread of all
        variants (`Spread`), and that over images, their halves added as squares. Of images in groups it is over groups, and
        there is none over fewer than five. Trainings that did not start are not compared, but fewer starts than the reference
        has (Fisher's exact test, one-sided, 5 %) rule out `redundant`. Of a variant whose seeds were added as they were
        needed, only those count with which it was decided.

        Raises: InvalidArgument if trainings of one seed were validated on different numbers of images.
        """
        looks = self._looks.get(variant, ())
        return self._at_look(variant, epoch, looks[-1] if looks else None)

    def looks_taken(self, variant: str) -> tuple[int, ...]:
        """The numbers of seeds at which a variant with `--seeds auto` was compared, up to that which decided it."""
        return tuple(len(look.seeds) for look in self._looks.get(variant, ()) if look.seeds is not None)

    @cached_property
    def _looks(self) -> dict[str, tuple[Look, ...]]:
        """The looks at each variant."""
        return {variant.name: tuple(self._looks_of(variant.name)) for variant in self.variants}

    def _looks_of(self, variant: str) -> Iterator[Look]:
        """The looks at a variant, until one decides it or trainings of the next are not there yet."""
        plan = self.plans.get(variant, SeedPlan())
        if plan.first is None or variant == REFERENCE:
            yield Look(None, level_of_added(plan.looks))
            return
        ended = [
            {training.seed for training in self.trainings if training.variant == name and training.ended(plan.epochs)}
            for name in (variant, REFERENCE)
        ]
        for count in LOOKS:
            seeds = frozenset(range(plan.first, plan.first + count))
            if not seeds <= set.intersection(*ended):
                return
            yield (look := Look(seeds, look_level(count)))
            outcome = self._at_look(variant, plan.epochs, look)
            if outcome.decision != "undecided" or outcome.stalls:
                return

    def _at_look(self, variant: str, epoch: int, look: Look | None) -> Outcome:
        look = look or Look(frozenset(), look_level(LOOKS[0]))  # none has been taken: nothing is compared
        states, started = self._states(variant, epoch, look.seeds)
        of_reference, reference = self._states(REFERENCE, epoch, look.seeds)
        pairs = dice_differences(started, reference, epoch)
        spread = self.spread(epoch, look.seeds)
        half = spread.half_width(variant, REFERENCE, len(pairs), look.level) if pairs else math.nan
        groups = next((training.groups for training in started.values()), ())
        of_seeds_alone = any(training.scored_whole for training in started.values())
        difference = (
            paired_interval(np.stack(pairs), groups, half, look.level, of_seeds_alone=of_seeds_alone)
            if pairs
            else Interval(math.nan, math.nan, math.nan)
        )
        p = fewer_starts(states.count("started"), len(states), of_reference.count("started"), len(of_reference))
        dice = [training.mean_dice(epoch) for training in started.values()]
        decision, text = self._decided(variant, difference, len(pairs), states, look)
        if stalls := p <= 1 - look.level:
            decision = "undecided"
            text = f"{states.count('started')} of {len(states)} trainings start, {of_reference.count('started')} of "
            text += f"{len(of_reference)} of the reference's (p = {p:.2g}): without it a training starts less often"
        by_class = [training.dice_per_class(epoch) for training in started.values()]
        return Outcome(
            variant,
            epoch,
            float(np.mean(dice)) if dice else math.nan,
            difference,
            len(pairs),
            states.count("started"),
            len(states),
            stalls,
            decision,
            text,
            look.level,
            spread.residual,
            tuple(np.mean(by_class, axis=0).tolist()) if by_class else (),
        )

    def spread(self, epoch: int | None = None, seeds: frozenset[int] | None = None) -> Spread:
        """The spread over seeds of the scores of all trainings that have started; epoch: the budget, by default the last."""
        epoch = self.budgets[-1] if epoch is None else epoch
        if (spread := self._spreads.get((epoch, seeds))) is None:
            scores: dict[str, dict[int, float]] = {}
            for training in (*self.trainings, *self.others):
                if (seeds is None or training.seed in seeds) and training.state(epoch) == "started":
                    scores.setdefault(training.variant, {})[training.seed] = training.score(epoch)
            spread = self._spreads[epoch, seeds] = pooled_spread(scores)
        return spread

    @cached_property
    def _spreads(self) -> dict[tuple[int, frozenset[int] | None], Spread]:
        """The spreads that were asked for, by epoch and seeds."""
        return {}

    def _states(
        self, variant: str, epoch: int, seeds: frozenset[int] | None
    ) -> tuple[list[State], dict[int, Training]]:
        """The states of a variant's trainings that got to an epoch, and by seed those that have started."""
        chosen = [training for training in self.of(variant) if seeds is None or training.seed in seeds]
        states = [(training, training.state(epoch)) for training in chosen]
        started = {training.seed: training for training, state in states if state == "started"}
        return [state for _, state in states if state != "not there yet"], started

    def image_half_widths(self) -> list[float]:
        """Of every variant at the last budget, half the interval over images, which more seeds do not narrow."""
        _, reference = self._states(REFERENCE, self.budgets[-1], None)
        halves = []
        for variant in self.variants:
            _, started = self._states(variant.name, self.budgets[-1], None)
            pairs = dice_differences(started, reference, self.budgets[-1])
            groups = next((training.groups for training in started.values()), ())
            if variant.name != REFERENCE and pairs:
                images = interval_over_images(np.stack(pairs), groups, CONFIDENCE)
                halves += [] if images is None else [(images.high - images.low) / 2]
        return halves

    def _decided(
        self, variant: str, difference: Interval, pairs: int, states: Sequence[State], look: Look
    ) -> tuple[Decision, str]:
        if variant == REFERENCE or look.seeds == frozenset():
            return "undecided", "the reference" if variant == REFERENCE else f"it is compared from {LOOKS[0]} seeds on"
        stuck = sum(state != "started" for state in states)
        out = (
            f"; {stuck} of {len(states)} trainings did not start, collapsed or failed, and are not counted"
            if stuck
            else ""
        )
        if pairs < FEWEST_SEEDS:
            few = "1 pair of seeds is too few to compare" if pairs == 1 else "no pair of seeds can be compared"
            return "undecided", f"{few}{out}"
        if not difference.high > difference.low:
            why = why_no_interval_over_images(self.of(variant)[0].groups)
            return (
                "undecided",
                f"it lost {-difference.value:z.3f} Dice, and there is no interval{f': {why}' if why else ''}{out}",
            )
        level = "" if look.level == CONFIDENCE else f" at {100 * look.level:.4g} %"
        level += " over seeds alone" if self.of(variant)[0].scored_whole else ""
        interval = f"{-difference.high:z.3f} to {-difference.low:z.3f}{level}"
        by = f"it lost {-difference.value:z.3f} ({interval}) Dice, {pairs} pairs of seeds{out}"
        if difference.low > -self.margin:
            return "redundant", f"{by}: under {self.margin:g}"
        if difference.high < -self.margin:
            return "needed", f"{by}: over {self.margin:g}"
        return "undecided", f"{by}: {self.margin:g} lies between"

    @property
    def target(self) -> float:
        """The Dice that every variant is to reach: the best of the reference's mean curve, less the margin; NaN without one.

        The curve is of the seeds that got furthest: one that was cut short would end it early.
        """
        sound = [training.records for training in self.of(REFERENCE) if training.sound]
        last = max((records[-1].epoch for records in sound), default=0)
        curves = [
            {record.epoch: record.validation_dice for record in records}
            for records in sound
            if records[-1].epoch == last
        ]
        if not curves:
            return math.nan
        of_all = set.intersection(*map(set, curves))  # a loop of the user's may score other epochs with another seed
        return max(float(np.mean([curve[epoch] for curve in curves])) for epoch in of_all) - self.margin

    def rows(self, epoch: int | None = None) -> tuple[Row, ...]:
        """Every variant but the reference at a budget, by default the last."""
        epoch = self.budgets[-1] if epoch is None else epoch
        return tuple(
            Row(
                variant,
                self.outcome(variant.name, epoch),
                self._predicted(variant, epoch),
                None if self.judgement is None else self.judgement.expected(variant, epoch),
            )
            for variant in self.variants
            if variant.name != REFERENCE
        )

    def _predicted(self, variant: Variant, epoch: int) -> dict[Rule, Decision]:
        if self.judgement is None or epoch not in self.judgement.epochs:
            return {}
        return {rule: self.judgement.of_variant(variant, rule=rule, epoch=epoch) for rule in RULE_TITLES}

    def score(self, rule: Rule | None = None, epochs: Sequence[int] | None = None) -> dict[Agreement, int]:
        """How many verdicts, or decisions of a rule, were right, wrong and open, at the last budget or at several."""
        chosen = [self.budgets[-1]] if epochs is None else epochs
        counts = Counter(row.agreement(rule) for epoch in chosen for row in self.rows(epoch))
        return {agreement: counts[agreement] for agreement in AGREEMENT_MARKS}


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
