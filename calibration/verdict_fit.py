"""From what is known of a design before it is retrained to the loss of Dice to expect, with an interval.

A predictor is a number for each design, such as the loss with zeros in the place of what it lacks. Its quantiles are lines with
bends that never fall: the more a predictor says is lost, the more is expected to be. They are fitted by the pinball loss
(Koenker & Bassett, Econometrica 46:33, 1978), each task weighing the same, and judged on tasks that they were not fitted on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from unetscope.analysis import BENDS, LossLines, bent_together
from unetscope.table import (
    BITS,
    EXPECTED_LEVEL,
    SILENCED,
    TRAINED_ON,
    Decision,
    Interval,
    decided_loss,
    epochs_trained_on,
)

Array = NDArray[np.float64]
LOW, MIDDLE, HIGH = 0.05, 0.5, 0.95
LEVEL = EXPECTED_LEVEL
MARGIN = 0.02
MOST_WIDENED = 10.0


@dataclass(frozen=True)
class Row:
    """A design of a cell at a budget.

    loss: of Dice when it is retrained. values: of its predictors, by name. said: by the rule of bits. most: the end of the
    interval over images of the gap after training on; below the margin, a network that is there shows that what it lacks is not
    needed. retrained: what its retrainings decide.
    """

    task: str
    network: str
    budget: int
    design: str
    loss: float
    values: Mapping[str, float]
    said: Decision = "undecided"
    most: float = math.nan
    retrained: Decision = "undecided"

    @property
    def cell(self) -> tuple[str, str, int]:
        """What ranks are within."""
        return self.task, self.network, self.budget

    @property
    def truth(self) -> Decision:
        """What retraining says, by its mean."""
        return "needed" if self.loss > MARGIN else "redundant"


def rows_of(kept: Mapping[str, Any], task: str, network: str) -> list[Row]:
    """The rows of a cell, of what `verdict_cells` keeps of it."""
    rows = []
    for budget, by_design in kept["losses"]["budgets"].items():
        for design, outcome in by_design.items():
            values = kept.get(f"{budget}-{design}")
            if values is not None and math.isfinite(outcome["loss"]):
                known = predictor_values(values, kept["losses"]["curves"], int(budget), design)
                most = math.nan if values["gap"] is None else values["gap"]["high"]
                rows.append(
                    Row(
                        task,
                        network,
                        int(budget),
                        design,
                        outcome["loss"],
                        known,
                        values["verdict"],
                        most,
                        outcome["decision"],
                    )
                )
    return rows


def predictor_values(
    values: Mapping[str, Any], curves: Mapping[str, Mapping[str, Sequence[float]]], budget: int, design: str
) -> dict[str, float]:
    """Every predictor of a design, as a loss of Dice where it is one; NaN where it is not known."""
    gaps = np.subtract(values["curve of the whole"], values["curve"])
    half = gaps[max(1, len(gaps) // 2)]
    falls = min(1.0, max(0.0, gaps[-1] / half)) if half > 0 else 1.0
    first = min(curves[design], key=int)
    early = max(1, round(budget / 5))
    return {
        BITS: float("nan") if values["bits"] is None else float(values["bits"]),
        SILENCED: float(values["silenced"]),
        "taylor": float(values["taylor"]),
        TRAINED_ON: float(gaps[epochs_trained_on(budget)]),
        "trained on for 15 %": float(gaps[-1]),
        "trained on, extrapolated": float(gaps[-1] * falls),
        "a fifth of a retraining": curves["model1"][first][early] - curves[design][first][early],
    }


def quantile_line(columns: Array, losses: Array, weights: Array, quantile: float) -> Array:
    """The coefficients of the line that least misses a quantile, and that falls nowhere.

    columns: of `bent`, of one predictor or of several, the first of which is 1. Solved as a linear programme.

    >>> from unetscope.analysis import bent
    >>> values = np.linspace(0, 0.4, 50)
    >>> (bent(values)[[0, 49]] @ quantile_line(bent(values), 0.5 * values, np.ones(50), 0.5)).round(6).tolist()
    [0.0, 0.2]
    """
    n, p = columns.shape
    steps = (p - 1) // (1 + len(BENDS))  # predictors
    slopes = np.zeros((steps * (1 + len(BENDS)), p))
    for predictor in range(steps):
        first = 1 + predictor * (1 + len(BENDS))
        for bend in range(1 + len(BENDS)):
            slopes[predictor * (1 + len(BENDS)) + bend, first : first + bend + 1] = -1  # slope after so many bends >= 0
    cost = np.concatenate([np.zeros(p), quantile * weights, (1 - quantile) * weights])
    equal = np.hstack([columns, np.eye(n), -np.eye(n)])
    found = optimize.linprog(
        cost,
        A_ub=np.hstack([slopes, np.zeros((len(slopes), 2 * n))]),
        b_ub=np.zeros(len(slopes)),
        A_eq=equal,
        b_eq=losses,
        bounds=[(None, None)] * p + [(0, None)] * (2 * n),
        method="highs",
    )
    return np.asarray(found.x[:p])


def fitted(rows: Sequence[Row], predictors: Sequence[str]) -> LossLines:
    """The lines of all rows, each task weighing the same, with intervals that are so wide that those of tasks which are left
    out in turn hold 90 % of their losses.
    """
    lines = _lines(rows, predictors)
    tasks = sorted({row.task for row in rows})
    if len(tasks) < 3:
        return lines
    needed, weights = [], []
    for task in tasks:
        left = _lines([row for row in rows if row.task != task], predictors)
        of_task = [row for row in rows if row.task == task]
        needed += [_widening(left.loss(row.values), row.loss) for row in of_task]
        weights += [1 / len(of_task)] * len(of_task)
    order = np.argsort(needed)
    reached = np.cumsum(np.array(weights)[order]) / sum(weights)
    widened = float(np.array(needed)[order][np.searchsorted(reached, LEVEL)])
    return LossLines(lines.predictors, lines.coefficients, min(MOST_WIDENED, max(1.0, widened)))


def _widening(predicted: Interval, loss: float) -> float:
    """The factor by which an interval must be wider to hold a loss."""
    side = predicted.high - predicted.value if loss > predicted.value else predicted.value - predicted.low
    off = abs(loss - predicted.value)
    return 0.0 if off == 0 else math.inf if side <= 0 else off / side


def _lines(rows: Sequence[Row], predictors: Sequence[str]) -> LossLines:
    columns = bent_together([row.values for row in rows], predictors)
    losses = np.array([row.loss for row in rows])
    sizes = {task: sum(row.task == task for row in rows) for task in {row.task for row in rows}}
    weights = np.array([1 / sizes[row.task] for row in rows])
    low, middle, high = (quantile_line(columns, losses, weights, quantile) for quantile in (LOW, MIDDLE, HIGH))
    return LossLines(tuple(predictors), (low, middle, high))


@dataclass(frozen=True)
class Judged:
    """How well predictors do on tasks that they were not fitted on; shares of designs, each task weighing the same.

    ranks: Spearman's correlation with the retrained loss within a cell, over cells of three designs or more. covered: losses in
    the interval. right, wrong: decided so; the rest is undecided.
    """

    predictors: tuple[str, ...]
    ranks: float
    covered: float
    right: float
    wrong: float
    width: float


def left_out_tasks(rows: Sequence[Row], predictors: Sequence[str]) -> list[tuple[Row, Interval]]:
    """Every row with what is predicted of it by a fit on the other tasks."""
    predicted = []
    for task in sorted({row.task for row in rows}):
        fit = fitted([row for row in rows if row.task != task], predictors)
        predicted += [(row, fit.loss(row.values)) for row in rows if row.task == task]
    return predicted


def judged(rows: Sequence[Row], predictors: Sequence[str]) -> Judged:
    """How well some predictors do together."""
    predicted = left_out_tasks(rows, predictors)
    cells = {row.cell for row in rows}
    ranks = []
    for cell in cells:
        of_cell = [(row.loss, each.value) for row, each in predicted if row.cell == cell]
        if len(of_cell) >= 3 and len({loss for _, loss in of_cell}) > 1:
            ranks.append(float(stats.spearmanr(*zip(*of_cell, strict=True)).statistic))

    def share(holds: Callable[[Row, Interval], float]) -> float:
        by_task: dict[str, list[float]] = {}
        for row, each in predicted:
            by_task.setdefault(row.task, []).append(float(holds(row, each)))
        return float(np.mean([np.mean(values) for values in by_task.values()]))

    return Judged(
        tuple(predictors),
        float(np.mean(ranks)) if ranks else math.nan,
        share(lambda row, each: each.low <= row.loss <= each.high),
        share(lambda row, each: decided_loss(each, MARGIN) == row.truth),
        share(lambda row, each: decided_loss(each, MARGIN) not in (row.truth, "undecided")),
        share(lambda _, each: each.high - each.low),
    )


def compared(rows: Sequence[Row], sets: Iterable[Sequence[str]]) -> list[Judged]:
    """Several sets of predictors on the same rows."""
    return [judged(rows, predictors) for predictors in sets]
