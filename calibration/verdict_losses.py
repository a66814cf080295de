"""What retraining says of the designs of a network, as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from unetscope.analysis import Verification
from unetscope.runs.analysed import AnalysedRun


def losses(judged: AnalysedRun, budgets: Iterable[int]) -> dict[str, Any]:
    """What retraining says of every design: the loss of Dice with its interval, and the Dice of every seed by epoch."""
    verification = judged.verification
    assert verification is not None
    return {
        "budgets": {str(budget): dict(_by_design(verification, budget)) for budget in budgets},
        "curves": _curves(verification),
    }


def _by_design(verification: Verification, budget: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in verification.rows(budget):
        loss = row.outcome.difference
        yield (
            row.variant.name,
            {"loss": -loss.value, "low": -loss.high, "high": -loss.low, "decision": row.outcome.decision},
        )


def _curves(verification: Verification) -> dict[str, dict[str, list[float]]]:
    """Of every variant, the Dice after each epoch by seed, of the seeds with which all are trained: others were stopped."""
    last = verification.budgets[-1]
    curves = {
        variant.name: {
            str(training.seed): [record.validation_dice for record in training.records]
            for training in verification.of(variant.name)
            if training.records and training.records[-1].epoch >= last
        }
        for variant in verification.variants
    }
    shared_seeds = set.intersection(*(set(by_seed) for by_seed in curves.values()))
    return {
        name: {seed: curve for seed, curve in by_seed.items() if seed in shared_seeds}
        for name, by_seed in curves.items()
    }
