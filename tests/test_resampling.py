"""Intervals, limits and nulls of estimates from distances and symbols: against derivatives, loops and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unetscope.base.errors import InvalidArgument
from unetscope.estimators.binning import Binning, symbol_label_information
from unetscope.estimators.interface import Estimator, LayerStatistics, Reading
from unetscope.estimators.kde import EXPONENT, KDE
from unetscope.estimators.ksg import KSG
from unetscope.estimators.labels import entropy_nats
from unetscope.estimators.mixture import Mixture
from unetscope.estimators.permuted import permuted_kernel, permuted_symbols
from unetscope.estimators.renyi import Renyi
from unetscope.estimators.resampling import (
    Sharing,
    kernel_information,
    quarters,
    symbol_entropy,
)

ESTIMATORS = (KDE(1.0), KDE(0.1, relative=True), Mixture(1.0), Binning(0.2), Renyi(), KSG())
CPU = torch.device("cpu")


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def squared_distances(activations: Tensor) -> Tensor:
    return torch.cdist(activations, activations, compute_mode="donot_use_mm_for_euclid_dist").square()


def weighted(kernel: Tensor, weights: Tensor, labels: Tensor | None) -> Tensor:
    """-sum_i w_i ln sum_j w_j K_ij, inside classes of weight W_c if there are labels."""
    same = torch.ones_like(kernel) if labels is None else (labels[:, None] == labels).double()
    return -(weights * ((kernel * same) @ weights / (same @ weights)).log()).sum()


@pytest.mark.parametrize("labelled", [False, True])
def test_the_values_of_images_are_the_jackknife_s(labelled: bool) -> None:
    n = 12
    kernel = torch.exp(-squared_distances(gaussian(n, 2, 0)))
    labels = torch.arange(n) % 5 if labelled else None
    quarter = quarters(n, CPU)
    found = kernel_information(kernel, quarter, None if labels is None else Sharing.of(labels, quarter))

    def information(rows: Tensor) -> float:
        equal = torch.full((len(rows),), 1 / len(rows), dtype=torch.float64)
        return weighted(kernel[rows][:, rows], equal, None if labels is None else labels[rows]).item()

    value = information(torch.arange(n))
    assert found.values.mean().item() == pytest.approx(value, abs=1e-12)
    assert found.nats == pytest.approx(value, abs=1e-12)
    without = np.array([information(torch.tensor([k for k in range(n) if k != image])) for image in range(n)])
    np.testing.assert_allclose(found.values.numpy() - value, (n - 1) * (without.mean() - without), atol=2e-6)


def test_the_values_of_symbols_are_the_jackknife_s() -> None:
    symbols = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
    n, found = len(symbols), symbol_entropy(symbols, quarters(len(symbols), CPU))
    without = np.array([entropy_nats(symbols[torch.arange(n) != image]) for image in range(n)])
    np.testing.assert_allclose(found.values.numpy() - found.nats, (n - 1) * (without.mean() - without), atol=1e-12)


def test_the_curve_is_the_mean_over_the_parts() -> None:
    n = 24
    kernel, labels = torch.exp(-squared_distances(gaussian(n, 2, 0))), torch.arange(n) % 3
    quarter = quarters(n, CPU)

    def information(rows: Tensor, labels: Tensor | None) -> float:
        part = kernel[rows][:, rows]
        return weighted(
            part, torch.full((len(rows),), 1 / len(rows), dtype=torch.float64), None if labels is None else labels[rows]
        ).item()

    for classes in (None, labels):
        sharing = None if classes is None else Sharing.of(classes, quarter)
        found = kernel_information(kernel, quarter, sharing).curve
        parts = [
            [
                information((quarter[:, split] // size == part).nonzero()[:, 0], classes)
                for split in range(quarter.shape[1])
                for part in range(4 // size)
            ]
            for size in (1, 2, 4)
        ]
        assert found == pytest.approx([float(np.mean(of_size)) for of_size in parts], abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=4, max_size=30), st.integers(0, 9))
def test_symbols_have_the_entropy_of_their_frequencies(symbols: list[int], seed: int) -> None:
    n, quarter = len(symbols), quarters(len(symbols), CPU, seed)
    found = symbol_entropy(torch.tensor(symbols), quarter)

    def entropy(rows: list[int]) -> float:
        counts = np.unique([symbols[row] for row in rows], return_counts=True)[1]
        return float(-(counts / len(rows) * np.log(counts / len(rows))).sum())

    assert found.nats == pytest.approx(entropy(list(range(n))), abs=1e-9)
    assert found.values.mean().item() == pytest.approx(found.nats, abs=1e-9)
    halves = [
        [row for row in range(n) if quarter[row, split] // 2 == half]
        for split in range(quarter.shape[1])
        for half in (0, 1)
    ]
    of_image = sum(len(half) * entropy(half) for half in halves) / (n * quarter.shape[1])
    assert found.curve[1] == pytest.approx(of_image, abs=1e-9)


# What chance gives


def test_permuted_labels_are_permuted_labels() -> None:
    n = 20
    kernel = torch.exp(-squared_distances(gaussian(n, 2, 0)))
    labels, symbols = torch.arange(n).pow(2) % 7, torch.arange(n) % 3
    generator = torch.Generator().manual_seed(3)
    orders = [torch.arange(n), *(torch.randperm(n, generator=generator) for _ in range(15))]
    equal = torch.full((n,), 1 / n, dtype=torch.float64)
    whole = weighted(kernel, equal, None)
    by_kernel = [(whole - weighted(kernel, equal, labels[order.argsort()])).item() for order in orders]
    by_symbols = [symbol_label_information(symbols, labels[order]) for order in orders]
    for null, (value, *chance) in (
        (permuted_kernel(kernel, labels, 15, seed=3), by_kernel),
        (permuted_symbols(symbols, labels, 15, seed=3), by_symbols),
    ):
        assert null.nats == pytest.approx(np.mean(chance), abs=1e-5)
        assert null.high == pytest.approx(np.quantile(chance, 0.95), abs=1e-5)
        assert null.p == pytest.approx((1 + sum(c >= value - 1e-6 for c in chance)) / 16)


def reading_of_chance(estimator: KDE | Binning, seed: int) -> Reading:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (60,), generator=generator)
    if isinstance(estimator, KDE):
        statistics = LayerStatistics.of_distances(
            squared_distances(torch.randn(60, 3, dtype=torch.float64, generator=generator))
        )
    else:
        statistics = LayerStatistics.of_symbols(torch.randint(6, (60,), generator=generator), estimator.bin_size)
    return next(r for r in estimator.readings(statistics, {"chance": labels}) if r.quantity == "I(Y;M)")


def rejections(estimator: KDE | Binning, repetitions: int) -> float:
    return float(np.mean([reading_of_chance(estimator, seed).p <= 0.05 for seed in range(repetitions)]))


@pytest.mark.parametrize("estimator", [KDE(1.0), Binning(1.0)])
def test_chance_is_rejected_rarely(estimator: KDE | Binning) -> None:
    assert rejections(estimator, 60) <= 0.15


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [KDE(1.0), Binning(1.0)])
def test_chance_is_rejected_at_its_level(estimator: KDE | Binning) -> None:
    assert 0.03 <= rejections(estimator, 1000) <= 0.07


# Where estimates go with ever more images


def limit_of_gaussians(d: int, noise_variance: float, bound: str) -> float:
    """-E ln E' exp(-|t - t'|² / (c σ²)) in nats for standard normal t, t' in d dimensions."""
    s = EXPONENT[bound] * noise_variance / 2  # type: ignore[index]
    return d / 2 * math.log1p(1 / s) + d / (2 * (1 + s))


def limit_of_bins(bin_size: float) -> float:
    """The entropy in nats of a standard normal in bins of one size."""
    edges = np.arange(-40, 41) * bin_size
    p = np.diff([0.5 * (1 + math.erf(edge / math.sqrt(2))) for edge in edges])
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())


def kde_case(seed: int, bound: str, n: int) -> tuple[Reading, float]:
    d, noise_variance = ((1, 1.0), (1, 0.1), (2, 0.1), (2, 1.0), (5, 1.0), (10, 4.0), (20, 16.0))[seed % 7]
    readings = KDE(noise_variance, permutations=1).readings(
        LayerStatistics.of_distances(squared_distances(gaussian(n, d, seed))), {}
    )
    (found,) = (reading for reading in readings if reading.estimator == f"kde_{bound}")
    return found, limit_of_gaussians(d, noise_variance, bound)


def binning_case(seed: int, n: int) -> tuple[Reading, float]:
    bin_size = (0.5, 1.0, 2.0)[seed % 3]
    symbols = (gaussian(n, 1, seed)[:, 0] / bin_size).floor().long()
    return next(Binning(bin_size).readings(LayerStatistics.of_symbols(symbols, bin_size), {})), limit_of_bins(bin_size)


def label_case(seed: int, n: int) -> tuple[Reading, float]:
    """Four clusters of unequal frequency, far apart; the label is the cluster, but for three in ten, where it is another."""
    random = np.random.default_rng(seed)
    cluster = random.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    wrong = random.random(n) < 0.3
    labels = np.where(wrong, random.integers(0, 4, n), cluster)
    joint = np.diag([0.4, 0.3, 0.2, 0.1]) * 0.7 + 0.3 * np.outer([0.4, 0.3, 0.2, 0.1], np.full(4, 0.25))
    apart = np.outer(joint.sum(1), joint.sum(0))
    squared = torch.from_numpy(1e6 * (cluster[:, None] != cluster)).double()
    readings = KDE(1.0, permutations=1).readings(LayerStatistics.of_distances(squared), {"y": torch.from_numpy(labels)})
    (found,) = (r for r in readings if r.quantity == "I(Y;M)" and r.estimator == "kde_upper")
    return found, float((joint * np.log(joint / apart)).sum())


CASES: dict[str, Callable[[int, int], tuple[Reading, float]]] = {
    "kde upper": lambda seed, n: kde_case(seed, "upper", n),
    "kde lower": lambda seed, n: kde_case(seed, "lower", n),
    "binning": binning_case,
    "noisy labels of clusters": label_case,
}


def covered(case: str, repetitions: int, n: int = 256) -> tuple[float, float]:
    """Shares of the cases in the domain whose limit lies in the interval, and of the cases that are in the domain."""
    found = [CASES[case](seed, n) for seed in range(repetitions)]
    inside = [reading.low < truth < reading.high for reading, truth in found if not math.isnan(reading.low)]
    return float(np.mean(inside)), len(inside) / repetitions


@pytest.mark.parametrize("case", CASES)
def test_limits_are_covered_about_as_often_as_said(case: str) -> None:
    share, in_domain = covered(case, 28)
    assert share >= 0.8
    assert in_domain >= 0.7


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_limits_are_covered_as_often_as_said(case: str) -> None:
    share, in_domain = covered(case, 200)
    assert 0.90 <= share <= 0.99
    assert in_domain >= 0.7


@pytest.mark.parametrize(("d", "noise_variance"), [(20, 1.0), (200, 1.0), (10, 0.01)])
def test_what_so_few_images_cannot_tell_has_its_number_but_no_interval(d: int, noise_variance: float) -> None:
    reading = next(
        KDE(noise_variance).readings(LayerStatistics.of_distances(squared_distances(gaussian(256, d, 0))), {})
    )
    assert reading.nats > 4
    assert math.isnan(reading.low)
    assert reading.per_image == ()
    assert reading.reason.startswith("out of domain: 256 images are too few to tell; with ever more of them it goes ")
    assert reading.reason.endswith(" bits higher")


# What cannot be measured says why, by every estimator


def readings_of(estimator: Estimator, activations: Tensor, labels: Tensor) -> list[Reading]:
    squared = squared_distances(activations.double())
    symbols = (activations[:, 0] / 0.2).floor().long()
    statistics = replace(
        LayerStatistics.of_distances(squared), symbols=dict.fromkeys(estimator.needs.bin_sizes, symbols)
    )
    return list(estimator.readings(statistics, {"y": labels}))


def test_labels_that_are_told_wholly_are_not_put_down_to_chance() -> None:
    """64 clusters of 605 images tell eight labels: permuted ones seem to be told a fifth of that, these are told."""
    clusters = torch.randint(64, (605,), generator=torch.Generator().manual_seed(0))
    squared = 1e4 * (clusters[:, None] != clusters).double()
    for estimator in (KDE(), Mixture(draws=1)):
        about_label = list(estimator.readings(LayerStatistics.of_distances(squared), {"y": clusters % 8}))[-1]
        assert not about_label.reason
        assert about_label.null_mean > 0.2
        assert about_label.low <= math.log(8) <= about_label.high
        noisy = torch.where(
            torch.rand(605, generator=torch.Generator().manual_seed(1)) < 0.3, clusters // 8, clusters % 8
        )
        about_label = list(estimator.readings(LayerStatistics.of_distances(squared), {"y": noisy}))[-1]
        assert about_label.reason.startswith("out of domain")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_labels_in_pairs_are_told_by_chance_and_have_no_interval(estimator: Estimator) -> None:
    """Each class has two images of 200: any layer that tells images apart seems to know most of such labels."""
    labels = (torch.arange(200) // 2)[torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    values = 3 * gaussian(200, 2, 0).round()
    for about_label in (r for r in readings_of(estimator, values, labels) if r.quantity == "I(Y;M)"):
        assert not about_label.p <= 0.05
        assert (math.isnan(about_label.low), about_label.per_image) == (True, ())
        assert about_label.reason.startswith("out of domain: ")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_what_leaves_nothing_to_measure_is_named(estimator: Estimator) -> None:
    values, labels = gaussian(40, 3, 0), torch.arange(40) % 2
    about_label = readings_of(estimator, values, torch.zeros(40, dtype=torch.int64))[-1]
    assert math.isnan(about_label.nats)
    assert about_label.reason == "every image has the same label"
    for reading in readings_of(estimator, values[:1], labels[:1]):
        assert math.isnan(reading.nats)
        assert reading.reason == "one image: there is no other that a layer could tell it from"
    for reading in readings_of(estimator, torch.ones(40, 3), labels):
        assert abs(reading.nats) < 1e-9 or math.isnan(reading.nats)
        assert "the layer is the same for " in reading.reason
    alone = readings_of(estimator, values, torch.arange(40))[-1]
    assert alone.reason.startswith(("every image is alone in its class", "out of domain"))
    with pytest.raises(InvalidArgument, match="39 labels for 40 images: expected one an image"):
        readings_of(estimator, values, labels[:39])


@pytest.mark.parametrize("estimator", [e for e in ESTIMATORS if not e.needs.bin_sizes])
def test_distances_that_are_not_finite_are_named(estimator: Estimator) -> None:
    squared = squared_distances(gaussian(20, 3, 0))
    squared[3, 4] = squared[4, 3] = math.nan
    for reading in estimator.readings(LayerStatistics.of_distances(squared), {"y": torch.arange(20) % 2}):
        assert math.isnan(reading.nats)
        assert reading.reason == "distances are not finite"
