"""What networks cost: by hand where that can be done, by an independent count elsewhere; kept with a run and shown."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.text import Text
from torch import Tensor, nn

import foreign
from published import is_installed
from runs import made_run
from unetscope import plots
from unetscope.analysis.loss_verdicts import ExpectedLosses
from unetscope.analysis.outcomes import Verification
from unetscope.analysis.trainings import Training
from unetscope.base.digests import without_digest
from unetscope.base.errors import InvalidArgument, NetworkError, RunFolderError
from unetscope.networks.cost import costs
from unetscope.networks.inspection import inspect
from unetscope.networks.surgery import without
from unetscope.networks.unet import UNet
from unetscope.plots.costs import unbeaten
from unetscope.runs.kept_costs import KeptCosts, kept_costs, write_costs
from unetscope.table.costs import Cost, Savings
from unetscope.table.intervals import Interval
from unetscope.table.losses import ExpectedLoss
from unetscope.table.parts import Variant, named_variants, parts_named
from unetscope.table.records import EpochRecord

FLOAT, INDEX = 4, 8  # bytes


class Joined(nn.Module):
    """Two convolutions of the image, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), self.b(x)], dim=1)


class Attention(nn.Module):
    """Attention of PyTorch's own module, which in evaluation is one kernel; or of its function."""

    def __init__(self, *, module: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True) if module else None

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)  # [1, places, 8]
        if self.attention is None:
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


# Of 8 × 8 places: the network, its input channels, multiply-adds, floats that live at the peak, floats kept to train.
PLACES = 64
BY_HAND = {
    "convolution": (nn.Conv2d(3, 4, 3, padding=1), 3, PLACES * 3 * 4 * 9, PLACES * (3 + 4), PLACES * 3),
    "without padding": (nn.Conv2d(3, 4, 3), 3, 36 * 3 * 4 * 9, PLACES * 3 + 36 * 4, PLACES * 3),
    "strided": (nn.Conv2d(3, 4, 2, stride=2), 3, 16 * 3 * 4 * 4, PLACES * 3 + 16 * 4, PLACES * 3),
    "dilated": (nn.Conv2d(3, 4, 3, padding=2, dilation=2), 3, PLACES * 3 * 4 * 9, PLACES * 7, PLACES * 3),
    "in groups": (nn.Conv2d(4, 8, 3, padding=1, groups=2), 4, PLACES * 2 * 8 * 9, PLACES * 12, PLACES * 4),
    "of each channel": (nn.Conv2d(4, 4, 3, padding=1, groups=4), 4, PLACES * 4 * 9, PLACES * 8, PLACES * 4),
    # each input place is multiplied with the whole kernel
    "transposed": (nn.ConvTranspose2d(4, 6, 2, stride=2), 4, PLACES * 4 * 6 * 4, PLACES * 28, PLACES * 4),
    "transposed, in groups": (
        nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2),
        4,
        PLACES * 4 * 3 * 4,
        PLACES * 28,
        PLACES * 4,
    ),
    "concatenation": (Joined(), 3, PLACES * 3 * 6, PLACES * (3 + 6 + 6), PLACES * 3),
    "in place": (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)), 3, PLACES * 12, PLACES * 7, PLACES * 7),
    "out of place": (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), 3, PLACES * 12, PLACES * 11, PLACES * 7),
    # queries, keys and values of 8, products of all pairs by 2 heads of 4 twice, the last product
    "attention module": (Attention(module=True), 8, PLACES * 8 * 24 + 2 * PLACES**2 * 8 + PLACES * 8 * 8, None, None),
    "attention function": (Attention(module=False), 8, 2 * PLACES**2 * 8, None, None),
}


class Disturbed(nn.Module):
    """A network whose passes take 20 ms longer but for one in five, as beside busy processes."""

    def __init__(self) -> None:
        super().__init__()
        self.passes, self.threads = 0, set[int]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        self.threads.add(torch.get_num_threads())
        time.sleep(0.02 if self.passes % 5 else 0.001)
        return x + 1


def test_the_time_of_a_pass_is_that_of_the_least_disturbed_one_on_one_thread() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        cost, other = costs([disturbed := Disturbed(), Disturbed()], (1, 4, 4))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert 1 in disturbed.threads
    assert 0.001 <= cost.seconds < 0.02
    assert 0.001 <= other.seconds < 0.02


@pytest.mark.parametrize("name", BY_HAND)
def test_one_layer_costs_what_is_counted_by_hand(name: str) -> None:
    model, channels, multiply_adds, live, kept = BY_HAND[name]
    (cost,) = costs([model], (channels, 8, 8))
    assert cost.multiply_adds == multiply_adds
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert live is None or cost.activation_bytes == FLOAT * live
    assert kept is None or cost.training_bytes == FLOAT * kept


def test_a_linear_layer_costs_its_weights() -> None:
    (cost,) = costs([nn.Linear(8, 5)], (8,))
    assert (cost.parameters, cost.multiply_adds) == (45, 40)
    # the transposed weight is a view of a parameter, and no activation
    assert (cost.activation_bytes, cost.training_bytes) == (FLOAT * (8 + 5), FLOAT * 8)


def test_a_unet_costs_what_is_counted_by_hand() -> None:
    model, side, width = UNet(2, depth=1), 8, 2
    (cost,) = costs([model], (3, side, side))
    fine, coarse = side * side, side * side // 4
    convolutions = [  # places, kernel, channels in and out
        (fine, 9, 3, width),
        (fine, 9, width, width),
        (coarse, 9, width, 2 * width),
        (coarse, 9, 2 * width, 2 * width),
        (coarse, 4, 2 * width, width),
        (fine, 9, 2 * width, width),
        (fine, 9, width, width),
        (fine, 1, width, 1),
    ]
    assert cost.multiply_adds == sum(
        places * kernel * inputs * outputs for places, kernel, inputs, outputs in convolutions
    )
    assert cost.parameters == sum(kernel * inputs * outputs + outputs for _, kernel, inputs, outputs in convolutions)
    # most lives where the skip joins: image, skip, upsampled path, and both together
    assert cost.activation_bytes == FLOAT * fine * (3 + width + width + 2 * width)
    # every convolution keeps what it reads, which is what ReLU keeps before it, and the sigmoid what it gives;
    # pooling keeps the places of its maxima
    read = fine * (3 + width + 2 * width + width + width) + coarse * (width + 2 * width + 2 * width)
    kept_by_relu = fine * width  # of the top skip, which goes on into pooling and the concatenation
    assert cost.training_bytes == FLOAT * (read + kept_by_relu + fine) + INDEX * coarse * width
    assert cost.seconds > 0


def test_a_skip_that_is_taken_out_is_not_kept_in_memory() -> None:
    whole, small = costs([UNet(8), UNet(8, without=["skip1"])], (3, 64, 64))
    # where most lives, the whole network holds the top skip beside both streams; the other has nothing of it any more
    assert small.activation_bytes < 0.6 * whole.activation_bytes
    assert small.training_bytes == whole.training_bytes - FLOAT * 64 * 64 * 8  # the half of the concatenation


class Named(UNet):
    """Keeps a name for everything that its encoder makes, as most networks do."""

    def forward(self, x: Tensor) -> Tensor:
        """The masks of a U-Net."""
        made: list[Tensor] = []
        hooks = [layer.register_forward_hook(lambda _layer, _given, out: made.append(out)) for layer in self.children()]
        try:
            return super().forward(x)
        finally:
            for hook in hooks:
                hook.remove()


def test_names_in_python_take_no_memory() -> None:
    own, named = costs([UNet(4), Named(4)], (3, 32, 32))
    assert named.activation_bytes == own.activation_bytes


@pytest.mark.parametrize(("skip", "saves"), [("skip1", True), ("skip2", False), ("skip3", False)])
def test_a_network_saves_only_the_memory_of_what_it_lacks(skip: str, saves: bool) -> None:
    """Most is needed where skip1 joins. The original has a list of all skips to its end, and the smaller network none."""
    model, image = foreign.Padded(width=4), torch.rand(1, 3, 32, 32)
    whole, smaller = costs([model, without(model, inspect(model, image), skip)], (3, 32, 32))
    assert (smaller.activation_bytes < whole.activation_bytes) == saves
    assert saves or smaller.activation_bytes == whole.activation_bytes


def counted_by_modules(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds of convolutions and linear layers, from the shapes that hooks on the modules see."""
    total = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        else:
            transposed = isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d)
            places = (inputs[0] if transposed else output)[0, 0].numel()
            total += places * module.weight.numel()  # each place, with all weights that lead from it or to it

    kinds = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    hooks = [module.register_forward_hook(add) for module in model.modules() if isinstance(module, kinds)]
    with torch.no_grad():
        model.eval()(foreign.random_image(*shape))
    for hook in hooks:
        hook.remove()
    return total


def smp_unet() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet18", encoder_weights=None)


def monai_segresnet() -> nn.Module:
    from monai.networks.nets import SegResNet

    return SegResNet(spatial_dims=3, init_filters=8, in_channels=1, out_channels=2)


@pytest.mark.parametrize(
    ("build", "shape", "package"),
    [
        (UNet, (3, 64, 64), "torch"),
        (foreign.Padded, (3, 32, 32), "torch"),
        (foreign.Cropped, (1, 60, 60), "torch"),
        (lambda: UNet(4, depth=3, without=["skip2"]), (3, 32, 32), "torch"),
        pytest.param(smp_unet, (3, 64, 64), "segmentation_models_pytorch", marks=pytest.mark.slow),
        pytest.param(monai_segresnet, (1, 16, 32, 32), "monai", marks=pytest.mark.slow),
    ],
    ids=["ours", "Padded", "Cropped", "ours without skip2", "smp Unet", "MONAI SegResNet 3-D"],
)
def test_networks_cost_what_hooks_on_their_modules_count(
    build: Callable[[], nn.Module], shape: tuple[int, ...], package: str
) -> None:
    if not is_installed(package):
        pytest.skip(f"{package} is not installed")
    model = build()
    (cost,) = costs([model], shape)
    assert cost.multiply_adds == counted_by_modules(model, shape) > 0
    assert FLOAT * math.prod(shape) < cost.activation_bytes < cost.training_bytes


def test_counts_are_the_same_each_time_and_leave_everything_as_it_was() -> None:
    model = foreign.Padded().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first, second = (costs([model], (3, 32, 32))[0] for _ in range(2))
    assert [getattr(first, name) for name in ("multiply_adds", "activation_bytes", "training_bytes")] == [
        getattr(second, name) for name in ("multiply_adds", "activation_bytes", "training_bytes")
    ]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.backends.mha.get_fastpath_enabled()


def test_networks_are_measured_with_their_weights_in_one_order() -> None:
    orders: list[bool] = []
    models = [UNet(2, depth=1), UNet(2, depth=1).to(memory_format=torch.channels_last)]
    for model in models:
        model.register_forward_pre_hook(
            lambda module, _: orders.append(all(weight.is_contiguous() for weight in module.parameters()))
        )
    costs(models, (3, 16, 16))
    assert all(orders)
    assert not all(weight.is_contiguous() for weight in models[1].parameters())
    with pytest.raises(NetworkError):
        costs(models, (2, 16, 16))
    assert not all(weight.is_contiguous() for weight in models[1].parameters())


# Kept with a run.

WHOLE, SLIM = Cost(1000, 2000, 3000, 0.5, 4000), Cost(750, 1000, 3000, 0.25, 1000)
DESIGN = Variant("without-skip1", 2, parts_named(["skip1"]))


def test_savings_say_before_after_and_the_change() -> None:
    saved = Savings(WHOLE, SLIM)
    assert dict(saved.rows()) == {
        "parameters": "1 k → 750 (-25%)",
        "multiply-adds": "2 k → 1 k (-50%)",
        "peak activation memory": "3 kB → 3 kB (+0%)",
        "activations kept to train": "4 kB → 1 kB (-75%)",
        "time of a forward pass, here": "500 ms → 250 ms (-50%)",
    }
    assert saved.change("seconds") == -0.5
    assert set(saved.as_dict()) == {"whole", "slim"}


def test_what_was_not_measured_is_no_row() -> None:
    unknown = Savings(Cost(4, 8, 16, 1.0), Cost(4, 8, 16, 1.0))
    assert "activations kept to train" not in dict(unknown.rows())
    assert math.isnan(unknown.change("training_bytes"))


def test_costs_are_kept_with_a_run_and_read_back(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", [0, 1, 10])
    assert kept_costs(run) == KeptCosts()  # of an earlier version
    kept = KeptCosts().with_costs((3, 64, 64), DESIGN, Savings(WHOLE, SLIM))
    write_costs(run, kept)
    assert kept_costs(run) == kept
    written = without_digest(json.loads((run.path / "costs.json").read_text()))
    (run.path / "costs.json").write_text(json.dumps({**written, "memory": ""}))
    assert kept_costs(run) == KeptCosts()  # measured in another way, as by an earlier version
    write_costs(run, kept)
    assert kept_costs(run).of(Variant("model2", 2, parts_named(["skip1"]))) == Savings(WHOLE, SLIM)  # by another name
    assert kept_costs(run).of(Variant("depth1", 1, ())) is None
    assert kept_costs(run).whole == WHOLE


def test_costs_of_another_image_size_take_the_place_of_all() -> None:
    kept = KeptCosts().with_costs((3, 64, 64), DESIGN, Savings(WHOLE, SLIM))
    again = kept.with_costs((3, 64, 64), DESIGN, Savings(WHOLE, WHOLE))
    assert [saved.slim for _, saved in again.designs] == [WHOLE]
    assert len(again.with_costs((3, 64, 64), Variant("depth1", 1, ()), Savings(WHOLE, SLIM)).designs) == 2
    assert len(again.with_costs((3, 32, 32), Variant("depth1", 1, ()), Savings(WHOLE, SLIM)).designs) == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "expected a JSON object"),
        ({"shape": [3, 64, 64]}, r"costs\.json: designs: field required"),
        ({"shape": [3], "designs": []}, r"costs\.json: shape"),
        ({"shape": [3, 8, 8], "designs": [{"network": {}, "whole": {}, "slim": {}}]}, "parameters: field required"),
    ],
)
def test_damaged_costs_are_refused_by_name(tmp_path: Path, damage: object, message: str) -> None:
    run = made_run(tmp_path / "run", [0, 1, 10])
    (run.path / "costs.json").write_text(damage if isinstance(damage, str) else json.dumps(damage))
    with pytest.raises(RunFolderError, match=message):
        kept_costs(run)


# Against Dice.

LOSSES = {
    "model1": 0.0,
    "without-skip1": -0.045,
    "without-skip2": -0.004,
    "without-skip3": 0.002,
    "without-skip4": 0.004,
    "depth3": 0.001,
    "depth2": -0.006,
    "depth1": -0.09,
    "no-skips": -0.12,
    "depth3-without-skip2": -0.008,
}


def verified(names: Iterable[str], seeds: int = 3) -> Verification:
    """Made-up retrainings of variants with the losses above."""
    random = np.random.default_rng(0)
    variants = [named_variants([name], depth=4)[-1] for name in names]
    trainings = []
    for variant in variants:
        for seed in range(seeds):
            dice = 0.8 + LOSSES[variant.name] + random.normal(0, 0.002)
            images = tuple(dice + random.normal(0, 0.004, 20))
            record = EpochRecord(1, 0.1, dice, 0.1, dice, 1.0, 1.0, images)
            trainings.append(Training(variant.name, seed, (record,), 0.7, {}))
    return Verification(tuple(variants), tuple(trainings), None, (1,), 0.02)


def made_costs(names: Iterable[str]) -> dict[str, Savings]:
    """Parameters by depth, multiply-adds by depth and skips."""
    whole = Cost(486_000, 47_600_000, 9, 1.0)
    saved = {}
    for name in names:
        variant = named_variants([name], depth=4)[-1]
        fewer = 0.95 ** len(variant.without)
        slim = Cost(
            int(whole.parameters * 4.0 ** (variant.depth - 4)),
            int(47.6e6 * 0.75 ** (4 - variant.depth) * fewer),
            9,
            1.0,
        )
        saved[name] = Savings(whole, slim)
    return saved


def drawn_names(panel: Axes) -> dict[str, Any]:
    """The names in a panel, with where they stand."""
    figure = panel.get_figure(root=True)
    figure.draw_without_rendering()
    return {text.get_text(): Text.get_window_extent(text) for text in panel.texts}  # without the line to its mark


@pytest.mark.parametrize(
    "names",
    [
        ["model1", "depth1"],
        ["model1", "without-skip1", "without-skip2", "without-skip3", "without-skip4"],
        ["model1", "depth1", "depth2", "depth3"],
        ["model1", "no-skips", "depth3", "depth3-without-skip2"],
        list(LOSSES),
    ],
    ids=["one", "skips", "depths", "mixed", "all"],
)
def test_every_variant_is_named_once_and_no_name_covers_another(names: list[str]) -> None:
    panels = plots.dice_against_cost(verified(names), made_costs(names), proposed="depth3-without-skip2")
    for panel in panels:
        places = drawn_names(panel)
        assert set(places) == {"whole network", *names} - {"model1"}
        for (name, box), (other, second) in itertools.combinations(places.items(), 2):
            assert not box.overlaps(second), (name, other)


def test_what_is_beaten_in_both_is_pale() -> None:
    names = ["model1", "without-skip1", "depth2", "no-skips"]
    panel = plots.dice_against_cost(verified(names), made_costs(names))[0]
    opacity = {line.get_xdata()[0]: line.get_alpha() for line in panel.lines if line.get_marker() == "o"}
    costs_of = {name: saved.slim.multiply_adds for name, saved in made_costs(names).items()}
    assert opacity == {costs_of["without-skip1"]: 0.4, costs_of["depth2"]: 1.0, costs_of["no-skips"]: 0.4}


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(-5, 0)), min_size=1, max_size=12))
def test_the_unbeaten_are_those_that_nothing_beats(points: list[tuple[int, int]]) -> None:
    found = unbeaten([cost for cost, _ in points], [float(gain) for _, gain in points])
    for (cost, gain), is_best in zip(points, found, strict=True):
        beaten_by = [(c, g) for c, g in points if (c < cost and g >= gain) or (c <= cost and g > gain)]
        assert is_best == (not beaten_by)
    assert any(found)


def test_a_proposal_that_was_not_retrained_is_a_line_at_its_cost() -> None:
    names = ["model1", "depth1"]
    panel = plots.dice_against_cost(verified(names), made_costs([*names, "depth2"]), proposed="depth2")[0]
    lines = [line.get_xdata()[0] for line in panel.lines if line.get_linestyle() == ":"]
    assert lines == [made_costs(["depth2"])["depth2"].slim.multiply_adds]


def test_a_variant_of_one_pair_that_lies_far_below_is_a_triangle_with_its_loss() -> None:
    names = ["model1", "depth2", "no-skips"]
    verification = verified(names)
    few = [each for each in verification.trainings if each.variant != "no-skips" or each.seed == 0]
    panel = plots.dice_against_cost(replace(verification, trainings=tuple(few)), made_costs(names))[0]
    assert [line.get_marker() for line in panel.lines].count("v") == 1
    assert "no-skips (-0.12)" in {text.get_text() for text in panel.texts}
    assert panel.get_ylim()[0] > -0.1


def test_without_costs_there_is_no_picture() -> None:
    with pytest.raises(InvalidArgument, match="nothing to show: no retrained variant has costs"):
        plots.dice_against_cost(verified(["model1", "depth1"]), {})


def test_expected_losses_stand_against_costs_where_nothing_is_retrained() -> None:
    names = ["without-skip1", "depth2", "depth1"]
    rows = tuple(
        ExpectedLoss(named_variants([name], depth=4)[1], 60, Interval(loss, loss - wide, loss + wide))
        for name, loss, wide in zip(names, (0.1, 0.001, -0.01), (0.05, 5.0, 0.005), strict=True)
    )
    losses = ExpectedLosses(rows, 4, (), 0.02)
    panels = plots.expected_against_cost(losses, made_costs(names), proposed="depth1")
    for panel in panels:
        assert drawn_names(panel).keys() == {"whole network", *names}
        low, high = panel.get_ylim()
        assert -0.5 < low < -0.1 < 0.01 < high < 0.5  # an interval of ±5 does not press the rest together
        left = panel.get_window_extent().x0
        assert all(box.x0 >= left for box in drawn_names(panel).values())
    assert panels[0].get_figure(root=True).get_suptitle() == "Expected Dice against cost after 60 epochs"
    with pytest.raises(InvalidArgument, match="no design of which a loss is expected has costs"):
        plots.expected_against_cost(losses, {})
