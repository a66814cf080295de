"""The loss of Dice to expect of a design when it is retrained, from what its whole network shows.

A predictor is a number for each design, such as the loss with zeros in the place of what it lacks. Quantiles of the loss are
lines with bends, which never fall: the more a predictor says is lost, the more is expected to be. `loss_lines.json` holds them;
they are fitted on networks that were retrained (`python -m calibration.verdict_page`), and docs/verdicts.md tells how well they
do on tasks that they were not fitted on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetscope.table import Interval

FloatArray = NDArray[np.float64]
BENDS = (0.02, 0.1, 0.3)  # losses of Dice at which a line may become flatter or steeper
FILE = "loss_lines.json"


def bent(values: FloatArray, bends: Sequence[float] = BENDS) -> FloatArray:
    """The columns [n, 2 + bends] of a line with bends of each value: 1, the value, and what it is above each bend.

    >>> bent(np.array([0.0, 0.12])).tolist()
    [[1.0, 0.0, 0.0, 0.0, 0.0], [1.0, 0.12, 0.09999999999999999, 0.01999999999999999, 0.0]]
    """
    above = [np.maximum(0, values - bend) for bend in bends]
    return np.stack([np.ones_like(values), values, *above], axis=1)


def bent_together(known: Sequence[Mapping[str, float]], predictors: Sequence[str]) -> FloatArray:
    """The columns of some predictors of several designs, the constant once. A value that is not known counts as 0."""
    parts = [np.ones((len(known), 1))]
    for name in predictors:
        values = np.array([each[name] for each in known], dtype=np.float64)
        parts.append(bent(np.nan_to_num(values))[:, 1:])
    return np.hstack(parts)


@dataclass(frozen=True)
class LossLines:
    """Quantile lines of some predictors together: of the 5th percentile of the loss, the median and the 95th.

    widened: the factor by which intervals are wider than the lines are, so that those of tasks that were left out hold 90 %.
    """

    predictors: tuple[str, ...]
    coefficients: tuple[FloatArray, FloatArray, FloatArray]
    widened: float = 1.0

    def loss(self, known: Mapping[str, float]) -> Interval:
        """The loss to expect of a design, in Dice, with its 90 % interval.

        >>> lines = LossLines(("silenced",), tuple(np.array([start, 0.5, 0, 0, 0]) for start in (-0.01, 0.0, 0.02)))
        >>> lines.loss({"silenced": 0.1})
        Interval(value=0.05, low=0.04, high=0.07)
        """
        columns = bent_together([known], self.predictors)[0]
        low, middle, high = sorted(float(columns @ each) for each in self.coefficients)
        return Interval(middle, middle - self.widened * (middle - low), middle + self.widened * (high - middle))

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "predictors": list(self.predictors),
            "coefficients": [each.tolist() for each in self.coefficients],
            "widened": self.widened,
        }


@cache
def fitted_lines() -> tuple[LossLines, ...]:
    """The lines of this package, those of more predictors first."""
    values = json.loads(files(__package__).joinpath(FILE).read_text(encoding="utf-8"))
    lines = []
    for each in values["lines"]:
        low, middle, high = (np.array(line, dtype=np.float64) for line in each["coefficients"])
        lines.append(LossLines(tuple(each["predictors"]), (low, middle, high), each["widened"]))
    return tuple(sorted(lines, key=lambda each: -len(each.predictors)))


def expected_loss(known: Mapping[str, float]) -> Interval | None:
    """The loss to expect by the lines that take most of what is known; None if there are none that take it.

    known: by the name of the predictor, without those that are not known.
    """
    there = {name for name, value in known.items() if math.isfinite(value)}
    for lines in fitted_lines():
        if there >= set(lines.predictors):
            return lines.loss(known)
    return None
