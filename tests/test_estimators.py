"""Estimators against closed forms, against slow twins written straight from the formulas, and against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from twins import slow_binning, slow_kde, slow_squared_distances
from unetscope.base.errors import InvalidArgument
from unetscope.estimators.binning import Binning, symbol_label_information
from unetscope.estimators.interface import LayerStatistics, joint_symbols
from unetscope.estimators.kde import KDE, Bound, noise_kernel, shift_by_errors
from unetscope.estimators.labels import entropy_nats
from unetscope.estimators.resampling import Sharing, kernel_information, quarters
from unetscope.measure.distances import Distances
from unetscope.measure.quantization import Symbols
from unetscope.table import built, entries
from unetscope.table import settings as registered_settings
from unetscope.table.estimator_registry import Argument

PROBES: tuple[Argument, ...] = ("probes", "merge_probes")
EVERY_SETTING = {
    setting.name: True if setting.kind is bool else (setting.kind(1),) for setting in registered_settings()
}


ACTIVATIONS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(2, 9), st.integers(1, 12)),
    elements=st.floats(-50, 50, width=32),
)


def distances_of(values: np.ndarray, cuts: int = 1, *, precise: bool = False) -> torch.Tensor:
    distances = Distances(len(values), precise=precise)
    for part in np.array_split(values, cuts, axis=1):
        distances.add(torch.from_numpy(np.ascontiguousarray(part)))
    return distances.squared()


def groups_of(values: np.ndarray, bin_size: float, cuts: int = 1) -> torch.Tensor:
    symbols = Symbols(len(values), bin_size)
    for part in np.array_split(values, cuts, axis=1):
        symbols.add(torch.from_numpy(np.ascontiguousarray(part)))
    return symbols.groups()


def first_alike(rows: np.ndarray) -> list[int]:
    """Of each row, the first row equal to it."""
    seen: dict[bytes, int] = {}
    return [seen.setdefault((row + 0.0).tobytes(), place) for place, row in enumerate(rows)]


# ---- distances and symbols


@settings(deadline=None)
@given(ACTIVATIONS, st.integers(1, 3))
def test_distances_are_those_of_the_slow_twin(values: np.ndarray, cuts: int) -> None:
    squared = distances_of(values, min(cuts, values.shape[1]))
    np.testing.assert_allclose(squared, slow_squared_distances(values), atol=2e-2, rtol=1e-4)
    assert torch.equal(squared, squared.T)
    assert not squared.diagonal().any()


def test_a_mean_a_thousand_times_the_spread_costs_no_digits() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(60, 5000)) * 0.02 + rng.normal(size=5000) * 20).astype(np.float32)
    exact = slow_squared_distances(values)
    np.testing.assert_allclose(distances_of(values, cuts=3), exact, atol=1e-5)
    naive = torch.cdist(torch.from_numpy(values), torch.from_numpy(values)) ** 2
    assert abs(naive.numpy() - exact).max() > 1e-3  # what centring is for


@settings(deadline=None)
@given(ACTIVATIONS, st.sampled_from([0.1, 0.2, 1.0]), st.integers(1, 3))
def test_two_rows_share_a_symbol_exactly_if_their_bins_are_equal(
    values: np.ndarray, bin_size: float, cuts: int
) -> None:
    groups = groups_of(values, bin_size, min(cuts, values.shape[1]))
    assert groups.tolist() == first_alike(np.floor(values.astype(np.float64) / bin_size))


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(2, 300),
    width=st.sampled_from([1, 63, 4096, 4097, 9000, 20_000]),
    distinct=st.integers(1, 40),
    changes=st.integers(0, 5),
    cuts=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_rows_that_differ_in_few_places_of_a_wide_layer_are_told_apart(
    rows: int, width: int, distinct: int, changes: int, cuts: int, seed: int
) -> None:
    """Wider than a chunk, alike nearly everywhere: what a sample cannot decide, the chunks do."""
    rng = np.random.default_rng(seed)
    values = np.zeros((distinct, width), np.float32)
    for row in values:
        row[rng.integers(0, width, changes)] = rng.integers(-3, 4, changes)
    values = values[rng.integers(0, distinct, rows)]
    assert groups_of(values, 1.0, min(cuts, width)).tolist() == first_alike(values)


def test_a_concatenation_is_alike_where_all_parts_are() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.integers(0, 2, (40, 3)).astype(np.float32), rng.integers(0, 2, (40, 3)).astype(np.float32)
    both = joint_symbols([groups_of(left, 1.0), groups_of(right, 1.0)])
    assert both.tolist() == first_alike(np.hstack([left, right]))


def test_ten_thousand_near_rows_have_no_collision() -> None:
    """Rows that differ in one small step at one place, the hardest for a linear hash."""
    steps = torch.eye(500).repeat_interleave(20, dim=0) * torch.arange(1, 21).repeat(500)[:, None]
    symbols = Symbols(len(steps), 1.0)
    symbols.add(steps)
    assert len(symbols.groups().unique()) == 500 * 20


def test_integers_beyond_twenty_bits_keep_all_their_digits() -> None:
    values = torch.tensor([[3.0, 5.0], [3.0 + 2.0**20, 5.0], [3.0, 5.0 + 2.0**22], [2.0**23, -(2.0**23)], [3.0, 5.0]])
    symbols = Symbols(5, 0.25)
    symbols.add(values)
    assert symbols.groups().tolist() == [0, 1, 2, 3, 0]


@pytest.mark.long
@pytest.mark.parametrize("precise", [False, True])
@pytest.mark.parametrize("n", [97, 200, 300])
def test_strips_of_the_triangle_make_the_whole_matrix(n: int, precise: bool) -> None:
    values = (np.random.default_rng(n).normal(size=(n, 5000)) + 30).astype(np.float32)
    t = values.astype(np.float64)
    exact = ((t[:, None, :100] - t[None, :, :100]) ** 2).sum(axis=2) + sum(
        ((t[:, None, k : k + 100] - t[None, :, k : k + 100]) ** 2).sum(axis=2) for k in range(100, 5000, 100)
    )
    squared = distances_of(values, cuts=2, precise=precise)
    np.testing.assert_allclose(squared, exact, rtol=1e-5 if not precise else 1e-12)
    assert torch.equal(squared, squared.T)
    assert not squared.diagonal().any()


def test_equal_images_have_no_distance_however_large_their_values_if_products_are_precise() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 2000)).astype(np.float32) * 1e4
    squared = distances_of(np.repeat(rows, 2, axis=0), precise=True)
    assert not squared[range(0, 60, 2), range(1, 60, 2)].any()
    assert (squared > 0).sum() == 60 * 60 - 60 - 60


# ---- KDE


def mixture_information(
    squared: torch.Tensor, noise_variance: float, bound: Bound = "upper", classes: torch.Tensor | None = None
) -> float:
    """The bound of I(X; T + noise), or of that inside the classes, as KDE computes it."""
    quarter = quarters(len(squared), squared.device)
    sharing = None if classes is None else Sharing.of(classes, quarter)
    return kernel_information(noise_kernel(squared, noise_variance, bound), quarter, sharing).nats


@pytest.mark.parametrize("bound", ["upper", "lower"])
@pytest.mark.parametrize("n", [2, 7, 64])
def test_all_apart_is_the_ceiling_and_all_equal_is_nothing(bound: str, n: int) -> None:
    apart = 1e9 * (1 - torch.eye(n))
    assert mixture_information(apart, 1.0, bound=bound) == pytest.approx(math.log(n))  # type: ignore[arg-type]
    assert mixture_information(torch.zeros(n, n), 1.0, bound=bound) == pytest.approx(0, abs=1e-12)  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [(5, 5), (1, 2, 7), (10,) * 6])
def test_tight_far_clusters_hold_the_entropy_of_the_cluster(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    values = (rng.normal(size=(len(sizes), 300)) * 100)[cluster] + rng.normal(size=(sum(sizes), 300)) * 1e-4
    squared = distances_of(values.astype(np.float32), precise=True)
    entropy = entropy_nats(torch.from_numpy(cluster))
    for bound in ("upper", "lower"):
        assert mixture_information(squared, 1.0, bound=bound) == pytest.approx(entropy, abs=1e-4)  # type: ignore[arg-type]
    readings = list(KDE(1.0).readings(LayerStatistics.of_distances(squared), {"cluster": torch.from_numpy(cluster)}))
    assert [r.nats for r in readings] == pytest.approx([entropy] * 4, abs=1e-4)


@pytest.mark.long
@settings(deadline=None)
@given(ACTIVATIONS, st.sampled_from([0.2, 1.0, 30.0]), st.data())
def test_kde_is_the_slow_twin(values: np.ndarray, noise_variance: float, data: st.DataObject) -> None:
    classes = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(values), max_size=len(values))))
    assume(len(set(classes)) > 1)
    exact = torch.from_numpy(slow_squared_distances(values))
    readings = {
        (r.quantity, r.estimator): r
        for r in KDE(noise_variance).readings(
            LayerStatistics.of_distances(exact), {"classes": torch.from_numpy(classes)}
        )
    }
    for bound in ("upper", "lower"):
        about_input, about_label = slow_kde(values, noise_variance, classes, bound)
        assert readings["I(X;M)", f"kde_{bound}"].nats == pytest.approx(about_input, abs=1e-9)
        assert readings["I(Y;M)", f"kde_{bound}"].nats == pytest.approx(about_label, abs=1e-9)


@pytest.mark.long
@settings(deadline=None)
@given(ACTIVATIONS, st.data())
def test_what_holds_of_every_kde_estimate(values: np.ndarray, data: st.DataObject) -> None:
    """Chain rule, order of the bounds, ceilings, brackets; a rotation, a shift and a relabelling change nothing."""
    n = len(values)
    classes = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    assume(len(classes.unique()) > 1)
    squared = torch.from_numpy(slow_squared_distances(values))
    upper, lower = (mixture_information(squared, 1.0, bound=b) for b in ("upper", "lower"))  # type: ignore[arg-type]
    assert -1e-12 <= lower <= upper + 1e-12 <= math.log(n) + 2e-12
    inside = mixture_information(squared, 1.0, classes=classes)
    readings = list(KDE(1.0).readings(LayerStatistics.of_distances(squared), {"y": classes}))
    about_label = next(r for r in readings if r.quantity == "I(Y;M)" and r.estimator == "kde_upper")
    assert about_label.nats + inside == pytest.approx(upper, abs=1e-9)
    assert about_label.nats <= entropy_nats(classes) + 1e-9
    for reading in readings:
        assert reading.lower <= reading.upper + 1e-9
        if reading.nats >= 0:
            assert reading.lower - 1e-9 <= reading.nats <= reading.upper + 1e-9
    assert mixture_information(squared, 1.0, classes=7 - classes) == pytest.approx(inside, abs=1e-12)


@settings(deadline=None)
@given(ACTIVATIONS, st.sampled_from([0.5, 20.0, 1e3]), st.sampled_from(["upper", "lower"]), st.integers(0, 2**31))
def test_errors_of_distances_shift_an_estimate_by_no_more_than_is_said(
    values: np.ndarray, noise_variance: float, bound: str, seed: int
) -> None:
    squared, rng = torch.from_numpy(slow_squared_distances(values)), np.random.default_rng(seed)
    errors = torch.from_numpy(rng.uniform(0, 1e-4, len(values)))
    both = errors[:, None] + errors[None, :]
    sign = torch.from_numpy(np.triu(rng.choice([-1.0, 1.0], squared.shape), 1))
    moved = squared + both * (sign + sign.T)
    said = shift_by_errors(squared, errors, noise_variance, bound=bound)  # type: ignore[arg-type]
    before, after = (mixture_information(d, noise_variance, bound=bound) for d in (squared, moved))  # type: ignore[arg-type]
    assert abs(after - before) <= said * 1.001 + 1e-12


@pytest.mark.parametrize("noise_variance", [0.0, -1.0, math.nan, math.inf])
def test_kde_refuses_a_noise_variance_that_is_not_positive(noise_variance: float) -> None:
    with pytest.raises(InvalidArgument, match=f"noise_variance must be > 0, got {noise_variance}"):
        KDE(noise_variance)


def test_labels_of_another_length_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="3 labels for 2 images: expected one an image"):
        list(KDE().readings(LayerStatistics.of_distances(torch.zeros(2, 2)), {"y": torch.tensor([0, 1, 1])}))
    with pytest.raises(InvalidArgument, match="3 labels for 2 images: expected one an image"):
        symbol_label_information(torch.tensor([0, 1]), torch.tensor([0, 1, 1]))


# ---- binning


@pytest.mark.long
@settings(deadline=None)
@given(ACTIVATIONS, st.sampled_from([0.1, 0.2, 5.0]), st.data())
def test_binning_is_the_slow_twin(values: np.ndarray, bin_size: float, data: st.DataObject) -> None:
    classes = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(values), max_size=len(values))))
    assume(len(set(classes)) > 1)
    about_input, about_label, unique = slow_binning(values, bin_size, classes)
    statistics = LayerStatistics.of_symbols(groups_of(values, bin_size), bin_size)
    readings = list(Binning(bin_size).readings(statistics, {"y": torch.from_numpy(classes)}))
    assert [reading.nats for reading in readings] == pytest.approx([about_input, about_label], abs=1e-9)
    assert {reading.unique_share for reading in readings} == {unique}


def test_xor_is_in_no_part_and_in_the_whole() -> None:
    bits = np.array([[a, b] for a in (0, 1) for b in (0, 1)] * 5, np.float32)
    label = torch.from_numpy(bits[:, 0].astype(int) ^ bits[:, 1].astype(int))
    assert symbol_label_information(groups_of(bits[:, :1], 1.0), label) == pytest.approx(0)
    assert symbol_label_information(groups_of(bits[:, 1:], 1.0), label) == pytest.approx(0)
    assert symbol_label_information(groups_of(bits, 1.0), label) == pytest.approx(math.log(2))


@pytest.mark.parametrize("bin_size", [0.0, -0.2, math.nan, math.inf])
def test_binning_refuses_a_bin_size_that_is_not_positive(bin_size: float) -> None:
    with pytest.raises(InvalidArgument, match=f"bin_size must be > 0, got {bin_size}"):
        Binning(bin_size)


def test_a_bin_too_small_to_divide_by_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="bin_size must be at least 1e-200, got 1e-320"):
        Binning(1e-320)


# ---- independent references


def test_label_information_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import mutual_info_score

    rng = np.random.default_rng(0)
    symbols, classes = rng.integers(0, 7, 200), rng.integers(0, 3, 200)
    ours = symbol_label_information(torch.from_numpy(symbols), torch.from_numpy(classes))
    assert ours == pytest.approx(mutual_info_score(symbols, classes))


def test_the_gaussian_channel_is_between_the_bounds() -> None:
    """d = 2, unit-variance X, noise 1: I = ln 2 nats; the lower bound is below it, the upper above."""
    values = np.random.default_rng(0).normal(size=(1500, 2)).astype(np.float32)
    squared = distances_of(values)
    true = 2 / 2 * math.log(2)
    assert mixture_information(squared, 1.0, bound="lower") < true < mixture_information(squared, 1.0, bound="upper")


def test_the_registry_has_the_keys_that_estimators_write() -> None:
    keys = {key for estimator in built(EVERY_SETTING, "estimators") for key, _ in estimator.series}
    keys |= {family.key for argument in PROBES for family in built(EVERY_SETTING, argument)}
    assert keys == {key for entry in entries() for key in entry.titles}
