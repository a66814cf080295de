"""Whether trainings of a variant start less often than those of the reference."""

from __future__ import annotations

import math


def fewer_starts(started: int, seeds: int, of_reference: int, its_seeds: int) -> float:
    """The chance of so few starts, or fewer, if a variant starts as often as the reference: Fisher's exact test, one-sided.

    >>> fewer_starts(0, 3, 3, 3)
    0.05
    """
    all_started, everyone = started + of_reference, seeds + its_seeds
    ways = math.comb(everyone, seeds)
    return sum(
        math.comb(all_started, k) * math.comb(everyone - all_started, seeds - k) / ways for k in range(started + 1)
    )
