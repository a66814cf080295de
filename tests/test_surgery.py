"""Skips and levels left out for good: exact, apart from the original, and plain modules."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import foreign
from foreign import random_image
from unetscope.base.errors import InvalidArgument, NetworkError
from unetscope.networks.ablation import ablated, replace_streams
from unetscope.networks.equality import differ, tensors_of
from unetscope.networks.inspection import inspect
from unetscope.networks.rewired import Rewired
from unetscope.networks.saved_parts import load_parts, save_parts
from unetscope.networks.structure import Structure
from unetscope.networks.surgery import without, without_skips

torch.set_num_threads(1)

Join = Callable[[nn.Module, Tensor, Tensor], Tensor]


class TwoLevels(nn.Module):
    """One skip of 4 channels beside 4 upsampled ones. join: of the network, the upsampled stream and the skip, to 8 channels.

    Whatever else a network needs stands in `parts`.
    """

    def __init__(self, join: Join, parts: dict[str, nn.Module] | None = None, reads: int = 8) -> None:
        super().__init__()
        self.enter, self.down = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.up, self.join = nn.ConvTranspose2d(8, 4, 2, stride=2), join
        for name, part in (parts or {}).items():
            self.add_module(name, part)
        self.read, self.leave = nn.Conv2d(reads, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = torch.relu(self.enter(x))
        joined = self.join(self, self.up(torch.relu(self.down(skip))), skip)
        return self.leave(torch.relu(self.read(joined)))


def plain(_net: nn.Module, up: Tensor, skip: Tensor) -> Tensor:
    return torch.cat([skip, up], 1)


def silent_outputs(model: nn.Module, structure: Structure, part: str, images: Tensor) -> list[Tensor]:
    """What the original returns with zeros in the place of a part's stream."""
    merge = structure.merge_of(part.replace("level", "skip"))
    stream = merge.skips.get(part, merge.upsampled)
    with torch.no_grad(), replace_streams(model, {part: stream}, lambda _, values: torch.zeros_like(values)):
        return tensors_of(model(images))


def assert_exact(
    model: nn.Module, part: str = "skip1", shape: tuple[int, ...] = (3, 16, 16), *, trains: bool = True
) -> Rewired:
    """A smaller network that is equal to the silenced one on new images, and shares nothing with the original."""
    torch.manual_seed(0)
    for module in model.modules():  # as after a training
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm) and module.weight is not None:
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    structure = inspect(model, random_image(*shape))
    smaller = without(model, structure, part)
    images = torch.rand(2, *shape)
    for training in (False, True) if trains else (False,):
        states = [{name: value.clone() for name, value in each.state_dict().items()} for each in (model, smaller)]
        expected = silent_outputs(model.train(training), structure, part, images)
        with torch.no_grad():
            outputs = tensors_of(smaller.train(training)(images))
        assert differ(outputs, expected, 2e-6) == ""
        model.load_state_dict(states[0])
        smaller.load_state_dict(states[1])
    own = {value.untyped_storage().data_ptr() for value in smaller.state_dict().values()}
    assert not own & {
        value.untyped_storage().data_ptr() for value in tensors_of([*model.parameters(), *model.buffers()])
    }
    return smaller


# What else stands in a concatenation.


def registered(values: Tensor, kind: str) -> Join:
    def join(net: Any, up: Tensor, skip: Tensor) -> Tensor:
        if not hasattr(net, "grid"):
            if kind == "parameter":
                net.grid = nn.Parameter(values)
            elif kind == "buffer":
                net.register_buffer("grid", values)
            else:
                net.grid = values
        first = net.grid.expand(skip.shape[0], -1, -1, -1)
        return torch.cat([first.to(skip.dtype), skip, up], 1)

    return join


def coordinates(_net: nn.Module, up: Tensor, skip: Tensor) -> Tensor:
    rows = torch.linspace(-1, 1, skip.shape[2], device=skip.device)[:, None].expand(skip.shape[2], skip.shape[3])
    return torch.cat([rows.expand(skip.shape[0], 1, -1, -1), skip, rows.expand(skip.shape[0], 1, -1, -1), up], 1)


@pytest.mark.parametrize(
    "join",
    [
        registered(torch.rand(1, 2, 16, 16), "parameter"),
        registered(torch.rand(1, 2, 16, 16), "buffer"),
        registered(torch.rand(1, 2, 16, 16), "attribute"),
        registered(torch.arange(512).reshape(1, 2, 16, 16) % 7, "buffer"),
        coordinates,
        lambda _net, up, skip: torch.cat([torch.zeros(skip.shape[0], 2, *skip.shape[2:]), skip, up], 1),
        lambda _net, up, skip: torch.cat(
            [torch.arange(skip.shape[3]).expand(skip.shape[0], 2, skip.shape[2], -1), skip, up], 1
        ),
    ],
    ids=["parameter", "buffer", "attribute", "integers", "coordinates", "padding", "arange"],
)
@pytest.mark.parametrize("part", ["skip1", "level1"])
def test_constants_in_a_concatenation(join: Join, part: str) -> None:
    model = TwoLevels(join, reads=10)
    model(random_image(3, 16, 16))
    model.train()
    smaller = assert_exact(model, part)
    kept = [0, 1, 6, 7, 8, 9] if part == "skip1" else [0, 1, 2, 3, 4, 5]
    if join is coordinates:
        kept = [0, 5, 6, 7, 8, 9] if part == "skip1" else [0, 1, 2, 3, 4, 5]
    assert torch.equal(smaller.get_parameter("read.weight"), model.read.weight[:, kept])


# Norms, and other calls between the join and what reads it.

BETWEEN: dict[str, tuple[nn.Module, bool]] = {
    "batch norm": (nn.BatchNorm2d(8), False),  # in training mode, the constants are those of a batch of zeros
    "instance norm": (nn.InstanceNorm2d(8, affine=True), True),
    "group norm": (nn.GroupNorm(4, 8), True),
    "group norm, activated": (nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU()), True),
    "prelu": (nn.PReLU(8), True),
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), True),
    "grouped": (nn.Conv2d(8, 12, 1, groups=4), True),
    "transposed": (nn.ConvTranspose2d(8, 8, 3, padding=1), True),
    "dropout": (nn.Dropout2d(0.5), True),
    "shuffle": (nn.ChannelShuffle(2), True),
    "pooled": (nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.ZeroPad2d(1), nn.AvgPool2d(3, 1)), True),
    "norm, then padded": (
        nn.Sequential(nn.InstanceNorm2d(8, affine=True), nn.ReflectionPad2d(1), nn.AvgPool2d(3, 1)),
        True,
    ),
    "sub-pixel": (nn.Sequential(nn.PixelUnshuffle(2), nn.PixelShuffle(2)), True),
    "spectral": (nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 1)), False),
    "weight norm": (nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1)), True),
}


@pytest.mark.long
@pytest.mark.parametrize("part", ["skip1", "level1"])
@pytest.mark.parametrize("name", BETWEEN)
def test_what_stands_between_a_join_and_what_reads_it(name: str, part: str) -> None:
    module, trains = BETWEEN[name]
    module = copy.deepcopy(module)
    reads = 12 if name == "grouped" else 8
    model = TwoLevels(lambda net, up, skip: net.between(plain(net, up, skip)), {"between": module}, reads)
    smaller = assert_exact(model, part, trains=trains and name != "dropout")
    count = [sum(parameter.numel() for parameter in each.parameters()) for each in (model, smaller)]
    assert count[1] < count[0] or name in {"spectral", "weight norm"}  # whose weights are made of others
    if "norm" in name and name not in {"weight norm"}:
        assert any("as constants, through a normalisation" in note for note in smaller.notes)


MIXING = {
    "group_norm": nn.GroupNorm(1, 8),
    "layer_norm": nn.LayerNorm([8, 16, 16]),
    "local_response_norm": nn.LocalResponseNorm(2),
    "softmax": nn.Softmax(1),
    "conv2d": nn.Conv2d(8, 8, 1, groups=2),
    "conv3d": nn.Conv3d(1, 1, 3, padding=1),
}


@pytest.mark.parametrize("part", ["skip1", "level1"])
@pytest.mark.parametrize("call", MIXING)
def test_what_mixes_channels_gets_zeros_and_says_so(call: str, part: str) -> None:
    def join(net: Any, up: Tensor, skip: Tensor) -> Tensor:
        joined = torch.cat([skip, up], 1)[:, [0, 4, 1, 5, 2, 6, 3, 7]]
        return net.between(joined[:, None])[:, 0] if call == "conv3d" else net.between(joined)

    model = TwoLevels(join, {"between": copy.deepcopy(MIXING[call])})
    smaller = assert_exact(model, part)
    assert any(f"{call} (between) mixes channels" in note and "gets zeros" in note for note in smaller.notes)


def test_what_mixes_channels_that_are_not_zero_is_refused_by_name() -> None:
    norm = nn.InstanceNorm2d(8, affine=True)
    nn.init.normal_(norm.bias)
    between = nn.Sequential(norm, nn.GroupNorm(1, 8))
    model = TwoLevels(lambda net, up, skip: net.between(plain(net, up, skip)), {"between": between})
    with pytest.raises(NetworkError, match=r"reaches group_norm \(between\.1\) as values that are not zero where"):
        without(model, inspect(model, random_image(3, 16, 16)), "skip1")


def halves(net: Any, up: Tensor, skip: Tensor) -> Tensor:
    first, second = torch.cat([skip, up], 1).chunk(2, 1)
    return torch.cat([second, first], 1)


def shuffled(net: Any, up: Tensor, skip: Tensor) -> Tensor:
    joined = torch.cat([skip, up], 1)
    b, c, h, w = joined.shape
    return joined.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


def twice(net: Any, up: Tensor, skip: Tensor) -> Tensor:
    joined = torch.cat([skip, up], 1)
    return net.wide(joined) + net.narrow(joined)


def gated(net: Any, up: Tensor, skip: Tensor) -> Tensor:
    joined = torch.cat([skip, up], 1)
    return joined * torch.sigmoid(net.gate(joined.mean((2, 3), keepdim=True)))


def last(net: Any, up: Tensor, skip: Tensor) -> Tensor:
    return net.linear(torch.cat([skip, up], 1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def cut(net: Any, up: Tensor, skip: Tensor) -> Tensor:
    joined = torch.cat([skip, up], 1)
    return torch.cat([joined[:, 2:6], joined[:, 6:], joined[:, :2]], 1)


def projected(net: Any, up: Tensor, skip: Tensor) -> Tensor:
    joined = torch.cat([skip, up], 1)
    return joined + net.wide(joined)


def tokens(net: Any, up: Tensor, skip: Tensor) -> Tensor:
    joined = torch.cat([skip, up], 1)
    return net.linear(joined.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, joined.shape[2:])


@pytest.mark.parametrize("part", ["skip1", "level1"])
@pytest.mark.parametrize("join", [shuffled, twice, gated, last, cut, projected, tokens])
def test_ways_to_read_a_concatenation(join: Join, part: str) -> None:
    parts = {"wide": nn.Conv2d(8, 8, 3, padding=1), "narrow": nn.Conv2d(8, 8, 1), "gate": nn.Conv2d(8, 8, 1)}
    assert_exact(TwoLevels(join, {**parts, "linear": nn.Linear(8, 8)}), part)


def test_a_module_whose_weights_another_has_in_the_other_mode_is_refused() -> None:
    model = TwoLevels(
        lambda net, up, skip: (net.b if net.training else net.a)(torch.cat([skip, up], 1)), {"a": nn.Conv2d(8, 8, 1)}
    )
    model.b = nn.Conv2d(8, 8, 1)
    model.b.weight = model.a.weight
    with pytest.raises(NetworkError, match="a shares its weights with b, so no skip can be removed before it"):
        without(model, inspect(model, random_image(3, 16, 16)), "skip1")


# Python around the modules.


class Hooked(nn.Module):
    """Its skip is what a hook keeps of the encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.kept = TwoLevels(plain), {}
        self.inner.enter.register_forward_hook(lambda _m, _i, output: self.kept.__setitem__("skip", torch.relu(output)))

    def forward(self, x: Tensor) -> Tensor:
        net = self.inner
        up = net.up(torch.relu(net.down(torch.relu(net.enter(x)))))
        return net.leave(net.read(torch.cat([self.kept["skip"], up], 1)))


def in_closure() -> nn.Module:
    read = nn.Conv2d(8, 8, 3, padding=1)
    return TwoLevels(lambda _net, up, skip: read(torch.cat([skip, up], 1)))


def in_list() -> nn.Module:
    model = TwoLevels(lambda net, up, skip: functional.conv2d(torch.cat([skip, up], 1), net.weights[0], net.weights[1]))
    model.weights = [nn.Parameter(torch.rand(8, 8, 1, 1)), nn.Parameter(torch.rand(8))]
    return model


def in_dictionary() -> nn.Module:
    model = TwoLevels(lambda net, up, skip: net.stages["read"](torch.cat([skip, up], 1)))
    model.stages = {"read": nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())}
    return model


def by_partial() -> nn.Module:
    return TwoLevels(functools.partial(lambda order, _net, up, skip: torch.cat([skip, up][::order], 1), -1))


def by_method() -> nn.Module:
    class Joiner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.Conv2d(8, 8, 1)

        def join(self, _net: nn.Module, up: Tensor, skip: Tensor) -> Tensor:
            return self.read(torch.cat([up, skip], 1))

    return TwoLevels(Joiner().join)


@pytest.mark.parametrize("part", ["skip1", "level1"])
@pytest.mark.parametrize("build", [Hooked, in_closure, in_list, in_dictionary, by_partial, by_method])
def test_python_around_the_modules_shares_nothing(build: Callable[[], nn.Module], part: str) -> None:
    torch.manual_seed(0)
    model = build()
    smaller = assert_exact(model, part)
    image, before = random_image(3, 16, 16), None
    with torch.no_grad():
        before = model.eval()(image)
    optimizer = torch.optim.SGD(smaller.train().parameters(), 0.5)
    smaller(image).mean().backward()
    optimizer.step()
    with torch.no_grad():
        assert torch.equal(model(image), before), "training the smaller network trained the original"
    assert all(parameter.grad is not None for parameter in smaller.parameters())


@pytest.mark.parametrize(
    ("join", "why"),
    [
        (lambda _n, up, skip: torch.cat([skip, up], 1) * (2.0 if float(up.mean()) > 0 else 1.0), "decides by the values"),
        (lambda _n, up, skip: torch.cat([skip, up + torch.from_numpy(up.detach().numpy())], 1), "decides by the values"),
        (lambda _n, up, skip: torch.cat([skip, Doubled.apply(up)], 1), "Doubled is an autograd.Function with a backward pass"),
        (lambda _n, up, skip: torch.cat([skip, _in_half(up)], 1), "under an autocast within the network"),
        (lambda _n, up, skip: torch.cat([skip, up], 1) * up, "."),
    ],
)  # fmt: skip
def test_networks_that_no_program_follows_are_refused(join: Join, why: str) -> None:
    model = TwoLevels(join)
    with pytest.raises(NetworkError, match=why):
        without(model, inspect(model, random_image(3, 16, 16)), "skip1")


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def _in_half(x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return (x @ x.mT).float()


# The result is a plain module.


@torch.jit.script
def scripted_swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


@pytest.mark.parametrize(
    ("join", "why"),
    [
        (lambda _net, up, skip: torch.cat([skip, scripted_swish(up)], 1), "scripted_swish is scripted"),
        (lambda _net, up, skip: torch.cat([skip, up], 1, out=torch.empty(0)), r":cat writes to out="),
        (
            lambda _net, up, skip: torch.cat([skip, torch.mul(up, 2, out=torch.empty_like(up))], 1),
            r":mul writes to out=",
        ),
    ],
)
def test_calls_that_no_program_holds_are_refused(join: Join, why: str) -> None:
    model = TwoLevels(join)
    with pytest.raises(NetworkError, match=why):
        without(model, inspect(model, random_image(3, 16, 16)), "skip1")


def cast(_net: nn.Module, up: Tensor, skip: Tensor) -> Tensor:
    return torch.cat([skip, up.double().float()], 1)


def in_turn(_net: nn.Module, up: Tensor, skip: Tensor) -> Tensor:
    return torch.cat(torch.cat([skip, up], 1).split(2, 1)[::-1], 1)


def copied_over(_net: nn.Module, up: Tensor, skip: Tensor) -> Tensor:
    both = torch.cat([skip, torch.zeros_like(up)], 1)
    both.narrow(1, 4, 4).copy_(up)
    return both


@pytest.mark.parametrize("join", [cast, in_turn, copied_over])
def test_casts_parts_and_writes_between_streams(join: Join) -> None:
    assert_exact(TwoLevels(join))


@pytest.mark.long
def test_sizes_stay_free_and_batches_too() -> None:
    model = foreign.Padded()
    smaller = without(model, inspect(model, random_image(3, 37, 53)), "level3").eval()
    for shape in ((1, 3, 37, 53), (3, 3, 64, 32), (2, 3, 41, 40)):
        assert smaller(torch.rand(shape)).shape == (shape[0], 1, *shape[2:])
    cropped = foreign.Cropped()
    structure = inspect(cropped, random_image(1, 92, 92))
    images = torch.rand(2, 1, 108, 92)
    for part in ("skip1", "skip2", "level1", "level2"):
        smaller = without(cropped, structure, part).eval()
        expected = silent_outputs(cropped.eval(), structure, part, images)
        assert differ(tensors_of(smaller(images)), expected, 1e-5) == ""


def test_a_program_for_one_size_says_so() -> None:
    class Halving(foreign.Padded):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(functional.avg_pool2d(x, 2) if x.shape[2] > 40 else x)

    model = Halving()
    smaller = without_skips(model, inspect(model, random_image(3, 32, 32)), "skip1")
    assert smaller(torch.rand(2, 3, 40, 32)).shape == (2, 1, 40, 32)
    with pytest.raises(
        NetworkError, match=r"was recorded for images on which .*: build it with an example of the new size"
    ):
        smaller(torch.rand(2, 3, 64, 64))


def sized(sides: Callable[[Any, Tensor], tuple[int, int]], move: Callable[[Any, Tensor], Tensor] = torch.mul) -> Join:
    """What comes up takes its sides from something that is made of the skip alone, and goes with it."""

    def join(net: Any, up: Tensor, skip: Tensor) -> Tensor:
        moved = move(net, skip) if move is not torch.mul else skip * 2
        return torch.cat([moved, functional.interpolate(up, size=sides(net, moved))], 1)

    return join


def sides_of(_net: Any, moved: Tensor) -> tuple[int, int]:
    return moved.shape[2:]


SIZED_BY: dict[str, Join] = {
    "channels last, norm": sized(sides_of, lambda net, x: net.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
    "channels last, linear": sized(sides_of, lambda net, x: net.linear(x.movedim(1, -1)).movedim(-1, 1)),
    "tokens": sized(sides_of, lambda _, x: (x.flatten(2).transpose(1, 2) * 2).transpose(1, 2).reshape(x.shape)),
    "one side inferred": sized(sides_of, lambda _, x: (x.flatten(1) * 2).view(x.shape[0], 4, x.shape[2], -1)),
    "channels summed": sized(lambda _, x: x.sum(1).shape[1:]),
    "one more axis": sized(lambda _, x: x[:, None].shape[3:]),
    "side by side": sized(lambda _, x: (torch.cat([x, x, x], 2).shape[2] // 3, torch.stack([x, x]).sum(0).shape[3])),
    "counted": sized(lambda _, x: (x.flatten(2).shape[2] // x.shape[3], x.mT.contiguous().shape[2])),
}


@pytest.mark.parametrize("join", SIZED_BY.values(), ids=SIZED_BY)
def test_a_size_that_is_read_of_what_is_left_out_is_computed_of_what_stays(join: Join) -> None:
    model = TwoLevels(join, {"norm": nn.LayerNorm(4), "linear": nn.Linear(4, 4)})
    smaller = assert_exact(model).eval()
    if join is SIZED_BY["side by side"]:  # stacked: of several tensors
        assert smaller.notes == ("it takes images of 16×16 alone: it needs a size of sum (:sum), which is gone",)
        with pytest.raises(NetworkError, match=r"recorded for images on which the size along axis 3 is 16"):
            smaller(torch.rand(1, 3, 24, 32))
        return
    assert smaller.notes == ()
    images, structure = torch.rand(1, 3, 24, 32), inspect(model, random_image(3, 16, 16))
    expected = silent_outputs(model.eval(), structure, "skip1", images)
    with torch.no_grad():
        assert differ(tensors_of(smaller(images)), expected, 2e-6) == ""


def cropped(crop: Callable[[Tensor, Tensor], Any]) -> Join:
    """The skip is cropped by what is computed of sizes as tensors, as some networks do, here by nothing."""

    def join(_net: Any, up: Tensor, skip: Tensor) -> Tensor:
        margin = crop(up, skip)
        return torch.cat([functional.pad(skip, [-int(side) for side in margin]), up], 1)

    return join


BY_TENSORS_OF_SIZES: dict[str, Join] = {
    "tolist": cropped(
        lambda up, skip: ((torch.tensor(skip.shape) - torch.tensor(up.shape))[2:] // 2).repeat(2).tolist()
    ),
    "item": cropped(
        lambda up, skip: [(torch.tensor(skip.shape[k]) - torch.tensor(up.shape[k])).item() for k in (3, 3, 2, 2)]
    ),
    "int": cropped(lambda up, skip: [int(torch.tensor((skip.shape[2] - up.shape[2]) / 2))] * 4),
    "bool": cropped(
        lambda up, skip: [0, 0, 0, 0] if torch.tensor(skip.shape[2]) >= torch.tensor(up.shape[2]) else [1] * 4
    ),
    "arange": cropped(lambda up, skip: [torch.arange(up.shape[2]).max() + 1 - torch.arange(skip.shape[2]).numel()] * 4),
    "equal": cropped(
        lambda up, skip: [0] * 4 if torch.equal(torch.tensor(skip.shape), torch.tensor(up.shape)) else [1] * 4
    ),
    "numpy": cropped(lambda up, skip: (torch.zeros(skip.shape[2]).sum() + torch.zeros(4)).numpy()),
}


@pytest.mark.parametrize("join", BY_TENSORS_OF_SIZES.values(), ids=BY_TENSORS_OF_SIZES)
def test_decisions_by_tensors_that_are_made_of_sizes_are_recorded(join: Join) -> None:
    assert_exact(TwoLevels(join)).train()


@pytest.mark.parametrize(
    "join",
    [
        lambda net, up, skip: torch.cat([skip, up], 1) * (2.0 if net.read.weight.sum() > 100 else 1.0),
        lambda _, up, skip: torch.cat([skip, up], 1) * (2.0 if torch.rand(1) > 2 else 1.0),
        lambda _, up, skip: torch.cat([skip, up], 1) * (2.0 if torch.randint(0, 2, (1,)) > 2 else 1.0),
        lambda _, up, skip: torch.cat([skip, up], 1) * (2.0 if (torch.zeros(1) + up.sum()) > 1e6 else 1.0),
        lambda _, up, skip: torch.cat([skip, up], 1) * (2.0 if torch.zeros(1).copy_(up.sum()) > 1e6 else 1.0),
    ],
    ids=["weight", "random", "random integer", "image", "image, written"],
)
def test_decisions_by_anything_else_are_refused(join: Join) -> None:
    with pytest.raises(NetworkError, match=r"decides by the values of a tensor \(:bool\), which no fixed program can"):
        without(TwoLevels(join), inspect(TwoLevels(join), random_image(3, 16, 16)), "skip1")


PRODUCTS: dict[str, Join] = {
    "beside a stream": lambda _, up, skip: torch.cat([up * skip, up], 1),
    "added to a stream": lambda _, up, skip: torch.cat([up * skip + up, up], 1),
    "subtracted": lambda _, up, skip: torch.cat([up - up.mul(skip), up], 1),
    "activated and pooled": lambda net, up, skip: torch.cat([net.pooled(torch.tanh(up * skip)), up], 1),
    "without bias": lambda net, up, skip: torch.cat([net.bare(net.bare(up * skip)), up], 1),
    "of three": lambda _, up, skip: torch.cat([up * skip * up.sigmoid(), up], 1),
    "of tokens": lambda _, up, skip: torch.cat([(up * skip).flatten(2).unflatten(2, up.shape[2:]), up], 1),
}


@pytest.mark.parametrize("part", ["skip1", "level1"])
@pytest.mark.parametrize("join", PRODUCTS.values(), ids=PRODUCTS)
def test_a_product_with_what_is_left_out_is_gone(join: Join, part: str) -> None:
    pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Dropout(0.0), nn.PReLU(4))
    smaller = assert_exact(TwoLevels(join, {"bare": nn.Conv2d(4, 4, 1, bias=False), "pooled": pooled}), part)
    assert not [name for name, _ in smaller.named_modules() if name.startswith(("bare", "pooled"))]
    is_added = join in (PRODUCTS["added to a stream"], PRODUCTS["subtracted"])
    assert smaller.get_submodule("read").weight.shape[1] == (8 if is_added else 4)


@pytest.mark.parametrize("name", ["biased", "norm"])
def test_what_makes_more_than_zeros_of_a_product_gets_zeros(name: str) -> None:
    parts = {"biased": nn.Conv2d(4, 4, 1), "norm": nn.BatchNorm2d(4)}
    assert_exact(TwoLevels(lambda net, up, skip: torch.cat([net.get_submodule(name)(up * skip), up], 1), parts))


def channels_first_tokens(call: Callable[[Any, Tensor], Tensor]) -> Join:
    """A call of the tokens of a concatenation, [b, places, channels]."""

    def join(net: Any, up: Tensor, skip: Tensor) -> Tensor:
        joined = torch.cat([skip, up], 1)
        return call(net, joined.flatten(2).mT).mT.reshape(joined.shape)

    return join


def part_by_part(net: Any, up: Tensor, skip: Tensor) -> Tensor:
    first, *others = torch.cat([skip, up], 1).chunk(4, 1)
    results = [first]
    for layer, values in zip((net.a, net.b, net.c), others, strict=True):
        results.append(layer(values + results[-1]))
    return torch.cat(results, 1)


def standardised(axes: Any) -> Join:
    def join(_net: Any, up: Tensor, skip: Tensor) -> Tensor:
        joined = torch.cat([skip, up], 1)
        return (joined - joined.mean(axes, keepdim=True)) / (joined.var(axes, keepdim=True) + 1e-3).sqrt()

    return join


def by_spatial_attention(net: Any, up: Tensor, skip: Tensor) -> Tensor:
    joined = torch.cat([skip, up], 1)
    return joined * net.gate(torch.cat([joined.mean(1, keepdim=True), joined.amax(1, keepdim=True)], 1)).sigmoid()


def partly_convolved(net: Any, up: Tensor, skip: Tensor) -> Tensor:
    first, second = torch.cat([skip, up], 1).split([3, 5], 1)
    return torch.cat([net.first(first), second], 1)


COMPOSITE: dict[str, tuple[Join, Callable[[], dict[str, nn.Module]]]] = {
    "LSTM": (channels_first_tokens(lambda net, x: net.rows(x)[0]), lambda: {"rows": nn.LSTM(8, 8, batch_first=True)}),
    "two ways": (
        channels_first_tokens(lambda net, x: net.rows(x)[0]),
        lambda: {"rows": nn.GRU(8, 4, 2, batch_first=True, bidirectional=True)},
    ),
    "attention": (
        channels_first_tokens(lambda net, x: net.heads(x, x, x)[0]),
        lambda: {"heads": nn.MultiheadAttention(8, 2, batch_first=True)},
    ),
    "transformer": (
        channels_first_tokens(lambda net, x: net.layer(x)),
        lambda: {"layer": nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)},
    ),
    "decoder": (
        channels_first_tokens(lambda net, x: net.layer(x, x)),
        lambda: {"layer": nn.TransformerDecoderLayer(8, 2, 8, dropout=0.0, batch_first=True)},
    ),
    "layer norm by hand": (standardised(1), dict),
    "norm of an image by hand": (standardised((1, 2, 3)), dict),
    "norm of a batch by hand": (standardised((0, 1, 2, 3)), dict),
    "spatial attention": (by_spatial_attention, lambda: {"gate": nn.Conv2d(2, 1, 3, padding=1)}),
    "partial convolution": (partly_convolved, lambda: {"first": nn.Conv2d(3, 3, 3, padding=1)}),
    "part by part": (part_by_part, lambda: {name: nn.Conv2d(2, 2, 3, padding=1) for name in "abc"}),
}


@pytest.mark.long
@pytest.mark.parametrize("part", ["skip1", "level1"])
@pytest.mark.parametrize("name", COMPOSITE)
def test_what_needs_channels_that_are_gone_gets_zeros(name: str, part: str) -> None:
    join, build = COMPOSITE[name]
    torch.manual_seed(0)
    smaller = assert_exact(TwoLevels(join, build()), part)
    if part == "level1":
        assert not hasattr(smaller, "down") and not hasattr(smaller, "up")


class Inside(nn.Module):
    """A network within another, under a name that the smaller network has for something of its own."""

    def __init__(self, name: str, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, inner or TwoLevels(plain))

    def forward(self, x: Tensor) -> Tensor:
        return self.get_submodule(self.name)(x)


@pytest.mark.parametrize("name", ["network", "code", "notes", "example", "constants", "left_out", "thinned"])
def test_parts_may_have_any_name(name: str, tmp_path: Any) -> None:
    model = Inside(name)
    smaller = assert_exact(model, "level1")
    assert smaller.get_submodule(f"{name}.enter").weight.shape == (4, 3, 3, 3)
    assert smaller.surgery_record.left_out == ("level1",)
    again = load_parts(save_parts(smaller, tmp_path), lambda: Inside(name))
    image = random_image(3, 16, 16)
    assert torch.equal(copy.deepcopy(smaller).eval()(image), again(image))


def compiled_within() -> nn.Module:
    model = TwoLevels(plain)
    model.leave.compile(backend="eager")
    model.read.compile(backend="eager")
    return model


def closed_over() -> nn.Module:
    model = TwoLevels(lambda net, up, skip: net.layer(plain(net, up, skip).flatten(2).mT).mT.unflatten(2, up.shape[2:]))
    weight = nn.Parameter(torch.rand(8))
    model.layer = nn.TransformerEncoderLayer(8, 2, 8, 0.0, activation=lambda x: x * weight, batch_first=True)
    return model


class Frozen(TwoLevels):
    """Its normalisation stays in evaluation mode."""

    def __init__(self) -> None:
        super().__init__(lambda net, up, skip: torch.cat([skip, net.norm(up)], 1), {"norm": nn.BatchNorm2d(4)})

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.norm.eval()
        return self


def spectrally_normed() -> nn.Module:
    model = TwoLevels(plain)
    for name in ("down", "up", "read"):
        nn.utils.spectral_norm(model.get_submodule(name))
    return model


def counting() -> nn.Module:
    """Writes a mean to a buffer of its own, without gradients."""

    def join(net: Any, up: Tensor, skip: Tensor) -> Tensor:
        with torch.no_grad():
            torch.mean(skip, (0, 2, 3), out=net.mean)
        return plain(net, up, skip)

    model = TwoLevels(join)
    model.register_buffer("mean", torch.zeros(4))
    return model


def coded() -> nn.Module:
    """Takes the nearest of some vectors, as an autoencoder with a code book."""

    def join(net: Any, up: Tensor, skip: Tensor) -> Tensor:
        nearest = torch.cdist(up.movedim(1, -1).reshape(-1, 4), net.code.weight).argmin(1)
        values = net.code(nearest).view(up.shape[0], *up.shape[2:], 4).movedim(-1, 1)
        return plain(net, up + (values - up).detach(), skip)

    return TwoLevels(join, {"code": nn.Embedding(6, 4)})


@pytest.mark.parametrize("build", [compiled_within, closed_over, Frozen, spectrally_normed, counting, coded])
def test_what_hangs_on_modules_of_pytorch_is_copied_or_recorded(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = build()
    trains = build is not closed_over  # PyTorch's attention sums in another order in training
    smaller = assert_exact(model, trains=trains)
    images = random_image(3, 16, 16)
    model.zero_grad()
    smaller.train()(images).square().mean().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.grad is not None for name, parameter in smaller.named_parameters() if "code" not in name)


def test_what_cannot_be_part_of_a_program_is_named() -> None:
    hooked = TwoLevels(plain)
    hooked.register_forward_hook(lambda _module, _inputs, output: output.sigmoid())
    structure = inspect(hooked, random_image(3, 16, 16))
    with pytest.raises(NetworkError, match=r"TwoLevels itself has forward hooks.*: inspect nn.Sequential\(network\)"):
        without(hooked, structure, "skip1")
    assert_exact(nn.Sequential(hooked))

    class Local(NamedTuple):
        mask: Tensor

    class Naming(TwoLevels):
        def forward(self, x: Tensor) -> Any:
            return Local(super().forward(x))

    model = Naming(plain)
    with pytest.raises(NetworkError, match=r"objects of a class within a function.*: define it at the top of a module"):
        without(model, inspect(model, random_image(3, 16, 16)), "skip1")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_networks_are_ablated_and_refused_by_name() -> None:
    def join(net: Any, up: Tensor, skip: Tensor) -> Tensor:
        return net.both.cat([skip, up], 1)

    quantisation = torch.ao.quantization
    model = TwoLevels(join, {"both": torch.ao.nn.quantized.FloatFunctional()}).eval()
    assert_exact(model)
    model.up = nn.Upsample(scale_factor=2)
    model.down = nn.Conv2d(4, 4, 3, stride=2, padding=1)
    model = quantisation.QuantWrapper(model).eval()
    model.qconfig = quantisation.get_default_qconfig("fbgemm")
    prepared = quantisation.prepare(model)
    image = random_image(3, 16, 16)
    prepared(image)
    model = quantisation.convert(prepared)
    structure = inspect(model, image)
    assert [skip.name for skip in structure.skips] == ["skip1"]
    with torch.no_grad(), ablated(model, structure, "skip1"):
        without_skip = model(image)
    assert not torch.equal(without_skip, model(image))
    with pytest.raises(
        NetworkError, match=r"quant \(Quantize\) is quantised and cannot be trained: leave parts out of"
    ):
        without(model, structure, "skip1")


@pytest.mark.long
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_modules_are_copied_whole(kind: type[nn.RNNBase]) -> None:
    rows = kind(4, 2, bidirectional=True, batch_first=True)

    def join(net: Any, up: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([skip, net.rows(up.flatten(2).mT)[0].mT.reshape(up.shape)], 1)

    smaller = assert_exact(TwoLevels(join, {"rows": rows}))
    assert_same = copy.deepcopy(smaller).eval()
    image = random_image(3, 16, 16)
    assert torch.equal(assert_same(image), smaller.eval()(image))
    optimizer = torch.optim.SGD(smaller.train().parameters(), 0.5)
    smaller(image).mean().backward()
    optimizer.step()
    assert not torch.equal(assert_same(image), smaller.eval()(image))
    assert torch.equal(rows.weight_hh_l0, assert_same.get_parameter("rows.weight_hh_l0"))


def test_dropped_modules_and_outputs_are_gone() -> None:
    model = foreign.Supervised()
    structure = inspect(model, random_image(3, 32, 32))
    smaller = without(model, structure, "level2")
    assert smaller.notes == ("outputs of what is left out are gone: heads.0",)
    names = {
        name.split(".")[0] + "." + name.split(".")[1] for name in smaller.state_dict() if not name.startswith("head.")
    }
    assert names == {"down.0", "down.1", "up.1", "up.2", "heads.1", "heads.2"}
    outputs = smaller(torch.rand(2, 3, 32, 32))
    assert [len(outputs["aux"]), outputs["out"].shape] == [2, (2, 1, 32, 32)]


@pytest.mark.long
@pytest.mark.parametrize("part", ["skip2", "level2"])
def test_it_is_copied_pickled_and_compiled(part: str) -> None:
    model, images = foreign.Padded().eval(), torch.rand(2, 3, 32, 32)
    smaller = without(model, inspect(model, images[:1]), part)
    with torch.no_grad():
        expected = smaller(images)
        file = io.BytesIO()
        torch.save(smaller, file)
        file.seek(0)
        twins = [copy.deepcopy(smaller), torch.load(file, weights_only=False), torch.compile(smaller, backend="eager")]
        program = torch.export.export(smaller, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        for twin in (*twins, program.module()):
            assert torch.equal(twin(images), expected)
    again = without(model, inspect(model, images[:1]), part)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    again.load_state_dict(smaller.state_dict())
    assert torch.equal(again(images), expected)


@pytest.mark.long
@pytest.mark.parametrize("part", ["skip1", "skip2", "level1", "level2", "level3"])
def test_it_is_trained_by_several_processes(part: str, tmp_path: Path) -> None:
    """As one of one: a weight that no output needs would stop the second step."""
    model, images = foreign.Padded(), torch.rand(2, 3, 32, 32)
    smaller = without(model, inspect(model, images[:1]), part).eval()
    alone = copy.deepcopy(smaller)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        networks = [nn.parallel.DistributedDataParallel(smaller), alone]
        for network in networks:
            for _ in range(2):
                network(images).square().mean().backward()
    finally:
        torch.distributed.destroy_process_group()
    for name, weight in smaller.named_parameters():
        assert weight.grad is not None, name
        assert torch.allclose(weight.grad, alone.get_parameter(name).grad)


def test_parts_that_do_not_exist_are_refused() -> None:
    model = foreign.Padded()
    structure = inspect(model, random_image(3, 32, 32))
    with pytest.raises(NetworkError, match="Padded has no 'level7': there are level1, level2, level3"):
        without(model, structure, "level7")
    with pytest.raises(InvalidArgument, match="no part to leave out is named"):
        without(model, structure)
    with pytest.raises(NetworkError, match=r"nothing is left at cat \(:cat#3\)|nothing is left"):
        without(model, structure, "level1", "skip1")


def test_it_is_built_again_from_code_and_weights(tmp_path: Any) -> None:
    normed = functools.partial(TwoLevels, lambda net, up, skip: net.norm(plain(net, up, skip)))
    torch.manual_seed(0)
    model = normed({"norm": nn.GroupNorm(2, 8)})
    smaller = assert_exact(model).eval()
    save_parts(smaller, tmp_path)
    images = torch.rand(2, 3, 16, 16)
    again = load_parts(tmp_path, lambda: normed({"norm": nn.GroupNorm(2, 8)}))
    assert torch.equal(again(images), smaller(images))
    assert smaller.constants == {"read": "channel"}
    with pytest.raises(NetworkError, match=r"network.json does not name the code of the network: give build="):
        load_parts(tmp_path)
    with pytest.raises(NetworkError, match=r"does not fit the network that is built: .*norm"):
        load_parts(tmp_path, lambda: normed({"norm": nn.Sequential(nn.GroupNorm(2, 8))}))
    (tmp_path / "network.json").write_text("{}")
    with pytest.raises(NetworkError, match=r"network.json is of another format: expected 'unetscope parts 2'"):
        load_parts(tmp_path)


class Scaled(TwoLevels):
    """A network with a further argument that may be anything."""

    def forward(self, x: Tensor, further: Any = None) -> Tensor:  # type: ignore[override]
        scale = further["scale"] if isinstance(further, dict) else further[0] if isinstance(further, list) else further
        return super().forward(x) * (1.0 if scale is None else scale)


@pytest.mark.parametrize(
    ("recorded", "given"), [(2.0, 3.0), (2, 2.0), (None, 2.0), ({"scale": 2}, {"scale": 3}), ([2], [3])]
)
def test_an_argument_that_the_program_holds_cannot_be_another(recorded: Any, given: Any) -> None:
    model, image = Scaled(plain).eval(), random_image(3, 16, 16)
    smaller = without(model, inspect(model, (image, recorded)), "skip1").eval()
    smaller(image, recorded)
    with pytest.raises(
        NetworkError, match=r"argument 1 of the network is .*, and it was recorded with .*: inspect the"
    ):
        smaller(image, given)


def test_an_argument_of_several_tensors_is_refused() -> None:
    model, image = Scaled(plain), random_image(3, 16, 16)
    with pytest.raises(
        NetworkError, match="argument 1 of the network is a list of tensors, which is not recorded: wrap"
    ):
        without(model, inspect(model, (image, [torch.ones(1)])), "skip1")


class Normalising(nn.Conv2d):
    """Keeps the norm of its weights at one while it trains, as EDM2 does."""

    how = "copy"

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                if self.how == "copy":
                    self.weight.copy_(functional.normalize(self.weight, dim=0))
                elif self.how == "data":
                    self.weight.data.clamp_(-0.01, 0.01)
                else:
                    self.weight.clamp_(-0.01, 0.01)
        return super().forward(x)


@pytest.mark.parametrize("how", ["copy", "data", "clamp"])
def test_weights_that_a_network_changes_while_it_trains_are_as_before(how: str) -> None:
    model = TwoLevels(lambda net, up, skip: net.own(torch.cat([skip, up], 1)), {"own": Normalising(8, 8, 1)})
    model.own.how = how
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with contextlib.suppress(NetworkError):
        without(model, inspect(model, random_image(3, 16, 16)), "skip1")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def squared(_net: nn.Module, up: Tensor, skip: Tensor) -> Tensor:
    return torch.cat([skip, (up**2 + 2**up - 1 / (up**2 + 1) - up // 2 + up % 3).clamp(-9, 9)], 1)


def raised_in_place(_net: nn.Module, up: Tensor, skip: Tensor) -> Tensor:
    up = up + 0
    up **= 2
    return torch.cat([skip, up], 1)


@pytest.mark.parametrize("join", [squared, raised_in_place])
def test_operators_are_calls_of_tensors(join: Join) -> None:
    assert_exact(TwoLevels(join))


@pytest.mark.parametrize("pattern", ["b c h w -> b (h w) c", "b (g c) h w -> b g (h w) c"])
def test_sizes_that_einops_keeps_are_those_of_the_tensor(pattern: str) -> None:
    einops = pytest.importorskip("einops")
    before, after = pattern.split(" -> ")

    def arranged(x: Tensor) -> Tensor:
        groups = {"g": 2} if "g" in pattern else {}
        sizes = {"h": x.shape[2], "w": x.shape[3], **groups}
        return einops.rearrange(einops.rearrange(x, pattern, **groups), f"{after} -> {before}", **sizes)

    model = TwoLevels(lambda _net, up, skip: torch.cat([arranged(skip), arranged(arranged(up))], 1)).eval()
    smaller = without(model, inspect(model, random_image(3, 16, 16)), "skip1").eval()
    for batch in (1, 3):
        assert smaller(torch.rand(batch, 3, 16, 16)).shape == (batch, 1, 16, 16)


@pytest.mark.parametrize(
    "counted",
    [
        lambda x: x.new_full((len(x), 4, *x.shape[2:]), 0.5),
        lambda x: torch.full((int(x.shape[0]), 4, *x.shape[2:]), 0.5),
        lambda x: torch.stack([torch.full((4, *x.shape[2:]), 0.5) for _ in x]),
        lambda x: torch.cat([torch.full((1, 4, *x.shape[2:]), 0.5) for _ in range(len(x))]),
        lambda x: torch.ones(len(list(x)), 4, *x.shape[2:]),
    ],
)
def test_images_counted_outside_of_torch_are_refused(counted: Callable[[Tensor], Tensor]) -> None:
    model = TwoLevels(lambda _net, up, skip: torch.cat([up + counted(up), skip], 1)).eval()
    with pytest.raises(
        NetworkError, match=r"would run on batches of 2 images alone .* write x.shape\[0\], or ablate it"
    ):
        without(model, inspect(model, random_image(3, 16, 16)), "skip1")


class Kind(Tensor):
    """A tensor of a kind of its own, as those of fastai and MONAI."""


def turned(tensor: Tensor) -> Tensor:
    """The tensor as one of `Kind`, by a call that no function mode sees."""
    with torch._C.DisableTorchFunctionSubclass(), torch._C.DisableTorchFunction():
        return tensor.as_subclass(Kind)


TURNED: dict[str, Callable[[Tensor], nn.Module]] = {
    "image": lambda turn: Turning(image=turn),
    "skip": lambda turn: Turning(skip=turn),
    "upsampled stream": lambda turn: Turning(up=turn),
    "joined": lambda turn: Turning(joined=turn),
    "output": lambda turn: Turning(output=turn),
}


class Turning(nn.Module):
    """Turns a tensor into one of another kind at one place."""

    def __init__(self, **turns: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.turns = turns
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.up, self.head = nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv2d(8, 1, 1)

    def at(self, place: str, tensor: Tensor) -> Tensor:
        """The tensor as it is, or turned."""
        return self.turns.get(place, lambda each: each)(tensor)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, h, w] to logits."""
        a = torch.relu(self.a(self.at("image", x)))
        up = self.at("up", self.up(torch.relu(self.b(a))))
        joined = self.at("joined", torch.cat([self.at("skip", a), up], 1))
        return self.at("output", self.head(joined))


@pytest.mark.parametrize("place", TURNED)
@pytest.mark.parametrize("part", ["skip1", "level1"])
def test_a_tensor_that_is_turned_into_another_kind_is_still_the_same(place: str, part: str) -> None:
    torch.manual_seed(0)
    model = TURNED[place](turned).eval()
    structure = inspect(model, torch.rand(1, 1, 16, 16))
    smaller = without(model, structure, part)
    image = torch.rand(2, 1, 16, 16)
    stream = structure.merge_of("skip1").skips["skip1"] if part == "skip1" else structure.merge_of("skip1").upsampled
    with replace_streams(model, {part: stream}, lambda _, values: torch.zeros_like(values), gradients=False):
        expected = model(image)
    torch.testing.assert_close(Tensor(smaller(image)), Tensor(expected))
