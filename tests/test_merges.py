"""What the streams of a merge tell beyond each other, against laws of which that is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unetscope.estimators.interface import LayerStatistics
from unetscope.estimators.kde import KDE
from unetscope.estimators.mixture import Mixture
from unetscope.measure.estimating import to_estimate
from unetscope.measure.merges import at_merge
from unetscope.table.records import Estimate, Layer, Skip

SKIP = Skip("skip1", source="S", upsampled="U", merge="SU")
NOISY = np.full((3, 3), 0.1) + 0.7 * np.eye(3)  # of three symbols, how often each is seen as which
BOTH_NOISY = np.einsum("y,yu,ys->yus", np.full(3, 1 / 3), NOISY, NOISY)
SKIP_OF_NOISE = np.einsum("y,yu,s->yus", np.full(3, 1 / 3), NOISY, np.full(3, 1 / 3))
EXCLUSIVE_OR = np.array([[[0.225, 0.025], [0.025, 0.225]], [[0.025, 0.225], [0.225, 0.025]]])


def entropy(law: np.ndarray) -> float:
    law = law[law > 0]
    return float(-(law * np.log2(law)).sum())


def truth(law: np.ndarray) -> dict[str, float]:
    """I(Y;S|U), I(Y;U|S) and I(Y;S;U) of a law of y, u and s, in bits."""
    of_y = entropy(law.sum(axis=(1, 2)))
    u, s, both = (
        of_y + entropy(law.sum(axis=gone[0])) - entropy(law.sum(axis=gone[1]))
        for gone in (((0, 2), (2,)), ((0, 1), (1,)), ((0,), ()))
    )
    return {"I(Y;S|U)": both - u, "I(Y;U|S)": both - s, "I(Y;S;U)": u + s - both}


def estimates(
    law: np.ndarray, n: int, seed: int, estimator: KDE | Mixture, d: int = 3, ceiling_of_labels: float = math.inf
) -> dict[tuple[str, str], Estimate]:
    """Estimates of the merge of two streams whose symbols are far apart in d dimensions, by quantity and estimator."""
    generator = np.random.default_rng(seed)
    y, u, s = np.unravel_index(generator.choice(law.size, n, p=law.ravel()), law.shape)
    places = {
        "U": 20 * generator.standard_normal((law.shape[1], d)),
        "S": 20 * generator.standard_normal((law.shape[2], d)),
    }
    activations = {"U": torch.from_numpy(places["U"][u]), "S": torch.from_numpy(places["S"][s])}
    squared = {layer: torch.cdist(values, values).square() for layer, values in activations.items()}
    squared["SU"] = squared["U"] + squared["S"]
    labels = torch.from_numpy(y)
    rows = [
        to_estimate(
            reading, Layer(layer, layer, shape=(d, 1, 1)), 0, n, ceiling_of_labels if reading.labels else math.log(n)
        )
        for layer, distances in squared.items()
        for reading in estimator.readings(LayerStatistics.of_distances(distances), {"y": labels})
    ]
    return {(row.quantity, row.estimator): row for row in at_merge(SKIP, rows)}


@pytest.mark.long
@pytest.mark.parametrize("law", [BOTH_NOISY, SKIP_OF_NOISE, EXCLUSIVE_OR], ids=["noisy", "noise", "exclusive or"])
@pytest.mark.parametrize("estimator", [KDE(permutations=9), Mixture(permutations=9, draws=1)], ids=["kde", "mixture"])
def test_intervals_hold_the_truth_of_a_law(law: np.ndarray, estimator: KDE | Mixture) -> None:
    """The plain difference of plug-in estimates is off by more than its spread: intervals are of the limit."""
    name, held, asked = estimator.series[0][0], 0, 0
    for seed in range(12):
        found = estimates(law, 300, seed, estimator)
        for quantity, bits in truth(law).items():
            row = found[quantity, name]
            if not math.isnan(row.low):
                asked, held = asked + 1, held + (row.low <= bits <= row.high)
    assert asked >= 18
    assert held >= 0.85 * asked


def test_limits_at_a_merge_are_those_of_its_sums() -> None:
    row = estimates(SKIP_OF_NOISE, 300, 0, KDE(permutations=9))["I(Y;S|U)", "kde_upper"]
    assert row.extrapolated < row.half_bits < row.quarter_bits  # of more images, a skip of noise seems to add less
    assert row.extrapolated == pytest.approx(0.0, abs=0.03)
    assert row.low < 0 < row.high
    assert math.isnan(row.p)


def test_a_difference_with_a_ceiling_has_a_number_and_no_interval() -> None:
    """The merge tells the label wholly, as the table of a run knows, so that there is nothing that varies."""
    unique = np.einsum("y,u,ys->yus", np.full(4, 1 / 4), np.full(4, 1 / 4), np.eye(4))
    row = estimates(unique, 300, 0, KDE(permutations=9), ceiling_of_labels=math.log(4))["I(Y;S|U)", "kde_upper"]
    assert row.bits == pytest.approx(2.0, rel=0.05)
    assert (math.isnan(row.low), row.per_image, row.saturated) == (True, (), False)
    assert row.reason == "what layer S and SU tells of the label is at its ceiling: the difference has no interval"


@pytest.mark.slow
@pytest.mark.parametrize("law", [BOTH_NOISY, SKIP_OF_NOISE, EXCLUSIVE_OR], ids=["noisy", "noise", "exclusive or"])
def test_intervals_hold_the_truth_as_often_as_said(law: np.ndarray) -> None:
    held = {quantity: [] for quantity in truth(law)}
    for seed in range(200):
        found = estimates(law, 605, seed, KDE(permutations=9))
        for quantity, bits in truth(law).items():
            row = found[quantity, "kde_upper"]
            if not math.isnan(row.low):
                held[quantity].append(row.low <= bits <= row.high)
    for quantity, shares in held.items():
        assert len(shares) >= 180, quantity
        assert np.mean(shares) >= 0.90, quantity
