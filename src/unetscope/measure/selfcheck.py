"""Every estimator against a truth known in closed form, on this machine.

The registry names, for each estimator, the functions below, or functions of its own module, that yield its checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from unetscope.activations import with_shapes
from unetscope.estimators import BIT, KDE, KSG, Binning, Check, LayerStatistics, Mixture, Reading, Renyi, check_of, near
from unetscope.measure.distances import Distances
from unetscope.measure.probe_data import Segmented
from unetscope.measure.probing import probe
from unetscope.measure.quantization import Symbols
from unetscope.table import Layer, Quantity, Skip, entries, imported


def run_selfcheck(on_case: Callable[[int, int], None] | None = None) -> list[Check]:
    """Measure every case; a 95 % interval misses its truth once in twenty, so one miss in a table is no error.

    >>> all(check.passed for check in run_selfcheck())
    True
    """
    cases = list(dict.fromkeys(path for entry in entries() for path in entry.checks))  # some are of several estimators
    checks: list[Check] = []
    for done, path in enumerate(cases, start=1):
        checks += imported(path)(torch.Generator().manual_seed(7))
        if on_case is not None:
            on_case(done, len(cases))
    return checks


def gaussian_channels(generator: torch.Generator) -> Iterator[Check]:
    """X standard normal in d dimensions, T = X + noise: (d/2) ln(1 + 1/σ²)."""
    for d, noise_variance in ((1, 1.0), (2, 0.1), (10, 4.0), (200, 1.0)):
        layer = _layer(torch.randn(512, d, generator=generator))
        truth = d / 2 * math.log1p(1 / noise_variance) / BIT
        outside = truth > math.log2(512) - 1
        case = f"Gaussian channel, d = {d}, noise variance {noise_variance:g}"
        (reading,) = Mixture(noise_variance).readings(layer, {})
        yield check_of(case, reading, truth, outside=outside)
        if not outside:  # the bounds are of the mixture of these images, and end at the logarithm of their number
            yield check_of(case, next(KDE(noise_variance).readings(layer, {})), truth, bracket=True)


def tight_clusters(generator: torch.Generator) -> Iterator[Check]:
    """16 tight clusters in 10,000 dimensions, and a label shared by four of them each: I(X;T) = 4 bits, I(Y;T) = 2 bits."""
    clusters = torch.randint(16, (605,), generator=generator)
    centres = torch.randn(16, 10_000, generator=generator)
    squared = _squared(centres[clusters] + 1e-4 * torch.randn(605, 10_000, generator=generator))
    about_input, about_label = Mixture().readings(LayerStatistics.of_distances(squared), {"a quarter": clusters % 4})
    yield check_of("16 clusters in 10,000 dimensions, I(X;M)", about_input, 4.0)
    yield check_of("16 clusters in 10,000 dimensions, I(Y;M)", about_label, 2.0)
    relative = LayerStatistics.of_distances(squared / squared.median())
    narrow = Renyi(bandwidth=0.05)  # in which a median pair, of two clusters, has nothing in common
    about_input, about_label = narrow.readings(relative, {"a quarter": clusters % 4})
    yield check_of("the same clusters, narrow kernel, I(X;M)", about_input, 4.0)
    yield check_of("the same clusters, narrow kernel, I(Y;M)", about_label, 2.0)


def grid_cells(generator: torch.Generator) -> Iterator[Check]:
    """Five cells of a 100-dimensional grid, visited 1, 2, 4, 8 and 16 times: the entropy of those counts, exactly."""
    cells = torch.arange(5).repeat_interleave(2 ** torch.arange(5))
    values = torch.randint(-9, 9, (5, 100), generator=generator)[cells] + 0.8 * torch.rand(31, 100, generator=generator)
    symbols = Symbols(31, 1.0)
    symbols.add(values)
    reading = next(Binning(1.0).readings(LayerStatistics.of_symbols(symbols.groups(), 1.0), {}))
    p = (2.0 ** np.arange(5)) / 31
    check = check_of("5 cells of a grid", reading, float(-(p * np.log2(p)).sum()))
    yield Check(check.case, check.estimator, check.truth, check.bits, check.bits - 1e-9, check.bits + 1e-9)


def normal_codes(generator: torch.Generator) -> Iterator[Check]:
    """Correlated normal codes, −½ log₂(1 − ρ²); and a label that an independent one knows nothing about."""
    x, noise = torch.randn(605, 1, generator=generator), torch.randn(605, 1, generator=generator)
    for rho in (0.0, 0.9):
        layer = LayerStatistics.of_distances(_squared(rho * x + math.sqrt(1 - rho**2) * noise), inputs=_squared(x))
        about_input, about_label = KSG(1).readings(layer, {"sign": (x[:, 0] > 0).long()})
        yield check_of(f"normal codes, ρ = {rho:g}, I(X;M)", about_input, -math.log2(1 - rho**2) / 2)
        if not rho:
            yield check_of("normal codes, ρ = 0, I(Y;M)", about_label, 0.0)


def logistic_channel(generator: torch.Generator) -> Iterator[Check]:
    """P(Y = 1 | x) = sigmoid(2x − 1) at every pixel, x standard normal: H(Y) − H(Y|x) by quadrature."""
    images = torch.randn(200, 2, 16, 16, generator=generator)
    masks = torch.rand(200, 16, 16, generator=generator) < torch.sigmoid(2 * images[:, 0] - 1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    p, weights = 1 / (1 + np.exp(1 - 2 * nodes)), weights / weights.sum()
    truth = _binary_entropy(weights @ p) - weights @ _binary_entropy(p)
    readings = _probed(images, masks, **{"1": slice(None)})
    yield check_of("logistic channel, two channels of which one tells", readings["1"][0], float(truth))


def merged_bits(generator: torch.Generator) -> Iterator[Check]:
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
                check = check_of(f"{case}, {reading.quantity}", reading, truth)
                yield near(check, 0.002)


def _layer(activations: Tensor) -> LayerStatistics:
    return LayerStatistics.of_distances(_squared(activations))


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
