"""Idioms of public networks that once gave another network than the one with zeros, or merges that the source has not."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from foreign import random_image
from test_surgery import TwoLevels, assert_exact, plain, silent_outputs
from unetscope.base.errors import NetworkError
from unetscope.networks.equality import differ, tensors_of
from unetscope.networks.inspection import inspect
from unetscope.networks.structure import GapKind, Structure
from unetscope.networks.surgery import without
from unetscope.networks.thinning import thinned

torch.set_num_threads(1)


# Sizes that Python computes with, so that no recording sees how.


class Rounded(TwoLevels):
    """Pads images to sides that eight divides, and crops what it makes of them. missing: of a side, what it lacks."""

    def __init__(self, missing: Callable[[int], int]) -> None:
        super().__init__(plain)
        self.missing = missing

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        padded = functional.pad(x, (0, self.missing(width), 0, self.missing(height)))
        return super().forward(padded)[..., :height, :width]


FOLLOWED = {
    "bits": lambda side: -side & 7,
    "shifts": lambda side: ((side + 7 >> 3) << 3) - side,
    "or": lambda side: (side - 1 | 7) + 1 - side,
    "xor": lambda side: ((side & 7 ^ 7) + 1) & 7,
    "divmod": lambda side: -divmod(side, -8)[1],
}
NOT_FOLLOWED = {
    "greatest common divisor": lambda side: 0 if math.gcd(side, 8) == 8 else 8 - side % 8,
    "table": lambda side: [0, 7, 6, 5, 4, 3, 2, 1][side % 8],
    "list": lambda side: -len([0] * side) % 8,
    "text": lambda side: -int(f"{side}") % 8,
    "numpy": lambda side: int(-np.array([side])[0] % 8),
    "square root": lambda side: -math.isqrt(side * side) % 8,
}


@pytest.mark.parametrize("how", [*FOLLOWED, *NOT_FOLLOWED])
def test_how_much_is_padded_is_followed_or_the_sides_are_held(how: str) -> None:
    model = Rounded({**FOLLOWED, **NOT_FOLLOWED}[how])
    structure = inspect(model, random_image(3, 16, 16))
    smaller = without(model, structure, "skip1")
    assert [note for note in smaller.notes if "it takes images of 16×16 alone" in note] or how in FOLLOWED
    for sides in ((16, 16), (8, 8), (9, 11), (13, 24)):
        images = torch.rand(3, 3, *sides)
        if how in NOT_FOLLOWED and sides != (16, 16):
            with pytest.raises(NetworkError, match="was recorded for images on which the size along axis"):
                smaller(images)
        else:
            assert differ(tensors_of(smaller(images)), silent_outputs(model, structure, "skip1", images), 2e-6) == ""


# Random numbers that are not torch's.


class Drawing(TwoLevels):
    """Leaves the skip as it is, or doubles it, while it trains. draw: a number from 0 to 1."""

    def __init__(self, draw: Callable[[], float], generator: Any = None) -> None:
        super().__init__(lambda net, up, skip: torch.cat([skip * (1 + (net.training and draw() < 0.5)), up], 1))
        self.generator = generator


def kept_by_the_network(generator: Any) -> Drawing:
    return Drawing(generator.random, generator)


DRAWS = {
    "random": (lambda: Drawing(lambda: random.uniform(0, 1)), "random"),
    "random.choice": (lambda: Drawing(lambda: random.choice([0, 1])), "random"),
    "numpy.random": (lambda: Drawing(np.random.rand), "numpy.random"),
    "Random": (lambda: kept_by_the_network(random.Random(0)), "Drawing.generator"),
    "Generator": (lambda: kept_by_the_network(np.random.default_rng(0)), "Drawing.generator"),
    "RandomState": (lambda: kept_by_the_network(np.random.RandomState(0)), "Drawing.generator"),
}


@pytest.mark.parametrize("how", DRAWS)
def test_what_draws_outside_of_torch_is_refused(how: str) -> None:
    build, generator = DRAWS[how]
    model = build()
    structure = inspect(model, random_image(3, 16, 16))
    refused = pytest.raises(NetworkError, match=rf"draws random numbers from {generator}, which a recording")
    with refused:
        without(model, structure, "skip1")
    with pytest.raises(NetworkError, match="draw them with torch"):
        thinned(model, structure, {"skip1": 2}, torch.rand(2, 3, 16, 16))


BY_NAME: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "convolution": lambda net, x: functional.conv2d(input=x, weight=net.w[:, :, None, None]),
    "transposed": lambda net, x: functional.conv_transpose2d(weight=net.w[:, :, None, None], input=x),
    "linear": lambda net, x: functional.linear(input=x.movedim(1, -1), weight=net.w).movedim(-1, 1),
    "module": lambda net, x: net.a(input=functional.max_pool2d(input=x, kernel_size=1)),
    "pad": lambda net, x: net.a(functional.pad(input=x, pad=(1, 1, 0, 0), mode="constant")),
}


@pytest.mark.long
@pytest.mark.parametrize("part", ["skip1", "level1"])
@pytest.mark.parametrize("how", BY_NAME)
def test_what_a_call_reads_may_be_given_by_name(how: str, part: str) -> None:
    model: Any = TwoLevels(lambda net, up, skip: BY_NAME[how](net, plain(net, up, skip)), {"a": nn.Conv2d(8, 8, 1)})
    model.w = nn.Parameter(torch.randn(8, 8))
    assert not assert_exact(model, part).notes


# Modules that are called more than once, and hooks on gradients.


SHARED = {
    "convolution": (nn.Conv2d(8, 8, 1), lambda net, x: net.shared(net.shared(x))),
    "normalisation": (nn.BatchNorm2d(8), lambda net, x: net.shared(net.other(net.shared(x)))),
    "groups": (nn.GroupNorm(2, 8), lambda net, x: net.shared(net.other(net.shared(x)))),
    "linear": (nn.Linear(8, 8), lambda net, x: net.shared(net.shared(x.movedim(1, -1))).movedim(-1, 1)),
    "two views": (nn.Conv2d(8, 8, 3, padding=1), lambda net, x: net.shared(x) + net.shared(x.flip(-1)).flip(-1)),
    "weighted activation": (nn.PReLU(8), lambda net, x: net.shared(net.other(net.shared(x)))),
    "by a function too": (nn.Conv2d(8, 8, 1), lambda net, x: functional.conv2d(net.shared(x), net.shared.weight)),
    "scale of a normalisation": (nn.BatchNorm2d(8), lambda net, x: net.shared(x) * net.shared.weight[:, None, None]),
}


@pytest.mark.long
@pytest.mark.parametrize("part", ["skip1", "level1"])
@pytest.mark.parametrize("how", SHARED)
def test_a_module_that_is_called_more_than_once_gets_zeros(how: str, part: str) -> None:
    module, call = SHARED[how]
    parts = {"shared": copy.deepcopy(module), "other": nn.Conv2d(8, 8, 1)}
    smaller = assert_exact(TwoLevels(lambda net, up, skip: call(net, plain(net, up, skip)), parts), part)
    text = "is called more than once, or its weights are used elsewhere too: it gets zeros in the place"
    assert any(text in note for note in smaller.notes)


def tied(kind: type[nn.Module], **sizes: int) -> TwoLevels:
    """What reads the join, `a`, has the weight of `b`."""
    parts = {"a": kind(8, 8, **sizes), "b": kind(8, 8, **sizes)}
    parts["b"].weight = parts["a"].weight
    if kind is nn.Linear:
        return TwoLevels(lambda net, up, skip: net.b(net.a(plain(net, up, skip).movedim(1, -1))).movedim(-1, 1), parts)
    return TwoLevels(lambda net, up, skip: net.b(net.a(plain(net, up, skip))), parts)


@pytest.mark.parametrize("part", ["skip1", "level1"])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d, nn.Linear])
def test_tied_weights_stay_tied_and_whole(kind: type[nn.Module], part: str) -> None:
    smaller: Any = assert_exact(tied(kind, **({} if kind is nn.Linear else {"kernel_size": 1})), part)
    assert smaller.a.weight is smaller.b.weight
    assert smaller.a.weight.shape[:2] == (8, 8)


def test_one_number_for_all_channels_may_be_shared() -> None:
    model = TwoLevels(lambda net, up, skip: net.shared(net.shared(plain(net, up, skip))), {"shared": nn.PReLU()})
    smaller = assert_exact(model, "skip1")
    assert not smaller.notes
    assert smaller.get_submodule("read").in_channels == 4


@pytest.mark.parametrize("part", ["skip1", "level1"])
@pytest.mark.parametrize("weights", [(), (1,), (8,)])
def test_activations_by_a_function_take_weights_of_any_shape(weights: tuple[int, ...], part: str) -> None:
    def join(net: Any, up: Tensor, skip: Tensor) -> Tensor:
        return functional.prelu(functional.prelu(plain(net, up, skip), net.slopes), weight=net.slopes)

    model: Any = TwoLevels(join)
    model.slopes = nn.Parameter(torch.rand(weights))
    assert_exact(model, part)


def hook(how: str, model: nn.Module) -> None:
    read: Any = model.read
    if how == "module":
        read.register_full_backward_hook(lambda *_: None)
    elif how == "before the module":
        read.register_full_backward_pre_hook(lambda *_: None)
    elif how == "network":
        model.register_full_backward_hook(lambda *_: None)
    elif how == "parameter":
        read.weight.register_hook(lambda gradient: 0 * gradient)
    else:
        read.weight.register_post_accumulate_grad_hook(lambda _: None)


@pytest.mark.parametrize("how", ["module", "before the module", "network", "parameter", "accumulated"])
def test_hooks_on_gradients_are_said_to_be_lost(how: str) -> None:
    model = TwoLevels(plain)
    hook(how, model)
    smaller = assert_exact(model)
    place = {"network": "TwoLevels", "module": "read", "before the module": "read"}.get(how, "read.weight")
    assert smaller.notes == (f"hooks on the gradients of {place} are not kept: register them again",)
    assert sum(map(torch.numel, smaller.parameters())) < sum(map(torch.numel, model.parameters()))


# Merges, against the count of the source.


def conv(before: int, after: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, stride, kernel // 2)


class Staged(nn.Module):
    """Three levels of 4 channels. beside: of the network and a decoded level, what joins the next merge too, of 2 channels.

    block: what each level computes with. joined: of the network, the upsampled stream and the skip, to `reads` channels.
    """

    def __init__(self, block: Callable[[], nn.Module] = lambda: conv(4, 4), **parts: Any) -> None:
        super().__init__()
        self.beside = parts.pop("beside", None)
        self.enter, self.leave = conv(3, 4), conv(4, 1)
        self.blocks = nn.ModuleList(block() for _ in range(5))
        self.joins = nn.ModuleList(conv(10 if self.beside else 8, 4) for _ in range(2))
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        first = self.blocks[0](self.enter(x)).relu()
        second = self.blocks[1](functional.max_pool2d(first, 2)).relu()
        up = self.blocks[2](functional.max_pool2d(second, 2)).relu()
        for join, block, skip in zip(self.joins, self.blocks[3:], (second, first), strict=True):
            further = [self.beside(self, up)] if self.beside else []
            up = torch.relu(block(join(torch.cat([skip, functional.interpolate(up, scale_factor=2.0), *further], 1))))
        return self.leave(up)


def counts(structure: Structure) -> tuple[int, list[str]]:
    return len(structure.merges), [skip.name for skip in structure.skips]


def twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0)


PREDICTED = {
    "flow": lambda net, up: net.raise_flow(net.predict(up)),
    "disparity": lambda net, up: twice(torch.sigmoid(net.predict(up))),
    "planes": lambda net, up: net.predict(up).repeat_interleave(2, 2).repeat_interleave(2, 3),
    "before the prediction": lambda net, up: net.predict(twice(up)),
    "sub-pixels": lambda net, up: functional.pixel_shuffle(net.widen(up), 2),
}


@pytest.mark.parametrize("how", PREDICTED)
def test_what_is_predicted_on_the_way_up_is_no_skip(how: str) -> None:
    parts = {"predict": conv(4, 2), "raise_flow": nn.ConvTranspose2d(2, 2, 4, 2, 1), "widen": conv(4, 8)}
    structure = inspect(Staged(beside=PREDICTED[how], **parts), random_image(3, 32, 32))
    assert counts(structure) == (2, ["skip1", "skip2"])
    assert [structure.graph[merge.upsampled.tensor].shape[1] for merge in structure.merges] == [4, 4]


class Pyramid(nn.Module):
    """A block that joins what it gets with what that was pooled to and enlarged again."""

    def __init__(self, first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pools, self.read = (first, second), conv(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        around = [functional.interpolate(pool(x), x.shape[2:], mode="bilinear") for pool in self.pools]
        return self.read(torch.cat([x, *around], 1))


SUMMARIES = {
    "means": (nn.AvgPool2d(2), nn.AvgPool2d(4)),
    "mean and maximum": (nn.AvgPool2d(2), nn.MaxPool2d(2)),
    "pooled twice": (nn.AvgPool2d(2), nn.Sequential(nn.AvgPool2d(2), nn.ReLU(), nn.MaxPool2d(2))),
    "every second place": (lambda x: x[..., ::2, ::2], lambda x: x[..., 1::2, 1::2]),
    "resized": (nn.Upsample(scale_factor=0.5), nn.Upsample(scale_factor=0.25, mode="bilinear")),
    "the whole image": tuple(
        lambda x, pool=pool: pool(x, x.shape[2:]) for pool in (functional.avg_pool2d, functional.max_pool2d)
    ),
}


@pytest.mark.parametrize("how", SUMMARIES)
def test_a_block_that_pools_and_enlarges_what_it_gets_has_no_skip(how: str) -> None:
    structure = inspect(Staged(lambda: Pyramid(*SUMMARIES[how])), random_image(3, 32, 32))
    assert counts(structure) == (2, ["skip1", "skip2"])


class Residual(nn.Module):
    """A residual block of its own first convolution. inner: what it computes."""

    def __init__(self, inner: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.first, self.second, self.third = inner, conv(4, 4, 1), conv(4, 4), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + self.inner(self, x)


INNER = {
    "recurrent": lambda net, x: net.second(x + net.second(x)),
    "residual": lambda net, x: (y := x + net.second(x).relu()) + net.third(y).relu(),
    "two branches": lambda net, x: net.second(x) + net.third(x),
    "doubled": lambda net, x: net.third(net.second(x) + net.second(x.flip(-1))),
    "scaled": lambda net, x: 0.1 * (net.second(x) + net.third(net.second(x))),
}


@pytest.mark.parametrize("how", INNER)
def test_a_block_of_residual_blocks_is_no_skip_around_the_bottom(how: str) -> None:
    structure = inspect(Staged(lambda: Residual(INNER[how])), random_image(3, 32, 32))
    assert counts(structure) == (2, ["skip1", "skip2"])


class Voting(nn.Module):
    """The mean of what two networks give, or one does for two views. vote: of both answers."""

    def __init__(self, vote: Callable[[Tensor, Tensor], Tensor], views: int) -> None:
        super().__init__()
        self.networks, self.vote, self.views = nn.ModuleList(Staged() for _ in range(3 - views)), vote, views

    def forward(self, x: Tensor) -> Tensor:
        if self.views == 1:
            return self.vote(self.networks[0](x), self.networks[1](x))
        return self.vote(self.networks[0](x), self.networks[0](x.flip(-1)).flip(-1))


VOTES = {
    "sum": lambda a, b: (a + b) / 2,
    "mean": lambda a, b: torch.stack([a, b]).mean(0),
    "maximum": torch.maximum,
    "product": lambda a, b: a.exp() * b,
    "side by side": lambda a, b: torch.cat([a, b], 1).mean(1, keepdim=True),
}


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("vote", VOTES)
def test_answers_that_vote_are_no_skips(vote: str, views: int) -> None:
    structure = inspect(Voting(VOTES[vote], views), random_image(3, 32, 32))
    assert counts(structure) == (4, ["skip1", "skip2", "skip3", "skip4"])


# Streams that are no images.


class Elsewhere(nn.Module):
    """A skip that joins as an image, and below it one that joins in another layout, turned by `there`. On grids of 16 and 8."""

    def __init__(self, there: Callable[[Tensor], Tensor], axis: int | None) -> None:
        super().__init__()
        self.there, self.axis = there, axis
        self.enter, self.down, self.read = conv(3, 4), conv(4, 4, 4, 2), conv(8, 4)
        self.inner, self.wide, self.leave = nn.Linear(4, 4), conv(4, 4, 2, 2), conv(4, 1)
        self.raised, self.back = nn.ConvTranspose2d(4, 4, 2, 2), nn.Linear(8 if axis else 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        first = self.enter(x).relu()
        kept = functional.interpolate(self.down(first), size=(8, 8)).relu()
        kept = self.inner(kept.flatten(2).mT)  # tokens
        deep = self.raised(self.wide(kept.mT.unflatten(2, (8, 8)))[..., :4, :4]).flatten(2).mT.relu()
        kept, deep = self.there(kept), self.there(self.inner(deep))
        joined = deep + kept if self.axis is None else torch.cat([kept, deep], self.axis)
        joined = joined.reshape(len(x), 64, -1) if joined.ndim > 3 else joined
        low = self.back(joined).mT.unflatten(2, (8, 8))
        up = functional.interpolate(low, size=first.shape[2:])
        return self.leave(self.read(torch.cat([first, up], 1)))


ELSEWHERE = {
    "tokens": (lambda x: x, 2),
    "sum of tokens": (lambda x: x, None),
    "channels last": (lambda x: x.unflatten(1, (8, 8)), 3),
    "sum, channels last": (lambda x: x.unflatten(1, (8, 8)), None),
    "pairs": (lambda x: x.unflatten(1, (8, 8))[..., None, :], 4),
}


@pytest.mark.parametrize("how", ELSEWHERE)
def test_skips_that_join_as_tokens_or_with_channels_last_are_said(how: str) -> None:
    structure = inspect(Elsewhere(*ELSEWHERE[how]), random_image(3, 16, 16))
    assert counts(structure) == (1, ["skip1"])
    (gap,) = [gap for gap in structure.gaps if gap.kind is GapKind.OTHER_LAYOUT]
    assert gap.may_hide_skips
    assert "skips join as tokens, with channels last or along other axes" in str(gap)
    assert f"at :{'add' if ELSEWHERE[how][1] is None else 'cat'}: they are not among the merges" in str(gap)
