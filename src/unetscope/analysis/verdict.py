"""Which skips and levels a task and a training budget need, judged from the table of estimates.

Two rules stand side by side. The paper's: a skip is redundant once the merge below it tells all there is to tell of the
label. The conditional rule: a skip is redundant if it adds next to nothing to all that a deeper path could know, a level if
it adds next to nothing to the skip above it. Numbers that are saturated, out of their domain or too near the margin decide
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from itertools import pairwise
from typing import Literal

from unetscope.base.errors import InvalidArgument
from unetscope.table.flow import Flow
from unetscope.table.quantities import Quantity
from unetscope.table.records import Decision, Estimate, Rule, Skip, Verdict, estimator_text
from unetscope.table.variants import Variant, design_name, part_names

MARGIN = 0.05  # of what the network tells: what may be lost and count as next to nothing
FEWEST_EPOCHS = 2
LEARNT_SHARE = 0.1  # of the ceiling: an output that tells less has learnt next to nothing
ESTIMATOR = "usable_convolutional"
# Read on white and on black paper alike.
_COLOURS: Mapping[Decision, str] = {"needed": "#d9622b", "redundant": "#3a87c8", "undecided": "#7d8590"}
_SIGNS: Mapping[Decision, str] = {"needed": "●", "redundant": "○", "undecided": "?"}
OF_SKIP: Quantity = Quantity.USABLE_SKIP_GIVEN_POOLED
OF_DEPTH: Quantity = Quantity.USABLE_UPSAMPLED_GIVEN_SKIP


@dataclass(frozen=True, slots=True)
class Gain:
    """What a stream adds at the merge of one skip: its estimate, or None if there is none.

    stream: the skip itself, or the deeper path that it meets. told: bits that the network's output tells, NaN if not known.
    unlearnt: why no number of this epoch may be believed, if so.
    """

    stream: Literal["skip", "depth"]
    skip: str
    row: Estimate | None
    told: float = math.nan
    unlearnt: str = ""

    @property
    def interval(self) -> tuple[float, float]:
        """What it is judged by: its interval, or where so few images leave none, its bracket; NaN without either."""
        if self.unlearnt or self.row is None:
            return math.nan, math.nan
        has_one = math.isfinite(self.row.low)
        return (self.row.low, self.row.high) if has_one else (self.row.lower, self.row.upper)

    @property
    def known(self) -> bool:
        """Whether there is something to judge by."""
        return (
            all(map(math.isfinite, self.interval))
            and self.row is not None
            and self.whole > 0
            and not self.row.saturated
        )

    @property
    def whole(self) -> float:
        """Bits that a loss is a share of: what the network tells, or where that is not known all there is to tell."""
        ceiling = math.nan if self.row is None else self.row.ceiling
        return ceiling if math.isnan(self.told) else min(self.told, ceiling)

    @property
    def share(self) -> float:
        """The most that it may add, as a share."""
        return self.interval[1] / self.whole

    @property
    def text(self) -> str:
        """What adds to what, for people."""
        deeper = "the deeper path"
        return f"{self.skip} adds to {deeper}" if self.stream == "skip" else f"{deeper} adds to {self.skip}"

    @property
    def reason(self) -> str:
        """Why it is not known."""
        if self.unlearnt:
            return self.unlearnt
        if self.row is None:
            return (
                "it was not measured: `unetscope measure RUN --merge-probes` does, or in Python a Scope with held_out"
            )
        return self.row.reason


@dataclass(frozen=True)
class Judgement:
    """Verdicts on every skip and level at every marked epoch, by both rules; iterating goes through those of the last epoch.

    depth, without: of the network that was judged. margin: the share of what it tells that counts as next to nothing.
    """

    verdicts: tuple[Verdict, ...]
    depth: int
    without: tuple[str, ...]
    margin: float
    gains: Mapping[tuple[int, str, str], Gain] = field(repr=False)

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.at(self.epochs[-1]))

    def __len__(self) -> int:
        return len(self.at(self.epochs[-1]))

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdicts at the last epoch."""
        rows = "".join(
            f'<tr><th>{escape(one.part)}</th><td>{one.rule}</td><td style="color:{_COLOURS[one.decision]}">'
            f"{_SIGNS[one.decision]} <b>{one.decision}</b></td><td>{one.since}</td>"
            f'<td style="text-align:left">{escape(one.text)}</td></tr>'
            for one in self
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
        return tuple(sorted({epoch for epoch, _, _ in self.gains}))

    def at(self, epoch: int) -> tuple[Verdict, ...]:
        """The verdicts on a training of so many epochs. Raises: InvalidArgument if that epoch was not measured."""
        found = tuple(verdict for verdict in self.verdicts if verdict.epoch == epoch)
        if not found:
            raise InvalidArgument(f"epoch {epoch} was not judged: measured are {', '.join(map(str, self.epochs))}")
        return found

    def decision(self, part: str, *, rule: Rule = "conditional", epoch: int | None = None) -> Decision:
        """What a rule says of one skip or level at an epoch, by default the last."""
        found = {v.part: v.decision for v in self.at(self.epochs[-1] if epoch is None else epoch) if v.rule == rule}
        if part not in found:
            raise InvalidArgument(
                f"the {rule} rule says nothing of {part}: expected any of {', '.join(found) or 'none'}"
            )
        return found[part]

    def of_variant(self, variant: Variant, *, rule: Rule = "conditional", epoch: int | None = None) -> Decision:
        """What a rule says of all that a variant leaves out, together: redundant if all of it is, needed if any of it is.

        By the conditional rule a part that is redundant beside a skip may be needed without that skip, and parts that are each
        next to nothing are redundant only if what they may add comes to next to nothing too.
        """
        epoch = self.epochs[-1] if epoch is None else epoch
        taken = part_names(variant, self.depth, self.without)
        if rule == "plateau":
            known = {v.part: v.decision for v in self.at(epoch) if v.rule == rule}
            decisions = {known.get(part, "undecided") for part in taken}
        else:
            skips = [part for part in taken if part.startswith("skip")]
            levels = [part for part in taken if not part.startswith("skip")]
            found = [_least(part, epoch, self.gains, self.margin, skips) for part in skips + levels]
            decisions = {verdict.decision for verdict, _ in found}
            # the shallowest level comes first, and all below go with it
            bounds = {gain for _, gain in found[: len(skips) + 1] if gain is not None}
            if decisions == {"redundant"} and sum(gain.share for gain in bounds) >= self.margin:
                return "undecided"
        return "needed" if "needed" in decisions else "redundant" if decisions <= {"redundant"} else "undecided"

    def design(self, epoch: int | None = None) -> Variant | None:
        """The smallest network all of whose missing parts the conditional rule finds redundant together; None if it is as it
        was.

        First the deepest levels go, one after the other, then skips, the top one first.
        """
        design = Variant("", self.depth, self.without)
        while design.depth > 1 and self._may(smaller := self._variant(design.depth - 1, design.without), epoch):
            design = smaller
        for k in range(1, design.depth + 1):
            smaller = self._variant(design.depth, {*design.without, f"skip{k}"})
            if f"skip{k}" not in design.without and self._may(smaller, epoch):
                design = smaller
        return design if design.name else None

    def _variant(self, depth: int, without: Collection[str]) -> Variant:
        left = tuple(sorted(skip for skip in without if int(skip.removeprefix("skip")) <= depth))
        return Variant(design_name(depth, set(left) - set(self.without), of_depth=self.depth), depth, left)

    def _may(self, variant: Variant, epoch: int | None) -> bool:
        return self.of_variant(variant, epoch=epoch) == "redundant"


def judge(
    flow: Flow,
    *,
    margin: float = MARGIN,
    estimator: str = ESTIMATOR,
    plateau_estimator: str | None = None,
    resolution: float | None = None,
    labels: str | None = None,
) -> Judgement:
    """Every skip and every level at every marked epoch: needed, redundant or undecided, by both rules.

    Conditional rule. A trained network uses a skip because it is there; what it would do without is not in its activations.
    But a deeper path is given nothing of the skip S except S pooled. So S is worth no more than what it tells beside the
    upsampled path U and beside itself pooled, I_V(S→Y|U,↓S); nor than what the deeper path that it is part of adds to each
    skip above it, I_V(U→Y|S). Level k, with all below it, is worth no more than I_V(U→Y|S) at skip k and above. If the 95 %
    interval of the least of these lies below `margin` times what the network's output tells, the part is redundant; if it
    lies above, needed; else, or if one of them is not known, undecided. Bits and Dice part ways where masks are nearly as
    likely as not: a detail that is worth few bits can decide which side of one half a pixel falls on.

    Plateau rule (the paper's). A skip is redundant once I(Y;M) of the merge below has reached H(Y), needed as long as it has
    not. An estimate that is at its ceiling because the layer tells all images apart would be there whatever the layer, so it
    decides nothing. The rule says nothing of the deepest skip, nor of levels.

    estimator: of usable information. plateau_estimator, resolution, labels: of I(Y;M), by default the first measured.

    Source: Xu et al., ICLR 2020 (arXiv 2002.10689); Lee & Bajić, ISBI 2021, section 4.
    Raises: InvalidArgument for a margin that is no share, a flow without skips, or with fewer than two measured epochs of
    training.

    >>> from unetscope.table.records import Layer
    >>> layers = (Layer("2", "a", 0, "encoder"), Layer("4", "b", 1, "bottom"), Layer("5", "cat", 0, "merge", ("5up", "2")))
    >>> added = {"I_V(S→Y|U,↓S)": 0.3, "I_V(U→Y|S)": 0.001}
    >>> rows = [Estimate(epoch, "5", quantity, "usable_convolutional", 0, "pixels", bits, bits, bits, 0.6, False, 9, 9,
    ...         low=bits - 0.001, high=bits + 0.001) for epoch in (1, 10) for quantity, bits in added.items()]
    >>> for verdict in judge(Flow(layers, (Skip("skip1", "2", "5up", "5"),), tuple(rows))): print(verdict)
    skip1 is needed from epoch 1 on: it adds 0.300 (0.299 to 0.301) of 0.600 bits a pixel to the deeper path, over 5%
    level1 is redundant from epoch 1 on: it adds 0.001 (0.000 to 0.002) of 0.600 bits a pixel to skip1, under 5%
    """
    if not 0 < margin < 1:
        raise InvalidArgument(f"margin must be between 0 and 1, got {margin}")
    if not flow.skips:
        raise InvalidArgument("nothing to judge: the network has no skips")
    epochs = [epoch for epoch in flow.epochs if epoch > 0]
    if len(epochs) < FEWEST_EPOCHS:
        raise InvalidArgument(
            f"judging needs {FEWEST_EPOCHS} measured epochs of training or more, got {len(epochs)}"
            f"{f' ({epochs[0]})' if epochs else ''}: mark more (--marked, or in Python marked and epochs)"
        )
    skips = sorted(flow.skips, key=lambda skip: _number(skip.name))
    gains = _gains(flow, skips, epochs, estimator)
    parts = [part for skip in skips for part in (skip.name, f"level{_number(skip.name)}")]
    verdicts = [_least(part, epoch, gains, margin, ())[0] for epoch in epochs for part in parts]
    verdicts += _plateau(flow, skips, epochs, plateau_estimator, resolution, labels)
    depth = max(layer.level for layer in flow.layers)
    there = {skip.name for skip in skips}
    without = tuple(f"skip{k}" for k in range(1, depth + 1) if f"skip{k}" not in there)
    return Judgement(tuple(_since(verdicts)), depth, without, margin, gains)


def _number(part: str) -> int:
    return int(part.removeprefix("skip").removeprefix("level"))


def _gains(
    flow: Flow, skips: Sequence[Skip], epochs: Sequence[int], estimator: str
) -> dict[tuple[int, str, str], Gain]:
    """By epoch, stream and skip, what the stream adds at the skip's merge."""
    rows = {(e.epoch, e.layer, e.quantity): e for e in flow.select(estimator=estimator).estimates}
    found = {}
    for epoch in epochs:
        told, why = _told(flow, epoch)
        for skip in skips:
            found[epoch, "skip", skip.name] = Gain("skip", skip.name, rows.get((epoch, skip.merge, OF_SKIP)), told, why)
            found[epoch, "depth", skip.name] = Gain(
                "depth", skip.name, rows.get((epoch, skip.merge, OF_DEPTH)), told, why
            )
    return found


def _told(flow: Flow, epoch: int) -> tuple[float, str]:
    """Bits that the output tells, NaN if not known, and why nothing follows from a network that tells next to nothing yet."""
    outputs = [layer.label for layer in flow.layers if layer.role == "output"]
    told = math.nan
    for row in flow.select(epoch=epoch, quantity=Quantity.USABLE).estimates:
        if row.layer not in outputs:
            continue
        if not row.bits >= LEARNT_SHARE * row.ceiling:
            so_far = f"the network tells {row.bits:.3f} of {row.ceiling:.3f} bits a pixel so far, next to nothing"
            return math.nan, f"what the network tells is not known: {row.reason}" if math.isnan(row.bits) else so_far
        told = row.bits if math.isnan(told) else max(told, row.bits)
    return told, ""


def _least(
    part: str, epoch: int, gains: Mapping[tuple[int, str, str], Gain], margin: float, left_out: Collection[str]
) -> tuple[Verdict, Gain | None]:
    """The verdict on a part, which adds no more than the least of some gains; and the gain that it rests on.

    left_out: skips that are not there to make what the deeper path adds small.
    """
    k, is_skip = _number(part), part.startswith("skip")
    bounds = [gains[epoch, "skip", part]] if is_skip else []
    bounds += [
        gain
        for (at, stream, skip), gain in gains.items()
        if at == epoch and stream == "depth" and _number(skip) < k + (not is_skip) and skip not in left_out
    ]
    verdict = Verdict(part, epoch, "conditional", "undecided", estimator=ESTIMATOR)
    if not bounds:
        return replace(verdict, text=f"nothing was measured at the skips above {part}"), None
    known = [gain for gain in bounds if gain.known]
    unknown = [gain for gain in bounds if not gain.known]
    if known and (least := min(known, key=lambda gain: gain.share)).share < margin:
        return _resting(verdict, least, "redundant", f"under {margin:.0%}"), least
    if unknown:
        return replace(verdict, text=f"what {unknown[0].text} is not known: {unknown[0].reason}"), None
    least = min(known, key=lambda gain: gain.interval[0] / gain.whole)
    if least.interval[0] <= margin * least.whole:
        return _resting(verdict, least, "undecided", f"and {margin:.0%} lies between"), least
    if is_skip and (above := [gain.skip for gain in bounds if gain.stream == "depth"]):
        return _resting(verdict, least, "undecided", f"over {margin:.0%}, but {above[0]} may bring the same"), least
    return _resting(verdict, least, "needed", f"over {margin:.0%}"), least


def _resting(verdict: Verdict, gain: Gain, decision: Decision, why: str) -> Verdict:
    """The verdict with the numbers of the gain that it rests on."""
    assert gain.row is not None
    low, high = gain.interval
    return replace(
        verdict,
        decision=decision,
        bits=gain.row.bits,
        low=low,
        high=high,
        ceiling=gain.row.ceiling,
        estimator=gain.row.estimator,
        text=f"{_said(verdict.part, gain)} {gain.row.bits:.3f} ({low:.3f} to {high:.3f}) of {gain.whole:.3f} bits a pixel "
        f"{_to(gain)}, {why}",
    )


def _said(part: str, gain: Gain) -> str:
    """Who adds: the part itself, or the path that it is a part of."""
    itself = gain.skip == part if gain.stream == "skip" else f"level{_number(gain.skip)}" == part
    return "it adds" if itself else "the deeper path that it belongs to adds"


def _to(gain: Gain) -> str:
    return "to the deeper path" if gain.stream == "skip" else f"to {gain.skip}"


def _plateau(
    flow: Flow,
    skips: Sequence[Skip],
    epochs: Sequence[int],
    estimator: str | None,
    resolution: float | None,
    labels: str | None,
) -> list[Verdict]:
    """The paper's rule, where there is I(Y;M)."""
    told = flow.select(quantity=Quantity.LABEL)
    if not told.estimates:
        return []
    told = told.narrowed(estimator=estimator, resolution=resolution, labels=labels)
    first = told.estimates[0]
    unlearnt = {epoch: why for epoch in epochs if (why := _told(flow, epoch)[1])}
    about = {(row.epoch, row.layer): row for row in told.estimates}
    of_input = flow.select(quantity=Quantity.INPUT, estimator=first.estimator, resolution=first.resolution).estimates
    inputs = {(row.epoch, row.layer): row for row in of_input}
    return [
        _by_the_merge_below(
            skip.name, about[epoch, below.merge], inputs.get((epoch, below.merge)), unlearnt.get(epoch, "")
        )
        for epoch in epochs
        for skip, below in pairwise(skips)
        if (epoch, below.merge) in about
    ]


def _by_the_merge_below(part: str, row: Estimate, of_input: Estimate | None, unlearnt: str) -> Verdict:
    verdict = Verdict(
        part, row.epoch, "plateau", "undecided", row.bits, row.low, row.high, row.ceiling, estimator=row.estimator
    )
    how = f"{estimator_text(row.estimator, row.resolution)}, {row.labels}"
    if unlearnt or math.isnan(row.bits):
        unknown = f"I(Y;M) of layer {row.layer} below is not known ({how}): {row.reason}"
        return replace(verdict, text=unlearnt or unknown)
    told = f"layer {row.layer} below tells {row.bits:.2f} of {row.ceiling:.2f} bits of the label ({how})"
    if row.out_of_domain:
        return replace(verdict, text=f"{told}, {row.reason}")
    if row.saturated:
        others = of_input is not None and math.isfinite(of_input.bits) and not of_input.saturated
        decision: Decision = "redundant" if others else "undecided"
        why = "all there is to tell" if others else "as would any layer that tells all images apart"
    elif math.isnan(row.high):
        decision, why = "undecided", row.reason or "and it has no interval"
    elif row.high >= row.ceiling:
        decision, why = "undecided", f"perhaps all ({row.low:.2f} to {row.high:.2f})"
    else:
        decision, why = "needed", "not all there is to tell"
    return replace(verdict, decision=decision, text=f"{told}, {why}")


def _since(verdicts: Sequence[Verdict]) -> Iterator[Verdict]:
    """The verdicts with the epoch from which each holds: the first of those, without a gap, that agree with it."""
    running: dict[tuple[str, Rule], tuple[Decision, int]] = {}
    for verdict in sorted(verdicts, key=lambda verdict: verdict.epoch):
        decision, since = running.get((verdict.part, verdict.rule), (None, verdict.epoch))
        if decision != verdict.decision:
            since = verdict.epoch
        running[verdict.part, verdict.rule] = verdict.decision, since
        yield replace(verdict, since=since)
