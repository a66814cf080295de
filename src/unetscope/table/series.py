"""Which estimates belong together: of one quantity, by one estimator at one resolution, for one label scheme."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from unetscope.base import InvalidArgument
from unetscope.table.estimator_registry import estimator_text
from unetscope.table.quantities import Quantity, Status
from unetscope.table.records import Estimate

Value = TypeVar("Value")

PIXELS = "pixels"  # the label scheme of usable information, of which there is no choice


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """What all estimates of a series share.

    >>> SeriesKey(Quantity.INPUT, "kde_upper", 0.1, "").text
    'KDE upper bound, noise variance 0.1'
    """

    quantity: Quantity
    estimator: str
    resolution: float
    labels: str

    @classmethod
    def of(cls, estimate: Estimate) -> SeriesKey:
        """The key of the series that an estimate belongs to."""
        return cls(estimate.quantity, estimate.estimator, estimate.resolution, estimate.labels)

    @property
    def scheme(self) -> str:
        """The label scheme where there is a choice of them, otherwise empty."""
        return "" if self.quantity.is_usable and self.labels == PIXELS else self.labels

    @property
    def text(self) -> str:
        """The estimator with its resolution, for people."""
        return estimator_text(self.estimator, self.resolution)


@dataclass(frozen=True)
class Series:
    """Estimates that may stand on one axis, by layer and epoch, with the layers in the order of the network."""

    key: SeriesKey
    layers: tuple[str, ...]
    estimates: dict[tuple[str, int], Estimate]

    @cached_property
    def epochs(self) -> tuple[int, ...]:
        """The marked epochs at which something was measured, ascending."""
        return tuple(sorted({epoch for _, epoch in self.estimates}))

    @cached_property
    def ceilings(self) -> tuple[float, ...]:
        """The different ceilings of the estimates in bits, ascending: one, unless the probe set changed."""
        return tuple(sorted({round(e.ceiling, 6) for e in self.estimates.values() if math.isfinite(e.ceiling)}))

    @cached_property
    def images(self) -> tuple[int, ...]:
        """The different numbers of images, ascending: one, unless the probe set changed."""
        return tuple(sorted({estimate.n for estimate in self.estimates.values()}))

    @property
    def finite_bits(self) -> list[float]:
        """All numbers that there are."""
        return [estimate.bits for estimate in self.estimates.values() if math.isfinite(estimate.bits)]

    def bits(self, layer: str, epoch: int) -> float:
        """The estimate in bits, NaN where there is none."""
        estimate = self.estimates.get((layer, epoch))
        return math.nan if estimate is None else estimate.bits

    def interval(self, layer: str, epoch: int) -> tuple[float, float]:
        """Its 95 % interval in bits, NaN where there is none."""
        estimate = self.estimates.get((layer, epoch))
        return (math.nan, math.nan) if estimate is None else (estimate.low, estimate.high)

    def status(self, layer: str, epoch: int) -> Status:
        """Whether the estimate may be compared with those of other layers; absent where there is none."""
        estimate = self.estimates.get((layer, epoch))
        return Status.ABSENT if estimate is None else estimate.status

    def ceiling_text(self, ceiling: float) -> str:
        """A ceiling with its formula and unit, such as `log₂ N = 9.24 bits`."""
        return f"{self.key.quantity.ceiling_name} = {ceiling:.2f} {self.key.quantity.unit}"

    @property
    def images_text(self) -> str:
        """How many images there are, and whether they are held out, such as `n = 605 images`."""
        n = f"{self.images[0]}" if len(self.images) == 1 else f"{self.images[0]}–{self.images[-1]}"
        return f"n = {n} {'held-out ' * self.key.quantity.is_usable}images"


def grouped(estimates: Iterable[Estimate], layers: Sequence[str]) -> tuple[Series, ...]:
    """Every series, in the order in which they were measured. layers: of the network, in its order.

    >>> row = Estimate(0, "1", "I(X;M)", "kde_upper", 1.0, "", 2.0, 1.5, 2.0, 3.0, False, n=8, d=4)
    >>> (series,) = grouped([row], ["1", "2"])
    >>> series.key.text, series.layers, series.bits("1", 0)
    ('KDE upper bound, noise variance 1', ('1',), 2.0)
    """
    rows: dict[SeriesKey, dict[tuple[str, int], Estimate]] = {}
    for row in estimates:
        rows.setdefault(SeriesKey.of(row), {})[row.layer, row.epoch] = row
    measured = {key: {layer for layer, _ in cells} for key, cells in rows.items()}
    return tuple(
        Series(key, tuple(layer for layer in layers if layer in measured[key]), cells) for key, cells in rows.items()
    )


def chosen(
    series: Sequence[Series],
    quantity: Quantity,
    estimator: str | None = None,
    resolution: float | None = None,
    labels: str | None = None,
) -> Series:
    """The series asked for; an estimator, resolution or label scheme that is None stands for the first one measured.

    Raises: InvalidArgument, with what was measured, if what is asked for was not.
    """
    keys = [each.key for each in series if each.key.quantity is quantity]
    if not keys:
        quantities = dict.fromkeys(each.key.quantity for each in series)
        raise InvalidArgument(f"no estimate of {quantity} to plot: measured are {', '.join(quantities) or 'none'}")
    refusal = f"estimator {estimator!r} not measured for {quantity}"
    estimator = measured_value((key.estimator for key in keys), estimator, refusal)
    keys = [key for key in keys if key.estimator == estimator]
    refusal = f"resolution {resolution} not measured for {quantity} with {estimator!r}"
    resolution = measured_value((key.resolution for key in keys), resolution, refusal)
    keys = [key for key in keys if key.resolution == resolution]
    asked_labels = None if quantity is Quantity.INPUT else labels  # of which there is none
    labels = measured_value((key.labels for key in keys), asked_labels, f"labels {labels!r} not measured for I(Y;M)")
    key = SeriesKey(quantity, estimator, resolution, labels)
    return next(each for each in series if each.key == key)


def measured_value(values: Iterable[Value], asked: Value | None, refusal: str) -> Value:
    """The value asked for, by default the first measured. Raises: InvalidArgument for one that was not."""
    measured = list(dict.fromkeys(values))
    if asked is None:
        return measured[0]
    if asked not in measured:
        raise InvalidArgument(f"{refusal}: measured are {', '.join(map(str, measured))}")
    return asked
