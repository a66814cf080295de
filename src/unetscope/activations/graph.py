"""The tensors of one forward pass as a graph: what each was made from, and by which call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch


@dataclass(frozen=True, slots=True)
class Node:
    """One tensor of a forward pass.

    address: of the call that made it (see `tracing`), or the name of the module if the calls inside it cannot be seen. name:
    of the function. inputs: the numbers of the tensors it was made from. positions: of these among all tensor arguments of
    the function. arguments: the shapes of all tensor arguments, constants and parameters too. weights: the names of the
    network's parameters among the arguments. shape, dtype: of the tensor, with the batch. dim: the axis of a concatenation,
    stack or sum. module: the outermost module that returns this tensor; empty if none does, or if that module runs more than
    once.
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
    module: str = ""

    @property
    def place(self) -> str:
        """Where the tensor can be captured: the module that returns it, else the call."""
        return self.module or self.address


@dataclass(frozen=True)
class Graph:
    """The tensors of one forward pass in the order in which they were made, the network's inputs first.

    outputs: the numbers of the tensors that the network returns.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]

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

    def descendants(self, numbers: Iterable[int]) -> set[int]:
        """These tensors and all that are made from them, directly or not."""
        reached = set(numbers)
        for node in self.nodes:
            if reached.intersection(node.inputs):
                reached.add(node.number)
        return reached
