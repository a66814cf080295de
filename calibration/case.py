"""A case of the study, and what is found in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from unetscope.estimators.interface import Reading

N = 605  # images of the paper's probe set
BIT = math.log(2)
NULLS = "Nothing to be told"  # a group of cases
Of = tuple[str, str]  # an estimator and a quantity


@dataclass(frozen=True)
class Found:
    """One estimate in bits, as a reading or a row of a table says it."""

    estimator: str
    quantity: str
    bits: float
    limit: float
    low: float
    high: float
    p: float
    reason: str

    @classmethod
    def of(cls, reading: Reading) -> Found:
        """In bits what is in nats."""
        limit = reading.nats if math.isnan(reading.extrapolated) else reading.extrapolated
        return cls(
            reading.estimator,
            reading.quantity,
            reading.nats / BIT,
            limit / BIT,
            reading.low / BIT,
            reading.high / BIT,
            reading.p,
            reading.reason,
        )


@dataclass(frozen=True)
class Case:
    """What is drawn and measured anew in each repetition.

    truths: in bits, of whom; None where there is none to be met, as of a probe of a family that need not find all. share: of
    the repetitions asked for, how many it is worth. null: there is nothing to be told, so p must be uniform.
    """

    group: str
    name: str
    measure: Callable[[int], Iterable[Found]]
    truths: Mapping[Of, float | None]
    share: float = 1.0
    null: bool = False
