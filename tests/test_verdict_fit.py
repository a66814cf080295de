"""Losses of Dice are predicted from numbers of which the relation is planted, and judged on tasks that were left out."""

from __future__ import annotations

import numpy as np
import pytest
from calibration.verdict_fit import HIGH, LOW, Row, fitted, judged, quantile_line, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import QuantileRegressor

from unetscope.analysis.expected_losses import BENDS, bent
from unetscope.table.intervals import Interval
from unetscope.table.losses import decided_loss


def planted(tasks: int, *, noise: float, seed: int, scale: float = 0.6, designs: int = 12) -> list[Row]:
    """Rows whose loss is a share of the predictor `told`, with noise; `guess` tells nothing."""
    random = np.random.default_rng(seed)
    rows = []
    for task in range(tasks):
        for design in range(designs):
            told = float(random.exponential(0.1))
            values = {"told": told, "guess": float(random.exponential(0.1))}
            loss = scale * told + noise * float(random.standard_normal())
            rows.append(Row(f"task{task}", "unet", 18, f"design{design}", loss, values))
    return rows


@pytest.mark.parametrize("quantile", [LOW, 0.5, HIGH])
def test_a_quantile_line_is_that_of_an_independent_library(quantile: float) -> None:
    """Where the slopes are positive by themselves, so that no constraint binds."""
    random = np.random.default_rng(0)
    values = random.uniform(0, 0.5, 150)
    losses = 0.3 * values + 0.4 * np.maximum(0, values - 0.1) + 0.02 * random.standard_normal(150)
    columns = bent(values)
    ours = columns @ quantile_line(columns, losses, np.ones(150), quantile)
    twin = QuantileRegressor(quantile=quantile, alpha=0, fit_intercept=False, solver="highs").fit(columns, losses)

    def pinball(predicted: np.ndarray) -> float:
        off = losses - predicted
        return float(np.maximum(quantile * off, (quantile - 1) * off).mean())

    assert pinball(ours) == pytest.approx(pinball(twin.predict(columns)), rel=0.02)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), quantile=st.sampled_from([LOW, 0.5, HIGH]))
def test_a_quantile_line_never_falls(seed: int, quantile: float) -> None:
    random = np.random.default_rng(seed)
    values, losses = random.uniform(-0.1, 0.6, 30), random.normal(size=30)
    coefficients = quantile_line(bent(values), losses, np.ones(30), quantile)
    along = bent(np.linspace(-0.2, 1, 60)) @ coefficients
    assert (np.diff(along) >= -1e-9).all()
    assert len(coefficients) == 2 + len(BENDS)


def test_what_tells_is_told_from_what_does_not() -> None:
    rows = planted(8, noise=0.003, seed=0)
    told, guess = judged(rows, ["told"]), judged(rows, ["guess"])
    assert told.ranks > 0.9
    assert abs(guess.ranks) < 0.4
    assert told.right > 0.75 > guess.right
    assert told.width < 0.03 < guess.width


def test_intervals_hold_nine_of_ten_losses_of_tasks_that_were_left_out() -> None:
    covered = [judged(planted(8, noise=0.02, seed=seed), ["told"]).covered for seed in range(3)]
    assert 0.85 <= np.mean(covered) <= 0.96


def test_an_interval_is_wider_where_tasks_differ() -> None:
    """Of tasks with another share each, the others do not tell which it is."""
    alike = planted(8, noise=0.005, seed=1)
    mixed = [
        Row(row.task, row.network, row.budget, row.design, row.loss * (0.2 + 0.2 * int(row.task[4:])), row.values)
        for row in alike
    ]
    assert judged(mixed, ["told"]).width > 1.5 * judged(alike, ["told"]).width
    assert judged(mixed, ["told"]).covered > 0.75


def test_every_task_weighs_the_same() -> None:
    rows = planted(4, noise=0.0, seed=2, scale=0.5)
    large = planted(1, noise=0.0, seed=3, scale=1.0, designs=400)
    crowded = [
        Row("large", row.network, row.budget, f"{row.design}-{k}", row.loss, row.values) for k, row in enumerate(large)
    ]
    middle = fitted([*rows, *crowded], ["told"]).loss({"told": 0.2})
    assert middle.value == pytest.approx(0.1, abs=0.01)  # as four tasks of five say


@pytest.mark.parametrize(
    ("predicted", "answer"),
    [
        (Interval(0.0, -0.01, 0.019), "redundant"),
        (Interval(0.1, 0.021, 0.2), "needed"),
        (Interval(0.02, 0.01, 0.03), "undecided"),
        (Interval(-0.05, -0.1, 0.0), "redundant"),
        (Interval(0.01, -0.1, 0.1), "undecided"),
    ],
)
def test_an_interval_decides_if_it_is_on_one_side_of_the_margin(predicted: Interval, answer: str) -> None:
    assert decided_loss(predicted, 0.02) == answer


def test_rows_are_those_of_a_cell() -> None:
    curves = {"model1": {"0": [0.1] * 10 + [0.8]}, "depth1": {"0": [0.0] * 10 + [0.7]}}
    values = {
        "bits": None, "silenced": 0.4, "taylor": 0.1, "curve": [0.4, 0.5, 0.6, 0.7],
        "curve of the whole": [0.8] * 4, "verdict": "redundant", "gap": {"value": 0.1, "low": 0.05, "high": 0.15},
    }  # fmt: skip
    kept = {
        "losses": {
            "budgets": {
                "10": {
                    "depth1": {"loss": 0.1, "decision": "needed"},
                    "depth2": {"loss": float("nan"), "decision": "undecided"},
                }
            },
            "curves": curves,
        },
        "10-depth1": values,
    }
    (row,) = rows_of(kept, "ring", "unet")
    assert (row.task, row.design, row.loss, row.truth) == ("ring", "depth1", 0.1, "needed")
    assert (row.said, row.most, row.retrained) == ("redundant", 0.15, "needed")
    assert np.isnan(row.values["bits"])
    known = {name: round(value, 6) for name, value in row.values.items() if name != "bits"}
    assert known == {
        "silenced": 0.4, "taylor": 0.1, "trained on": 0.1, "trained on for 15 %": 0.1,
        "trained on, extrapolated": 0.05, "a fifth of a retraining": 0.1,
    }  # fmt: skip
