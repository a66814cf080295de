"""What an estimator gives back, in nats. Imports records."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unetscope.records import Quantity


@dataclass(frozen=True, slots=True)
class Reading:
    """One estimate in nats, before it is given its place: `measure` adds epoch and layer and turns nats into bits.

    The fields are those of `unetscope.records.Estimate`. A ceiling that is NaN is the label scheme's, which `measure` adds.
    capped: by its arithmetic the estimate cannot exceed its ceiling, so near it layers can no longer be told apart.
    """

    quantity: Quantity
    estimator: str
    resolution: float
    nats: float
    lower: float = math.nan
    upper: float = math.nan
    labels: str = ""
    capped: bool = False
    unique_share: float = math.nan
    ceiling: float = math.nan
    low: float = math.nan
    high: float = math.nan
    null_mean: float = math.nan
    null_high: float = math.nan
    p: float = math.nan
    train: float = math.nan
    extrapolated: float = math.nan
    curve: tuple[float, ...] = ()
    per_image: tuple[float, ...] = ()
    reason: str = ""


def lost(reading: Reading, reason: str) -> Reading:
    """The reading without its number, but with the reason why there is none."""
    return Reading(
        reading.quantity, reading.estimator, reading.resolution, math.nan, labels=reading.labels, reason=reason
    )
