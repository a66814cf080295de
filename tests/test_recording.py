"""What runs between an upsampled stream and its merge, and how the two are joined: all of it is followed, or said not to be."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from json import loads
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unetscope as us
from foreign import TwoLevels, random_image
from unetscope.activations.capture import with_shapes
from unetscope.cli.verbs_check import print_structure
from unetscope.networks.inspection import inspect
from unetscope.networks.structure import GapKind

IMAGE = random_image(3, 32, 32)
STREAMS = [("skip1", "e1"), ("skip2", "e2")]

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit

    @torch.jit.script
    def swish(t: Tensor) -> Tensor:
        return t * torch.sigmoid(t)

    @torch.jit.script
    def scripted_cat(up: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([skip, up], 1)


class Doubled(torch.autograd.Function):
    """A function with a gradient of its own, in another library."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return torch.from_numpy(values.numpy() * 2)


class Same(torch.autograd.Function):
    """Gives back what it gets, as a gradient reversal does."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values


class Away(nn.Module):
    """Leaves torch, in a module of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy() * 2)


def written_by_slice(up: Tensor) -> Tensor:
    buffer = torch.zeros_like(up)
    buffer[:, :, : up.shape[2]] = up
    return buffer


def copied_into_view(up: Tensor) -> Tensor:
    buffer = up.new_empty(up.shape)
    buffer[:, :].view(up.shape).copy_(up)
    return buffer


def changed_in_views(up: Tensor) -> Tensor:
    up[:, :2].add_(1.0)
    up[:, 2:].masked_fill_(up[:, 2:] > 1, 0.0)
    return up


def put_by_index(up: Tensor) -> Tensor:
    buffer = torch.zeros(up.shape)
    buffer.index_put_((torch.arange(len(up)),), up)
    return buffer


def scattered(up: Tensor) -> Tensor:
    order = torch.arange(up.shape[3]).expand(up.shape)
    return torch.zeros_like(up).scatter_(3, order, up)


def out_of(up: Tensor) -> Tensor:
    buffer = torch.empty_like(up)
    torch.mul(up, 2, out=buffer)
    return buffer


def given_data(up: Tensor) -> Tensor:
    buffer = torch.zeros_like(up)
    buffer.data = up.data
    return buffer


def partly_changed(up: Tensor) -> Tensor:
    up[:, :4] += up[:, 4:8]
    return up


def low_frequencies(up: Tensor) -> Tensor:
    """What Fourier layers do: weights for the lowest frequencies, written into zeros, beside the stream itself."""
    spectrum = torch.fft.rfft2(up)
    kept = torch.zeros_like(spectrum)
    kept[:, :, :2, :2] = torch.einsum(
        "bihw,iohw->bohw", spectrum[:, :, :2, :2], torch.ones(up.shape[1], up.shape[1], 2, 2) + 0j
    )
    return torch.fft.irfft2(kept, s=up.shape[2:]) + up


def spectral_convolution(spectrum: Tensor) -> Tensor:
    """A convolution of both parts of a spectrum."""
    parts = torch.cat([spectrum.real, spectrum.imag], 1)
    mixed = parts * 0.5 + parts.mean((2, 3), keepdim=True)
    return torch.complex(*mixed.chunk(2, 1))


BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "scripted": swish,
    "slice": written_by_slice,
    "copied into a view": copied_into_view,
    "changed in views": changed_in_views,
    "index_put": put_by_index,
    "scattered": scattered,
    "given data": given_data,
    "partly changed": partly_changed,
    "out": out_of,
    "fft": lambda up: torch.fft.irfft2(torch.fft.rfft2(up)),
    "complex": lambda up: torch.complex(up, up).abs(),
    "complex view": lambda up: torch.view_as_complex(torch.stack((up, torch.zeros_like(up)), -1)).abs(),
    "complex view, doubled": lambda up: (torch.view_as_complex(torch.stack((up, up), -1)) * 2.0).real,
    "complex view, transformed": lambda up: torch.fft.ifft2(torch.view_as_complex(torch.stack((up, up), -1))).real,
    "real view": lambda up: torch.view_as_real(torch.complex(up, up))[..., 0] + up,
    "complex view, written": lambda up: torch.view_as_complex(torch.stack((up, up), -1)).mul_(2.0).imag,
    "integers": lambda up: up.mul(255).round().to(torch.uint8).float(),
    "boolean": lambda up: (up > 0).to(up.dtype),
    "half": lambda up: up.to(torch.bfloat16).float(),
    "one-hot": lambda up: functional.one_hot(up.argmax(1), up.shape[1]).movedim(-1, 1).float(),
    "quantised": lambda up: torch.quantize_per_tensor(up, 0.1, 0, torch.qint8).dequantize(),
    "low frequencies": low_frequencies,
    "convolved spectrum": lambda up: torch.fft.irfft2(spectral_convolution(torch.fft.rfft2(up)), s=up.shape[2:]) + up,
    "linear, channels last": lambda up: up + (up.movedim(1, -1) @ torch.eye(up.shape[1])).movedim(-1, 1),
    "sorted": lambda up: up.sort(dim=1).values,
    "function of its own": lambda up: Doubled.apply(up.clone()),
    "function that gives back": lambda up: Same.apply(up.clone()),
    "module in another library": Away(),
    "ATen": lambda up: torch.ops.aten.relu.default(torch.ops.aten.neg(up)),
    "split and stacked": lambda up: torch.stack(up.unbind(1), 1),
}


@pytest.mark.filterwarnings("ignore:.*quantized")
@pytest.mark.parametrize("between", BETWEEN)
def test_what_runs_on_the_way_up_is_followed(between: str) -> None:
    model = TwoLevels(lambda up, skip: torch.cat([skip, BETWEEN[between](up)], 1))
    model.between = BETWEEN[between]  # a module counts as one only if the network has it
    structure = inspect(model, IMAGE)
    assert [(skip.name, structure_module(structure, skip.source)) for skip in structure.skips] == STREAMS
    assert {"e1", "e2", "b", "u2", "d2", "u1", "d1", "out"} <= {layer.module for layer in structure.layers} | {
        "u1",
        "u2",
    }
    assert structure.kernels == 8
    assert not structure.gaps
    layers = with_shapes(model, structure.layers, IMAGE)
    assert [layer.shape[1:] for layer in layers] == [layer.shape[1:] for layer in structure.layers]


def structure_module(structure: Any, label: str) -> str:
    return str(next(layer.module for layer in structure.layers if layer.label == label))


def zeros_between(x: Tensor) -> Tensor:
    """Every place of x, with zeros between them."""
    buffer = x.new_zeros((*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]))
    buffer[:, :, ::2, ::2] = x
    return buffer


def doubling(n: int) -> Tensor:
    """A matrix [2n, n] that repeats every entry of a vector."""
    return torch.eye(n).repeat_interleave(2, 0)


def nearest(x: Tensor) -> Tensor:
    """For every place of twice the resolution, the place of x among all, [4hw]."""
    rows, columns = (torch.arange(2 * side) // 2 for side in x.shape[2:])
    return (rows[:, None] * x.shape[3] + columns).flatten()


def doubled(places: Tensor, x: Tensor) -> Tensor:
    """The places of twice the resolution, [b, c, 4hw] or in axes of their own, as an image."""
    return places.reshape(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])


def strided(x: Tensor) -> Tensor:
    (b, c, h, w), (of_image, of_channel, of_row, _) = x.shape, x.contiguous().stride()
    steps = (of_image, of_channel, of_row, 0, 1, 0)
    return doubled(torch.as_strided(x.contiguous(), (b, c, h, 2, w, 2), steps), x)


def by_channels(x: Tensor) -> Tensor:
    return doubled(x.repeat_interleave(4, 1).view(1, -1, 2, 2, *x.shape[2:]).permute(0, 1, 4, 2, 5, 3), x)


def by_four_writes(x: Tensor) -> Tensor:
    larger = x.new_empty(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        larger[:, :, row::2, column::2] = x
    return larger


def spectral(x: Tensor) -> Tensor:
    height, width = (side // 2 for side in x.shape[2:])
    spectrum = functional.pad(torch.fft.fftshift(torch.fft.fft2(x)), (width, width, height, height))
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum)).real


def expanded_patches(x: Tensor) -> Tensor:
    """As in transformers for segmentation: channels stand last and become places, with a norm on the way."""
    b, c, h, w = x.shape
    values = functional.linear(x.permute(0, 2, 3, 1), torch.eye(c).repeat(2, 1)).view(b, h, w, 2, 2, c // 2)
    larger = functional.layer_norm(values.permute(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, c // 2), [c // 2])
    return larger.permute(0, 3, 1, 2).repeat(1, 2, 1, 1)


UPSAMPLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "strides": strided,
    "patches": expanded_patches,
    "matrices": lambda x: doubling(x.shape[2]) @ x @ doubling(x.shape[3]).T,
    "einsum": lambda x: torch.einsum("ih,bchw,jw->bcij", doubling(x.shape[2]), x, doubling(x.shape[3])),
    "linear": lambda x: functional.linear(functional.linear(x, doubling(x.shape[3])).mT, doubling(x.shape[2])).mT,
    "one matrix": lambda x: doubled(x.flatten(2) @ torch.kron(doubling(x.shape[2]), doubling(x.shape[3])).T, x),
    "tiled": lambda x: doubled(x[:, :, :, None, :, None].tile(1, 1, 1, 2, 1, 2), x),
    "repeat": lambda x: doubled(x[:, :, :, None, :, None].repeat(1, 1, 1, 2, 1, 2), x),
    "whole repeats": lambda x: x.repeat(1, 1, 2, 2),
    "gather": lambda x: doubled(x.flatten(2).gather(2, nearest(x).expand(*x.shape[:2], -1)), x),
    "take": lambda x: doubled(x[0].take(nearest(x) + x[0, 0].numel() * torch.arange(x.shape[1])[:, None]), x),
    "index_select, flat": lambda x: x.flatten(2).index_select(2, nearest(x)).unflatten(2, [2 * s for s in x.shape[2:]]),
    "indices, flat": lambda x: x.flatten(2)[..., nearest(x).view(2 * x.shape[2], -1)],
    "embedding": lambda x: doubled(functional.embedding(nearest(x), x[0].flatten(1).T).T, x),
    "cat": lambda x: doubled(torch.cat([torch.cat([x[..., None]] * 2, 4).flatten(3)[..., None, :]] * 2, 3), x),
    "padded": lambda x: doubled(functional.pad(x[:, :, :, None, :, None], (0, 1, 0, 0, 0, 1)), x),
    "ones": lambda x: doubled(x[:, :, :, None, :, None] * torch.ones(2, 1, 2), x),
    "fold": lambda x: functional.fold(
        x.flatten(2).unsqueeze(2).expand(-1, -1, 4, -1).flatten(1, 2), [2 * s for s in x.shape[2:]], 2, stride=2
    ),
    "fold of channels": lambda x: functional.fold(
        x.repeat_interleave(4, 1).flatten(2), [2 * s for s in x.shape[2:]], 2, stride=2
    ),
    "channels": by_channels,
    "scattered": lambda x: doubled(
        x.new_zeros(*x.shape[:2], 4 * x[0, 0].numel()).scatter(
            2, 4 * torch.arange(x[0, 0].numel()).expand_as(x.flatten(2)), x.flatten(2)
        ),
        x,
    ),
    "four writes": by_four_writes,
    "spectrum": spectral,
    "indices": lambda x: x[:, :, torch.arange(2 * x.shape[2]) // 2][:, :, :, torch.arange(2 * x.shape[3]) // 2],
    "index_select": lambda x: x.index_select(2, torch.arange(2 * x.shape[2]) // 2).index_select(
        3, torch.arange(2 * x.shape[3]) // 2
    ),
    "expanded": lambda x: (
        x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2).reshape(1, -1, 2 * x.shape[2], 2 * x.shape[3])
    ),
    "stacked": lambda x: torch.stack([torch.stack([x, x], 4).flatten(3), torch.stack([x, x], 4).flatten(3)], 3).flatten(
        2, 3
    ),
    "repeated": lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3),
    "zeros between": zeros_between,
    "kron": lambda x: torch.kron(x, torch.ones(1, 1, 2, 2)),
    "unpooled": lambda x: functional.max_unpool2d(
        x, 2 * torch.arange(x[0, 0].numel()).view(x.shape[2:]).expand_as(x), 2
    ),
    "grid": lambda x: functional.grid_sample(
        x,
        functional.affine_grid(torch.eye(2, 3)[None], [1, 1, 2 * x.shape[2], 2 * x.shape[3]], align_corners=False),
        align_corners=False,
    ),
    "fft": lambda x: torch.fft.ifft2(torch.fft.fft2(x), s=(2 * x.shape[2], 2 * x.shape[3])).real,
}


@pytest.mark.parametrize("how", UPSAMPLINGS)
def test_upsampling_by_hand_is_a_rise(how: str) -> None:
    model = TwoLevels(up=UPSAMPLINGS[how])
    structure = inspect(model, IMAGE)
    assert [(skip.name, structure_module(structure, skip.source)) for skip in structure.skips] == STREAMS
    assert not structure.gaps
    with_shapes(model, structure.layers, IMAGE)


UNFOLLOWED: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros around": lambda x: functional.pad(x, [side // 2 for side in (*x.shape[2:], *x.shape[2:])]),
    "reflected": lambda x: functional.pad(x, [side // 2 for side in (*x.shape[2:], *x.shape[2:])], mode="reflect"),
    "circular": lambda x: functional.pad(x, [side // 2 for side in (*x.shape[2:], *x.shape[2:])], mode="circular"),
    "two halves": lambda x: torch.cat([torch.cat([x, x.flip(2)], 2), torch.cat([x, x.flip(2)], 2).flip(3)], 3),
    "halves and their negatives": lambda x: torch.cat([torch.cat([x, -x], 2), torch.cat([x, -x], 2).neg()], 3),
}


@pytest.mark.parametrize("how", UNFOLLOWED)
def test_a_resolution_that_rises_unseen_is_said(how: str) -> None:
    structure = inspect(TwoLevels(up=UNFOLLOWED[how]), IMAGE)
    assert {gap.kind for gap in structure.gaps} == {GapKind.LOST_RISE}
    assert "more than what it is made from, and what raised the resolution is not known: upsample with" in str(
        structure
    )
    assert "No skip joins" not in str(structure)


MARGINS: dict[str, Callable[[Tensor], Tensor]] = {
    **{
        mode: lambda x, mode=mode: functional.conv2d(
            functional.pad(x, (2, 2, 2, 2), mode=mode), torch.ones(x.shape[1], 1, 5, 5) / 25, groups=x.shape[1]
        )
        for mode in ("constant", "reflect", "replicate", "circular")
    },
    "wide": lambda x: functional.conv2d(
        functional.pad(x, (4, 4, 4, 4)), torch.ones(x.shape[1], 1, 5, 5), dilation=2, groups=x.shape[1]
    ),
    "pooled to more places": lambda x: (
        x + functional.interpolate(functional.adaptive_avg_pool2d(x[..., :2, :2], 6), x.shape[2:])
    ),
}


@pytest.mark.parametrize("how", MARGINS)
def test_a_margin_and_a_pool_to_more_places_are_no_lost_rises(how: str) -> None:
    """As of a network for large images that is given a small one, with few places on the lowest level."""
    model = TwoLevels(up=lambda x: functional.interpolate(MARGINS[how](x), scale_factor=2.0))
    structure = inspect(model, random_image(3, 16, 16))
    assert structure.gaps == ()
    assert len(structure.skips) == 2


def by_slices(up: Tensor, skip: Tensor) -> Tensor:
    joined = up.new_zeros((len(up), 2 * up.shape[1], *up.shape[2:]))
    joined[:, : up.shape[1]] = skip
    joined[:, up.shape[1] :] = up
    return joined


def by_copies(up: Tensor, skip: Tensor) -> Tensor:
    joined = torch.empty((len(up), 2 * up.shape[1], *up.shape[2:]))
    first, second = joined.chunk(2, 1)
    first.copy_(skip)
    second.copy_(up)
    return joined


def by_attention(up: Tensor, skip: Tensor) -> Tensor:
    query, key = up.flatten(2).mT, skip.flatten(2).mT
    return functional.scaled_dot_product_attention(query, key, key).mT.reshape(up.shape)


def by_products(up: Tensor, skip: Tensor) -> Tensor:
    query, key = up.flatten(2).mT, skip.flatten(2).mT
    return (torch.bmm((query @ key.mT).softmax(-1), key)).mT.reshape(up.shape)


def by_multihead(up: Tensor, skip: Tensor) -> Tensor:
    attention = nn.MultiheadAttention(up.shape[1], 1, batch_first=True)
    query, key = up.flatten(2).mT, skip.flatten(2).mT
    return attention(query, key, key)[0].mT.reshape(up.shape)


def masked_scatter(up: Tensor, skip: Tensor) -> Tensor:
    return up.masked_scatter(torch.rand_like(up) > 0.5, skip)


def channels_last(up: Tensor, skip: Tensor) -> Tensor:
    return torch.cat([up.permute(0, 2, 3, 1), skip.permute(0, 2, 3, 1)], -1).permute(0, 3, 1, 2)


def tokens(up: Tensor, skip: Tensor) -> Tensor:
    return (up.flatten(2).mT + skip.flatten(2).mT).mT.reshape(up.shape)


JOINED: dict[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "cat": ("cat", lambda up, skip: torch.cat([skip, up], 1)),
    "hstack": ("cat", lambda up, skip: torch.hstack([skip, up])),
    "column_stack": ("cat", lambda up, skip: torch.column_stack([skip, up])),
    "dstack": ("tile", lambda up, skip: torch.dstack([skip, up])[:, :, : up.shape[2]]),
    "stack, mean": ("mean", lambda up, skip: torch.stack([skip, up]).mean(0)),
    "stack, sum": ("add", lambda up, skip: torch.stack([skip, up], 1).sum(1)),
    "stack, maximum": ("max", lambda up, skip: torch.stack([skip, up], 2).max(2).values),
    "stack, flat": ("call", lambda up, skip: torch.stack([skip, up], 2).flatten(1, 2)),
    "einsum": ("attention", lambda up, skip: torch.einsum("bchw,bchw->bchw", up, skip)),
    "Python's sum": ("add", lambda up, skip: sum([skip, up])),
    "einsum of a stack": (
        "attention",
        lambda up, skip: torch.einsum("nbchw,n->bchw", torch.stack([skip, up]), torch.tensor([0.3, 0.7])),
    ),
    "product with a stack": (
        "attention",
        lambda up, skip: (torch.tensor([[0.3, 0.7]]) @ torch.stack([skip.flatten(1), up.flatten(1)], 1)).reshape(
            up.shape
        ),
    ),
    "lerp": ("call", lambda up, skip: torch.lerp(up, skip, 0.3)),
    "addcmul": ("call", lambda up, skip: torch.addcmul(up, skip, torch.tensor(0.5))),
    "addcdiv": ("call", lambda up, skip: up.addcdiv(skip, torch.tensor(2.0))),
    "where": ("select", lambda up, skip: torch.where(up > 0, up, skip)),
    "max": ("max", torch.max),
    "fmin": ("min", torch.fmin),
    "minimum": ("min", torch.minimum),
    "alpha": ("add", lambda up, skip: torch.add(up, skip, alpha=0.5)),
    "in place": ("add", lambda up, skip: up.add_(skip)),
    "difference": ("sub", lambda up, skip: up.__isub__(skip)),
    "quotient": ("div", lambda up, skip: up / skip),
    "square matrices": ("attention", lambda up, skip: up @ skip),
    "attention": ("attention", by_attention),
    "products": ("attention", by_products),
    "heads": ("attention", by_multihead),
    "masked_scatter": ("select", masked_scatter),
    "slices": ("write", by_slices),
    "copies": ("write", by_copies),
    "scripted": ("call", scripted_cat),
    "channels last": ("tile", channels_last),
    "tokens": ("add", tokens),
    "hypot": ("call", torch.hypot),
}
DOUBLING = {"cat", "hstack", "column_stack", "stack, flat", "slices", "copies", "scripted", "channels last"}


@pytest.mark.parametrize("how", JOINED)
def test_joins_of_every_kind_are_merges(how: str) -> None:
    kind, join = JOINED[how]
    model = TwoLevels(join, doubling=how in DOUBLING)
    structure = inspect(model, IMAGE)
    assert [(skip.name, structure_module(structure, skip.source)) for skip in structure.skips] == STREAMS
    assert [merge.kind for merge in structure.merges] == [kind, kind]
    assert structure.kernels == 8
    assert not structure.gaps
    with_shapes(model, structure.layers, IMAGE)
    numbers = {node.address: node for node in structure.graph.nodes}
    for merge in structure.merges:  # a stream is the argument that its path says
        for operand in (merge.upsampled, *merge.skips.values()):
            address, position = operand.path[0]
            assert numbers[address].arguments[position] == structure.graph[operand.tensor].shape


def left(up: Tensor) -> Tensor:
    return torch.from_numpy(up.numpy() * 2)


class Upward(nn.Module):
    """Upsamples, joins and convolves, in one script."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(32, 16, 3, padding=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """The level above x."""
        return self.convolution(torch.cat([functional.interpolate(x, scale_factor=2.0), skip], 1))


class OneScript(nn.Module):
    """A network whose decoder is a script or a module of another library."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.enter, self.down, self.leave = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 2, 2), nn.Conv2d(16, 1, 1)
        self.decoder = decoder

    def forward(self, x: Tensor) -> Tensor:
        """[b, 3, h, w] to logits."""
        x = self.enter(x)
        return self.leave(self.decoder(self.down(x), x))


class Elsewhere(nn.Module):
    """Joins in NumPy."""

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """The sum of the skip and x, repeated."""
        return torch.from_numpy(x.numpy().repeat(2, 2).repeat(2, 3) + skip.numpy())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("decoder", ["scripted", "traced", "elsewhere"])
def test_a_join_that_cannot_be_looked_into_is_said(decoder: str) -> None:
    built = {
        "scripted": lambda: torch.jit.script(Upward()),
        "traced": lambda: torch.jit.trace(Upward(), (torch.rand(1, 16, 16, 16), torch.rand(1, 16, 32, 32))),
        "elsewhere": Elsewhere,
    }[decoder]()
    structure = inspect(OneScript(built), IMAGE)
    assert [gap.kind for gap in structure.gaps] == [GapKind.HIDDEN_JOIN]
    assert "No skip joins" not in str(structure)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("part", ["e1", "b", "u2", "d1", "out"])
def test_a_scripted_part_is_one_layer(part: str) -> None:
    model = TwoLevels()
    setattr(model, part, torch.jit.script(getattr(model, part)))
    structure = inspect(model, IMAGE)
    assert (len(structure.skips), structure.kernels, structure.gaps) == (2, 8, ())
    with_shapes(model, structure.layers, IMAGE)


@pytest.mark.parametrize("order", [(0, 1, 0), (0, 0, 1), (1, 0, 0)])
def test_a_skip_that_joins_twice_has_a_name_for_each(order: tuple[int, ...]) -> None:
    def join(up: Tensor, skip: Tensor) -> Tensor:
        half = up.shape[1] // 2  # of the first and the last of three
        return torch.cat([(skip, up)[k] for k in order], 1)[:, half:-half]

    structure = inspect(TwoLevels(join), IMAGE)
    assert [skip.name for skip in structure.skips] == ["skip1a", "skip1b", "skip2a", "skip2b"]
    assert len({layer.label for layer in structure.layers}) == len(structure.layers)


LEAVING: dict[str, Callable[[Tensor], Tensor]] = {
    "from_numpy": left,
    "tensor": lambda up: torch.tensor(up.numpy() * 2),
    "as_tensor": lambda up: torch.as_tensor(up.detach().numpy().copy()),
    "list": lambda up: torch.tensor(up.tolist()),
    "array": lambda up: torch.from_numpy(up.__array__() + 1),
    "dlpack": lambda up: torch.from_dlpack(up.numpy() + 1),
}


@pytest.mark.parametrize("how", LEAVING)
def test_what_comes_from_another_library_is_said(how: str) -> None:
    structure = inspect(TwoLevels(lambda up, skip: torch.cat([skip, LEAVING[how](up)], 1)), IMAGE)
    assert [gap.kind for gap in structure.gaps] == [GapKind.UNKNOWN_ORIGIN] * 2
    assert [gap.place for gap in structure.gaps] == [":cat", ":cat#2"]
    assert "receives a tensor 1×16×16×16 that no recorded call made; it counts as made from what left torch" in str(
        structure
    )
    assert len(structure.merges) == 2


@pytest.mark.parametrize("json", [False, True])
def test_the_command_prints_what_is_not_followed(json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    print_structure(inspect(TwoLevels(lambda up, skip: torch.cat([skip, left(up)], 1)), IMAGE), None, json=json)
    printed = capsys.readouterr().out
    if json:
        assert [gap["kind"] for gap in loads(printed)["gaps"]] == ["unknown origin"] * 2
    else:
        assert printed.count("warning: the call :cat") == 2


def test_a_scope_warns_of_what_is_not_followed() -> None:
    network = TwoLevels(lambda up, skip: torch.cat([skip, left(up)], 1))
    with pytest.warns(UserWarning, match="TwoLevels: the call :cat"):
        us.Scope(network, us.synthetic_nuclei(4, image_size=32), labels=[])
