"""Stored images as input tensors of a network."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor

from unetscope.data.segmentation import SegmentationData


def pixels(data: SegmentationData) -> Real[Tensor, "n channels *sides"]:
    """The stored values of all images; uint16 becomes int32, which torch can index on every device."""
    images = data.images
    return torch.from_numpy(images.astype(np.int32) if images.dtype == np.uint16 else images)


def to_input(batch: Real[Tensor, "b c *sides"], scale: float) -> Float[Tensor, "b c *sides"]:
    """A batch of stored values as float32, integers scaled to [0, 1]; `scale` is `SegmentationData.scale`."""
    return batch.to(torch.float32) * scale
