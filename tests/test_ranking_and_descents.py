"""The sweep of the resolution and the data processing inequality, on planted tables and on networks that are patched."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy.stats import kendalltau
from torch import Tensor, nn

from test_plots import assert_legible, figure_of, texts  # noqa: F401
from unetscope.analysis.data_processing import computed_pairs, dpi_violations
from unetscope.analysis.rank_stability import FEWEST, layer_rank_stability
from unetscope.base.errors import InvalidArgument
from unetscope.networks.unet import UNet
from unetscope.plots.resolution import resolution_sweep
from unetscope.table.flow import Flow
from unetscope.table.records import Estimate, Layer

CEILING = 8.0
ROW = Estimate(3, "", "I(X;M)", "kde_upper", 1.0, "", 0.0, math.nan, math.nan, CEILING, False, n=256, d=4)
NAN = math.nan


def chain(count: int) -> tuple[Layer, ...]:
    """Layers of an encoder, of which each follows from the one before."""
    return tuple(Layer(f"{place}", f"layer{place}", role="encoder") for place in range(1, count + 1))


def table(sweep: Mapping[float, Sequence[float]], **fields: object) -> Flow:
    """Layers of an encoder with these bits by resolution; those at the ceiling are saturated."""
    layers = chain(len(next(iter(sweep.values()))))
    rows = tuple(
        replace(ROW, layer=layer.label, resolution=size, bits=bits, saturated=bits >= 0.99 * CEILING, **fields)
        for size, values in sweep.items()
        for layer, bits in zip(layers, values, strict=True)
    )
    return Flow(layers, (), rows)


def joined(*flows: Flow) -> Flow:
    return Flow(flows[0].layers, flows[0].skips, tuple(e for flow in flows for e in flow.estimates))


def tau_by_counting(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Kendall's τ_b and the share of pairs that change places, by counting the pairs one by one."""
    same = opposite = ordered_one = ordered_other = 0
    known = [(a, b) for a, b in zip(one, other, strict=True) if not (math.isnan(a) or math.isnan(b))]
    for (a, b), (c, d) in combinations(known, 2):
        ordered_one += a != c
        ordered_other += b != d
        same += (a < c and b < d) or (a > c and b > d)
        opposite += (a < c and b > d) or (a > c and b < d)
    both = math.sqrt(ordered_one * ordered_other)
    return (same - opposite) / both if both else NAN, opposite / (same + opposite) if same + opposite else NAN


# --- how the ranking changes with the resolution

FLIPPING = {  # the order of six layers, kept from 0.1 to 10 and turned round at 100
    0.01: [8, 8, 8, 8, 8, 7.5],
    0.1: [7.5, 7.4, 7.2, 7.0, 6.8, 6.0],
    1.0: [7.0, 6.0, 5.0, 4.0, 3.0, 2.0],
    10.0: [4.0, 3.0, 2.0, 1.0, 0.8, 0.5],
    100.0: [0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
    1000.0: [0.01, 0.01, 0.01, 0.02, 0.02, 0.03],
}


def test_a_planted_order_holds_up_to_where_it_flips() -> None:
    found = layer_rank_stability(table(FLIPPING))
    assert (found.reference, found.holds, found.layers, found.epoch) == (1.0, (0.1, 10.0), 6, 3)
    assert [row.resolution for row in found.at] == sorted(FLIPPING)
    assert [row.apart for row in found.at] == [1, 6, 6, 6, 6, 0]
    assert [row.saturated for row in found.at] == [5, 0, 0, 0, 0, 0]
    assert [row.at_zero for row in found.at] == [0, 0, 0, 0, 0, 6]
    assert [row.agreement for row in found.at] == pytest.approx([NAN, 1, 1, 1, -1, NAN], nan_ok=True)
    assert [row.swapped for row in found.at] == pytest.approx([NAN, 0, 0, 0, 1, NAN], nan_ok=True)
    assert found.text == (
        "The ranking of 6 layers by I(X;M) (KDE upper bound, epoch 3) holds from noise variance 0.1 to 10: Kendall's τ is at "
        "least 0.9 with that at 1. At 0.01 more than half of the layers are saturated; at 1000 more than half of the layers "
        "are within 1 % of the ceiling from zero. Of the pairs of layers that are ordered at 1 and elsewhere, at most 100 % "
        "change places, at 100."
    )


def test_the_order_in_which_resolutions_were_measured_does_not_matter() -> None:
    turned = dict(reversed(FLIPPING.items()))
    assert repr(layer_rank_stability(table(turned))) == repr(
        layer_rank_stability(table(FLIPPING))
    )  # by text, since NaN differs from itself


def test_agreement_falls_where_layers_become_tied_though_none_change_places() -> None:
    found = layer_rank_stability(table({0.1: [8, 8, 8, 6, 5, 4], 1.0: [7, 6, 5, 4, 3, 2]}))
    expected = kendalltau([8, 8, 8, 6, 5, 4], [7, 6, 5, 4, 3, 2]).statistic
    assert found.at[0].agreement == pytest.approx(expected)
    assert found.at[0].swapped == 0
    assert found.holds == (1.0, 1.0)
    assert found.text == (
        "The ranking of 6 layers by I(X;M) (KDE upper bound, epoch 3) holds at noise variance 1 alone: Kendall's τ with that "
        "at 0.1 is 0.89, below 0.9. No two layers change places anywhere: where the ranking does not hold, layers are tied."
    )


def test_a_range_that_ends_with_the_sweep_says_so() -> None:
    found = layer_rank_stability(table({0.5: [3, 2, 1], 2.0: [2, 1.5, 0.2], 4.0: [1.5, 1, 0.5]}, estimator="binning"))
    assert (found.reference, found.holds) == (2.0, (0.5, 4.0))
    assert found.text == (
        "The ranking of 3 layers by I(X;M) (binning, epoch 3) holds from bin size 0.5 (the smallest measured) to 4 (the "
        "largest measured): Kendall's τ is at least 0.9 with that at 2."
    )


@pytest.mark.parametrize(
    ("sweep", "text"),
    [
        (
            {0.5: [8] * 6, 2.0: [8] * 6},
            "no noise variance from 0.5 to 2 tells more than 0 of them apart. Everywhere more than half of the layers are "
            "saturated: measure at larger ones.",
        ),
        (
            {0.5: [0.01] * 6, 2.0: [0.0] * 6},
            "no noise variance from 0.5 to 2 tells more than 0 of them apart. Everywhere more than half of the layers are "
            "within 1 % of the ceiling from zero: measure at smaller ones.",
        ),
        (
            {0.5: [NAN] * 6, 2.0: [NAN] * 6},
            "no noise variance from 0.5 to 2 tells more than 0 of them apart. Everywhere more than half of the layers are "
            "without a number.",
        ),
        (
            {0.5: [8] * 4 + [5, 4], 2.0: [8] * 4 + [3, 2], 4.0: [0.0] * 6},
            "no noise variance from 0.5 to 4 tells more than 2 of them apart. At 2 and below more than half of the layers are "
            "saturated; at 4 more than half of the layers are within 1 % of the ceiling from zero.",
        ),
        ({0.5: [3] * 6, 2.0: [2] * 6, 4.0: [1] * 6}, "all are tied at noise variance 2."),
    ],
)
def test_where_nothing_is_told_apart_agreement_is_undefined_and_nothing_holds(sweep, text) -> None:
    found = layer_rank_stability(table(sweep))
    assert all(math.isnan(row.agreement) and math.isnan(row.swapped) for row in found.at)
    assert found.holds is None
    assert found.text == f"There is no ranking of 6 layers by I(X;M) (KDE upper bound, epoch 3): {text}"


def test_two_resolutions_that_tell_next_to_nothing_apart_do_not_agree() -> None:
    """Twenty-five of 27 layers are tied at the ceiling at both, which alone would give a τ of 1."""
    degenerate = [8.0] * 25 + [5.0, 4.0]
    assert kendalltau(degenerate, degenerate).statistic == pytest.approx(1)
    found = layer_rank_stability(table({1.0: degenerate, 2.0: degenerate}))
    assert [(row.compared, math.isnan(row.agreement)) for row in found.at] == [(2, True), (2, True)]
    assert found.holds is None


def test_layers_without_a_number_are_not_compared_and_too_few_of_them_do_not_hold() -> None:
    few = [NAN] * 7 + [3, 2, 1]
    found = layer_rank_stability(table({1.0: [7.5, 7, 6.5, 6, 5.5, 5, 4.5, 4, 3, 2], 2.0: few}))
    assert (found.at[1].unknown, found.at[1].compared, found.at[1].agreement) == (7, 3, pytest.approx(1))
    assert found.holds == (1.0, 1.0)
    assert found.text.endswith(
        "holds at noise variance 1 alone: only 3 of those layers are told apart at 2. At 2 more than half of the layers are "
        "without a number."
    )
    half = [NAN] * 5 + [5, 4.5, 4, 3, 2]
    found = layer_rank_stability(table({1.0: [7.5, 7, 6.5, 6, 5.5, 5, 4.5, 4, 3, 2], 2.0: half}))
    assert found.holds == (1.0, 2.0)
    assert ", with 5 layers or more told apart at both. " in found.text + " "


def test_two_resolutions_that_tell_different_layers_apart_do_not_agree() -> None:
    """As binning on real images: where some layers leave the ceiling, others are at zero already."""
    found = layer_rank_stability(table({0.2: [8, 8, 8, 8, 7, 6, 5], 2.0: [7.5, 7, 6.5, 6, 0, 0, 0]}))
    assert found.at[0].compared == 0
    assert math.isnan(found.at[0].agreement)
    assert "holds at noise variance 2 alone: none of those layers is told apart at 0.2." in found.text


def test_an_agreement_that_comes_back_beyond_a_gap_is_not_part_of_the_range() -> None:
    kept, turned = [5, 4, 3, 2, 1], [1, 2, 3, 4, 5]
    found = layer_rank_stability(table({0.1: kept, 1.0: turned, 2.0: kept, 3.0: kept, 4.0: turned}))
    assert (found.reference, found.holds) == (2.0, (2.0, 3.0))


def test_of_resolutions_that_tell_as_many_apart_the_middle_one_is_the_reference() -> None:
    bits = [5, 4, 3]
    for count, middle in ((2, 0), (3, 1), (4, 1), (5, 2)):
        assert (
            layer_rank_stability(table({float(size): bits for size in range(1, count + 1)})).reference == 1.0 + middle
        )


levels = st.sampled_from([0.0, 0.05, 0.5, 1.0, 2.5, 4.0, 7.0, 8.0, NAN])


@given(st.integers(2, 8).flatmap(lambda n: st.lists(st.lists(levels, min_size=n, max_size=n), min_size=2, max_size=4)))
def test_agreement_is_that_of_counting_pairs_and_of_scipy(rows) -> None:
    found = layer_rank_stability(table({float(size): row for size, row in enumerate(rows, start=1)}))
    standings = [[0.0 if 0 <= bits <= 0.08 else math.inf if bits == 8 else bits for bits in row] for row in rows]
    reference = standings[[row.resolution for row in found.at].index(found.reference)]
    for row, here in zip(found.at, standings, strict=True):
        told = sum(0 < a < math.inf and 0 < b < math.inf for a, b in zip(here, reference, strict=True))
        assert row.compared == told
        assert row.apart + row.saturated + row.at_zero + row.unknown == len(here)
        if told < FEWEST:
            assert math.isnan(row.agreement)
            continue
        assert (row.agreement, row.swapped) == pytest.approx(tau_by_counting(here, reference), nan_ok=True)
        known = [(a, b) for a, b in zip(here, reference, strict=True) if not math.isnan(a + b)]
        assert row.agreement == pytest.approx(kendalltau(*zip(*known, strict=True)).statistic, nan_ok=True)
    if found.holds is not None:
        assert found.holds[0] <= found.reference <= found.holds[1]
        inside = [row for row in found.at if found.holds[0] <= row.resolution <= found.holds[1]]
        assert all(row.agreement >= 0.9 - 1e-9 for row in inside)
    assert found.text.endswith(".")


@given(
    st.lists(st.integers(100, 780), min_size=3, max_size=30, unique=True),
    st.floats(0.2, 3.0),
    st.floats(0.1, 1.0),
    st.randoms(use_true_random=False),
)
def test_a_monotone_transformation_of_all_bits_leaves_agreement_at_one(hundredths, power, share, random) -> None:
    bits = [value / 100 for value in hundredths]
    random.shuffle(bits)
    moved = [max(0.09, 7.9 * share * (value / 7.9) ** power) for value in bits]
    if len(set(moved)) < len(moved):
        return  # the transformation took a difference away
    found = layer_rank_stability(table({1.0: bits, 2.0: moved}))
    assert [row.agreement for row in found.at] == pytest.approx([1, 1])
    assert found.holds == (1.0, 2.0)
    turned = layer_rank_stability(table({1.0: bits, 2.0: [8 - 0.99 * value for value in bits]}))
    assert turned.at[1].agreement == pytest.approx(-1)
    assert turned.at[1].swapped == 1


def test_a_tensor_with_two_labels_is_ranked_once() -> None:
    flow = table({1.0: [5, 4, 3, 3], 2.0: [4, 3, 2, 2]})
    twin = replace(flow.layers[3], parts=(flow.layers[2].label,), role="upsampled")
    assert layer_rank_stability(flow).layers == 4
    assert layer_rank_stability(Flow((*flow.layers[:3], twin), (), flow.estimates)).layers == 3


def test_none_stands_for_what_was_measured_at_several_resolutions() -> None:
    flow = joined(
        table({0.2: [4, 3, 2]}, estimator="binning"),
        table(dict(list(FLIPPING.items())[:4])),
        table({1.0: [7, 6, 5, 4, 3, 2]}, epoch=10),
        table({1.0: [2, 1, 1.5, 1, 1, 1], 3.0: [2, 1, 1.5, 1, 1, 1]}, quantity="I(Y;M)", labels="a"),
        table({1.0: [1, 2, 1.5, 1, 1, 1], 3.0: [1, 2, 1.5, 1, 1, 1]}, quantity="I(Y;M)", labels="b"),
    )
    flow = Flow(chain(6), (), flow.estimates)
    found = layer_rank_stability(flow)
    assert (found.estimator, found.epoch, found.labels) == ("kde_upper", 3, "")
    assert layer_rank_stability(flow, quantity="I(Y;M)").labels == "a"
    assert layer_rank_stability(flow, quantity="I(Y;M)", labels="b").labels == "b"


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (
            {"epoch": 10},
            "I(X;M) at epoch 10 was measured by KDE upper bound, noise variance 1 alone: name several, such as "
            "--noise-variance 0.1 --noise-variance 1 --noise-variance 10, or --sweep; or ask for epoch 3",
        ),
        (
            {"estimator": "binning"},
            "I(X;M) at epoch 3 was measured by binning, bin size 0.2 alone: name several, such as --bin-size 0.02 --bin-size "
            "0.2 --bin-size 2, or --sweep",
        ),
        ({"epoch": 4}, "epoch 4 not measured: measured are 3, 10"),
        ({"estimator": "mixture"}, "estimator 'mixture' not measured: measured are kde_upper, binning"),
        ({"quantity": "I(Y;M)"}, "quantity 'I(Y;M)' not measured: measured are I(X;M), I_V(M→Y)"),
        (
            {"quantity": "I_V(M→Y)"},
            "I_V(M→Y) by usable_linear has no resolution, so its ranking of layers cannot change with it",
        ),
    ],
)
def test_a_sweep_that_was_not_measured_is_refused_with_what_to_do(wanted, text) -> None:
    usable = {"quantity": "I_V(M→Y)", "estimator": "usable_linear", "labels": "pixels"}
    flow = joined(
        table(FLIPPING),
        table({1.0: [7, 6, 5, 4, 3, 2]}, epoch=10),
        table({0.2: [7, 6, 5, 4, 3, 2]}, estimator="binning"),
        table({0.0: [0.1] * 6}, **usable),
    )
    for ask in (layer_rank_stability, resolution_sweep):
        with pytest.raises(InvalidArgument) as refused:
            ask(flow, **wanted)
        assert str(refused.value) == text


def test_options_to_repeat_are_those_of_the_estimator() -> None:
    for estimator, option in (("mixture", "--mixture"), ("kde_lower_relative", "--relative-noise-variance")):
        with pytest.raises(InvalidArgument, match=f"such as {option} 0.1 {option} 1 {option} 10, or --sweep"):
            layer_rank_stability(table({1.0: [3, 2, 1]}, estimator=estimator))
    with pytest.raises(InvalidArgument, match="by of my own, resolution 1 alone: name several of them"):
        layer_rank_stability(table({1.0: [3, 2, 1]}, estimator="of my own"))
    with pytest.raises(InvalidArgument, match="the table has no estimates: measure a network first"):
        layer_rank_stability(Flow(chain(3)))
    with pytest.raises(InvalidArgument, match="no layer to rank: the flow names none of those that were measured"):
        layer_rank_stability(Flow((), (), table(FLIPPING).estimates))


# --- what follows from what

VARIANTS = [
    (depth, tuple(f"skip{level + 1}" for level in range(depth) if variant >> level & 1))
    for depth in range(1, 5)
    for variant in range(2**depth)
] + [(6, ()), (6, ("skip2", "skip5")), (6, tuple(f"skip{level}" for level in range(1, 7)))]


def averaging(depth: int, without: Sequence[str]) -> UNet:
    """A U-Net whose convolutions average what they read: no layer is dead, none saturates, none is the same for two images."""
    model = UNet(width=1, depth=depth, without=without).double()
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            read = len(module.weight) if isinstance(module, nn.ConvTranspose2d) else module.weight[0].numel()
            nn.init.uniform_(module.weight, 0.9 / read, 1.1 / read)
    return model


def activations(model: UNet, images: Tensor, instead: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the module of each recorded layer gives, with the outputs of some modules replaced."""
    seen: dict[str, Tensor] = {}

    def noted(name: str) -> Callable[[nn.Module, object, Tensor], Tensor]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            output = instead.get(name, output)
            seen[name] = output.clone()  # the ReLU after it works in place
            return output.clone()

        return hook

    handles = [
        model.get_submodule(name).register_forward_hook(noted(name)) for name in {e.module for e in model.layers}
    ]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return {layer.label: seen[layer.module] for layer in model.layers}


def follow_by_patching(model: UNet) -> set[tuple[str, str]]:
    """(parent, child) for which the child is as of image A whenever the parent is, though the network is shown image B.

    And the parts of a merge, which are found in it.
    """
    side = 2**model.depth
    a, b = 0.2 + 0.3 * torch.rand(1, 3, side, side).double(), 0.5 + 0.5 * torch.rand(1, 3, side, side).double()
    of_a, of_b = activations(model, a, {}), activations(model, b, {})
    assert not any(torch.equal(of_a[label], of_b[label]) for label in of_a)
    follows = set()
    for parent in model.layers:
        patched = activations(model, b, {parent.module: of_a[parent.label]})
        follows |= {(parent.label, label) for label, values in patched.items() if torch.equal(values, of_a[label])}
        first = 0
        for part in parent.parts:
            last = first + of_a[part].shape[1]
            assert torch.equal(of_a[parent.label][:, first:last], of_a[part])
            follows.add((parent.label, part))
            first = last
    return {(parent, child) for parent, child in follows if parent != child}


def closure(pairs: Sequence[tuple[str, str]] | set[tuple[str, str]]) -> set[tuple[str, str]]:
    """All pairs that chains of these make."""
    below: dict[str, set[str]] = {}
    for parent, child in pairs:
        below.setdefault(parent, set()).add(child)
    found = set()
    for start in below:
        waiting, reached = [start], {start}
        while waiting:
            new = below.get(waiting.pop(), set()) - reached
            reached |= new
            waiting += new
        found |= {(start, end) for end in reached - {start}}
    return found


@pytest.mark.parametrize(("depth", "without"), VARIANTS)
def test_descents_are_exactly_what_patching_one_layer_decides(depth, without) -> None:
    model = averaging(depth, without)
    found = computed_pairs(Flow(model.layers, model.skips))
    assert len(set(found)) == len(found)
    assert closure(found) == closure(follow_by_patching(model))


def test_descents_of_a_small_network_one_by_one() -> None:
    model = UNet(width=1, depth=2, without=["skip2"])
    assert computed_pairs(Flow(model.layers, model.skips)) == (
        ("1", "2"), ("2", "3"), ("3", "4"), ("4", "5"), ("5", "6"),
        ("6", "7up"), ("7up", "7"), ("7", "7up"), ("7", "8"), ("8", "9"),
        ("9", "10up"), ("2", "10"), ("10", "10up"), ("10", "2"), ("10", "11"), ("11", "12"), ("12", "13"),
    )  # fmt: skip


@pytest.mark.parametrize(("depth", "without"), [variant for variant in VARIANTS if variant[0] < 4])
def test_descents_of_some_layers_are_among_those_of_all(depth, without) -> None:
    model = UNet(width=1, depth=depth, without=without)
    every = closure(computed_pairs(Flow(model.layers, model.skips)))
    for few in (1, 2, 3):
        for some in combinations(model.layers, few):
            assert set(computed_pairs(Flow(some, model.skips))) <= every
            rest = tuple(layer for layer in model.layers if layer not in some)
            found = computed_pairs(Flow(rest, model.skips))
            assert set(found) <= every
            assert not {label for pair in found for label in pair} & {layer.label for layer in some}


def test_an_unknown_network_tells_nothing_of_what_follows_from_what() -> None:
    layers = tuple(Layer(f"{place}", f"m{place}") for place in range(5))
    assert computed_pairs(Flow(layers)) == ()
    merging = (*layers, Layer("both", "cat", role="merge", parts=("1", "3")))
    assert computed_pairs(Flow(merging)) == (("both", "1"), ("both", "3"))
    assert computed_pairs(Flow(())) == ()


# --- the data processing inequality


def rises(check) -> dict[tuple[str, str], float]:
    return {(found.parent, found.child): round(found.rise.value, 9) for found in check.violations}


def test_a_ranking_says_how_many_pairs_chance_does_not_explain() -> None:
    rng = np.random.default_rng(0)
    flow = table({1.0: [1.0, 1.01, 2.0, 3.0], 10.0: [0.5, 0.6, 0.7, 0.8]})
    rows = [
        replace(row, per_image=tuple((row.bits + rng.normal(0, 0.5, 50)).tolist())) if row.layer != "4" else row
        for row in flow.estimates
    ]
    found = layer_rank_stability(Flow(flow.layers, (), tuple(rows)))
    assert (found.reference, found.judged, found.sure) == (1.0, 3, 2)
    assert found.text.endswith(
        "Of 3 pairs of layers with intervals at 1, 2 differ by more than the choice of images explains."
    )


def test_an_estimate_that_rises_along_the_network_is_found() -> None:
    check = dpi_violations(table({1.0: [5, 4, 4.5, 3, 3.001]}))
    assert rises(check) == {("2", "3"): 0.5, ("4", "5"): 0.001}
    assert [found.beyond for found in check.violations] == [True, False]
    assert (check.checked, check.left_out, check.into_ceiling) == (4, 0, 0)
    assert math.isnan(check.violations[0].rise.low)
    assert check.text == (
        "In 1 of 4 pairs I(X;M) (KDE upper bound, noise variance 1, epoch 3) rises from a layer to one computed from it alone, "
        "most from 2 to 3, by 0.5 bits. No layer knows more than what it is computed from. The estimate is of how images "
        "cluster at this resolution: a rise says that they lie further apart, since the noise is not scaled with the layer and "
        "a merge shows each of its parts through noise of its own, not that information was gained (Geiger, arXiv 2003.09671)."
    )


@given(st.lists(st.integers(1, 70), min_size=2, max_size=9))
def test_what_falls_is_no_violation_and_what_rises_is_one(tenths) -> None:
    bits = [value / 10 for value in tenths]
    check = dpi_violations(table({1.0: bits}))
    steps = {(f"{place}", f"{place + 1}"): b - a for place, (a, b) in enumerate(pairwise(bits), start=1)}
    assert rises(check) == {pair: pytest.approx(step) for pair, step in steps.items() if step > 0}
    assert check.beyond == check.violations
    assert dpi_violations(table({1.0: sorted(bits, reverse=True)})).violations == ()


def test_saturated_layers_and_such_without_a_number_are_left_out_and_counted() -> None:
    check = dpi_violations(table({1.0: [8, 8, 5, 8, NAN, 4, 3]}))
    assert (rises(check), check.checked, check.left_out, check.into_ceiling) == ({}, 1, 5, 1)
    assert check.text == (
        "In none of 1 pairs does I(X;M) (KDE upper bound, noise variance 1, epoch 3) rise from a layer to one computed from it "
        "alone; 5 more are saturated or without a number, 1 rising to the ceiling."
    )
    check = dpi_violations(table({1.0: [8, 8, NAN]}))
    assert (check.checked, check.left_out) == (0, 2)
    assert check.text == (
        "Whether I(X;M) (KDE upper bound, noise variance 1, epoch 3) rises from a layer to one computed from it alone cannot "
        "be checked: 2 pairs are saturated or without a number."
    )
    unknown = table({1.0: [3, 2, 1]})
    check = dpi_violations(Flow(tuple(replace(layer, role="layer") for layer in unknown.layers), (), unknown.estimates))
    assert check.text.endswith("cannot be checked: the table names no such pair of layers.")


def test_a_layer_that_was_not_measured_is_left_out() -> None:
    flow = table({1.0: [3, 2, 1]})
    check = dpi_violations(Flow(flow.layers, (), flow.estimates[:2]))
    assert (check.checked, check.left_out) == (1, 1)


def test_a_rise_within_its_paired_interval_is_not_beyond_it() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 2, 100)  # makes all images hard or easy for all layers, and drops out
    first, sure, unsure = (3 + hard, 3.3 + hard + rng.normal(0, 0.1, 100), 3.6 + hard + 9 * np.tile([-1, 1], 50))
    flow = table({1.0: [float(values.mean()) for values in (first, sure, unsure)]})
    rows = [
        replace(row, per_image=tuple(v.tolist())) for row, v in zip(flow.estimates, (first, sure, unsure), strict=True)
    ]
    check = dpi_violations(Flow(flow.layers, (), tuple(rows)))
    assert [found.beyond for found in check.violations] == [True, False]
    rise = check.violations[0].rise
    spread = 1.984 * (sure - first).std(ddof=1) / 10
    assert (rise.low, rise.high) == pytest.approx((rise.value - spread, rise.value + spread), rel=1e-3)
    assert f"by {rise.value:.2g} bits (95 % interval {rise.low:.2f} to {rise.high:.2f})." in check.text
    assert "1 of these rises have an interval above zero, as one of forty has by chance." in check.text
    only_one = (rows[0], replace(rows[1], per_image=()), rows[2])
    assert all(math.isnan(found.rise.low) for found in dpi_violations(Flow(flow.layers, (), only_one)).violations)


def test_an_interval_does_not_make_rounding_a_violation() -> None:
    flow = table({1.0: [3, 3 + 1e-9]})
    rows = tuple(replace(row, per_image=(row.bits,) * 5) for row in flow.estimates)
    (found,) = dpi_violations(Flow(flow.layers, (), rows)).violations
    assert found.rise.low > 0
    assert not found.beyond


def test_a_tensor_with_two_labels_is_no_pair() -> None:
    model = UNet(width=1, depth=1, without=["skip1"])
    rows = tuple(replace(ROW, layer=layer.label, bits=3.0) for layer in model.layers)
    assert len(computed_pairs(Flow(model.layers))) == len(model.layers)
    assert dpi_violations(Flow(model.layers, (), rows)).checked == len(model.layers) - 2


def test_a_merge_may_have_neither_less_than_a_part_nor_more_than_the_source_of_its_skip() -> None:
    model = UNet(width=1, depth=1)
    bits = dict.fromkeys((layer.label for layer in model.layers), 3.0)
    flow = [replace(ROW, layer=label, bits=value) for label, value in (bits | {"5": 4.0}).items()]
    assert rises(dpi_violations(Flow(model.layers, model.skips, tuple(flow)))) == {("2", "5"): 1.0}
    flow = [replace(ROW, layer=label, bits=value) for label, value in (bits | {"5": 2.0}).items()]
    assert rises(dpi_violations(Flow(model.layers, model.skips, tuple(flow)))) == {
        ("5", "5up"): 1.0,
        ("5", "2"): 1.0,
        ("5", "6"): 1.0,
    }


@pytest.mark.parametrize(
    ("estimator", "what"),
    [
        (
            "kde_lower",
            "since the noise is not scaled with the layer and a merge shows each of its parts through noise of its own",
        ),
        (
            "of my own",
            "a rise says that they lie further apart, not that information was gained (Geiger, arXiv 2003.09671).",
        ),
        ("mixture_relative", "since the noise is scaled to each layer anew and a merge shows"),
        (
            "binning",
            "since the bin size is not scaled with the layer and a merge shows each of its parts in bins of its own",
        ),
    ],
)
def test_what_a_violation_means_depends_on_the_estimator(estimator, what) -> None:
    assert what in dpi_violations(table({1.0: [3, 4]}, estimator=estimator)).text


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (
            {"quantity": "I_V(M→Y)"},
            "I_V(M→Y) is usable information, which may rise from layer to layer, for a network makes it easier to read: ask "
            "for I(X;M) or I(Y;M)",
        ),
        ({"quantity": "I(Y;S|U)"}, "quantity must be I(X;M) or I(Y;M), got 'I(Y;S|U)'"),
        ({"resolution": 3.0}, "resolution 3.0 not measured: measured are 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0"),
        ({"quantity": "I(Y;M)"}, "quantity 'I(Y;M)' not measured: measured are I(X;M)"),
    ],
)
def test_a_check_that_makes_no_sense_is_refused(wanted, text) -> None:
    with pytest.raises(InvalidArgument) as refused:
        dpi_violations(table(FLIPPING), **wanted)
    assert str(refused.value) == text


def test_the_label_scheme_and_the_epoch_are_chosen() -> None:
    kwargs = {"quantity": "I(Y;M)"}
    flow = joined(
        table({1.0: [1, 2]}, labels="a", **kwargs),
        table({1.0: [1, 3]}, labels="b", **kwargs),
        table({1.0: [1, 4]}, labels="a", epoch=9, **kwargs),
    )
    found = [
        dpi_violations(flow, quantity="I(Y;M)", labels=labels, epoch=epoch)
        for labels, epoch in ((None, None), ("b", 3))
    ]
    assert [rises(check) for check in found] == [{("1", "2"): 3.0}, {("1", "2"): 2.0}]
    assert [(check.labels, check.epoch) for check in found] == [("a", 9), ("b", 3)]


# --- the figure


def sweep_of_a_network() -> Flow:
    """A U-Net at fifteen noise variances: each layer falls from the ceiling at its own, as on real images."""
    model = UNet(width=1, depth=4)
    rows = []
    for size in np.logspace(-3, 4, 15):
        for place, layer in enumerate(model.layers):
            scale = 10 ** (2.5 * math.cos(2 * math.pi * place / len(model.layers)))
            bits = CEILING / (1 + size / scale)
            rows.append(
                replace(ROW, layer=layer.label, resolution=float(size), bits=bits, saturated=bits >= 0.99 * CEILING)
            )
    return Flow(model.layers, model.skips, tuple(rows))


def lines_of(axes: Axes, label: str) -> list[np.ndarray]:
    return [np.asarray(line.get_xydata()) for line in axes.get_lines() if line.get_label() == label]


def test_the_figure_holds_the_bits_of_each_layer_and_the_agreement(texts) -> None:  # noqa: F811
    flow = sweep_of_a_network()
    found = layer_rank_stability(flow)
    above, below = panels = resolution_sweep(flow)
    for layer in flow.layers:
        (line,) = lines_of(above, layer.label)
        assert line.tolist() == [[e.resolution, e.bits] for e in flow.select(layer=layer.label).estimates]
    named = [line for line in above.get_lines() if not str(line.get_label()).startswith("_")]
    assert len(named) == len(flow.layers) == 27
    assert len({to_hex(line.get_color()) for line in named}) == 27
    hollow = {(x, y) for points in lines_of(above, "_saturated") for x, y in points if math.isfinite(y)}
    assert hollow == {(e.resolution, e.bits) for e in flow.estimates if e.saturated}
    filled = {(x, y) for points in lines_of(above, "_ok") for x, y in points if math.isfinite(y)}
    assert filled == {(e.resolution, e.bits) for e in flow.estimates if not e.saturated}
    (ceiling,) = lines_of(above, "_ceiling log₂ N = 8.00 bits")
    assert ceiling[:, 1].tolist() == [CEILING] * 2

    expected = np.array([[row.resolution, row.agreement] for row in found.at])
    (agreement,) = lines_of(below, "_agreement")
    np.testing.assert_array_equal(agreement, expected)
    (apart,) = lines_of(below, "_apart")
    assert apart[:, 1].tolist() == [row.apart / 27 for row in found.at]
    (ring,) = lines_of(below, "_reference")
    assert ring[np.isfinite(ring[:, 1])].tolist() == [[found.reference, 1.0]]
    assert above.get_xscale() == below.get_xscale() == "log"
    assert above.get_xlim() == below.get_xlim()
    assert found.holds is not None
    for panel in panels:
        (band,) = panel.patches
        inside = [
            row.resolution for row in found.at if band.get_x() <= row.resolution <= band.get_x() + band.get_width()
        ]
        assert (inside[0], inside[-1]) == found.holds
    assert (above.get_ylabel(), below.get_xlabel()) == ("I(X;M), bits", "noise variance")
    assert figure_of(panels).get_suptitle() == (
        "I(X;M) of each layer against the noise variance\nKDE upper bound · epoch 3 · n = 256 images"
    )
    assert_legible(panels, texts(panels))


def long_named(flow: Flow) -> Flow:
    name = {layer.label: f"decoder.$blocks$.{layer.label}.conv" for layer in flow.layers}
    layers = tuple(
        replace(layer, label=name[layer.label], parts=tuple(name[part] for part in layer.parts))
        for layer in flow.layers
    )
    rows = (replace(e, layer=name[e.layer], quantity="I(Y;M)", labels="$k$</style>" * 4) for e in flow.estimates)
    return Flow(layers, (), tuple(rows))


@pytest.mark.long
@pytest.mark.parametrize(
    ("flow", "wanted"),
    [
        (table({0.2: [5, 4, 3], 0.4: [4, 3, 2]}, estimator="binning"), {}),
        (table({0.5: [8] * 6, 2.0: [8] * 6}), {}),
        (table({0.5: [NAN] * 3, 2.0: [NAN] * 3}, ceiling=NAN), {}),
        (table({1.0: [5, 4, 3], 100.0: [1, 2, 3]}, estimator="kde_lower_relative"), {}),
        (table({10.0**power: [5, 4, 3] for power in range(-9, 10)}), {}),
        (table({1.0: [5], 2.0: [4]}), {}),
        (long_named(sweep_of_a_network()), {"quantity": "I(Y;M)"}),
    ],
    ids=["two", "saturated", "nan", "reversed", "wide", "one layer", "long names"],
)
def test_any_sweep_is_drawn_legibly(flow, wanted, texts) -> None:  # noqa: F811
    panels = resolution_sweep(flow, **wanted)
    assert_legible(panels, texts(panels))
    found = layer_rank_stability(flow, **wanted)
    assert [len(panel.patches) for panel in panels] == [int(found.holds is not None)] * 2
    taus = [row.agreement for row in found.at if math.isfinite(row.agreement)]
    assert panels[1].get_ylim()[0] < min([0.0, *taus])
    (legend,) = figure_of(panels).legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said[2] == f"share of {found.layers} layers told apart"
    assert said[-1].startswith("the ranking holds: ")
    assert ("nowhere" in said[-1]) == (found.holds is None)


def test_the_figure_is_drawn_into_one_given_and_leaves_settings_alone() -> None:
    import matplotlib

    before = dict.copy(matplotlib.rcParams)
    figure = Figure(layout="constrained")
    half = figure.subfigures(1, 2)[0]
    assert all(panel.figure is half for panel in resolution_sweep(table(FLIPPING), figure=half))
    assert dict.copy(matplotlib.rcParams) == before
