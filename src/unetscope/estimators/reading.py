"""What an estimator gives back, in nats, and what leaves it nothing to measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from unetscope.base import InvalidArgument
from unetscope.table import Quantity, Status

SATURATED_FROM = 0.99  # of the ceiling: with 605 images, nine in ten are told apart from all others
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
    """One estimate in nats, before it is given its place: `measure` adds epoch and layer and turns nats into bits.

    Fields have their names in `Estimate`, or say which. A ceiling that is NaN is the label scheme's, which `measure`
    adds. capped: by its arithmetic the estimate cannot exceed its ceiling, so near it layers can no longer be told apart.
    curve: the estimate of a quarter, of half and of all of the images.
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


def out_of_domain_reason(why: str) -> str:
    """The reason of a reading that is out of its domain: its status, then why.

    >>> out_of_domain_reason("9 images are too few")
    'out of domain: 9 images are too few'
    """
    return f"{Status.OUT_OF_DOMAIN}: {why}"


def without_value(reading: Reading, reason: str, *, out_of_domain: bool = False) -> Reading:
    """The reading without its number, but with the reason why there is none."""
    series = reading.quantity, reading.estimator, reading.resolution
    return Reading(*series, math.nan, labels=reading.labels, reason=reason, out_of_domain=out_of_domain)


def with_reasons(
    readings: Callable[[Tensor], Iterator[Reading]], statistic: Tensor, classes: Mapping[str, Tensor]
) -> Iterator[Reading]:
    """The readings of a statistic, with the reason where the input leaves nothing to measure.

    There is no number, but the reason, of one image, of distances that are not finite, and about labels of one class. A layer
    that is the same for all images has its 0 with the reason, and so has a label that nobody shares its information.

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
