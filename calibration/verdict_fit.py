"""From what is known of a design before it is retrained to the loss of Dice to expect, with an interval.

A predictor is a number for each design, such as the loss with zeros in the place of what it lacks, or the least of several.
Lines of losses against it are fitted to networks that were retrained, and judged on tasks that they were not fitted on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from unetscope.analysis import BEYOND, DICE_MARGIN, FREEDOM, OF_A_STEP, LossLine
from unetscope.analysis.expected_losses import mean_of_least
from unetscope.analysis.trainings import SCORED_SHARE
from unetscope.runs.analysed import UNLEARNT_DICE
from unetscope.table import (
    BITS,
    EXPECTED_LEVEL,
    PROBED,
    SILENCED,
    TRAINED_ON,
    Decision,
    Interval,
    decided_loss,
    epochs_trained_on,
)

Array = NDArray[np.float64]
Predicted = Sequence[tuple["Row", Interval]]
LEVEL = EXPECTED_LEVEL
MARGIN = DICE_MARGIN
BEYOND_NORMAL = 1.6448536269514722  # the 95th percentile of the normal law
AT_ZERO = float(stats.t.logpdf(0, FREEDOM))
LOGS = (-20.0, 5.0)  # of slopes and scales
SCALES = (0.01, 0.1)  # supposed before any task is known, with a factor of e as its standard deviation
LEAST = " or "  # between the names of predictors of which the least is taken
MEAN = " and "  # between such groups, of which the mean is taken
UNKNOWN = 0.05  # the standard error of a loss of which too few trainings started to tell it


@dataclass(frozen=True)
class Row:
    """A design of a cell at a budget.

    loss: of Dice when it is retrained. values: of its predictors, by name. by_bits: what the rule of bits says. most: the end
    of the interval over images of the gap after training on; below the margin, a network that is there shows that what it lacks
    is not needed. retrained: what its retrainings decide. by_seed: the loss of each seed; NaN where it or the whole network did
    not begin to learn. error: the standard error of the loss, over seeds. step: by how much the Dice of the run jumps from one
    epoch to the next.
    """

    task: str
    network: str
    budget: int
    design: str
    loss: float
    values: Mapping[str, float]
    by_bits: Decision = "undecided"
    most: float = math.nan
    retrained: Decision = "undecided"
    by_seed: Sequence[float] = ()
    error: float = UNKNOWN
    step: float = 0.0

    @property
    def error_of_run(self) -> float:
        """The scale by which losses are farther off the lines in its run than in others."""
        return OF_A_STEP * self.step

    @property
    def cell(self) -> tuple[str, str, int]:
        """What ranks are within."""
        return self.task, self.network, self.budget

    @property
    def keeps_skips(self) -> bool:
        """Whether the design lacks levels alone.

        >>> [Row("ring", "unet", 20, name, 0.0, {}).keeps_skips for name in ("depth2", "depth2-without-skip1", "no-skips")]
        [True, False, False]
        """
        return self.design.startswith("depth") and "without" not in self.design

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
                predictors = predictor_values(values, kept["losses"]["curves"], int(budget), design)
                predictors[PROBED] = _number(kept.get("probed", {}).get(budget, {}).get(design))
                most = math.nan if values["gap"] is None else values["gap"]["high"]
                by_bits, retrained = values["verdict"], outcome["decision"]
                by_seed = seeds_losses(kept["losses"]["curves"], int(budget), design)
                loss = outcome["loss"]
                rows.append(
                    Row(task, network, int(budget), design, loss, predictors, by_bits, most, retrained, by_seed)
                )
    return with_errors(rows)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def with_errors(rows: Sequence[Row]) -> list[Row]:
    """Rows with the standard errors of their losses, of a variance over seeds that is pooled over the designs of a cell.

    >>> rows = [Row("ring", "unet", 20, name, 0.0, {}, by_seed=(0.0, 0.02, 0.04)) for name in ("depth1", "depth2")]
    >>> [round(row.error, 4) for row in with_errors(rows)]
    [0.0115, 0.0115]
    """
    variances = {
        cell: pooled_variance([row.by_seed for row in rows if row.cell == cell]) for cell in {row.cell for row in rows}
    }
    counts = [sum(map(math.isfinite, row.by_seed)) for row in rows]
    return [
        replace(row, error=math.sqrt(variances[row.cell] / count)) if count > 1 else row
        for row, count in zip(rows, counts, strict=True)
    ]


def pooled_variance(by_seed: Iterable[Sequence[float]]) -> float:
    """The variance over seeds of losses, the mean over designs of which it is known; NaN if it is of none.

    >>> pooled_variance([(0.0, 0.02), (0.1, 0.1, math.nan), (0.0,)])
    0.0001
    """
    finite = [[loss for loss in losses if math.isfinite(loss)] for losses in by_seed]
    variances = [np.var(losses, ddof=1) for losses in finite if len(losses) > 1]
    return float(np.mean(variances)) if variances else math.nan


def seeds_needed(by_seed: Sequence[Sequence[float]], error: float, most: int) -> int:
    """With how many seeds in all the standard error of a loss is expected to be so small; at most so many.

    by_seed: losses of a first stage, by design.

    Source: C. Stein, A two-sample test for a linear hypothesis whose power is independent of the variance (1945).

    >>> seeds_needed([(0.0, 0.02, 0.04)], error=0.01, most=10), seeds_needed([(0.0, 0.2, 0.4)], error=0.01, most=10)
    (4, 10)
    """
    there, variance = max(map(len, by_seed)), pooled_variance(by_seed)
    return there if math.isnan(variance) else min(max(there, math.ceil(variance / error**2)), max(there, most))


def seeds_losses(curves: Mapping[str, Mapping[str, Sequence[float]]], budget: int, design: str) -> list[float]:
    """The loss of every seed: of the mean Dice of the last tenth of the epochs. Curves begin at epoch 0.

    >>> curves = {"model1": {"0": [0.0, 0.8], "1": [0.0, 0.8]}, "depth1": {"0": [0.0, 0.7], "1": [0.0, 0.0]}}
    >>> [round(loss, 3) for loss in seeds_losses(curves, 1, "depth1")]
    [0.1, nan]
    """

    def score(of: str, seed: str) -> float:
        dice = float(np.mean(curves[of][seed][: budget + 1][-max(1, budget // SCORED_SHARE) :]))
        return dice if dice >= UNLEARNT_DICE else math.nan

    return [score("model1", seed) - score(design, seed) for seed in sorted(curves["model1"], key=int)]


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
        BITS: _number(values["bits"]),
        SILENCED: float(values["silenced"]),
        "taylor": float(values["taylor"]),
        TRAINED_ON: float(gaps[epochs_trained_on(budget)]),
        "trained on for 15 %": float(gaps[-1]),
        "trained on, extrapolated": float(gaps[-1] * falls),
        "a fifth of a retraining": curves["model1"][first][early] - curves[design][first][early],
    }


def kinds_of(predictor: str) -> tuple[bool | None, ...]:
    """The kinds of designs that have lines of their own, as `LossLine.keeps_skips` names them.

    >>> kinds_of("silenced"), kinds_of("trained on for 15 %"), kinds_of("trained on or probed")
    ((None,), (False, True), (None,))
    """
    first, *others = names_of(predictor)[0]
    return (False, True) if first.startswith(TRAINED_ON) and not others else (None,)


def names_of(predictor: str) -> tuple[tuple[str, ...], ...]:
    """The predictors of which one is the mean of the least, as in `LossLine`.

    >>> names_of("trained on and probed or silenced"), names_of("bits")
    ((('trained on',), ('probed', 'silenced')), (('bits',),))
    """
    return tuple(tuple(group.split(LEAST)) for group in predictor.split(MEAN))


def value_of(row: Row, predictor: str) -> float:
    """A predictor, or one made of several, of a design; NaN if one is not known."""
    return mean_of_least(names_of(predictor), row.values)


def fitted(rows: Sequence[Row], predictor: str, keeps_skips: bool | None = None) -> LossLine:
    """The line of designs that lack levels alone, of those that lack skips, or of all, by maximum likelihood; tasks weigh the
    same. Rows in which the predictor is not known are left out.

    The measured loss is off the line by what a network is, of a scale that is fitted, by what its retrainings vary, and by how
    much the Dice of the run jumps, of scales that are known. What is supposed of the scales weighs as much as a task does: few
    tasks leave a scale at 0.

    Source: a two-piece law, as of Fernández & Steel (JASA 93:359, 1998), of Student's, which outlying tasks move little.

    >>> exact = [Row(f"task{k % 5}", "unet", 60, f"{k}", 0.01 + 0.3 * k / 50, {"x": k / 50}, error=0.0005) for k in range(50)]
    >>> line = fitted(exact, "x")
    >>> round(line.intercept, 2), round(line.slope, 2)
    (0.01, 0.3)
    """
    alike = [row for row in rows if keeps_skips in (None, row.keeps_skips)]
    measured = [row for row in alike if math.isfinite(value_of(row, predictor))]
    x, y = np.array([(value_of(row, predictor), row.loss) for row in measured]).reshape(-1, 2).T
    errors = np.array([math.hypot(row.error, row.error_of_run) for row in measured])
    sizes = {task: sum(row.task == task for row in measured) for task in {row.task for row in measured}}
    weights = np.array([1 / sizes[row.task] for row in measured])

    def line(parameters: Array) -> LossLine:
        intercept, *logs = parameters
        slope, *scales = np.exp(np.clip(logs, *LOGS))
        above, below = tuple(map(float, scales[:2])), tuple(map(float, scales[2:]))
        return LossLine(names_of(predictor), keeps_skips, float(intercept), float(slope), above, below)

    def cost(parameters: Array) -> float:
        tried = line(parameters)
        off = y - tried.intercept - tried.slope * x
        above, below = (
            np.hypot(start + growth * np.maximum(0, x), errors) for start, growth in (tried.above, tried.below)
        )
        densities = _log_student(off / np.where(off > 0, above, below)) - np.log((above + below) / 2)
        far = np.log(np.maximum([*tried.above, *tried.below], math.exp(LOGS[0]))) - np.log(SCALES * 2)
        return -float(weights @ densities) + float(far @ far) / 2

    starts = [np.array([0.0, *np.log([slope, *SCALES, *SCALES])]) for slope in (0.05, 0.3, 1.0)]
    optima = [
        optimize.minimize(cost, start, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-9})
        for start in starts
    ]
    return line(min(optima, key=lambda each: each.fun).x)


def _log_student(values: Array) -> Array:
    """The logarithm of the density of Student's law, of which scipy's checks take ten times as long.

    >>> np.allclose(_log_student(np.array([0.0, -1.5, 9.0])), stats.t.logpdf([0.0, -1.5, 9.0], FREEDOM))
    True
    """
    return AT_ZERO - (FREEDOM + 1) / 2 * np.log1p(values**2 / FREEDOM)


def is_covered(interval: Interval, row: Row) -> bool:
    """Whether a loss lies within an interval, as far as the row's retrainings can tell."""
    off = row.loss - interval.value
    reach = interval.high - interval.value if off > 0 else interval.value - interval.low
    return abs(off) <= math.hypot(reach, BEYOND_NORMAL * row.error)


@dataclass(frozen=True)
class Judged:
    """How well losses are predicted on tasks that no fit has seen; shares of designs, each task weighing the same.

    ranks: Spearman's correlation with the retrained loss within a cell, over cells of three designs or more. covered: losses in
    the interval, as far as their retrainings tell; strictly: the mean of the retrainings; of_needed: of those designs that lose
    more than the margin. right, wrong: decided so; the rest is undecided.
    """

    name: str
    ranks: float
    covered: float
    strictly: float
    of_needed: float
    right: float
    wrong: float
    width: float


def lines_of(rows: Sequence[Row], predictors: Iterable[str]) -> list[LossLine]:
    """All lines of some predictors that are known of any row."""
    known = [name for name in predictors if any(math.isfinite(value_of(row, name)) for row in rows)]
    return [fitted(rows, name, keeps_skips) for name in known for keeps_skips in kinds_of(name)]


def left_out_lines(rows: Sequence[Row], predictors: Iterable[str]) -> dict[str, list[LossLine]]:
    """By task, the lines of all other tasks."""
    names = list(predictors)
    return {
        task: lines_of([row for row in rows if row.task != task], names) for task in sorted({row.task for row in rows})
    }


def predicted(rows: Sequence[Row], predictor: str, lines: Mapping[str, Sequence[LossLine]]) -> Predicted:
    """Every row in which a predictor is known, with the loss that a line of other tasks expects. lines: by task."""
    return [
        (row, line.loss(value_of(row, predictor), more_error=BEYOND * row.error_of_run))
        for row in rows
        for line in lines[row.task]
        if line.predictors == names_of(predictor)
        and line.is_for(row.keeps_skips)
        and math.isfinite(value_of(row, predictor))
    ]


def judged(name: str, losses: Predicted, decisions: Sequence[Decision] | None = None) -> Judged:
    """How well losses are predicted. decisions: by default those of the intervals."""
    if decisions is None:
        decisions = [decided_loss(interval, MARGIN) for _, interval in losses]
    ranks = []
    for cell in {row.cell for row, _ in losses}:
        of_cell = [(row.loss, interval.value) for row, interval in losses if row.cell == cell]
        if len(of_cell) >= 3 and len({loss for loss, _ in of_cell}) > 1 and len({value for _, value in of_cell}) > 1:
            ranks.append(float(stats.spearmanr(*zip(*of_cell, strict=True)).statistic))

    def share(holds: Iterable[float], rows: Sequence[Row]) -> float:
        by_task: dict[str, list[float]] = {}
        for row, value in zip(rows, holds, strict=True):
            by_task.setdefault(row.task, []).append(float(value))
        return float(np.mean([np.mean(values) for values in by_task.values()])) if by_task else math.nan

    rows = [row for row, _ in losses]
    needed = [(row, interval) for row, interval in losses if row.truth == "needed"]
    return Judged(
        name,
        float(np.mean(ranks)) if ranks else math.nan,
        share((is_covered(interval, row) for row, interval in losses), rows),
        share((interval.low <= row.loss <= interval.high for row, interval in losses), rows),
        share((is_covered(interval, row) for row, interval in needed), [row for row, _ in needed]),
        share((decision == row.truth for row, decision in zip(rows, decisions, strict=True)), rows),
        share((decision not in (row.truth, "undecided") for row, decision in zip(rows, decisions, strict=True)), rows),
        share((interval.high - interval.low for _, interval in losses), rows),
    )
