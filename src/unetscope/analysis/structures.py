"""How large the structures in binary masks are, and how well grey levels tell them from the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GREY_BINS = 10  # over the 256 grey levels


def structure_sizes(mask: NDArray[np.integer]) -> list[int]:
    """The longer side of the bounding box of every outline in a mask [height, width]: of each region, and of each hole in one.

    Regions touch at edges or corners. The outline of a hole is the pixels around it, so its box is two pixels longer.

    Source: mean_RoI_size in tool.py of Loos et al., JMI 11(5):054004 (2024), which takes them from OpenCV's findContours.

    >>> mask = np.zeros((9, 9), int)
    >>> mask[1:6, 1:8] = 1
    >>> structure_sizes(mask)
    [7]
    >>> mask[3, 3:5] = 0
    >>> structure_sizes(mask)
    [7, 4]
    """
    from scipy import ndimage

    foreground = np.pad(np.asarray(mask) > 0, 1)
    regions, _ = ndimage.label(foreground, structure=np.ones((3, 3)))
    rest, _ = ndimage.label(~foreground)
    sizes = [_longer_side(box) for box in ndimage.find_objects(regions)]
    # the first of the rest, which holds the corner, is what surrounds all
    return sizes + [_longer_side(box) + 2 for box in ndimage.find_objects(rest)[1:]]


def _longer_side(box: tuple[slice, ...]) -> int:
    return max(axis.stop - axis.start for axis in box)


def grey_contrast(grey: NDArray[np.number], mask: NDArray[np.integer]) -> float:
    """How much the grey levels of foreground and background differ: the mean difference of their shares in ten bins.

    grey: [height, width], 0 to 255. 0 where both are distributed alike, 0.2 where they share no bin; NaN for an image without
    either.

    Source: image_contrast_level in tool.py of Loos et al., JMI 11(5):054004 (2024).

    >>> mask = np.array([[1, 1, 0, 0]])
    >>> grey_contrast(np.array([[250, 240, 10, 12]]), mask), grey_contrast(np.array([[250, 10, 250, 10]]), mask)
    (0.2, 0.0)
    """
    inside, outside = grey[mask > 0], grey[mask == 0]
    if not len(inside) or not len(outside):
        return float("nan")
    shares = [np.histogram(part, GREY_BINS, (0, 256))[0] / len(part) for part in (inside, outside)]
    return float(np.abs(shares[0] - shares[1]).mean())
