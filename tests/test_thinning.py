"""Thin skips: the network with few directions of a skip is the network with that skip projected, and costs less."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from foreign import Cropped, Joined, Padded, SubPixel, TwoLevels
from unetscope.base import InvalidArgument, NetworkError, without_digest
from unetscope.networks import UNet, costs, inspect, load_parts, save_parts, skip_directions, thinned, without
from unetscope.networks.ablation import replace_streams

Build = Callable[[], tuple[nn.Module, Tensor]]


def of_monai(name: str, sides: int) -> Build:
    """A small network of MONAI and images for it."""

    def build() -> tuple[nn.Module, Tensor]:
        networks = pytest.importorskip("monai.networks.nets", reason="monai is not installed")
        if name == "SegResNet":
            norm = ("GROUP", {"num_groups": 4})
            model = networks.SegResNet(sides, 8, 1, 1, blocks_down=(1, 1, 1), blocks_up=(1, 1), norm=norm)
        else:
            model = networks.BasicUNet(sides, 1, 1, features=(4, 8, 8, 8, 8, 4))
        return model, torch.rand(3, 1, *(32,) * sides)

    return build


NETWORKS: dict[str, tuple[Build, bool]] = {  # and whether a convolution alone reads what is joined
    "the paper's U-Net": (lambda: (UNet(4, depth=2), torch.rand(3, 3, 16, 16)), True),
    "interpolated, padded, in place": (lambda: (Padded(), torch.rand(3, 3, 24, 24)), True),
    "cropped": (lambda: (Cropped(), torch.rand(3, 1, 92, 92)), True),
    "sum": (lambda: (Joined("stacked"), torch.rand(3, 1, 16, 16)), False),
    "largest": (lambda: (Joined("largest"), torch.rand(3, 1, 16, 16)), False),
    "gated, in place": (lambda: (SubPixel(), torch.rand(3, 1, 16, 16)), False),
    "BasicUNet": (of_monai("BasicUNet", 2), True),
    "BasicUNet, 3-D": (of_monai("BasicUNet", 3), True),
    "SegResNet": (of_monai("SegResNet", 2), False),
}


def projected(model: nn.Module, structure: object, kept: dict[str, int], images: Tensor, image: Tensor) -> Tensor:
    """The output with each skip projected by matrices, as an independent twin."""
    found = skip_directions(model, structure, list(kept), images)  # type: ignore[arg-type]

    def project(name: str, stream: Tensor) -> Tensor:
        vectors = found[name].vectors[:, : kept[name]].to(stream)
        return torch.einsum("cd,nd...->nc...", vectors @ vectors.T, stream)

    streams = {name: structure.merge_of(name).skips[name] for name in kept}  # type: ignore[attr-defined]
    with torch.no_grad(), replace_streams(model, streams, project, gradients=False):
        return model(image)  # type: ignore[no-any-return]


@pytest.mark.long
@pytest.mark.parametrize("name", NETWORKS)
def test_a_thin_network_is_the_one_with_its_skips_projected(name: str) -> None:
    torch.manual_seed(0)
    build, folds = NETWORKS[name]
    model, images = build()
    model.eval()
    structure = inspect(model, images[:1])
    kept = {skip.name: 2 for skip in structure.skips[-2:]}
    thin = thinned(model, structure, kept, images)
    image = torch.rand_like(images[:2])
    with torch.no_grad():
        torch.testing.assert_close(thin(image), projected(model, structure, kept, images, image), rtol=1e-4, atol=1e-5)
    assert thin.thinned == kept
    names = {parameter for parameter, _ in thin.named_parameters()}
    for skip in kept:
        assert f"thin_{skip}.compress.weight" in names
        assert (f"thin_{skip}.expand.weight" in names) != folds
    shared = {value.untyped_storage()._cdata for value in model.state_dict().values()}
    assert not any(value.untyped_storage()._cdata in shared for value in thin.state_dict().values())


@pytest.mark.long
@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_all_directions_change_nothing(seed: int, depth: int) -> None:
    torch.manual_seed(seed)
    model, images = UNet(3, depth=depth).eval(), torch.rand(2, 3, 16, 16)
    structure = inspect(model, images[:1])
    kept = {f"skip{level}": 3 * 2 ** (level - 1) for level in range(1, depth + 1)}
    image = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(thinned(model, structure, kept, images)(image), model(image), rtol=1e-4, atol=1e-5)


def test_directions_are_those_of_a_stream_of_known_rank() -> None:
    """A skip whose channels are multiples of one map has one direction, and nothing is lost without the others."""
    torch.manual_seed(0)
    model, images = Joined("by name").eval(), torch.rand(4, 1, 16, 16)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    with torch.no_grad():
        model.a.weight.copy_(model.a.weight[:1].abs() * weights[:, None, None, None])
        model.a.bias.zero_()
    structure = inspect(model, images[:1])
    directions = skip_directions(model, structure, "skip1", images)["skip1"]
    assert directions.share(1) == pytest.approx(1.0)
    torch.testing.assert_close(
        directions.vectors[:, 0].abs(), (weights / weights.norm()).double(), rtol=1e-5, atol=1e-6
    )
    image = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(
        thinned(model, structure, {"skip1": 1}, images)(image), model(image), rtol=1e-4, atol=1e-5
    )


def test_directions_are_those_of_the_second_moments_over_all_images() -> None:
    torch.manual_seed(0)
    model, images = UNet(4, depth=1).eval(), torch.rand(5, 3, 16, 16)
    structure = inspect(model, images[:1])
    streams: list[Tensor] = []
    merge = structure.merge_of("skip1").skips

    def keep(_name: str, stream: Tensor) -> Tensor:
        streams.append(stream.detach().clone())
        return stream

    with torch.no_grad(), replace_streams(model, {"skip1": merge["skip1"]}, keep, gradients=False):
        model(images)
    values = streams[0].movedim(1, -1).reshape(-1, 4).double().numpy()
    expected = (values.T @ values / len(values)).trace()
    directions = skip_directions(model, structure, "skip1", images)["skip1"]
    assert float(directions.strengths.sum()) == pytest.approx(expected, rel=1e-6)
    assert sorted(directions.strengths.tolist(), reverse=True) == directions.strengths.tolist()


def selected(up: Tensor, skip: Tensor) -> Tensor:
    """The larger by a condition, which the skip enters too."""
    return torch.where(skip > up, skip, up)


def test_a_skip_that_decides_what_is_joined_is_as_strong_as_one_that_does_not() -> None:
    torch.manual_seed(0)
    model, images = TwoLevels(selected, doubling=False).eval(), torch.rand(3, 3, 16, 16)
    structure = inspect(model, images[:1])
    assert structure.merge_of("skip1").skips["skip1"].others
    skips: list[Tensor] = []

    def keep(_name: str, stream: Tensor) -> Tensor:
        skips.append(stream.double())
        return stream

    path = {"skip1": dataclasses.replace(structure.merge_of("skip1").skips["skip1"], others=())}
    with torch.no_grad(), replace_streams(model, path, keep, gradients=False):
        model(images)
    mean_square = skips[0].square().sum(dim=1).mean()
    directions = skip_directions(model, structure, "skip1", images)["skip1"]
    assert float(directions.strengths.sum()) == pytest.approx(float(mean_square), rel=1e-6)


def test_a_thin_network_trains_is_copied_and_is_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = TwoLevels().eval(), torch.rand(4, 3, 16, 16)
    thin = thinned(model, inspect(model, images[:1]), {"skip1": 2, "skip2": 3}, images).train()
    thin(images).square().mean().backward()
    assert all(parameter.grad is not None for parameter in thin.parameters())
    thin.eval()
    buffer = io.BytesIO()
    torch.save(thin, buffer)
    buffer.seek(0)
    for again in (
        copy.deepcopy(thin),
        torch.load(buffer, weights_only=False),
        torch.export.export(thin, (images,)).module(),
    ):
        torch.testing.assert_close(again(images), thin(images))
    save_parts(thin, tmp_path)
    torch.testing.assert_close(load_parts(tmp_path, TwoLevels)(images), thin(images))


@pytest.mark.long
def test_parts_are_left_out_and_the_rest_made_thinner(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = TwoLevels().eval(), torch.rand(4, 3, 16, 16)
    smaller = without(model, inspect(model, images[:1]), "skip2").eval()
    thin = thinned(smaller, inspect(smaller, images[:1]), {"skip1": 2}, images).eval()
    assert (thin.left_out, thin.thinned) == (("skip2",), {"skip1": 2})
    save_parts(thin, tmp_path)
    torch.testing.assert_close(load_parts(tmp_path, TwoLevels)(images), thin(images))


def sums() -> nn.Module:
    """A network whose skips are sums, so that no weight tells which of them are there."""
    torch.manual_seed(0)
    return SubPixelTwice()


class SubPixelTwice(nn.Module):
    """Two levels whose skips are added."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 1)
        self.down = nn.ModuleList(nn.Conv2d(4, 4, 3, 2, 1) for _ in range(2))
        self.up = nn.ModuleList(nn.ConvTranspose2d(4, 4, 2, 2) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        first = self.enter(x)
        second = torch.relu(self.down[0](first))
        third = torch.relu(self.down[1](second))
        return self.leave(self.up[0](self.up[1](third) + second) + first)


def made_thin(network: nn.Module, images: Tensor, kept: dict[str, int]) -> nn.Module:
    return thinned(network, inspect(network, images[:1]), kept, images).eval()


def left_out(network: nn.Module, images: Tensor, *parts: str) -> nn.Module:
    return without(network, inspect(network, images[:1]), *parts).eval()


@pytest.mark.long
@pytest.mark.parametrize(
    "steps",
    [
        [("without", "skip1"), ("without", "skip1")],  # the second is that of the second level
        [("without", "skip2"), ("thin", 2)],
        [("thin", 2), ("without", "skip2")],
        [("thin", 3), ("thin", 1)],
        [("without", "skip2"), ("thin", 2), ("thin", 1)],
    ],
    ids=str,
)
def test_a_network_of_several_steps_is_written_with_all_of_them(
    steps: list[tuple[str, object]], tmp_path: Path
) -> None:
    images = torch.rand(3, 1, 16, 16)
    network = sums().eval()
    for kind, what in steps:
        if kind == "without":
            network = left_out(network, images, str(what))
        else:
            network = made_thin(network, images, {"skip1": int(str(what))})
    assert len(network.surgery_record.steps) == len(steps)
    save_parts(network, tmp_path)
    again = load_parts(tmp_path, sums)
    torch.testing.assert_close(again(images), network(images))
    assert again.surgery_record.steps == network.surgery_record.steps
    assert not torch.allclose(network(images), sums().eval()(images))


def test_a_file_of_the_first_format_is_read(tmp_path: Path) -> None:
    images = torch.rand(3, 1, 16, 16)
    thin = made_thin(left_out(sums().eval(), images, "skip2"), images, {"skip1": 2})
    save_parts(thin, tmp_path)
    description = without_digest(json.loads((tmp_path / "network.json").read_text()))
    assert [step["left out"] for step in description.pop("steps")] == [["skip2"], []]
    description |= {"format": "unetscope parts 1", "left out": ["skip2"], "constants": {}, "thinned": {"skip1": 2}}
    (tmp_path / "network.json").write_text(json.dumps(description))
    torch.testing.assert_close(load_parts(tmp_path, sums)(images), thin(images))


@pytest.mark.parametrize("steps", [[], [{"left out": ["skip1"]}] * 101, [3], {"thinned": 3}, "skip1"])
def test_steps_that_are_none_are_refused(steps: object, tmp_path: Path) -> None:
    save_parts(left_out(sums().eval(), torch.rand(3, 1, 16, 16), "skip2"), tmp_path)
    description = without_digest(json.loads((tmp_path / "network.json").read_text()))
    (tmp_path / "network.json").write_text(json.dumps(description | {"steps": steps}))
    with pytest.raises(NetworkError, match="cannot be read as a network without parts"):
        load_parts(tmp_path, sums)


@pytest.mark.parametrize(
    "changed",
    [
        {"example": []},
        {"example": [{"shape": [2**25], "dtype": "float32"}] * 12},
        {"steps": [{"thinned": {"skip1": float("inf")}}]},
    ],
)
def test_a_description_that_asks_for_too_much_is_refused(changed: dict[str, object], tmp_path: Path) -> None:
    save_parts(left_out(sums().eval(), torch.rand(3, 1, 16, 16), "skip2"), tmp_path)
    description = without_digest(json.loads((tmp_path / "network.json").read_text()))
    (tmp_path / "network.json").write_text(json.dumps(description | changed))
    with pytest.raises(NetworkError, match="cannot be read as a network without parts"):
        load_parts(tmp_path, sums)


class Counted(Padded):
    """Counts its images outside of torch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).reshape(len(x), 1, *x.shape[2:])


class SizedByHand(nn.Module):
    """Enlarges to a size that Python computes from plain numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down, self.leave = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.enter(x)
        height, width = (int(str(side)) for side in x.shape[2:])
        up = nn.functional.interpolate(torch.relu(self.down(first)), size=(height, width))
        return self.leave(torch.cat([up, first], 1))


def test_a_thin_network_is_checked_on_other_batches_and_sizes() -> None:
    torch.manual_seed(0)
    images = torch.rand(3, 3, 24, 24)
    with pytest.raises(
        NetworkError, match=r"batches of 2 images alone .* images are counted outside of torch, as by len"
    ):
        made_thin(Counted(), images, {"skip1": 2})
    thin = made_thin(SizedByHand().eval(), images[:, :1], {"skip1": 4})
    assert thin.notes == ("it takes images of 24×24 alone: the original computes with sizes outside of torch",)
    with pytest.raises(NetworkError, match="24"):
        thin(torch.rand(1, 1, 16, 16))


@pytest.mark.long
def test_less_memory_is_held_until_the_merge() -> None:
    torch.manual_seed(0)
    model, images = UNet(16, depth=2).eval(), torch.rand(2, 3, 32, 32)
    thin = thinned(model, inspect(model, images[:1]), {"skip1": 2, "skip2": 2}, images).eval()
    whole, small = costs([model, thin], (3, 32, 32))
    assert small.multiply_adds < whole.multiply_adds
    assert small.parameters < whole.parameters
    assert small.activation_bytes <= whole.activation_bytes


def test_what_cannot_be_made_thinner_is_refused() -> None:
    model, images = UNet(4, depth=2).eval(), torch.rand(2, 3, 16, 16)
    structure = inspect(model, images[:1])
    with pytest.raises(InvalidArgument, match="skip1 has 4 channels, so 1 to 4 can be kept, got 5"):
        thinned(model, structure, {"skip1": 5}, images)
    with pytest.raises(InvalidArgument, match="1 to 4 can be kept, got 0"):
        thinned(model, structure, {"skip1": 0}, images)
    with pytest.raises(InvalidArgument, match="no skip to make thinner is named"):
        thinned(model, structure, {}, images)
    with pytest.raises(NetworkError, match="no skip 'skip9': there are"):
        thinned(model, structure, {"skip9": 1}, images)
