"""The tensors of one forward pass as a graph: what each was made from, and by which call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch

SCRIPT = "script"  # the name of what a scripted function or module makes
WRITTEN = "write"  # the name of what views of a tensor have been written into since
FOREIGN = "foreign"  # the name of what came in from outside of torch


@dataclass(frozen=True, slots=True)
class Node:
    """One tensor of a forward pass.

    address: of the call that made it (see `tracing`), or the name of the module if the calls inside it cannot be seen. name:
    of the function. inputs: the numbers of the tensors it was made from. positions: of these among all tensor arguments of
    the function. arguments: the shapes of all tensor arguments, constants and parameters too. weights: the names of the
    network's parameters among the arguments. shape, dtype: of the tensor, with the batch. dim: the axis of a concatenation,
    stack or sum. operations: those that ran within a call that cannot be looked into. is_view, is_written: whether it
    has the memory of an argument, and whether the call wrote into it. module: the outermost module that
    returns this tensor; empty if none does, or if that module runs more than once. argument: its place as an argument, if no
    call returns it.
    """

    number: int
    address: str
    name: str
    inputs: tuple[int, ...]
    positions: tuple[int, ...]
    arguments: tuple[tuple[int, ...], ...]
    weights: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype
    dim: int | None = None
    operations: frozenset[str] = frozenset()
    is_view: bool = False
    is_written: bool = False
    module: str = ""
    argument: str = ""

    @property
    def place(self) -> str:
        """Where it can be captured: the module that returns it, else the call, or the call that it is an argument of."""
        return self.module or self.argument or self.address


@dataclass(frozen=True, slots=True)
class UnknownOrigin:
    """A tensor that came into a pass from where the recording does not see: through NumPy or another library.

    address: of the call that received it, empty for the network's output. position: among its tensor arguments. shape: of the
    tensor. left: the calls through which values left torch before, from the tensors of which it counts as made.
    """

    address: str
    position: int
    shape: tuple[int, ...]
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class Graph:
    """The tensors of one forward pass in the order in which they were made, the network's inputs first.

    outputs: the numbers of the tensors that the network returns. unknown: tensors whose origin was not seen.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    unknown: tuple[UnknownOrigin, ...] = ()

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number]

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """By number of a tensor, the numbers of the tensors made from it."""
        consumers: list[list[int]] = [[] for _ in self.nodes]
        for node in self.nodes:
            for number in dict.fromkeys(node.inputs):
                consumers[number].append(node.number)
        return tuple(map(tuple, consumers))

    def ancestors(self, numbers: Iterable[int]) -> set[int]:
        """These tensors and all that they are made from, directly or not."""
        reached = set(numbers)
        for node in reversed(self.nodes):
            if node.number in reached:
                reached.update(node.inputs)
        return reached

    def descendants(self, numbers: Iterable[int]) -> set[int]:
        """These tensors and all that are made from them, directly or not."""
        reached = set(numbers)
        for node in self.nodes:
            if reached.intersection(node.inputs):
                reached.add(node.number)
        return reached
