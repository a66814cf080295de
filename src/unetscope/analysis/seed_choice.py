"""Which seeds to train next, so that trainings are spent where the interval decides."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unetscope.analysis.looks import LOOKS
from unetscope.analysis.outcomes import Verification
from unetscope.table import REFERENCE


def seeds_to_add(
    verification: Verification, variants: Sequence[str], *, first: int, epochs: int, trainings: int
) -> list[tuple[str, int]]:
    """The variants and seeds to train for the next look, none if all is decided or `trainings` do not suffice for one more.

    A variant that is decided, or that starts less often than the reference, gets no more. Of those with the fewest seeds all
    are brought to the next of `LOOKS`, those whose interval is furthest from the margin, in its own halves, first.
    trainings: of all variants, those that are there among them.
    """
    begun = {(training.variant, training.seed) for training in verification.trainings}
    ended = {(training.variant, training.seed) for training in verification.trainings if training.ended(epochs)}
    distances, counts = dict[str, float](), dict[str, int]()
    for variant in variants:
        taken = verification.looks_taken(variant) if variant != REFERENCE else LOOKS
        if len(taken) == len(LOOKS):
            continue
        if taken:
            outcome = verification.outcome(variant, epochs)
            if outcome.decision != "undecided" or outcome.stalls:
                continue
            half = (outcome.difference.high - outcome.difference.low) / 2
            distances[variant] = abs(outcome.difference.value + verification.margin) / half if half > 0 else 0.0
        counts[variant] = LOOKS[len(taken)]
    fewest = min(counts.values(), default=0)
    nearest = sorted(
        (variant for variant, count in counts.items() if count == fewest),
        key=lambda variant: -distances.get(variant, math.inf),
    )
    added: list[tuple[str, int]] = []
    for variant in nearest:
        missing = [
            (name, seed)
            for seed in range(first, first + fewest)
            for name in (REFERENCE, variant)
            if (name, seed) not in ended and (name, seed) not in added
        ]
        if len(begun.union(added, missing)) <= trainings:
            added += missing
    return sorted(added, key=lambda job: (job[1], job[0] != REFERENCE))
