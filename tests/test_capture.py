from __future__ import annotations

import math

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unetscope.activations.capture import forward_bytes, stream, with_shapes
from unetscope.activations.inference import eval_mode
from unetscope.activations.memory import (
    FEATURES_AT_ONCE,
    FORWARD_SHARE,
    ActivationBuffer,
    Budget,
    default_budget,
    plan_passes,
)
from unetscope.base.errors import InvalidArgument, MeasurementError, NetworkError
from unetscope.networks.unet import UNet
from unetscope.table.records import Layer


class Unruly(nn.Module):
    """In-place ReLU, batch normalisation, dropout, a shared module, one that is never called, one with two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.activation = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)
        self.second = nn.Conv2d(4, 2, 1)
        self.unused = nn.Conv2d(1, 1, 1)
        self.pair = Pair()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation(self.norm(self.first(x)))
        x = self.activation(self.second(self.dropout(x)))
        return self.pair(x)[0] + torch.rand(1)  # draws from the random state even in evaluation mode


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x + 1


def unruly() -> Unruly:
    torch.manual_seed(0)
    return Unruly()


def named(*modules: str) -> tuple[Layer, ...]:
    return tuple(Layer(name, name) for name in modules)


def gathered(model: nn.Module, images: torch.Tensor, layers: tuple[Layer, ...], budget: int) -> dict[str, torch.Tensor]:
    parts: dict[str, list[torch.Tensor]] = {}
    passes = plan_passes(layers, len(images), budget)
    for block in stream(model, images, passes, batch_size=3):
        assert block.values.shape == (len(images), block.slice.stop - block.slice.start)
        parts.setdefault(block.slice.layer.label, []).append(block.values.clone())
    return {label: torch.cat(blocks, dim=1) for label, blocks in parts.items()}


def everything_about(model: nn.Module) -> dict[str, object]:
    return {
        "modes": [module.training for module in model.modules()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "needs": [p.requires_grad for p in model.parameters()],
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "hooks": [len(module._forward_hooks) for module in model.modules()],
        "random": torch.get_rng_state(),
        "grad mode": torch.is_grad_enabled(),
    }


def assert_unchanged(before: dict[str, object], after: dict[str, object]) -> None:
    torch.testing.assert_close(before, after, rtol=0, atol=0)


def test_values_are_those_of_the_network_before_anything_overwrites_them() -> None:
    model, images = unruly(), torch.rand(7, 1, 6, 5)
    layers = with_shapes(model, named("first", "norm", "second"), images[:1])
    assert [layer.shape for layer in layers] == [(4, 6, 5), (4, 6, 5), (2, 6, 5)]
    seen = gathered(model, images, layers, budget=10**9)
    with eval_mode(model):
        first = model.first(images)
        norm = model.norm(first)
        second = model.second(torch.relu(norm))
    for label, expected in (("first", first), ("norm", norm), ("second", second)):
        torch.testing.assert_close(seen[label], expected.flatten(1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_exactly_as_it_was(training: bool) -> None:
    model, images = unruly().train(training), torch.rand(4, 1, 8, 8)
    model.norm.eval()
    model.second.weight.requires_grad_(False)
    model(images).sum().backward()
    model.first.register_forward_hook(lambda module, inputs, output: None)
    before = everything_about(model)
    gathered(model, images, with_shapes(model, named("first", "second"), images[:1]), budget=10**9)
    assert_unchanged(before, everything_about(model))


def test_the_network_is_left_as_it_was_when_it_fails() -> None:
    model, images, too_many = unruly().train(), torch.rand(4, 1, 8, 8), torch.rand(1, 3, 8, 8)
    before = everything_about(model)
    with pytest.raises(NetworkError):
        with_shapes(model, named("first", "pair"), images[:1])
    with pytest.raises(RuntimeError):
        with_shapes(model, named("first"), too_many)
    assert_unchanged(before, everything_about(model))


def test_measuring_inside_autocast_runs_in_float32() -> None:
    model, images = UNet(width=2, depth=1), torch.rand(3, 3, 8, 8)
    layers = with_shapes(model, model.layers, images[:1])
    plain = gathered(model, images, layers, budget=10**9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = gathered(model, images, layers, budget=10**9)
    torch.testing.assert_close(plain, within, rtol=0, atol=0)


def test_every_budget_gives_the_same_bits_in_as_few_passes_as_it_allows() -> None:
    torch.manual_seed(0)
    model, images = UNet(width=4, depth=2), torch.rand(5, 3, 32, 32)
    layers = with_shapes(model, model.layers, images[:1])
    whole = gathered(model, images, layers, budget=10**9)
    for features in (FEATURES_AT_ONCE, 10_000, 60_000):
        cut = gathered(model, images, layers, budget=features * 4 * 5)
        torch.testing.assert_close(whole, cut, rtol=0, atol=0)
    assert set(whole) == {layer.label for layer in layers if not layer.parts}


def test_a_merge_is_the_concatenation_of_its_parts() -> None:
    model, images = UNet(width=2, depth=2), torch.rand(2, 3, 16, 16)
    merges = [layer for layer in model.layers if layer.role == "merge"]
    direct = tuple(Layer(layer.label, layer.module) for layer in model.layers)
    seen = gathered(model, images, with_shapes(model, direct, images[:1]), budget=10**9)
    for merge in merges:
        torch.testing.assert_close(
            torch.cat([seen[part] for part in merge.parts], dim=1), seen[merge.label], rtol=0, atol=0
        )


@given(
    sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=12),
    n=st.integers(1, 700),
    room=st.integers(FEATURES_AT_ONCE, 60_000),
)
def test_a_plan_covers_every_value_once_within_the_budget(sizes: list[int], n: int, room: int) -> None:
    layers = [Layer(str(place), "m", shape=(size,)) for place, size in enumerate(sizes)]
    plan = plan_passes(layers, n, room * 4 * n)
    covered = {layer.label: 0 for layer in layers}
    for one_pass in plan:
        assert one_pass
        assert sum(part.stop - part.start for part in one_pass) <= room
        for part in one_pass:
            assert part.start == covered[part.layer.label]
            assert part.start % FEATURES_AT_ONCE == 0
            covered[part.layer.label] = part.stop
    assert list(covered.values()) == sizes
    assert len(plan) <= sum(sizes) // (room - FEATURES_AT_ONCE + 1) + 1
    assert [part.layer.label for slices in plan for part in slices] == sorted(
        (part.layer.label for slices in plan for part in slices), key=int
    )


def test_a_pass_that_needs_only_early_layers_stops_there() -> None:
    model, images = UNet(width=2, depth=2), torch.rand(3, 3, 8, 8)
    ran: list[str] = []
    for name, module in model.named_children():
        module.register_forward_hook(lambda module, inputs, output, name=name: ran.append(name))
    layers = with_shapes(model, model.layers[:2], images[:1])
    ran.clear()
    gathered(model, images, layers, budget=10**9)
    assert set(ran) <= {"layer1", "layer2"}


def test_the_default_budget_is_a_quarter_of_the_free_memory() -> None:
    free = psutil.virtual_memory().available
    assert default_budget(torch.device("cpu")) == pytest.approx(free / 4, rel=0.2)


@given(
    total=st.integers(0, 2**33),
    n=st.integers(2, 3000),
    pair_bytes=st.integers(16, 96),
    forward=st.integers(0, 2**30),
)
def test_a_budget_is_kept_or_refused(total: int, n: int, pair_bytes: int, forward: int) -> None:
    try:
        budget = Budget(total, n=n, pair_bytes=pair_bytes, forward_bytes=forward)
    except InvalidArgument as refused:
        least = int(str(refused).split("MiB (")[1].split(" bytes")[0])
        mebibytes = math.ceil(least / 2**20)
        text = f"memory_budget must be at least {mebibytes} MiB ({least} bytes) for {n} images, got {total} bytes"
        assert text == str(refused)
        assert total < least
        assert (
            Budget(least, n=n, pair_bytes=pair_bytes, forward_bytes=forward).activation_bytes
            == 4 * n * FEATURES_AT_ONCE
        )
        return
    assert budget.activation_bytes + pair_bytes * n * n + 16 * n * FEATURES_AT_ONCE == total
    assert 1 <= budget.batch_size <= min(16, n)
    assert budget.batch_size == 1 or budget.batch_size * forward <= total / FORWARD_SHARE


def test_what_an_image_takes_inside_the_network_is_what_lives_at_a_time() -> None:
    """Width 1, depth 1, 8 × 8: at the merge there are the skip, the upsampled path and both together, 256 + 256 + 512 bytes."""
    assert forward_bytes(UNet(1, depth=1), torch.rand(1, 3, 8, 8)) == 2 * (256 + 256 + 512)


def test_an_arena_is_one_region_that_only_grows() -> None:
    buffer = ActivationBuffer(torch.device("cpu"))
    first = buffer.take(1000)
    first[:] = torch.arange(1000.0)
    assert buffer.take(10).data_ptr() == first.data_ptr()
    buffer.rest()
    assert len(buffer.take(5_000_000)) == 5_000_000
    assert first[999] == 999  # who still holds the old region may read it
    assert len(buffer.take(3)) == 3


def test_memory_that_is_not_there_is_one_line() -> None:
    with pytest.raises(MeasurementError, match=r"GiB for activations cannot be had on cpu: lower memory_budget"):
        ActivationBuffer(torch.device("cpu")).take(2**55)


def test_an_arena_serves_every_pass() -> None:
    model, images = UNet(width=4, depth=2), torch.rand(5, 3, 32, 32)
    layers = with_shapes(model, model.layers, images[:1])
    buffer = ActivationBuffer(torch.device("cpu"))
    places = {
        block.values.untyped_storage().data_ptr()
        for block in stream(
            model, images, plan_passes(layers, 5, 5 * 4 * 10_000), batch_size=2, activation_buffer=buffer
        )
    }
    assert places == {buffer.take(1).untyped_storage().data_ptr()}


def test_a_network_that_keeps_channels_last_is_read_in_its_own_order() -> None:
    torch.manual_seed(0)
    model, images = UNet(width=4, depth=2).to(memory_format=torch.channels_last), torch.rand(7, 3, 16, 16)
    layers = with_shapes(model, model.layers, images[:1])
    seen = gathered(model, images, layers, budget=10**9)
    plain = gathered(UNet(width=4, depth=2), images, layers, budget=10**9)
    assert {label: values.shape for label, values in seen.items()} == {label: v.shape for label, v in plain.items()}
    with eval_mode(model):
        first = model.get_submodule("layer1")(images)
    torch.testing.assert_close(seen["1"], first.movedim(1, -1).flatten(1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("newer", [False, True])
def test_float32_is_float32_while_measuring_and_as_before_afterwards(newer: bool) -> None:
    """Set through torch's older interface, which the newer one must not contradict, or through the newer one."""
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul)
    start = [setting.fp32_precision for setting in settings]
    try:
        if newer:
            torch.backends.cuda.matmul.fp32_precision = "tf32"
        else:
            torch.set_float32_matmul_precision("high")
        before = [setting.fp32_precision for setting in settings]
        with eval_mode(nn.Linear(1, 1)):
            assert [setting.fp32_precision for setting in settings] == ["ieee"] * 3
            if not newer:
                assert not torch.backends.cuda.matmul.allow_tf32
                assert not torch.backends.cudnn.allow_tf32
        assert [setting.fp32_precision for setting in settings] == before
    finally:
        torch.set_float32_matmul_precision("highest")
        for setting, precision in zip(settings, start, strict=True):
            setting.fp32_precision = precision


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        (named("frist"), "layer frist: the network has no module 'frist'; the nearest names are 'first'"),
        (named("xyzzy_qq"), "the network has no module 'xyzzy_qq'; there are 'first', "),
        (named("activation"), "layer activation: module 'activation' runs more than once in a forward pass"),
        (named("unused"), "layer unused: module 'unused' did not run in the forward pass"),
        (named("pair"), "layer pair: module 'pair' gives a tuple, expected one tensor; name a module inside it"),
        (named("first", "first"), "layer first is named 2 times; give each layer its own label"),
        ((Layer("m", "second", parts=("a",)),), "layer m is made of layer a, which is not among the layers"),
    ],
)
def test_a_layer_that_cannot_be_captured_is_refused(layers: tuple[Layer, ...], text: str) -> None:
    with pytest.raises(NetworkError, match=text):
        with_shapes(unruly(), layers, torch.rand(1, 1, 8, 8))


class Table(nn.Module):
    """One row whatever the batch, as a positional embedding; and a layer that sits out some batches."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Embedding(1, 5)
        self.rarely = nn.Identity()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if x.mean() > 0.1:
            x = self.rarely(x)
        return x.flatten(1)[:, :5] + self.row(torch.zeros(1, dtype=torch.int64))


def test_a_layer_that_does_not_give_one_activation_an_image_is_refused() -> None:
    model, images = Table(), torch.rand(7, 1, 4, 4)
    layers = with_shapes(model, named("row"), images[:1])
    with pytest.raises(NetworkError, match=r"layer row: module 'row' gives \[1, 5\] for 3 images, expected \[3, 5\]"):
        gathered(model, images, layers, budget=10**9)
    images[3:6] = 0
    layers = with_shapes(model, named("rarely"), images[:1])
    with pytest.raises(
        NetworkError, match="only 0 of the layers rarely ran for images 3 to 5: a layer must run for every"
    ):
        gathered(model, images, layers, budget=10**9)


def test_buffers_are_as_before() -> None:
    model, images = Table(), torch.rand(7, 1, 4, 4)
    gathered(model, images, with_shapes(model, named("rarely"), images[:1]), budget=10**9)
    assert model.calls.item() == 0


def test_a_budget_too_small_for_one_chunk_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="budget_bytes must be at least 163840 bytes for 10 images, got 1000"):
        plan_passes([Layer("1", "m", shape=(5,))], 10, 1000)
    assert plan_passes([], 10, 10**6) == ()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_values_on_cuda_are_those_on_the_cpu() -> None:
    torch.manual_seed(0)
    model, images = UNet(width=4, depth=2), torch.rand(5, 3, 32, 32)
    layers = with_shapes(model, model.layers, images[:1])
    on_cpu = gathered(model, images, layers, budget=10**9)
    on_gpu = gathered(model.cuda(), images, layers, budget=10**9)
    torch.testing.assert_close(on_cpu, {k: v.cpu() for k, v in on_gpu.items()}, atol=1e-4, rtol=1e-3)
