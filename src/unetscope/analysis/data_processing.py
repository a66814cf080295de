"""Where estimates rise from a layer to one computed from it, although information cannot (the data processing inequality)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unetscope.base import InvalidArgument
from unetscope.table import Estimate, Flow, Interval, Layer, Quantity, Status, difference, entry_of, estimator_text

ROUNDING_BITS = 2e-3  # by which rounding alone may set two estimates apart: each is held to 1e-3

_UNRANKED = {Status.SATURATED, Status.ABSENT}


def computed_pairs(flow: Flow) -> tuple[tuple[str, str], ...]:
    """Pairs (parent, child) of layers of which the child is a function of the parent alone, in the order of the network.

    The true information of the child about X or Y is then at most the parent's: the data processing inequality. A
    layer follows from the one before it. A merge follows from the nearest layer that all its parts follow from, which in a
    U-Net is the source of its skip, for the upsampled path comes from there too. Each part of a merge follows from the merge.
    All other such pairs are chains of these.

    Roles and levels determine what lies between two layers, so there is no pair across a merge that the flow does not name, and
    none of layers whose role is unknown (`"layer"`), but for the parts of a merge.

    >>> layers = (Layer("2", "a", 0, "encoder"), Layer("3", "b", 1, "bottom"), Layer("4up", "up", 0, "upsampled"),
    ...           Layer("4", "cat", 0, "merge", ("4up", "2")), Layer("5", "c", 0, "decoder"))
    >>> computed_pairs(Flow(layers))
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
class DataProcessingCheck:
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
        sure = sum(not math.isnan(violation.rise.low) for violation in self.beyond)
        chance = f"{sure} of these rises have an interval above zero, as one of forty has by chance. " if sure else ""
        return (
            f"In {len(self.beyond)} of {self.checked} pairs {what} rises from a layer to one computed from it alone, most "
            f"from {worst.parent} to {worst.child}, by {worst.rise.value:.2g} bits{interval}{out}. "
            f"{chance}{_meaning(self.estimator)}"
        )


def _meaning(estimator: str) -> str:
    why = entry_of(estimator).why_rising
    return (
        "No layer knows more than what it is computed from. The estimate is of how images cluster at this resolution: a rise "
        f"says that they lie further apart, {f'{why}, ' if why else ''}not that information was gained (Geiger, arXiv "
        "2003.09671)."
    )


def dpi_violations(
    flow: Flow,
    *,
    quantity: str = Quantity.INPUT,
    estimator: str | None = None,
    resolution: float | None = None,
    labels: str | None = None,
    epoch: int | None = None,
) -> DataProcessingCheck:
    """By how many bits an estimate rises from a layer to one that is a function of it, for all `computed_pairs`.

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
    >>> [(rise.parent, rise.child, rise.rise.value) for rise in check.beyond], check.checked
    ([('1', '2', 0.75)], 2)
    """
    estimates = _checked_estimates(flow, Quantity(quantity), estimator, resolution, labels, epoch)
    by_layer = {estimate.layer: estimate for estimate in estimates}
    twins = {frozenset((layer.label, *layer.parts)) for layer in flow.layers if len(layer.parts) == 1}
    pairs = [pair for pair in computed_pairs(flow) if frozenset(pair) not in twins]
    violations, checked, into_ceiling = [], 0, 0
    for parent, child in pairs:
        above, below = by_layer.get(parent), by_layer.get(child)
        if above is None or below is None or above.status in _UNRANKED or below.status is Status.ABSENT:
            continue
        rise = _rise(above, below)
        if below.status is Status.SATURATED:
            into_ceiling += rise.value > ROUNDING_BITS
            continue
        checked += 1
        if rise.value > 0:
            violations.append(Violation(parent, child, rise, rise.value > ROUNDING_BITS and not rise.low <= 0))
    first = estimates[0]
    return DataProcessingCheck(
        first.quantity, first.estimator, first.resolution, first.labels, first.epoch, tuple(violations), checked,
        len(pairs) - checked, into_ceiling,
    )  # fmt: skip


def _checked_estimates(
    flow: Flow,
    quantity: Quantity,
    estimator: str | None,
    resolution: float | None,
    labels: str | None,
    epoch: int | None,
) -> tuple[Estimate, ...]:
    """The estimates asked for. Raises: InvalidArgument if they were not measured, or may rise from layer to layer."""
    if quantity.is_usable:
        raise InvalidArgument(
            f"{quantity} is usable information, which may rise from layer to layer, for a network makes it easier to read: ask "
            "for I(X;M) or I(Y;M)"
        )
    if estimator is not None and not entry_of(estimator).shannon:
        raise InvalidArgument(
            f"{estimator} does not estimate a layer's Shannon information, to which alone this applies"
        )
    if not quantity.of_layer:
        raise InvalidArgument(f"quantity must be I(X;M) or I(Y;M), got {quantity!r}")
    rows = flow.narrowed(quantity=quantity, labels="" if quantity is Quantity.INPUT else labels)
    shannon = dict.fromkeys(row.estimator for row in rows.estimates if entry_of(row.estimator).shannon)
    rows = rows.narrowed(estimator=estimator or next(iter(shannon), None), resolution=resolution)
    if not entry_of(rows.estimates[0].estimator).shannon:
        raise InvalidArgument("only indices and codes were measured: name an estimator such as KDE or Binning")
    return rows.narrowed(epoch=rows.epochs[-1] if epoch is None else epoch).estimates


def _rise(parent: Estimate, child: Estimate) -> Interval:
    if parent.per_image and child.per_image:
        return difference(child, parent)
    return Interval(child.bits - parent.bits, math.nan, math.nan)
