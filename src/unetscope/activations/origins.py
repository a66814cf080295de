"""Which tensor the values at each place of a memory come from.

Several tensors may be views of one memory, and what makes it may do so in parts: a concatenation, of its arguments, and a write
into a view. A view is made of the parts that it covers, and of no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map

# Functions that copy the values of one tensor in their order, or compute each from the one at its place.
PLACEWISE = {
    "clone", "contiguous", "to", "float", "double", "half", "bfloat16", "type", "reshape", "flatten", "add", "sub", "mul",
    "div", "pow", "abs", "neg", "exp", "square", "sqrt", "clamp", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu",
    "silu", "mish", "softplus", "hardtanh", "hardswish",
}  # fmt: skip
CONCATENATIONS = {"cat", "hstack", "column_stack", "stack"}


@dataclass(frozen=True, slots=True)
class Part:
    """What stands at some places of a memory.

    maker: the number of the tensor that was made or written. source: the number of the tensor whose values these are, such as
    an argument of the concatenation that made it; None for a constant.
    """

    maker: int
    source: int | None


@dataclass
class _Memory:
    """The parts of a memory, in the order in which they came. labels: by place, the position of its part.

    unit: bytes of a place. pending: parts that the labels do not have yet, each as (position, tensor, index into it).
    """

    unit: int
    parts: list[Part]
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    pending: list[tuple[int, Tensor, Any]] = field(default_factory=list)


class Origins:
    """By memory, the parts that stand at its places."""

    def __init__(self) -> None:
        self._memories: dict[int, _Memory] = {}

    def __contains__(self, tensor: Tensor) -> bool:
        return memory_of(tensor) in self._memories

    def newest(self, tensor: Tensor) -> int:
        """The number of the tensor that was last made or written in a memory, -1 if none was."""
        memory = self._memory(tensor)
        return memory.parts[-1].maker if memory else -1

    def make(self, tensor: Tensor, number: int, shares: Sequence[tuple[Any, int | None]] = ()) -> None:
        """A tensor was made in a memory of its own. shares: indices into it, with the source of what stands there."""
        if (identity := memory_of(tensor)) is not None:
            self._memories[identity] = _Memory(tensor.element_size(), [Part(number, number)])
            for index, source in shares:
                self.write(tensor, number, source, index)

    def write(self, tensor: Tensor, number: int, source: int | None, index: Any = ...) -> None:
        """What stands at an index into a tensor was written by the call that made `number`, with the values of a source."""
        if memory := self._memory(tensor):
            memory.parts.append(Part(number, source))
            memory.pending.append((len(memory.parts) - 1, tensor, index))

    def inherit(self, tensor: Tensor, number: int, source: Tensor) -> None:
        """A tensor was made of the values of another, in their order (itself, in place), and so of the same parts."""
        memory = self._memory(source)
        shares: list[tuple[Any, int | None]] = []
        if memory and len(memory.parts) > 1:
            labels = self._places(memory, source)
            if labels.size == tensor.numel():  # else elements are of another size, and the parts are those of the call
                labels = labels.reshape(tensor.shape)
                shares = [((labels == position), memory.parts[position].source) for position in np.unique(labels)]
        if tensor not in self:
            self.make(tensor, number)
        for index, share in shares if len({share for _, share in shares}) > 1 else [(..., number)]:
            self.write(tensor, number, share, index)

    def parts(self, tensor: Tensor, outside: Any = None) -> list[Part]:
        """The parts that a tensor covers, in the order in which they came. outside: an index into it that does not count."""
        memory = self._memory(tensor)
        if memory is None:
            return []
        labels = self._places(memory, tensor)
        if outside is not None and labels.shape == tuple(tensor.shape):
            labels = labels.copy()
            _assign(labels, outside, -1)
        return [memory.parts[position] for position in np.unique(labels) if position >= 0]

    def covers(self, outer: Tensor, inner: Tensor) -> bool:
        """Whether a tensor has all places of another of the same memory."""
        memory = self._memory(outer)
        if memory is None or memory_of(inner) != memory_of(outer):
            return False
        marks = _Memory(memory.unit, [])
        self._places(marks, outer)[...] = 1
        return bool(self._places(marks, inner).all())

    def _memory(self, tensor: Tensor) -> _Memory | None:
        identity = memory_of(tensor)
        return None if identity is None else self._memories.get(identity)

    def _places(self, memory: _Memory, tensor: Tensor) -> np.ndarray:
        """The labels of a tensor's places, as a view; of a tensor with elements of another size, all from first to last."""
        size = -(-tensor.untyped_storage().nbytes() // memory.unit)
        if len(memory.labels) < size:
            memory.labels = np.concatenate([memory.labels, np.zeros(size - len(memory.labels), np.int32)])
        pending, memory.pending = memory.pending, []
        for position, part, index in pending:
            _assign(self._places(memory, part), index, position)
        if tensor.element_size() == memory.unit:
            step = memory.labels.itemsize
            return np.lib.stride_tricks.as_strided(
                memory.labels[tensor.storage_offset() :], tuple(tensor.shape), [step * s for s in tensor.stride()]
            )
        first = tensor.storage_offset()
        last = first + sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.stride(), strict=True))
        bytes_of = tensor.element_size()
        return memory.labels[first * bytes_of // memory.unit : -(-(last + 1) * bytes_of // memory.unit)]


def memory_of(tensor: Tensor) -> int | None:
    """The identity of a tensor's memory; None where there is none, as for a sparse tensor."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return None


def shares_of(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    dim: int | None,
    result: Tensor,
    arguments: Sequence[Tensor],
    sources: Mapping[int, int],
) -> list[tuple[Any, int | None]]:
    """The parts of what a concatenation or a padding makes: indices into it, with the numbers of what stands there.

    dim: the axis of a concatenation. arguments: the tensors among the arguments. sources: by their positions, their numbers.
    """
    if name == "pad" and kwargs.get("mode", (*args, None, None)[2]) in {None, "constant"}:
        return [(..., None), (_index_of_padded(arguments[0], kwargs.get("pad", (*args, ())[1])), sources.get(0))]
    if name not in CONCATENATIONS or dim is None:
        return []
    joined = arguments[:-1] if "out" in kwargs else arguments
    sides = [1 if name == "stack" else tensor.shape[dim] if tensor.ndim > dim else 0 for tensor in joined]
    if sum(sides) != result.shape[dim]:
        return []
    ends = np.cumsum(sides)
    return [
        ((*(slice(None),) * dim, slice(int(end) - side, int(end))), sources.get(position))
        for position, (side, end) in enumerate(zip(sides, ends, strict=True))
    ]


def _index_of_padded(padded: Tensor, padding: Sequence[int]) -> tuple[slice, ...]:
    """Where a tensor stands in its padding."""
    index = [slice(None)] * padded.ndim
    for axis, (before, after) in enumerate(zip(padding[::2], padding[1::2], strict=True), start=1):
        first = max(0, before)
        index[-axis] = slice(first, first + padded.shape[-axis] + min(0, before) + min(0, after))
    return tuple(index)


def _assign(labels: np.ndarray, index: Any, value: int) -> None:
    """Set labels at an index of PyTorch's; all of them, if the index is not one of NumPy's too."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        index = tree_map(lambda each: each.detach().cpu().numpy() if isinstance(each, Tensor) else each, index)
    try:
        labels[index] = value
    except (IndexError, TypeError, ValueError):
        labels[...] = value
