"""Whether the intervals of `unetscope verify` cover, and whether `--seeds auto` keeps its level and saves trainings.

    python -m calibration.seeds --repetitions 2000 --sequences 400

Scores of trainings are drawn, not trained. Coverage is of every variant for itself, the level of decisions that are false.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unetscope.analysis.looks import LOOKS, SeedPlan
from unetscope.analysis.outcomes import Verification
from unetscope.analysis.seed_choice import seeds_to_add
from unetscope.analysis.spread import ASSUMED_RESIDUAL, pooled_spread
from unetscope.analysis.trainings import Training
from unetscope.analysis.verdict import DICE_MARGIN
from unetscope.table.parts import Variant, parts_named
from unetscope.table.records import EpochRecord

NAMES = ("model1", "model2", "model3", "model4", "no-skips")  # the reference first
VARIANTS = tuple(Variant(name, 4, parts_named([f"skip{place}"] * bool(place))) for place, name in enumerate(NAMES))
Noise = Callable[[np.random.Generator, int], NDArray[np.float64]]
TEN = 10**0.5


def _scaled(*deviations: float) -> Noise:
    return lambda random, seeds: random.normal(size=(len(NAMES), seeds)) * np.array(deviations)[:, None]


def _failing(random: np.random.Generator, seeds: int) -> NDArray[np.float64]:
    """One training in ten loses five standard deviations more."""
    return random.normal(size=(len(NAMES), seeds)) - 5 * (random.random((len(NAMES), seeds)) < 0.1)


# How scores vary over seeds, in units of the residual.
NOISES: Mapping[str, Noise] = {
    "all alike": _scaled(1, 1, 1, 1, 1),
    "one variant with 4 times the variance": _scaled(1, 2, 1, 1, 1),
    "one variant with 10 times the variance": _scaled(1, TEN, 1, 1, 1),
    "the reference with 10 times the variance": _scaled(TEN, 1, 1, 1, 1),
    "one training in ten loses 5 standard deviations": _failing,
}


def coverage(noise: Noise, seeds: int, repetitions: int, seed: int = 0) -> NDArray[np.float64]:
    """By variant, how often the 95 % interval over seeds holds the true difference, which is that of the expected scores."""
    random, covered = np.random.default_rng(seed), np.zeros(len(NAMES) - 1)
    expected = noise(random, 100_000).mean(axis=1)
    for _ in range(repetitions):
        scores = noise(random, seeds) + random.normal(0, 2, seeds)
        spread = pooled_spread({name: dict(enumerate(row.tolist())) for name, row in zip(NAMES, scores, strict=True)})
        halves = [spread.half_width(name, NAMES[0], seeds) for name in NAMES[1:]]
        error = (scores[1:] - scores[0]).mean(axis=1) - (expected[1:] - expected[0])
        covered += np.abs(error) <= halves
    return covered / repetitions


@dataclass(frozen=True)
class Verified:
    """One verification by `--seeds auto`: its decisions by variant, and how many trainings it took."""

    decisions: tuple[str, ...]
    trainings: int


def by_looks(losses: Sequence[float], noise: Noise, trainings: int, seed: int) -> Verified:
    """Add seeds until all is decided, or so many trainings are spent, as `unetscope verify` does."""
    scores = _scores(losses, noise, seed)
    plans = {name: SeedPlan(first=0, epochs=1) for name in NAMES}
    trained: list[Training] = []
    while True:
        verification = Verification(VARIANTS, tuple(trained), None, (1,), DICE_MARGIN, plans)
        added = seeds_to_add(verification, NAMES, first=0, epochs=1, trainings=trainings)
        if not added:
            break
        trained += [_training(name, number, float(scores[NAMES.index(name), number])) for name, number in added]
    decisions = tuple(verification.outcome(name, 1).decision for name in NAMES[1:])
    return Verified(decisions, len(trained))


def fixed(losses: Sequence[float], noise: Noise, seeds: int, seed: int) -> tuple[str, ...]:
    """The decisions on the same draws with a number of seeds that was chosen before."""
    scores = _scores(losses, noise, seed)[:, :seeds]
    made = tuple(
        _training(name, number, float(score))
        for name, row in zip(NAMES, scores, strict=True)
        for number, score in enumerate(row)
    )
    verification = Verification(VARIANTS, made, None, (1,), DICE_MARGIN)
    return tuple(verification.outcome(name, 1).decision for name in NAMES[1:])


def _scores(losses: Sequence[float], noise: Noise, seed: int) -> NDArray[np.float64]:
    """Scores [variants, seeds] of trainings, as many as `--seeds auto` may do."""
    scores = 0.8 + ASSUMED_RESIDUAL * noise(np.random.default_rng(seed), LOOKS[-1])
    scores[1:] -= np.array(losses)[:, None]
    return scores


def _training(variant: str, seed: int, score: float) -> Training:
    """A training of one epoch on two images that are alike, so that only seeds make a difference."""
    dice = (score - 1e-6, score + 1e-6)
    records = (
        EpochRecord(0, 0.7, 0.1, 0.7, 0.1, 1.0, 0.9, (0.1, 0.1)),
        EpochRecord(1, 0.1, 0.5, 0.1, score, 1.0, 0.9, dice),
    )
    return Training(variant, seed, records, 0.7, {"1": 0.0})


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000, help="draws of each cell of the coverage")
    parser.add_argument("--sequences", type=int, default=400, help="verifications by --seeds auto of each kind")
    options = parser.parse_args()
    print("| scores | 2 seeds | 3 seeds | 4 seeds | 6 seeds |\n|---|---|---|---|---|")
    for name, noise in NOISES.items():
        shares = [coverage(noise, seeds, options.repetitions) for seeds in (2, 3, 4, 6)]
        print(f"| {name} | {' | '.join(f'{100 * least.min():.1f} %' for least in shares)} |", flush=True)
    print("\n| losses | scores | decided wrongly | decided | trainings |\n|---|---|---|---|---|")
    at_margin = (DICE_MARGIN,) * 4
    for name, noise in NOISES.items():
        runs = [by_looks(at_margin, noise, 5 * LOOKS[-1], seed) for seed in range(options.sequences)]
        decided = np.mean([[decision != "undecided" for decision in run.decisions] for run in runs], axis=0)
        spent = np.mean([run.trainings for run in runs])
        print(f"| all at the margin | {name} | {100 * decided.max():.1f} % | | {spent:.0f} |", flush=True)
    losses, truth = (0.0, 0.005, 0.05, 0.3), ("redundant", "redundant", "needed", "needed")
    for name, noise in (("all alike", NOISES["all alike"]),):
        runs = [by_looks(losses, noise, 5 * LOOKS[-1], seed) for seed in range(options.sequences)]
        _print_decided(
            "--seeds auto", name, [run.decisions for run in runs], truth, np.mean([r.trainings for r in runs])
        )
        for seeds in (3, 6, 8, 12, 16):
            decisions = [fixed(losses, noise, seeds, seed) for seed in range(options.sequences)]
            _print_decided(f"{seeds} seeds", name, decisions, truth, 5 * seeds)


def _print_decided(
    how: str, name: str, decisions: Sequence[Sequence[str]], truth: Sequence[str], trainings: float
) -> None:
    right = np.mean([[decision == true for decision, true in zip(each, truth, strict=True)] for each in decisions])
    decided = np.mean([[decision != "undecided" for decision in each] for each in decisions])
    print(
        f"| 0, 0.005, 0.05 and 0.3; {how} | {name} | {100 * (decided - right):.1f} % | {100 * decided:.0f} % | "
        f"{trainings:.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
