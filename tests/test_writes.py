"""Merges that are written into a tensor, part by part: a view is made of the parts that it covers, and of no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from foreign import TwoLevels, random_image
from unetscope.activations.origins import Origins
from unetscope.base.errors import NetworkError
from unetscope.networks.ablation import ablated
from unetscope.networks.inspection import inspect
from unetscope.networks.structure import GapKind
from unetscope.networks.surgery import without, without_skips

Join = Callable[[Tensor, Tensor], Tensor]


def second(up: Tensor) -> tuple[slice, slice]:
    """The index of the second half of the channels of two streams together."""
    return slice(None), slice(up.shape[1], None)


def added(joined: Tensor, up: Tensor) -> Tensor:
    """The upsampled stream added to the second half of the channels."""
    joined[second(up)] += up
    return joined


def through_view(up: Tensor, skip: Tensor) -> Tensor:
    joined = torch.cat([skip, torch.zeros_like(up)], 1)
    joined.view(up.shape[0], 2, *up.shape[1:])[:, 1] += up
    return joined


def through_chunk(up: Tensor, skip: Tensor) -> Tensor:
    joined = torch.cat([skip, torch.zeros_like(up)], 1)
    joined.chunk(2, 1)[1].add_(up)
    return joined


def filled(up: Tensor, skip: Tensor) -> Tensor:
    joined = up.new_zeros(up.shape[0], 2 * up.shape[1], *up.shape[2:])
    joined[:, : up.shape[1]] = skip
    return added(joined, up)


def in_turns(up: Tensor, skip: Tensor) -> Tensor:
    joined = up.new_zeros(up.shape[0], 2 * up.shape[1], *up.shape[2:])
    joined[:, ::2] = skip
    joined[:, 1::2] += up
    return joined


def channels_last(up: Tensor, skip: Tensor) -> Tensor:
    joined = torch.cat([skip, torch.zeros_like(up)], 1).permute(0, 2, 3, 1).contiguous()
    joined[..., up.shape[1] :] += up.permute(0, 2, 3, 1)
    return joined.permute(0, 3, 1, 2)


def taken_apart(up: Tensor, skip: Tensor) -> Tensor:
    first, empty = torch.cat([skip, torch.zeros_like(up)], 1).chunk(2, 1)
    return torch.cat([empty + up, first], 1)


def given_out(up: Tensor, skip: Tensor) -> Tensor:
    joined = torch.empty(up.shape[0], 2 * up.shape[1], *up.shape[2:])
    return added(torch.cat([skip, torch.zeros_like(up)], 1, out=joined), up)


ADDED: dict[str, Join] = {
    "cat": lambda up, skip: added(torch.cat([skip, torch.zeros_like(up)], 1), up),
    "pad": lambda up, skip: added(functional.pad(skip, (0, 0, 0, 0, 0, up.shape[1])), up),
    "clone": lambda up, skip: added(torch.cat([skip, torch.zeros_like(up)], 1).clone(), up),
    "relu": lambda up, skip: added(torch.cat([skip, torch.zeros_like(up)], 1).relu(), up),
    "double": lambda up, skip: added(torch.cat([skip, torch.zeros_like(up)], 1).double(), up).float(),
    "stack": lambda up, skip: added(torch.stack([skip, torch.zeros_like(up)], 1).flatten(1, 2), up),
    "view": through_view,
    "chunk": through_chunk,
    "filled": filled,
    "in turns": in_turns,
    "channels last": channels_last,
    "taken apart": taken_apart,
    "out": given_out,
}


def mask(like: Tensor) -> Tensor:
    """Every other place, in the form of a tensor."""
    return (torch.arange(like[0].numel()).view_as(like[:1]) % 2 == 0).expand_as(like)


def masked(up: Tensor, skip: Tensor) -> Tensor:
    up[mask(up)] = skip[mask(up)]
    return up


def where_negative(up: Tensor, skip: Tensor) -> Tensor:
    up[up < 0] = skip[up < 0]
    return up


def at_places(up: Tensor, skip: Tensor) -> Tensor:
    places = torch.arange(0, up.numel(), 3)
    up = up.clone()
    up.view(-1)[places] = skip.reshape(-1)[places]
    return up


def upon_skip(up: Tensor, skip: Tensor) -> Tensor:
    skip[:, 2:] = up[:, 2:]
    return skip


def upon_copy(up: Tensor, skip: Tensor) -> Tensor:
    skip = skip.clone()
    skip[:, 2:] = up[:, 2:]
    return skip


def pasted(up: Tensor, skip: Tensor) -> Tensor:
    skip = skip.clone()
    skip[:, :, 1:-1, 1:-1] = up[:, :, 1:-1, 1:-1]
    return skip


def in_rows(up: Tensor, skip: Tensor) -> Tensor:
    up = up.clone()
    up[:, :, ::2] = skip[:, :, ::2]
    return up


def into_skip(up: Tensor, skip: Tensor) -> Tensor:
    skip.add_(up)
    return skip


def into_view_of_skip(up: Tensor, skip: Tensor) -> Tensor:
    skip.view(-1).add_(up.view(-1))
    return skip


CHOSEN: dict[str, Join] = {
    "mask": masked,
    "values": where_negative,
    "index_put": lambda up, skip: up.clone().index_put_((mask(up),), skip[mask(up)]),
    "masked_select": lambda up, skip: up.clone().masked_scatter_(mask(up), skip.masked_select(mask(up))),
    "places": at_places,
    "put": lambda up, skip: up.put(torch.arange(0, up.numel(), 2), skip.take(torch.arange(0, up.numel(), 2))),
    "select_scatter": lambda up, skip: torch.select_scatter(up, skip[:, 0], 1, 0),
    "upon the skip": upon_skip,
    "upon a copy": upon_copy,
    "pasted": pasted,
    "rows": in_rows,
    "into the skip": into_skip,
    "into a view of the skip": into_view_of_skip,
    "out, into the skip": lambda up, skip: torch.add(skip, up, out=skip),
}


def tokens(image: Tensor) -> Tensor:
    """The places of an image, [b, places, channels]."""
    return image.flatten(2).mT


def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of the places of images to each other, as an image."""
    return functional.scaled_dot_product_attention(tokens(query), tokens(key), tokens(value)).mT.reshape(query.shape)


def by_products(up: Tensor, skip: Tensor) -> Tensor:
    weights = torch.bmm(tokens(up), tokens(skip).mT).softmax(-1)
    return torch.bmm(weights, tokens(skip) + 1).mT.reshape(up.shape)


TWO_WAYS: dict[str, Join] = {  # the skip is what is chosen, and what it is chosen by
    "where": lambda up, skip: torch.where(skip > 0, skip, up),
    "where greater": lambda up, skip: torch.where(skip > up, skip, up),
    "where, of a mean": lambda up, skip: torch.where(skip.mean(1, keepdim=True) > 0.1, skip, up),
    "index_put, own": lambda up, skip: up.clone().index_put_((skip > 0,), skip[skip > 0]),
    "masked_scatter, own": lambda up, skip: up.masked_scatter(skip > 0, skip),
    "keys and values": lambda up, skip: attended(up, skip, skip),
    "keys": lambda up, skip: attended(up, skip, up),
    "queries": lambda up, skip: attended(skip, up, up),
    "bmm": by_products,
    "clamp": lambda up, skip: torch.clamp(up, max=skip),
}


@pytest.mark.long
@pytest.mark.parametrize("how", [*ADDED, *CHOSEN, *TWO_WAYS])
@torch.no_grad()
def test_a_merge_that_is_written_is_ablated_as_if_its_skip_were_zero(how: str) -> None:
    torch.manual_seed(0)
    join = {**ADDED, **CHOSEN, **TWO_WAYS}[how]
    model = TwoLevels(join, doubling=how in ADDED).eval()
    structure = inspect(model, random_image(3, 16, 16))
    assert [skip.name for skip in structure.skips] == ["skip1", "skip2"]
    image = random_image(3, 16, 16, seed=1)
    whole = model(image)
    model.join = lambda up, skip: join(up, skip * 0)
    expected = model(image)
    model.join = join
    assert not torch.equal(whole, expected)
    with ablated(model, structure, ["skip1", "skip2"]):
        torch.testing.assert_close(model(image), expected)
    try:
        smaller = without_skips(model, structure, ["skip1", "skip2"])
    except NetworkError as refusal:
        assert "ablate it" in str(refusal) or ":" in str(refusal)
        return
    torch.testing.assert_close(smaller(image), expected)


JOINED: dict[str, Join] = {
    "sum": lambda up, skip: sum([skip, up]),
    "mean": lambda up, skip: torch.stack([skip, up]).mean(0),
    "weighed stack": lambda up, skip: torch.einsum("nbchw,n->bchw", torch.stack([skip, up]), torch.tensor([0.3, 0.7])),
    "attention": lambda up, skip: attended(up, skip, skip) + 0.1,
    "dstack": lambda up, skip: torch.dstack([skip, up])[:, :, : up.shape[2]],
    "weighed": lambda up, skip: torch.addcmul(up, skip, up.sigmoid()),
    "median": lambda up, skip: torch.stack([skip, up, up * 0.5]).median(0).values,
}
BY_MODULE: dict[str, tuple[Callable[[int], nn.Module], Callable[[nn.Module, Tensor, Tensor], Tensor]]] = {
    "module of attention": (
        lambda channels: nn.MultiheadAttention(channels, 2, batch_first=True),
        lambda part, up, skip: part(tokens(up), tokens(skip), tokens(skip))[0].mT.reshape(up.shape),
    ),
    "bilinear": (
        lambda channels: nn.Bilinear(channels, channels, channels),
        lambda part, up, skip: part(up.movedim(1, -1), skip.movedim(1, -1)).movedim(-1, 1),
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("how", [*JOINED, *TWO_WAYS, *BY_MODULE])
@torch.no_grad()
def test_what_enters_a_join_in_several_ways_is_left_out_in_all(how: str) -> None:
    torch.manual_seed(0)
    model = TwoLevels(doubling=False)
    if how in BY_MODULE:
        build, call = BY_MODULE[how]
        model.parts = nn.ModuleDict({str(channels): build(channels) for channels in (8, 16)})
        join: Join = lambda up, skip: call(model.parts[str(up.shape[1])], up, skip)  # noqa: E731
    else:
        join = {**JOINED, **TWO_WAYS}[how]
    model.join = join
    structure = inspect(model.eval(), random_image(3, 16, 16))
    assert [skip.name for skip in structure.skips] == ["skip1", "skip2"]
    image = random_image(3, 16, 16, seed=1)
    for part in ("skip1", "level1"):
        smaller = without(model, structure, part).eval()
        at_top = image.shape[2]
        model.join = lambda up, skip, part=part, side=at_top: join(
            up * (part != "level1" or up.shape[2] != side), skip * (part != "skip1" or up.shape[2] != side)
        )
        torch.testing.assert_close(smaller(image), model(image), atol=1e-6, rtol=1e-5)
        model.join = join
        if part == "level1":
            assert not [name for name, _ in smaller.named_parameters() if name.split(".")[0] in {"b", "u2", "d2"}]


@torch.no_grad()
def test_a_skip_that_is_read_again_after_a_part_was_written_joins_twice() -> None:
    def join(up: Tensor, skip: Tensor) -> Tensor:
        part = skip[:, 2:]
        part += up[:, 2:]
        return skip

    model = TwoLevels(join, doubling=False).eval()
    structure = inspect(model, random_image(3, 16, 16))
    assert [skip.name for skip in structure.skips] == ["skip1a", "skip1b", "skip2a", "skip2b"]
    with (
        pytest.raises(NetworkError, match=r"skip1a carries is written into in place at d1.0:conv2d"),
        ablated(model, structure, "skip1a"),
    ):
        pass


@pytest.mark.parametrize(
    "join",
    [
        lambda up, skip: up.masked_fill(skip > 0, 1.0),
        lambda up, skip: up.gather(1, skip.argsort(1)),
        lambda up, skip: skip.gather(1, up.argsort(1)),
        lambda up, skip: functional.grid_sample(up, skip[:, :2].permute(0, 2, 3, 1).tanh(), align_corners=False),
        lambda up, skip: torch.where(skip > 0, up, -up),
        lambda up, skip: up.take_along_dim(skip.argmax(1, keepdim=True), 1).expand_as(up),
    ],
)
def test_a_skip_that_only_chooses_is_said(join: Join) -> None:
    structure = inspect(TwoLevels(join, doubling=False), random_image(3, 16, 16))
    assert {gap.kind for gap in structure.gaps} == {GapKind.GATE_ONLY}
    assert "reaches the output only as a weight or a choice, at :" in str(structure)
    assert "No skip joins" not in str(structure)


@torch.no_grad()
def test_what_is_overwritten_is_no_stream() -> None:
    def join(up: Tensor, skip: Tensor) -> Tensor:
        joined = torch.cat([up, skip], 1)
        joined[second(up)] = up
        return joined[second(up)]

    structure = inspect(TwoLevels(join, doubling=False), random_image(3, 16, 16))
    assert not structure.skips


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_parts_of_a_view_are_those_that_its_places_have(data: Any) -> None:
    """Against a tensor that holds, at every place, the number of its last write."""
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    memory, twin = torch.zeros(shape), torch.zeros(shape)
    origins = Origins()
    origins.make(memory, 0)

    def drawn(tensor: Tensor) -> tuple[slice, ...]:
        starts = [data.draw(st.integers(0, side - 1)) for side in tensor.shape]
        return tuple(
            slice(start, data.draw(st.integers(start + 1, 4)), data.draw(st.integers(1, 2))) for start in starts
        )

    for number in range(1, data.draw(st.integers(1, 5)) + 1):
        index = drawn(memory)
        if data.draw(st.booleans()):
            origins.write(memory, number, number, index)
        else:
            origins.write(memory[index], number, number)
        twin[index] = number
    index = drawn(memory)
    assert [part.source for part in origins.parts(memory[index])] == np.unique(twin[index].numpy()).tolist()
    outside = twin.clone()
    outside[index] = -1
    numbers = [int(number) for number in outside.unique() if number >= 0]
    assert [part.source for part in origins.parts(memory, outside=index)] == numbers
