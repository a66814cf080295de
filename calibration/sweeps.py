"""Where estimators break: a few repetitions along an axis on which each of them fails in the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from calibration import laws
from calibration.case import BIT, Found, N
from calibration.pixel_cases import probed_logistic
from unetscope.estimators.binning import Binning
from unetscope.estimators.interface import LayerStatistics
from unetscope.estimators.kde import KDE
from unetscope.estimators.ksg import KSG
from unetscope.estimators.mixture import Mixture
from unetscope.estimators.renyi import Renyi


@dataclass(frozen=True)
class Sweep:
    """Estimates of one quantity along an axis, in bits: by estimator, one row a repetition and one column a place."""

    title: str
    axis: str
    unit: str
    places: Sequence[float]
    truths: Sequence[float]
    bits: Mapping[str, np.ndarray]
    in_domain: Mapping[str, np.ndarray]
    ceiling: float = math.nan


def sweeps(repetitions: int) -> list[Sweep]:
    """All of them."""
    return [sweep(repetitions) for sweep in (_dimensions, _clusters, _labels, _codes, _channels, _bandwidths)]


def _swept(
    measure: Callable[[float, int], Iterable[Found]], places: Sequence[float], repetitions: int, quantity: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    bits: dict[str, np.ndarray] = {}
    sure: dict[str, np.ndarray] = {}
    for column, place in enumerate(places):
        for seed in range(repetitions):
            for estimate in measure(place, seed):
                if estimate.quantity == quantity:
                    empty = np.full((repetitions, len(places)), math.nan)
                    bits.setdefault(estimate.estimator, empty.copy())[seed, column] = estimate.bits
                    sure.setdefault(estimate.estimator, empty.copy())[seed, column] = math.isfinite(estimate.low)
    return bits, sure


def _dimensions(repetitions: int) -> Sweep:
    places = (1, 2, 3, 5, 8, 12, 20, 50, 200)

    def measure(d: float, seed: int) -> Iterable[Found]:
        squared = laws.squared(laws.normal(seed, N, int(d)))
        for estimator in (KDE(), Mixture(draws=1)):
            yield from map(Found.of, estimator.readings(LayerStatistics.of_distances(squared), {}))

    bits, sure = _swept(measure, places, repetitions, "I(X;M)")
    truths = [d / 2 * math.log2(2) for d in places]
    return Sweep("Gaussian channel, σ² = 1", "dimensions", "I(X;M), bits", places, truths, bits, sure, math.log2(N))


def _clusters(repetitions: int) -> Sweep:
    places = (4, 8, 16, 32, 64, 128, 256, 512)

    def measure(k: float, seed: int) -> Iterable[Found]:
        symbols = torch.randint(int(k), (N,), generator=torch.Generator().manual_seed(seed))
        squared = laws.clusters(symbols, 1000, seed)
        for estimator in (KDE(), Mixture(draws=1)):
            yield from map(Found.of, estimator.readings(LayerStatistics.of_distances(squared), {}))

    bits, sure = _swept(measure, places, repetitions, "I(X;M)")
    truths = [math.log2(k) for k in places]
    return Sweep("Tight clusters", "clusters", "I(X;M), bits", places, truths, bits, sure, math.log2(N))


def _labels(repetitions: int) -> Sweep:
    places = (2, 5, 10, 20, 50, 100, 300)

    def measure(k: float, seed: int) -> Iterable[Found]:
        activations = 2 * laws.normal(seed, N, 2)
        labels = {"y": torch.randint(int(k), (N,), generator=torch.Generator().manual_seed(seed + 1))}
        for estimator in (KDE(permutations=9), Mixture(draws=1, permutations=9)):
            yield from map(
                Found.of, estimator.readings(LayerStatistics.of_distances(laws.squared(activations)), labels)
            )
        symbols = torch.unique(activations.floor(), dim=0, return_inverse=True)[1]
        yield from map(
            Found.of, Binning(1.0, permutations=9).readings(LayerStatistics.of_symbols(symbols, 1.0), labels)
        )

    bits, sure = _swept(measure, places, repetitions, "I(Y;M)")
    return Sweep("Labels that nothing tells", "classes", "I(Y;M), bits", places, [0.0] * len(places), bits, sure)


def _codes(repetitions: int) -> Sweep:
    places = (1, 2, 3, 4, 6, 8)

    def measure(d: float, seed: int) -> Iterable[Found]:
        x, y = laws.correlated(0.7, int(d), N, seed)
        statistics = LayerStatistics.of_distances(laws.squared(y), laws.squared(x))
        readings = KSG(int(d), permutations=9).readings(statistics, {})
        yield from map(Found.of, readings)

    bits, sure = _swept(measure, places, repetitions, "I(X;M)")
    truths = [-d / 2 * math.log2(1 - 0.7**2) for d in places]
    return Sweep("Normal codes, ρ = 0.7", "dimensions of each code", "I(X;M), bits", places, truths, bits, sure)


def _channels(repetitions: int) -> Sweep:
    places = (4, 8, 16, 32, 64, 128, 256)

    def measure(train: float, seed: int) -> Iterable[Found]:
        return probed_logistic(2.0, 0.0, int(train), 40, channels=63)(seed)

    bits, sure = _swept(measure, places, repetitions, "I_V(M→Y)")
    truths = [laws.logistic_information(2.0, 0.0) / BIT] * len(places)
    return Sweep(
        "Logistic law, 62 channels of noise", "training images", "I_V(M→Y), bits a pixel", places, truths, bits, sure
    )


def _bandwidths(repetitions: int) -> Sweep:
    places = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)

    def measure(bandwidth: float, seed: int) -> Iterable[Found]:
        symbols = torch.randint(16, (N,), generator=torch.Generator().manual_seed(seed))
        squared = laws.clusters(symbols, 1000, seed)
        statistics = LayerStatistics.of_distances(squared / squared.median())
        yield from map(Found.of, Renyi(bandwidth, permutations=1).readings(statistics, {}))

    bits, sure = _swept(measure, places, repetitions, "I(X;M)")
    return Sweep(
        "16 tight clusters, by the Rényi index", "bandwidth over the median squared distance", "I(X;M), index",
        places, [4.0] * len(places), bits, sure, math.log2(N),
    )  # fmt: skip
