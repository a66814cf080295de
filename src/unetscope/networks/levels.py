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
from dataclasses import dataclass
from functools import cached_property

import torch

from unetscope.activations import Graph, Node
from unetscope.networks.layouts import Layouts
from unetscope.networks.rises import Rising
from unetscope.networks.structure import (
    CREATING_PLACES,
    GATES,
    KERNELS,
    POOLING,
    REARRANGING,
    SELECTING,
    WITHIN_LAYER,
)

POOLS = {f"{how}_pool{d}d" for how in ("avg", "max", "lp") for d in (1, 2, 3)}
RESIZING = POOLS | WITHIN_LAYER | REARRANGING | {"interpolate", "upsample"}  # without computing with channels


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
        choosing = self.choosing(node)
        inputs = tuple(number for number in inputs if number not in choosing) or inputs
        placed = tuple(number for number in inputs if self.is_placed(number))
        return placed or inputs

    def choosing(self, node: Node) -> tuple[int, ...]:
        """The tensors that say only where values are taken from or put."""
        if node.name not in SELECTING:
            return ()
        return tuple(
            number
            for number, position in zip(node.inputs, node.positions, strict=True)
            if not is_value(self.graph[number]) or (node.name == "grid_sample" and position == 1)
        )

    def is_placed(self, number: int) -> bool:
        """Whether a tensor has places of the image, rather than being a condition."""
        return self._placed[number]

    @cached_property
    def _placed(self) -> list[bool]:
        placed: list[bool] = []
        of_places: list[bool] = []  # whether it is made of something that has places
        for node in self.graph.nodes:
            of_places.append(node.number == 0 or any(of_places[n] or placed[n] for n in node.inputs))
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
            # A kernel or a view makes places out of a vector of the image; to repeat it makes none.
            makes_places = places > 1 and node.name in CREATING_PLACES and of_places[-1] and not before
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
        return self._rising.of[node.number]

    @cached_property
    def lost_rises(self) -> tuple[int, ...]:
        """The tensors whose resolution is higher than before, though what raised it was not followed."""
        return self._rising.lost

    @cached_property
    def _rising(self) -> Rising:
        return Rising(self)

    @cached_property
    def layouts(self) -> Layouts:
        """Where channels and places stand in each tensor."""
        return Layouts(self)

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

    def before_rising(self, rise: int) -> int:
        """What a rising tensor is made from, before all of its axes rose."""
        while True:
            rise = max(self.value_inputs(self.graph[rise]), key=lambda n: (self.is_spatial(n), math.prod(self.grid(n))))
            node = self.graph[rise]
            if self.is_input(rise) or not self.is_rise(node) or node.weights or len(self.value_inputs(node)) > 1:
                return rise

    @cached_property
    def contexts(self) -> frozenset[int]:
        """The rises of what was pooled to a few places: summaries of the image (ASPP, PSP) and no level of the network.

        So are several that enlarge what one tensor was only pooled to, without a kernel between.
        """
        summarised = {number: self._summarised(number) for number in range(len(self.graph.nodes))}
        times = Counter(summarised.values())
        contexts = {number for number, source in summarised.items() if source is not None and times[source] > 1}
        for node in self.graph.nodes:
            if node.number in self.rises[node.number] and not self.is_input(node.number):
                source = self.graph[node.inputs[0]]
                while len(source.inputs) == 1 and not self._is_pooled(source) and not self.is_rise(source):
                    source = self.graph[source.inputs[0]]
                if self._is_pooled(source):
                    contexts.add(node.number)
        return frozenset(contexts)

    def _summarised(self, rise: int) -> int | None:
        """What a rise enlarges again, if that was only made smaller since it had as many places."""
        node, grid = self.graph[rise], self.grid(rise)
        if self.is_input(rise) or not self.is_rise(node):
            return None
        while len(inputs := self.value_inputs(node)) == 1 and self.is_spatial(inputs[0]):
            node = self.graph[inputs[0]]
            if all(map(operator.ge, self.grid(node.number), grid)):
                return node.number
            if node.name not in RESIZING or node.weights or self.is_rise(node):
                break
        return None

    def on_one_grid(self, number: int) -> frozenset[int]:
        """A tensor and those that it is made from, back to where its resolution began."""
        on_grid, pending = {number}, [number]
        while pending:
            node = self.graph[pending.pop()]
            if self.is_rise(node):
                continue
            sources = [n for n in self.value_inputs(node) if self.is_spatial(n) and self.grid(n) == self.grid(number)]
            pending += (source for source in sources if source not in on_grid)
            on_grid.update(sources)
        return frozenset(on_grid)

    def _is_pooled(self, node: Node) -> bool:
        """Whether a tensor summarises places; a mean over channels keeps them."""
        if node.name in POOLS and node.inputs and self.is_spatial(node.inputs[0]):  # by a window as large as the image
            return math.prod(self.grid(node.number)) == 1 and min(self.grid(node.inputs[0])) > 2
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
