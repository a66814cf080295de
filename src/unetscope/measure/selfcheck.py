"""Every estimator against a truth known in closed form, on this machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from unetscope.activations.capture import with_shapes
from unetscope.estimators.binning import Binning
from unetscope.estimators.kde import KDE
from unetscope.estimators.ksg import KSG
from unetscope.estimators.mixture import Mixture
from unetscope.estimators.reading import Reading
from unetscope.estimators.renyi import Renyi
from unetscope.measure.distances import Distances
from unetscope.measure.probing import Segmented, probe
from unetscope.measure.quantization import Symbols
from unetscope.table.quantities import Quantity
from unetscope.table.records import Layer, Skip

BIT = math.log(2)


@dataclass(frozen=True)
class Check:
    """One estimate beside its truth, in bits (usable information: bits a pixel).

    low, high: what the estimate says of itself, its 95 % interval or its bracket. outside: the case lies outside the
    estimator's domain, and it must say so instead of giving a number.
    """

    case: str
    estimator: str
    truth: float
    bits: float
    low: float
    high: float
    outside: bool = False
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether the truth lies where the estimate says, or the estimate refuses as it must."""
        if self.outside:
            return math.isnan(self.bits) and bool(self.reason)
        return self.low <= self.truth <= self.high


def run_selfcheck(on_case: Callable[[int, int], None] | None = None) -> list[Check]:
    """Measure every case; a 95 % interval misses its truth once in twenty, so one miss in a table is no fault.

    >>> all(check.passed for check in run_selfcheck())
    True
    """
    cases = (_channels, _clusters, _binned, _neighbours, _logistic, _merges)
    found: list[Check] = []
    for done, case in enumerate(cases, start=1):
        found += case(torch.Generator().manual_seed(7))
        if on_case is not None:
            on_case(done, len(cases))
    return found


def _channels(generator: torch.Generator) -> Iterator[Check]:
    """X standard normal in d dimensions, T = X + noise: (d/2) ln(1 + 1/σ²)."""
    for d, noise_variance in ((1, 1.0), (2, 0.1), (10, 4.0), (200, 1.0)):
        squared = _squared(torch.randn(512, d, generator=generator))
        truth = d / 2 * math.log1p(1 / noise_variance) / BIT
        outside = truth > math.log2(512) - 1
        case = f"Gaussian channel, d = {d}, noise variance {noise_variance:g}"
        (reading,) = Mixture(noise_variance).readings(squared, {})
        yield _check(case, reading, truth, outside=outside)
        if not outside:  # the bounds are of the mixture of these images, and end at the logarithm of their number
            yield _check(case, next(KDE(noise_variance).readings(squared, {})), truth, bracket=True)


def _clusters(generator: torch.Generator) -> Iterator[Check]:
    """16 tight clusters in 10,000 dimensions, which a label tells up to four: I(X;T) = 4 bits, I(Y;T) = 2 bits."""
    clusters = torch.randint(16, (605,), generator=generator)
    centres = torch.randn(16, 10_000, generator=generator)
    squared = _squared(centres[clusters] + 1e-4 * torch.randn(605, 10_000, generator=generator))
    about_input, about_label = Mixture().readings(squared, {"a quarter": clusters % 4})
    yield _check("16 clusters in 10,000 dimensions, I(X;M)", about_input, 4.0)
    yield _check("16 clusters in 10,000 dimensions, I(Y;M)", about_label, 2.0)
    narrow = Renyi(bandwidth=0.05)  # in which a median pair, of two clusters, has nothing in common
    about_input, about_label = narrow.readings(squared / squared.median(), {"a quarter": clusters % 4})
    yield _check("the same clusters, narrow kernel, I(X;M)", about_input, 4.0)
    yield _check("the same clusters, narrow kernel, I(Y;M)", about_label, 2.0)


def _binned(generator: torch.Generator) -> Iterator[Check]:
    """Five cells of a 100-dimensional grid, visited 1, 2, 4, 8 and 16 times: the entropy of those counts, exactly."""
    cells = torch.arange(5).repeat_interleave(2 ** torch.arange(5))
    values = torch.randint(-9, 9, (5, 100), generator=generator)[cells] + 0.8 * torch.rand(31, 100, generator=generator)
    symbols = Symbols(31, 1.0)
    symbols.add(values)
    reading = next(Binning(1.0).readings(symbols.groups(), {}))
    p = (2.0 ** np.arange(5)) / 31
    check = _check("5 cells of a grid", reading, float(-(p * np.log2(p)).sum()))
    yield Check(check.case, check.estimator, check.truth, check.bits, check.bits - 1e-9, check.bits + 1e-9)


def _neighbours(generator: torch.Generator) -> Iterator[Check]:
    """Correlated normal codes, −½ log₂(1 − ρ²); and a label that an independent one knows nothing about."""
    x, noise = torch.randn(605, 1, generator=generator), torch.randn(605, 1, generator=generator)
    for rho in (0.0, 0.9):
        layer = _squared(rho * x + math.sqrt(1 - rho**2) * noise)
        about_input, about_label = KSG(1).readings(layer, {"sign": (x[:, 0] > 0).long()}, _squared(x))
        yield _check(f"normal codes, ρ = {rho:g}, I(X;M)", about_input, -math.log2(1 - rho**2) / 2)
        if not rho:
            yield _check("normal codes, ρ = 0, I(Y;M)", about_label, 0.0)


def _logistic(generator: torch.Generator) -> Iterator[Check]:
    """P(Y = 1 | x) = sigmoid(2x − 1) at every pixel, x standard normal: H(Y) − H(Y|x) by quadrature."""
    images = torch.randn(200, 2, 16, 16, generator=generator)
    masks = torch.rand(200, 16, 16, generator=generator) < torch.sigmoid(2 * images[:, 0] - 1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    p, weights = 1 / (1 + np.exp(1 - 2 * nodes)), weights / weights.sum()
    truth = _binary_entropy(weights @ p) - weights @ _binary_entropy(p)
    readings = _probed(images, masks, **{"1": slice(None)})
    yield _check("logistic channel, two channels of which one tells", readings["1"][0], float(truth))


def _merges(generator: torch.Generator) -> Iterator[Check]:
    """A bit in each of U and S at every pixel; the mask is that of S, or their exclusive or, which no linear probe sees."""
    bits = torch.rand(2, 100, 16, 16, generator=generator) < 0.5
    images = bits.movedim(0, 1) + 0.01 * torch.randn(100, 2, 16, 16, generator=generator)
    entropy = float(_binary_entropy(np.mean(bits[1, -50:].numpy())))
    for case, masks, truth in (
        ("mask told by the skip alone", bits[1], entropy),
        ("exclusive or", bits[0] ^ bits[1], 0.0),
    ):
        for reading in _probed(images, masks, U=slice(0, 1), S=slice(1, 2))["SU"]:
            if reading.quantity == Quantity.USABLE_SKIP_GIVEN_UPSAMPLED:
                check = _check(f"{case}, {reading.quantity}", reading, truth)
                yield _near(check, 0.002)


def _near(check: Check, tolerance: float) -> Check:
    """The check with a tolerance besides what the estimate says of itself."""
    return replace(check, low=check.low - tolerance, high=check.high + tolerance)


def _check(case: str, reading: Reading, truth: float, *, outside: bool = False, bracket: bool = False) -> Check:
    low, high = (reading.lower, reading.upper) if bracket else (reading.low, reading.high)
    return Check(case, reading.estimator, truth, reading.nats / BIT, low / BIT, high / BIT, outside, reading.reason)


def _squared(activations: Tensor) -> Tensor:
    distances = Distances(len(activations), precise=True)
    distances.add(activations)
    return distances.squared()


def _binary_entropy(p: np.ndarray | float) -> np.ndarray:
    return np.asarray(-(p * np.log2(p) + (1 - p) * np.log2(1 - np.asarray(p))))


class Channels(nn.Module):
    """A network whose layers are parts of its input's channels, so that what they hold is known."""

    def __init__(self, channels: Mapping[str, slice]) -> None:
        super().__init__()
        for name, part in channels.items():
            self.add_module(name, _Part(part))

    def forward(self, images: Tensor) -> Tensor:
        """The images as they come, shown to every layer."""
        for part in self.children():
            part(images)
        return images


class _Part(nn.Module):
    def __init__(self, channels: slice) -> None:
        super().__init__()
        self._channels = channels

    def forward(self, images: Tensor) -> Tensor:
        return images[:, self._channels]


def _probed(images: Tensor, masks: Tensor, **channels: slice) -> dict[str, list[Reading]]:
    network, half = Channels(channels), len(images) // 2
    layers = tuple(Layer(name, name) for name in channels)
    skips: tuple[Skip, ...] = ()
    if len(channels) > 1:
        layers += (Layer("SU", "", role="merge", parts=("U", "S")),)
        skips = (Skip("skip1", "S", "U", "SU"),)
    masks = masks.to(torch.uint8)
    train, held_out = (Segmented(images[part], masks[part]) for part in (slice(0, half), slice(half, None)))
    return probe(network, train, held_out, with_shapes(network, layers, images[:1]), skips)
