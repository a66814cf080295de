"""Seeded splits of images into two parts, with whole groups in one of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rows_held_out(of_image: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Which images a split holds out: whole groups in a seeded order, each that brings their number nearer to the share.

    At least one group is held out, and one is left; a group that would by itself be further off than none is passed over.

    >>> rows_held_out(np.array([0, 0, 1, 1, 1, 1, 1, 1]), 0.25, seed=0).tolist()
    [True, True, False, False, False, False, False, False]
    """
    sizes, images_asked_for, held = np.bincount(of_image), share * len(of_image), 0
    order = np.random.default_rng(seed).permutation(len(sizes))
    held_groups: list[int] = []
    for group in order:
        is_nearer = abs(held + sizes[group] - images_asked_for) < abs(held - images_asked_for)
        if is_nearer and len(held_groups) < len(sizes) - 1:
            held_groups.append(int(group))
            held += sizes[group]
    if not held_groups:
        held_groups = [int(order[np.argmin(sizes[order])])]
    return np.isin(of_image, held_groups)
