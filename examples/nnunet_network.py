"""nnU-Net's own network, small, for `unetscope run --network examples/nnunet_network.py:plain_conv_unet`.

pip install dynamic-network-architectures

It predicts masks at several depths: `--deep-supervision` trains them all, as nnU-Net does.
"""

from __future__ import annotations

from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn


def plain_conv_unet(channels: int = 3, classes: int = 2, width: int = 8, levels: int = 5) -> nn.Module:
    """The network that nnU-Net's planner gives for a 2-D configuration: two convolutions a level, instance norm, leaky ReLU."""
    widths = [min(width * 2**level, 512) for level in range(levels)]
    return PlainConvUNet(
        channels, levels, widths, nn.Conv2d, 3, [1] + [2] * (levels - 1), 2, classes, 2, conv_bias=True,
        norm_op=nn.InstanceNorm2d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True}, deep_supervision=True,
    )  # fmt: skip
