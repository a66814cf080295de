"""Where the resolution rises, by whatever means: functions made for it, views, indices, products with matrices.

Of the tensors with as many axes as the image, *images* are those whose axes are [batch, channels, *sides]; windows, heads and
tensors with channels last are others. What is made of images through such tensors, or through tokens, is compared with the
images.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING

from unetscope.activations import Node
from unetscope.networks.structure import (
    JOINS,
    POOLING,
    REARRANGING,
    RESAMPLING,
    RESHAPING,
    UNFOLDING,
)

if TYPE_CHECKING:
    from unetscope.networks.levels import Levels

MIN_RISE = 1.5  # times the places along an axis; padding and cropping change it by less

TRANSFORMS = {f"fft_{kind}fft{axes}" for kind in ("", "r", "h") for axes in ("", "2", "n")}
INVERSE_TRANSFORMS = {f"fft_i{kind}fft{axes}" for kind in ("", "r", "h") for axes in ("", "2", "n")}
VIEWS = {"view", "reshape", "contiguous", "flatten", "unsafe_view"}
INDEXING = {"getitem", "index_select", "index", "take_along_dim", "gather"}
# Functions that may raise the resolution along one axis at a time.
AXIS_WISE = {
    "matmul", "einsum", "tensordot", "linear", "repeat", "tile", "index_copy", "index_add", "scatter", "slice_scatter",
}  # fmt: skip


class Rising:
    """Which tensors rise. of: by number, whether it does. lost: those that are higher than the images that they are made of,
    though no rise lies between."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self._batch = levels.graph[0].shape[0]
        self.of: list[bool] = []
        self._is_image: list[bool] = []
        self._images: list[frozenset[int]] = []  # by number, the nearest images that it is made from, or itself
        self._spectrum_of: list[tuple[int, ...]] = []  # by number of a spectrum, the grid of what was transformed
        self._channels_last: list[tuple[int, ...]] = []  # by number of an image with channels last, its grid
        lowest: list[tuple[int, ...]] = []  # by number, the grid of the image that it is made from
        lost: list[int] = []
        for node in levels.graph.nodes:
            self._spectrum_of.append(self._transformed(node))
            rises = self._rises(node)
            self.of.append(rises)
            self._is_image.append(rises or self._has_axes_of_image(node))
            self._channels_last.append(self._turned(node))
            self._images.append(frozenset({node.number}) if self._is_image[-1] else self._sources(node))
            grids = [lowest[number] for number in levels.value_inputs(node) if lowest[number] and not rises]
            lowest.append(max(grids, key=math.prod, default=()))
            if self._is_image[-1]:
                lost += (number for number in levels.value_inputs(node) if self._is_lost(number, node, lowest[number]))
                grown = _grown(levels.grid(node.number), lowest[-1]) if lowest[-1] else [False]
                if all(grown) and not self._is_margin(node, lowest[-1]) and node.name not in POOLING:
                    lost.append(node.number)
                if all(grown) or not any(grown):  # what has grown along one axis may grow along the next
                    lowest[-1] = levels.grid(node.number)
        self.lost = tuple(dict.fromkeys(lost))

    def _is_margin(self, node: Node, before: tuple[int, ...]) -> bool:
        """Whether a tensor is padded only for convolutions that take the margin off again."""
        graph, consumers = self._levels.graph, self._levels.graph.consumers[node.number]
        return node.name == "pad" and all(
            self._levels.is_kernel(graph[number]) and not all(_grown(self._levels.grid(number), before))
            for number in consumers
        )

    def _is_lost(self, number: int, node: Node, lowest: tuple[int, ...]) -> bool:
        """Whether an operand of an image is no image, and yet has its places and more than the images that it is made from."""
        levels = self._levels
        if self._is_image[number] or self._spectrum_of[number] or not lowest or not levels.is_spatial(number):
            return False
        return levels.grid(number) == levels.grid(node.number) and all(_grown(levels.grid(number), lowest))

    def _transformed(self, node: Node) -> tuple[int, ...]:
        """Of a spectrum, the places of what was transformed; empty for anything else."""
        inputs = [n for n in self._levels.value_inputs(node) if self._levels.is_spatial(n)]
        if node.name in TRANSFORMS:
            return max((self._spectrum_of[n] or self._levels.grid(n) for n in inputs), key=math.prod, default=())
        if node.name in INVERSE_TRANSFORMS:
            return ()
        return max((self._spectrum_of[n] for n in self._levels.value_inputs(node)), key=math.prod, default=())

    def _turned(self, node: Node) -> tuple[int, ...]:
        """Of an image whose channels stand last, its places, which views may enlarge; empty for anything else."""
        levels, grid = self._levels, node.shape[1:-1]
        sources = [n for n in levels.value_inputs(node) if levels.is_placed(n)]
        if self.of[node.number] or not levels.is_spatial(node.number) or not sources:
            return ()
        if any(self._channels_last[n] == grid and levels.graph[n].shape[0] == node.shape[0] for n in sources):
            return grid
        if node.name in RESHAPING and any(self._is_turned(levels.graph[n], node) for n in sources if self._is_image[n]):
            return grid
        source = self._before_unfolding(node)
        before, is_view = self._channels_last[source.number], math.prod(source.shape) == math.prod(node.shape)
        return grid if node.name in VIEWS and before and is_view and _is_magnified(grid, before) else ()

    @staticmethod
    def _is_turned(image: Node, last: Node) -> bool:
        """Whether a tensor has the axes of an image, with its channels last."""
        return last.shape == (image.shape[0], *image.shape[2:], image.shape[1])

    def _before_unfolding(self, node: Node) -> Node:
        """What has the axes of the network's images before a chain of views."""
        source = self._levels.graph[node.inputs[0]]
        while source.name in UNFOLDING and source.inputs and not self._levels.is_spatial(source.number):
            source = self._levels.graph[source.inputs[0]]
        return source

    def _has_axes_of_image(self, node: Node) -> bool:
        levels = self._levels
        if not levels.is_spatial(node.number) or not levels.is_placed(node.number) or self._spectrum_of[node.number]:
            return False
        if node.name in INVERSE_TRANSFORMS | {"input"} or levels.is_kernel(node):
            return True
        inputs = [number for number in levels.value_inputs(node) if levels.is_placed(number)]
        beside = [
            number for number in inputs if self._is_image[number] and levels.grid(number) == levels.grid(node.number)
        ]
        if all(map(self._is_image.__getitem__, inputs)) or (beside and node.name not in RESHAPING):
            return node.name not in RESHAPING or not inputs or node.shape[:2] == levels.graph[inputs[0]].shape[:2]
        # What has been tokens or windows is an image again if it has the places of one.
        grids = {levels.grid(number) for number in self._sources(node)}
        return node.name in RESHAPING and node.shape[0] == self._batch and levels.grid(node.number) in grids

    def _sources(self, node: Node) -> frozenset[int]:
        """The nearest images that a tensor is made from."""
        return frozenset().union(*(self._images[number] for number in self._levels.value_inputs(node)))

    def _rises(self, node: Node) -> bool:
        levels = self._levels
        is_spectrum = self._spectrum_of[node.number]  # whose places are no resolution
        if not node.inputs or is_spectrum or not levels.is_spatial(node.number) or not levels.is_placed(node.number):
            return False
        grids = [levels.grid(number) for number in levels.value_inputs(node) if levels.is_spatial(number)]
        first, grid = levels.graph[node.inputs[0]], levels.grid(node.number)
        if node.name in INVERSE_TRANSFORMS and (before := self._spectrum_of[first.number]):
            return any(_grown(grid, before))
        is_view, is_indexed = node.name in VIEWS, node.name in INDEXING
        if (is_view and self._moves_channels_to_places(node)) or (is_indexed and self._repeats_places(node)):
            return True
        is_turned = bool(node.name in RESHAPING and self._channels_last[first.number] and self._is_turned(node, first))
        is_repeated = node.name == "cat" and node.dim not in (0, 1) and len(set(node.inputs)) == 1
        if not grids or is_repeated or is_turned or node.name in VIEWS | INDEXING | AXIS_WISE:
            return self._is_enlarged(node, same_channels=not is_turned)
        if node.name in REARRANGING or node.name in POOLING or JOINS.get(node.name, "write") != "write":
            return False
        grown = _grown(grid, max(grids, key=math.prod))
        # Upsampling may leave some axes of a volume alone; any other function must enlarge all of them.
        return any(grown) if node.name in RESAMPLING else all(grown)

    def _is_enlarged(self, node: Node, *, same_channels: bool = True) -> bool:
        """Whether a tensor has the channels of the nearest images that it is made from, and more places.

        same_channels: whether that is asked for. A function made for upsampling, as a fold, may have other channels.
        """
        levels, grid = self._levels, self._levels.grid(node.number)
        sources = [levels.graph[number] for number in self._sources(node)]
        if not sources:
            return False
        largest = max(sources, key=lambda source: math.prod(levels.grid(source.number)))
        before = levels.grid(largest.number)
        has_channels = not same_channels or node.name in RESAMPLING or node.shape[:2] == (self._batch, largest.shape[1])
        return has_channels and any(_grown(grid, before)) and all(map(operator.ge, grid, before))

    def _repeats_places(self, node: Node) -> bool:
        """Whether indices take every place more than once, as upsampling by hand does."""
        levels = self._levels
        source = levels.graph[node.inputs[0]]
        if not levels.is_spatial(source.number):
            return False
        grid, before = levels.grid(node.number), levels.grid(source.number)
        return any(_grown(grid, before)) and all(map(operator.ge, grid, before))

    def _moves_channels_to_places(self, node: Node) -> bool:
        """Whether a chain of views ends here that turns channels into places, or repeats places along axes of their own."""
        levels, source = self._levels, self._before_unfolding(node)
        if not levels.is_spatial(source.number) or (source.number == node.inputs[0] and source.name in RESHAPING):
            return False
        grid, before = levels.grid(node.number), levels.grid(source.number)
        if math.prod(node.shape) > math.prod(source.shape):  # places are repeated
            return any(_grown(grid, before)) and all(map(operator.ge, grid, before))
        return node.shape[1] < source.shape[1] and _is_magnified(grid, before)


def _is_magnified(grid: tuple[int, ...], before: tuple[int, ...]) -> bool:
    """Whether a grid is another, the same number of times larger along all axes (of a volume, all but one)."""
    factors = {side / old for side, old in zip(grid, before, strict=True)}
    if len(grid) > 2:
        factors -= {1.0}
    return len(factors) == 1 and min(factors) >= MIN_RISE


def _grown(grid: Iterable[int], before: Iterable[int]) -> list[bool]:
    """For each axis, whether its number of places rose."""
    return [side >= MIN_RISE * side_before for side, side_before in zip(grid, before, strict=True)]
