"""Smaller networks that are there: with the weights of the whole one, trained on as long as it, and compared with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unetscope.table.intervals import Interval
from unetscope.table.margins import check_margin
from unetscope.table.parts import Part, Variant, removed_parts

EVIDENCE_LEVEL = 0.9  # of all intervals of a search together
FEWEST_COMPARED_IMAGES = 20  # of fewer, an interval seldom meets the images that a network fails on


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """A design of a run that was trained on from the weights of its whole network.

    loss: of the mean validation Dice, of the whole network that was trained on as long less its own, with an interval over
    images or their groups; its ends are NaN if those are too few. It is so wide that all intervals of a search hold together in
    90 % (Bonferroni). It is about these two networks on other images: how much another training of either would differ is not
    in it. silenced: the loss with zeros in the place of what it lacks, without training. from_run: the mean validation Dice of
    the run's network as it was, less its own. images: on how many it was compared. Earlier versions kept neither: NaN, None.
    """

    design: Variant
    dice: float
    loss: Interval
    silenced: float
    from_run: float = math.nan
    images: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {**asdict(self), "design": self.design.as_dict()}

    @property
    def is_on_few_images(self) -> bool:
        """Whether it was compared on too few images to show anything."""
        return self.images is not None and self.images < FEWEST_COMPARED_IMAGES

    def shows(self, margin: float) -> bool:
        """Whether this network can do without what it lacks: the whole interval of its loss lies under the margin, and it also
        does as well as the run's network did, in case training on made the whole one worse.

        Raises: InvalidArgument unless the margin is between 0 and 1.
        """
        check_margin(margin)
        return self.loss.high < margin and not self.from_run >= margin and not self.is_on_few_images


@dataclass(frozen=True)
class Evidence:
    """What smaller networks show of a run.

    A network that loses less than the margin is there, and shows that the parts which it lacks are not needed, alone and
    together: every network between it and the whole one can compute what it does. That most trainings without them would do
    as well is for `verify` to show, by several seeds. One that loses more shows nothing, as it might need a longer training.

    epoch: of the run, from which the networks were trained on. epochs: of each. dice: of the whole network, trained on.
    tried: the designs, from the largest to the smallest. designs: how many there were to choose from, each part of the next.
    depth, without: of the whole network. alone: designs that lack one part, which the smallest network that is shown keeps.
    """

    epoch: int
    epochs: int
    dice: float
    tried: tuple[TrainedOn, ...]
    designs: int
    depth: int
    without: tuple[Part, ...] = ()
    alone: tuple[TrainedOn, ...] = ()

    @property
    def trained_on(self) -> tuple[TrainedOn, ...]:
        """All smaller networks that were trained on: those of the search, then those without one part alone."""
        return self.tried + self.alone

    def smallest(self, margin: float) -> TrainedOn | None:
        """The smallest design that loses less than the margin; None if there is none. Raises: as `TrainedOn.shows`."""
        check_margin(margin)
        return next((tried for tried in reversed(self.tried) if tried.shows(margin)), None)

    def redundant(self, margin: float) -> tuple[Part, ...]:
        """The parts that the smallest such design does without. Raises: as `TrainedOn.shows`."""
        smallest = self.smallest(margin)
        return () if smallest is None else removed_parts(smallest.design, self.depth, self.without)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        tried, alone = ([each.as_dict() for each in some] for some in (self.tried, self.alone))
        return {**asdict(self), "tried": tried, "alone": alone, "without": list(map(str, self.without))}

    @property
    def networks(self) -> int:
        """How many were trained on, the whole one among them."""
        return 1 + len(self.trained_on)


def bisected(shown: Sequence[bool | None]) -> int | None:
    """The next of a sequence of smaller and smaller designs to try, given what is shown of some; None if it is over.

    A design is not tried if a smaller one shows what it would, or if a larger one did not.

    >>> bisected([None, None, None]), bisected([None, True, None]), bisected([None, False, None]), bisected([True, False])
    (1, 2, 0, None)
    """
    low = max((place for place, is_shown in enumerate(shown) if is_shown), default=-1)
    high = min((place for place, is_shown in enumerate(shown) if is_shown is False and place > low), default=len(shown))
    return (low + high) // 2 if high - low > 1 else None
