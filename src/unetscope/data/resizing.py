"""Images and masks resized to the size that is measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unetscope.data.images import ImageSize
from unetscope.data.pieces import VOLUME_SIDES, resized


def resize_image(values: NDArray[np.unsignedinteger], size: ImageSize) -> NDArray[np.unsignedinteger]:
    """Resize [height, width(, 3)] with antialiasing (a triangle filter as wide as the reduction); a volume linearly.

    >>> resize_image(np.full((8, 4), 65535, np.uint16), (2, 2)).tolist()
    [[65535, 65535], [65535, 65535]]
    """
    if values.shape[: len(size)] == size:
        return values
    if values.ndim > len(size) and (len(size) == VOLUME_SIDES or values.dtype != np.uint8):
        return np.stack([resize_image(values[..., channel], size) for channel in range(3)], axis=-1)
    if len(size) == VOLUME_SIDES:
        return resized(values, size, order=1)
    height, width = size
    if values.dtype == np.uint8:
        return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))
    stretched = np.asarray(
        Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    )
    return stretched.round().clip(0, 65535).astype(np.uint16)


def resize_mask(foreground: NDArray[np.bool_], size: ImageSize) -> NDArray[np.uint8]:
    """Resize [height, width]: 1 where at least half of a pixel's antialiased neighbourhood was foreground. Of a volume the
    nearest voxels count.

    The triangle filter weighs neighbours as `resize_image` does. With a box filter, outlines would fall on exact halves when
    sides are halved, and the foreground of such images would grow by a fortieth.

    >>> resize_mask(np.eye(4, dtype=bool).repeat(2, 0).repeat(2, 1), (4, 4)).tolist()
    [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    """
    if foreground.shape == size:
        return foreground.astype(np.uint8)
    if len(size) == VOLUME_SIDES:
        return resized(foreground.astype(np.uint8), size, order=0)
    height, width = size
    full = Image.fromarray(foreground.astype(np.uint8) * np.uint8(255))
    share = full.resize((width, height), Image.Resampling.BILINEAR)
    return (np.asarray(share) >= 128).astype(np.uint8)


def resize_classes(classes: NDArray[np.uint8], size: ImageSize) -> NDArray[np.uint8]:
    """Resize a class map [*sides] to the class at the centre of each new pixel.

    >>> resize_classes(np.array([[0, 0, 7, 7], [0, 0, 7, 7]], np.uint8), (1, 2)).tolist()
    [[0, 7]]
    """
    if classes.shape == size:
        return classes
    if len(size) == VOLUME_SIDES:
        return resized(classes, size, order=0)
    height, width = size
    return np.asarray(Image.fromarray(classes).resize((width, height), Image.Resampling.NEAREST))
