"""The loss of Dice to expect of a design when it is retrained, from what its whole network shows.

A predictor is a number for each design, such as the loss with zeros in the place of what it lacks. The loss is a line of it,
and the more the predictor says is lost, the less sure the line is, above it and below it apart. Of networks that are trained
on, those that lack levels, and no skip of the levels that they have, have a line of their own: the decoder has to learn anew
from another bottom, and much of what it loses before it has done so comes back; what a skip carried does not. Where both are
known, what is lost when trained on is averaged with what is lost at once: few epochs overstate what another bottom loses, and
zeros and probes what the rest of the network could learn to replace.

`loss_lines.json` holds the lines. They are fitted on networks that were retrained (`python -m calibration.verdict_page`), and
docs/verdicts.md tells how well they do on tasks that they were not fitted on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from unetscope.table import TRAINED_ON, Interval

FILE: Final = "loss_lines.json"
FREEDOM: Final = 4  # degrees, of Student's law of losses about a line: single tasks lie far off it
BEYOND: Final = 2.1318467863266495  # its 95th percentile


@dataclass(frozen=True)
class LossLine:
    """The loss of Dice as a line of one predictor, or of several: `intercept + slope · x`.

    predictors: x is the mean over these groups of the least in each. keeps_skips: whether it is of designs that lack levels
    alone, or of those that lack skips; None: of all. above, below: the scale of Student's law to either side at x = 0, and what
    it grows by with x where x is positive.

    >>> line = LossLine((("silenced",),), None, 0.0, 0.5, (0.01, 0.1), (0.01, 0.2))
    >>> interval = line.loss(0.2)
    >>> round(interval.low, 3), interval.value, round(interval.high, 3)
    (-0.007, 0.1, 0.164)
    """

    predictors: tuple[tuple[str, ...], ...]
    keeps_skips: bool | None
    intercept: float
    slope: float
    above: tuple[float, float]
    below: tuple[float, float]

    def x(self, known: Mapping[str, float]) -> float:
        """What it is a line of, from the predictors that are known, by name; NaN if one of its own is not."""
        return mean_of_least(self.predictors, known)

    def is_for(self, keeps_skips: bool) -> bool:
        """Whether it is of designs that lack levels alone, or of the others."""
        return self.keeps_skips in (None, keeps_skips)

    def loss(self, x: float, error: float = 0.0, more_error: float = 0.0) -> Interval:
        """The loss to expect, in Dice, with its 90 % interval.

        error: half of the interval of what was lost when trained on, which is of few images; other predictors have none.
        more_error: half of the interval by which a loss is farther off here than elsewhere (`error_of_run`).
        """
        of_x = sum(TRAINED_ON in group for group in self.predictors) * error / len(self.predictors)
        middle = self.intercept + self.slope * x
        above, below = (
            math.hypot(BEYOND * (start + growth * max(0.0, x)), self.slope * of_x, more_error)
            for start, growth in (self.above, self.below)
        )
        return Interval(middle, middle - below, middle + above)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


def mean_of_least(predictors: Sequence[Sequence[str]], known: Mapping[str, float]) -> float:
    """The mean over groups of predictors of the least in each; NaN if one is not known.

    >>> mean_of_least([["trained on"], ["probed", "silenced"]], {"trained on": 0.25, "probed": 0.5, "silenced": 0.75})
    0.375
    """
    values = [[known.get(name, math.nan) for name in group] for group in predictors]
    if not all(math.isfinite(value) for group in values for value in group):
        return math.nan
    return sum(map(min, values)) / len(values)


@cache
def fitted_lines() -> tuple[LossLine, ...]:
    """The lines of this package, the surest first."""
    values = json.loads(files(__package__).joinpath(FILE).read_text(encoding="utf-8"))
    return tuple(_line_of(each) for each in values["lines"])


def _line_of(values: Mapping[str, Any]) -> LossLine:
    parameters: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return LossLine(**{**parameters, "predictors": tuple(map(tuple, values["predictors"]))})


def expected_loss(
    known: Mapping[str, float],
    keeps_skips: bool,
    lines: Sequence[LossLine] | None = None,
    error: float = 0.0,
    more_error: float = 0.0,
) -> Interval | None:
    """The loss to expect by the surest line whose predictors are known; None if there is none.

    known: by the name of the predictor. keeps_skips: whether the design lacks levels alone. lines: the surest first; by default
    those of this package. error, more_error: as of `LossLine.loss`, in Dice.
    """
    for line in fitted_lines() if lines is None else lines:
        if line.is_for(keeps_skips) and math.isfinite(x := line.x(known)):
            return line.loss(x, error, more_error)
    return None
