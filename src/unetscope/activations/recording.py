"""Record the tensors of one forward pass, and what each was made from.

The calls of torch functions are seen from above, by `tracing`, and what runs below them by a dispatch mode: which memory is
written, and operations that no call of a torch function started. Tensors are told apart by identity, and the views of one
memory by the places that they cover: what is written into a view changes all that overlap it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, jit, nn
from torch.utils._python_dispatch import TorchDispatchMode

from unetscope.activations.graph import FOREIGN, SCRIPT, WRITTEN, Graph, Node, UnknownOrigin
from unetscope.activations.inference import check_initialised, eval_mode
from unetscope.activations.tracing import (
    INPUT,
    SEPARATOR,
    ScriptedCall,
    argument_place,
    function_of,
    tensors_in,
    trace_calls,
)

# Functions that take the shape and type of a tensor, and none of its values.
LIKE = {
    *(f"{how}_like" for how in ("zeros", "ones", "empty", "full", "rand", "randn", "randint")),
    *(f"new_{how}" for how in ("zeros", "ones", "empty", "full", "tensor", "empty_strided")),
}  # fmt: skip
LEAVING = {"numpy", "array", "tolist", "dlpack", "data_ptr"}  # functions that give values to other libraries
ENTERING = {"tensor", "as_tensor", "asarray", "frombuffer", "from_dlpack"}  # functions that take values from them
OVERWRITING = {"copy", "fill", "zero"}  # functions that leave nothing of what they write into


def record_graph(model: nn.Module, example: Any) -> Graph:
    """The graph of one forward pass of `example`, a tensor [1, channels, ...] or a tuple of the network's arguments.

    The network runs in evaluation mode and is left unchanged.
    """
    check_initialised(model)
    held = {id(tensor) for module in model.modules() for tensor in tensors_in({**vars(module), "_modules": None})}
    recorder = _Recorder({id(parameter): name for name, parameter in model.named_parameters()}, held)
    arguments = tuple(example) if isinstance(example, tuple | list) else (example,)
    for tensor in tensors_in(arguments):
        recorder.add(tensor, INPUT, "input", ())
    with eval_mode(model), ExitStack() as stack:
        for name, module in model.named_modules():
            if module is not model and not isinstance(module, jit.ScriptModule):

                def record_module(_module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                    with torch._C.DisableTorchFunction():  # what the recorder calls is not the network's
                        recorder.record_module(name, inputs, output)

                stack.callback(module.register_forward_hook(record_module).remove)
        stack.enter_context(_applied_functions(recorder))
        recorder.running = stack.enter_context(trace_calls(model, recorder.record_call))
        with _Operations(recorder):
            result = model(*arguments)
    return recorder.graph(result)


@dataclass
class _Call:
    """What runs below a call. written: for each memory, whether all of the first tensor written there was overwritten."""

    operations: set[str] = field(default_factory=set)
    written: dict[int, tuple[bool, int]] = field(default_factory=dict)


Extent = tuple[int, int]  # the first place in a memory that a tensor may use, and the place after the last


@dataclass
class _Recorder:
    """Collects the nodes of a graph.

    parameters: the names of the network's parameters, by identity. held: the identities of all tensors that its modules hold.
    """

    parameters: Mapping[int, str]
    held: Collection[int]
    running: Sequence[str] = ("",)  # modules, from outer to inner
    nodes: list[Node] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)  # kept alive, so that no identity is used twice
    numbers: dict[int, int] = field(default_factory=dict)  # by identity, the number of a tensor
    owners: dict[int, int] = field(default_factory=dict)  # by memory, the number of its first tensor
    writes: dict[int, list[tuple[int, Extent]]] = field(default_factory=dict)  # by memory, the tensors written there
    returned_by: dict[int, list[str]] = field(default_factory=dict)  # by number, modules from inner to outer
    runs: Counter[str] = field(default_factory=Counter)  # by module
    made_from_input: set[int] = field(default_factory=set)  # numbers
    call: _Call | None = None  # the call in progress
    unreturned: set[int] = field(default_factory=set)  # numbers of tensors that no call returns
    entered: dict[int, Tensor] = field(default_factory=dict)  # by identity, tensors that came from nowhere
    left: list[tuple[str, int]] = field(default_factory=list)  # calls that gave values away, and the numbers of these
    unknown: dict[int, UnknownOrigin] = field(default_factory=dict)  # by identity

    def add(
        self,
        tensor: Tensor,
        address: str,
        name: str,
        inputs: Sequence[tuple[int, int]],
        arguments: Sequence[Tensor] = (),
        **fields: Any,
    ) -> int:
        """Add a node. inputs: each as (position among the arguments, number)."""
        number = len(self.nodes)
        self.nodes.append(
            Node(
                number,
                address,
                name,
                inputs=tuple(source for _, source in inputs),
                positions=tuple(position for position, _ in inputs),
                arguments=tuple(tuple(argument.shape) for argument in arguments),
                weights=tuple(
                    self.parameters[id(argument)] for argument in arguments if id(argument) in self.parameters
                ),
                shape=tuple(tensor.shape),
                dtype=tensor.dtype,
                **fields,
            )
        )
        if name == "input" or any(source in self.made_from_input for _, source in inputs):
            self.made_from_input.add(number)
        self.tensors.append(tensor)
        self.numbers[id(tensor)] = number
        if (memory := _memory(tensor)) is not None:
            self.owners.setdefault(memory, number)
        return number

    # What a tensor is.

    def inputs(self, arguments: Sequence[Tensor], address: str) -> list[tuple[int, int]]:
        """The tensors of known origin among the arguments of a call, each as (position, number)."""
        numbers = ((position, self.number(tensor, address, position)) for position, tensor in enumerate(arguments))
        return [(position, number) for position, number in numbers if number is not None]

    def number(self, tensor: Tensor, address: str, position: int) -> int | None:
        """The number of an argument of a call, as its memory is now; None for a parameter or a constant."""
        number = self.numbers.get(id(tensor))
        if number is None:
            if id(tensor) in self.parameters:
                return None
            number = self._number_of_unseen(tensor, address, position)
        memory = _memory(tensor)
        if number is None or memory not in self.writes:
            return number
        extent = _extent(tensor)
        later = [write for write in self.writes[memory] if write[0] > number and _overlap(write[1], extent)]
        if not later:
            return number
        covers = [k for k, (_, written) in enumerate(later) if written[0] <= extent[0] and written[1] >= extent[1]]
        sources = [number for number, _ in later[covers[-1] :]] if covers else [number, *(n for n, _ in later)]
        if len(sources) == 1 and self.nodes[sources[0]].shape == tuple(tensor.shape):
            return sources[0]
        number = self.add(
            tensor, address, WRITTEN, list(enumerate(sources)), [self.tensors[source] for source in sources]
        )
        self.unreturned.add(number)
        return number

    def _number_of_unseen(self, tensor: Tensor, address: str, position: int) -> int | None:
        """The number of a tensor that no recorded call made: a view of a known one, or one that came in from outside."""
        memory = _memory(tensor)
        if memory in self.owners:
            owner = self.owners[memory]
            number = self.add(tensor, address, "view", [(0, owner)], [self.tensors[owner]])
        elif id(tensor) in self.entered or (self.left and id(tensor) not in self.held):
            alike = [leaving for leaving in self.left if self.nodes[leaving[1]].shape == tuple(tensor.shape)]
            left = dict(alike[-1:] or self.left)
            self.unknown[id(tensor)] = UnknownOrigin(address, position, tuple(tensor.shape), tuple(left))
            sources = list(dict.fromkeys(left.values()))
            number = self.add(tensor, address, FOREIGN, list(enumerate(sources)), [self.tensors[n] for n in sources])
        else:
            return None  # a constant that is not made in the pass
        self.unreturned.add(number)
        return number

    # What runs.

    def record_call(
        self, address: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        arguments = list(tensors_in((args, dict(kwargs))))
        inputs = self.inputs(arguments, address)
        outer, self.call = self.call, _Call()
        try:
            result = function(*args, **kwargs)
        finally:
            call, self.call = self.call, outer
        assert call is not None
        scripted = isinstance(function, ScriptedCall)
        name = SCRIPT if scripted else function_of(address)
        fields = {"dim": _axis(name, args, kwargs), "operations": frozenset(call.operations if scripted else ())}
        if name in LEAVING:  # what is made of the input
            self.left += [(address, number) for _, number in inputs if number in self.made_from_input]
        made = list(tensors_in(result))
        for tensor in made:
            if name in ENTERING and not arguments and self.left and tensor.numel() > 1:
                self.entered[id(tensor)] = tensor
            elif not (
                id(tensor) in self.numbers and _memory(tensor) not in call.written and not scripted and name == "get"
            ):
                number = self._add_result(tensor, address, name, inputs, arguments, call, fields)
                if not isinstance(result, Tensor):  # one of several
                    self.unreturned.add(number)
        if name == "set" and inputs and len(arguments) == 2:  # `x.data = y`
            self.add(arguments[0], address, "view", [source for source in inputs if source[0] == 1], arguments)
        returned = {id(tensor) for tensor in made}
        for position, tensor in enumerate(arguments):
            if id(tensor) not in returned and _memory(tensor) in call.written and id(tensor) in self.numbers:
                number = self._add_result(tensor, address, name, inputs, arguments, call, fields)
                if made or position:
                    self.unreturned.add(number)
        return result

    def _add_result(
        self,
        tensor: Tensor,
        address: str,
        name: str,
        inputs: Sequence[tuple[int, int]],
        arguments: Sequence[Tensor],
        call: _Call,
        fields: Mapping[str, Any],
    ) -> int:
        memory = _memory(tensor)
        wholly, size = call.written.get(memory, (False, 0)) if memory is not None else (False, 0)
        if name in LIKE:
            inputs = ()
        elif wholly and size == tensor.numel():
            overwritten = [p for p, argument in enumerate(arguments) if argument is tensor]
            inputs = [(position, number) for position, number in inputs if position not in overwritten]
        number = self.add(tensor, address, name, inputs, arguments, **fields)
        if memory is not None and memory in call.written:
            self.writes.setdefault(memory, []).append((number, _extent(tensor)))
        return number

    def record_operation(self, name: str, args: Any, result: Any, written: Sequence[Tensor]) -> None:
        """Record an operation below torch functions: as part of the call in progress, or for itself if no call started it."""
        if self.call is not None:
            self.call.operations.add(name)
            for tensor in written:
                if (memory := _memory(tensor)) is not None:
                    self.call.written.setdefault(memory, (name.strip("_") in OVERWRITING, tensor.numel()))
            return
        scope = self.running[-1]
        arguments = [t for t in tensors_in(args) if id(t) in self.numbers or _memory(t) in self.owners]
        inputs = self.inputs(arguments, f"{scope}{SEPARATOR}{name}")
        for tensor in (*tensors_in(result), *written):
            if id(tensor) in self.numbers and not any(tensor is target for target in written):
                continue
            if not inputs:
                self.entered[id(tensor)] = tensor
                continue
            number = self.add(tensor, f"{scope}{SEPARATOR}{name}", name.strip("_"), inputs, arguments)
            self.unreturned.add(number)
            if any(tensor is target for target in written) and (memory := _memory(tensor)) is not None:
                self.writes.setdefault(memory, []).append((number, _extent(tensor)))

    def record_block(self, name: str, inputs: Any, output: Any) -> None:
        """Record what a piece of the network returns. What no recorded call made counts as made from its inputs."""
        arguments = list(tensors_in(inputs))
        for tensor in tensors_in(output):
            is_recorded = id(tensor) in self.numbers or id(tensor) in self.parameters
            if not is_recorded and (id(tensor) in self.entered or _memory(tensor) not in self.owners):
                sources = self.inputs(arguments, name)
                number = self.add(tensor, name, "module", sources, arguments)
                if SEPARATOR in name:
                    self.unreturned.add(number)

    def record_module(self, name: str, inputs: Any, output: Any) -> None:
        """Record what a module returns."""
        self.runs[name] += 1
        self.record_block(name, inputs, output)
        if isinstance(output, Tensor) and id(output) in self.numbers:
            self.returned_by.setdefault(self.numbers[id(output)], []).append(name)

    # What it comes to.

    def graph(self, result: Any) -> Graph:
        """The graph, with the modules that return its tensors. result: of the network."""
        outputs = [self.number(tensor, "", position) for position, tensor in enumerate(tensors_in(result))]
        modules = {
            number: "".join([name for name in names if self.runs[name] == 1][-1:])
            for number, names in self.returned_by.items()
        }
        self.unreturned.update(
            node.number for node in self.nodes if node.name == "module" and self.runs[node.address] > 1
        )
        arguments: dict[int, str] = {}
        for node in self.nodes:
            if node.number not in self.unreturned:
                for number, position in zip(node.inputs, node.positions, strict=True):
                    if number in self.unreturned:
                        arguments.setdefault(number, argument_place(node.address, position))
        nodes = (
            replace(node, module=modules.get(node.number, ""), argument=arguments.get(node.number, ""))
            for node in self.nodes
        )
        followed = tuple(number for number in outputs if number is not None)
        return Graph(tuple(nodes), followed, tuple(self.unknown.values()))


class _Operations(TorchDispatchMode):
    """Tells the recorder of every operation that runs below torch functions."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            result = function(*args, **kwargs)
            name, positions, keys = _signature(function)
            written = [args[k] for k in positions if k < len(args)] + [kwargs[key] for key in keys if key in kwargs]
            self._recorder.record_operation(name, (args, kwargs), result, list(tensors_in(written)))
        return result


@cache
def _signature(operation: Any) -> tuple[str, tuple[int, ...], tuple[str, ...]]:
    """The name of an operation, and the positions and names of the arguments that it writes into."""
    schema = operation._schema
    written = [
        (position, argument.name)
        for position, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return schema.name.rpartition("::")[2], tuple(k for k, _ in written), tuple(name for _, name in written)


@contextmanager
def _applied_functions(recorder: _Recorder) -> Iterator[None]:
    """Within the block, what a `torch.autograd.Function` returns counts as made from its inputs, if nothing else tells."""
    apply: Any = vars(torch.autograd.Function)["apply"]

    def recorded(cls: Any, *args: Any, **kwargs: Any) -> Any:
        result = apply.__get__(None, cls)(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            recorder.record_block(f"{recorder.running[-1]}{SEPARATOR}{cls.__name__}", (args, kwargs), result)
        return result

    function: Any = torch.autograd.Function
    try:
        function.apply = classmethod(recorded)
        yield
    finally:
        function.apply = apply


def _memory(tensor: Tensor) -> int | None:
    """The identity of a tensor's memory; None where there is none, as for a sparse tensor."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return None


def _extent(tensor: Tensor) -> Extent:
    """The part of its memory that a tensor may use, in bytes."""
    first, size = int(tensor.storage_offset()), tensor.element_size()
    if not tensor.numel():
        return first * size, first * size
    last = first + sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return first * size, (last + 1) * size


def _overlap(first: Extent, second: Extent) -> bool:
    return first[0] < second[1] and second[0] < first[1]


def _axis(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """The axis of a concatenation, a stack or a reduction, counted from the front."""
    if name in {"hstack", "column_stack", "dstack", "vstack", "row_stack"}:
        return {"dstack": 2, "vstack": 0, "row_stack": 0}.get(name, 1)
    if name not in {"cat", "stack", *REDUCTIONS}:
        return None
    dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None if name in REDUCTIONS else 0))
    dim = dim[0] if isinstance(dim, list | tuple) and len(dim) == 1 else dim
    if not isinstance(dim, int):
        return None
    operand = next(tensors_in((args, dict(kwargs))), None)
    return dim % (operand.ndim + (name == "stack")) if operand is not None and operand.ndim else None


# Functions that bring the places along an axis together.
REDUCTIONS = {"sum", "mean", "amax", "amin", "prod", "max", "min", "median", "nansum", "nanmean", "logsumexp"}
