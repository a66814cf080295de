"""Record the tensors of one forward pass, and what each was made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, jit, nn
from torch.utils._pytree import tree_iter

from unetscope.activations.graph import Graph, Node
from unetscope.activations.inference import eval_mode
from unetscope.activations.tracing import INPUT, function_of, trace_calls


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
        operands = list(_tensors(arguments))
        identities = list(map(id, operands))
        positions = tuple(position for position, identity in enumerate(identities) if identity in self.numbers)
        inputs = tuple(self.numbers[identities[position]] for position in positions)
        weights = tuple(self.parameters[identity] for identity in identities if identity in self.parameters)
        shapes, shape = tuple(tuple(operand.shape) for operand in operands), tuple(tensor.shape)
        self.nodes.append(
            Node(len(self.nodes), address, name, inputs, positions, shapes, weights, shape, tensor.dtype, dim)
        )
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
