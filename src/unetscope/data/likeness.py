"""Images that look alike, which are seldom independent: frames of a film, crops of one scene, the same image saved twice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unetscope.data.problems import Problem, printable, problem
from unetscope.data.segmentation import SegmentationData

SIDE = 16  # of the small images that are compared, in pixels
ALIKE = 0.95  # correlation of two small images from which they look alike
MOST_COMPARED = 10_000  # images: twice as many take four times as long
ROWS_AT_ONCE = 512
FEWEST_COMPARED = 10  # images: of fewer, what is alike is seen without counting
SMALLEST_SHARE = 0.01  # of the images: fewer that look alike are not worth a word


@dataclass(frozen=True)
class Likeness:
    """How many images look like another. pair: the two that do most. compared: how many of the images were."""

    count: int
    pair: tuple[str, str]
    correlation: float
    compared: int


def small_images(data: SegmentationData) -> NDArray[np.float32]:
    """Each image averaged over channels and a coarse grid, less its mean, of length 1, [n, values]; 0 for one that is flat."""
    n, _, *sides = data.images.shape
    small = data.images.reshape(n, data.channels, *sides)
    for axis, side in enumerate(sides, 2):
        edges = np.linspace(0, side, min(SIDE, side) + 1).astype(int)
        small = np.add.reduceat(small, edges[:-1], axis=axis, dtype=np.float32)
    flat = small.sum(axis=1).reshape(n, -1)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-4 * math.sqrt(flat.shape[1])))


def likeness(these: SegmentationData, those: SegmentationData | None = None) -> Likeness | None:
    """How many of some images look like one of those, or like another of themselves; None if none does.

    Of more than 10,000 images evenly spaced ones are compared.

    >>> rng = np.random.default_rng(0)
    >>> films = np.repeat(rng.integers(0, 255, (3, 1, 16, 16)), 2, axis=0).astype(np.uint8)
    >>> data = SegmentationData(films, np.zeros((6, 16, 16), np.uint8), tuple("abcdef"), "films")
    >>> likeness(data).count, likeness(data.subset([0, 2, 4]))
    (6, None)
    """
    chosen = [_spaced(len(part)) for part in (these, these if those is None else those)]
    rows, columns = small_images(these)[chosen[0]], small_images(these if those is None else those)[chosen[1]]
    nearest, which = np.full(len(rows), -1.0, np.float32), np.zeros(len(rows), np.int64)
    for first in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        correlation = rows[part] @ columns.T
        if those is None:
            places = np.arange(first, first + len(correlation))
            correlation[places - first, places] = -1.0
        which[part] = correlation.argmax(axis=1)
        nearest[part] = correlation.max(axis=1)
    count = int((nearest >= ALIKE).sum())
    if not count:
        return None
    most = int(nearest.argmax())
    other = (these if those is None else those).names[chosen[1][which[most]]]
    return Likeness(count, (these.names[chosen[0][most]], other), float(nearest[most]), len(rows))


def _spaced(n: int) -> NDArray[np.int64]:
    return np.arange(n) if n <= MOST_COMPARED else np.linspace(0, n - 1, MOST_COMPARED).astype(np.int64)


def near_duplicates(data: SegmentationData) -> list[Problem]:
    """One "near-duplicates" problem if images look like others of the set, and nothing says which belong together.

    >>> images = np.repeat(np.random.default_rng(0).integers(0, 255, (5, 1, 16, 16)), 2, axis=0).astype(np.uint8)
    >>> data = SegmentationData(images, np.zeros((10, 16, 16), np.uint8), tuple("abcdefghij"), "films")
    >>> [alike.what for alike in near_duplicates(data)]
    ['10 of 10 images look like another, such as a and b (correlation 1.00)']
    """
    alike = None if data.groups or len(data) < FEWEST_COMPARED else likeness(data)
    if alike is None or alike.count < SMALLEST_SHARE * alike.compared:
        return []
    first, second = map(printable, alike.pair)
    what = f"{alike.count} of {alike.compared} images look like another, such as {first} and {second} "
    return [problem("near-duplicates", data.source, f"{what}(correlation {alike.correlation:.2f})")]


def across_parts(train: SegmentationData, validation: SegmentationData) -> list[Problem]:
    """One "near-duplicates" problem if validation images look like training images, and nothing says which belong together."""
    if train.groups or len(train) + len(validation) < FEWEST_COMPARED or train.image_size != validation.image_size:
        return []
    if (alike := likeness(validation, train)) is None:
        return []
    first, second = map(printable, alike.pair)
    what = (
        f"{alike.count} of {alike.compared} validation images look like a training image, such as {first} and {second} "
    )
    return [problem("near-duplicates", validation.source, f"{what}(correlation {alike.correlation:.2f})")]
