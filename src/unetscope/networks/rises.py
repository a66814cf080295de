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
        lowest: list[tuple[int, ...]] = []  # by number, the grid of the image that it is made from
        lost: list[int] = []
        for node in levels.graph.nodes:
            rises = self._rises(node)
            self.of.append(rises)
            self._is_image.append(rises or self._has_axes_of_image(node))
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
        if self._is_image[number] or not lowest or not levels.is_spatial(number):
            return False
        return levels.grid(number) == levels.grid(node.number) and all(_grown(levels.grid(number), lowest))

    def _has_axes_of_image(self, node: Node) -> bool:
        levels = self._levels
        if not levels.is_spatial(node.number) or not levels.is_placed(node.number):
            return False
        if node.name == "input" or levels.is_kernel(node):
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
        if not node.inputs or not levels.is_spatial(node.number) or not levels.is_placed(node.number):
            return False
        grids = [levels.grid(number) for number in levels.value_inputs(node) if levels.is_spatial(number)]
        if node.name in VIEWS and self._moves_channels_to_places(node):
            return True
        if node.name in INDEXING and self._repeats_places(node):
            return True
        is_repeated = node.name == "cat" and node.dim not in (0, 1) and len(set(node.inputs)) == 1
        if not grids or is_repeated or node.name in VIEWS | INDEXING | AXIS_WISE:
            return self._is_enlarged(node)
        keeps_places = node.name in REARRANGING or node.name in POOLING or JOINS.get(node.name, "write") != "write"
        if keeps_places and not (node.name == "pad" and node.dtype.is_complex):  # a padded spectrum has more places
            return False
        grown = _grown(levels.grid(node.number), max(grids, key=math.prod))
        # Upsampling may leave some axes of a volume alone; any other function must enlarge all of them.
        return any(grown) if node.name in RESAMPLING else all(grown)

    def _is_enlarged(self, node: Node) -> bool:
        """Whether a tensor has the channels of the nearest images that it is made from, and more places.

        A function made for upsampling, as a fold, may have other channels.
        """
        levels, grid = self._levels, self._levels.grid(node.number)
        sources = [levels.graph[number] for number in self._sources(node)]
        if not sources:
            return False
        largest = max(sources, key=lambda source: math.prod(levels.grid(source.number)))
        before = levels.grid(largest.number)
        has_channels = node.name in RESAMPLING or node.shape[:2] == (self._batch, largest.shape[1])
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
        levels = self._levels
        source = levels.graph[node.inputs[0]]
        while source.name in UNFOLDING and source.inputs and not levels.is_spatial(source.number):
            source = levels.graph[source.inputs[0]]
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
