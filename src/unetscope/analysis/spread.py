"""How much the score of a training varies with its seed, pooled over variants, and how wide intervals are for it.

The scores are fitted by variant + seed. What is left varies more for some variants than for others, so every variant has a
variance of its own, shrunk a little towards the pooled one (Smyth, Stat. Appl. Genet. Mol. Biol. 3:3, 2004).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from unetscope.table import CONFIDENCE

PRIOR_FREEDOM = 0.25  # degrees of freedom that the pooled variance is worth beside a variant's own
ASSUMED_RESIDUAL = 0.013  # of Dice, before a run has retrained anything: ssTEM membranes, 64×64, width 8, 60 epochs
ROUNDING = 1e-9  # of Dice: scores that differ by less are the same
MOST_SEEDS = 64  # that are thought of when the seeds that a margin needs are counted


@dataclass(frozen=True)
class Spread:
    """The spread of scores over seeds.

    residual: the pooled standard deviation of one training's score, in Dice; NaN if nothing tells it. freedom: its degrees of
    freedom. variances, freedoms: of every variant, the shrunk variance of a score and its own degrees of freedom.
    """

    residual: float
    freedom: float
    variances: Mapping[str, float]
    freedoms: Mapping[str, float]

    def half_width(self, variant: str, reference: str, pairs: int, level: float = CONFIDENCE) -> float:
        """Half the interval of the mean difference of two variants over so many pairs of seeds; NaN if there is none.

        Student's, by the variances of both (Welch). Its degrees of freedom are Satterthwaite's and those of the prior, and at
        most those of the fit. With two variants it is the interval of paired differences.
        """
        if not self.residual > 0 or pairs < 2:
            return math.nan
        return _half_width(
            (self.variances[variant], self.variances[reference]),
            (self.freedoms[variant], self.freedoms[reference]),
            self.freedom,
            pairs,
            level,
        )


def pooled_spread(scores: Mapping[str, Mapping[int, float]]) -> Spread:
    """The spread of scores by variant and seed; seeds may be missing.

    >>> spread = pooled_spread({"model1": {0: 0.80, 1: 0.82}, "model2": {0: 0.80, 1: 0.80}})
    >>> round(spread.residual, 4), round(spread.freedom), round(spread.half_width("model2", "model1", pairs=2), 3)
    (0.01, 1, 0.127)
    """
    cells = [(variant, seed, score) for variant, by_seed in scores.items() for seed, score in by_seed.items()]
    nothing = Spread(math.nan, 0.0, {}, {})
    if not cells:
        return nothing
    variants, seeds = list(scores), sorted({seed for _, seed, _ in cells})
    design = np.zeros((len(cells), len(variants) + len(seeds)))
    for place, (variant, seed, _) in enumerate(cells):
        design[place, [variants.index(variant), len(variants) + seeds.index(seed)]] = 1
    basis, lengths, _ = np.linalg.svd(design, full_matrices=False)
    basis = basis[:, lengths > 1e-9 * lengths[0]]  # orthonormal, of all that variants and seeds can tell
    values = np.array([score for *_, score in cells])
    left = np.square(values - basis @ (basis.T @ values))
    free = 1 - np.square(basis).sum(axis=1)  # of each score, the share that is not fitted
    freedom = float(free.sum())
    if freedom < 0.5:  # a whole number
        return nothing
    pooled = float(left.sum()) / freedom
    if math.sqrt(pooled) < ROUNDING:
        return Spread(0.0, freedom, {}, {})
    owner = np.array([variants.index(variant) for variant, *_ in cells])
    own_left, own_free = (np.bincount(owner, each, len(variants)) for each in (left, free))
    shrunk = (PRIOR_FREEDOM * pooled + own_left) / (PRIOR_FREEDOM + own_free)
    return Spread(
        math.sqrt(pooled),
        freedom,
        dict(zip(variants, shrunk.tolist(), strict=True)),
        dict(zip(variants, np.maximum(own_free, 0).tolist(), strict=True)),
    )


def expected_half_width(seeds: int, variants: int, residual: float, level: float = CONFIDENCE) -> float:
    """The half-width to expect of so many variants, the reference among them, that vary alike; NaN if there is no interval.

    >>> [round(expected_half_width(seeds, variants=5, residual=0.013), 3) for seeds in (1, 2, 3, 6)]
    [nan, 0.061, 0.031, 0.017]
    """
    if seeds < 2 or variants < 2:
        return math.nan
    own = (seeds - 1) * (variants - 1) / variants
    return _half_width((residual**2,) * 2, (own, own), variants * own, seeds, level)


def seeds_for(half_width: float, variants: int, residual: float, images: float = 0.0) -> int | None:
    """The fewest seeds whose interval is expected to be so narrow; None if more than 64 would be needed.

    images: half-width of the interval over images, which more seeds do not narrow.

    >>> seeds_for(0.02, variants=5, residual=0.013), seeds_for(0.02, variants=5, residual=0.013, images=0.03)
    (5, None)
    """
    for seeds in range(2, MOST_SEEDS + 1):
        if math.hypot(expected_half_width(seeds, variants, residual), images) <= half_width:
            return seeds
    return None


def _half_width(
    variances: tuple[float, float], freedoms: tuple[float, float], most: float, pairs: int, level: float
) -> float:
    from scipy.special import stdtrit  # takes a tenth of a second to import

    total = sum(variances)
    inverse = sum(variance**2 / max(own, 1e-12) for variance, own in zip(variances, freedoms, strict=True))
    freedom = min(total**2 / inverse + PRIOR_FREEDOM, most)
    return float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(total / pairs)
