"""Detect where skips join the upsampled path, from the resolution of each tensor in a forward pass.

A tensor *rises* if its resolution is higher than that of the tensors it is made from. The rises of any tensor are the nearest
tensors upstream that rise. Two streams that share a rise were upsampled together. A join is a merge if one of its streams was
upsampled and another shares none of its rises. The two branches of a residual block share theirs: their sum is no merge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from unetscope.activations import Graph, Node, scope_of
from unetscope.networks.structure import GATES, JOINS, POOLING, REARRANGING, RESAMPLING, RESHAPING, JoinKind, Operand

MIN_RISE = 1.5  # times the places along an axis; padding and cropping change it by less

Streams = tuple[Operand, tuple[Operand, ...]]  # the upsampled stream, and the skips


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


@dataclass(frozen=True, slots=True)
class Join:
    """A merge before its layers have labels. number: of the joined tensor."""

    number: int
    kind: JoinKind
    upsampled: Operand
    skips: tuple[Operand, ...]

    @property
    def streams(self) -> tuple[int, ...]:
        """The numbers of the tensors that are joined, the upsampled one first."""
        return self.upsampled.tensor, *(skip.tensor for skip in self.skips)


def find_joins(levels: Levels) -> tuple[Join, ...]:
    """Every merge of a network, in the order in which they run."""
    joins: list[Join] = []
    absorbed: set[int] = set()
    # Backwards, so that a join is met before the inner joins whose streams it takes over.
    for node in reversed(levels.graph.nodes):
        number = node.number
        if node.name not in JOINS or number in absorbed or number in levels.gates or number not in levels.useful:
            continue
        operands = list(_operands(levels, node))
        absorbed.update(_inner_joins(levels, node))
        if len(operands) > 1 and (streams := _separate(levels, node, operands)) is not None:
            joins.append(Join(number, JOINS[node.name], *streams))
    return tuple(reversed(joins))


def _operands(levels: Levels, node: Node) -> Iterator[Operand]:
    """The streams that a join brings together, with those of its inner joins in their place."""
    if not _is_join(levels, node):
        return
    for number, position in zip(node.inputs, node.positions, strict=True):
        if _is_inner_join(levels, number, node):
            for operand in _operands(levels, levels.graph[number]):
                yield Operand(operand.tensor, (*operand.path, (node.address, position)))
        else:
            yield Operand(number, ((node.address, position),))


def _inner_joins(levels: Levels, node: Node) -> Iterator[int]:
    """The numbers of the joins whose streams `_operands` takes over."""
    if _is_join(levels, node):
        for number in node.inputs:
            if _is_inner_join(levels, number, node):
                yield number
                yield from _inner_joins(levels, levels.graph[number])


def _is_inner_join(levels: Levels, number: int, outer: Node) -> bool:
    """Whether a tensor is a join of the same kind that only feeds `outer`, as in cat(cat(a, b), c) and a + b + c."""
    inner = levels.graph[number]
    if levels.graph.consumers[number] != (outer.number,):
        return False
    if inner.name == "stack":
        return True
    if JOINS.get(inner.name) != JOINS.get(outer.name) or not _is_join(levels, inner):
        return False
    # The sum that closes a residual block is one stream, not two.
    rises = [levels.rises[operand] for operand in inner.inputs]
    return inner.name == "cat" or len(rises) < 2 or not frozenset.intersection(*rises)


def _is_join(levels: Levels, node: Node) -> bool:
    """Whether a tensor brings others together place by place."""
    if node.name == "stack":
        return node.dim is not None
    if node.name == "sum":  # of a stack along its new axis
        source = levels.graph[node.inputs[0]] if node.inputs else node
        return source.name == "stack" and source.dim == node.dim
    if node.name not in JOINS or not levels.is_spatial(node.number) or not node.inputs:
        return False
    if node.name == "cat":
        return node.dim == 1
    return all(levels.grid(number) == levels.grid(node.number) for number in node.inputs)


def _separate(levels: Levels, node: Node, operands: Sequence[Operand]) -> Streams | None:
    """The stream that rose last, and the streams that did not rise with it; None if the join is no merge."""
    streams = [stream for stream in operands if levels.is_spatial(stream.tensor) and levels.rises[stream.tensor]]
    upsampled = [
        stream
        for stream in streams
        if levels.is_only_upsampled(stream.tensor) and not levels.rises[stream.tensor] & levels.contexts
    ]
    if not upsampled:
        return _around_bottom(levels, node, streams)
    last = max(upsampled, key=lambda stream: max(levels.rises[stream.tensor]))
    skips = tuple(stream for stream in streams if _is_skip(levels, node, stream.tensor, last.tensor))
    return (last, skips) if skips else None


def _is_skip(levels: Levels, node: Node, stream: int, upsampled: int) -> bool:
    """Whether a stream reaches a join by another way than the upsampled stream."""
    rises, upsampled_rises = levels.rises[stream], levels.rises[upsampled]
    if rises & upsampled_rises or (rises <= levels.contexts and levels.is_upsampled(stream)):
        return False
    return not (levels.is_only_upsampled(stream) and _are_residual_branches(levels, node, rises, upsampled_rises))


def _are_residual_branches(levels: Levels, node: Node, rises: Iterable[int], upsampled_rises: Iterable[int]) -> bool:
    """Whether both streams rise from one stream within the block that joins them: a residual block that upsamples."""
    sources = [{levels.rises[levels.graph[n].inputs[0]] for n in group} for group in (rises, upsampled_rises)]
    block = scope_of(node.address)
    scopes = {scope_of(levels.graph[n].address) for n in (*rises, *upsampled_rises)}
    within_block = bool(block) and all(scope == block or scope.startswith(f"{block}.") for scope in scopes)
    return sources[0] == sources[1] and within_block


def _around_bottom(levels: Levels, node: Node, streams: Sequence[Operand]) -> Streams | None:
    """The streams of a skip around a bottom that has the resolution of the level above it.

    Neither stream has risen, but the concatenation is upsampled next. In a dense block that ends a level, both streams descend
    from earlier concatenations, so that is excluded.
    """
    if node.name != "cat" or len(streams) != 2:
        return None
    first, second = sorted(streams, key=lambda stream: stream.tensor)
    consumers = [levels.graph[number] for number in levels.graph.consumers[node.number]]
    if not any(map(levels.is_rise, consumers)) or _is_in_dense_block(levels, node):
        return None
    return (second, (first,)) if second.tensor in levels.graph.descendants({first.tensor}) else None


def _is_in_dense_block(levels: Levels, node: Node) -> bool:
    """Whether another concatenation stands before this one, since the last rise."""
    visited, pending = set(), list(node.inputs)
    while pending:
        number = pending.pop()
        if number in visited or number in levels.rises[number]:
            continue
        visited.add(number)
        source = levels.graph[number]
        if source.name == "cat" and source.dim == 1:
            return True
        pending += levels.value_inputs(source)
    return False
