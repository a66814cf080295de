"""Images as the tensors that a network reads. Imports the data types."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from unetscope.data.segmentation import SegmentationData


def pixels(data: SegmentationData) -> Integer[Tensor, "n channels height width"]:
    """The stored integers of all images; 16-bit ones as int32, which torch can index on every device."""
    images = data.images
    return torch.from_numpy(images if images.dtype == np.uint8 else images.astype(np.int32))


def to_input(batch: Integer[Tensor, "b c h w"], scale: float) -> Float[Tensor, "b c h w"]:
    """A batch of stored integers as float32 in [0, 1]; `scale` is `SegmentationData.scale`."""
    return batch.to(torch.float32) * scale
