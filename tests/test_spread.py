"""The spread of scores pooled over variants, the score of a training, and decisions at several looks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from calibration.seeds import NOISES, by_looks
from numpy.typing import NDArray
from scipy import stats

from unetscope.analysis.looks import LOOKS, SeedPlan, level_of_added, look_level
from unetscope.analysis.outcomes import Verification
from unetscope.analysis.seed_choice import seeds_to_add
from unetscope.analysis.spread import expected_half_width, pooled_spread, seeds_for
from unetscope.analysis.trainings import Training
from unetscope.table.parts import Variant, parts_named
from unetscope.table.records import EpochRecord

NAMES = ("model1", "model2", "model3", "model4", "no-skips")
Scores = dict[str, dict[int, float]]


def by_name(values: NDArray[np.float64], names: Sequence[str] = NAMES) -> Scores:
    """Scores [variants, seeds] by variant and seed."""
    return {name: dict(enumerate(row.tolist())) for name, row in zip(names, values, strict=False)}


def slow_spread(scores: Scores) -> tuple[float, float, dict[str, float], dict[str, float]]:
    """The same by dummy variables and the pseudoinverse, sum by sum."""
    cells = [(name, seed) for name in scores for seed in scores[name]]
    names, seeds = sorted(scores), sorted({seed for _, seed in cells})
    design = np.array([[float(name == n) for n in names] + [float(seed == s) for s in seeds] for name, seed in cells])
    y = np.array([scores[name][seed] for name, seed in cells])
    hat = design @ np.linalg.pinv(design)
    left = (y - hat @ y) ** 2
    freedom = len(cells) - np.linalg.matrix_rank(design)
    pooled = left.sum() / freedom
    variances, freedoms = {}, {}
    for name in names:
        own = [place for place, (n, _) in enumerate(cells) if n == name]
        freedoms[name] = sum(1 - hat[place, place] for place in own)
        variances[name] = (0.25 * pooled + sum(left[place] for place in own)) / (0.25 + freedoms[name])
    return math.sqrt(pooled), float(freedom), variances, freedoms


def test_with_two_variants_the_interval_is_that_of_paired_differences() -> None:
    rng = np.random.default_rng(0)
    for seeds in (2, 3, 4, 7, 12):
        values = rng.normal(0.8, 0.02, (2, seeds)) + rng.normal(0, 0.1, seeds)
        expected = stats.ttest_1samp(values[1] - values[0], 0).confidence_interval(0.95)
        half = pooled_spread(by_name(values)).half_width("model2", "model1", seeds)
        assert half == pytest.approx((expected.high - expected.low) / 2)


@pytest.mark.parametrize(
    "lost",
    [(), ((1, 0),), ((0, 2), (3, 1)), ((4, 0), (4, 1)), ((0, 3), (1, 3), (2, 3), (3, 3))],
    ids=["all", "one lost", "two lost", "one variant has two", "a seed of one variant"],
)
def test_the_pooled_spread_is_that_of_the_slow_twin(lost: Sequence[tuple[int, int]]) -> None:
    values = np.random.default_rng(1).normal(0.8, 0.02, (5, 4))
    scores = by_name(values)
    for variant, seed in lost:
        del scores[NAMES[variant]][seed]
    spread = pooled_spread(scores)
    residual, freedom, variances, freedoms = slow_spread(scores)
    assert (spread.residual, spread.freedom) == (pytest.approx(residual), pytest.approx(freedom))
    assert spread.variances == pytest.approx(variances)
    assert spread.freedoms == pytest.approx(freedoms, abs=1e-9)


def test_what_varies_with_the_seed_in_all_variants_alike_is_no_spread() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(0.8, 0.01, (5, 3))
    shifted = values + np.array([0.0, -0.2, 0.1]) + rng.normal(0, 0.1, (5, 1))
    assert pooled_spread(by_name(shifted)).residual == pytest.approx(pooled_spread(by_name(values)).residual)


def test_where_nothing_tells_the_spread_there_is_no_interval() -> None:
    apart = {"model1": {0: 0.8, 1: 0.9}, "model2": {2: 0.7}}  # no seed in common
    for scores in ({}, by_name(np.ones((3, 1))), by_name(np.ones((1, 4))), by_name(np.full((3, 4), 0.9)), apart):
        spread = pooled_spread(scores)
        assert not spread.residual > 0
        assert math.isnan(spread.half_width("model2", "model1", 4))
    equal_but_one = np.full((3, 2), 0.9999)
    equal_but_one[2, 1] -= 1e-4
    assert 0 < pooled_spread(by_name(equal_but_one)).half_width("model2", "model1", 2) < 0.01
    assert math.isnan(pooled_spread(by_name(equal_but_one)).half_width("model2", "model1", 1))


# How the variants differ in spread, and the least coverage of 95 % intervals: of the variant that is worst off.
SPREADS: dict[str, tuple[Callable[[np.random.Generator, int], NDArray[np.float64]], float]] = {
    "alike": (lambda rng, seeds: rng.normal(size=(5, seeds)), 0.94),
    "one with four times the variance": (
        lambda rng, seeds: rng.normal(size=(5, seeds)) * [[1], [2], [1], [1], [1]],
        0.93,
    ),
    "one with ten times the variance": (
        lambda rng, seeds: rng.normal(size=(5, seeds)) * [[1], [10**0.5], [1], [1], [1]],
        0.92,
    ),
    "the reference with ten times the variance": (
        lambda rng, seeds: rng.normal(size=(5, seeds)) * [[10**0.5], [1], [1], [1], [1]],
        0.92,
    ),
    "each its own": (lambda rng, seeds: rng.normal(size=(5, seeds)) * np.geomspace(0.3, 3, 5)[:, None], 0.925),
}


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("kind", SPREADS)
def test_intervals_cover_also_when_variants_differ_in_spread(kind: str, seeds: int) -> None:
    draw, least = SPREADS[kind]
    rng, repeats, covered = np.random.default_rng(seeds), 700, np.zeros(4)
    for _ in range(repeats):
        values = draw(rng, seeds) + rng.normal(0, 2, seeds)
        spread = pooled_spread(by_name(values))
        halves = [spread.half_width(name, "model1", seeds) for name in NAMES[1:]]
        covered += np.abs((values[1:] - values[0]).mean(axis=1)) <= halves
    assert covered.min() / repeats > least


def test_pooled_intervals_are_much_narrower_than_one_of_each_variant() -> None:
    rng = np.random.default_rng(3)
    for seeds, share in ((2, 0.6), (3, 0.85)):
        draws = [rng.normal(size=(7, seeds)) for _ in range(400)]
        pooled = [pooled_spread(by_name(d, [*NAMES, "a", "b"])).half_width("model2", "model1", seeds) for d in draws]
        own = [pooled_spread(by_name(d[:2])).half_width("model2", "model1", seeds) for d in draws]
        assert np.mean(pooled) < share * np.mean(own)


def test_the_expected_width_is_that_of_an_equal_spread() -> None:
    for variants, seeds in ((2, 3), (3, 4), (5, 2), (5, 3), (8, 6)):
        rng = np.random.default_rng(variants)
        widths = [
            pooled_spread(by_name(rng.normal(0, 0.013, (variants, seeds)), list("abcdefgh"))).half_width(
                "b", "a", seeds
            )
            for _ in range(500)
        ]
        assert np.median(widths) == pytest.approx(expected_half_width(seeds, variants, 0.013), rel=0.3)
    assert math.isnan(expected_half_width(1, 5, 0.013))
    assert math.isnan(expected_half_width(3, 1, 0.013))
    needed = seeds_for(0.02, 5, 0.013)
    assert needed is not None
    assert expected_half_width(needed, 5, 0.013) <= 0.02 < expected_half_width(needed - 1, 5, 0.013)
    assert seeds_for(0.02, 5, 10.0) is None
    assert seeds_for(0.02, 1, 0.013) is None


# The score of a training


def training(variant: str, seed: int, curve: Sequence[Sequence[float]], *, started: bool = True) -> Training:
    """curve: Dice of every image, by epoch."""
    loss = 0.2 if started else 0.5
    records = tuple(
        EpochRecord(epoch, 0.1, 0.5, 0.5 if epoch == 0 else loss, float(np.mean(dice)), 1.0, 0.9, tuple(dice))
        for epoch, dice in enumerate(curve)
    )
    return Training(variant, seed, records, 0.5, {"1": 0.0})


def test_a_training_is_scored_by_the_last_tenth_of_its_epochs() -> None:
    curve = np.random.default_rng(4).uniform(0.5, 0.9, (101, 3))
    scored = training("model1", 0, curve.tolist())
    for epoch, epochs in ((1, 1), (9, 1), (10, 1), (19, 1), (20, 2), (35, 3), (100, 10)):
        expected = curve[epoch - epochs + 1 : epoch + 1].mean(axis=0)
        assert scored.dice(epoch) == pytest.approx(expected)
    assert np.array_equal(scored.dice(19), curve[19])  # to the bit
    thinned = replace(scored, records=tuple(record for record in scored.records if record.epoch % 5 == 0))
    assert thinned.dice(100) == pytest.approx(curve[[95, 100]].mean(axis=0))


def test_a_training_without_dice_by_image_is_scored_by_their_mean() -> None:
    curve = np.random.default_rng(5).uniform(0.5, 0.9, (41, 3))
    scored = training("model1", 0, curve.tolist())
    older = replace(scored, records=tuple(replace(record, dice_per_image=()) for record in scored.records))
    assert older.dice(40) == pytest.approx([curve[37:].mean()])
    half = replace(scored, records=(*older.records[:39], *scored.records[39:]))
    assert half.dice(40) == pytest.approx(curve[39:].mean(axis=0))


# Looks


def held(scores: Scores, plans: dict[str, SeedPlan] | None = None, margin: float = 0.02) -> Verification:
    """Trainings of one epoch on two images whose mean is the score."""
    made = [
        training(name, seed, [[0.0, 0.0], [score - 1e-4, score + 1e-4]])
        for name, by_seed in scores.items()
        for seed, score in by_seed.items()
    ]
    variants = [Variant("model1", 4, ())]
    variants += [Variant(name, 4, parts_named([f"skip{place}"])) for place, name in enumerate(NAMES[1:], 1)]
    present = tuple(variant for variant in variants if variant.name in scores)
    return Verification(present, tuple(made), None, (1,), margin, plans or {})


def auto(names: Sequence[str] = NAMES) -> dict[str, SeedPlan]:
    return {name: SeedPlan(first=0, epochs=1) for name in names}


def test_the_errors_of_all_looks_together_are_those_of_one() -> None:
    assert sum(1 - look_level(count) for count in LOOKS) == pytest.approx(0.04)
    assert sum(1 - level_of_added(looks) for looks in range(1, 40)) / 2 == pytest.approx(0.05)
    assert level_of_added(1) == 0.95


def test_a_number_of_seeds_that_was_raised_after_a_look_widens_the_interval() -> None:
    scores = by_name(np.random.default_rng(6).normal(0.8, 0.01, (5, 4)))
    widths = [
        (outcome.difference.high - outcome.difference.low, outcome.level)
        for looks in (1, 2, 3)
        for outcome in [held(scores, {"model2": SeedPlan(looks)}).outcome("model2", 1)]
    ]
    assert widths == sorted(widths, key=lambda each: each[1])
    assert [level for _, level in widths] == [0.95, 0.975, 0.9875]
    assert " at 97.5 %)" in held(scores, {"model2": SeedPlan(2)}).outcome("model2", 1).text
    assert held(scores, {"model2": SeedPlan(2)}).outcome("model3", 1).level == 0.95


def test_a_variant_that_is_decided_stays_so_whatever_seeds_come_later() -> None:
    rng = np.random.default_rng(7)
    values = rng.normal(0.8, 0.01, (5, 16))
    values[1, :3] -= 0.4  # decided at the first look
    first, later = (held(by_name(values[:, :count]), auto()) for count in (3, 16))
    assert first.looks_taken("model2") == later.looks_taken("model2") == (3,)
    assert first.outcome("model2", 1) == later.outcome("model2", 1)
    assert later.outcome("model2", 1).decision == "needed"
    assert later.outcome("model2", 1).level == look_level(3)
    assert (" at 99.76 %) Dice, 3 pairs of seeds") in later.outcome("model2", 1).text


def test_before_the_first_look_nothing_is_compared() -> None:
    values = np.random.default_rng(8).normal(0.8, 0.01, (5, 2))
    values[1] -= 0.5
    outcome = held(by_name(values), auto()).outcome("model2", 1)
    assert (outcome.decision, outcome.text) == ("undecided", "it is compared from 3 seeds on")
    assert math.isnan(outcome.difference.low)
    unfinished = held(by_name(np.vstack([values, values])), {"model2": SeedPlan(first=0, epochs=60)})
    assert unfinished.looks_taken("model2") == ()


def added(verification: Verification, trainings: int) -> list[tuple[str, int]]:
    return seeds_to_add(verification, NAMES, first=0, epochs=1, trainings=trainings)


def test_seeds_are_added_where_the_interval_decides() -> None:
    nothing = Verification((), (), None, (), 0.02)
    assert added(nothing, 15) == [(name, seed) for seed in range(3) for name in NAMES]
    assert added(nothing, 8) == [(name, seed) for seed in range(3) for name in NAMES[:2]]
    assert added(nothing, 5) == []
    values = np.random.default_rng(9).normal(0.8, 0.01, (5, 3))
    values[1] -= 0.4
    values[2:] -= 0.03
    values[4] += 0.02
    verification = held(by_name(values), auto())
    assert verification.outcome("model2", 1).decision == "needed"
    open_ = [name for name in NAMES[2:] if verification.outcome(name, 1).decision == "undecided"]
    assert open_
    assert set(added(verification, 40)) == {(name, 3) for name in ("model1", *open_)}
    (nearest,) = {name for name, _ in added(verification, 17)} - {"model1"}  # the reference and one more
    assert nearest in open_
    assert added(verification, 16) == []
    decided = np.vstack([values[0], *[values[0] - 0.5 + 1e-3 * k * np.array([1, 0, -1]) for k in range(1, 5)]])
    assert added(held(by_name(decided), auto()), 99) == []
    many = held(by_name(np.random.default_rng(1).normal(0.78, 0.3, (5, 16))), auto())
    assert added(many, 999) == []


def test_a_variant_that_starts_less_often_gets_no_more_seeds() -> None:
    verification = held(by_name(np.random.default_rng(3).normal(0.8, 0.3, (2, 6))), auto())
    stalled = tuple(
        training(each.variant, each.seed, [[0.0, 0.0], [0.0, 0.0]], started=False) if each.variant == "model2" else each
        for each in verification.trainings
    )
    stuck = replace(verification, trainings=stalled)
    outcome = stuck.outcome("model2", 1)
    assert (outcome.decision, outcome.stalls, stuck.looks_taken("model2")) == ("undecided", True, (3, 4, 6))
    assert seeds_to_add(stuck, NAMES[:2], first=0, epochs=1, trainings=99) == []


def test_a_training_of_another_variant_tells_the_spread_too() -> None:
    values = np.random.default_rng(11).normal(0.8, 0.01, (5, 2))
    whole = held(by_name(values))
    chosen = {name: by_seed for name, by_seed in by_name(values).items() if name in NAMES[:2]}
    others = tuple(each for each in whole.trainings if each.variant not in chosen)
    assert replace(held(chosen), others=others).outcome("model2", 1) == whole.outcome("model2", 1)
    assert held(chosen).outcome("model2", 1).difference != whole.outcome("model2", 1).difference


def test_seeds_that_one_variant_lacks_are_not_compared() -> None:
    scores = by_name(np.random.default_rng(12).normal(0.8, 0.01, (3, 4)))
    del scores["model2"][0], scores["model1"][3]
    outcome = held(scores).outcome("model2", 1)
    shared = [scores["model2"][seed] - scores["model1"][seed] for seed in (1, 2)]
    assert (outcome.pairs, outcome.difference.value) == (2, pytest.approx(np.mean(shared)))
    assert outcome.residual == pytest.approx(slow_spread(scores)[0])


@pytest.mark.parametrize(
    "sequences", [6, pytest.param(200, marks=pytest.mark.slow)], ids=["a few", "enough to tell the level"]
)
@pytest.mark.parametrize("noise", ["all alike", "one variant with 10 times the variance"])
def test_added_seeds_keep_the_level_at_the_margin_and_save_trainings(noise: str, sequences: int) -> None:
    """Losses at the margin are the hardest not to decide wrongly; large ones need three seeds."""
    runs = [by_looks((0.02,) * 4, NOISES[noise], 80, seed) for seed in range(sequences)]
    wrong = np.mean([[decision != "undecided" for decision in each.decisions] for each in runs], axis=0)
    assert wrong.max() <= (0.05 if sequences > 100 else 0.2)
    apart = [by_looks((0.4, 0.3, 0.5, 0.6), NOISES[noise], 80, seed) for seed in range(min(sequences, 20))]
    assert np.mean([each.trainings for each in apart]) < 25
    assert {decision for each in apart for decision in each.decisions} == {"needed"}
