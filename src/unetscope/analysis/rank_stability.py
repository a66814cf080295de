"""Whether the ranking of layers stays the same when the resolution changes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, takewhile
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unetscope.base import InvalidArgument
from unetscope.table import (
    Estimate,
    Flow,
    Quantity,
    Status,
    difference,
    entry_of,
    estimator_text,
    estimator_title,
    resolution_unit,
)

AGREES = (
    0.9  # Kendall's τ from which two rankings count as the same: without ties, one pair of layers in twenty is swapped
)
FLOOR = 0.01  # of the ceiling: nearer to zero than this counts as zero, as 99 % of the ceiling counts as saturated
FEWEST = 3  # layers with different numbers at both of two resolutions, below which there is no ranking to compare

_LOST = {
    "saturated": ("saturated", ": measure at larger ones"),
    "at_zero": (f"within {100 * FLOOR:g} % of the ceiling from zero", ": measure at smaller ones"),
    "unknown": ("without a number", ""),
}


@dataclass(frozen=True, slots=True)
class RankingAtResolution:
    """How layers rank at one resolution, against the reference.

    apart: how many layers can be ranked; the others are `saturated` (tied at the ceiling), `at_zero` (tied at zero: within
    1 % of the ceiling) or `unknown` (no number). compared: how many can be ranked both here and at the reference. agreement:
    Kendall's τ_b with the reference, over the layers with a number at both; it falls where layers change places and where
    they become tied. swapped: of the pairs of layers that are ordered at both, the share that change places. Both are NaN
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
class RankStability:
    """How the ranking of layers changes with the resolution, by one estimator at one epoch.

    layers: how many there are. reference: the resolution at which most of them can be ranked, of several such the middle one.
    judged: the pairs of layers that both have an interval there. sure: those of them whose difference is more than chance.
    at: the ranking at every resolution, ascending. holds: the widest run of neighbouring resolutions around the reference over
    which τ_b is 0.9 or more and at least half as many layers are compared as the reference ranks; None where not even the
    reference has a ranking.
    """

    quantity: Quantity
    estimator: str
    labels: str
    epoch: int
    layers: int
    reference: float
    judged: int
    sure: int
    at: tuple[RankingAtResolution, ...]
    holds: tuple[float, float] | None

    @property
    def text(self) -> str:
        """Over which resolutions the ranking holds, where and to what it is lost, for people."""
        lost = "; ".join([*_lost_at_end(self, "below"), *_lost_at_end(self, "above")])
        sentences = [_where_it_holds(self), lost[:1].upper() + lost[1:], *_swaps(self), _sure(self)]
        return " ".join(f"{sentence}." for sentence in sentences if sentence)


def layer_rank_stability(
    flow: Flow,
    *,
    quantity: str = Quantity.INPUT,
    estimator: str | None = None,
    labels: str | None = None,
    epoch: int | None = None,
) -> RankStability:
    """How the ranking of layers changes over all resolutions that were measured with one estimator.

    Saturated layers count as tied at the ceiling, layers within 1 % of the ceiling from zero as tied there. Of a layer that is
    the same tensor as another (where a skip was taken out) only one is ranked. An estimator or an epoch that is None stands for
    the first and the last, respectively, that was measured at several resolutions.

    Source: Kendall, Biometrika 33:239 (1945).
    Raises: InvalidArgument, with what was measured, if what is asked for was not, or at one resolution alone.

    >>> from unetscope.table.records import Layer
    >>> bits = {0.1: (3, 3, 3, 3), 1.0: (2.8, 2.1, 1.2, 1.9), 10.0: (1.9, 1.4, 0.3, 0.9), 100.0: (0.1, 0.4, 0.2, 0.9)}
    >>> rows = [Estimate(0, f"{place}", "I(X;M)", "kde_upper", resolution, "", value, 0, 3, 3.0, value == 3, n=8, d=4)
    ...         for resolution, values in bits.items() for place, value in enumerate(values)]
    >>> stability = layer_rank_stability(Flow(tuple(Layer(f"{place}", "conv") for place in range(4)), (), tuple(rows)))
    >>> stability.holds, [round(at.agreement, 2) for at in stability.at]
    ((1.0, 10.0), [nan, 1.0, 1.0, -0.33])
    """
    swept = _swept(flow, Quantity(quantity), estimator, labels, epoch)
    first = swept.estimates[0]
    ranked = _ranked_layers(swept)
    resolutions = sorted({estimate.resolution for estimate in swept.estimates})
    values = {(estimate.resolution, estimate.layer): _standing(estimate) for estimate in swept.estimates}
    # [resolutions, layers]
    standings = np.array([[values.get((size, layer), math.nan) for layer in ranked] for size in resolutions])
    apart = _apart(standings).sum(axis=1)
    most = np.flatnonzero(apart == apart.max())
    reference = int(most[(len(most) - 1) // 2])
    at = tuple(_ranking_at(size, row, standings[reference]) for size, row in zip(resolutions, standings, strict=True))
    of_reference = swept.select(resolution=resolutions[reference]).estimates
    by_image = [estimate for estimate in of_reference if estimate.layer in ranked and estimate.per_image]
    differences = [difference(*pair) for pair in combinations(by_image, 2)]
    return RankStability(
        first.quantity, first.estimator, first.labels, first.epoch, len(ranked), resolutions[reference], len(differences),
        sum(not interval.low <= 0 <= interval.high for interval in differences), at, _holds(at, reference),
    )  # fmt: skip


def _swept(flow: Flow, quantity: Quantity, estimator: str | None, labels: str | None, epoch: int | None) -> Flow:
    """The estimates of one quantity, estimator, label scheme and epoch at all of several resolutions."""
    swept = flow.narrowed(quantity=quantity, labels="" if quantity == Quantity.INPUT else labels)
    swept = swept.narrowed(estimator=estimator or next(iter(_at_several(swept, "estimator")), None))
    several = _at_several(swept, "epoch")
    swept = swept.narrowed(epoch=max(several or swept.epochs) if epoch is None else epoch)
    if len(swept.series) > 1:
        return swept
    name, resolution = swept.series[0].key.estimator, swept.series[0].key.resolution
    if not resolution_unit(name):
        raise InvalidArgument(f"{quantity} by {name} has no resolution, so its ranking of layers cannot change with it")
    raise InvalidArgument(
        f"{quantity} at epoch {swept.epochs[0]} was measured by {estimator_text(name, resolution)} alone: name "
        f"{_several(name, resolution)}" + (f"; or ask for epoch {', '.join(map(str, several))}" if several else "")
    )


def _at_several(flow: Flow, name: str) -> list[Any]:
    """The values of a field that were measured at several resolutions, in the order in which they were measured."""
    values = dict.fromkeys(getattr(estimate, name) for estimate in flow.estimates)
    return [value for value in values if len(flow.select(**{name: value}).series) > 1]


def _several(estimator: str, resolution: float) -> str:
    """How to ask for several resolutions, this one among them."""
    flag = next((setting.flag for setting in entry_of(estimator).settings if setting.by_decades), "")
    if not flag:
        return "several of them"
    return f"several, such as {' '.join(f'{flag} {resolution * factor:g}' for factor in (0.1, 1, 10))}, or --sweep"


def _ranked_layers(flow: Flow) -> list[str]:
    """The measured layers in network order, without those that are the same tensor as another, under a second label."""
    measured = {estimate.layer for estimate in flow.estimates}
    twins = {layer.label for layer in flow.layers if len(layer.parts) == 1 and layer.parts[0] in measured}
    ranked = [layer.label for layer in flow.layers if layer.label in measured - twins]
    if not ranked:
        raise InvalidArgument("no layer to rank: the flow names none of those that were measured")
    return ranked


def _standing(estimate: Estimate) -> float:
    """Where a layer stands among the others: its bits, infinity if saturated, 0 if all but zero, NaN without a number."""
    if estimate.status is Status.ABSENT:
        return math.nan
    if estimate.status is Status.SATURATED:
        return math.inf
    return 0.0 if abs(estimate.bits) <= FLOOR * estimate.ceiling else estimate.bits


def _apart(standings: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.isfinite(standings) & (standings != 0)


def _ranking_at(resolution: float, here: NDArray[np.float64], reference: NDArray[np.float64]) -> RankingAtResolution:
    compared = int((_apart(here) & _apart(reference)).sum())
    agreement, swapped = _agreement(here, reference) if compared >= FEWEST else (math.nan, math.nan)
    return RankingAtResolution(
        resolution,
        apart=int(_apart(here).sum()),
        saturated=int(np.isposinf(here).sum()),
        at_zero=int((here == 0).sum()),
        unknown=int(np.isnan(here).sum()),
        compared=compared,
        agreement=agreement,
        swapped=swapped,
    )


def _agreement(here: NDArray[np.float64], reference: NDArray[np.float64]) -> tuple[float, float]:
    """Kendall's τ_b, and the share of pairs in the opposite order among those ordered in both; NaN where undefined.

    >>> _agreement(np.array([1.0, 2.0, 3.0, np.inf]), np.array([2.0, 1.0, np.inf, np.inf]))
    (0.5477225575051661, 0.2)
    """
    in_both = ~np.isnan(here) & ~np.isnan(reference)
    # The sign of every pair's difference, [layers, layers], here and at the reference.
    a, b = ((x[:, None] > x).astype(int) - (x[:, None] < x) for x in (here[in_both], reference[in_both]))
    pairs, ordered = math.sqrt(np.abs(a).sum() * np.abs(b).sum()), np.abs(a * b).sum()
    agreement = float((a * b).sum() / pairs) if pairs else math.nan
    return agreement, float((a * b < 0).sum() / ordered) if ordered else math.nan


def _holds(at: Sequence[RankingAtResolution], reference: int) -> tuple[float, float] | None:
    def same(row: RankingAtResolution) -> bool:
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


def _where_it_holds(stability: RankStability) -> str:
    title, unit = estimator_title(stability.estimator), resolution_unit(stability.estimator)
    first, last = stability.at[0].resolution, stability.at[-1].resolution
    reference = three_digits(stability.reference)
    most = max(row.apart for row in stability.at)
    what = f"by {stability.quantity} ({title}, epoch {stability.epoch})"
    if stability.holds is None:
        none = f"There is no ranking of {stability.layers} layers {what}"
        if most >= FEWEST:
            return f"{none}: all are tied at {unit} {reference}"
        swept = f"{three_digits(first)} to {three_digits(last)}"
        return f"{none}: no {unit} from {swept} tells more than {most} of them apart"
    who = f"The ranking of {'' if most == stability.layers else f'{most} of '}{stability.layers} layers {what}"
    low, high = stability.holds
    if low == high:
        return f"{who} holds at {unit} {reference} alone: {', '.join(_at_neighbours(stability))}"
    fewest = min(row.compared for row in stability.at if low <= row.resolution <= high)
    return (
        f"{who} holds from {unit} {three_digits(low)}{' (the smallest measured)' * (low == first)} to {three_digits(high)}"
        f"{' (the largest measured)' * (high == last)}: Kendall's τ is at least {AGREES:g} with that at {reference}"
        + (f", with {fewest} layers or more told apart at both" if fewest < most else "")
    )


def _sure(stability: RankStability) -> str:
    if not stability.judged:
        return ""
    return (
        f"Of {stability.judged} pairs of layers with intervals at {three_digits(stability.reference)}, "
        f"{stability.sure} differ by more than the choice of images explains"
    )


def _at_neighbours(stability: RankStability) -> Iterator[str]:
    """Why the ranking does not hold at the resolutions next to the reference."""
    place = [row.resolution for row in stability.at].index(stability.reference)
    for row in (*stability.at[max(0, place - 1) : place], *stability.at[place + 1 : place + 2]):
        if row.agreement < AGREES:
            yield f"Kendall's τ with that at {three_digits(row.resolution)} is {row.agreement:.2f}, below {AGREES:g}"
        else:
            few = f"only {row.compared} of those layers are" if row.compared else "none of those layers is"
            yield f"{few} told apart at {three_digits(row.resolution)}"


def _lost_at_end(stability: RankStability, side: Literal["below", "above"]) -> Iterator[str]:
    """Up to where, from one end of the sweep on, more than half of the layers are lost to one and the same thing."""
    rows = stability.at if side == "below" else stability.at[::-1]
    for kind, (what, mend) in _LOST.items():
        lost = list(takewhile(bool, (2 * getattr(row, kind) > stability.layers for row in rows)))
        if len(lost) == len(rows):
            if side == "below":
                yield f"everywhere more than half of the layers are {what}{mend}"
        elif lost:
            where = f"{three_digits(rows[len(lost) - 1].resolution)}{f' and {side}' * (len(lost) > 1)}"
            yield f"at {where} more than half of the layers are {what}"


def _swaps(stability: RankStability) -> Iterator[str]:
    """Whether layers change places anywhere in the sweep, or are merely tied."""
    judged = [row for row in stability.at if row.resolution != stability.reference and not math.isnan(row.swapped)]
    worst = max(judged, key=lambda row: row.swapped, default=None)
    if worst is not None and worst.swapped > 0:
        yield (
            f"Of the pairs of layers that are ordered at {three_digits(stability.reference)} and elsewhere, at most "
            f"{round(100 * worst.swapped, 1):g} % change places, at {three_digits(worst.resolution)}"
        )
    elif worst is not None and any(row.agreement < AGREES for row in judged):
        yield "No two layers change places anywhere: where the ranking does not hold, layers are tied"
