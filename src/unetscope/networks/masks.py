"""What tensors of a program have left of their channels, and what the arguments of its calls are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx


@dataclass(frozen=True, slots=True)
class Mask:
    """Which indices of an axis a tensor still has. kept: of those that it had."""

    axis: int
    kept: tuple[bool, ...]

    @property
    def indices(self) -> list[int]:
        """The indices that are left."""
        return [index for index, kept in enumerate(self.kept) if kept]

    @property
    def gone(self) -> list[int]:
        """The indices that went."""
        return [index for index, kept in enumerate(self.kept) if not kept]


@dataclass(frozen=True, slots=True)
class Read:
    """A call that reads channels of which some went. may_be_constant: whether they may be other than zero there."""

    node: fx.Node
    source: fx.Node
    mask: Mask
    may_be_constant: bool


@dataclass(frozen=True, slots=True)
class WeightEdit:
    """What a module loses. inputs, outputs: the channels that it keeps; None for all. groups: how many are left.

    folded: the constants of the input channels that went, by their indices; `as_channel` keeps them as one more channel.
    """

    inputs: tuple[int, ...] | None = None
    outputs: tuple[int, ...] | None = None
    groups: int | None = None
    folded: tuple[tuple[int, float], ...] = ()
    as_channel: bool = False


def standing_for(node: fx.Node, original: fx.Node) -> fx.Node:
    """A node that has what is left of another's tensor."""
    node.meta.update(original.meta, writes=False)
    node.meta.pop("part", None)
    node.meta["stands_for"] = original.meta.get("stands_for", original)
    return node


def concatenation_axis(node: fx.Node) -> int:
    """The axis along which a call joins, counted from the front."""
    ndim = len(node.meta["shape"])
    if node.meta["function"] in {"hstack", "column_stack"}:
        return 1
    axis = argument(node, 1, "dim", node.kwargs.get("axis", 0))
    return axis % ndim  # type: ignore[no-any-return]


def argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    """An argument of a call, by its position or its name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def tensor_arguments(node: fx.Node) -> list[fx.Node]:
    """The tensors among the arguments of a call, in order and as often as they stand there."""
    return [each for each in _nodes_of((node.args, dict(node.kwargs))) if "shape" in each.meta]


def _nodes_of(values: Any) -> Iterator[fx.Node]:
    if isinstance(values, fx.Node):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _nodes_of(value)
    elif isinstance(values, dict):
        for value in values.values():
            yield from _nodes_of(value)


def is_made_of_input(tensor: fx.Node) -> bool:
    """Whether a tensor depends on what the network is given, rather than on its weights alone."""
    pending, visited = [tensor], set()
    while pending:
        node = pending.pop()
        if node.op == "placeholder":
            return True
        if node not in visited:
            visited.add(node)
            pending += [*node.all_input_nodes, *node.meta.get("after", ())]
    return False


def side_of(tensor: fx.Node, from_end: int) -> int:
    """The size of an axis that is counted from the end; 1 if the tensor has no such axis."""
    shape = tensor.meta["shape"]
    return shape[from_end] if len(shape) >= -from_end else 1


def cut_positions(result: Tensor, spread: Tensor, mask: Mask) -> list[int] | None:
    """The indices of the axis that a result consists of; None if it is more than a cut along it."""
    if not isinstance(result, Tensor) or result.ndim != spread.ndim:
        return None
    lines = spread.movedim(mask.axis, 0).flatten(1)[:, 0].tolist()
    line = result.movedim(mask.axis, 0).flatten(1)
    if not line.numel() or not bool((line == line[:, :1]).all()):
        return None
    same_sides = [
        a == b for axis, (a, b) in enumerate(zip(result.shape, spread.shape, strict=True)) if axis != mask.axis
    ]
    indices = [lines.index(value) if value in lines else -1 for value in line[:, 0].tolist()]
    return indices if all(same_sides) and -1 not in indices else None


def is_what_is_left(small: Any, whole: Tensor, mask: Mask | None) -> bool:
    """Whether a call makes of what is left just what is left of its result."""
    if mask is not None and not any(mask.kept):
        return True
    expected = whole if mask is None else whole.index_select(mask.axis, torch.tensor(mask.indices))
    return isinstance(small, Tensor) and small.shape == expected.shape and bool(torch.allclose(small, expected))
