"""Of few validation images, and of a training whose Dice jumps, less is known of what a retrained network loses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from unetscope.analysis.expected_losses import LossLine
from unetscope.analysis.loss_verdicts import expected_losses
from unetscope.analysis.run_errors import LEAST_SPREAD, OF_A_STEP, UNKNOWN, error_of_run, error_over_images, mean_step
from unetscope.table.losses import Silenced
from unetscope.table.parts import Variant
from unetscope.table.records import EpochRecord


def records(dice: np.ndarray, last: int = 10) -> list[EpochRecord]:
    """Of epochs up to `last`, the Dice of every image, dice [epochs, images]."""
    first = last - len(dice) + 1
    return [
        EpochRecord(first + place, 0.1, 0.9, 0.1, 0.8, 1.0, dice_per_image=tuple(row)) for place, row in enumerate(dice)
    ]


def test_as_many_images_as_the_lines_are_of_add_nothing() -> None:
    rng = np.random.default_rng(0)
    assert error_over_images(records(rng.random((2, 100))), 10) == 0
    assert error_over_images(records(rng.random((2, 400))), 10) == 0
    assert error_over_images(records(rng.random((2, 99))), 10) > 0


def test_fewer_images_add_the_error_of_their_mean() -> None:
    rng = np.random.default_rng(1)
    for images in (4, 12, 60):
        step = rng.normal(0, 0.05, images)
        dice = np.stack([np.full(images, 0.8), 0.8 + step])
        expected = stats.t.ppf(0.95, images - 1) * max(LEAST_SPREAD, step.std(ddof=1)) * math.sqrt(1 / images - 1 / 100)
        assert error_over_images(records(dice), 10) == pytest.approx(expected, rel=1e-4)


def test_the_least_spread_holds_where_the_dice_stands_still() -> None:
    dice = np.full((2, 10), 0.75)
    assert error_over_images(records(dice), 10) == pytest.approx(1.8331 * LEAST_SPREAD * 0.3, rel=1e-4)


def test_images_of_one_group_count_once() -> None:
    """Ten images of five patients, two alike of each, tell as much as five."""
    rng = np.random.default_rng(2)
    of_patients = np.stack([np.full(5, 0.8), 0.8 + rng.normal(0, 0.05, 5)])
    alone = error_over_images(records(of_patients), 10)
    twice = records(np.repeat(of_patients, 2, axis=1))
    assert error_over_images(twice, 10, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]) == pytest.approx(alone)
    assert error_over_images(twice, 10) < 0.8 * alone


def test_images_without_a_label_do_not_count() -> None:
    rng = np.random.default_rng(3)
    dice = rng.random((2, 8))
    empty = np.insert(dice, 3, math.nan, axis=1)
    assert error_over_images(records(empty), 10) == pytest.approx(error_over_images(records(dice), 10))
    groups = [0, 0, 1, 9, 1, 2, 2, 3, 3]
    without = [0, 0, 1, 1, 2, 2, 3, 3]
    assert error_over_images(records(empty), 10, groups) == pytest.approx(error_over_images(records(dice), 10, without))


def test_of_one_image_or_group_nothing_is_known_and_without_any_nothing_is_added() -> None:
    dice = np.array([[0.5, 0.6, 0.7], [0.6, 0.7, 0.5]])
    assert error_over_images(records(dice[:, :1]), 10) == UNKNOWN
    assert error_over_images(records(dice), 10, [4, 4, 4]) == UNKNOWN
    assert error_over_images(records(np.full((2, 2), math.nan)), 10) == UNKNOWN
    assert error_over_images([EpochRecord(10, 0.1, 0.9, 0.1, 0.8, 1.0)], 10) == 0
    assert error_over_images([], 10) == 0


def test_what_few_images_add_widens_an_expected_loss_and_leaves_its_middle() -> None:
    line = LossLine((("silenced",),), None, 0.001, 0.1, (0.004, 0.1), (0.004, 0.1))
    silenced = [Silenced(10, Variant("without-skip1", 3, ()), 0.0), Silenced(20, Variant("without-skip1", 3, ()), 0.0)]
    losses = expected_losses(silenced, None, depth=3, without=(), margin=0.02, lines=[line], more_error={10: 0.03})
    few, many = losses[10].losses[0].loss, losses[20].losses[0].loss
    assert few.value == many.value == 0.001
    assert few.high - few.value == pytest.approx(math.hypot(many.high - many.value, 0.03))
    assert [losses[epoch].losses[0].decision(0.02) for epoch in (10, 20)] == ["undecided", "redundant"]


@pytest.mark.parametrize("images", [6, 12, 24, 48])
def test_intervals_hold_the_mean_of_many_images(images: int) -> None:
    """Of losses that vary over images as the Dice does from epoch to epoch, in nine of ten samples."""
    rng = np.random.default_rng(images)
    held = []
    for _ in range(2000):
        losses, steps = rng.normal(0.01, 0.04, (2, images))
        error = error_over_images(records(np.stack([np.full(images, 0.5), 0.5 + steps])), 10)
        held.append(abs(losses.mean() - 0.01) <= math.hypot(error, 1.645 * 0.04 / 10))
    assert 0.84 <= np.mean(held) <= 0.94


def test_a_dice_that_jumps_widens_what_is_expected() -> None:
    """By how much it jumps over the epochs that the score is of, whatever it did before."""
    dice = np.array([0.1, *[0.8] * 50, *[0.8, 0.9] * 5])
    jumping = [
        replace(record, validation_dice=mean) for record, mean in zip(records(dice[:, None], 60), dice, strict=True)
    ]
    assert mean_step(jumping, 60) == pytest.approx(0.1)
    assert mean_step(jumping, 40) == 0
    assert error_of_run([replace(each, dice_per_image=()) for each in jumping], 60) == pytest.approx(
        stats.t.ppf(0.95, 4) * OF_A_STEP * 0.1
    )
    both = math.hypot(UNKNOWN, stats.t.ppf(0.95, 4) * OF_A_STEP * 0.1)
    assert error_of_run(jumping, 60) == pytest.approx(both)  # of one image nothing is known
    assert mean_step([], 60) == mean_step(jumping[-1:], 60) == 0
    assert mean_step([replace(record, validation_dice=math.nan) for record in jumping], 60) == 0


def test_of_epochs_that_are_recorded_now_and_then_the_last_two_are_compared() -> None:
    dice = np.random.default_rng(4).random((3, 8))
    sparse = [
        replace(record, epoch=5 * place, validation_dice=0.5 + 0.1 * place)
        for place, record in enumerate(records(dice))
    ]
    assert mean_step(sparse, 10) == mean_step(sparse, 12) == pytest.approx(0.1)
    assert error_over_images(sparse, 10) == pytest.approx(error_over_images(records(dice[1:]), 10))
    assert error_over_images(sparse[:1], 10) == mean_step(sparse[:1], 10) == 0
