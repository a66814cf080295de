"""What the two streams of a merge tell of the label beyond each other, from estimates of the streams and of the merge.
Imports records and intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unetscope.intervals import Interval, student
from unetscope.records import Estimate, Quantity, Skip

OF_CODES = {"ksg"}  # the code of a concatenation does not hold the codes of its parts


def at_merge(skip: Skip, estimates: Sequence[Estimate]) -> list[Estimate]:
    """I(Y;S|U) = I(Y;S,U) − I(Y;U), its counterpart, and I(Y;S) + I(Y;U) − I(Y;S,U), by every estimator of I(Y;M).

    estimates: of one epoch. Brackets are those of the sums, intervals are paired over the images. Where the merge tells nearly
    all images apart, differences of what it tells about the label are differences of ceilings: they are marked as saturated.

    Source: Cover & Thomas, Elements of Information Theory, section 2.5.
    """
    known = {(e.layer, e.quantity, e.estimator, e.resolution, e.labels): e for e in estimates}
    found = []
    for both in estimates:
        if both.layer != skip.merge or both.quantity != "I(Y;M)" or both.estimator in OF_CODES:
            continue
        how = both.estimator, both.resolution
        s, u = (known.get((layer, "I(Y;M)", *how, both.labels)) for layer in (skip.source, skip.upsampled))
        if s is None or u is None:
            continue
        apart = known[skip.merge, "I(X;M)", *how, ""]
        sums: dict[Quantity, tuple[list[Estimate], list[Estimate]]] = {
            "I(Y;S|U)": ([both], [u]),
            "I(Y;U|S)": ([both], [s]),
            "I(Y;S;U)": ([s, u], [both]),
        }
        for quantity, (plus, minus) in sums.items():
            per_image: tuple[float, ...] = ()
            if all(e.per_image for e in (both, s, u)):
                added, taken = (np.sum([e.per_image for e in part], axis=0) for part in (plus, minus))
                per_image = tuple((added - taken).tolist())
            interval = student(per_image) if per_image else Interval(math.nan, math.nan, math.nan)
            found.append(
                replace(
                    both,
                    quantity=quantity,
                    low=interval.low,
                    high=interval.high,
                    per_image=per_image,
                    null_mean=math.nan,
                    null_high=math.nan,
                    p=math.nan,
                    bits=sum(e.bits for e in plus) - sum(e.bits for e in minus),
                    lower=sum(e.lower for e in plus) - sum(e.upper for e in minus),
                    upper=sum(e.upper for e in plus) - sum(e.lower for e in minus),
                    saturated=apart.saturated,
                    reason=next((e.reason for e in (both, s, u) if e.reason), ""),
                )
            )
    return found
