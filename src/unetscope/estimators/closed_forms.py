"""Estimates beside truths that are known in closed form: what `unetscope selfcheck` prints of every estimator."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from unetscope.estimators.reading import Reading

BIT = math.log(2)


@dataclass(frozen=True)
class Check:
    """One estimate beside its truth, in bits (usable information: bits a pixel).

    low, high: what the estimate says of itself, its 95 % interval or its bracket. outside: the case lies outside the
    estimator's domain, and it must say so instead of giving a number.
    """

    case: str
    estimator: str
    truth: float
    bits: float
    low: float
    high: float
    outside: bool = False
    reason: str = ""
    out_of_domain: bool = False

    @property
    def passed(self) -> bool:
        """Whether the truth lies where the estimate says, or the estimate refuses as it must."""
        if self.outside:
            return math.isnan(self.bits) and self.out_of_domain
        return self.low <= self.truth <= self.high


def near(check: Check, tolerance: float) -> Check:
    """The check with a tolerance besides what the estimate says of itself."""
    return replace(check, low=check.low - tolerance, high=check.high + tolerance)


def check_of(case: str, reading: Reading, truth: float, *, outside: bool = False, bracket: bool = False) -> Check:
    """A reading beside its truth in bits; bracket: held against its bracket, not its interval."""
    low, high = (reading.lower, reading.upper) if bracket else (reading.low, reading.high)
    bits, low, high = (nats / BIT for nats in (reading.nats, low, high))
    return Check(case, reading.estimator, truth, bits, low, high, outside, reading.reason, reading.out_of_domain)
