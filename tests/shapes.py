"""Drawn images of discs and squares on a gradient: three classes, and a border to ignore; learnt in seconds."""

from __future__ import annotations

import numpy as np

from unetscope.data import SegmentationData

IGNORED = 9


def shapes(n: int, *, side: int = 32, seed: int = 0, ignored: bool = True) -> SegmentationData:
    """n grey images with their class maps: 0 ground, 1 discs, 2 squares, and `IGNORED` at some borders.

    Discs are brighter than the ground and squares darker, so that a pixel almost tells its class. Some images lack squares,
    and if something is ignored, the mask of the last image is ignored altogether.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    images, masks = np.empty((n, 1, side, side), np.uint8), np.zeros((n, side, side), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        for label in (1, 2) if rng.random() < 0.7 else (1,):
            for _ in range(2):
                (cy, cx), r = rng.uniform(0.2, 0.8, 2) * side, rng.uniform(0.1, 0.2) * side
                inside = (y - cy) ** 2 + (x - cx) ** 2 < r**2 if label == 1 else (abs(y - cy) < r) & (abs(x - cx) < r)
                mask[inside] = label
        grey = 100 + 30 * x / side + np.choose(mask, [0, 80, -60]) + 12 * rng.standard_normal((side, side))
        image[0] = grey.clip(0, 255)
        if ignored:
            mask[:2] = IGNORED
    if ignored:
        masks[-1] = IGNORED
    names = tuple(f"shapes-{seed}-{row}" for row in range(n))
    return SegmentationData(images, masks, names, "shapes", classes=3, ignore=IGNORED if ignored else None)
