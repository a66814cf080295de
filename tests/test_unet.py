from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unetscope.base.errors import InvalidArgument, NetworkError
from unetscope.networks.unet import UNet

PAPER_MODELS = [
    ((), 1_941_105),
    (("skip1",), 1_938_801),
    (("skip1", "skip2"), 1_929_585),
    (("skip1", "skip2", "skip3"), 1_892_721),
]


@pytest.mark.parametrize(("without", "parameters"), PAPER_MODELS)
def test_parameter_counts_are_the_papers(without: tuple[str, ...], parameters: int) -> None:
    assert sum(p.numel() for p in UNet(width=16, without=without).parameters()) == parameters


def test_layers_are_numbered_as_in_the_paper() -> None:
    model = UNet(width=2)
    labels = "1 2 3 4 5 6 7 8 9 10 11up 11 12 13 14up 14 15 16 17up 17 18 19 20up 20 21 22 23"
    assert " ".join(layer.label for layer in model.layers) == labels
    assert [(skip.name, skip.source, skip.merge) for skip in model.skips] == [
        ("skip1", "2", "20"),
        ("skip2", "4", "17"),
        ("skip3", "6", "14"),
        ("skip4", "8", "11"),
    ]
    assert [layer.level for layer in model.layers if layer.role == "merge"] == [3, 2, 1, 0]


def test_a_layer_is_a_module_with_a_kernel_of_its_own() -> None:
    """23 layers have weights: 22 kernels and the transposed convolutions counted with their merge."""
    with_kernel = [module for module in UNet(width=2).modules() if hasattr(module, "kernel_size")]
    assert len([m for m in with_kernel if not isinstance(m, torch.nn.MaxPool2d)]) == 23


@settings(deadline=None, max_examples=25)
@given(
    depth=st.integers(1, 6),
    width=st.integers(1, 3),
    channels=st.integers(1, 5),
    classes=st.integers(1, 3),
    height=st.integers(1, 2),
    length=st.integers(1, 2),
    data=st.data(),
)
def test_any_depth_any_channels_any_size(
    depth: int, width: int, channels: int, classes: int, height: int, length: int, data: st.DataObject
) -> None:
    without = data.draw(st.sets(st.sampled_from([f"skip{k + 1}" for k in range(depth)])))
    model = UNet(width, depth, without=without, in_channels=channels, out_channels=classes)
    step = 2**depth
    output = model(torch.rand(1, channels, height * step, length * step))
    assert output.shape == (1, classes, height * step, length * step)
    assert output.min() >= 0
    assert output.max() <= 1
    assert len(model.layers) == 5 * depth + 3 + depth
    assert {skip.name for skip in model.skips} == {f"skip{k + 1}" for k in range(depth)} - without


@pytest.mark.long
def test_a_skip_that_is_taken_out_is_not_read() -> None:
    torch.manual_seed(0)
    whole, cut = UNet(2, depth=2), UNet(2, depth=2, without=("skip1", "skip2"))
    assert not any(isinstance(module, type(whole.get_submodule("merge7"))) for module in cut.modules())
    images = torch.rand(1, 3, 8, 8)
    seen: dict[str, torch.Tensor] = {}
    cut.get_submodule("layer2").register_forward_hook(lambda m, i, o: seen.__setitem__("2", o.clone().mul_(0)))
    before = cut(images)
    assert torch.equal(cut(images), before)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"depth": 0}, "depth must be 1 to 6, got 0"),
        ({"depth": 7}, "depth must be 1 to 6, got 7"),
        ({"width": 0}, "width must be 1 or more, got 0"),
        ({"in_channels": 0}, "in_channels must be 1 or more, got 0"),
        ({"without": ["skip5"]}, "no skip skip5 in a U-Net of depth 4: expected any of skip1, skip2, skip3, skip4"),
        ({"without": "skip9"}, "no skip skip9 in a U-Net of depth 4"),
    ],
)
def test_a_network_that_cannot_be_is_refused(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        UNet(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((1, 3, 100, 128), "image size 100x128 cannot be halved 4 times: use 96x128 or 112x128"),
        ((1, 3, 8, 8), "image size 8x8 cannot be halved 4 times: use 16x16$"),
        ((1, 1, 64, 64), r"images of shape \[1, 1, 64, 64\]: expected \[batch, 3, height, width\]"),
        ((3, 64, 64), r"images of shape \[3, 64, 64\]: expected \[batch, 3, height, width\]"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(NetworkError, match=text):
        UNet(width=1)(torch.rand(shape))


def test_the_initialisation_is_glorot_uniform() -> None:
    torch.manual_seed(0)
    convolution = UNet(width=16).get_submodule("layer4.0")
    limit = (6 / (32 * 9 + 32 * 9)) ** 0.5
    weights = convolution.weight  # type: ignore[union-attr]
    assert weights.abs().max() <= limit
    assert abs(weights.std().item() - limit / 3**0.5) < 0.02 * limit
    assert not convolution.bias.any()  # type: ignore[union-attr, operator]
