"""The information of a noisy layer against closed forms: value, interval, domain and null."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unetscope.base.errors import InvalidArgument
from unetscope.estimators.interface import LayerStatistics, Reading
from unetscope.estimators.kde import KDE
from unetscope.estimators.mixture import Mixture


def squared_distances(activations: Tensor) -> Tensor:
    return torch.cdist(activations, activations, compute_mode="donot_use_mm_for_euclid_dist").square()


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def of_input(squared: Tensor, noise_variance: float = 1.0) -> Reading:
    (reading,) = Mixture(noise_variance).readings(LayerStatistics.of_distances(squared), {})
    return reading


def of_label(squared: Tensor, labels: Tensor, noise_variance: float = 1.0) -> Reading:
    return list(Mixture(noise_variance).readings(LayerStatistics.of_distances(squared), {"given": labels}))[1]


def slow_mixture(
    activations: np.ndarray, noise_variance: float, classes: np.ndarray, draws: int
) -> tuple[float, float]:
    """I(X;T) and I(Y;T) in nats of the mixture of these activations, with noise drawn in the space of the activations."""
    random, (n, d) = np.random.default_rng(0), activations.shape
    whole, inside = [], []
    for _ in range(draws):
        for i in range(n):
            noise = random.normal(0, math.sqrt(noise_variance), d)
            terms = np.exp(
                -(((activations[i] + noise - activations) ** 2).sum(1) - (noise**2).sum()) / (2 * noise_variance)
            )
            whole.append(-math.log(terms.mean()))
            inside.append(-math.log(terms[classes == classes[i]].mean()))
    return float(np.mean(whole)), float(np.mean(whole) - np.mean(inside))


def test_noise_drawn_through_the_distances_is_noise_drawn_among_the_activations() -> None:
    """The plain estimate, before the jackknife: the slow twin knows the activations, ours only how far apart they are."""
    from unetscope.estimators.mixture import _kernel, _left_out, _root

    activations, classes = gaussian(24, 3, 0), torch.arange(24) % 3
    squared = squared_distances(activations)
    generator = torch.Generator().manual_seed(0)
    kernels = [_kernel(squared, _root(squared), 0.5, generator) for _ in range(400)]
    whole = np.mean([_left_out(kernel, None, None)[0] for kernel in kernels])
    inside = np.mean([_left_out(kernel, classes, None)[0] for kernel in kernels])
    slow = slow_mixture(activations.numpy(), 0.5, classes.numpy(), 400)
    assert (whole, whole - inside) == pytest.approx(slow, abs=0.03)
    upper, lower = (r.nats for r in KDE(0.5).readings(LayerStatistics.of_distances(squared), {}))
    assert lower < whole < upper


def test_leaving_out_is_leaving_out() -> None:
    from unetscope.estimators.mixture import _among, _kernel, _left_out, _root

    squared, labels = squared_distances(gaussian(12, 2, 0)), torch.arange(12) % 5
    kernel = _kernel(squared, _root(squared), 1.0, torch.Generator().manual_seed(0))
    for classes in (None, labels):
        _, without = _left_out(kernel, classes, None)
        for image in range(12):
            rows = torch.tensor([row for row in range(12) if row != image])
            value, _ = _left_out(_among(kernel, rows), None if classes is None else classes[rows], None)
            assert without[image].item() == pytest.approx(value.item(), abs=1e-9)


CHANNELS = [(1, 1.0), (2, 0.1), (5, 1.0), (10, 4.0), (20, 4.0)]


def covered(repetitions: int, n: int = 256) -> tuple[float, float]:
    """Shares of Gaussian channels whose truth lies in the interval, and that are in the domain."""
    inside, found = [], 0
    for seed in range(repetitions):
        d, noise_variance = CHANNELS[seed % len(CHANNELS)]
        reading = of_input(squared_distances(gaussian(n, d, seed)), noise_variance)
        if not reading.reason:
            found += 1
            inside.append(reading.low < d / 2 * math.log1p(1 / noise_variance) < reading.high)
    return float(np.mean(inside)), found / repetitions


def test_gaussian_channels_are_covered_about_as_often_as_said() -> None:
    share, in_domain = covered(20)
    assert share >= 0.8
    assert in_domain >= 0.8


@pytest.mark.slow
def test_gaussian_channels_are_covered_as_often_as_said() -> None:
    share, in_domain = covered(200)
    assert 0.90 <= share <= 0.99
    assert in_domain >= 0.9


@pytest.mark.parametrize(("d", "noise_variance"), [(20, 1.0), (200, 1.0), (10, 0.01)])
def test_what_so_few_images_cannot_tell_is_out_of_domain(d: int, noise_variance: float) -> None:
    """The upper bound of the KDE shows a fine-looking 6.2 nats in 20 dimensions, where the truth is 6.9."""
    reading = of_input(squared_distances(gaussian(256, d, 0)), noise_variance)
    assert math.isnan(reading.nats)
    assert reading.reason.startswith("out of domain: 256 images are too few to tell; with half of them the estimate is")


def clustered(labels: Tensor, d: int = 10_000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(int(labels.max()) + 1, d, generator=generator)
    return squared_distances((centres[labels] + 1e-3 * torch.randn(len(labels), d, generator=generator)).double())


@pytest.mark.long
def test_clusters_in_many_dimensions_are_told_without_the_bias_of_few_images() -> None:
    """H of 16 equally likely clusters, drawn 200 times: the plain entropy is 0.04 nats too small on the average."""
    readings = []
    for seed in range(10):
        labels = torch.randint(16, (200,), generator=torch.Generator().manual_seed(seed))
        readings.append(of_input(clustered(labels)))
    assert not any(reading.reason for reading in readings)
    assert np.mean([reading.nats for reading in readings]) == pytest.approx(math.log(16), abs=0.01)
    assert np.mean([reading.low < math.log(16) < reading.high for reading in readings]) >= 0.8
    about = of_label(clustered(labels % 4), labels % 4)
    assert about.nats == pytest.approx(math.log(4), abs=0.02)
    assert about.p == 0.01


def rejected(repetitions: int) -> float:
    count = 0
    for seed in range(repetitions):
        labels = torch.randint(4, (60,), generator=torch.Generator().manual_seed(seed))
        count += of_label(squared_distances(gaussian(60, 3, 1000 + seed)), labels).p <= 0.05
    return count / repetitions


def test_labels_that_are_chance_are_rejected_rarely() -> None:
    assert rejected(40) <= 0.15


@pytest.mark.slow
def test_labels_that_are_chance_are_rejected_at_the_level() -> None:
    assert 0.03 <= rejected(300) <= 0.07


def test_a_layer_that_tells_nothing_tells_nothing() -> None:
    reading = of_input(torch.zeros(40, 40, dtype=torch.float64))
    assert reading.nats == pytest.approx(0, abs=1e-6)
    assert of_label(torch.zeros(40, 40, dtype=torch.float64), torch.arange(40) % 2).nats == pytest.approx(0, abs=1e-6)


def test_a_mixture_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"noise_variance must be > 0, got 0\.0"):
        Mixture(0.0)
    with pytest.raises(InvalidArgument, match="draws must be 1 or more, got 0"):
        Mixture(draws=0)
    with pytest.raises(InvalidArgument, match="permutations must be 1 or more, got 0"):
        Mixture(permutations=0)
