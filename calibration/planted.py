"""Drawn tasks. Of some, which skips and levels they need is known by construction; of the others retraining tells.

The first four are drawn so that no cleverness of a network changes what it needs: information that is not there cannot be
learnt. The others are hard to judge by bits: few pixels decide, or many of which none is certain.
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
    """n images of 32×32 pixels, one channel, of one of ten tasks.

    coarse: cells of 8×8 pixels, bright or dark, under noise that hides them from any window smaller than a cell. The mask is
    the bright cells, so a map of one value a cell determines it: the two fine skips are redundant, and a level that averages
    is needed. pixel: noise without any likeness between neighbours; the mask is its bright pixels. Pooling destroys what
    tells them apart, so skip1 is needed, and whatever lies below it is redundant. local: the same noise; the mask is where
    the mean of the 3×3 pixels around is bright, which two convolutions see: skip1 needed, every level redundant. global: a
    smooth field upon a level that differs from image to image; the mask is where the field is above its mean over the whole
    image, which no window tells from the level: two levels of depth, at which half the image and more is seen, are needed.

    Of the others nothing is known before a network is trained. mixed: a third of the images hold a smooth field under noise,
    with the mask where it is positive; the rest are dark, with one bright speck of one to four pixels, which is the mask.
    ring: discs under noise; the mask is the inner rim of each, one pixel wide. coin2: the left half is coarse and certain, on
    the right half a fine texture tells where the mask has a chance of 0.6 and where of 0.4. shift: bright blobs; the mask is
    the same, 8 pixels to the right. lines: lines one pixel wide under noise. texture: smooth regions with stripes of period 2
    or of period 4, under noise; the mask is those of period 2.

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


def _smooth(rng: np.random.Generator, n: int, sigma: float) -> Array:
    """Smooth fields [n, side, side] of mean 0 and standard deviation 1 in each image."""
    from scipy import ndimage

    field = ndimage.gaussian_filter(rng.normal(size=(n, SIDE, SIDE)), sigma=(0, sigma, sigma), mode="wrap")
    field -= field.mean(axis=(1, 2), keepdims=True)
    return np.asarray(field / field.std(axis=(1, 2), keepdims=True))


def _mixed(rng: np.random.Generator, n: int) -> tuple[Array, NDArray[np.bool_]]:
    field = _smooth(rng, n, 4)
    images, masks = field + 0.7 * rng.normal(size=field.shape), field > 0
    for image in np.flatnonzero(rng.random(n) < 2 / 3):
        height, width = rng.integers(1, 3, size=2)
        top, left = rng.integers(0, SIDE - 2, size=2)
        masks[image] = False
        masks[image, top : top + height, left : left + width] = True
        images[image] = np.where(masks[image], 2.0, -2.0) + 0.1 * rng.normal(size=(SIDE, SIDE))
    return images, masks


def _discs(rng: np.random.Generator, n: int, count: tuple[int, int], radii: tuple[float, float]) -> NDArray[np.bool_]:
    """Masks [n, side, side] of some discs each."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    masks = np.zeros((n, SIDE, SIDE), dtype=bool)
    for image in range(n):
        for _ in range(rng.integers(*count)):
            row, column = rng.uniform(0, SIDE, size=2)
            masks[image] |= np.hypot(rows - row, columns - column) <= rng.uniform(*radii)
    return masks


def _ring(rng: np.random.Generator, n: int) -> tuple[Array, NDArray[np.bool_]]:
    from scipy import ndimage

    discs = _discs(rng, n, (2, 5), (2.5, 5.5))
    cross = ndimage.generate_binary_structure(2, 1)[None]
    rims = discs & ~ndimage.binary_erosion(discs, structure=cross, border_value=True)
    return 2.0 * discs - 1 + 0.5 * rng.normal(size=discs.shape), rims


def _coin2(rng: np.random.Generator, n: int) -> tuple[Array, NDArray[np.bool_]]:
    coarse = _smooth(rng, n, 4)
    fine = rng.normal(size=coarse.shape)
    left = np.arange(SIDE) < SIDE // 2
    chance = np.where(fine > 0, 0.6, 0.4)
    return np.where(left, 2 * coarse, fine), np.where(left, coarse > 0, rng.random(fine.shape) < chance)


def _shift(rng: np.random.Generator, n: int) -> tuple[Array, NDArray[np.bool_]]:
    blobs = _discs(rng, n, (2, 5), (2.5, 5.5))
    blobs[:, :, -8:] = False  # none leaves the image
    return 2.0 * blobs - 1 + 0.3 * rng.normal(size=blobs.shape), np.roll(blobs, 8, axis=2)


def _lines(rng: np.random.Generator, n: int) -> tuple[Array, NDArray[np.bool_]]:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    masks = np.zeros((n, SIDE, SIDE), dtype=bool)
    for image in range(n):
        for _ in range(rng.integers(2, 5)):
            angle, row, column = rng.uniform(0, np.pi), *rng.uniform(0, SIDE, size=2)
            masks[image] |= np.abs((rows - row) * np.cos(angle) + (columns - column) * np.sin(angle)) <= 0.5
    return 2.0 * masks - 1 + 0.6 * rng.normal(size=masks.shape), masks


def _texture(rng: np.random.Generator, n: int) -> tuple[Array, NDArray[np.bool_]]:
    fine = _smooth(rng, n, 4) > 0
    columns = np.arange(SIDE) + rng.integers(0, 4, size=(n, 1, 1))
    stripes = np.where(fine, columns % 2 == 0, columns % 4 < 2)
    return 2.0 * stripes - 1 + 0.6 * rng.normal(size=fine.shape), fine


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
    "mixed": ("a third of the images is coarse, the rest is a speck", _mixed, (), ()),
    "ring": ("the mask is the rim of discs, one pixel wide", _ring, (), ()),
    "coin2": ("one half is coarse and certain, the other fine and nearly a coin", _coin2, (), ()),
    "shift": ("the mask is blobs, moved by 8 pixels", _shift, (), ()),
    "lines": ("lines one pixel wide", _lines, (), ()),
    "texture": ("the period of stripes determines the mask", _texture, (), ()),
}
PLANTED_TASKS: Final = tuple(name for name, (_, _, needed, redundant) in _TASKS.items() if needed or redundant)
HARD_TASKS: Final = tuple(name for name in _TASKS if name not in PLANTED_TASKS)
"""Those of which retraining alone tells what they need."""
