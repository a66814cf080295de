"""Losses of Dice are predicted from numbers of which the relation is planted, and judged on tasks that were left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from calibration.verdict_fit import UNKNOWN, Judged, Row, fitted, is_covered, judged, left_out_lines, predicted, rows_of

from unetscope.analysis.expected_losses import BEYOND, FREEDOM, LossLine
from unetscope.table.intervals import Interval
from unetscope.table.losses import TRAINED_ON, decided_loss


def planted(
    tasks: int, *, noise: float, seed: int, slope: float = 0.6, designs: int = 12, error: float = 0.002
) -> list[Row]:
    """Rows whose loss is a share of `told`, off it by Student's law and by a known error; `guess` tells nothing."""
    random = np.random.default_rng(seed)
    rows = []
    for task in range(tasks):
        for design in range(designs):
            told = float(random.exponential(0.1))
            values = {"told": told, "guess": float(random.exponential(0.1))}
            off = noise * float(random.standard_t(FREEDOM)) + error * float(random.standard_normal())
            rows.append(Row(f"task{task}", "unet", 18, f"design{design}", slope * told + off, values, error=error))
    return rows


def of_others(rows: list[Row], predictor: str) -> Judged:
    return judged(predictor, predicted(rows, predictor, left_out_lines(rows, [predictor])))


def test_shares_are_of_intervals_and_of_decisions() -> None:
    rows = [Row(f"task{k}", "unet", 18, "depth1", loss, {}, error=0.01) for k, loss in enumerate((0.0, 0.025, 0.2))]
    found = judged("said", [(row, Interval(0.0, -0.02, 0.02)) for row in rows], ["redundant", "redundant", "needed"])
    assert (found.covered, found.strictly, found.of_needed) == pytest.approx((2 / 3, 1 / 3, 1 / 2))
    assert (found.right, found.wrong, found.width) == pytest.approx((2 / 3, 1 / 3, 0.04))


@pytest.mark.long
def test_what_tells_is_told_from_what_does_not() -> None:
    rows = planted(8, noise=0.003, seed=0)
    told, guess = of_others(rows, "told"), of_others(rows, "guess")
    assert told.ranks > 0.9
    assert abs(guess.ranks) < 0.4
    assert told.right > 0.75 > guess.right
    assert told.width < 0.05 < guess.width


@pytest.mark.long
@pytest.mark.parametrize(("noise", "error"), [(0.02, 0.002), (0.002, 0.03), (0.02, 0.02)])
def test_intervals_hold_nine_of_ten_losses_of_tasks_that_were_left_out(noise: float, error: float) -> None:
    """Whether losses are off the line by themselves, or their retrainings are: what these vary by is not in the interval."""
    found = [of_others(planted(8, noise=noise, error=error, seed=seed), "told") for seed in range(4)]
    assert 0.85 <= np.mean([each.covered for each in found]) <= 0.97
    width = np.mean([each.width for each in found])
    assert width < 4 * BEYOND * max(noise, 0.01)


@pytest.mark.long
def test_an_interval_is_wider_where_tasks_differ() -> None:
    """Of tasks with another share each, the others do not tell which it is."""
    alike = planted(8, noise=0.005, seed=1)
    mixed = [replace(row, loss=row.loss * (0.2 + 0.2 * int(row.task[4:]))) for row in alike]
    assert of_others(mixed, "told").width > 1.5 * of_others(alike, "told").width
    assert of_others(mixed, "told").covered > 0.75


def test_every_task_weighs_the_same() -> None:
    rows = planted(4, noise=0.001, seed=2, slope=0.5)
    crowded = [replace(row, task="large") for row in planted(1, noise=0.001, seed=3, slope=1.0, designs=400)]
    assert fitted([*rows, *crowded], "told").slope == pytest.approx(0.5, abs=0.05)  # as four tasks of five say


@pytest.mark.long
def test_a_task_is_judged_by_a_line_that_it_has_no_part_in() -> None:
    rows = planted(5, noise=0.002, seed=4)
    changed = [replace(row, loss=row.loss + 10) if row.task == "task3" else row for row in rows]
    before, after = ([line.slope for line in left_out_lines(some, ["told"])["task3"]] for some in (rows, changed))
    assert before == after


@pytest.mark.long
def test_networks_that_lack_levels_alone_have_a_line_of_their_own_when_they_are_trained_on() -> None:
    skips = planted(6, noise=0.001, seed=6, slope=0.6)
    levels = [replace(row, design=f"depth{row.design[6:]}") for row in planted(6, noise=0.001, seed=7, slope=0.1)]
    rows = [replace(row, values={TRAINED_ON: row.values["told"], **row.values}) for row in (*skips, *levels)]
    apart, together = (
        {line.keeps_skips: line.slope for line in left_out_lines(rows, [name])["task0"]}
        for name in (TRAINED_ON, "told")
    )
    assert apart == pytest.approx({False: 0.6, True: 0.1}, abs=0.03)
    assert together.keys() == {None}


@pytest.mark.long
def test_what_is_not_known_of_a_design_is_not_predicted() -> None:
    rows = planted(4, noise=0.002, seed=5)
    unknown = replace(rows[0], values={"told": float("nan"), "guess": 0.1})
    lines = [fitted(some, "told") for some in ([unknown, *rows[1:]], rows[1:])]
    assert lines[0] == lines[1]
    some = [unknown, *rows[1:]]
    assert unknown not in [row for row, _ in predicted(some, "told", left_out_lines(some, ["told"]))]


def test_a_loss_that_its_retrainings_hardly_tell_may_lie_outside() -> None:
    line = LossLine((("told",),), None, 0.0, 1.0, (0.001, 0.0), (0.001, 0.0))
    row = Row("task", "unet", 18, "depth1", 0.1, {}, error=0.01)
    assert not is_covered(line.loss(0.05), row)
    assert is_covered(line.loss(0.05), replace(row, error=0.05))
    assert is_covered(line.loss(0.05), Row("task", "unet", 18, "depth1", 0.1, {}))  # as little known as anything


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
        "bits": None, "silenced": 0.4, "taylor": 0.1, "curve": [0.4, 0.5, 0.6, 0.7], "curve of the whole": [0.8] * 4,
        "verdict": "redundant", "gap": {"value": 0.1, "low": 0.05, "high": 0.15},
    }  # fmt: skip
    outcomes = {
        "depth1": {"loss": 0.1, "low": 0.06, "high": 0.16, "decision": "needed"},
        "depth2": {"loss": float("nan"), "decision": "undecided"},
    }
    probed = {"10": {"depth1": 0.03, "depth2": None}}
    kept = {"losses": {"budgets": {"10": outcomes}, "curves": curves}, "10-depth1": values, "probed": probed}
    (row,) = rows_of(kept, "ring", "unet")
    assert (row.task, row.design, row.loss, row.truth) == ("ring", "depth1", 0.1, "needed")
    assert (row.by_bits, row.most, row.retrained) == ("redundant", 0.15, "needed")
    assert row.by_seed == pytest.approx([0.1])
    assert row.error == UNKNOWN  # of one seed
    assert np.isnan(row.values["bits"])
    known = {name: round(value, 6) for name, value in row.values.items() if name != "bits"}
    assert known == {
        "silenced": 0.4, "taylor": 0.1, "trained on": 0.1, "trained on for 15 %": 0.1,
        "trained on, extrapolated": 0.05, "a fifth of a retraining": 0.1, "probed": 0.03,
    }  # fmt: skip
