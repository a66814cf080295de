"""Estimates of images in groups: coverage, nulls, folds, and that groups of one image change nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from calibration.grouped import FILMS, Films, drawn, estimates, normal, of_estimator, of_mean, of_probe, skewed

import unetscope as us
from unetscope.analysis.paired_differences import interval_over_images
from unetscope.base import InvalidArgument
from unetscope.estimators import KDE, KSG, Binning, Estimator, Groups, LayerStatistics, Mixture, Reading, Renyi
from unetscope.estimators.permuted import permuted_symbols
from unetscope.measure.layer_statistics import readings_of
from unetscope.measure.probe_data import FOLDS, ProbeData, Segmented
from unetscope.table import Quantity, cautious, difference, effective_groups, group_values, student

EVERY = (KDE(1.0), Mixture(1.0, draws=1), Renyi(), Binning(1.0))


def test_without_groups_values_are_those_of_images() -> None:
    for estimator in EVERY:
        films = drawn((1,) * 60, dependent=True, seed=0)
        alone = list(estimates(estimator, films, in_groups=False))
        for image, group in zip(alone, estimates(estimator, films), strict=True):
            assert group.nats == pytest.approx(image.nats, abs=1e-9) and group.groups == pytest.approx(60)
            halved = isinstance(estimator, Mixture)  # whose halves are drawn otherwise
            assert halved or group.curve == pytest.approx(image.curve, abs=1e-9, nan_ok=True)
            if math.isfinite(image.low) and math.isfinite(group.low):
                near = 0.1 if halved else 5e-3
                assert (group.low, group.high) == pytest.approx((image.low, image.high), abs=near)


def test_an_interval_over_films_is_wider_than_one_over_their_frames() -> None:
    films = drawn(FILMS["40 films of 5"], dependent=True, seed=1)
    for estimator in (KDE(1.0), Mixture(1.0, draws=1), Binning(1.0)):
        over_frames, over_films = (next(iter(estimates(estimator, films, in_groups=each))) for each in (False, True))
        assert over_films.high - over_films.low > 1.5 * (over_frames.high - over_frames.low)


def test_nearest_neighbours_are_refused_for_films() -> None:
    (reading,) = estimates(KSG(), drawn((5,) * 20, dependent=True, seed=0))
    assert reading.out_of_domain and math.isnan(reading.nats)
    assert "images of one group are each other's nearest neighbours" in reading.reason


@pytest.mark.parametrize("estimator", EVERY, ids=lambda estimator: type(estimator).__name__)
def test_too_few_films_have_no_interval_and_say_so(estimator: Estimator) -> None:
    for sizes, text in (
        ((5,) * 4, "4 groups of images are too few"),
        ((60, 5, 5, 5, 5, 5), "are worth 1.9 of one size"),
    ):
        for reading in estimates(estimator, drawn(sizes, dependent=True, seed=0)):
            assert math.isnan(reading.low) and math.isnan(reading.high) and not reading.per_image
            assert reading.out_of_domain and text in reading.reason


def test_three_films_have_too_few_orders_for_a_p() -> None:
    for sizes in ((5, 5, 5), (3, 5, 7)):
        readings = list(estimates(Binning(1.0), drawn(sizes, dependent=True, seed=0)))
        assert all(math.isnan(reading.p) for reading in readings)
    for sizes in ((5, 5, 5, 5), (3, 4, 5, 6)):
        labelled = list(estimates(Binning(1.0), drawn(sizes, dependent=True, seed=0)))[1]
        assert math.isnan(labelled.low) and labelled.p >= 1 / 40


@pytest.mark.parametrize("sizes", [(2, 2, 2, 3, 3), (4, 4, 4, 4, 4), (1, 2, 3, 4, 5), (9, 1, 1, 1, 1, 1)])
def test_labels_change_places_in_whole_groups(sizes: tuple[int, ...]) -> None:
    shuffled = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    groups = Groups.of(torch.from_numpy(shuffled))
    orders = groups.orders(50, torch.Generator().manual_seed(0))
    exact = all(len({sizes[group] for group in block}) == 1 for block in groups.blocks)
    for order in orders:
        taken_by = [set(shuffled[order.numpy()[shuffled == group]]) for group in range(len(sizes))]
        assert all(len(taken) == 1 for taken in taken_by)  # all labels of a group come from one group
        assert sorted(taken.pop() for taken in taken_by) == list(range(len(sizes)))  # and each group gives them once
        for group in range(len(sizes)):
            taken = order.numpy()[shuffled == group]
            gives = np.flatnonzero(shuffled == shuffled[taken[0]])
            assert taken.tolist() == [
                gives[i * len(gives) // len(taken)] for i in range(len(taken))
            ]  # stretched, in their order
        if exact:
            assert sorted(order.tolist()) == list(range(len(shuffled)))
    assert len({tuple(order.tolist()) for order in orders}) > 3


BLOCKS = {  # sizes of groups, and those of the groups that change places
    "one size": ((3,) * 7, [[3] * 7]),
    "two sizes, many of each": ((2, 4) * 6, [[2] * 6, [4] * 6]),
    "few of one size beside many others": ((2,) * 4 + (20, 21, 22, 23, 24), [[2, 2, 2, 2, 20, 21, 22, 23, 24]]),
    "all sizes": (tuple(range(1, 13)), [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11, 12]]),
    "one large": ((50, *(5,) * 20), [[*(5,) * 20, 50]]),
    "three groups": ((4, 2, 9), [[2, 4, 9]]),
}


@pytest.mark.parametrize(("sizes", "blocks"), BLOCKS.values(), ids=BLOCKS)
def test_groups_of_about_one_size_change_places(sizes: tuple[int, ...], blocks: list[list[int]]) -> None:
    groups = Groups.of(torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)))
    assert [[sizes[group] for group in block] for block in groups.blocks] == blocks
    assert sorted(group for block in groups.blocks for group in block) == list(range(len(sizes)))
    orders = groups.orders(60, torch.Generator().manual_seed(0))
    assert bool((groups.of_image[orders] != groups.of_image).any(dim=0).all())  # no group keeps its labels for good


@pytest.mark.parametrize("small", [(2, 2, 2, 2), (2, 3, 4, 5)], ids=["four of one size", "all sizes differ"])
def test_what_groups_of_other_sizes_tell_is_no_chance(small: tuple[int, ...]) -> None:
    sizes = torch.tensor([*small, *range(20, 32)])
    film = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    labels = film % 2
    for estimator in (Binning(1.0), KDE(1.0)):
        for reading in estimates(estimator, Films(2 * labels, labels, film)):
            if reading.labels:
                assert reading.p == 1 / 40 and reading.null_mean < 0.1 and not reading.out_of_domain


@pytest.mark.long
@pytest.mark.parametrize("sizes", [tuple(range(1, 21)), tuple(range(4, 38, 3))], ids=["20 groups", "12 groups"])
def test_labels_of_large_groups_alone_are_not_told_by_chance(sizes: tuple[int, ...]) -> None:
    """Whoever is ill has more slices; the state of a group has nothing to do with either."""
    film = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    is_large, rejected = np.array(sizes) > np.median(sizes), []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        ill = torch.from_numpy(rng.random(len(sizes)) < np.where(is_large, 0.4, 0.0)).long()
        state = torch.from_numpy(rng.integers(4, size=len(sizes)))
        if len(ill.unique()) == 2:
            null = permuted_symbols(state[film], ill[film], seed=seed, groups=Groups.of(film))
            rejected.append(null.p <= 0.05)
    assert np.mean(rejected) <= 0.07


def jackknife_by_loops(sums: np.ndarray, sizes: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """The ratio and its delete-a-group standard error, by leaving out each group."""
    without = [sums[groups != g].sum() / sizes[groups != g].sum() for g in np.unique(groups)]
    count = len(without)
    return sums.sum() / sizes.sum(), math.sqrt((count - 1) / count * np.square(without - np.mean(without)).sum())


@pytest.mark.parametrize("seed", range(5))
def test_values_of_groups_are_those_of_the_jackknife(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups, sums, sizes = rng.integers(0, 7, 40), rng.normal(size=40), rng.integers(1, 9, 40).astype(float)
    ratio, error = jackknife_by_loops(sums, sizes, groups)
    values = group_values(sums, sizes, groups)
    assert values.mean() == pytest.approx(ratio)
    assert values.std(ddof=1) / math.sqrt(len(values)) == pytest.approx(error)


def test_groups_of_one_size_give_students_interval_of_their_means() -> None:
    values = np.random.default_rng(0).normal(size=(8, 5))
    groups = np.repeat(np.arange(8), 5)
    of_means, of_groups = student(values.mean(axis=1)), student(group_values(values.ravel(), np.ones(40), groups), 8.0)
    assert (of_groups.low, of_groups.high) == pytest.approx((of_means.low, of_means.high))
    assert effective_groups([5] * 8) == 8 and effective_groups([20, *[5] * 8]) == pytest.approx(60**2 / 600)


class Naive:
    """An estimator that knows no groups."""

    series = (("kde_upper", 1.0),)
    kernels = ()
    needs = KDE(1.0).needs

    def readings(self, statistics: LayerStatistics, classes: dict[str, torch.Tensor]) -> Iterator[Reading]:
        """One reading with an interval and a p."""
        yield Reading(Quantity.INPUT, "kde_upper", 1.0, 0.5, low=0.4, high=0.6, p=0.03, per_image=(0.4, 0.6))


def test_an_estimator_that_knows_no_groups_loses_its_interval() -> None:
    statistics = LayerStatistics.of_distances(torch.rand(4, 4))
    (naive,) = readings_of(statistics, [Naive()], {})
    assert naive.low == 0.4
    (reading,) = readings_of(replace(statistics, groups=Groups.of(torch.tensor([0, 0, 1, 1]))), [Naive()], {})
    assert reading.nats == 0.5 and math.isnan(reading.low) and math.isnan(reading.p) and not reading.per_image
    assert reading.reason == "kde_upper knows no groups of images: its interval and p would be too good"


def probe_data(groups: torch.Tensor | None, n: int = 40) -> ProbeData:
    masks = torch.randint(2, (n, 4, 4), generator=torch.Generator().manual_seed(0))
    part = Segmented(torch.zeros(n, 1, 4, 4), masks, groups=groups)
    return ProbeData(part, part, classes=2, batch_size=3, seed=0, share=False, device=torch.device("cpu"))


@pytest.mark.parametrize("sizes", [(5,) * 8, (1, 2, 3, 4, 5, 6, 9, 10), (20, 4, 4, 4, 4, 4)])
def test_folds_keep_groups_together(sizes: tuple[int, ...]) -> None:
    groups = torch.from_numpy(np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes)))
    data = probe_data(groups)
    for group in groups.unique():
        assert len(data.fold_of[groups == group].unique()) == 1
    counts = torch.bincount(data.fold_of)
    assert len(counts) == FOLDS and counts.min() >= 1 and counts.max() - counts.min() <= max(sizes)
    assert not data.too_few_groups


def test_too_few_groups_for_folds_leave_no_number() -> None:
    assert probe_data(torch.arange(40) % 3).too_few_groups.startswith("3 groups of training images are too few")
    assert not probe_data(None).too_few_groups


def nuclei_in_groups(groups: int, n: int = 24) -> us.SegmentationData:
    return replace(us.synthetic_nuclei(n, image_size=16), groups=tuple(f"patient{i % groups}" for i in range(n)))


@pytest.mark.long
def test_a_scope_takes_its_groups_from_the_data() -> None:
    data = nuclei_in_groups(12, 48)
    train, held_out = data.split(0.5)
    labels = [us.KMeansLabels(4)]
    scope = us.Scope(us.UNet(width=2, depth=1), train, labels=labels, held_out=held_out, estimators=[us.KDE(1.0)])
    for row in scope.measure(0):
        assert row.groups == pytest.approx(6) or (math.isnan(row.low) and math.isnan(row.p))
        assert not row.per_image or len(row.per_image) == 6
        assert row.n == 24
    few, held_out = nuclei_in_groups(6).split(0.5)
    scope = us.Scope(us.UNet(width=2, depth=1), few, labels=labels, held_out=held_out, estimators=[us.KDE(1.0)])
    for row in scope.measure(0):
        assert math.isnan(row.low) and row.reason
        assert row.quantity != Quantity.USABLE or "3 groups of training images are too few" in row.reason


def test_differences_of_layers_are_over_groups() -> None:
    rows = [
        row for estimator in (Binning(1.0),) for row in estimates(estimator, drawn((5,) * 40, dependent=True, seed=0))
    ]
    from unetscope.measure.estimating import to_estimate
    from unetscope.table import Layer

    whole, about_label = (to_estimate(row, Layer("1", "a", shape=(4,)), 0, 200, 3.0) for row in rows)
    between = difference(whole, about_label)
    values = np.subtract(whole.per_image, about_label.per_image)
    assert len(values) == 40
    assert (between.low, between.high) == (cautious(values, 40.0).low, cautious(values, 40.0).high)
    with pytest.raises(InvalidArgument, match="a paired difference needs the same ones"):
        difference(whole, replace(about_label, groups=math.nan))


def test_outcomes_of_retraining_are_over_groups_of_images() -> None:
    rng = np.random.default_rng(0)
    groups = tuple(np.repeat(np.arange(10), 6).tolist())
    values = np.repeat(rng.normal(size=10), 6) + 0.01 * rng.normal(size=(3, 60))
    over_images, over_groups = (interval_over_images(values, each, 0.95) for each in ((), groups))
    assert over_images is not None and over_groups is not None
    assert over_groups.value == pytest.approx(over_images.value)
    assert over_groups.high - over_groups.low > 2 * (over_images.high - over_images.low)
    assert interval_over_images(values[:, :24], groups[:24], 0.95) is None  # four groups


def test_few_repetitions_cover_and_the_null_holds() -> None:
    """The quick version of the study: a rate far off shows in few repetitions."""
    for _, rate in of_estimator(Binning(1.0), "20 films of 5", range(25)):
        assert rate.intervals == 0 or rate.covered >= 0.84
        assert rate.nulls == 0 or rate.rejected <= 0.2
    for draw in (normal, skewed):
        for films in ("20 films of 5", "21 films, one of them a third", "40 films of 1 to 20"):
            assert 0.9 <= of_mean(films, range(400), draw).covered <= 0.997
    assert of_mean("5 films, one of them a third", range(10), normal).intervals == 0  # refused: worth 4.5 films


def test_frames_taken_for_independent_do_not_cover() -> None:
    rates = dict(of_estimator(Binning(1.0), "20 films of 5", range(60), in_groups=False))
    assert rates["I(Y;M)"].rejected >= 0.3  # 0.5 measured, where 0.05 is asked for
    assert rates["I(Y;M)"].covered <= 0.8  # 0.67 measured, where 0.95 is asked for


@pytest.mark.slow
@pytest.mark.parametrize("films", FILMS)
def test_intervals_over_films_cover_and_nulls_hold(films: str) -> None:
    """At 200 repetitions: 90 % less two standard errors, and 5 % within three."""
    rates = [rate for estimator in (Binning(1.0), KDE(1.0)) for _, rate in of_estimator(estimator, films, range(200))]
    for rate in [*rates, of_probe(films, range(200))]:
        assert rate.intervals < 50 or rate.covered >= 0.86, rate.row
        assert rate.nulls < 50 or rate.rejected <= 0.10, rate.row
