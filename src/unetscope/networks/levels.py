"""The resolution of each tensor in a forward pass, and where it was raised.

A tensor *rises* if its resolution is higher than that of the tensors it is made from. The rises of any tensor are the nearest
tensors upstream that rise. Two streams that share a rise were upsampled together; this tells a skip from the upsampled path.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from unetscope.activations import Graph, Node
from unetscope.networks.operations import GATES, JOINS, POOLING, REARRANGING, RESAMPLING, RESHAPING

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
        """Whether a tensor has as many axes as the image."""
        return len(self.graph[number].shape) == len(self.graph[0].shape)

    def level(self, number: int) -> int:
        """How many times the image was halved along its most reduced axis."""
        ratios = [full / side for full, side in zip(self._full_grid, self.grid(number), strict=True) if side]
        return max(0, round(math.log2(max(ratios, default=1.0))))

    @cached_property
    def _full_grid(self) -> tuple[int, ...]:
        inputs = (node.number for node in self.graph.nodes if node.name == "input")
        return max(map(self.grid, inputs), key=math.prod)

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

    def value_inputs(self, node: Node) -> tuple[int, ...]:
        """The tensors that a tensor is made from, without its gate."""
        if node.number in self.gates:
            return tuple(number for number in node.inputs if number != self.gates[node.number])
        return node.inputs

    @cached_property
    def useful(self) -> frozenset[int]:
        """The tensors from which the output is made, without what only leads to gates."""
        useful = set(self.graph.outputs)
        for node in reversed(self.graph.nodes):
            if node.number in useful:
                useful.update(self.value_inputs(node))
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
        if not node.inputs or not self.is_spatial(node.number):
            return False
        if node.name in {"view", "reshape", "contiguous", "flatten"}:
            return self._moves_channels_to_places(node)
        if node.name in REARRANGING or node.name in JOINS or node.name in POOLING:
            return False
        grids = [self.grid(number) for number in node.inputs if self.is_spatial(number)]
        if not grids:
            return False
        grown = _grown(self.grid(node.number), max(grids, key=math.prod))
        # Upsampling may leave some axes of a volume alone; any other function must enlarge all of them.
        return any(grown) if node.name in RESAMPLING else all(grown)

    def _moves_channels_to_places(self, node: Node) -> bool:
        """Whether a chain of views ends here that turns channels into places, as a sub-pixel convolution does."""
        source = self.graph[node.inputs[0]]
        while source.name in RESHAPING and source.inputs and not self.is_spatial(source.number):
            source = self.graph[source.inputs[0]]
        if not self.is_spatial(source.number) or (source.number == node.inputs[0] and source.name in RESHAPING):
            return False
        grid, source_grid = self.grid(node.number), self.grid(source.number)
        if node.shape[1] >= source.shape[1] or not any(_grown(grid, source_grid)):
            return False
        return all(side >= before for side, before in zip(grid, source_grid, strict=True))

    def is_input(self, number: int) -> bool:
        """Whether a tensor is an input of the network."""
        return self.graph[number].name == "input"

    def is_upsampled(self, number: int) -> bool:
        """Whether some part of a tensor has risen."""
        return not all(map(self.is_input, self.rises[number]))

    def is_only_upsampled(self, number: int) -> bool:
        """Whether no part of a tensor comes from the input without rising."""
        return not any(map(self.is_input, self.rises[number]))

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
        return not (self.is_spatial(node.number) and self.grid(node.number) == self.grid(node.inputs[0]))


def _grown(grid: Iterable[int], before: Iterable[int]) -> list[bool]:
    """For each axis, whether its number of places rose."""
    return [side >= MIN_RISE * side_before for side, side_before in zip(grid, before, strict=True)]
