"""Verdicts from the loss of Dice to expect: of each part alone, and of designs that lack several."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from unetscope.analysis.expected_losses import LossLine, expected_loss
from unetscope.table import (
    PROBED,
    SILENCED,
    TRAINED_ON,
    Decision,
    Evidence,
    ExpectedLoss,
    Part,
    Silenced,
    TrainedOn,
    Variant,
    Verdict,
    check_margin,
    epochs_trained_on,
    has_all_of,
    removed_parts,
)


@dataclass(frozen=True)
class ExpectedLosses:
    """What some designs of a network are expected to lose, at one budget.

    depth, without: of the whole network. margin: a loss of Dice that counts as none.
    Raises: InvalidArgument unless the margin is between 0 and 1.
    """

    losses: tuple[ExpectedLoss, ...]
    depth: int
    without: tuple[Part, ...]
    margin: float

    def __post_init__(self) -> None:
        check_margin(self.margin)

    def removed(self, design: Variant) -> frozenset[Part]:
        """The parts that a design lacks."""
        return frozenset(removed_parts(design, self.depth, self.without))

    def of(self, design: Variant) -> ExpectedLoss | None:
        """What a design is expected to lose; None if nothing is known of it.

        A network that was trained on and shows that it does without what it lacks bounds the loss of every design that has all
        that it has: that one can compute what it does.
        """
        by_itself = next((each for each in self.losses if each.design.is_same_network(design)), None)
        proven = [each for each in self.losses if each.proof is not None and self._has_all(design, each.design)]
        bound = min(proven, key=lambda each: each.loss.high, default=None)
        if bound is None or (by_itself is not None and by_itself.proof is not None):
            return by_itself
        if by_itself is None or by_itself.loss.high > bound.loss.high:
            return replace(bound, design=design)
        return replace(by_itself, proof=bound.proof)

    def decision(self, design: Variant) -> Decision:
        """On all that a design lacks, together: needed too if a part of it is."""
        if (expected := self.of(design)) is not None:
            return expected.decision(self.margin)
        removed = self.removed(design)
        of_parts = [each for each in self.losses if self.removed(each.design) <= removed]
        return "needed" if any(self.decision(each.design) == "needed" for each in of_parts) else "undecided"

    def smallest(self) -> Variant | None:
        """The smallest design that is redundant as a whole, of several as small the surest; None if there is none.

        Where networks have been trained on, one of those, or one that has all of one that is proof. If none of them is
        redundant, one of the others, unless one that was trained on has all that it has.
        """
        losses = [expected for each in self.losses if (expected := self.of(each.design)) is not None]
        redundant = [each for each in losses if each.decision(self.margin) == "redundant"]
        shown = [each for each in redundant if TRAINED_ON in each.known or each.proof is not None]
        tried = [each.design for each in losses if TRAINED_ON in each.known]
        untried = [each for each in redundant if not any(self._has_all(larger, each.design) for larger in tried)]
        smallest = max(shown or untried, key=_smaller_and_surer, default=None)
        return None if smallest is None else smallest.design

    def _has_all(self, design: Variant, smaller: Variant) -> bool:
        return has_all_of(design, smaller, self.depth, self.without)

    def verdict(self, part: Part, epoch: int) -> Verdict | None:
        """The verdict on a part alone: the whole network without this skip, or without this level and all below it."""
        design = self.alone(part)
        if design is None or (expected := self.of(design)) is None:
            return None
        return Verdict(
            part, epoch, "loss", expected.decision(self.margin), lost=expected.loss, text=self._text(expected)
        )

    def alone(self, part: Part) -> Variant | None:
        """The design that lacks one part; None for the last level, without which there is no network of this kind."""
        if part.is_skip:
            return Variant("", self.depth, tuple(sorted({*self.without, part})))
        if part.level < 2:
            return None
        return Variant("", part.level - 1, tuple(skip for skip in self.without if skip.level < part.level))

    def _text(self, expected: ExpectedLoss) -> str:
        numbers = f"a network without it, retrained, is expected to lose {expected.loss.text} Dice"
        if (proof := expected.proof) is not None:
            more = "" if proof.design.is_same_network(expected.design) else f" and more, {proof.design.text},"
            return (
                f"a network that lacks it{more} is there, and lost {proof.loss.text} Dice when it was trained on, under "
                f"{self.margin:g}; {numbers}"
            )
        decision = expected.decision(self.margin)
        side = {"redundant": "under {:g}", "needed": "over {:g}", "undecided": "and {:g} lies between"}[decision]
        why = [f"it lost {expected.known[SILENCED]:z.3f} at once with zeros in its place"] * (
            SILENCED in expected.known
        )
        if PROBED in expected.known:
            why.append(f"{expected.known[PROBED]:z.3f} in what probes read without it")
        if TRAINED_ON in expected.known:
            why.append(f"{expected.known[TRAINED_ON]:z.3f} trained on without it")
        because = f"; {', '.join(why[:-1])} and {why[-1]}" if len(why) > 1 else f"; {why[0]}" if why else ""
        return f"{numbers}, {side.format(self.margin)}{because}"


def _smaller_and_surer(expected: ExpectedLoss) -> tuple[int, int, bool, float]:
    design = expected.design
    return -design.depth, len(design.without), expected.proof is not None, -expected.loss.high


def expected_losses(
    silenced: Iterable[Silenced],
    evidence: Evidence | None,
    *,
    depth: int,
    without: Sequence[Part],
    margin: float,
    probed: Callable[[Variant, int], float] = lambda _design, _epoch: math.nan,
    lines: Sequence[LossLine] | None = None,
    more_error: Mapping[int, float] = MappingProxyType({}),
) -> dict[int, ExpectedLosses]:
    """By epoch, what designs are expected to lose: of those that were silenced, and of those that were trained on.

    probed: the Dice that probes lose without the part that a design lacks, at an epoch; NaN if that is not known. lines: by
    which losses are expected, the surest first; by default those of this package. more_error: by epoch, what the run adds to
    half of an interval.
    """
    by_epoch: dict[int, list[ExpectedLoss]] = {}
    trained_on = () if evidence is None else evidence.trained_on
    for row in silenced:
        if evidence is not None and row.epoch == evidence.epoch and _is_among(row.design, trained_on):
            continue
        predictors = _known(row.loss, probed(row.design, row.epoch))
        of_run = more_error.get(row.epoch, 0.0)
        if (loss := expected_loss(predictors, _keeps_skips(row.design, without), lines, more_error=of_run)) is not None:
            by_epoch.setdefault(row.epoch, []).append(ExpectedLoss(row.design, row.epoch, loss, predictors))
    for each in trained_on:
        assert evidence is not None
        predictors = _known(each.silenced, probed(each.design, evidence.epoch))
        half_width = (each.loss.high - each.loss.low) / 2  # at the level of the search, so rather too wide
        is_known = math.isfinite(half_width)
        if is_known and evidence.epochs >= epochs_trained_on(
            evidence.epoch
        ):  # of fewer the lines do not know what they tell
            predictors[TRAINED_ON] = each.loss.value
        error, of_run = half_width if is_known else 0.0, more_error.get(evidence.epoch, 0.0)
        if (loss := expected_loss(predictors, _keeps_skips(each.design, without), lines, error, of_run)) is not None:
            proof = each if each.shows(margin) else None
            of_epoch = by_epoch.setdefault(evidence.epoch, [])
            of_epoch.append(ExpectedLoss(each.design, evidence.epoch, loss, predictors, proof))
    return {
        epoch: ExpectedLosses(tuple(losses), depth, tuple(without), margin)
        for epoch, losses in sorted(by_epoch.items())
    }


def _known(silenced: float, probed: float) -> dict[str, float]:
    return {SILENCED: silenced, PROBED: probed} if math.isfinite(probed) else {SILENCED: silenced}


def _keeps_skips(design: Variant, without: Sequence[Part]) -> bool:
    """Whether a design has the skip of every level that it has, as far as the whole network does."""
    return set(design.without) <= set(without)


def _is_among(design: Variant, trained_on: Iterable[TrainedOn]) -> bool:
    return any(each.design.is_same_network(design) for each in trained_on)


def loss_verdicts(
    losses: Mapping[int, ExpectedLosses], parts: Collection[Part], epochs: Collection[int]
) -> list[Verdict]:
    """The verdicts on all parts of which a loss is expected, at every judged epoch."""
    return [
        verdict
        for epoch in epochs
        if epoch in losses
        for part in parts
        if (verdict := losses[epoch].verdict(part, epoch)) is not None
    ]
