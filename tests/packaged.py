"""Networks of well-known packages, small, as a user's file builds them for `unetscope run --network`."""

from __future__ import annotations

from torch import nn


def basic_unet() -> nn.Module:
    """MONAI's BasicUNet, with two output channels."""
    from monai.networks.nets import BasicUNet

    return BasicUNet(spatial_dims=2, in_channels=3, out_channels=2, features=(4, 8, 8, 16, 16, 4))


def dynunet() -> nn.Module:
    """MONAI's DynUNet, whose heads of deep supervision are stacked in training."""
    from monai.networks.nets import DynUNet

    strides, filters = [1, 2, 2, 2], [4, 8, 16, 16]
    return DynUNet(2, 3, 1, [3] * 4, strides, strides[1:], filters=filters, deep_supervision=True, deep_supr_num=2)


def segresnet() -> nn.Module:
    """MONAI's SegResNet, whose skips are sums."""
    from monai.networks.nets import SegResNet

    norm = ("GROUP", {"num_groups": 4})
    return SegResNet(2, 8, in_channels=3, out_channels=1, blocks_down=(1, 1, 1), blocks_up=(1, 1), norm=norm)


def plain_conv_unet() -> nn.Module:
    """nnU-Net's own network with deep supervision; its decoder holds the encoder too."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    return PlainConvUNet(
        3, 4, [4, 8, 16, 16], nn.Conv2d, 3, [1, 2, 2, 2], [2] * 4, 2, [2] * 3, conv_bias=True,
        norm_op=nn.InstanceNorm2d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, deep_supervision=True,
    )  # fmt: skip


def resnet_unet() -> nn.Module:
    """The U-Net of segmentation-models-pytorch with a ResNet-18 as encoder."""
    from segmentation_models_pytorch import Unet

    return Unet("resnet18", encoder_weights=None)
