"""Detect where skips join the upsampled path.

A join is a merge if one of its streams was upsampled and another shares none of its rises (see `levels`). The two branches of
a residual block share theirs, so that their sum is no merge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from unetscope.activations import Node, scope_of
from unetscope.networks.levels import Levels
from unetscope.networks.operations import JOINS, JoinKind
from unetscope.networks.structure import Operand

Streams = tuple[Operand, tuple[Operand, ...]]  # the upsampled stream, and the skips


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
