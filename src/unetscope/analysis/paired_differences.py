"""Intervals of the difference of two trained networks, paired by seed and by image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unetscope.base import InvalidArgument
from unetscope.table import Interval, cautious, effective_groups, group_values, too_few_groups

if TYPE_CHECKING:
    from unetscope.analysis.trainings import Training


def paired_interval(
    values: NDArray[np.float64],
    groups: Sequence[int],
    half_of_seeds: float,
    level: float,
    *,
    of_seeds_alone: bool = False,
) -> Interval:
    """The mean of differences [seeds, images], with an interval over both; without one if there is one seed, or one image.

    of_seeds_alone: whether there is one score a training in the place of images: the interval is over seeds. groups: of each
    image, if they are not independent: then the interval is over groups, and there is none if they are too few.
    """
    values, groups = _labelled(values, groups)
    if not values.size:
        return Interval(math.nan, math.nan, math.nan)
    mean = float(values.mean(axis=1).mean())
    if of_seeds_alone:
        return Interval(mean, mean - half_of_seeds, mean + half_of_seeds)
    if math.isnan(half_of_seeds) or (images := interval_over_images(values, groups, level)) is None:
        return Interval(mean, math.nan, math.nan)
    low, high = (math.hypot(half_of_seeds, end - images.value) for end in (images.low, images.high))
    return Interval(mean, mean - low, mean + high)


def interval_over_images(values: NDArray[np.float64], groups: Sequence[int], level: float) -> Interval | None:
    """The interval of differences [seeds, images] over images, or over their groups; None if those are too few."""
    values, groups = _labelled(values, groups)
    if values.shape[1] < 2 or why_no_interval_over_images(groups):
        return None
    by_image = values.mean(axis=0)
    if not groups:
        return cautious(by_image, level=level)
    of_groups = group_values(by_image, np.ones(len(groups)), groups)
    return cautious(of_groups, effective_groups(np.bincount(groups)), level=level)


def _labelled(values: NDArray[np.float64], groups: Sequence[int]) -> tuple[NDArray[np.float64], Sequence[int]]:
    """Differences [seeds, images], and groups, without the images that have no Dice, as those without a labelled pixel."""
    kept = np.asarray(np.isfinite(values).all(axis=0))
    return values[:, kept], tuple(group for group, is_kept in zip(groups, kept, strict=False) if is_kept)


def why_no_interval_over_images(groups: Sequence[int]) -> str:
    """Why validation images in these groups give no interval; empty if they do, or are in none."""
    if not groups:
        return ""
    sizes = np.bincount(groups)
    return too_few_groups(int((sizes > 0).sum()), effective_groups(sizes))


def dice_differences(
    started: Mapping[int, Training], reference: Mapping[int, Training], epoch: int
) -> list[NDArray[np.float64]]:
    """Dice of a variant less that of the reference, image by image, of every seed with which both have started."""
    differences = []
    for seed, training in started.items():
        if seed in reference:
            dice, of_reference = training.dice(epoch), reference[seed].dice(epoch)
            if dice.shape != of_reference.shape:
                raise InvalidArgument(
                    f"{training.variant} and {reference[seed].variant} with seed {seed} were validated on {len(dice)} and "
                    f"{len(of_reference)} images"
                )
            if training.groups and len(training.groups) != len(dice):
                raise InvalidArgument(
                    f"{training.variant} with seed {seed} was validated on {len(dice)} images, and its facts have the groups "
                    f"of {len(training.groups)}"
                )
            differences.append(dice - of_reference)
    return differences
