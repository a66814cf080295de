"""The matrix-based index against closed forms, slow twins, finite differences and its null."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unetscope.base.errors import InvalidArgument
from unetscope.estimators.interface import LayerStatistics, Reading
from unetscope.estimators.labels import entropy_nats
from unetscope.estimators.renyi import Renyi
from unetscope.estimators.resampling import quarters


def squared_distances(activations: Tensor) -> Tensor:
    centred = activations - activations.mean(dim=0)
    products = centred @ centred.T
    return (products.diagonal()[:, None] + products.diagonal() - 2 * products).clamp(min=0).fill_diagonal_(0)


def relative(activations: Tensor) -> Tensor:
    squared = squared_distances(activations)
    pairs = torch.triu_indices(len(squared), len(squared), 1)
    return squared / squared[pairs[0], pairs[1]].median()


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def of_input(squared: Tensor, estimator: Renyi = Renyi()) -> Reading:  # noqa: B008
    return next(estimator.readings(LayerStatistics.of_distances(squared), {}))


def of_label(squared: Tensor, labels: Tensor, estimator: Renyi = Renyi()) -> Reading:  # noqa: B008
    return list(estimator.readings(LayerStatistics.of_distances(squared), {"given": labels}))[1]


def slow_entropy(matrix: np.ndarray, alpha: float) -> float:
    return math.log(sum(max(value, 0.0) ** alpha for value in np.linalg.eigvalsh(matrix / np.trace(matrix)))) / (
        1 - alpha
    )


def slow_indices(activations: np.ndarray, labels: np.ndarray, bandwidth: float, alpha: float) -> tuple[float, float]:
    n = len(activations)
    squared = np.array([[((one - other) ** 2).sum() for other in activations] for one in activations])
    kernel = np.exp(-squared / (2 * bandwidth * np.median(squared[~np.eye(n, dtype=bool)])))
    same = np.array([[float(one == other) for other in labels] for one in labels])
    whole = slow_entropy(kernel, alpha)
    told = whole + slow_entropy(same, alpha) - slow_entropy(kernel * same, alpha)
    return whole + math.log(n) - slow_entropy(kernel * np.eye(n), alpha), told


@pytest.mark.parametrize(("bandwidth", "alpha"), [(0.5, 1.01), (0.1, 2.0), (2.0, 0.5)])
def test_indices_are_those_of_the_slow_twin(bandwidth: float, alpha: float) -> None:
    activations, labels = gaussian(31, 3, 0), torch.tensor([0, 7, 7, 2, 0] * 6 + [5])
    estimator = Renyi(bandwidth, alpha)
    twin = slow_indices(activations.numpy(), labels.numpy(), bandwidth, alpha)
    readings = list(estimator.readings(LayerStatistics.of_distances(relative(activations)), {"given": labels}))
    assert [reading.nats for reading in readings] == pytest.approx(twin, abs=1e-6)
    assert readings[1].ceiling == pytest.approx(slow_entropy(np.equal.outer(labels, labels).astype(float), alpha))


@pytest.mark.parametrize("alpha", [0.5, 1.01, 2.0])
def test_the_entropy_of_a_few_eigenvalues_is_known(alpha: float) -> None:
    """Two images alike by c have the eigenvalues (1 ± c) / 2; clusters of equal images their shares."""
    kernel = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    entropy = math.log(0.8**alpha + 0.2**alpha) / (1 - alpha)
    assert of_input(-kernel.log(), Renyi(0.5, alpha)).nats == pytest.approx(entropy, abs=1e-6)
    entropy = math.log(sum(share**alpha for share in (1 / 2, 1 / 3, 1 / 6))) / (1 - alpha)
    assert of_input(far_apart(torch.tensor([0, 0, 0, 1, 1, 2])), Renyi(0.5, alpha)).nats == pytest.approx(
        entropy, abs=1e-6
    )


def far_apart(clusters: Tensor) -> Tensor:
    """Distances between images whose kernel is 1 in a cluster and 0 between clusters."""
    return 1e6 * (clusters[:, None] != clusters).double()


def test_near_order_one_equal_labels_have_shannons_entropy() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    assert of_input(far_apart(labels), Renyi(0.5, 1 + 1e-6)).nats == pytest.approx(entropy_nats(labels), abs=1e-5)


def weighted_indices(kernel: np.ndarray, labels: np.ndarray, weights: np.ndarray, alpha: float) -> tuple[float, float]:
    roots, same = np.sqrt(np.outer(weights, weights)), np.equal.outer(labels, labels)
    whole = slow_entropy(kernel * roots, alpha)
    return whole, whole + slow_entropy(same * roots, alpha) - slow_entropy(kernel * same * roots, alpha)


@pytest.mark.parametrize("alpha", [0.7, 1.01, 2.0])
def test_an_images_value_is_the_derivative_by_its_weight(alpha: float) -> None:
    """Against central differences: more weight for one image, proportionally less for all."""
    squared, labels = 0.1 * relative(gaussian(20, 2, 1)), torch.arange(20) % 3
    readings = list(Renyi(20.0, alpha).readings(LayerStatistics.of_distances(squared), {"given": labels}))
    kernel, step = np.exp(-squared.numpy() / 40), 1e-4
    assert [reading.reason for reading in readings] == ["", ""]
    for image in range(20):
        moved = []
        for sign in (1, -1):
            weights = np.full(20, (1 - sign * step) / 20)
            weights[image] += sign * step
            moved.append(weighted_indices(kernel, labels.numpy(), weights, alpha))
        for reading, more, less in zip(readings, *moved, strict=True):
            assert reading.per_image[image] - reading.nats == pytest.approx(
                (more - less) / (2 * step), rel=1e-4, abs=1e-7
            )
    for reading in readings:
        assert np.mean(reading.per_image) == pytest.approx(reading.nats, abs=1e-9)


def test_the_curve_is_of_fewer_images() -> None:
    squared, labels = relative(gaussian(43, 3, 2)), torch.arange(43) % 4
    readings = list(Renyi().readings(LayerStatistics.of_distances(squared), {"given": labels}))
    kernel, same = np.exp(-squared.numpy()), np.equal.outer(labels.numpy(), labels.numpy())
    for place, divisor in ((0, 1), (1, 2)):
        whole, told = [], []
        for split in quarters(43, squared.device).T.numpy() // divisor:
            for part in set(split.tolist()):
                rows = np.ix_(split == part, split == part)
                share = np.mean(split == part)
                entropy = slow_entropy(kernel[rows], 1.01)
                both = slow_entropy((kernel * same)[rows], 1.01)
                whole.append(share * entropy)
                told.append(share * (entropy + slow_entropy(same[rows].astype(float), 1.01) - both))
        splits = quarters(43, squared.device).shape[1]
        assert readings[0].curve[place] == pytest.approx(sum(whole) / splits, abs=1e-9)
        assert readings[1].curve[place] == pytest.approx(sum(told) / splits, abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(2, 6), st.sampled_from([0.5, 0.9, 1.01, 3.0]))
def test_an_index_knows_no_order_and_no_name_and_never_exceeds_its_ceiling(
    seed: int, n: int, classes: int, alpha: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    squared = squared_distances(torch.randn(n, 2, generator=generator, dtype=torch.float64))
    labels, order = torch.randint(classes, (n,), generator=generator), torch.randperm(n, generator=generator)
    labels[:2] = torch.arange(2)
    estimator = Renyi(0.5, alpha, permutations=1)
    here = list(estimator.readings(LayerStatistics.of_distances(squared), {"given": labels}))
    there = list(
        estimator.readings(LayerStatistics.of_distances(squared[order][:, order]), {"given": 100 - 7 * labels[order]})
    )
    assert [one.nats for one in here] == pytest.approx([other.nats for other in there], abs=1e-6)
    assert here[0].nats <= math.log(n) + 1e-6
    assert here[1].nats <= here[1].ceiling + 1e-6
    assert here[1].ceiling <= math.log(classes) + 1e-6


def pair_index(one: Tensor, other: Tensor) -> float:
    x, y, both = (slow_entropy(kernel.numpy(), 1.01) for kernel in (one, other, one * other))
    return x + y - both


def test_silvermans_bandwidth_does_not_tell_identical_from_independent_layers() -> None:
    """Of 300 images in 10⁴ dimensions, with γ = √2: near 1.5 nats each, as is known, and 0.003 apart."""
    n, d = 300, 10_000
    variance = 2 * d * n ** (-2 / (4 + d))
    one, other = (torch.exp(-squared_distances(gaussian(n, d, seed)) / (2 * variance)) for seed in (0, 1))
    assert pair_index(one, other) == pytest.approx(1.505, abs=0.01)
    assert pair_index(one, one) == pytest.approx(1.506, abs=0.01)
    assert abs(pair_index(one, one) - pair_index(one, other)) < 0.005


def test_the_median_distance_and_the_null_tell_them_apart() -> None:
    """Labels are the nearest of four faint prototypes; the index barely moves, and no permutation reaches it."""
    n, d = 300, 10_000
    labels = torch.arange(n) % 4
    faint = gaussian(n, d, 0) + 0.2 * gaussian(4, d, 1)[labels]
    told, chance = of_label(relative(1e-3 * faint), labels), of_label(relative(gaussian(n, d, 2)), labels)
    assert abs(told.nats - chance.nats) < 0.05
    assert told.p == 1 / 40
    assert told.nats > told.null_high
    assert chance.p > 0.1
    fixed = of_label(squared_distances(1e-3 * faint), labels)  # of unit bandwidth: all images alike, and nothing told
    assert fixed.nats < 0.1 * told.nats


def rejected(repetitions: int) -> float:
    count = 0
    for seed in range(repetitions):
        labels = torch.randint(4, (60,), generator=torch.Generator().manual_seed(seed))
        count += of_label(relative(gaussian(60, 3, 1000 + seed)), labels).p <= 0.05
    return count / repetitions


def test_labels_that_are_chance_are_rejected_rarely() -> None:
    assert rejected(40) <= 0.15


@pytest.mark.slow
def test_labels_that_are_chance_are_rejected_at_the_level() -> None:
    assert 0.03 <= rejected(300) <= 0.07


def test_the_null_is_the_index_of_permuted_labels() -> None:
    squared, labels = relative(gaussian(50, 2, 3)), torch.arange(50) % 3
    reading = of_label(squared, labels)
    generator = torch.Generator().manual_seed(0)
    kernel = np.exp(-squared.numpy())
    chance = []
    for _ in range(39):
        permuted = labels[torch.randperm(50, generator=generator)].numpy()
        same = np.equal.outer(permuted, permuted).astype(float)
        chance.append(slow_entropy(kernel, 1.01) + slow_entropy(same, 1.01) - slow_entropy(kernel * same, 1.01))
    assert (reading.null_mean, reading.null_high) == pytest.approx(
        (np.mean(chance), np.quantile(chance, 0.95)), abs=1e-9
    )


def covered(repetitions: int) -> tuple[float, float]:
    """Of the index of 8 clusters of unequal odds, whose limit is Rényi's entropy of the odds: covered, and in the domain."""
    odds = torch.tensor([8.0, 4, 4, 2, 2, 1, 1, 1])
    truth = math.log(sum((share / 23) ** 1.01 for share in odds.tolist())) / (1 - 1.01)
    inside = []
    for seed in range(repetitions):
        clusters = torch.multinomial(odds, 250, True, generator=torch.Generator().manual_seed(seed))
        reading = of_input(1e6 * (clusters[:, None] != clusters).double())
        inside.append(reading.low < truth < reading.high)
        assert not reading.reason
    return float(np.mean(inside)), truth


def test_the_limit_of_clusters_is_covered_about_as_often_as_said() -> None:
    assert covered(30)[0] >= 0.8


@pytest.mark.slow
def test_the_limit_of_clusters_is_covered_as_often_as_said() -> None:
    assert 0.90 <= covered(200)[0] <= 0.99


def test_a_layer_without_two_images_alike_is_out_of_domain() -> None:
    reading = of_input(relative(gaussian(200, 1000, 0)))
    assert reading.reason.startswith("out of domain: 200 images are too few to tell")
    assert reading.capped
    assert math.isnan(reading.low)
    assert math.isnan(reading.ceiling)


def test_a_layer_that_tells_nothing_tells_nothing() -> None:
    alike, labels = torch.zeros(40, 40, dtype=torch.float64), torch.arange(40) % 2
    assert of_input(alike).nats == pytest.approx(0, abs=1e-6)
    assert of_label(alike, labels).nats == pytest.approx(0, abs=1e-6)
    assert of_label(alike, labels).p == 1


def test_an_index_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"bandwidth must be > 0, got 0\.0"):
        Renyi(0.0)
    with pytest.raises(
        InvalidArgument, match=r"alpha must be > 0 and other than 1, got 1\.0: for the limit at 1 take one"
    ):
        Renyi(alpha=1.0)
    with pytest.raises(InvalidArgument, match=r"alpha must be > 0 and other than 1, got -2\.0"):
        Renyi(alpha=-2.0)
    with pytest.raises(InvalidArgument, match="permutations must be 1 or more, got 0"):
        Renyi(permutations=0)
    with pytest.raises(InvalidArgument, match="3 labels for 4 images: expected one an image"):
        of_label(torch.zeros(4, 4), torch.zeros(3, dtype=torch.long))
