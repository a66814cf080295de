"""When seeds are added after a look at the results: which looks there are, and the level of the interval at each.

An interval whose number of seeds was chosen before holds its level. If seeds are added until something is decided, the chance
of a wrong decision grows with every look. The chances of all looks together stay below 5 % here, whatever their dependence
(Bonferroni over looks), so a decision may be taken, and training stopped, at any of them. They are made to add up to 4 %,
because intervals of such high levels cover a little less where variants differ in spread.
"""

from __future__ import annotations

from dataclasses import dataclass

from unetscope.table import CONFIDENCE

LOOKS_ERROR = 0.04  # of all looks of `--seeds auto` together
LOOKS = (3, 4, 6, 8, 12, 16)  # seeds at which `--seeds auto` compares a variant; it trains no more


@dataclass(frozen=True)
class SeedPlan:
    """How the seeds of a variant were chosen.

    looks: at how many numbers of seeds it was compared, each chosen after the comparison before. first: with `--seeds auto`,
    the seed that counts as the first; None for seeds that were named or counted. epochs: with `--seeds auto`, of a training.
    """

    looks: int = 1
    first: int | None = None
    epochs: int = 0


@dataclass(frozen=True)
class Look:
    """A comparison of a variant: the seeds that it is of, all of them if None, and the level of its interval."""

    seeds: frozenset[int] | None
    level: float


def look_level(seeds: int) -> float:
    """The level of the interval of `--seeds auto` at one of its looks: 4 % of error are shared out as the seeds are.

    >>> [round(look_level(seeds), 4) for seeds in LOOKS], round(sum(1 - look_level(seeds) for seeds in LOOKS), 4)
    ([0.9976, 0.9967, 0.9951, 0.9935, 0.9902, 0.9869], 0.04)
    """
    return 1 - LOOKS_ERROR * seeds / sum(LOOKS)


def level_of_added(looks: int) -> float:
    """The level where a chosen number of seeds was raised after a comparison: the error of every look is half the last one's.

    The chance of a false decision, which is on one side of the margin, is 2.5 % at the first look and below 5 % in all.

    >>> [level_of_added(looks) for looks in (1, 2, 3)]
    [0.95, 0.975, 0.9875]
    """
    return CONFIDENCE if looks == 1 else 1 - (1 - CONFIDENCE) / 2 ** (looks - 1)
