"""Intervals of an average over images, and of the difference of two.

Images are independent of each other; the pixels of one image are not. Where images are not independent either, groups of them
are, such as patients: then there is one value a group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unetscope.base import InvalidArgument
from unetscope.table.records import Estimate

CONFIDENCE = 0.95
FEWEST_GROUPS = 5  # of one size: of fewer, Student's interval rests on their being normal


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval, in the unit of what it was made of."""

    value: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """The value with its ends, for people.

        >>> Interval(0.031, 0.006, 0.143).text
        '0.031 (0.006 to 0.143)'
        >>> Interval(-0.0003, -0.01, 0.009).text  # no minus before zero
        '0.000 (-0.010 to 0.009)'
        """
        return f"{self.value:z.3f} ({self.low:z.3f} to {self.high:z.3f})"


def student(values: ArrayLike, effective: float = math.nan, *, level: float = CONFIDENCE) -> Interval:
    """The mean of independent values, with Student's interval. One value has none: its ends are NaN.

    effective: how many values of one weight these are worth, where they differ in weight (`effective_groups`).

    >>> interval = student([0.5, 1.5])
    >>> interval.value, round(interval.high, 2)
    (1.0, 7.35)
    """
    values = np.asarray(values, dtype=np.float64)
    n, mean = len(values), float(values.mean())
    freedom = n - 1 if math.isnan(effective) else min(effective, n) - 1
    if n < 2 or not freedom > 0:
        return Interval(mean, math.nan, math.nan)
    from scipy.special import stdtrit  # takes a tenth of a second to import

    half = float(stdtrit(freedom, (1 + level) / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def cautious(values: ArrayLike, effective: float = math.nan, *, level: float = CONFIDENCE) -> Interval:
    """Student's interval of values of which one more may be as far out as the furthest of them, to either side.

    If values are mostly alike and seldom large, their spread understates how uncertain the mean is. effective: as of `student`.

    >>> cautious([0.0, 0.0, 0.0, 0.9]).high > student([0.0, 0.0, 0.0, 0.9]).high
    True
    """
    values = np.asarray(values, dtype=np.float64)
    low, high = (
        student(np.append(values, extreme), effective + 1, level=level) for extreme in (values.min(), values.max())
    )
    return Interval(float(values.mean()), low.low, high.high)


def effective_groups(sizes: ArrayLike) -> float:
    """How many groups of one size groups of these sizes are worth for a mean over images: (Σ n)² / Σ n² (Kish 1965).

    >>> effective_groups([5, 5, 5, 5]), round(effective_groups([20, 5, 5, 5, 5]), 2)
    (4.0, 3.2)
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    return float(sizes.sum() ** 2 / np.square(sizes).sum())


def too_few_groups(count: int, effective: float) -> str:
    """Why so many groups are too few for an interval; empty if they are enough.

    >>> too_few_groups(4, 4.0)
    '4 groups of images are too few for an interval: it needs 5'
    """
    if effective > FEWEST_GROUPS - 1e-9:
        return ""
    if count < FEWEST_GROUPS:
        are = "1 group of images is" if count == 1 else f"{count} groups of images are"
        return f"{are} too few for an interval: it needs {FEWEST_GROUPS}"
    return (
        f"{count} groups of images, of which some are far larger than others, are worth {effective:.1f} of one size, too few "
        f"for an interval: it needs {FEWEST_GROUPS}"
    )


def group_values(sums: ArrayLike, sizes: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
    """One value a group whose mean is the ratio of the sums to the sizes, and whose spread is the delete-a-group jackknife's.

    sums, sizes: of every image; sizes of 1 give the mean of the sums. groups: the number of each image's group. The ratio is
    computed without each group in turn, so a large group, which draws it to itself, counts for what it would change.

    Source: MacKinnon, Nielsen & Webb, Journal of Applied Econometrics 38:671 (2023), on cluster jackknives.

    >>> group_values([1.0, 1.0, 3.0, 5.0], [1, 1, 1, 1], [0, 0, 1, 1]).tolist()
    [1.0, 4.0]
    """
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    of_group, size = (np.bincount(numbers, np.asarray(weights, dtype=np.float64)) for weights in (sums, sizes))
    ratio, count = of_group.sum() / size.sum(), len(size)
    moved = (count - 1) * (of_group - ratio * size) / np.maximum(size.sum() - size, np.finfo(np.float64).tiny)
    return np.asarray(ratio + moved - moved.mean())


def difference(one: Estimate, other: Estimate) -> Interval:
    """By how many bits one estimate is above another, paired over the images that both were judged on, with a 95 % interval.

    What makes an image hard or easy for both drops out, so two layers can differ although their own intervals overlap. Of
    images in groups it is paired over the groups.

    Raises: InvalidArgument if either has no values by image, or they are not of the same images.

    >>> from dataclasses import replace
    >>> row = Estimate(0, "1", "I_V(M→Y)", "usable_linear", 0.0, "pixels", 0.3, 0, 1, 1, False, 3, 9, per_image=(0.1, 0.3, 0.5))
    >>> other = replace(row, layer="2", bits=0.2, per_image=(0.0, 0.2, 0.4))
    >>> interval = difference(row, other)
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.1, 0.1)
    """
    for estimate in (one, other):
        if not estimate.per_image:
            raise InvalidArgument(
                f"{estimate.quantity} of layer {estimate.layer} at epoch {estimate.epoch} by {estimate.estimator} has no "
                f"values by image{f': {estimate.reason}' if estimate.reason else ''}"
            )
    if len(one.per_image) != len(other.per_image) or math.isnan(one.groups) != math.isnan(other.groups):
        raise InvalidArgument(
            f"{len(one.per_image)} and {len(other.per_image)} images: a paired difference needs the same ones"
        )
    values = np.subtract(one.per_image, other.per_image)
    if math.isnan(one.groups) and math.isnan(other.groups):
        return student(values)
    return cautious(values, min(one.groups, other.groups))
