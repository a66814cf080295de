"""Tasks whose answer is known by construction: which skips and levels they need. Imports segmentation and errors only.

Each is drawn so that no cleverness of a network changes what it needs: information that is not there cannot be learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unetscope.base.errors import InvalidArgument
from unetscope.data.segmentation import SegmentationData

Array = NDArray[np.float64]
GREY, CONTRAST = 128.0, 40.0  # an image value of 0, and of 1 above it


@dataclass(frozen=True)
class PlantedTask:
    """Images and masks, with the parts of a U-Net that the task needs and those that it does not; of the others nothing is
    said.

    needed, redundant: `"skip1"` and the like, `"level2"` and the like, for a U-Net of depth 3 on images of 32 pixels a side.
    """

    name: str
    text: str
    data: SegmentationData
    needed: tuple[str, ...]
    redundant: tuple[str, ...]


def planted_task(name: str, n: int = 600, *, seed: int = 0) -> PlantedTask:
    """n images of 32×32 pixels, one channel, of one of four tasks.

    coarse: cells of 8×8 pixels, bright or dark, under noise that hides them from any window smaller than a cell. The mask is
    the bright cells, so a map of one value a cell determines it: the two fine skips are redundant, and a level that averages
    is needed. pixel: noise without any likeness between neighbours; the mask is its bright pixels. Pooling destroys what
    tells them apart, so skip1 is needed, and whatever lies below it is redundant. local: the same noise; the mask is where
    the mean of the 3×3 pixels around is bright, which two convolutions see: skip1 needed, every level redundant. global: a
    smooth field upon a level that differs from image to image; the mask is where the field is above its mean over the whole
    image, which no window tells from the level: two levels of depth, at which half the image and more is seen, are needed.

    Raises: InvalidArgument for another name, or fewer than 2 images.

    >>> task = planted_task("pixel", 4)
    >>> task.needed, task.data.image_size
    (('skip1',), (32, 32))
    """
    if name not in _TASKS:
        raise InvalidArgument(f"planted task {name!r}: expected one of {', '.join(_TASKS)}")
    if n < 2:
        raise InvalidArgument(f"a planted task of {n} images: give at least 2")
    text, draw, needed, redundant = _TASKS[name]
    images, masks = draw(np.random.default_rng(seed), n)
    stored = np.clip(np.rint(images * CONTRAST + GREY), 0, 255).astype(np.uint8)
    names = tuple(f"{name}-{number:05d}" for number in range(n))
    data = SegmentationData(stored[:, None], masks.astype(np.uint8), names, f"planted task {name}, seed {seed}")
    return PlantedTask(name, text, data, needed, redundant)


SIDE: Final = 32
CELL: Final = 8


def _coarse(rng: np.random.Generator, n: int) -> tuple[Array, NDArray[np.bool_]]:
    cells = rng.random((n, SIDE // CELL, SIDE // CELL)) < 0.4
    bright = cells.repeat(CELL, axis=1).repeat(CELL, axis=2)
    return rng.normal(size=bright.shape) + 0.7 * (2 * bright - 1), bright


def _pixel(rng: np.random.Generator, n: int) -> tuple[Array, NDArray[np.bool_]]:
    noise = rng.normal(size=(n, SIDE, SIDE))
    return noise, noise > 0.3


def _local(rng: np.random.Generator, n: int) -> tuple[Array, NDArray[np.bool_]]:
    from scipy import ndimage

    noise = rng.normal(size=(n, SIDE, SIDE))
    return noise, ndimage.uniform_filter(noise, size=(1, 3, 3), mode="constant") > 0.1


def _global(rng: np.random.Generator, n: int) -> tuple[Array, NDArray[np.bool_]]:
    from scipy import ndimage

    field = ndimage.gaussian_filter(rng.normal(size=(n, SIDE, SIDE)), sigma=(0, 4, 4), mode="wrap")
    field -= field.mean(axis=(1, 2), keepdims=True)
    field /= field.std(axis=(1, 2), keepdims=True)
    level = rng.normal(size=(n, 1, 1))
    return 0.5 * field + level + 0.15 * rng.normal(size=field.shape), field > 0


_Draw = Callable[[np.random.Generator, int], tuple[Array, NDArray[np.bool_]]]
_TASKS: Final[dict[str, tuple[str, _Draw, tuple[str, ...], tuple[str, ...]]]] = {
    "coarse": ("a coarse map determines the mask", _coarse, ("level1",), ("skip1", "skip2")),
    "pixel": (
        "only pixel detail determines the mask",
        _pixel,
        ("skip1",),
        ("level1", "level2", "level3", "skip2", "skip3"),
    ),
    "global": ("the mask needs the whole image", _global, ("level1", "level2"), ()),
    "local": (
        "the surroundings of a pixel determine the mask",
        _local,
        ("skip1",),
        ("level1", "level2", "level3", "skip2", "skip3"),
    ),
}
PLANTED_TASKS: Final = tuple(_TASKS)
