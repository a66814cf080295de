"""Segmentation masks to discrete labels Y, as the paper reduces them.

A binary mask of 128×128 pixels is one of 2¹⁶³⁸⁴ classes; I(Y;M) needs few. The entropy H(Y) of the labels is the ceiling
of every I(Y;M), so it is part of every result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from unetscope.base import InvalidArgument, whole_fields
from unetscope.table import BLOCKS, CLUSTERS, INITIALISATIONS

MOST_SEED = 2**32 - 1  # that scikit-learn takes
MASKS_A_CLUSTER = 8  # where a set has too few masks for the clusters that are usual

if TYPE_CHECKING:
    from sklearn.cluster import KMeans


@runtime_checkable
class LabelScheme(Protocol):
    """A named rule that turns masks [n, height, width], or [n, depth, height, width], into labels [n]."""

    @property
    def name(self) -> str:
        """The scheme and its parameters, as tables and figures show it."""
        ...

    def labels(self, masks: NDArray[np.uint8], ignored: int | None = None) -> NDArray[np.int64]:
        """One label an image, 0, 1, 2, …; ignored: the value of pixels without a class, given where there is one."""
        ...


@dataclass(frozen=True, slots=True)
class KMeansLabels:
    """Labels by K-means clustering of the vectorised masks: alike in shape and place.

    k: number of clusters; n_init: initialisations of which the best is kept. One initialisation can leave nine tenths of
    the masks in one cluster, so the default is ten, as in the published code. The result does not depend on the
    number of threads, but it does on the seed and on the order of the images, as any K-means does.

    Source: Lee & Bajić (2021), section 3.2. Raises: InvalidArgument for numbers that cannot be, and for k above the number
    of images or of distinct masks.

    >>> import math
    >>> masks = np.repeat(np.eye(4, dtype=np.uint8).reshape(4, 2, 2), 3, axis=0)
    >>> labels = KMeansLabels(k=4).labels(masks)
    >>> round(entropy_nats(torch.from_numpy(labels)) / math.log(2), 4)      # four clusters of three masks: 2 bits
    2.0
    """

    k: int = CLUSTERS
    n_init: int = INITIALISATIONS
    seed: int = 0

    def __post_init__(self) -> None:
        whole_fields(self, "k", "n_init", "seed")
        if self.k < 2:
            raise InvalidArgument(f"K must be 2 or more clusters, got {self.k}")
        if self.n_init < 1:
            raise InvalidArgument(f"n_init must be 1 or more, got {self.n_init}")
        if not 0 <= self.seed <= MOST_SEED:
            raise InvalidArgument(f"seed must be 0 to {MOST_SEED}, got {self.seed}")

    @property
    def name(self) -> str:
        """Such as `kmeans(k=64)`, with whatever else is not the default."""
        n_init = "" if self.n_init == INITIALISATIONS else f", n_init={self.n_init}"
        seed = "" if self.seed == 0 else f", seed={self.seed}"
        return f"kmeans(k={self.k}{n_init}{seed})"

    def labels(self, masks: NDArray[np.uint8], ignored: int | None = None) -> NDArray[np.int64]:
        """The cluster of each mask of masks [n, *sides]; of several classes, by the share of pixels that are of another one.

        Class maps are clustered as one-hot vectors of all their pixels. An ignored pixel has the mean of those with a label at
        its place, so that which pixels are ignored makes no cluster by itself.
        """
        if self.k > len(masks):
            raise InvalidArgument(
                f"K = {self.k} clusters for {len(masks)} masks: choose K of at most {len(masks)} (--clusters, "
                "or labels=[KMeansLabels(k)])"
            )
        vectors = _vectors(masks, ignored)
        if self.k > (distinct := _count_distinct(vectors)):
            raise InvalidArgument(
                f"K = {self.k} clusters for {distinct} distinct masks: choose K of at most {distinct} (--clusters, "
                "or labels=[KMeansLabels(k)])"
            )
        clustering = self._clustering()
        from threadpoolctl import threadpool_limits

        with threadpool_limits(limits=1):  # the sum over threads has no fixed order
            return clustering.fit_predict(vectors.astype(np.float32, copy=False)).astype(np.int64)

    def fitting(self, masks: NDArray[np.uint8], ignored: int | None = None) -> KMeansLabels:
        """These labels; with more clusters than there are distinct masks, of masks [n, *sides], an eighth of those instead.

        >>> KMeansLabels().fitting(np.eye(40, dtype=np.uint8).reshape(40, 5, 8)).name
        'kmeans(k=5)'
        """
        distinct = _count_distinct(_vectors(masks, ignored))
        return self if self.k <= distinct else replace(self, k=max(2, distinct // MASKS_A_CLUSTER))

    def _clustering(self) -> KMeans:
        from sklearn.cluster import KMeans

        return KMeans(self.k, n_init=self.n_init, random_state=self.seed)


@dataclass(frozen=True, slots=True)
class BlockLabels:
    """Labels by spatial coarsening: which blocks of the mask hold more than `threshold` foreground pixels.

    blocks: a side, so that the mask is cut into blocks × blocks of equal size; threshold: in pixels, by default 1/16 of a
    block, which is the paper's 64 of 32×32 for a mask of 128×128.

    Source: Lee & Bajić (2021), section 3.2. Raises: InvalidArgument if the mask cannot be cut so or the threshold is not
    below a block's size.

    >>> left = np.zeros((1, 8, 8), np.uint8)
    >>> left[:, :, :4] = 1
    >>> BlockLabels(blocks=2).labels(np.concatenate([left, 1 - left, left]))
    array([1, 0, 1])
    """

    blocks: int = BLOCKS
    threshold: int | None = None

    def __post_init__(self) -> None:
        whole_fields(self, "blocks", *(() if self.threshold is None else ("threshold",)))
        if not 1 <= self.blocks <= 64:
            raise InvalidArgument(f"blocks must be 1 to 64 a side, got {self.blocks}")

    @property
    def name(self) -> str:
        """Such as `blocks(4x4)` or `blocks(4x4, threshold=64)`."""
        threshold = "" if self.threshold is None else f", threshold={self.threshold}"
        return f"blocks({self.blocks}x{self.blocks}{threshold})"

    def labels(self, masks: NDArray[np.uint8], ignored: int | None = None) -> NDArray[np.int64]:
        """The number of each pattern of blocks, by class, among those of masks [n, *sides], in lexical order."""
        n, *sides = masks.shape
        if any(side % self.blocks for side in sides):
            raise InvalidArgument(
                f"a mask of {_sides(sides)} cannot be cut into {_sides([self.blocks] * len(sides))} blocks: "
                f"choose a number of blocks that divides {'both' if len(sides) == 2 else 'all'} sides"
            )
        block = [side // self.blocks for side in sides]
        pixels = math.prod(block)
        threshold = pixels // 16 if self.threshold is None else self.threshold
        if not 0 <= threshold < pixels:
            raise InvalidArgument(
                f"threshold must be 0 to {pixels - 1} pixels of a {_sides(block)} block, got {threshold}"
            )
        cut = [length for side in block for length in (self.blocks, side)]
        within = tuple(range(3, 3 + 2 * len(sides), 2))
        counts = _by_class(masks, ignored).reshape(n, -1, *cut).sum(axis=within, dtype=np.int64)
        patterns = np.packbits((counts > threshold).reshape(n, -1), axis=1)
        return np.unique(patterns, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _by_class(masks: NDArray[np.uint8], ignored: int | None = None) -> NDArray[np.uint8]:
    """Where each class is, [n, classes, *sides]; of binary masks, whose other class is the background, where class 1 is."""
    classes = int(masks.max(initial=1, where=True if ignored is None else masks != ignored)) + 1
    if classes == 2:
        return masks[:, None] if ignored is None else (masks == 1).astype(np.uint8)[:, None]
    return np.stack([masks == label for label in range(classes)], axis=1).astype(np.uint8)


def _vectors(masks: NDArray[np.uint8], ignored: int | None) -> NDArray[np.uint8] | NDArray[np.float32]:
    """The classes of each mask's pixels as a row [n, classes · pixels]; where ignored, the mean of the others at the place."""
    by_class = _by_class(masks, ignored)
    if ignored is None or not (hidden := masks == ignored).any():
        return by_class.reshape(len(masks), -1)
    labelled = np.maximum((~hidden).sum(axis=0), 1)
    mean = (by_class.sum(axis=0) / labelled).astype(np.float32)  # an ignored pixel is 0 for every class
    return np.where(hidden[:, None], mean, by_class.astype(np.float32)).reshape(len(masks), -1)


def _count_distinct(vectors: NDArray[np.uint8] | NDArray[np.float32]) -> int:
    """How many rows differ."""
    return len({row.tobytes() for row in vectors})


def _sides(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


def entropy_nats(labels: Int64[Tensor, " n"]) -> float:
    """H(Y) in nats of the empirical distribution of discrete labels.

    >>> round(entropy_nats(torch.tensor([0, 0, 1, 1])), 4)
    0.6931
    """
    frequencies = torch.unique(labels, return_counts=True)[1].double() / len(labels)
    return max(0.0, -(frequencies * frequencies.log()).sum().item())


def singleton_share(labels: Int64[Tensor, " n"]) -> float:
    """The share of images that are alone in their class; a layer that distinguishes these images also determines their labels.

    >>> singleton_share(torch.tensor([0, 0, 1, 2]))
    0.5
    """
    return (torch.unique(labels, return_counts=True)[1] == 1).sum().item() / len(labels)
