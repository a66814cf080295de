"""The interface of estimators: the statistics of a layer that they read, and the readings in nats that they return."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unetscope.base import InvalidArgument
from unetscope.estimators.groups import Groups
from unetscope.table import Quantity, Status

SATURATED_FROM = 0.99  # of the ceiling: with 605 images, nine in ten are distinct from all others
ONE_IMAGE = "one image: there is no other that a layer could tell it from"
ONE_CLASS = "every image has the same label"
ALL_ALONE = "every image is alone in its class: to tell the label is to tell the image"
NOT_FINITE = "distances are not finite"
NO_DIFFERENCE = "the layer is the same for every image"
ONE_BIN = "every image falls into the same bins: the layer is the same for all, or the bin size too large"


def in_nats(column: str) -> Any:
    """A value in nats that is NaN unless it is given; column: its name in `Estimate`, which has it in bits."""
    return field(default=math.nan, metadata={"bits": column})


@dataclass(frozen=True, slots=True)
class Reading:
    """One estimate in nats; `measure` adds epoch and layer and converts nats to bits.

    Fields have their names in `Estimate`, or metadata with that name. A ceiling that is NaN is the label scheme's, which
    `measure` adds. capped: by its arithmetic the estimate cannot exceed its ceiling, so near it layers can no longer be
    ranked. curve: the estimate of a quarter, of half and of all of the images. dice: of probes, as in `Estimate`. groups: of an
    interval and a null over groups of images, how many groups of one size these are worth.
    """

    quantity: Quantity
    estimator: str
    resolution: float
    nats: float = field(metadata={"bits": "bits"})
    lower: float = in_nats("lower")
    upper: float = in_nats("upper")
    labels: str = ""
    capped: bool = False
    unique_share: float = math.nan
    ceiling: float = in_nats("ceiling")
    low: float = in_nats("low")
    high: float = in_nats("high")
    null_mean: float = in_nats("null_mean")
    null_high: float = in_nats("null_high")
    p: float = math.nan
    train: float = in_nats("train_bits")
    extrapolated: float = in_nats("extrapolated")
    curve: tuple[float, ...] = ()
    per_image: tuple[float, ...] = field(default=(), metadata={"bits": "per_image"})
    out_of_domain: bool = False
    reason: str = ""
    groups: float = math.nan
    dice: float = math.nan


def out_of_domain_reason(why: str) -> str:
    """The reason of a reading that is out of its domain: its status, then why.

    >>> out_of_domain_reason("9 images are too few")
    'out of domain: 9 images are too few'
    """
    return f"{Status.OUT_OF_DOMAIN}: {why}"


def without_value(reading: Reading, reason: str, *, out_of_domain: bool = False) -> Reading:
    """The reading without its number, with the reason."""
    series = reading.quantity, reading.estimator, reading.resolution
    return Reading(*series, math.nan, labels=reading.labels, reason=reason, out_of_domain=out_of_domain)


def with_reasons(
    readings: Callable[[Tensor], Iterator[Reading]], statistic: Tensor, classes: Mapping[str, Tensor]
) -> Iterator[Reading]:
    """The readings of a statistic, with the reason where the input leaves nothing to measure.

    One image, distances that are not finite and labels of one class give a reason instead of a number. A layer that is the
    same for all images has 0 with a reason; labels that are all different have their number with a reason.

    statistic: symbols [n], or squared distances [n, n]. Raises: InvalidArgument if labels are not one an image.
    """
    n = len(statistic)
    for labels in classes.values():
        if labels.shape != (n,):
            raise InvalidArgument(f"{len(labels)} labels for {n} images: expected one an image")
    sizes = {name: torch.unique(labels, return_counts=True)[1] for name, labels in classes.items()}
    without = {name: ONE_CLASS for name, counts in sizes.items() if len(counts) == 1}
    noted = {name: ALL_ALONE for name, counts in sizes.items() if len(counts) == n}
    alike = ""
    if bool((statistic == statistic.flatten()[0]).all()):
        alike = ONE_BIN if statistic.ndim == 1 else NO_DIFFERENCE
    if n < 2:
        without = dict.fromkeys(("", *classes), ONE_IMAGE)
    elif not bool(statistic.isfinite().all()):
        without, statistic = dict.fromkeys(("", *classes), NOT_FINITE), torch.zeros_like(statistic)
    for reading in readings(statistic):
        if reading.labels in without:
            yield without_value(reading, without[reading.labels])
        else:
            yield replace(reading, reason=reading.reason or alike or noted.get(reading.labels, ""))


Bound = Literal["upper", "lower"]
Classes = Mapping[str, Int64[Tensor, " n"]]


MANY = 2048  # images, from which a matrix of distances that waits is kept in half the memory
FLOAT32_STEP = 2.0**-24  # of a value: the most that float32 rounds away


class Pairwise(NamedTuple):
    """Squared distances between images, and e such that rounding moves that of i and j by about e_i + e_j.

    rests: whether they wait for others, and must stay as they are.
    """

    squared: Float[Tensor, "n n"]
    errors: Float[Tensor, " n"]
    rests: bool = False

    @classmethod
    def joined(cls, parts: Sequence[Pairwise]) -> Pairwise:
        """Those of the concatenation of several layers. To distances of many images that have not been at rest, those of the
        others are added in place.
        """
        errors = sum(p.errors for p in parts[1:]) + parts[0].errors
        ahead = next((p.squared for p in parts if not p.rests), None)
        if len(errors) < MANY or ahead is None:
            return cls(sum(p.squared.double() for p in parts[1:]) + parts[0].squared.double(), errors)
        for part in parts:
            if part.squared is not ahead:
                ahead += part.squared
        return cls(ahead, errors)

    def at_rest(self, *, precise: bool) -> Pairwise:
        """The same while they wait; of many images in half the memory, in float32, with what that rounds away among the errors,
        unless they are precise.
        """
        if precise or len(self.errors) < MANY or not self.squared.isfinite().all():
            return self._replace(rests=True)
        halves = self.squared.new_empty(self.squared.shape, dtype=torch.float32).copy_(self.squared)
        return Pairwise(halves, self.errors + FLOAT32_STEP / 2 * self.squared.amax(dim=1), rests=True)

    def relative(self) -> Pairwise:
        """The same in units of the median over all pairs of images; not finite if more than half of the pairs are equal.

        >>> squared = torch.tensor([[0.0, 2.0, 4.0], [2.0, 0.0, 8.0], [4.0, 8.0, 0.0]])
        >>> Pairwise(squared, torch.zeros(3)).relative().squared[0].tolist()
        [0.0, 0.5, 1.0]
        """
        n = len(self.squared)
        pairs = torch.triu_indices(n, n, 1, device=self.squared.device)
        median = self.squared[pairs[0], pairs[1]].median()
        return Pairwise(self.squared / median, self.errors / median)


@dataclass(frozen=True)
class Needs:
    """Which statistics of a layer an estimator reads.

    distances: squared, between the images. relative: the same in units of their median. bin_sizes: those of which it reads the
    symbols. inputs: squared distances between the images as the network is given them.
    """

    distances: bool = False
    relative: bool = False
    bin_sizes: tuple[float, ...] = ()
    inputs: bool = False

    @classmethod
    def of_all(cls, estimators: Sequence[Estimator]) -> Needs:
        """The needs of all estimators together."""
        needs = [estimator.needs for estimator in estimators]
        return cls(
            any(need.distances for need in needs),
            any(need.relative for need in needs),
            tuple(dict.fromkeys(size for need in needs for size in need.bin_sizes)),
            any(need.inputs for need in needs),
        )


@dataclass(frozen=True)
class LayerStatistics:
    """All that estimators read of a layer, for n images.

    distances: between the images. relative: in units of the median one; in a concatenation each part keeps its own unit, so
    relative noise is the same there as in the part. symbols: by bin size. precise: whether distances are those of float64
    products. inputs: squared distances between the images themselves. groups: of images that are not independent of each other;
    an estimator that gives an interval or a null has to take both over the groups, and to say so in the reading.

    >>> layer = LayerStatistics.of_distances(torch.tensor([[0.0, 4.0], [4.0, 0.0]]))
    >>> LayerStatistics.joined([layer, layer]).distances.squared[0].tolist()
    [0.0, 8.0]
    """

    distances: Pairwise | None = None
    relative: Pairwise | None = None
    symbols: Mapping[float, Int64[Tensor, " n"]] = field(default_factory=dict)
    precise: bool = True
    inputs: Float[Tensor, "m m"] | None = None
    groups: Groups | None = None

    @classmethod
    def of_distances(cls, squared: Float[Tensor, "n n"], inputs: Float[Tensor, "m m"] | None = None) -> LayerStatistics:
        """From exact squared distances, in the unit that the estimator's resolution is in."""
        pairwise = Pairwise(squared, squared.new_zeros(len(squared)))
        return cls(pairwise, pairwise, inputs=inputs)

    @classmethod
    def of_symbols(cls, symbols: Int64[Tensor, " n"], bin_size: float) -> LayerStatistics:
        """From one symbol an image: `Symbols.groups`, or any other numbering."""
        return cls(symbols={bin_size: symbols})

    @classmethod
    def joined(cls, parts: Sequence[LayerStatistics]) -> LayerStatistics:
        """The statistics of the concatenation of several layers: distances add up, and images are alike where all parts are."""
        distances = [part.distances for part in parts if part.distances is not None]
        relative = [part.relative for part in parts if part.relative is not None]
        return cls(
            Pairwise.joined(distances) if distances else None,
            Pairwise.joined(relative) if relative else None,
            {size: joint_symbols([part.symbols[size] for part in parts]) for size in parts[0].symbols},
            any(part.precise for part in parts),
            parts[0].inputs,
            parts[0].groups,
        )

    def at_rest(self) -> LayerStatistics:
        """The same, as it is kept while the layer waits for its merge."""
        distances, relative = (
            None if each is None else each.at_rest(precise=self.precise) for each in (self.distances, self.relative)
        )
        return replace(self, distances=distances, relative=relative)

    @property
    def device(self) -> torch.device:
        """Where the statistics are."""
        distances = [pairwise.squared for pairwise in (self.distances, self.relative) if pairwise is not None]
        return next(iter([*distances, *self.symbols.values()])).device

    def pairwise(self, *, relative: bool) -> Pairwise:
        """The distances, in units of the activation or of the median distance."""
        pairwise = self.relative if relative else self.distances
        assert pairwise is not None, "the estimator does not say that it needs these distances"
        return pairwise


@runtime_checkable
class Estimator(Protocol):
    """Reads the statistics of a layer and returns information in nats; the defaults here are those of a new estimator."""

    @property
    def series(self) -> tuple[tuple[str, float], ...]:
        """The keys and resolutions of its estimates, as the registry has them."""
        ...

    @property
    def needs(self) -> Needs:
        """The statistics that it reads."""
        ...

    @property
    def kernels(self) -> tuple[tuple[float, Bound], ...]:
        """The noise variances and bounds with which it takes kernels of distances: how rounding of these moves it.

        There are none where rounding has no part in an estimate, or only which image is nearer than another counts.
        """
        return ()

    def readings(self, statistics: LayerStatistics, classes: Classes) -> Iterator[Reading]:
        """Estimates of one layer: of I(X;M), then of I(Y;M) for each label scheme."""
        ...


def joint_symbols(groups: Sequence[Int64[Tensor, " n"]]) -> Int64[Tensor, " n"]:
    """The groups of a concatenation of layers from those of its parts: alike where all parts are.

    >>> joint_symbols([torch.tensor([0, 0, 0]), torch.tensor([0, 1, 1])]).tolist()
    [0, 1, 1]
    """
    return first_alike(torch.stack(tuple(groups), dim=1))


def first_alike(rows: Int64[Tensor, "n k"]) -> Int64[Tensor, " n"]:
    """Of each row, the place of the first row equal to it."""
    _, number = torch.unique(rows, dim=0, return_inverse=True)
    first = torch.full_like(number, len(rows)).scatter_reduce(
        0, number, torch.arange(len(rows), device=rows.device), "amin"
    )
    return first[number]


BIT = math.log(2)


@dataclass(frozen=True)
class Check:
    """One estimate beside its truth, in bits (usable information: bits a pixel).

    low, high: the 95 % interval of the estimate, or its bracket. outside: the case lies outside the estimator's domain, so
    it must give no number.
    """

    case: str
    estimator: str
    truth: float
    bits: float
    low: float
    high: float
    outside: bool = False
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether the truth lies between low and high, or the estimate has no number as expected."""
        if self.outside:
            return math.isnan(self.bits)
        return self.low <= self.truth <= self.high


def near(check: Check, tolerance: float) -> Check:
    """The check with a tolerance added to both ends."""
    return replace(check, low=check.low - tolerance, high=check.high + tolerance)


def check_of(case: str, reading: Reading, truth: float, *, outside: bool = False, bracket: bool = False) -> Check:
    """A reading beside its truth in bits. bracket: whether to use its bracket instead of its interval."""
    low, high = (reading.lower, reading.upper) if bracket else (reading.low, reading.high)
    return Check(case, reading.estimator, truth, reading.nats / BIT, low / BIT, high / BIT, outside, reading.reason)
