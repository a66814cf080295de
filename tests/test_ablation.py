"""The skips of any network, ablated while it runs or removed for good."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import foreign
from foreign import random_image
from unetscope.base.errors import InvalidArgument, NetworkError
from unetscope.networks.ablation import ablated, replace_streams
from unetscope.networks.inspection import inspect
from unetscope.networks.structure import IN_PLACE, Operand
from unetscope.networks.surgery import without, without_skips
from unetscope.networks.unet import UNet
from unetscope.runs.carrying import carry_over


def test_removing_a_skip_trains_what_was_trained() -> None:
    model, image = foreign.Padded(), random_image(3, 32, 32)
    structure = inspect(model, image)
    with ablated(model, structure, "skip1", "mean", images=image):
        pass
    model.requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in without_skips(model, structure, "skip1").parameters())


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_join_in_an_activation_checkpoint_is_refused_where_there_are_gradients(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.up, self.leave = (
                nn.Conv2d(3, 4, 3, 1, 1),
                nn.ConvTranspose2d(4, 4, 2, 2),
                nn.Conv2d(4, 1, 1),
            )

        def joined(self, a: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
            return self.leave(torch.relu(a + u))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = self.enter(x)
            u = self.up(nn.functional.max_pool2d(a, 2))
            return torch.utils.checkpoint.checkpoint(self.joined, a, u, use_reentrant=reentrant)

    model, image = Checkpointed(), random_image(3, 16, 16)
    structure = inspect(model, image)
    smaller = without_skips(model, structure, "skip1")
    smaller(image).mean().backward()  # recorded, it recomputes nothing
    assert all(parameter.grad is not None for parameter in smaller.parameters())
    with (
        pytest.raises(
            NetworkError, match=r"the join at :add is in an activation checkpoint, .*: turn checkpointing off"
        ),
        ablated(model, structure, "skip1"),
    ):
        model(image)
    with torch.no_grad(), ablated(model.eval(), structure, "skip1"):
        without = model(image)
        assert torch.equal(smaller.eval()(image), without)


def test_means_leave_frozen_parts_frozen() -> None:
    model, image = foreign.Padded().train(), random_image(3, 32, 32)
    frozen = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    structure = inspect(model, image)
    with ablated(model, structure, "skip1", "mean", images=image):
        pass
    assert model.training
    assert not frozen.training


@pytest.mark.long
@pytest.mark.parametrize("names", [("skip1",), ("skip2",), ("skip1", "skip3"), ("skip1", "skip2", "skip3")])
def test_ablated_and_removed_are_exact_on_the_papers_network(names: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    whole, images = UNet(4, depth=3), torch.rand(3, 3, 32, 32)
    structure = inspect(whole, images[:1])
    small = UNet(4, depth=3, without=names)
    carry_over(whole, small)
    with torch.no_grad():
        expected = small(images)
        removed = without_skips(whole, structure, names)
        assert torch.equal(removed(images), expected)
        with ablated(whole, structure, names):
            torch.testing.assert_close(whole(images), expected, atol=1e-6, rtol=1e-5)  # sums in another order
        assert not torch.equal(whole(images), expected)
    assert sum(p.numel() for p in removed.parameters()) == sum(p.numel() for p in small.parameters())


@pytest.mark.parametrize("how", ["mean", "shuffled"])
def test_what_stands_in_for_a_skip(how: str) -> None:
    torch.manual_seed(0)
    whole, images = UNet(4, depth=2), torch.rand(4, 3, 16, 16)
    structure, merges = inspect(whole, images[:1]), []
    hook = whole.merge10.register_forward_hook(lambda _m, inputs, output: merges.append((*inputs, output)))
    with torch.no_grad(), ablated(whole, structure, "skip1", how, images=images):  # type: ignore[arg-type]
        merges.clear()
        whole(images)
    hook.remove()
    ((_, skip, joined),) = merges
    instead = joined[:, 4:]
    if how == "mean":
        torch.testing.assert_close(instead, skip.mean(dim=(0, 2, 3), keepdim=True).expand_as(skip))
    else:
        moved = [next(k for k in range(4) if torch.equal(instead[i], skip[k])) for i in range(4)]
        assert sorted(moved) == [0, 1, 2, 3]
        assert all(k != i for i, k in enumerate(moved))


def test_a_network_learns_with_its_skip_removed_or_ablated() -> None:
    torch.manual_seed(0)
    model, images = foreign.Padded(), torch.rand(2, 3, 32, 32)
    structure = inspect(model, images[:1])
    removed = without_skips(model, structure, ["skip2"])
    removed(images).mean().backward()
    assert all(parameter.grad is not None for parameter in removed.parameters())
    assert len(removed.state_dict()) == len(model.state_dict())
    with ablated(model, structure, "skip1"):
        model(images).mean().backward()
    weight = model.get_parameter("up.2.0.weight")
    assert weight.grad is not None
    assert bool((weight.grad[:, :4] == 0).all())  # the skip stands first
    assert not bool((weight.grad[:, 4:] == 0).all())


def test_a_sum_goes_on_without_its_skip() -> None:
    torch.manual_seed(0)
    model, images = foreign.SubPixel(), torch.rand(2, 1, 16, 16)
    structure = inspect(model, images[:1])
    with torch.no_grad(), ablated(model, structure, "skip1"):
        silent = model(images)
    assert torch.equal(without_skips(model, structure, "skip1")(images), silent)


@pytest.mark.parametrize("parts", [["level1"], ["level2"], ["skip2", "level3"], ["skip1", "level2"], "level3"])
def test_a_level_is_ablated_as_it_is_left_out(parts: str | list[str]) -> None:
    torch.manual_seed(0)
    model, images = foreign.Padded().eval(), torch.rand(2, 3, 32, 32)
    structure = inspect(model, images[:1])
    with torch.no_grad(), ablated(model, structure, parts):
        silent = model(images)
    removed = without(model, structure, *([parts] if isinstance(parts, str) else parts)).eval()
    with torch.no_grad():
        assert torch.allclose(removed(images), silent, atol=1e-6)
        assert not torch.allclose(model(images), silent, atol=1e-6)
    with (
        pytest.raises(NetworkError, match="Padded has no 'level9': there are level1, level2, level3"),
        ablated(model, structure, "level9"),
    ):
        pass


def test_what_cannot_be_taken_out_is_refused() -> None:
    class Normalised(foreign.Padded):
        def __init__(self) -> None:
            super().__init__()
            self.up[2] = nn.Sequential(nn.GroupNorm(4, 12), self.up[2])

    model, image = Normalised(), random_image(3, 32, 32)
    structure = inspect(model, image)
    notes = without_skips(model, structure, "skip1").notes
    assert any("group_norm (up.2.0) mixes channels" in note for note in notes)  # the groups cross the streams
    with pytest.raises(NetworkError, match="Normalised has no skip 'skip9': there are skip1, skip2, skip3"):
        without_skips(model, structure, "skip9")
    with (
        pytest.raises(InvalidArgument, match="ablating by 'noise': expected zeros, mean, shuffled"),
        ablated(
            model,
            structure,
            "skip1",
            "noise",  # type: ignore[arg-type]
        ),
    ):
        pass
    with pytest.raises(InvalidArgument, match="needs images"), ablated(model, structure, "skip1", "mean"):
        pass
    with (
        pytest.raises(InvalidArgument, match="needs two images or more"),
        ablated(model.eval(), structure, "skip1", "shuffled"),
    ):
        model(image)


class OtherJoin(nn.Module):
    """Joins by another call while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.up, self.leave = nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Conv2d(8, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = torch.relu(self.enter(x))
        up = self.up(torch.relu(self.down(skip)))
        return self.leave(torch.cat([skip, up], 1) if self.training else torch.hstack([skip, up]))


def test_a_join_that_does_not_run_is_not_taken_for_ablated() -> None:
    model, images = OtherJoin(), torch.rand(2, 3, 16, 16)
    structure = inspect(model, images[:1])
    with ablated(model.eval(), structure, "skip1"):
        model(images)
    with (
        ablated(model.train(), structure, "skip1"),
        pytest.raises(NetworkError, match="hstack did not run in this pass in tr"),
    ):
        model(images)
    assert model(images).shape == (2, 1, 16, 16)


def test_what_is_written_into_in_place_is_not_taken_for_ablated() -> None:
    stream = Operand(0, ((":setitem", IN_PLACE),))
    zeros = replace_streams(OtherJoin(), {"skip1": stream}, lambda _, values: torch.zeros_like(values))
    with pytest.raises(NetworkError, match="skip1 carries is written into in place at :setitem"), zeros:
        pass
