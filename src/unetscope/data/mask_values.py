"""The numbers that one mask file holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetscope.data.images import Pixels
from unetscope.data.problems import Unusable

ROUNDING = 1e-3  # of a number, by a scale in the header of its file


def numbers_of_mask(pixels: Pixels, file: str) -> NDArray[Any]:
    """The numbers [*sides] that a decoded class map holds. Raises: Unusable (colour-coded, jpeg-mask)."""
    values = pixels.values
    if pixels.is_colour:
        if not (values == values[..., :1]).all():
            colours = len(np.unique(values.reshape(-1, values.shape[-1]), axis=0))
            raise Unusable(
                "colour-coded", file, f"the mask has {colours} colours, and which classes they are is not known"
            )
        values = values[..., 0]
    if pixels.lossy:
        raise Unusable("jpeg-mask", file, "JPEG compression changes numbers, so that classes are mixed up")
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def as_whole_numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Values that are whole numbers but for rounding, as a header's scale makes them, as these; others as they are.

    >>> as_whole_numbers(np.array([0.0, 0.99999998]))
    array([0., 1.])
    """
    if np.issubdtype(values.dtype, np.integer):
        return values
    nearest = np.rint(values)
    return nearest if bool((np.abs(values - nearest) <= ROUNDING).all()) else values


def is_black_and_white(values: NDArray[Any]) -> bool:
    """Whether a mask holds 0 and 255, and nothing else."""
    return bool(values.max() == 255) and bool(((values == 0) | (values == 255)).all())
