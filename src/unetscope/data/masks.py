"""Which pixels of a mask file are foreground.

A mask is accepted, v being its set of values, if
1. v has at most two values, one of them 0: the other is foreground (0/1, 0/255, True/False).
2. v is whole numbers from 0 on: an instance map, 0 the background and every other number an object. In 8 bits the
   numbers must leave no gap, and in 8 and 16 bits the top of the range (255, 65535) must not be among them:
   antialiased or compressed outlines are many greys with gaps, or reach the top.
Everything else is a problem. If the user accepts it, every value except 0 is foreground; in a JPEG, every value from half of
the largest up, since compression scatters small values around 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetscope.data.images import Pixels
from unetscope.data.problems import Problem, problem


def foreground(pixels: Pixels, file: str) -> tuple[NDArray[np.bool_], tuple[Problem, ...]]:
    """The foreground [height, width] of a decoded mask, and the problems of its values.

    Whether the mask is empty or full is not checked here: a file may hold one of many objects.

    >>> mask, problems = foreground(Pixels(np.array([[0, 1], [2, 3]], np.uint8)), "masks/a.png")
    >>> mask.tolist(), problems
    ([[False, True], [True, True]], ())
    """
    values, problems = pixels.values, pixels.problems
    if values.ndim == 3:
        is_grey = bool((values == values[..., :1]).all())
        values = values.max(axis=-1)
        if not is_grey:
            problems = (*problems, problem("mask-colour", file, "the mask has colours, whose meaning is not known"))
            return values >= values.max() / 2 if pixels.lossy and values.any() else values != 0, problems
    low, top = values.min(), values.max()
    inside: NDArray[np.bool_] = values != 0
    if low >= 0 and np.count_nonzero(inside) == np.count_nonzero((values == top) & inside):
        return inside, problems
    if pixels.lossy:
        count = len(np.unique(values))
        lossy = problem("jpeg-mask", file, f"JPEG compression left {count} grey values around 0 and {top}")
        return values >= top / 2, (*problems, lossy)
    if reason := _not_an_instance_map(values):
        return inside, (*problems, problem("mask-values", file, reason))
    return inside, problems


def _not_an_instance_map(values: NDArray[Any]) -> str:
    """Why these values do not number objects; empty if they may."""
    levels = np.unique(values)
    summary = f"{len(levels)} values between {levels[0]} and {levels[-1]}"
    if not np.issubdtype(values.dtype, np.integer) and not (levels == np.rint(levels)).all():
        return f"the mask has {summary}, not whole numbers"
    if levels[0] < 0:
        return f"the mask has {summary}, and negative numbers mean nothing"
    top_of_range = {1: 255, 2: 65535}.get(values.dtype.itemsize)
    has_gaps = values.dtype.itemsize == 1 and levels[-1] != np.count_nonzero(levels)
    if has_gaps or levels[-1] == top_of_range:
        return f"the mask has {summary}: greys of soft outlines, neither two values nor numbered objects"
    return ""
