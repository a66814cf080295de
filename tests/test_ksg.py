"""Nearest neighbours against closed forms, scikit-learn and slow twins: value, interval, domain and null."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import beta, digamma
from sklearn.decomposition import PCA
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression
from torch import Tensor

from unetscope.base.errors import InvalidArgument
from unetscope.estimators.interface import LayerStatistics, Reading
from unetscope.estimators.ksg import KSG, chebyshev, codes, ksg_information, label_distances, light_tailed
from unetscope.measure.distances import Distances


def squared_distances(activations: Tensor) -> Tensor:
    return torch.cdist(activations, activations, compute_mode="donot_use_mm_for_euclid_dist").square()


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def information(x: Tensor, y: Tensor, k: int = 3) -> Tensor:
    return ksg_information(chebyshev(x), chebyshev(y), k)


def label_information(x: Tensor, labels: Tensor, k: int = 3) -> Tensor:
    return ksg_information(chebyshev(x), label_distances(labels), k)


def of_input(x: Tensor, y: Tensor, estimator: KSG = KSG()) -> Reading:  # noqa: B008
    return next(estimator.readings(LayerStatistics.of_distances(squared_distances(y), squared_distances(x)), {}))


def of_label(x: Tensor, labels: Tensor, estimator: KSG = KSG()) -> Reading:  # noqa: B008
    return next(estimator.readings(LayerStatistics.of_distances(squared_distances(x)), {"given": labels}))


def normal(d: int, correlation: float, n: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """d pairs of correlated values, and their information."""
    x, noise = gaussian(n, 2 * d, seed).split(d, dim=1)
    return (
        x,
        correlation * x + math.sqrt(1 - correlation**2) * noise,
        -d / 2 * math.log1p(-(correlation**2)),
    )


def uniform(noise: float, n: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """U(0,1) and the same with noise of ± `noise` added, and their information."""
    x, added = torch.rand(2, n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    information = noise - math.log(2 * noise) if noise <= 0.5 else 1 / (4 * noise)
    return x, x + noise * (2 * added - 1), information


def classes(d: int, apart: float, n: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """Two equally likely classes of unit Gaussians at ±`apart`, and their information by quadrature."""

    def term(x: float) -> float:
        density = (math.exp(-((x - apart) ** 2) / 2) + math.exp(-((x + apart) ** 2) / 2)) / math.sqrt(8 * math.pi)
        return -density * math.log(density) if density else 0.0

    labels = torch.randint(2, (n,), generator=torch.Generator().manual_seed(seed + 10_000))
    x = gaussian(n, d, seed)
    x[:, 0] += apart * (2 * labels - 1)
    return x, labels, quad(term, -apart - 10, apart + 10, limit=200)[0] - 0.5 * math.log(2 * math.pi * math.e)


def slow_information(x: np.ndarray, y: np.ndarray, k: int) -> list[float]:
    n = len(x)
    x, y = x / x.std(axis=0), y / y.std(axis=0)
    values = []
    for i in range(n):
        in_x = [max(abs(x[i] - x[j])) for j in range(n) if j != i]
        in_y = [max(abs(y[i] - y[j])) for j in range(n) if j != i]
        radius = sorted(max(one, other) for one, other in zip(in_x, in_y, strict=True))[k - 1]
        near_x, near_y = (sum(distance < radius for distance in some) for some in (in_x, in_y))
        values.append(digamma(k) + digamma(n) - digamma(near_x + 1) - digamma(near_y + 1))
    return values


def slow_label_information(x: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Ross's, with an image that is alone in its class left out."""
    x = x / x.std(axis=0)
    rows = [i for i in range(len(x)) if sum(labels == labels[i]) > 1]
    values = []
    for i in rows:
        inside = sorted(max(abs(x[i] - x[j])) for j in rows if j != i and labels[j] == labels[i])
        taken = min(k, len(inside))
        nearer = sum(max(abs(x[i] - x[j])) < inside[taken - 1] for j in rows)  # itself among them
        values.append(digamma(taken) + digamma(len(rows)) - digamma(nearer) - digamma(len(inside) + 1))
    return float(np.mean(values))


def test_codes_are_the_principal_components() -> None:
    activations = gaussian(60, 12, 0) * torch.linspace(3, 0.3, 12, dtype=torch.float64) + 100
    ours, theirs = codes(squared_distances(activations), 5).numpy(), PCA(5).fit_transform(activations.numpy())
    signs = np.sign((ours * theirs).sum(axis=0))
    np.testing.assert_allclose(signs * ours, theirs, atol=1e-8)


def test_codes_have_no_more_components_than_the_layer() -> None:
    line = gaussian(50, 1, 0)
    assert codes(squared_distances(line @ torch.ones(1, 30, dtype=torch.float64)), 4).shape == (50, 1)
    assert codes(torch.zeros(50, 50), 4).shape == (50, 0)
    in_float32 = Distances(50)
    in_float32.add(line.float() @ torch.ones(1, 3000))
    assert codes(in_float32.squared(), 4).shape == (50, 1)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_values_are_those_of_the_slow_twins(k: int) -> None:
    x, y, _ = normal(2, 0.7, 50, 0)
    np.testing.assert_allclose(information(x, y, k).numpy(), slow_information(x.numpy(), y.numpy(), k), atol=1e-12)
    labels = torch.tensor([0, 1, 1, 2, 2, 2] * 8 + [7, 9])  # the last two alone in their classes
    assert label_information(x, labels, k).mean().item() == pytest.approx(
        slow_label_information(x.numpy(), labels.numpy(), k), abs=1e-12
    )


@pytest.mark.parametrize("k", [3, 5, 8])
def test_scikit_learn_finds_the_same(k: int) -> None:
    """It adds noise of 10⁻¹⁰ to break ties, and shows what is below 0 as 0.

    Of two images that are each other's nearest in their class, rounding may make it count one too many.
    """
    for seed in range(5):
        x, y, _ = normal(1, 0.8, 300, seed)
        (theirs,) = mutual_info_regression(x.numpy(), y[:, 0].numpy(), n_neighbors=k, random_state=0)
        assert information(x, y, k).mean().item() == pytest.approx(theirs, abs=1e-6)
        x, labels, _ = classes(1, 1.0, 300, seed)
        labels[:7] = torch.tensor([2, 3, 3, 4, 4, 4, 5])
        (theirs,) = mutual_info_classif(x.numpy(), labels.numpy(), n_neighbors=k, random_state=0)
        assert label_information(x, labels, k).mean().item() == pytest.approx(theirs, abs=2e-3)


def test_the_jackknife_is_leaving_out() -> None:
    from unetscope.estimators.ksg import _pseudo_values

    x, y, _ = normal(2, 0.5, 40, 0)
    for other in (chebyshev(y), label_distances(torch.arange(40) % 5)):
        one, without = chebyshev(x), []
        for image in range(40):
            rows = torch.tensor([row for row in range(40) if row != image])
            without.append(-39 * ksg_information(one[rows][:, rows], other[rows][:, rows], 3).mean().item())
        ours = _pseudo_values(one, other, 3)
        np.testing.assert_allclose((ours - ours.mean()).numpy(), np.array(without) - np.mean(without), atol=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(8, 60), st.integers(1, 4), st.floats(1e-3, 1e3), st.integers(1, 5))
def test_order_unit_shift_and_names_change_nothing_and_the_ceiling_holds(
    seed: int, n: int, d: int, unit: float, k: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, n, d, dtype=torch.float64, generator=generator)
    labels, order = torch.randint(3, (n,), generator=generator), torch.randperm(n, generator=generator)
    labels[:4] = torch.tensor([0, 0, 1, 1])
    values = information(x, y, k)
    assert torch.allclose(information(unit * y[order] - 3, x[order], k), values[order])
    assert values.mean().item() <= digamma(n) - digamma(k) + 1e-9
    named = label_information(x, labels, k)
    assert torch.allclose(label_information(unit * x[order] + 1, 100 - 7 * labels[order], k), named[order])


def test_a_layer_that_is_the_input_turned_round_is_at_the_ceiling() -> None:
    """But for rounding, which makes the k-th neighbour nearer in one of both codes."""
    x = gaussian(400, 2, 0)
    turned = x @ torch.linalg.qr(gaussian(2, 2, 1))[0] * 7 + 5
    assert information(x, 3 * x).mean().item() > digamma(400) - digamma(4)
    reading = of_input(x, turned, KSG(permutations=1))
    assert reading.ceiling == pytest.approx(digamma(400) - digamma(3))
    assert reading.capped
    assert digamma(400) - digamma(4) <= reading.nats <= reading.ceiling
    assert reading.reason.startswith("out of domain: 400 images are too few to tell")


Case = Callable[[int, int], tuple[Tensor, Tensor, float]]
CASES: list[Case] = [
    *(lambda n, seed, r=r: normal(1, r, n, seed) for r in (0.0, 0.5, 0.9)),
    *(lambda n, seed, r=r: normal(2, r, n, seed) for r in (0.0, 0.5, 0.9)),
    *(lambda n, seed, r=r: normal(4, r, n, seed) for r in (0.0, 0.5, 0.9)),
    *(lambda n, seed, e=e: uniform(e, n, seed) for e in (0.1, 0.5, 1.0)),
]
LABELLED: list[Case] = [
    *(lambda n, seed, a=a: classes(1, a, n, seed) for a in (0.0, 0.5, 1.0, 2.0)),
    *(lambda n, seed, a=a: classes(4, a, n, seed) for a in (0.0, 0.5, 1.0, 2.0)),
]


def student(freedom: float, correlation: float, n: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """Two values that are Student's together, and their information (Guerrero-Cusumano 1996)."""
    x, y, information = normal(1, correlation, n, seed)
    scale = torch.from_numpy(np.sqrt(freedom / np.random.default_rng(seed).chisquare(freedom, (n, 1))))
    half, whole = freedom / 2, (1 + freedom) / 2
    beyond = 2 * math.log(math.sqrt(half / math.pi) * beta(0.5, half)) - (2 + freedom) / freedom
    return x * scale, y * scale, information + beyond + 2 * whole * (digamma(whole) - digamma(half))


TAILS = [(freedom, correlation) for freedom in (1, 2, 3) for correlation in (0.0, 0.6, 0.9)]


@pytest.mark.parametrize(("freedom", "correlation"), TAILS)
def test_information_under_heavy_tails_is_found(freedom: float, correlation: float) -> None:
    drawn = [student(freedom, correlation, 300, seed) for seed in range(40)]
    found = [information(light_tailed(x), light_tailed(y)).mean().item() for x, y, _ in drawn]
    assert np.mean(found) == pytest.approx(drawn[0][2], abs=0.05)
    if (freedom, correlation) == (1, 0.0):  # as they are, values of neighbours hide it
        assert np.mean([information(x, y).mean().item() for x, y, _ in drawn]) < drawn[0][2] - 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("freedom", "correlation"), TAILS)
def test_information_under_heavy_tails_is_covered(freedom: float, correlation: float) -> None:
    drawn = [student(freedom, correlation, 600, seed) for seed in range(40)]
    readings, truth = [of_input(x, y, KSG(permutations=1)) for x, y, _ in drawn], drawn[0][2]
    inside = [reading.low < truth < reading.high for reading in readings if not reading.reason]
    assert len(inside) >= 20
    assert np.mean(inside) >= 0.88


def test_scores_keep_order_and_ties_and_leave_light_tails_alone() -> None:
    tailed = gaussian(300, 1, 0).sinh() ** 3
    tailed[:40] = tailed[40]
    scores = light_tailed(torch.cat([tailed, gaussian(300, 1, 1)], dim=1))
    assert torch.equal(scores[:, 1], gaussian(300, 1, 1)[:, 0])
    assert len(scores[:41, 0].unique()) == 1
    assert torch.equal(scores[41:, 0].argsort(), tailed[41:, 0].argsort())
    assert torch.equal(light_tailed(torch.zeros(5, 2)), torch.zeros(5, 2, dtype=torch.float64))
    assert light_tailed(torch.zeros(5, 0)).shape == (5, 0)


def covered(repetitions: int, cases: list[Case], n: int = 250) -> tuple[float, float]:
    """Shares of closed forms that lie in the interval, of those in the domain, and that are in the domain."""
    inside, estimator = [], KSG(permutations=1)
    for seed in range(repetitions):
        x, y, truth = cases[seed % len(cases)](n, seed)
        reading = (of_label if y.dtype == torch.long else of_input)(x, y, estimator)
        if not reading.reason:
            inside.append(reading.low < truth < reading.high)
    return float(np.mean(inside)), len(inside) / repetitions


@pytest.mark.long
def test_closed_forms_are_covered_about_as_often_as_said() -> None:
    assert covered(24, CASES)[0] >= 0.8
    assert covered(24, LABELLED)[0] >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize("cases", [CASES, LABELLED], ids=["codes", "labels"])
@pytest.mark.parametrize("n", [250, 605])
def test_closed_forms_are_covered_as_often_as_said(cases: list[Case], n: int) -> None:
    share, in_domain = covered(200, cases, n)
    assert 0.90 <= share <= 0.99
    assert in_domain >= 0.55  # of codes, a third is there to be refused


@pytest.mark.parametrize(("d", "correlation"), [(2, 0.9), (4, 0.9), (4, 0.5)])
def test_what_neighbours_cannot_find_is_out_of_domain(d: int, correlation: float) -> None:
    """Of 4+4 dimensions with ρ = 0.5 they find 0.43 of 0.58 nats, and with 1/n alone nothing would seem amiss."""
    reasons = [of_input(*normal(d, correlation, 605, seed)[:2], KSG(permutations=1)).reason for seed in range(2)]
    assert all("out of domain: 605 images are too few to tell; with ever more of them" in reason for reason in reasons)


def test_a_small_component_that_tells_the_label_is_not_drowned_by_a_large_one() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 2
    small = 0.05 * (labels + 0.2 * torch.randn(300, generator=generator, dtype=torch.float64))
    plane = torch.stack((torch.randn(300, generator=generator, dtype=torch.float64), small), dim=1)
    assert of_label(plane, labels, KSG(components=2)).nats > 0.6


def test_sixteen_dimensions_are_not_found() -> None:
    """The reason why a layer is reduced to a code first: 2.30 nats, and about a third is found."""
    x, y, truth = normal(16, math.sqrt(1 - math.exp(-2 * 2.30 / 16)), 1500, 0)
    assert truth == pytest.approx(2.30)
    assert information(x, y).mean().item() < 0.9
    assert codes(squared_distances(x)).shape == (1500, 4)


def rejected(repetitions: int, of_labels: bool) -> float:
    count = 0
    for seed in range(repetitions):
        labels = torch.randint(4, (60,), generator=torch.Generator().manual_seed(seed))
        x, y = gaussian(60, 6, 1000 + seed).split(3, dim=1)
        count += (of_label(x, labels) if of_labels else of_input(x, y)).p <= 0.05
    return count / repetitions


@pytest.mark.long
@pytest.mark.parametrize("of_labels", [True, False])
def test_chance_is_rejected_rarely(of_labels: bool) -> None:
    assert rejected(20, of_labels) <= 0.2


@pytest.mark.slow
@pytest.mark.parametrize("of_labels", [True, False])
def test_chance_is_rejected_at_the_level(of_labels: bool) -> None:
    assert 0.03 <= rejected(300, of_labels) <= 0.07


def test_what_is_told_is_not_chance() -> None:
    x, labels, truth = classes(2, 1.0, 300, 0)
    reading = of_label(x, labels)
    assert reading.p == 1 / 40
    assert reading.null_high < reading.low < truth < reading.high
    assert np.mean(reading.per_image) == pytest.approx(reading.nats)
    assert (reading.estimator, reading.resolution, reading.labels) == ("ksg", 4.0, "given")
    assert of_input(x, x + gaussian(300, 2, 1)).p == 1 / 40


def test_labels_that_every_image_tells_are_not_certain() -> None:
    """No image of 250 is on the wrong side; one in 700 may be."""
    x, labels, truth = classes(1, 3.0, 250, 0)
    reading = of_label(x, labels)
    assert reading.low < truth < reading.high
    assert reading.high - reading.low >= 2 * 3 / 250
    assert reading.nats <= reading.ceiling


CONSTANT = "out of domain: the layer is the same for all images, so that none is nearer than another"


def test_a_constant_layer_has_a_reason_and_no_number() -> None:
    constant, labels = torch.zeros(40, 40, dtype=torch.float64), torch.arange(40) % 2
    readings = list(
        KSG().readings(LayerStatistics.of_distances(constant, squared_distances(gaussian(40, 2, 0))), {"given": labels})
    )
    assert [reading.reason for reading in readings] == [CONSTANT, CONSTANT]
    assert all(math.isnan(reading.nats) for reading in readings)
    blank = of_input(torch.zeros(40, 1, dtype=torch.float64), gaussian(40, 2, 0))
    assert blank.reason == CONSTANT.replace("layer", "input")


def test_a_discrete_layer_has_a_reason_and_no_number() -> None:
    """Distances in float32 leave equal images a little apart: their codes are tied all the same."""
    activations = gaussian(8, 500, 0)[torch.arange(80) % 8]
    for squared in (squared_distances(activations), torch.cdist(activations.float(), activations.float()).square()):
        (reading,) = KSG().readings(
            LayerStatistics.of_distances((squared + squared.T) / 2), {"given": torch.arange(80) % 2}
        )
        assert math.isnan(reading.nats)
        assert reading.reason == (
            "out of domain: 100% of the images have the code of 3 or more others in the layer, and nearest neighbours need a "
            "continuous one"
        )
    few = gaussian(80, 2, 0)
    few[:4] = few[0]  # four of eighty
    assert not math.isnan(of_label(few, torch.arange(80) % 2).nats)


def test_classes_of_a_few_images_have_a_reason_and_no_number() -> None:
    reading = of_label(gaussian(60, 2, 0), torch.arange(60) % 20)
    assert math.isnan(reading.nats)
    assert reading.reason == (
        "out of domain: 100% of the images are in classes of 3 or fewer, where they lack neighbours"
    )
    alone = label_information(gaussian(5, 2, 0), torch.arange(5))
    assert alone.isnan().all()


def test_a_measurement_that_cannot_be_is_refused() -> None:
    with pytest.raises(
        InvalidArgument, match="components must be 1 to 10, got 11: nearest neighbours fail in more dimensions"
    ):
        KSG(11)
    with pytest.raises(InvalidArgument, match="components must be 1 to 10, got 0"):
        codes(torch.zeros(3, 3), 0)
    with pytest.raises(InvalidArgument, match="neighbours must be 1 or more, got 0"):
        KSG(neighbours=0)
    with pytest.raises(InvalidArgument, match="permutations must be 1 or more, got 0"):
        KSG(permutations=0)
    with pytest.raises(InvalidArgument, match="3 labels for 40 images: expected one an image"):
        of_label(gaussian(40, 2, 0), torch.zeros(3, dtype=torch.long))
    with pytest.raises(InvalidArgument, match="codes of 4 and 5 images: expected the same images"):
        information(gaussian(4, 1, 0), gaussian(5, 1, 0))
    with pytest.raises(InvalidArgument, match="distances between 5 inputs and 40 images: expected the same images"):
        of_input(gaussian(5, 1, 0), gaussian(40, 1, 0))
