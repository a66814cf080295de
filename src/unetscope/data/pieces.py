"""Volumes as images of one size: in slices, in patches, or whole.

There is one rule for all of them: a piece is a window of a volume, resized where it has another size than is asked for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from unetscope.base import InvalidArgument
from unetscope.data.problems import Problem, Unusable, problem

VolumeUse = Literal["slices", "patches", "whole"]

MOST_PIECES = 100_000  # of one volume
VOLUME_SIDES = 3
AXES = "zyx"  # of depth, height and width


@dataclass(frozen=True)
class Piece:
    """A window of a volume. name, group: what they add to the volume's name to name the image and its group."""

    name: str
    window: tuple[int | slice, ...]
    group: str = ""

    def cut(self, values: NDArray[Any], size: Sequence[int], *, order: int) -> NDArray[Any]:
        """The piece of some values [*sides], resized to a size. order: as of `resized`."""
        return resized(values[self.window], size, order=order)


@dataclass(frozen=True)
class Cutting:
    """How images and volumes of any size become images of one size.

    size: (height, width) or (depth, height, width). volumes: `"slices"`: each slice along the depth is an image of its own;
    `"patches"`: windows of the size that cover a volume, at its own voxels; `"whole"`: resampled to the size. is_assumed:
    whether nobody said so.

    >>> pieces = Cutting.of((4, 8, 8), "patches").pieces((6, 8, 16))
    >>> [piece.name for piece in pieces]
    [' z0 y0 x0', ' z0 y0 x8', ' z2 y0 x0', ' z2 y0 x8']
    >>> pieces[3].window
    (slice(2, 6, None), slice(0, 8, None), slice(8, 16, None))
    """

    size: tuple[int, ...]
    volumes: VolumeUse
    is_assumed: bool = False

    @classmethod
    def of(cls, size: Sequence[int], volumes: str | None = None) -> Cutting:
        """The cutting to a size; without a word, volumes are slices for two sides and patches for three.

        Raises: InvalidArgument for a use that does not go with the size.
        """
        use: VolumeUse | None = next((use for use in get_args(VolumeUse) if use == volumes), None)
        if volumes is not None and use is None:
            raise InvalidArgument(f"volumes must be one of {', '.join(get_args(VolumeUse))}, got {volumes!r}")
        keeps_depth = len(size) == VOLUME_SIDES
        if use is None:
            return cls(tuple(size), "patches" if keeps_depth else "slices", is_assumed=True)
        if (use == "slices") == keeps_depth:
            expected = "two sides, such as 64x64" if use == "slices" else "three sides, such as 16x64x64"
            raise InvalidArgument(
                f"volumes as {use} need an image size of {expected}, got {shown(size)}: change --image-size or --volumes"
            )
        return cls(tuple(size), use)

    @property
    def takes_pages(self) -> bool:
        """Whether the pages of a TIFF are slices: they may be anything else, so somebody has to have said so."""
        return not (self.is_assumed and self.volumes == "slices")

    def check(self, sides: Sequence[int], file: str) -> None:
        """Raises: Unusable (flat-image, many-patches) for an image or a volume that cannot be cut so."""
        if len(self.size) != VOLUME_SIDES:
            return
        if len(sides) != VOLUME_SIDES or sides[0] == 1:
            what = f"it is a single slice of {shown(sides[-2:])} pixels, and the image size {shown(self.size)} is of volumes"
            raise Unusable("flat-image", file, what)
        if self.volumes == "patches" and (count := math.prod(map(len, self._starts(sides)))) > MOST_PIECES:
            what = f"its {shown(sides)} voxels would be {count} patches of {shown(self.size)}, more than {MOST_PIECES}"
            raise Unusable("many-patches", file, what)

    def pieces(self, sides: Sequence[int], *, is_alone: bool = False) -> list[Piece]:
        """The pieces of an image or a volume with these sides, which `check` has passed.

        is_alone: whether it is the only one of its set. Patches are then cut in slabs along the depth with a gap between them,
        and each slab is a group, so that one part can be held out.
        """
        if self.volumes == "whole" or len(sides) < VOLUME_SIDES:
            return [Piece("", (slice(None),) * len(sides))]
        if self.volumes == "slices":
            return [Piece(f" z{z}", (z, slice(None), slice(None))) for z in range(sides[0])]
        depths, *across = self._starts(sides)
        slabs = slab_starts(sides[0], self.size[0]) if is_alone else []
        pieces = []
        for corner in itertools.product(slabs or depths, *across):
            window = tuple(slice(start, start + length) for start, length in zip(corner, self.size, strict=True))
            name = "".join(f" {axis}{start}" for axis, start in zip(AXES, corner, strict=True))
            pieces.append(Piece(name, window, f" z{corner[0]}" if slabs else ""))
        return pieces

    def _starts(self, sides: Sequence[int]) -> list[list[int]]:
        return [_even_starts(side, length) for side, length in zip(sides, self.size, strict=True)]


def _even_starts(side: int, length: int) -> list[int]:
    """Where windows of a length begin that cover a side, as few and as evenly spaced as can be.

    >>> _even_starts(20, 8), _even_starts(16, 8), _even_starts(5, 8)
    ([0, 6, 12], [0, 8], [0])
    """
    count = -(-side // length)
    return [round(number * (side - length) / (count - 1)) for number in range(count)] if count > 1 else [0]


def slab_starts(depth: int, length: int) -> list[int]:
    """Where slabs of a length begin along a depth, with gaps of at least half a slab between; none if there is no room for two.

    >>> slab_starts(20, 8), slab_starts(64, 8), slab_starts(19, 8)
    ([0, 12], [0, 14, 28, 42, 56], [])
    """
    gap = max(1, length // 2)
    count = (depth + gap) // (length + gap)
    return [round(number * (depth - length) / (count - 1)) for number in range(count)] if count > 1 else []


def cutting_problems(cutting: Cutting, sides: Sequence[tuple[str, Sequence[int]]], source: str) -> list[Problem]:
    """What is to be said of how volumes were cut. sides: of every volume its name and its sides; flat images are none."""
    volumes = [(name, of_volume) for name, of_volume in sides if len(of_volume) == VOLUME_SIDES]
    return list(_cutting_problems(cutting, volumes, source)) if volumes else []


def groups_of_pieces(groups: Sequence[str]) -> tuple[str, ...]:
    """The groups of images that are pieces of volumes; none if no two pieces are of one volume."""
    return tuple(groups) if len(set(groups)) < len(groups) else ()


def _cutting_problems(cutting: Cutting, volumes: Sequence[tuple[str, Sequence[int]]], source: str) -> Iterator[Problem]:
    if cutting.volumes == "slices":
        if cutting.is_assumed:
            slices = sum(sides[0] for _, sides in volumes)
            what = f"its {len(volumes)} volumes are {slices} slices along their depth, those of a volume a group"
            yield problem("assumed-slices", source, what)
        return
    thin = [
        volume for volume in volumes if any(have < asked for have, asked in zip(volume[1], cutting.size, strict=True))
    ]
    if thin and cutting.volumes == "patches":
        name, sides = thin[0]
        what = (
            f"{len(thin)} of {len(volumes)} volumes are smaller than {shown(cutting.size)} along a side, such as {name} "
            f"({shown(sides)}), and are stretched there"
        )
        yield problem("thin-volume", source, what)
    if len(volumes) == 1 and cutting.volumes == "patches":
        depth, length = volumes[0][1][0], cutting.size[0]
        slabs = slab_starts(depth, length)
        what = (
            f"its only volume is cut along its depth of {depth} into {len(slabs)} slabs of {length} slices with gaps between, "
            "each a group"
            if slabs
            else f"its only volume has {depth} slices, too few for two slabs of {length} with a gap: none can be held out"
        )
        yield problem("one-volume", source, what)


def resized(values: NDArray[Any], size: Sequence[int], *, order: int) -> NDArray[Any]:
    """Values [*sides] resized. order: 1 to interpolate linearly, 0 to take the nearest value."""
    if values.shape == tuple(size):
        return values
    from scipy.ndimage import zoom

    factors = [side / side_before for side, side_before in zip(size, values.shape, strict=True)]
    return np.asarray(zoom(values, factors, order=order, mode="nearest", grid_mode=True))


def shown(sides: Sequence[int]) -> str:
    """Sides as they are written.

    >>> shown((16, 64, 64))
    '16x64x64'
    """
    return "x".join(map(str, sides))
