"""A skip around a bottom of a network that has the resolution of the level above it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from unetscope.activations import Node, scope_of
from unetscope.networks.levels import Levels
from unetscope.networks.structure import JoinKind, Operand, Streams


def around_bottom(levels: Levels, node: Node, kind: JoinKind, streams: Sequence[Operand]) -> Streams | None:
    """The streams of a skip around a bottom that has the resolution of the level above it.

    Neither stream has risen, but what they make is upsampled next. In a dense block that ends a level, both streams descend
    from earlier concatenations, so that is excluded; so is the sum of a residual block, which spans no other sum or takes what
    was made outside of its module.
    """
    if kind not in {"cat", "add"} or len(streams) != 2:
        return None
    first, second = sorted(streams, key=lambda stream: stream.tensor)
    consumers = [levels.graph[number] for number in levels.graph.consumers[node.number]]
    if not any(map(levels.is_rise, consumers)) or second.tensor not in levels.graph.descendants({first.tensor}):
        return None
    if kind == "cat":
        return None if _is_in_dense_block(levels, node) else (second, (first,))
    spanned = levels.graph.descendants({first.tensor}) & levels.graph.ancestors({second.tensor}) - {first.tensor}
    sums = (levels.graph[number] for number in spanned if levels.graph[number].name == "add")
    begins_in_scope = f"{levels.graph[first.tensor].address}.".startswith(scope_of(node.address))
    spans_a_sum = any(len(levels.value_inputs(inner)) > 1 for inner in sums)
    is_skip = begins_in_scope and spans_a_sum and not _is_repeated(levels, node, spanned)
    return (second, (first,)) if is_skip else None


def _is_repeated(levels: Levels, node: Node, spanned: Collection[int]) -> bool:
    """Whether a module of the same parts closes with such a sum where nothing rises: then both are blocks of one kind."""
    graph, scope = levels.graph, scope_of(node.address)
    calls = _calls_within(levels, scope, spanned)
    for twin in graph.nodes:
        inputs, twin_scope = levels.value_inputs(twin), scope_of(twin.address)
        if twin.name != "add" or twin_scope == scope or len(inputs) != 2:
            continue
        between = graph.descendants({min(inputs)}) & graph.ancestors({max(inputs)}) - {min(inputs)}
        rises = any(levels.is_rise(graph[number]) for number in (*between, *graph.consumers[twin.number]))
        if not rises and _calls_within(levels, twin_scope, between) == calls:
            return True
    return False


def _calls_within(levels: Levels, scope: str, numbers: Collection[int]) -> list[str]:
    """The calls that make tensors, by their addresses within a module."""
    return [levels.graph[number].address.removeprefix(f"{scope}.") for number in sorted(numbers)]


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
