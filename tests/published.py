"""Published networks, with the number of merges that their source says they have. Imports torch, and the packages that hold
them where they are used."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

import foreign


@dataclass(frozen=True)
class Published:
    """A network to look into. merges: as its source counts them. why: where that stands. shape: of one image."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    merges: int
    why: str


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


FLAT = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
DEEP = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3}
NETWORKS = (
    Published("MONAI UNet, 2-D", monai("UNet", **FLAT, channels=(8, 16, 32, 64, 128), strides=(2, 2, 2, 2), num_res_units=2),
              (1, 64, 64), 4, "a SkipConnection a stride"),
    Published("MONAI UNet, 3-D", monai("UNet", **DEEP, channels=(4, 8, 16), strides=(2, 2)), (1, 32, 32, 32), 2,
              "a SkipConnection a stride"),
    Published("MONAI BasicUNet, 2-D", monai("BasicUNet", **FLAT, features=(8, 8, 16, 32, 64, 8)), (1, 64, 64), 4, "four UpCat"),
    Published("MONAI BasicUNet, 3-D, odd sides", monai("BasicUNet", **DEEP, features=(4, 4, 8, 8, 16, 4)), (1, 33, 32, 35), 4,
              "four UpCat, padded"),
    Published("MONAI DynUNet", monai("DynUNet", **FLAT, kernel_size=[3] * 5, strides=[1, 2, 2, 2, 2], upsample_kernel_size=[2] * 4,
              filters=[8, 16, 32, 64, 64], deep_supervision=True), (1, 64, 64), 4, "an UnetUpBlock a stride"),
    Published("MONAI AttentionUnet", monai("AttentionUnet", **FLAT, channels=(8, 16, 32, 64), strides=(2, 2, 2)), (1, 64, 64), 3,
              "an AttentionLayer a stride"),
    Published("MONAI SegResNet", monai("SegResNet", **DEEP, init_filters=8), (1, 32, 32, 32), 3, "three up layers, added"),
    Published("MONAI UNETR", monai("UNETR", in_channels=1, out_channels=3, img_size=(32, 32, 32), feature_size=8, hidden_size=48,
              mlp_dim=96, num_heads=4), (1, 32, 32, 32), 4, "four UnetrUpBlock"),
    Published("MONAI SwinUNETR", monai("SwinUNETR", **DEEP, feature_size=12), (1, 64, 64, 64), 5, "five UnetrUpBlock"),
    Published("MONAI VNet", monai("VNet"), (1, 32, 32, 32), 4, "four UpTransition"),
    Published("MONAI BasicUNetPlusPlus", monai("BasicUNetPlusPlus", **FLAT, features=(8, 8, 16, 32, 64, 8)), (1, 64, 64), 10,
              "ten upcat"),
    Published("SMP Unet, ResNet-18", smp("Unet"), (3, 64, 64), 4, "five blocks, the last without skip"),
    Published("SMP Unet, ResNet-50, scSE", smp("Unet", "resnet50", decoder_attention_type="scse"), (3, 64, 64), 4, "as above"),
    Published("SMP Unet, DenseNet-121", smp("Unet", "densenet121"), (3, 64, 64), 4, "as above"),
    Published("SMP Unet, EfficientNet-B0", smp("Unet", "efficientnet-b0"), (3, 64, 64), 4, "as above"),
    Published("SMP Unet, MiT-B0", smp("Unet", "mit_b0"), (3, 64, 64), 3, "as above, its first feature is empty"),
    Published("SMP UnetPlusPlus", smp("UnetPlusPlus"), (3, 64, 64), 10, "ten blocks with skips"),
    Published("SMP MAnet", smp("MAnet"), (3, 64, 64), 4, "four MFABBlock with a skip"),
    Published("SMP Linknet", smp("Linknet"), (3, 64, 64), 4, "four blocks, added"),
    Published("SMP FPN", smp("FPN"), (3, 64, 64), 4, "three FPNBlock, and the sum of the pyramid"),
    Published("SMP DeepLabV3Plus", smp("DeepLabV3Plus"), (3, 64, 64), 1, "one concatenation with the high-resolution features"),
    Published("SMP UPerNet", smp("UPerNet"), (3, 64, 64), 4, "three lateral sums, and the concatenation of the pyramid"),
    Published("SMP DeepLabV3", smp("DeepLabV3"), (3, 64, 64), 0, "no decoder"),
    Published("by hand: padded, in place, dropout", foreign.Padded, (3, 64, 64), 3, "three cat"),
    Published("by hand: cropped", foreign.Cropped, (1, 92, 92), 2, "two cat"),
    Published("by hand: several outputs", foreign.Supervised, (3, 64, 64), 3, "three cat"),
    Published("by hand: sub-pixels, gated sum", foreign.SubPixel, (1, 64, 64), 1, "one sum in place"),
)  # fmt: skip
