"""Cases of estimators that read distances of images: what is drawn, who measures it, and what each has to find."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from calibration import laws
from calibration.case import BIT, NULLS, Case, Found, N, Of
from unetscope.estimators.binning import Binning
from unetscope.estimators.interface import LayerStatistics
from unetscope.estimators.kde import EXPONENT, KDE, Bound
from unetscope.estimators.ksg import KSG
from unetscope.estimators.mixture import Mixture
from unetscope.estimators.renyi import Renyi
from unetscope.table.records import Quantity


def _read(
    drawn: Callable[[int], tuple[Tensor, Mapping[str, Tensor]]], *estimators: KDE | Mixture | Renyi
) -> Callable[[int], Iterator[Found]]:
    """What estimators say of squared distances and labels."""

    def measure(seed: int) -> Iterator[Found]:
        squared, labels = drawn(seed)
        for estimator in estimators:
            in_units = squared / squared.median() if estimator.needs.relative else squared
            statistics = LayerStatistics.of_distances(in_units)
            yield from map(Found.of, replace(estimator, seed=seed).readings(statistics, labels))

    return measure


def _bounds(of: Callable[[Bound], float], quantity: Quantity = "I(X;M)") -> dict[Of, float | None]:
    return {(f"kde_{bound}", quantity): of(bound) / BIT for bound in ("upper", "lower")}


def channels() -> Iterator[Case]:
    """Normal layers with Gaussian noise: the information by the mixture, its bounds by KDE."""
    group = "Gaussian channels"
    kinds: list[tuple[str, Sequence[float], float]] = [
        ("1 dimension, σ² = 1", (1.0,), 1.0),
        ("2 dimensions, σ² = 0.1", (1.0,) * 2, 0.1),
        ("5 dimensions, σ² = 1", (1.0,) * 5, 1.0),
        ("3 dimensions of variance 4, 1 and 0.1, turned, σ² = 0.5", (4.0, 1.0, 0.1), 0.5),
        ("200 dimensions, σ² = 100", (1.0,) * 200, 100.0),
        ("200 dimensions, σ² = 1", (1.0,) * 200, 1.0),
        ("10,000 dimensions, σ² = 1", (1.0,) * 10_000, 1.0),
    ]
    for name, variances, noise_variance in kinds:
        truths = _bounds(lambda bound, v=variances, s=noise_variance: laws.channel_bound(v, s, bound))  # type: ignore[misc, arg-type]
        truths["mixture", "I(X;M)"] = laws.channel_information(variances, noise_variance) / BIT
        yield Case(
            group, name, _read(_normal(variances), KDE(noise_variance), Mixture(noise_variance)), truths,
            share=1.0 if len(variances) < 1000 else 0.1,
        )  # fmt: skip


def _normal(variances: Sequence[float]) -> Callable[[int], tuple[Tensor, Mapping[str, Tensor]]]:
    spread = torch.tensor(variances, dtype=torch.float64).sqrt()
    turned = torch.eye(len(spread), dtype=torch.float64)
    if len(set(variances)) > 1:
        turned = torch.linalg.qr(laws.normal(0, len(spread), len(spread))).Q

    def draw(seed: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        activations = laws.normal(seed, N, len(spread)) * spread
        return laws.squared(activations @ turned if len(set(variances)) > 1 else activations), {}

    return draw


# Of cells and clusters


def cells_and_clusters() -> Iterator[Case]:
    """Discrete laws, of cells on a grid, of unequal clusters, and of silent layers."""
    group = "Cells, rare symbols, silent layers"
    for d, bin_size in ((1, 0.5), (2, 1.0)):
        yield Case(
            group,
            f"normal in {d} dimension{'s' * (d > 1)}, bins of {bin_size:g}",
            _binned(d, bin_size),
            {("binning", "I(X;M)"): d * laws.entropy(laws.cell_probabilities(bin_size)) / BIT},
        )
    yield Case(
        group, "normal in 100 dimensions, bins of 0.5", _binned(100, 0.5),
        {("binning", "I(X;M)"): 100 * laws.entropy(laws.cell_probabilities(0.5)) / BIT}, share=0.25,
    )  # fmt: skip
    everyone = ("kde_upper", "kde_lower", "mixture")
    for name, law in (
        ("20 clusters of frequencies 1/c", laws.zipf(20)),
        ("two clusters, 97 to 3", np.array([0.97, 0.03])),
    ):
        bits = laws.entropy(law) / BIT
        yield Case(
            group, name, _read(_clustered(law[:, None]), KDE(), Mixture()),
            {(estimator, "I(X;M)"): bits for estimator in everyone},
        )  # fmt: skip
    silent: dict[Of, float | None] = {**_bounds(_silent_bound), ("mixture", "I(X;M)"): _silent_information() / BIT}
    for n in (60, 200, N):
        yield Case(
            group, f"{n} images, nineteen in twenty silent",
            _read(lambda seed, n=n: (_silent(seed, n), {}), KDE(0.1), Mixture(0.1)),  # type: ignore[misc]
            silent,
        )  # fmt: skip


def _binned(d: int, bin_size: float) -> Callable[[int], Iterator[Found]]:
    def measure(seed: int) -> Iterator[Found]:
        cells = (laws.normal(seed, N, d) / bin_size).floor()
        symbols = torch.unique(cells, dim=0, return_inverse=True)[1]
        statistics = LayerStatistics.of_symbols(symbols, bin_size)
        yield from map(Found.of, Binning(bin_size, seed=seed).readings(statistics, {}))

    return measure


def _clustered(law: np.ndarray, d: int = 1000, n: int = N) -> Callable[[int], tuple[Tensor, Mapping[str, Tensor]]]:
    def draw(seed: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        symbols, labels = laws.draw(law, n, seed)
        return laws.clusters(symbols, d, seed), {"y": labels} if law.shape[1] > 1 else {}

    return draw


SILENCE, LOUDNESS = 1.6448536269514722, 5.0  # 95 % of a normal unit lie below its threshold; the rest, times 5


def _silent(seed: int, n: int) -> Tensor:
    return laws.squared(LOUDNESS * (laws.normal(seed, n, 1) - SILENCE).clamp(min=0))


def _silent_law() -> tuple[np.ndarray, np.ndarray]:
    """A fine grid of what such a unit says, and the probabilities."""
    grid = np.linspace(0, 25, 5001)
    edges = np.concatenate(([-np.inf], (grid[:-1] + grid[1:]) / 2, [np.inf])) / LOUDNESS + SILENCE
    return grid, np.diff(laws.norm.cdf(edges))


def _silent_bound(bound: Bound) -> float:
    values, p = _silent_law()
    kept = p > 1e-12
    scale = EXPONENT[bound] * 0.1
    inner = np.array([p @ np.exp(-np.square(value - values) / scale) for value in values[kept]])
    return float(-(p[kept] * np.log(inner)).sum())


def _silent_information() -> float:
    values, p = _silent_law()
    at = np.linspace(-2, 27, 5801)
    density = np.array([p @ np.exp(-np.square(one - values) / 0.2) for one in at]) / math.sqrt(0.2 * math.pi)
    density = density[density > 1e-300]
    return float(-(density * np.log(density)).sum() * (at[1] - at[0])) - 0.5 * math.log(2 * math.pi * math.e * 0.1)


def many_dimensions() -> Iterator[Case]:
    """The regime of a network's layers: 605 images, 10⁵ dimensions, tight clusters."""
    group = f"{N} images in 100,000 dimensions, tight clusters"
    everyone = ("kde_upper", "kde_lower", "mixture")
    for name, law in (
        ("16 clusters, labels told wholly", laws.told(16, 4, 1.0)),
        ("16 clusters, labels told in four of five", laws.told(16, 4, 0.8)),
        ("6 clusters, labels told in four of five", laws.told(6, 3, 0.8)),
        ("100 clusters, 10 labels told in four of five", laws.told(100, 10, 0.8)),
        ("64 clusters, 8 labels told wholly", laws.told(64, 8, 1.0)),
        ("300 clusters, labels told wholly", laws.told(300, 4, 1.0)),
    ):
        truths: dict[Of, float | None] = {}
        for estimator in everyone:
            truths[estimator, "I(X;M)"] = laws.entropy(law.sum(axis=1)) / BIT
            truths[estimator, "I(Y;M)"] = laws.mutual_information(law) / BIT
        share = 0.25 if len(law) > 64 else 1.0  # many classes of clusters cost most, and are there to be refused
        yield Case(group, name, _read(_clustered(law, 100_000), KDE(), Mixture()), truths, share)
    law = laws.told(16, 4, 1.0)
    yield Case(
        group, "16 clusters, labels told wholly, narrow kernel", _read(_clustered(law, 100_000), Renyi(0.05)),
        {("renyi", "I(X;M)"): math.log2(16), ("renyi", "I(Y;M)"): 2.0}, share=0.5,
    )  # fmt: skip


# Of codes


def codes() -> Iterator[Case]:
    """Nearest neighbours, of codes of a few dimensions."""
    group = "Codes of few dimensions, by nearest neighbours"
    kinds = [(0.0, 1), (0.5, 1), (0.9, 1), (0.6, 2), (0.9, 4)]
    for rho, d in kinds:
        yield Case(
            group, f"normal, {d}+{d} dimensions, ρ = {rho:g}",
            _of_codes(lambda seed, rho=rho, d=d: laws.correlated(rho, d, N, seed), d),  # type: ignore[misc]
            {("ksg", "I(X;M)"): -d / 2 * math.log2(1 - rho**2)}, share=0.5,
        )  # fmt: skip
    for noise in (0.1, 0.8):
        yield Case(
            group, f"uniform noise of ±{noise:g}",
            _of_codes(lambda seed, noise=noise: laws.with_uniform_noise(noise, N, seed), 1),  # type: ignore[misc]
            {("ksg", "I(X;M)"): laws.uniform_noise_information(noise) / BIT}, share=0.5,
        )  # fmt: skip
    for apart in (0.5, 1.5):
        yield Case(
            group, f"two classes at ±{apart:g}", _of_label(apart),
            {("ksg", "I(Y;M)"): laws.two_classes_information(apart) / BIT}, share=0.5,
        )  # fmt: skip


def _of_codes(drawn: Callable[[int], tuple[Tensor, Tensor]], components: int) -> Callable[[int], Iterator[Found]]:
    def measure(seed: int) -> Iterator[Found]:
        x, y = drawn(seed)
        statistics = LayerStatistics.of_distances(laws.squared(y), laws.squared(x))
        yield from map(Found.of, KSG(components, seed=seed).readings(statistics, {}))

    return measure


def _of_label(apart: float) -> Callable[[int], Iterator[Found]]:
    def measure(seed: int) -> Iterator[Found]:
        x, labels = laws.two_classes(apart, N, seed)
        statistics = LayerStatistics.of_distances(laws.squared(x))
        yield from map(Found.of, KSG(1, seed=seed).readings(statistics, {"y": labels}))

    return measure


# Of nothing


def nulls() -> Iterator[Case]:
    """Labels and masks that a layer knows nothing about."""
    kinds: list[tuple[str, Callable[[np.random.Generator], np.ndarray]]] = [
        ("two labels, even", lambda random: random.integers(2, size=200)),
        ("two labels, 95 to 5", lambda random: (random.random(200) < 0.05).astype(int)),
        ("ten labels", lambda random: random.integers(10, size=200)),
        ("labels in pairs", lambda random: random.permutation(np.arange(200) // 2)),
        (
            "half the labels alone",
            lambda random: random.permutation(np.where(np.arange(200) < 100, np.arange(200), 200)),
        ),
    ]
    everyone = ("kde_upper", "kde_lower", "mixture", "binning", "renyi", "ksg")
    for name, drawn in kinds:
        yield Case(
            NULLS, f"200 images, {name}", _independent(drawn),
            {(estimator, "I(Y;M)"): 0.0 for estimator in everyone}, share=3.0, null=True,
        )  # fmt: skip


def _independent(drawn: Callable[[np.random.Generator], np.ndarray]) -> Callable[[int], Iterator[Found]]:
    def measure(seed: int) -> Iterator[Found]:
        activations, labels = laws.normal(seed, 200, 2), {"y": torch.from_numpy(drawn(np.random.default_rng(seed)))}
        squared = laws.squared(activations)
        symbols = torch.unique(activations.floor(), dim=0, return_inverse=True)[1]
        estimators = KDE(), Mixture(draws=1, permutations=39), Renyi(), KSG(2)
        for estimator in estimators:
            in_units = squared / squared.median() if estimator.needs.relative else squared
            statistics = LayerStatistics.of_distances(in_units)
            yield from map(Found.of, replace(estimator, seed=seed).readings(statistics, labels))
        statistics = LayerStatistics.of_symbols(symbols, 1.0)
        yield from map(Found.of, Binning(1.0, seed=seed).readings(statistics, labels))

    return measure
