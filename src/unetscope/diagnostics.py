"""Whether what a table says of layers outlasts a change of resolution, and agrees with how the network is wired.

Imports errors, records, flow and intervals, never torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unetscope.errors import InvalidArgument
from unetscope.flow import Flow
from unetscope.intervals import Interval, difference
from unetscope.records import ESTIMATORS, Estimate, Layer, Quantity, estimator_text

AGREES = (
    0.9  # Kendall's τ from which two rankings count as the same: without ties, one pair of layers in twenty is swapped
)
FLOOR = 0.01  # of the ceiling: nearer to zero than this counts as zero, as 99 % of the ceiling counts as saturated
FEWEST = 3  # layers told apart at both of two resolutions, below which there is no ranking to compare
ROUNDING_BITS = 2e-3  # by which rounding alone may set two estimates apart: each is held to 1e-3

_OPTIONS = {
    "noise variance": "--noise-variance",
    "noise variance over median squared distance": "--relative-noise-variance",
    "bin size": "--bin-size",
}
_WHY = {  # an estimate may rise, by the unit of its resolution
    "noise variance": (
        "since the noise is not scaled with the layer and a merge shows each of its parts through noise of its own"
    ),
    "noise variance over median squared distance": (
        "since the noise is scaled to each layer anew and a merge shows each of its parts through noise of its own"
    ),
    "bin size": "since the bin size is not scaled with the layer and a merge shows each of its parts in bins of its own",
}
_LOST = {
    "saturated": ("saturated", ": measure at larger ones"),
    "at_zero": (f"within {100 * FLOOR:g} % of the ceiling from zero", ": measure at smaller ones"),
    "unknown": ("without a number", ""),
}


@dataclass(frozen=True, slots=True)
class RankingAt:
    """How layers rank at one resolution, against the reference.

    apart: how many layers are told apart at all; the others are `saturated` (tied at the ceiling), `at_zero` (tied at zero:
    within 1 % of the ceiling) or `unknown` (no number). compared: how many are told apart both here and at the reference.
    agreement: Kendall's τ_b with the reference, over the layers with a number at both; it falls where layers change places and
    where they become tied. swapped: of the pairs of layers that are ordered at both, the share that change places. Both are NaN
    where fewer than three layers are compared, or all are tied.
    """

    resolution: float
    apart: int
    saturated: int
    at_zero: int
    unknown: int
    compared: int
    agreement: float
    swapped: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """How the ranking of layers changes with the resolution, by one estimator at one epoch.

    layers: how many there are. reference: the resolution that tells most of them apart, and of several such the middle one.
    at: the ranking at every resolution, ascending. holds: the widest run of neighbouring resolutions around the reference over
    which τ_b is 0.9 or more and at least half as many layers are compared as the reference tells apart; none where not even
    the reference has a ranking.
    """

    quantity: Quantity
    estimator: str
    labels: str
    epoch: int
    layers: int
    reference: float
    at: tuple[RankingAt, ...]
    holds: tuple[float, float] | None

    @property
    def text(self) -> str:
        """Over which resolutions the ranking holds, where and to what it is lost, for people."""
        lost = "; ".join([*_lost_at_end(self, "below"), *_lost_at_end(self, "above")])
        said = [_where_it_holds(self), lost[:1].upper() + lost[1:], *_swaps(self)]
        return " ".join(f"{sentence}." for sentence in said if sentence)


def ranking(
    flow: Flow,
    *,
    quantity: Quantity = "I(X;M)",
    estimator: str | None = None,
    labels: str | None = None,
    epoch: int | None = None,
) -> Ranking:
    """How the ranking of layers changes over all resolutions that were measured with one estimator.

    Saturated layers count as tied at the ceiling, layers within 1 % of the ceiling from zero as tied there. Of a layer that is
    the same tensor as another (where a skip was taken out) only one is ranked. An estimator or an epoch that is None stands for
    the first and the last, respectively, that was measured at several resolutions.

    Source: Kendall, Biometrika 33:239 (1945).
    Raises: InvalidArgument, with what was measured, if what is asked for was not, or at one resolution alone.

    >>> bits = {0.1: (3, 3, 3, 3), 1.0: (2.8, 2.1, 1.2, 1.9), 10.0: (1.9, 1.4, 0.3, 0.9), 100.0: (0.1, 0.4, 0.2, 0.9)}
    >>> rows = [Estimate(0, f"{place}", "I(X;M)", "kde_upper", resolution, "", value, 0, 3, 3.0, value == 3, n=8, d=4)
    ...         for resolution, values in bits.items() for place, value in enumerate(values)]
    >>> found = ranking(Flow(tuple(Layer(f"{place}", "conv") for place in range(4)), (), tuple(rows)))
    >>> found.holds, [round(at.agreement, 2) for at in found.at]
    ((1.0, 10.0), [nan, 1.0, 1.0, -0.33])
    """
    found = _swept(flow, quantity, estimator, labels, epoch)
    first = found.estimates[0]
    values = {(e.layer, e.resolution): _standing(e) for e in found.estimates}
    measured = {e.layer for e in found.estimates}
    ranked = [layer.label for layer in flow.layers if layer.label in measured - _twins(flow.layers, measured)]
    if not ranked:
        raise InvalidArgument("no layer to rank: the flow names none of those that were measured")
    resolutions = sorted({e.resolution for e in found.estimates})
    standings = np.array([[values.get((layer, size), math.nan) for layer in ranked] for size in resolutions])
    apart = _apart(standings).sum(axis=1)
    most = np.flatnonzero(apart == apart.max())
    reference = int(most[(len(most) - 1) // 2])
    at = tuple(_ranking_at(size, row, standings[reference]) for size, row in zip(resolutions, standings, strict=True))
    return Ranking(
        quantity,
        first.estimator,
        first.labels,
        first.epoch,
        len(ranked),
        resolutions[reference],
        at,
        _holds(at, reference),
    )


def _swept(flow: Flow, quantity: Quantity, estimator: str | None, labels: str | None, epoch: int | None) -> Flow:
    """The estimates of one quantity, estimator, label scheme and epoch at all of several resolutions."""
    found = _narrowed(flow, quantity=quantity, labels="" if quantity == "I(X;M)" else labels)
    found = _narrowed(found, estimator=estimator or next(iter(_at_several(found, "estimator")), None))
    several = _at_several(found, "epoch")
    found = _narrowed(found, epoch=max(several or found.epochs) if epoch is None else epoch)
    if len(found.series) > 1:
        return found
    name, resolution = found.series[0]
    if not ESTIMATORS.get(name, ("", "resolution"))[1]:
        raise InvalidArgument(f"{quantity} by {name} has no resolution, so its ranking of layers cannot change with it")
    raise InvalidArgument(
        f"{quantity} at epoch {found.epochs[0]} was measured by {estimator_text(name, resolution)} alone: name "
        f"{_several(name, resolution)}" + (f"; or ask for epoch {', '.join(map(str, several))}" if several else "")
    )


def _narrowed(flow: Flow, **wanted: Any) -> Flow:
    """The estimates with these values of their fields; None stands for the first measured."""
    for name, value in wanted.items():
        measured = list(dict.fromkeys(getattr(estimate, name) for estimate in flow.estimates))
        if not measured:
            raise InvalidArgument("the table has no estimates: measure a network first")
        if value is not None and value not in measured:
            raise InvalidArgument(f"{name} {value!r} not measured: measured are {', '.join(map(str, measured))}")
        flow = flow.select(**{name: measured[0] if value is None else value})
    return flow


def _at_several(found: Flow, name: str) -> list[Any]:
    """The values of a field that were measured at several resolutions, in the order in which they were measured."""
    values = dict.fromkeys(getattr(estimate, name) for estimate in found.estimates)
    return [value for value in values if len(found.select(**{name: value}).series) > 1]


def _several(estimator: str, resolution: float) -> str:
    """How to ask for several resolutions, this one among them."""
    option = "--mixture" if estimator == "mixture" else _OPTIONS.get(ESTIMATORS.get(estimator, ("", ""))[1])
    if option is None:
        return "several of them"
    return f"several, such as {' '.join(f'{option} {resolution * factor:g}' for factor in (0.1, 1, 10))}, or --sweep"


def _twins(layers: Sequence[Layer], measured: Iterable[str]) -> set[str]:
    """Layers that are the same tensor as another measured one, under a second label."""
    return {layer.label for layer in layers if len(layer.parts) == 1 and layer.parts[0] in measured}


def _standing(estimate: Estimate) -> float:
    """Where a layer stands among the others: its bits, infinity if saturated, 0 if all but zero, NaN without a number."""
    if math.isnan(estimate.bits):
        return math.nan
    if estimate.saturated:
        return math.inf
    return 0.0 if abs(estimate.bits) <= FLOOR * estimate.ceiling else estimate.bits


def _apart(standings: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.isfinite(standings) & (standings != 0)


def _ranking_at(resolution: float, here: NDArray[np.float64], reference: NDArray[np.float64]) -> RankingAt:
    compared = int((_apart(here) & _apart(reference)).sum())
    agreement, swapped = _agreement(here, reference) if compared >= FEWEST else (math.nan, math.nan)
    return RankingAt(
        resolution,
        apart=int(_apart(here).sum()),
        saturated=int(np.isposinf(here).sum()),
        at_zero=int((here == 0).sum()),
        unknown=int(np.isnan(here).sum()),
        compared=compared,
        agreement=agreement,
        swapped=swapped,
    )


def _agreement(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """Kendall's τ_b, and the share of pairs in the opposite order among those ordered in both; NaN where undefined.

    >>> _agreement(np.array([1.0, 2.0, 3.0, np.inf]), np.array([2.0, 1.0, np.inf, np.inf]))
    (0.5477225575051661, 0.2)
    """
    known = ~np.isnan(one) & ~np.isnan(other)
    a, b = ((x[:, None] > x).astype(int) - (x[:, None] < x) for x in (one[known], other[known]))
    pairs, ordered = math.sqrt(np.abs(a).sum() * np.abs(b).sum()), np.abs(a * b).sum()
    agreement = float((a * b).sum() / pairs) if pairs else math.nan
    return agreement, float((a * b < 0).sum() / ordered) if ordered else math.nan


def _holds(at: Sequence[RankingAt], reference: int) -> tuple[float, float] | None:
    def same(row: RankingAt) -> bool:
        return row.agreement >= AGREES - 1e-9 and 2 * row.compared >= at[reference].apart

    if not same(at[reference]):
        return None
    below, above = list(takewhile(same, at[reference::-1])), list(takewhile(same, at[reference:]))
    return below[-1].resolution, above[-1].resolution


def three_digits(size: float) -> str:
    """Three digits of a resolution.

    >>> three_digits(3162.2776), three_digits(0.1)
    ('3160', '0.1')
    """
    return f"{float(f'{size:.3g}'):g}"


def _where_it_holds(ranking: Ranking) -> str:
    title, unit = ESTIMATORS.get(ranking.estimator, (ranking.estimator, "resolution"))
    first, last = ranking.at[0].resolution, ranking.at[-1].resolution
    reference = three_digits(ranking.reference)
    most = max(row.apart for row in ranking.at)
    what = f"by {ranking.quantity} ({title}, epoch {ranking.epoch})"
    if ranking.holds is None:
        none = f"There is no ranking of {ranking.layers} layers {what}"
        if most >= FEWEST:
            return f"{none}: all are tied at {unit} {reference}"
        swept = f"{three_digits(first)} to {three_digits(last)}"
        return f"{none}: no {unit} from {swept} tells more than {most} of them apart"
    who = f"The ranking of {'' if most == ranking.layers else f'{most} of '}{ranking.layers} layers {what}"
    low, high = ranking.holds
    if low == high:
        return f"{who} holds at {unit} {reference} alone: {', '.join(_at_neighbours(ranking))}"
    fewest = min(row.compared for row in ranking.at if low <= row.resolution <= high)
    return (
        f"{who} holds from {unit} {three_digits(low)}{' (the smallest measured)' * (low == first)} to {three_digits(high)}"
        f"{' (the largest measured)' * (high == last)}: Kendall's τ is at least {AGREES:g} with that at {reference}"
        + (f", with {fewest} layers or more told apart at both" if fewest < most else "")
    )


def _at_neighbours(ranking: Ranking) -> Iterator[str]:
    """Why the ranking does not hold at the resolutions next to the reference."""
    place = [row.resolution for row in ranking.at].index(ranking.reference)
    for row in (*ranking.at[max(0, place - 1) : place], *ranking.at[place + 1 : place + 2]):
        if row.agreement < AGREES:
            yield f"Kendall's τ with that at {three_digits(row.resolution)} is {row.agreement:.2f}, below {AGREES:g}"
        else:
            few = f"only {row.compared} of those layers are" if row.compared else "none of those layers is"
            yield f"{few} told apart at {three_digits(row.resolution)}"


def _lost_at_end(ranking: Ranking, side: Literal["below", "above"]) -> Iterator[str]:
    """Up to where, from one end of the sweep on, more than half of the layers are lost to one and the same thing."""
    rows = ranking.at if side == "below" else ranking.at[::-1]
    for kind, (what, mend) in _LOST.items():
        lost = list(takewhile(bool, (2 * getattr(row, kind) > ranking.layers for row in rows)))
        if len(lost) == len(rows):
            if side == "below":
                yield f"everywhere more than half of the layers are {what}{mend}"
        elif lost:
            where = f"{three_digits(rows[len(lost) - 1].resolution)}{f' and {side}' * (len(lost) > 1)}"
            yield f"at {where} more than half of the layers are {what}"


def _swaps(ranking: Ranking) -> Iterator[str]:
    """Whether layers change places anywhere in the sweep, or are merely tied."""
    judged = [row for row in ranking.at if row.resolution != ranking.reference and not math.isnan(row.swapped)]
    worst = max(judged, key=lambda row: row.swapped, default=None)
    if worst is not None and worst.swapped > 0:
        yield (
            f"Of the pairs of layers that are ordered at {three_digits(ranking.reference)} and elsewhere, at most "
            f"{round(100 * worst.swapped, 1):g} % change places, at {three_digits(worst.resolution)}"
        )
    elif worst is not None and any(row.agreement < AGREES for row in judged):
        yield "No two layers change places anywhere: where the ranking does not hold, layers are tied"


def descents(flow: Flow) -> tuple[tuple[str, str], ...]:
    """Pairs (parent, child) of layers of which the child is a function of the parent alone, in the order of the network.

    The true information of the child, about whatever, is then no more than the parent's: the data processing inequality. A
    layer follows from the one before it. A merge follows from the nearest layer that all its parts follow from, which in a
    U-Net is the source of its skip, for the upsampled path comes from there too. Each part of a merge follows from the merge.
    All other such pairs are chains of these.

    Roles and levels tell what stands between two layers, so there is no pair across a merge that the flow does not name, and
    none of layers whose role is unknown (`"layer"`), but for the parts of a merge.

    >>> layers = (Layer("2", "a", 0, "encoder"), Layer("3", "b", 1, "bottom"), Layer("4up", "up", 0, "upsampled"),
    ...           Layer("4", "cat", 0, "merge", ("4up", "2")), Layer("5", "c", 0, "decoder"))
    >>> descents(Flow(layers))
    (('2', '3'), ('3', '4up'), ('2', '4'), ('4', '4up'), ('4', '2'), ('4', '5'))
    """
    parents: dict[str, str | None] = {}
    pairs: list[tuple[str, str]] = []
    before: Layer | None = None
    for layer in flow.layers:
        sources = layer.parts or ((before.label,) if before is not None and _follows(before, layer) else ())
        parent = _nearest_common(sources, parents)
        pairs += [(parent, layer.label)] if parent is not None else []
        pairs += [(layer.label, part) for part in layer.parts if part in parents]
        parents[layer.label] = parent
        before = layer
    return tuple(pairs)


def _follows(before: Layer, layer: Layer) -> bool:
    """Whether a layer that joins nothing is a function of the one before it in the table, whatever the table leaves out."""
    joined = before.role in {"merge", "decoder"} or bool(before.parts)
    match layer.role:
        case "encoder" | "bottom":
            return before.role in {"encoder", "bottom"} and before.level <= layer.level
        case "upsampled":  # all that is deeper than an encoder layer comes from there
            below = before.level == layer.level + 1 and (joined or before.role == "bottom")
            return below or (before.role == "encoder" and before.level <= layer.level)
        case "decoder" | "output":
            return before.level == layer.level and joined
    return False


def _nearest_common(labels: Sequence[str], parents: dict[str, str | None]) -> str | None:
    """The nearest layer that all of these are or follow from; None if there is none among the known."""
    chains = []
    for label in labels:
        chain: list[str] = []
        above: str | None = label if label in parents else None
        while above is not None:
            chain.append(above)
            above = parents[above]
        chains.append(chain)
    return next((label for label in chains[0] if all(label in chain for chain in chains)), None) if chains else None


@dataclass(frozen=True, slots=True)
class Violation:
    """An estimate that rises from a layer to one that follows from it.

    rise: in bits, with its 95 % interval paired over the images; NaN ends where one has no values by image. beyond: more than
    rounding makes (0.002 bits), and with an interval that leaves out zero where there is one.
    """

    parent: str
    child: str
    rise: Interval
    beyond: bool


@dataclass(frozen=True, slots=True)
class DescentCheck:
    """Where estimates rise though true information cannot, by one estimator at one resolution and epoch.

    violations: the pairs that rise at all, in network order. checked: pairs whose two layers both have a number below the
    ceiling. left_out: pairs without that. into_ceiling: those of them whose parent is below the ceiling and whose child is
    saturated, so they rise by an amount unknown.
    """

    quantity: Quantity
    estimator: str
    resolution: float
    labels: str
    epoch: int
    violations: tuple[Violation, ...]
    checked: int
    left_out: int
    into_ceiling: int

    @property
    def beyond(self) -> tuple[Violation, ...]:
        """The violations that neither rounding nor, where there is an interval, the choice of images explains."""
        return tuple(violation for violation in self.violations if violation.beyond)

    @property
    def text(self) -> str:
        """How many pairs rise, by how much at most, and what that means, for people."""
        what = f"{self.quantity} ({estimator_text(self.estimator, self.resolution)}, epoch {self.epoch})"
        why = "saturated or without a number"
        if not self.checked:
            none = f"{self.left_out} pairs are {why}" if self.left_out else "the table names no such pair of layers"
            return f"Whether {what} rises from a layer to one computed from it alone cannot be checked: {none}."
        into = f", {self.into_ceiling} rising to the ceiling" if self.into_ceiling else ""
        out = f"; {self.left_out} more are {why}{into}" if self.left_out else ""
        if not self.beyond:
            return f"In none of {self.checked} pairs does {what} rise from a layer to one computed from it alone{out}."
        worst = max(self.beyond, key=lambda violation: violation.rise.value)
        interval = (
            "" if math.isnan(worst.rise.low) else f" (95 % interval {worst.rise.low:.2f} to {worst.rise.high:.2f})"
        )
        return (
            f"In {len(self.beyond)} of {self.checked} pairs {what} rises from a layer to one computed from it alone, most "
            f"from {worst.parent} to {worst.child}, by {worst.rise.value:.2g} bits{interval}{out}. "
            f"{_meaning(self.estimator)}"
        )


def _meaning(estimator: str) -> str:
    why = _WHY.get(ESTIMATORS.get(estimator, ("", ""))[1])
    return (
        "No layer knows more than what it is computed from. The estimate is of how images cluster at this resolution: a rise "
        f"says that they lie further apart, {f'{why}, ' if why else ''}not that information was gained (Geiger, arXiv "
        "2003.09671)."
    )


def dpi_violations(
    flow: Flow,
    *,
    quantity: Quantity = "I(X;M)",
    estimator: str | None = None,
    resolution: float | None = None,
    labels: str | None = None,
    epoch: int | None = None,
) -> DescentCheck:
    """By how many bits an estimate rises from a layer to one that is a function of it, for all pairs of `descents`.

    Two labels of one tensor (where a skip was taken out) are no pair. By its arithmetic I(X;M) by distances or symbols never
    falls from a part to its merge, so it may only rise from the source of a skip to there. An estimator, resolution or label
    scheme that is None stands for the first one measured, an epoch for the last. Of forty pairs that do not differ, one has by
    chance an interval that lies above zero.

    Source: Geiger, arXiv 2003.09671; Cover & Thomas, Elements of Information Theory, section 2.8.
    Raises: InvalidArgument, with what was measured, if what is asked for was not, or may rise.

    >>> layers = (Layer("1", "a", 0, "encoder"), Layer("2", "b", 0, "encoder"), Layer("3", "c", 1, "bottom"))
    >>> rows = [Estimate(0, layer.label, "I(X;M)", "kde_upper", 1.0, "", bits, 0, 3, 3.0, False, n=8, d=4)
    ...         for layer, bits in zip(layers, (1.5, 2.25, 1.0))]
    >>> check = dpi_violations(Flow(layers, (), tuple(rows)))
    >>> [(found.parent, found.child, found.rise.value) for found in check.beyond], check.checked
    ([('1', '2', 0.75)], 2)
    """
    if quantity.startswith("I_V"):
        raise InvalidArgument(
            f"{quantity} is usable information, which may rise from layer to layer, for a network makes it easier to read: ask "
            "for I(X;M) or I(Y;M)"
        )
    if quantity not in {"I(X;M)", "I(Y;M)"}:
        raise InvalidArgument(f"quantity must be I(X;M) or I(Y;M), got {quantity!r}")
    found = _narrowed(flow, quantity=quantity, labels="" if quantity == "I(X;M)" else labels)
    found = _narrowed(found, estimator=estimator, resolution=resolution)
    found = _narrowed(found, epoch=found.epochs[-1] if epoch is None else epoch)
    known = {e.layer: e for e in found.estimates}
    same = {frozenset((layer.label, *layer.parts)) for layer in flow.layers if len(layer.parts) == 1}
    pairs = [pair for pair in descents(flow) if frozenset(pair) not in same]
    violations, checked, into_ceiling = [], 0, 0
    for parent, child in pairs:
        above, below = known.get(parent), known.get(child)
        if above is None or below is None or above.saturated or math.isnan(above.bits) or math.isnan(below.bits):
            continue
        rise = _rise(above, below)
        if below.saturated:
            into_ceiling += rise.value > ROUNDING_BITS
            continue
        checked += 1
        if rise.value > 0:
            violations.append(Violation(parent, child, rise, rise.value > ROUNDING_BITS and not rise.low <= 0))
    first = found.estimates[0]
    return DescentCheck(
        quantity,
        first.estimator,
        first.resolution,
        first.labels,
        first.epoch,
        tuple(violations),
        checked,
        len(pairs) - checked,
        into_ceiling,
    )


def _rise(parent: Estimate, child: Estimate) -> Interval:
    if parent.per_image and child.per_image:
        return difference(child, parent)
    return Interval(child.bits - parent.bits, math.nan, math.nan)
