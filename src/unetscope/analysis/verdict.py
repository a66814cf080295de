"""Which skips and levels a task and a training budget need, judged from the table of estimates.

There are three rules. The loss of Dice to expect, where it is known: a part is redundant if a network without it is expected to
lose less than a margin. The paper's: a skip is redundant once the merge below it has all information about the label. The
conditional rule: a skip is redundant if it adds next to nothing to all that a deeper path can receive, a level if it adds
next to nothing to the skip above it. Numbers that are saturated, out of their domain or too near the margin decide
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from types import MappingProxyType

from unetscope.analysis.gains import Gain, Gains, bounds_of, probed_epochs, probed_loss, stream_gains
from unetscope.analysis.loss_verdicts import ExpectedLosses, expected_losses, loss_verdicts
from unetscope.analysis.plateau import plateau_verdicts
from unetscope.base import InvalidArgument
from unetscope.table import (
    DECISION_MARKS,
    MERGE_PROBES,
    RULE_TITLES,
    Decision,
    Evidence,
    ExpectedLoss,
    Flow,
    Part,
    Rule,
    Silenced,
    Variant,
    Verdict,
    design_name,
    entries,
    removed_parts,
    skips_of_depth,
)
from unetscope.table import check_margin as check_margin  # noqa: PLC0414 (a door to it from here too)

MARGIN = 0.05  # of the output's usable information: a loss below it counts as next to nothing
DICE_MARGIN = 0.02  # a loss of Dice that counts as none
FEWEST_EPOCHS = 2
ESTIMATOR = next(key for entry in entries() if MERGE_PROBES in entry.settings for key in entry.titles)


@dataclass(frozen=True)
class Judgement:
    """Verdicts on every skip and level at every marked epoch, by all rules; iterating goes through those of the last epoch.

    depth, without: of the network that was judged. margin: the share of its usable information that counts as next to nothing.
    gains: what each stream adds at its merge, by epoch and stream. losses: the Dice that designs are expected to lose, by
    epoch; of a part of which that is known it decides, else the conditional rule does.
    """

    verdicts: tuple[Verdict, ...]
    depth: int
    without: tuple[Part, ...]
    margin: float
    gains: Gains = field(repr=False)
    losses: Mapping[int, ExpectedLosses] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.at(self.epochs[-1]))

    def __len__(self) -> int:
        return len(self.at(self.epochs[-1]))

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdicts at the last epoch."""
        rows = "".join(
            f'<tr><th>{escape(str(verdict.part))}</th><td>{verdict.rule}</td><td style="color:{mark.ink}">'
            f"{mark.sign} <b>{verdict.decision}</b></td><td>{verdict.since}</td>"
            f'<td style="text-align:left">{escape(verdict.text)}</td></tr>'
            for verdict in self
            for mark in [DECISION_MARKS[verdict.decision]]
        )
        heads = "".join(f"<th>{name}</th>" for name in ("part", "rule", "verdict", "from epoch", "why"))
        design = self.design()
        proposed = "Nothing is proposed to be left out." if design is None else f"Proposed: {escape(design.text)}."
        caption = f"A training of {self.epochs[-1]} epochs"
        return f"<table><caption>{caption}</caption><tr>{heads}</tr>{rows}</table><p>{proposed}</p>"

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs at which parts were judged, ascending."""
        return tuple(sorted(self.gains))

    @property
    def probed_epochs(self) -> tuple[int, ...]:
        """Those of `epochs` at which merges were probed: at the others the conditional rule has nothing to judge by."""
        return probed_epochs(self.gains)

    def at(self, epoch: int) -> tuple[Verdict, ...]:
        """The verdicts on a training of so many epochs. Raises: InvalidArgument if that epoch was not measured."""
        verdicts = tuple(verdict for verdict in self.verdicts if verdict.epoch == epoch)
        if not verdicts:
            raise InvalidArgument(f"epoch {epoch} was not judged: measured are {', '.join(map(str, self.epochs))}")
        return verdicts

    def deciding(self, epoch: int | None = None) -> tuple[Verdict, ...]:
        """One verdict on each part at an epoch, by default the last: of the loss where it is expected, else of bits."""
        verdicts = self.at(self.epochs[-1] if epoch is None else epoch)
        by_loss = {verdict.part: verdict for verdict in verdicts if verdict.rule == "loss"}
        return tuple(by_loss.get(v.part, v) for v in verdicts if v.rule == "conditional")

    def decision(self, part: Part | str, *, rule: Rule | None = None, epoch: int | None = None) -> Decision:
        """The decision of a rule on one skip or level at an epoch, by default the last; or of the rule that decides."""
        part = Part.named(part) if isinstance(part, str) else part
        verdicts = self.deciding(epoch) if rule is None else self.at(self.epochs[-1] if epoch is None else epoch)
        decisions = {verdict.part: verdict.decision for verdict in verdicts if rule in (None, verdict.rule)}
        if part not in decisions:
            nothing = "there is no verdict on" if rule is None else f"{RULE_TITLES[rule]} says nothing of"
            raise InvalidArgument(f"{nothing} {part}: expected any of {', '.join(map(str, decisions)) or 'none'}")
        return decisions[part]

    def _decisions(self, rule: Rule, epoch: int) -> dict[Part, Decision]:
        return {verdict.part: verdict.decision for verdict in self.at(epoch) if verdict.rule == rule}

    def expected(self, variant: Variant, epoch: int | None = None) -> ExpectedLoss | None:
        """What a design is expected to lose at an epoch, by default the last; None if that is not known."""
        losses = self.losses.get(self.epochs[-1] if epoch is None else epoch)
        return None if losses is None else losses.of(variant)

    def of_variant(self, variant: Variant, *, rule: Rule | None = None, epoch: int | None = None) -> Decision:
        """The decision of a rule on all that a variant leaves out, together; without a rule, of the loss if that is known.

        By the conditional rule a part that is redundant beside a skip may be needed without that skip, and parts that are each
        next to nothing are redundant only if what they may add comes to next to nothing too.
        """
        epoch = self.epochs[-1] if epoch is None else epoch
        removed = removed_parts(variant, self.depth, self.without)
        if rule == "loss" or (rule is None and self.expected(variant, epoch) is not None):
            return self.losses[epoch].decision(variant) if epoch in self.losses else "undecided"
        if rule == "plateau":
            by_part = self._decisions(rule, epoch)
            decisions = {by_part.get(part, "undecided") for part in removed}
        else:
            skips = [part for part in removed if part.is_skip]
            judged = [_conditional(part, epoch, self.gains[epoch], self.margin, skips) for part in removed]
            decisions = {verdict.decision for verdict, _ in judged}
            # the shallowest level comes first, and all below go with it
            bounds = {gain for _, gain in judged[: len(skips) + 1] if gain is not None}
            if decisions == {"redundant"} and sum(gain.share for gain in bounds) >= self.margin:
                return "undecided"
        return "needed" if "needed" in decisions else "redundant" if decisions <= {"redundant"} else "undecided"

    def design(self, epoch: int | None = None) -> Variant | None:
        """The smallest network that is expected to lose less than the margin; None if nothing may be left out.

        Where none is, it is the smallest all of whose missing parts the conditional rule finds redundant together, unless it is
        expected to lose more.

        By the conditional rule first the deepest levels go, one after the other, then skips, the top one first.
        """
        losses = self.losses.get(self.epochs[-1] if epoch is None else epoch)
        if losses is not None and (smallest := losses.smallest()) is not None:
            return smallest
        design = self._conditional_design(epoch)
        return None if design is None or (losses is not None and losses.decision(design) == "needed") else design

    def _conditional_design(self, epoch: int | None) -> Variant | None:
        design = Variant("", self.depth, self.without)
        while design.depth > 1 and self._may(smaller := self._variant(design.depth - 1, design.without), epoch):
            design = smaller
        for skip in [part for part in self.gains[self.epochs[-1]] if part.is_skip and part.level <= design.depth]:
            smaller = self._variant(design.depth, {*design.without, skip})
            if skip not in design.without and self._may(smaller, epoch):
                design = smaller
        return design if design.name else None

    def _variant(self, depth: int, without: Collection[Part]) -> Variant:
        removed = tuple(sorted(skip for skip in without if skip.level <= depth))
        return Variant(design_name(depth, {*removed} - {*self.without}, of_depth=self.depth), depth, removed)

    def _may(self, variant: Variant, epoch: int | None) -> bool:
        return self.of_variant(variant, rule="conditional", epoch=epoch) == "redundant"


def judge(
    flow: Flow,
    *,
    margin: float = MARGIN,
    estimator: str = ESTIMATOR,
    depth: int | None = None,
    without: Collection[Part] | None = None,
    silenced: Collection[Silenced] = (),
    evidence: Evidence | None = None,
    dice_margin: float = DICE_MARGIN,
    more_error: Mapping[int, float] = MappingProxyType({}),
) -> Judgement:
    """Every skip and every level at every marked epoch: needed, redundant or undecided, by all rules.

    Loss of Dice. Of a network that lacks a part, what it loses at once with zeros in its place, and when it is trained on, tell
    what it is expected to lose when it is retrained, with a 90 % interval. Below `dice_margin` the part is redundant, above it
    needed. A network that is there and loses less is proof, also of all that it could do without together.

    Conditional rule. A trained network uses a skip that exists; its activations do not show how it would do without it.
    But the deeper path receives the skip S only as S pooled. So S adds no more than I_V(S→Y|U,↓S), its usable information
    given the upsampled path U and S pooled; nor more than the deeper path to which it belongs adds to each skip above it,
    I_V(U→Y|S). Level k, with all below it, adds no more than I_V(U→Y|S) at skip k and above. If the 95 % interval of the
    least of these lies below `margin` times the usable information of the network's output, the part is redundant; if it lies
    above, needed; otherwise, or if one of them is not known, undecided. Bits and Dice differ where probabilities are close to
    one half: a detail worth few bits can decide on which side of one half a pixel falls.

    Plateau rule (the paper's). A skip is redundant once I(Y;M) of the merge below has reached H(Y), and needed before. An
    estimate decides nothing if it is at its ceiling only because all images differ in that layer. The rule does not apply to
    the deepest skip, nor to levels.

    silenced, evidence: what was seen of smaller networks. more_error: by epoch, what this run adds to half of an expected
    interval, as `error_of_run` tells. estimator: of usable information. depth: the levels of the
    network's decoder, by default those that its layers show. without: the skips that the network lacks, by default those of
    the levels at which none was measured.

    Source: Xu et al., ICLR 2020 (arXiv 2002.10689); Lee & Bajić, ISBI 2021, section 4.
    Raises: InvalidArgument for a margin that is not between 0 and 1, a flow without skips, or with fewer than two
    measured epochs of training.

    >>> from unetscope.table.records import Estimate, Layer, Skip
    >>> layers = (Layer("2", "a", 0, "encoder"), Layer("4", "b", 1, "bottom"), Layer("5", "cat", 0, "merge", ("5up", "2")))
    >>> added = {"I_V(S→Y|U,↓S)": 0.3, "I_V(U→Y|S)": 0.001}
    >>> rows = [Estimate(epoch, "5", quantity, "usable_convolutional", 0, "pixels", bits, bits, bits, 0.6, False, 9, 9,
    ...         low=bits - 0.001, high=bits + 0.001) for epoch in (1, 10) for quantity, bits in added.items()]
    >>> for verdict in judge(Flow(layers, (Skip("skip1", "2", "5up", "5"),), tuple(rows))): print(verdict)
    skip1 is needed from epoch 1 on: it adds 0.300 (0.299 to 0.301) of 0.600 bits a pixel to the deeper path, over 5%
    level1 is redundant from epoch 1 on: it adds 0.001 (0.000 to 0.002) of 0.600 bits a pixel to skip1, under 5%
    """
    check_margin(margin)
    check_margin(dice_margin, "dice_margin")
    epochs, skips = _judged_epochs(flow), sorted(flow.skips, key=lambda skip: skip.part)
    gains = stream_gains(flow, skips, epochs, estimator)
    verdicts = [
        replace(_conditional(part, epoch, gains[epoch], margin)[0], estimator=estimator)
        for epoch in epochs
        for part in gains[epoch]
    ]
    verdicts += plateau_verdicts(flow, skips, epochs)
    depth = _depth(flow) if depth is None else depth
    if without is None:
        joined = {part.level for part in gains[epochs[0]] if part.is_skip}
        without = [skip for skip in skips_of_depth(depth) if skip.level not in joined]
    without = tuple(without)

    def probed(design: Variant, epoch: int) -> float:
        return probed_loss(removed_parts(design, depth, without), gains[epoch]) if epoch in gains else math.nan

    losses = expected_losses(
        silenced, evidence, depth=depth, without=without, margin=dice_margin, probed=probed, more_error=more_error
    )
    verdicts += loss_verdicts(losses, tuple(gains[epochs[0]]), epochs)
    return Judgement(tuple(_since(verdicts, gains)), depth, without, margin, gains, losses)


def _depth(flow: Flow) -> int:
    """How many levels lie below the top of the decoder, which in some networks is not at full resolution."""
    level_of = {layer.label: layer.level for layer in flow.layers}
    above = min((level_of.get(skip.merge, 0) - (skip.part.level - 1) for skip in flow.skips), default=0)
    return max(level_of.values()) - max(0, above)


def _judged_epochs(flow: Flow) -> list[int]:
    """The measured epochs of training. Raises: InvalidArgument for what cannot be judged."""
    if not flow.skips:
        raise InvalidArgument("nothing to judge: the network has no skips")
    epochs = [epoch for epoch in flow.epochs if epoch > 0]
    if len(epochs) < FEWEST_EPOCHS:
        raise InvalidArgument(
            f"judging needs {FEWEST_EPOCHS} measured epochs of training or more, got {len(epochs)}"
            f"{f' ({epochs[0]})' if epochs else ''}: mark more (--marked, or in Python marked and epochs)"
        )
    return epochs


def _conditional(
    part: Part, epoch: int, gains: Mapping[Part, Gain], margin: float, removed: Collection[Part] = ()
) -> tuple[Verdict, Gain | None]:
    """The verdict on a part, which adds no more than the least of some gains; and the gain that it rests on.

    gains: of the epoch. removed: skips that are not there to make what the deeper path adds small.
    """
    bounds = bounds_of(part, gains, removed)
    deeper = bounds[part.is_skip :]
    verdict = Verdict(part, epoch, "conditional", "undecided")
    if not bounds:
        return replace(verdict, text=f"nothing was measured at the skips above {part}"), None
    measured = [gain for gain in bounds if gain.is_known]
    # its own first: what is said is of the part that is judged
    unknown = min((gain for gain in bounds if not gain.is_known), key=lambda gain: gain.part != part, default=None)
    if measured and (least := min(measured, key=lambda gain: gain.share)).share < margin:
        return _resting_on(least, verdict, "redundant", f"under {margin:.0%}"), least
    if unknown is not None:
        return replace(verdict, text=f"what {unknown.text} is not known: {unknown.reason}"), None
    least = min(measured, key=lambda gain: gain.least_share)
    if least.interval[0] <= margin * least.whole:
        return _resting_on(least, verdict, "undecided", f"and {margin:.0%} lies between"), least
    if part.is_skip and deeper:
        return _resting_on(
            least, verdict, "undecided", f"over {margin:.0%}, but {deeper[0].skip} may bring the same"
        ), least
    return _resting_on(least, verdict, "needed", f"over {margin:.0%}"), least


def _resting_on(gain: Gain, verdict: Verdict, decision: Decision, why: str) -> Verdict:
    """The verdict with the numbers of the gain that it rests on."""
    assert gain.row is not None
    low, high = gain.interval
    subject = "it" if gain.part == verdict.part else "the deeper path that it belongs to"
    return replace(
        verdict,
        decision=decision,
        bits=gain.row.bits,
        low=low,
        high=high,
        ceiling=gain.row.ceiling,
        measured=gain.text,
        text=f"{subject} adds {gain.row.bits:z.3f} ({low:z.3f} to {high:z.3f}) of {gain.whole:z.3f} bits a pixel "
        f"to {gain.receiver}, {why}",
    )


def _since(verdicts: Sequence[Verdict], gains: Gains) -> Iterator[Verdict]:
    """The verdicts with the epoch from which each holds: the first of those, without a gap, that agree with it.

    Epochs at which no merge was probed, as they are not at all marked ones, are no gap in what rests on that.
    """
    probed = probed_epochs(gains)
    running: dict[tuple[Part, Rule], tuple[Decision, int]] = {}
    for verdict in sorted(verdicts, key=lambda verdict: verdict.epoch):
        if verdict.rule == "conditional" and verdict.epoch not in probed:
            yield replace(verdict, since=verdict.epoch)
            continue
        decision, since = running.get((verdict.part, verdict.rule), (None, verdict.epoch))
        if decision != verdict.decision:
            since = verdict.epoch
        running[verdict.part, verdict.rule] = verdict.decision, since
        yield replace(verdict, since=since)
