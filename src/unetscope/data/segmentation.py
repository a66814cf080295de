"""Images with their masks, decoded, at one resolution.

Pixels stay integers of 8 or 16 bits, so that a data set needs a quarter or half of its float32 size; `SegmentationData.scale`
brings them to [0, 1]. Images that are float32 reach the network unchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unetscope.base import InvalidArgument

GREY_WEIGHTS = 0.299, 0.587, 0.114  # of red, green and blue (ITU-R BT.601)


@dataclass(frozen=True, eq=False)
class SegmentationData:
    """n images or volumes, their masks and their names, all at one resolution.

    images: [n, channels, height, width], or with a depth before the height, uint8, uint16 or float32. masks: [n, height, width]
    likewise, uint8, 0 … classes − 1. names: one unique name an image. source: their origin, for display.
    Raises: InvalidArgument if shapes, types or values differ from that, or a name is not unique.

    >>> import numpy as np
    >>> data = SegmentationData(np.zeros((4, 1, 8, 8), np.uint8), np.ones((4, 8, 8), np.uint8), tuple("abcd"), "zeros")
    >>> len(data), data.channels, data.image_size, data.foreground_share
    (4, 1, (8, 8), 1.0)
    """

    images: NDArray[np.unsignedinteger] | NDArray[np.float32]
    masks: NDArray[np.uint8]
    names: tuple[str, ...]
    source: str
    classes: int = 2

    def __post_init__(self) -> None:
        n, _, *size = self.images.shape if self.images.ndim > 2 else (0, 0)
        if len(size) not in (2, 3) or self.masks.shape != (n, *size) or len(self.names) != n:
            raise InvalidArgument(
                f"images {self.images.shape}, masks {self.masks.shape} and {len(self.names)} names do not belong together: "
                "expected [n, channels, height, width], [n, height, width] and n names"
            )
        if self.images.dtype not in (np.uint8, np.uint16, np.float32):
            raise InvalidArgument(f"images must be uint8, uint16 or float32, got {self.images.dtype}")
        if not 2 <= self.classes <= 255:
            raise InvalidArgument(f"classes must be 2 to 255, got {self.classes}")
        if self.masks.dtype != np.uint8 or (self.masks.size and self.masks.max() >= self.classes):
            values = "0 and 1" if self.classes == 2 else f"0 to {self.classes - 1}"
            raise InvalidArgument(
                f"masks must be uint8 with values {values}, got {self.masks.dtype} up to {self.masks.max()}"
            )
        if len(set(self.names)) != n:
            raise InvalidArgument("names must be unique, one an image")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        sides = "x".join(map(str, self.image_size))
        classes = "" if self.classes == 2 else f", {self.classes} classes"
        return f"SegmentationData({len(self)} images of {sides}, {self.channels} channels{classes}, from {self.source})"

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return int(self.images.shape[1])

    @property
    def image_size(self) -> tuple[int, ...]:
        """Height and width in pixels; of volumes, depth, height and width."""
        return tuple(map(int, self.images.shape[2:]))

    @property
    def scale(self) -> float:
        """The factor that brings the stored integers to [0, 1]; 1 for floats."""
        if self.images.dtype == np.float32:
            return 1.0
        return 1.0 / float(np.iinfo(self.images.dtype.name).max)

    @property
    def foreground_share(self) -> float:
        """The share of mask pixels that are not 0."""
        return float((self.masks > 0).mean())

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hex of names, images and masks: equal data have equal fingerprints."""
        digest = hashlib.sha256(repr((self.images.shape, self.images.dtype.str, self.names)).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.masks).data)
        return digest.hexdigest()

    def subset(self, rows: Sequence[int] | NDArray[np.integer]) -> SegmentationData:
        """The images and masks of these rows, in this order."""
        chosen = np.asarray(rows, dtype=np.int64)
        return replace(
            self, images=self.images[chosen], masks=self.masks[chosen], names=tuple(self.names[i] for i in chosen)
        )

    def split(self, validation_share: float = 0.1, *, seed: int = 0) -> tuple[SegmentationData, SegmentationData]:
        """A seeded split into a training and a validation part, with at least one image each.

        Raises: InvalidArgument if the share is not between 0 and 1 or there are fewer than two images.
        """
        if not 0 < validation_share < 1:
            raise InvalidArgument(f"validation_share must be between 0 and 1, got {validation_share}")
        if len(self) < 2:
            raise InvalidArgument(f"{len(self)} image cannot be split into training and validation: give at least 2")
        order = np.random.default_rng(seed).permutation(len(self))
        held_out = min(max(1, round(validation_share * len(self))), len(self) - 1)
        return self.subset(np.sort(order[held_out:])), self.subset(np.sort(order[:held_out]))

    def probe_set(self, n: int | None = None, *, seed: int = 0) -> SegmentationData:
        """The fixed images on which activations are measured: all of them, or a seeded choice of n.

        Raises: InvalidArgument if n is below 2 or larger than the data set.
        """
        if n is None or n == len(self):
            return self
        if not 2 <= n <= len(self):
            raise InvalidArgument(f"probe set of {n} images: expected 2 to {len(self)}, the size of {self.source}")
        return self.subset(np.sort(np.random.default_rng(seed).permutation(len(self))[:n]))
