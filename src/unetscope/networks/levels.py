"""The resolution of each tensor of a forward pass, and where it rises.

A tensor *rises* if its resolution is higher than that of the tensors it is made from. The rises of any tensor are the nearest
tensors upstream that rise. Two streams that share a rise were upsampled together.

Only tensors that keep the places of the image count. What was pooled to one place, or came in without any, as a time step or
the data of a patient, is a *condition*: it says the same at every place, and takes no part in what rises.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch

from unetscope.activations import Graph, Node
from unetscope.networks.structure import (
    CREATING_PLACES,
    GATES,
    JOINS,
    KERNELS,
    POOLING,
    REARRANGING,
    RESAMPLING,
    RESHAPING,
    SELECTING,
    UNFOLDING,
)

MIN_RISE = 1.5  # times the places along an axis; padding and cropping change it by less


@dataclass(frozen=True, eq=False)
class Levels:
    """A graph with the resolution of its tensors. The first input is the image, [batch, channels, *sides].

    A tensor is made from tensors of lower numbers, so that one walk over the nodes answers each question.
    """

    graph: Graph

    def grid(self, number: int) -> tuple[int, ...]:
        """The places along each axis, without batch and channels."""
        return self.graph[number].shape[2:]

    def is_spatial(self, number: int) -> bool:
        """Whether a tensor has the axes on which the convolutions of the network work."""
        return len(self.graph[number].shape) == self._axes

    @cached_property
    def _axes(self) -> int:
        """How many axes [batch, channels, *sides] are: those of the image, or of most convolutions if none has these."""
        axes = Counter(len(node.shape) for node in self.graph.nodes if self.is_kernel(node))
        of_image = len(self.graph[0].shape)
        return of_image if of_image in axes or not axes else axes.most_common(1)[0][0]

    def level(self, number: int) -> int:
        """How many times the image was halved along its most reduced axis."""
        ratios = [full / side for full, side in zip(self._full_grid, self.grid(number), strict=True) if side]
        return max(0, round(math.log2(max(ratios, default=1.0))))

    @cached_property
    def _full_grid(self) -> tuple[int, ...]:
        sides = self._axes - 2
        image = self.graph[0].shape[2:]
        grids = [self.grid(n.number) for n in self.graph.nodes if n.name == "input" and self.is_spatial(n.number)]
        return max([((1,) * sides + image)[-sides:], *grids], key=math.prod)

    # What a tensor is made from.

    @cached_property
    def gates(self) -> dict[int, int]:
        """By product, the operand that only weighs the other, as in attention and squeeze-and-excitation."""
        gates = {}
        for node in self.graph.nodes:
            if node.name == "mul" and len(node.inputs) == 2:
                weights = [number for number in node.inputs if self._is_weight(number)]
                if weights:
                    gates[node.number] = weights[-1]  # of two weights, the product still has to be made from one
        return gates

    def _is_weight(self, number: int) -> bool:
        node = self.graph[number]
        if node.name in GATES:
            return True
        keeps_weights = node.name in REARRANGING or node.name in {"interpolate", "add", "mul"}
        return keeps_weights and bool(node.inputs) and all(map(self._is_weight, node.inputs))

    def weighed_inputs(self, node: Node) -> tuple[int, ...]:
        """The tensors that a tensor is made from, without its gate."""
        return tuple(number for number in node.inputs if number != self.gates.get(node.number))

    def value_inputs(self, node: Node) -> tuple[int, ...]:
        """The tensors that a tensor is made from, place by place: without its gate, indices and conditions.

        If there are conditions alone, these.
        """
        inputs = self.weighed_inputs(node)
        if node.name in SELECTING:
            values = [
                n
                for n, position in zip(node.inputs, node.positions, strict=True)
                if not self._selects(node, n, position)
            ]
            inputs = tuple(values) or inputs
        placed = tuple(number for number in inputs if self.is_placed(number))
        return placed or inputs

    def _selects(self, node: Node, number: int, position: int) -> bool:
        """Whether an argument says only where values are taken from or put."""
        return not is_value(self.graph[number]) or (node.name == "grid_sample" and position == 1)

    def is_placed(self, number: int) -> bool:
        """Whether a tensor has places of the image, rather than being a condition."""
        return self._placed[number]

    @cached_property
    def _placed(self) -> list[bool]:
        placed: list[bool] = []
        for node in self.graph.nodes:
            spatial = self.is_spatial(node.number)
            places = math.prod(self.grid(node.number)) if spatial else 0
            if node.name == "input":
                placed.append(node.number == 0 or places > 1)
                continue
            inputs = self.weighed_inputs(node)
            if self._is_pooled(node) and places <= 1:
                placed.append(False)
                continue
            before = [number for number in inputs if placed[number]]
            # A kernel or a view makes places out of a vector; to repeat it makes none.
            makes_places = places > 1 and node.name in CREATING_PLACES and bool(inputs) and not before
            placed.append(bool(before) or makes_places)
        return placed

    @cached_property
    def useful(self) -> frozenset[int]:
        """The tensors from which the output is made, without what only leads to gates."""
        useful = set(self.graph.outputs)
        for node in reversed(self.graph.nodes):
            if node.number in useful:
                useful.update(self.weighed_inputs(node))
        return frozenset(useful)

    # Where the resolution rises.

    @cached_property
    def rises(self) -> tuple[frozenset[int], ...]:
        """By number of a tensor, the nearest tensors upstream that rise (itself, if it does), or the input if none does."""
        rises: list[frozenset[int]] = []
        for node in self.graph.nodes:
            if node.name == "input" or self.is_rise(node):
                rises.append(frozenset({node.number}))
            else:
                rises.append(frozenset().union(*(rises[number] for number in self.value_inputs(node))))
        return tuple(rises)

    def is_rise(self, node: Node) -> bool:
        """Whether a tensor has a higher resolution than the tensors it is made from."""
        if not node.inputs or not self.is_spatial(node.number) or not self.is_placed(node.number):
            return False
        if node.name in {"view", "reshape", "contiguous", "flatten", "unsafe_view"}:
            return self._moves_channels_to_places(node)
        if node.name in {"getitem", "index_select", "index", "take_along_dim", "gather"}:
            return self._repeats_places(node)
        keeps_places = node.name in REARRANGING or node.name in POOLING or JOINS.get(node.name, "write") != "write"
        grids = [self.grid(number) for number in self.value_inputs(node) if self.is_spatial(number)]
        if keeps_places or not grids:
            return False
        grown = _grown(self.grid(node.number), max(grids, key=math.prod))
        # Upsampling may leave some axes of a volume alone; any other function must enlarge all of them.
        return any(grown) if node.name in RESAMPLING else all(grown)

    def _repeats_places(self, node: Node) -> bool:
        """Whether indices take every place more than once, as upsampling by hand does."""
        source = self.graph[node.inputs[0]]
        if not self.is_spatial(source.number):
            return False
        grid, before = self.grid(node.number), self.grid(source.number)
        return any(_grown(grid, before)) and all(map(operator.ge, grid, before))

    def _moves_channels_to_places(self, node: Node) -> bool:
        """Whether a chain of views ends here that turns channels into places, or repeats places along axes of their own."""
        source = self.graph[node.inputs[0]]
        while source.name in UNFOLDING and source.inputs and not self.is_spatial(source.number):
            source = self.graph[source.inputs[0]]
        if not self.is_spatial(source.number) or (source.number == node.inputs[0] and source.name in RESHAPING):
            return False
        grid, before = self.grid(node.number), self.grid(source.number)
        if math.prod(node.shape) > math.prod(source.shape):  # places are repeated
            return any(_grown(grid, before)) and all(map(operator.ge, grid, before))
        return node.shape[1] < source.shape[1] and self._is_magnified(grid, before)

    @staticmethod
    def _is_magnified(grid: tuple[int, ...], before: tuple[int, ...]) -> bool:
        """Whether a grid is another, the same number of times larger along all axes (of a volume, all but one)."""
        factors = {side / old for side, old in zip(grid, before, strict=True)}
        if len(grid) > 2:
            factors -= {1.0}
        return len(factors) == 1 and min(factors) >= MIN_RISE

    @staticmethod
    def is_kernel(node: Node) -> bool:
        """Whether a convolution makes a tensor, be it within a script."""
        return node.name in KERNELS or any("conv" in operation for operation in node.operations)

    def is_input(self, number: int) -> bool:
        """Whether a tensor is an input of the network."""
        return self.graph[number].name == "input"

    def is_upsampled(self, number: int) -> bool:
        """Whether some part of a tensor has risen."""
        return not all(map(self.is_input, self.rises[number]))

    def is_only_upsampled(self, number: int) -> bool:
        """Whether no part of a tensor comes from the input without rising."""
        return not any(map(self.is_input, self.rises[number]))

    def risen(self, number: int) -> frozenset[int]:
        """The rises of a tensor, without inputs."""
        return frozenset(rise for rise in self.rises[number] if not self.is_input(rise))

    def grid_before(self, rise: int) -> tuple[int, ...]:
        """The places of what a rising tensor is made from."""
        node = self.graph[rise]
        spatial = [number for number in self.value_inputs(node) if self.is_spatial(number)]
        return max(map(self.grid, spatial), key=math.prod, default=())

    @cached_property
    def contexts(self) -> frozenset[int]:
        """The rises of what was pooled to a few places: summaries of the image (ASPP, PSP) and no level of the network."""
        contexts = set()
        for node in self.graph.nodes:
            if node.number in self.rises[node.number] and not self.is_input(node.number):
                source = self.graph[node.inputs[0]]
                while len(source.inputs) == 1 and not self._is_pooled(source) and not self.is_rise(source):
                    source = self.graph[source.inputs[0]]
                if self._is_pooled(source):
                    contexts.add(node.number)
        return frozenset(contexts)

    def _is_pooled(self, node: Node) -> bool:
        """Whether a tensor summarises places; a mean over channels keeps them."""
        if node.name not in POOLING or not node.inputs:
            return False
        if not self.is_spatial(node.number):
            return True
        source = node.inputs[0]  # of another number of axes if it is a stack
        return self.is_spatial(source) and self.grid(node.number) != self.grid(source)


def is_value(node: Node) -> bool:
    """Whether a tensor holds values, rather than indices or decisions."""
    kind = node.dtype
    return kind.is_floating_point or kind.is_complex or kind in QUANTIZED


QUANTIZED = {torch.quint8, torch.qint8, torch.qint32, torch.quint4x2}


def _grown(grid: Iterable[int], before: Iterable[int]) -> list[bool]:
    """For each axis, whether its number of places rose."""
    return [side >= MIN_RISE * side_before for side, side_before in zip(grid, before, strict=True)]
