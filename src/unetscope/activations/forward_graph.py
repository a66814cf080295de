"""One forward pass as a graph: which tensor was made of which, by which function, in which module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from unetscope.activations.inference import eval_mode
from unetscope.activations.tracing import INPUT, trace_calls


@dataclass(frozen=True, slots=True)
class Node:
    """One tensor that the network made.

    address: of the call that made it (see `calls`), or the name of the module, if what happens inside cannot be seen. name: of
    the function. inputs: the tensors it is made of, by number. positions: of these among all tensors that the function was
    given. weights: the names of the network's parameters among its arguments. shape: with the batch. dim: the axis of a
    concatenation. module: the outermost module that gives this tensor out, empty if none does, or if it runs more than once.
    """

    number: int
    address: str
    name: str
    inputs: tuple[int, ...]
    positions: tuple[int, ...]
    weights: tuple[str, ...]
    shape: tuple[int, ...]
    dim: int | None = None
    module: str = ""

    @property
    def place(self) -> str:
        """Where the tensor can be had: the module that gives it out, else the call."""
        return self.module or self.address


@dataclass(frozen=True)
class Graph:
    """The tensors of one forward pass in the order in which they were made; those given to the network come first."""

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number]

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """By number of a tensor, the numbers of those that are made of it."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for node in self.nodes:
            for number in dict.fromkeys(node.inputs):
                found[number].append(node.number)
        return tuple(map(tuple, found))


@dataclass
class _Recorder:
    parameters: Mapping[int, str]
    nodes: list[Node] = field(default_factory=list)
    alive: list[Tensor] = field(default_factory=list)  # so that no tensor takes the identity of another
    made: dict[int, int] = field(default_factory=dict)  # by identity, the number of a tensor
    given_out: dict[int, list[str]] = field(default_factory=dict)  # by number, modules from inner to outer

    def add(self, tensor: Tensor, address: str, name: str, arguments: Any, dim: int | None = None) -> None:
        found = [one for one in tree_iter(arguments) if isinstance(one, Tensor)]
        known = [(self.made[id(one)], place) for place, one in enumerate(found) if id(one) in self.made]
        inputs, positions = (tuple(column) for column in zip(*known, strict=True)) if known else ((), ())
        weights = tuple(self.parameters[id(one)] for one in found if id(one) in self.parameters)
        self.nodes.append(Node(len(self.nodes), address, name, inputs, positions, weights, tuple(tensor.shape), dim))
        self.alive.append(tensor)
        self.made[id(tensor)] = len(self.nodes) - 1

    def see(self, address: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        result = function(*args, **kwargs)
        name = address.rsplit(":", 1)[1].split("#", maxsplit=1)[0]
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.add(tensor, address, name, (args, dict(kwargs)), _axis(name, args, kwargs))
        return result

    def left(self, name: str, inputs: Any, output: Any) -> None:
        """A module has run; what it gives out and nobody saw it make, it made of what it was given."""
        for tensor in tree_iter(output):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                if id(tensor) not in self.made:
                    self.add(tensor, name, "module", inputs)
                if isinstance(output, Tensor):
                    self.given_out.setdefault(self.made[id(tensor)], []).append(name)


def record_graph(model: nn.Module, example: Any) -> Graph:
    """The graph of one forward pass of `example`, a tensor [1, channels, ...] or whatever else the network takes.

    The network runs in evaluation mode, and is left as it was.
    """
    recorder = _Recorder({id(parameter): name for name, parameter in model.named_parameters()})
    arguments = tuple(example) if isinstance(example, tuple | list) else (example,)
    for tensor in tree_iter(arguments):
        if isinstance(tensor, Tensor):
            recorder.add(tensor, INPUT, "input", ())
    runs: Counter[str] = Counter()
    with eval_mode(model), ExitStack() as stack:
        for name, module in model.named_modules():
            if module is not model and not isinstance(module, torch.jit.ScriptModule):

                def ran(_module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                    runs[name] += 1
                    recorder.left(name, inputs, output)

                stack.callback(module.register_forward_hook(ran).remove)
        stack.enter_context(trace_calls(model, recorder.see))
        result = model(*arguments)
    modules = {number: [name for name in names if runs[name] == 1][-1:] for number, names in recorder.given_out.items()}
    nodes = [
        replace(node, module=modules[node.number][0]) if modules.get(node.number) else node for node in recorder.nodes
    ]
    outputs = (recorder.made.get(id(one)) for one in tree_iter(result) if isinstance(one, Tensor))
    return Graph(tuple(nodes), tuple(number for number in outputs if number is not None))


def _axis(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """The axis of a concatenation, a stack or a sum, from the front."""
    if name not in {"cat", "stack", "sum"}:
        return None
    dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0 if name != "sum" else None))
    if not isinstance(dim, int):
        return None
    first = next((one for one in tree_iter(args) if isinstance(one, torch.Tensor)), None)
    return dim % (first.ndim + (name == "stack")) if first is not None else dim
