"""Which estimates of a flow share a figure: of one quantity, estimator, resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unetscope.base.errors import InvalidArgument
from unetscope.plots.style import shown
from unetscope.table.flow import Flow
from unetscope.table.quantities import Quantity, Status
from unetscope.table.records import Estimate, estimator_text


@dataclass(frozen=True)
class Selection:
    """Estimates that may stand on one axis, by layer and epoch."""

    quantity: Quantity
    estimator: str
    resolution: float
    labels: str
    estimates: dict[tuple[str, int], Estimate]

    @property
    def epochs(self) -> list[int]:
        """The marked epochs at which something was measured, ascending."""
        return sorted({epoch for _, epoch in self.estimates})

    @property
    def ceilings(self) -> list[float]:
        """The different ceilings of the estimates in bits, ascending: one, unless the probe set changed."""
        return sorted({round(e.ceiling, 6) for e in self.estimates.values() if math.isfinite(e.ceiling)})

    def bits(self, layer: str, epoch: int) -> float:
        """The estimate in bits, NaN where there is none."""
        estimate = self.estimates.get((layer, epoch))
        return math.nan if estimate is None else estimate.bits

    def interval(self, layer: str, epoch: int) -> tuple[float, float]:
        """Its 95 % interval in bits, NaN where there is none."""
        estimate = self.estimates.get((layer, epoch))
        return (math.nan, math.nan) if estimate is None else (estimate.low, estimate.high)

    def saturated(self, layer: str, epoch: int) -> bool:
        """Whether the estimate is so near its ceiling that layers can no longer be told apart."""
        estimate = self.estimates.get((layer, epoch))
        return estimate is not None and estimate.saturated

    def beyond(self, layer: str, epoch: int) -> bool:
        """Whether there is an estimate of these images alone, which is out of its domain for ever more of them."""
        estimate = self.estimates.get((layer, epoch))
        return estimate is not None and math.isfinite(estimate.bits) and estimate.status is Status.OUT_OF_DOMAIN

    def ceiling_text(self, ceiling: float) -> str:
        """A ceiling with its formula and unit, such as `log₂ N = 9.24 bits`."""
        return f"{self.quantity.ceiling_name} = {ceiling:.2f} {self.quantity.unit}"

    @property
    def text(self) -> str:
        """Estimator, resolution, number of images and label scheme: what is part of every number shown."""
        images = sorted({estimate.n for estimate in self.estimates.values()})
        n = f"{images[0]}" if len(images) == 1 else f"{images[0]}–{images[-1]}"
        usable = self.quantity.is_usable
        parts = [shown(estimator_text(self.estimator, self.resolution), 40)]
        parts.append(f"n = {n} {'held-out ' * usable}images")
        if self.labels and not usable:
            parts.append(f"Y: {shown(self.labels, 30)}")
        return " · ".join(parts)


def select(flow: Flow, quantity: str, estimator: str | None, resolution: float | None, labels: str | None) -> Selection:
    """The estimates asked for; an estimator, resolution or label scheme that is None stands for the first one measured.

    Raises: InvalidArgument, with what was measured, if what is asked for was not.
    """
    quantity = Quantity(quantity)
    found = flow.select(quantity=quantity)
    if not len(found):
        raise InvalidArgument(f"no estimate of {quantity} to plot: measured are {_listed(_quantities(flow))}")
    estimators = list(dict.fromkeys(name for name, _ in found.series))
    estimator = estimators[0] if estimator is None else estimator
    if estimator not in estimators:
        raise InvalidArgument(
            f"estimator {estimator!r} not measured for {quantity}: measured are {_listed(estimators)}"
        )
    resolutions = [size for name, size in found.series if name == estimator]
    resolution = resolutions[0] if resolution is None else resolution
    if resolution not in resolutions:
        raise InvalidArgument(
            f"resolution {resolution} not measured for {quantity} with {estimator!r}: "
            f"measured are {_listed(resolutions)}"
        )
    found = found.select(estimator=estimator, resolution=resolution)
    if quantity == Quantity.INPUT:
        labels = ""
    else:
        labels = _labels(found, labels)
        found = found.select(labels=labels)
    return Selection(quantity, estimator, resolution, labels, {(e.layer, e.epoch): e for e in found.estimates})


def _labels(found: Flow, labels: str | None) -> str:
    schemes = list(dict.fromkeys(estimate.labels for estimate in found.estimates))
    if labels is None:
        return schemes[0]
    if labels not in schemes:
        raise InvalidArgument(f"labels {labels!r} not measured for I(Y;M): measured are {_listed(schemes)}")
    return labels


def _quantities(flow: Flow) -> list[str]:
    return list(dict.fromkeys(estimate.quantity for estimate in flow.estimates))


def _listed(values: list[str] | list[float]) -> str:
    return ", ".join(f"{value}" for value in values) or "none"
