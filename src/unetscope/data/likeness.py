"""Images that look alike, which are seldom independent: frames of a film, crops of one scene, the same image saved twice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unetscope.base import printable
from unetscope.data.problems import Problem, problem
from unetscope.data.segmentation import SegmentationData

SIDE = 16  # of the small images that are compared, in pixels
ALIKE = 0.95  # correlation of two small images from which they look alike
MOST_COMPARED = 10_000  # images: twice as many take four times as long
ALIKE_TURNED = 0.99  # likewise if one is turned or flipped: different images seldom are so much alike
MOST_TURNED = 3000 * 3000  # pairs that are compared so, which takes eight times as long
DIGITS = 5  # of a correlation in float32, as of which processors round alike
ROWS_AT_ONCE = 512
FEWEST_COMPARED = 10  # images: of fewer, what is alike is seen without counting
SMALLEST_SHARE = 0.01  # of the images: fewer that look alike are not worth a word


@dataclass(frozen=True)
class Likeness:
    """How many images look like another. pair: the two that do most, maybe turned. compared: how many of the images were."""

    count: int
    pair: tuple[str, str]
    correlation: float
    compared: int
    is_turned: bool = False

    def __str__(self) -> str:
        first, second = map(printable, self.pair)
        return (
            f"such as {first} and {second} (correlation {self.correlation:.2f}{', turned or flipped' * self.is_turned})"
        )


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
    nearest, which = _nearest(rows, columns, is_self=those is None)
    alike, is_turned = nearest >= ALIKE, False
    side = math.isqrt(columns.shape[1])
    if len(these.image_size) == 2 and side**2 == columns.shape[1] and len(rows) * len(columns) <= MOST_TURNED:
        for turned in _turned(columns.reshape(-1, side, side)):
            nearest_turned, which_turned = _nearest(rows, turned, is_self=those is None)
            alike |= nearest_turned >= ALIKE_TURNED
            if nearest_turned.max() > max(nearest.max(), ALIKE_TURNED):
                nearest, which, is_turned = nearest_turned, which_turned, True
    if not alike.any():
        return None
    most = int(nearest.argmax())
    other = (these if those is None else those).names[chosen[1][which[most]]]
    pair = these.names[chosen[0][most]], other
    return Likeness(int(alike.sum()), pair, float(nearest[most]), len(rows), is_turned)


def _turned(images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Small images [n, side, side] turned by quarters and flipped, flat: all but as they are."""
    for flipped in (images, images[:, :, ::-1]):
        for quarters in range(4):
            if quarters or flipped is not images:
                yield np.ascontiguousarray(np.rot90(flipped, quarters, (1, 2))).reshape(len(images), -1)


def _nearest(
    rows: NDArray[np.float32], columns: NDArray[np.float32], *, is_self: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Of each row the largest product with a column, and which; is_self: not with that of its own number."""
    nearest, which = np.full(len(rows), -1.0, np.float32), np.zeros(len(rows), np.int64)
    for first in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        correlation = (rows[part] @ columns.T).round(DIGITS)  # of pairs that are as alike, the first on every machine
        if is_self:
            places = np.arange(first, first + len(correlation))
            correlation[places - first, places] = -1.0
        which[part] = correlation.argmax(axis=1)
        nearest[part] = correlation.max(axis=1)
    return nearest, which


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
    return [
        problem("near-duplicates", data.source, f"{alike.count} of {alike.compared} images look like another, {alike}")
    ]


def across_parts(train: SegmentationData, validation: SegmentationData) -> list[Problem]:
    """One "near-duplicates" problem if validation images look like training images, and nothing says which belong together."""
    if train.groups or len(train) + len(validation) < FEWEST_COMPARED or train.image_size != validation.image_size:
        return []
    if (alike := likeness(validation, train)) is None:
        return []
    what = f"{alike.count} of {alike.compared} validation images look like a training image, {alike}"
    return [problem("near-duplicates", validation.source, what)]
