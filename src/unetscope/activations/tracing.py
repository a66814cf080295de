"""Intercept or record every torch function that a network calls in a forward pass, by the module that calls it.

Each call has an address, so that a tensor that no module returns can be named: `decoder.block1:cat` is the first `cat` that
the module `decoder.block1` calls itself in a forward pass, `decoder.block1:cat#2` the second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, jit, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from unetscope.activations.inference import eval_mode
from unetscope.base import NetworkError

SEPARATOR = ":"
INPUT = ":input"  # the address of the network's input

Intercept = Callable[[str, Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]


def is_address(place: str) -> bool:
    """Whether a place in the network is a call rather than a module.

    >>> is_address("decoder.block1:cat"), is_address("decoder.block1")
    (True, False)
    """
    return SEPARATOR in place


def scope_of(address: str) -> str:
    """The name of the module that makes a call, empty for the network itself.

    >>> scope_of("decoder.block1:cat#2")
    'decoder.block1'
    """
    return address.rsplit(SEPARATOR, 1)[0]


def function_of(address: str) -> str:
    """The name of the function that is called.

    >>> function_of("decoder.block1:cat#2")
    'cat'
    """
    return address.rsplit(SEPARATOR, 1)[1].split("#", maxsplit=1)[0]


@contextmanager
def trace_calls(model: nn.Module, intercept: Intercept) -> Iterator[None]:
    """Within the block, every torch function that the network calls goes through `intercept(address, function, args, kwargs)`.

    `intercept` runs the function and returns its result, or a replacement for it; gradients flow through what it computes.
    A function of `torch.nn.functional` is one call, whatever it calls itself. Calls outside the network's forward pass are
    not intercepted.

    Raises: NetworkError for a scripted module, whose calls cannot be intercepted.
    """
    names = {module: name for name, module in model.named_modules() if module is not model}
    if scripted := [name for module, name in names.items() if isinstance(module, torch.jit.ScriptModule)]:
        raise NetworkError(
            f"{scripted[0]} is a scripted module, which cannot be looked into: give the network before scripting"
        )
    running: list[str] = []  # the modules that run, from outer to inner
    counts: Counter[tuple[str, str]] = Counter()
    has_own_forward, forward = "forward" in vars(model), model.forward

    # Replaces `forward` instead of hooking it: a hook is not called when a BaseException ends the pass.
    def traced_forward(*args: Any, **kwargs: Any) -> Any:
        counts.clear()
        running[:] = [""]
        with _InterceptMode(running, counts, intercept):
            return forward(*args, **kwargs)

    def enter(module: nn.Module, _inputs: Any) -> None:
        running.append(names[module])

    def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        running.pop()

    with ExitStack() as stack:
        for module in names:
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        vars(model)["forward"] = traced_forward
        try:
            yield
        finally:
            if has_own_forward:
                vars(model)["forward"] = forward
            else:
                del vars(model)["forward"]


class _InterceptMode(TorchFunctionMode):
    """Counts each module's calls of each function, and passes the calls to `intercept` with their addresses."""

    def __init__(self, running: list[str], counts: Counter[tuple[str, str]], intercept: Intercept) -> None:
        super().__init__()
        self._running, self._counts, self._intercept = running, counts, intercept

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function_name(function)
        scope = self._running[-1]
        self._counts[scope, name] += 1
        number = self._counts[scope, name]
        address = f"{scope}{SEPARATOR}{name}" + (f"#{number}" if number > 1 else "")
        return self._intercept(address, function, tuple(args), kwargs or {})


_ALIASES = {"iadd": "add", "radd": "add", "imul": "mul", "rmul": "mul", "concat": "cat", "concatenate": "cat"}


def function_name(function: Callable[..., Any]) -> str:
    """The plain name of a torch function: `add` for `x + y`, `x += y` and `torch.add`, `get` for an attribute such as `x.T`.

    >>> import torch
    >>> [function_name(function) for function in (torch.Tensor.__iadd__, torch.relu_, torch.concat, torch.Tensor.T.__get__)]
    ['add', 'relu', 'cat', 'get']
    """
    plain = getattr(function, "__name__", type(function).__name__).strip("_")
    return _ALIASES.get(plain, plain)


@dataclass(frozen=True, slots=True)
class Node:
    """One tensor of a forward pass.

    address: of the call that made it (see `tracing`), or the name of the module if the calls inside it cannot be seen. name:
    of the function. inputs: the numbers of the tensors it was made from. positions: of these among all tensor arguments of
    the function. weights: the names of the network's parameters among the arguments. shape: with the batch. dim: the axis of
    a concatenation, stack or sum. module: the outermost module that returns this tensor; empty if none does, or if that
    module runs more than once.
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


def record_graph(model: nn.Module, example: Any) -> Graph:
    """The graph of one forward pass of `example`, a tensor [1, channels, ...] or a tuple of the network's arguments.

    The network runs in evaluation mode and is left unchanged.
    """
    recorder = _Recorder({id(parameter): name for name, parameter in model.named_parameters()})
    arguments = tuple(example) if isinstance(example, tuple | list) else (example,)
    for tensor in _tensors(arguments):
        recorder.add(tensor, INPUT, "input", ())
    with eval_mode(model), ExitStack() as stack:
        for name, module in model.named_modules():
            if module is not model and not isinstance(module, jit.ScriptModule):

                def record_module(_module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                    recorder.record_module(name, inputs, output)

                stack.callback(module.register_forward_hook(record_module).remove)
        stack.enter_context(trace_calls(model, recorder.record_call))
        result = model(*arguments)
    return recorder.graph(result)


@dataclass
class _Recorder:
    """Collects the nodes of a graph. parameters: the names of the network's parameters, by identity."""

    parameters: Mapping[int, str]
    nodes: list[Node] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)  # kept alive, so that no identity is used twice
    numbers: dict[int, int] = field(default_factory=dict)  # by identity, the number of a tensor
    returned_by: dict[int, list[str]] = field(default_factory=dict)  # by number, modules from inner to outer
    runs: Counter[str] = field(default_factory=Counter)  # by module

    def add(self, tensor: Tensor, address: str, name: str, arguments: Any, dim: int | None = None) -> None:
        identities = [id(argument) for argument in _tensors(arguments)]
        positions = tuple(position for position, identity in enumerate(identities) if identity in self.numbers)
        inputs = tuple(self.numbers[identities[position]] for position in positions)
        weights = tuple(self.parameters[identity] for identity in identities if identity in self.parameters)
        self.nodes.append(Node(len(self.nodes), address, name, inputs, positions, weights, tuple(tensor.shape), dim))
        self.tensors.append(tensor)
        self.numbers[id(tensor)] = len(self.nodes) - 1

    def record_call(
        self, address: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        result = function(*args, **kwargs)
        name = function_of(address)
        for tensor in _tensors(result):
            if tensor.is_floating_point():
                self.add(tensor, address, name, (args, dict(kwargs)), _axis(name, args, kwargs))
        return result

    def record_module(self, name: str, inputs: Any, output: Any) -> None:
        """Record what a module returns. A tensor that no recorded call made counts as made from the module's inputs."""
        self.runs[name] += 1
        for tensor in _tensors(output):
            if tensor.is_floating_point():
                if id(tensor) not in self.numbers:
                    self.add(tensor, name, "module", inputs)
                if isinstance(output, Tensor):
                    self.returned_by.setdefault(self.numbers[id(tensor)], []).append(name)

    def graph(self, result: Any) -> Graph:
        """The graph, with the modules that return its tensors. result: of the network."""
        modules = {
            number: [name for name in names if self.runs[name] == 1][-1:] for number, names in self.returned_by.items()
        }
        nodes = (replace(node, module="".join(modules.get(node.number, ()))) for node in self.nodes)
        outputs = (self.numbers.get(id(tensor)) for tensor in _tensors(result))
        return Graph(tuple(nodes), tuple(number for number in outputs if number is not None))


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and dictionaries."""
    return (value for value in tree_iter(values) if isinstance(value, Tensor))


def _axis(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """The axis of a concatenation, a stack or a sum, counted from the front."""
    if name not in {"cat", "stack", "sum"}:
        return None
    dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0 if name != "sum" else None))
    if not isinstance(dim, int):
        return None
    operand = next(_tensors(args), None)
    return dim % (operand.ndim + (name == "stack")) if operand is not None else dim
