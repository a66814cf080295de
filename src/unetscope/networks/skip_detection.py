"""Detect where skips join the upsampled path.

A join is a merge if one of its streams has come up, along any way, and another shares none of its rises. The two branches of a
residual block share theirs: their sum is no merge.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from unetscope.activations import SCRIPT, WRITTEN, Node, scope_of
from unetscope.networks.bottoms import around_bottom
from unetscope.networks.layouts import Layout
from unetscope.networks.levels import Levels, is_value
from unetscope.networks.structure import (
    IN_PLACE,
    JOINS,
    KERNELS,
    OPAQUE,
    OVER_STACK,
    READING,
    REARRANGING,
    RESHAPING,
    WITHIN_LAYER,
    JoinKind,
    Operand,
    Streams,
)


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
        if number in absorbed or number in levels.gates or number not in levels.useful or not _is_join(levels, node):
            continue
        operands = _in_one_grid(levels, node, list(_operands(levels, node)))
        absorbed.update(_inner_joins(levels, node))
        if any(levels.layouts.of[operand.tensor] is Layout.LAST for operand in operands):
            continue
        if len(operands) > 1 and (streams := _separate(levels, node, operands)) is not None:
            upsampled, skips = streams
            upsampled = replace(upsampled, others=_other_ways(levels, node, upsampled))
            skips = tuple(replace(skip, others=_other_ways(levels, node, skip)) for skip in skips)
            joins.append(Join(number, join_kind(node), upsampled, skips))
            absorbed.update(twin.number for twin in levels.graph.nodes if twin.address == node.address)
    return tuple(reversed(joins))


def join_kind(node: Node) -> JoinKind:
    """How a join brings its streams together."""
    kind = JOINS.get(node.name, "call")
    return "tile" if kind == "cat" and node.dim != 1 else kind


def _operands(levels: Levels, node: Node) -> Iterator[Operand]:
    """The streams that a join brings together, with those of its inner joins in their place."""
    if join_kind(node) == "attention":
        yield from _attended(levels, node)
        return
    values = levels.value_inputs(node)
    for number, position in zip(node.inputs, node.positions, strict=True):
        if number not in values or not levels.is_placed(number):
            continue
        if _is_inner_join(levels, number, node):
            for operand in _operands(levels, levels.graph[number]):
                yield Operand(operand.tensor, (*operand.path, (node.address, position)))
        else:
            yield _stream(levels, node, Operand(number, ((node.address, position),)))


def _stream(levels: Levels, node: Node, operand: Operand) -> Operand:
    """The stream [batch, channels, *sides] that enters a join, where it enters as tokens, with channels last or at indices.

    What is written into enters where it is copied, since a replacement of a view would not be what is read later. If it is not
    copied, it enters at the write, or `IN_PLACE` where the writes are others.
    """
    is_write = join_kind(node) == "write"
    in_place = node.name == WRITTEN or (operand.path[0][1] == 0 and (node.is_written or is_write))
    stands_last = levels.layouts.of[node.number] is Layout.LAST
    turned = not levels.is_spatial(node.number) or join_kind(node) == "tile" or stands_last

    def passed(source: Node) -> Collection[str]:
        if in_place and is_write:
            return REARRANGING | {"add"}
        if not levels.is_spatial(source.number):
            return RESHAPING | READING
        return RESHAPING if turned else ()

    followed, leaves_memory = _followed(levels, operand, passed)
    if in_place and not leaves_memory:
        path = ((node.address, IN_PLACE), *operand.path) if node.name == WRITTEN else operand.path
        return Operand(followed.tensor, path)
    return followed


def _followed(levels: Levels, operand: Operand, passed: Callable[[Node], Collection[str]]) -> tuple[Operand, bool]:
    """A stream before the functions that `passed` names and that have no other, and whether one of these is no view."""
    leaves_memory = False
    while True:
        source = levels.graph[operand.tensor]
        if not source.inputs or source.name not in passed(source):
            break
        values = levels.value_inputs(source)
        placed = [k for k, number in enumerate(source.inputs) if number in values and levels.is_placed(number)]
        if len(placed) != 1:
            break
        number, position = source.inputs[placed[0]], source.positions[placed[0]]
        if source.arguments[position] != levels.graph[number].shape:  # a part of the argument
            break
        operand = Operand(number, ((source.address, position), *operand.path))
        leaves_memory = leaves_memory or not source.is_view
    return operand, leaves_memory


def _in_one_grid(levels: Levels, node: Node, operands: Sequence[Operand]) -> list[Operand]:
    """The streams of a write, before what crops, places or turns them, if they do not have the same places otherwise."""
    if join_kind(node) != "write" or len({levels.grid(operand.tensor) for operand in operands}) == 1:
        return list(operands)
    moving = REARRANGING | READING | {"add"}
    return [
        operand
        if operand.path[0][1] == IN_PLACE
        else followed
        if operand.path[0][1] or leaves_memory
        else Operand(followed.tensor, operand.path)
        for operand in operands
        for followed, leaves_memory in [_followed(levels, operand, lambda _source: moving)]
    ]


def _attended(levels: Levels, node: Node) -> Iterator[Operand]:
    """The streams of an attention or a matrix product, through the products, views and layers of tokens before it.

    Of several ways from one stream, that through the last argument counts, which carries the values.
    """
    streams: dict[int, Operand] = {}
    visited: set[int] = set()
    pending = [(node, Operand(node.number, ()))]
    while pending:
        reached, operand = pending.pop()
        for number, position in zip(reached.inputs, reached.positions, strict=True):
            if number in visited or not levels.is_placed(number):
                continue
            visited.add(number)
            entering = Operand(number, ((reached.address, position), *operand.path))
            source = levels.graph[number]
            if levels.is_spatial(number) and source.name not in RESHAPING and join_kind(source) != "attention":
                streams[number] = entering
            elif source.inputs and number not in levels.rises[number]:
                pending.append((source, entering))
    yield from streams.values()


def _other_ways(levels: Levels, node: Node, stream: Operand) -> tuple[tuple[str, int], ...]:
    """Where else a stream enters what a join chooses or weighs by: its condition, its indices, its queries or its keys."""
    if join_kind(node) not in {"select", "attention", "write", "call"}:
        return ()
    ways: list[tuple[str, int]] = []
    visited, pending = set(), [node.number]
    while pending:
        reached = levels.graph[pending.pop()]
        if reached.number in visited or (reached.number != node.number and levels.is_rise(reached)):
            continue
        visited.add(reached.number)
        for number, position in zip(reached.inputs, reached.positions, strict=True):
            if number == stream.tensor:
                ways.append((reached.address, position))
            else:
                pending.append(number)
    return tuple(way for way in dict.fromkeys(ways) if way not in stream.path)


def _inner_joins(levels: Levels, node: Node) -> Iterator[int]:
    """The numbers of the joins whose streams `_operands` takes over."""
    if join_kind(node) == "attention":
        scores = [number for number in node.inputs if not levels.is_spatial(number) or _is_scores(levels, number)]
        while scores:
            number = scores.pop()
            source = levels.graph[number]
            if join_kind(source) == "attention" or source.name == "stack":
                yield number
            elif _is_scores(levels, number):
                scores += source.inputs
        return
    for number in node.inputs:
        if _is_inner_join(levels, number, node):
            yield number
            yield from _inner_joins(levels, levels.graph[number])


def _is_scores(levels: Levels, number: int) -> bool:
    """Whether a tensor is a product of queries and keys, or made from one by scaling, masking and softmax."""
    node = levels.graph[number]
    simple = {"softmax", "div", "mul", "add", "masked_fill", "dropout", "sigmoid", "where"} | REARRANGING
    return join_kind(node) == "attention" or (
        node.name in simple and any(_is_scores(levels, n) for n in node.inputs[:1])
    )


def _is_inner_join(levels: Levels, number: int, outer: Node) -> bool:
    """Whether a tensor is a join of the same kind that only feeds `outer`, as in cat(cat(a, b), c) and a + b + c."""
    inner = levels.graph[number]
    if {levels.graph[consumer].address for consumer in levels.graph.consumers[number]} != {outer.address}:
        return False
    if inner.name == "stack":
        return outer.name in OVER_STACK
    if join_kind(inner) != join_kind(outer) or join_kind(outer) in {"call", "attention"} or not _is_join(levels, inner):
        return False
    # The sum that closes a residual block is one stream, not two.
    rises = [levels.risen(operand) or levels.rises[operand] for operand in inner.inputs]
    if join_kind(inner) in {"cat", "write"} or len(rises) < 2:
        # What a module joined has come up as one stream, if only skips join it afterwards.
        others = [operand for operand in outer.inputs if operand != number]
        in_module = join_kind(inner) == "cat" and scope_of(inner.address) != scope_of(outer.address)
        whole = in_module and levels.is_upsampled(number)
        return not (whole and others and not any(map(levels.is_upsampled, others)))
    closes_block = len(rises) == 2 and all(map(levels.is_only_upsampled, inner.inputs))
    return not (frozenset.intersection(*rises) or (closes_block and _are_residual_branches(levels, inner, *rises)))


def _is_join(levels: Levels, node: Node) -> bool:
    """Whether a tensor brings others together place by place."""
    if not node.inputs or not is_value(node):
        return False
    if node.name in OVER_STACK and len(node.inputs) == 1:  # of a stack along its new axis
        source = levels.graph[node.inputs[0]]
        return source.name == "stack" and source.dim == node.dim
    if _is_changed_in_part(levels, node):
        return False
    kind, values = join_kind(node), [number for number in levels.value_inputs(node) if levels.is_placed(number)]
    if kind in {"attention", "tile", "write", "select"} or (node.name == "stack" and node.dim is not None):
        return True
    if kind == "cat" or (kind == "call" and (node.name in NO_JOINS or len(values) < 2)):
        return kind == "cat" and levels.is_spatial(node.number)
    grids = {levels.grid(number) if levels.is_spatial(number) else () for number in values}
    return not levels.is_spatial(node.number) or grids <= {levels.grid(node.number)}


def _is_changed_in_part(levels: Levels, node: Node) -> bool:
    """Whether a part of a tensor was computed with and put back, as `x[:, :4] += y` does: the join is what computed it."""
    if join_kind(node) != "write" or len(node.inputs) < 2:
        return False
    target, *_ = node.inputs
    pending = [number for number in levels.value_inputs(node) if number != target]
    if any(map(levels.is_upsampled, pending)) and not levels.is_upsampled(target):
        return False  # what is left of the target joins it too
    visited: set[int] = set()
    while pending:
        number = pending.pop()
        if number == target:
            return True
        if number not in visited and number not in levels.rises[number]:  # what rises from it is another stream
            pending += levels.value_inputs(levels.graph[number])
        visited.add(number)
    return False


# Functions of several tensors that do not bring streams together, and what cannot be looked into nor intercepted.
NO_JOINS = (KERNELS | WITHIN_LAYER | REARRANGING | OPAQUE) - {SCRIPT, "clamp"}


def _separate(levels: Levels, node: Node, operands: Sequence[Operand]) -> Streams | None:
    """The stream that rose last, and the streams that did not rise with it; None if the join is no merge."""
    streams = [stream for stream in operands if levels.is_spatial(stream.tensor) and levels.rises[stream.tensor]]
    if len({levels.grid(stream.tensor) for stream in streams}) > 1:
        return None
    upsampled = [
        stream
        for stream in streams
        if levels.is_upsampled(stream.tensor) and not levels.risen(stream.tensor) & levels.contexts
    ]
    if not upsampled:
        return around_bottom(levels, node, join_kind(node), streams)
    # What came up alone goes before what has met a skip since, and what rose last before what rose earlier.
    last = max(
        upsampled, key=lambda stream: (levels.is_only_upsampled(stream.tensor), max(levels.risen(stream.tensor)))
    )
    # Of several that came up from one level, as features and what is predicted from them do, the widest carries it.
    beside = [
        stream for stream in upsampled if stream == last or _came_up_with(levels, node, stream.tensor, last.tensor)
    ]
    last = max(beside, key=lambda stream: (levels.graph[stream.tensor].shape[1], max(levels.risen(stream.tensor))))
    skips = tuple(stream for stream in streams if _is_skip(levels, node, stream.tensor, last.tensor))
    return (last, skips) if skips else None


def _is_skip(levels: Levels, node: Node, stream: int, upsampled: int) -> bool:
    """Whether a stream reaches a join by another way than the upsampled stream."""
    rises, upsampled_rises = levels.risen(stream), levels.risen(upsampled)
    if stream == upsampled or rises & upsampled_rises or (rises and levels.rises[stream] <= levels.contexts):
        return False
    return not (_came_up_with(levels, node, stream, upsampled) or (rises and _are_networks(levels, stream, upsampled)))


def _are_networks(levels: Levels, first: int, second: int) -> bool:
    """Whether nothing but the network's inputs leads to both, as where several networks, or one for several views, vote."""
    common = levels.graph.ancestors({first}) & levels.graph.ancestors({second})
    return not any(levels.is_kernel(levels.graph[number]) for number in common)


def _came_up_with(levels: Levels, node: Node, stream: int, upsampled: int) -> bool:
    """Whether a stream came up from where the upsampled one did, by another way."""
    rises, upsampled_rises = levels.risen(stream), levels.risen(upsampled)
    return levels.is_only_upsampled(stream) and _are_residual_branches(levels, node, rises, upsampled_rises)


def _are_residual_branches(levels: Levels, node: Node, rises: Iterable[int], upsampled_rises: Iterable[int]) -> bool:
    """Whether both streams rise from one level: within the block that joins them, or from tensors that have a common source
    of their resolution."""
    before, upsampled_before = ([levels.before_rising(rise) for rise in group] for group in (rises, upsampled_rises))
    sources, grids = (
        [{of(number) for number in group} for group in (before, upsampled_before)]
        for of in (levels.rises.__getitem__, levels.grid)
    )
    if sources[0] != sources[1] or grids[0] != grids[1]:
        return False
    block = scope_of(node.address)
    scopes = {scope_of(levels.graph[n].address) for n in (*rises, *upsampled_rises)}
    if block and all(scope == block or scope.startswith(f"{block}.") for scope in scopes):
        return True
    return all(levels.on_one_grid(a) & levels.on_one_grid(b) for a in before for b in upsampled_before)
