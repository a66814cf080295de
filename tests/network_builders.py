"""Build networks of many packages, small and with random weights. Packages are imported where they are used."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn


class Conditioned(nn.Module):
    """A network that is given a noise level, a time step or a text beside the image: the same for every image."""

    def __init__(self, net: nn.Module, condition: Callable[[int], tuple[Any, ...]]) -> None:
        super().__init__()
        self.net, self.condition = net, condition

    def forward(self, x: Tensor) -> Any:
        return self.net(x, *self.condition(x.shape[0]))


def at_step_3(net: nn.Module) -> nn.Module:
    """A diffusion network at the third time step."""
    return Conditioned(net, lambda n: (torch.full((n,), 3),))


def with_random_output(net: nn.Module) -> nn.Module:
    """A network whose last layer begins at zero, so that nothing would change its output, with random weights there too."""
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return net


def module_of(name: str, *, bare: tuple[str, ...] = (), absent: tuple[str, ...] = ()) -> Any:
    """A module of a package, unchanged.

    bare: packages whose `__init__` is not run, since it imports what the network does not need. absent: packages that the
    module imports and the network does not need; something that is never called stands in for them.
    """
    for package in bare:
        _declare_bare(package)
    stand_ins = [package for package in absent if not is_installed(package)]
    for package in stand_ins:
        sys.modules[package] = mock.MagicMock(__path__=[], __spec__=None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    finally:
        for package in stand_ins:  # other packages ask whether they are there
            del sys.modules[package]


def is_installed(package: str) -> bool:
    """Whether a package can be imported, rather than stood in for."""
    top = package.split(".", maxsplit=1)[0]
    if top in sys.modules:
        return not isinstance(sys.modules[top], mock.MagicMock)
    return importlib.util.find_spec(top) is not None


def _declare_bare(package: str) -> None:
    """Declare a package, and those that it is in, without running its `__init__`."""
    if package in sys.modules:
        return
    above, _, last = package.rpartition(".")
    if above:
        _declare_bare(above)
        places = [f"{place}/{last}" for place in sys.modules[above].__path__]
    else:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.submodule_search_locations is not None
        places = list(spec.submodule_search_locations)
    declared = ModuleType(package)
    declared.__path__ = places
    sys.modules[package] = declared


def nnunet(sides: int, name: str, **arguments: Any) -> Callable[[], nn.Module]:
    """A network of nnU-Net, four stages, as its planner would build it but narrower."""

    def build() -> nn.Module:
        unets = module_of("dynamic_network_architectures.architectures.unet")
        blocks = {"n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage": [1, 2, 2, 2]}
        return getattr(unets, name)(
            1, 4, [4, 8, 16, 16], (nn.Conv2d, nn.Conv3d)[sides - 2], 3, [1, 2, 2, 2], **blocks, num_classes=3,
            n_conv_per_stage_decoder=[1] * 3, conv_bias=True, norm_op=(nn.InstanceNorm2d, nn.InstanceNorm3d)[sides - 2],
            norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True}, **arguments,
        )  # fmt: skip

    return build


def diffusers_unet() -> nn.Module:
    model = module_of("diffusers.models.unets.unet_2d", absent=("regex",)).UNet2DModel(
        sample_size=32, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 16, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3,
    )  # fmt: skip
    return at_step_3(model)


def diffusers_conditioned() -> nn.Module:
    model = module_of("diffusers.models.unets.unet_2d_condition", absent=("regex",)).UNet2DConditionModel(
        sample_size=32, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        cross_attention_dim=8, attention_head_dim=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return Conditioned(model, lambda n: (torch.full((n,), 3), torch.linspace(0, 1, 40 * n).view(n, 5, 8)))


def ddpm(module: str, name: str, **arguments: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        package = "denoising_diffusion_pytorch"
        absent = ("accelerate", "ema_pytorch")
        return at_step_3(getattr(module_of(f"{package}.{module}", bare=(package,), absent=absent), name)(**arguments))

    return build


def karras() -> nn.Module:
    module = module_of("denoising_diffusion_pytorch.karras_unet", bare=("denoising_diffusion_pytorch",))
    net = module.KarrasUnet(
        image_size=16,
        dim=8,
        dim_max=16,
        channels=3,
        num_downsamples=2,
        num_blocks_per_stage=1,
        attn_res=(),
        fourier_dim=4,
    )
    return Conditioned(with_random_output(net), lambda n: (torch.ones(n),))


def drunet() -> nn.Module:
    module = module_of("deepinv.models.drunet", bare=("deepinv", "deepinv.models"), absent=("h5py", "natsort"))
    return Conditioned(module.DRUNet(nc=(4, 8, 8, 16), nb=1, pretrained=None), lambda _n: (0.1,))


def transformers_segformer() -> nn.Module:
    models = module_of("transformers")
    config = models.SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8, 16, 16, 32], decoder_hidden_size=16, num_labels=2, num_attention_heads=[1, 1, 2, 2]
    )  # fmt: skip
    return models.SegformerForSemanticSegmentation(config)  # type: ignore[no-any-return]


def transformers_upernet() -> nn.Module:
    models = module_of("transformers")
    stages = [f"stage{k}" for k in range(1, 5)]
    backbone = models.ConvNextConfig(hidden_sizes=[8, 16, 16, 32], depths=[1] * 4, out_features=stages)
    config = models.UperNetConfig(
        backbone_config=backbone, hidden_size=16, num_labels=2, auxiliary_in_channels=16, use_auxiliary_head=False
    )
    return models.UperNetForSemanticSegmentation(config)  # type: ignore[no-any-return]


def apex_xunet() -> nn.Module:
    """The U-Net of a-unet for signals, one residual block a stage."""
    apex = module_of("a_unet.apex")
    blocks = [apex.XBlock(channels=c, factor=f, items=[apex.ResnetItem]) for c, f in ((4, 1), (8, 2), (8, 2))]
    return apex.XUNet(dim=1, in_channels=2, resnet_groups=2, blocks=blocks, skip_t=apex.SkipCat)  # type: ignore[no-any-return]


def fastai_unet() -> nn.Module:
    """The U-Net that fastai makes of a ResNet-18."""
    unets = module_of(
        "fastai.vision.models.unet", bare=("fastai.vision", "fastai.vision.models"),
        absent=("fasthtml", "fasthtml.common", "spacy", "fastdownload"),
    )  # fmt: skip
    encoder = list(module_of("torchvision.models").resnet18(weights=None).children())[:-2]
    return unets.DynamicUnet(nn.Sequential(*encoder), 2, (64, 64))  # type: ignore[no-any-return]


def of(
    name: str, network: str, *values: Any, bare: tuple[str, ...] = (), absent: tuple[str, ...] = (), **arguments: Any
) -> Callable[[], nn.Module]:
    """A network of a module, built when it is asked for."""

    def build() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(module_of(name, bare=bare, absent=absent), network)(*values, **arguments)

    return build


def monai(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    """A network of MONAI, built when it is asked for."""

    def build() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI's own
            from monai.networks import nets

            return getattr(nets, name)(**arguments)

    return build


def smp(name: str, encoder: str = "resnet18", **arguments: Any) -> Callable[[], nn.Module]:
    """A network of segmentation-models-pytorch, without weights from the network."""

    def build() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import segmentation_models_pytorch

            return getattr(segmentation_models_pytorch, name)(encoder, encoder_weights=None, **arguments)

    return build


def torchvision(name: str) -> Callable[[], nn.Module]:
    """A network of torchvision, without weights from the network."""
    return of("torchvision.models.segmentation", name, weights=None, weights_backbone=None, num_classes=2)


FLAT = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
DEEP = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3}
