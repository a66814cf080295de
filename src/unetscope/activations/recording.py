"""Record the tensors of one forward pass, and what each was made from.

The calls of torch functions are seen from above, by `tracing`, and what runs below them by a dispatch mode: which memory is
written, and operations that no call of a torch function started. Tensors are told apart by identity, and the views of one
memory by the places that they cover: what is written into a view changes all that overlap it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, jit, nn

from unetscope.activations.graph import SCRIPT, Graph
from unetscope.activations.inference import check_initialised, eval_mode
from unetscope.activations.nodes import Nodes
from unetscope.activations.operations import Operations, applied_functions
from unetscope.activations.origins import PLACEWISE, memory_of, shares_of
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
        stack.enter_context(applied_functions(recorder.record_applied))
        recorder.running = stack.enter_context(trace_calls(model, recorder.record_call))
        with Operations(recorder.record_operation):
            result = model(*arguments)
    return recorder.graph(result)


@dataclass
class _Call:
    """A call and what runs below it.

    written: for each memory, whether all of the first tensor written there was overwritten, and how many places that has.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    operations: set[str] = field(default_factory=set)
    written: dict[int, tuple[bool, int]] = field(default_factory=dict)


@dataclass
class _Recorder(Nodes):
    """Collects the nodes of a graph while the network runs."""

    running: Sequence[str] = ("",)  # modules, from outer to inner
    returned_by: dict[int, list[str]] = field(default_factory=dict)  # by number, modules from inner to outer
    runs: Counter[str] = field(default_factory=Counter)  # by module
    call: _Call | None = None  # the call in progress

    def record_call(
        self, address: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        arguments = list(tensors_in((args, dict(kwargs))))
        scripted = isinstance(function, ScriptedCall)
        name = SCRIPT if scripted else function_of(address)
        inputs = self.inputs(arguments, address, args[1] if name == "setitem" else None)
        if out := list(tensors_in(kwargs.get("out"))):  # nothing is read of them
            inputs = [(position, number) for position, number in inputs if position < len(arguments) - len(out)]
        outer, self.call = self.call, _Call(name, args, kwargs)
        try:
            result = function(*args, **kwargs)
        finally:
            call, self.call = self.call, outer
        assert call is not None
        fields = {"dim": _axis(name, args, kwargs), "operations": frozenset(call.operations if scripted else ())}
        if name in LEAVING:  # what is made of the input
            self.left += [(address, number) for _, number in inputs if number in self.made_from_input]
        made = list(tensors_in(result))
        for tensor in made:
            if name in ENTERING and not arguments and self.left and tensor.numel() > 1:
                self.entered[id(tensor)] = tensor
            elif not (
                id(tensor) in self.numbers and memory_of(tensor) not in call.written and not scripted and name == "get"
            ):
                number = self._add_result(tensor, address, name, inputs, arguments, call, fields)
                if not isinstance(result, Tensor):  # one of several
                    self.unreturned.add(number)
        if name == "set" and inputs and len(arguments) == 2:  # `x.data = y`
            self.add(arguments[0], address, "view", [source for source in inputs if source[0] == 1], arguments)
        recorded = {memory_of(tensor) for tensor in made}
        for position, tensor in enumerate(arguments):
            memory = memory_of(tensor)
            if memory not in recorded and memory in call.written and id(tensor) in self.numbers:
                recorded.add(memory)
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
        memory = memory_of(tensor)
        is_written, is_view = memory in call.written, tensor in self.origins
        wholly, size = call.written.get(memory, (False, 0)) if memory is not None else (False, 0)
        if name in LIKE:
            inputs = ()
        elif wholly and size == tensor.numel():
            overwritten = [p for p, argument in enumerate(arguments) if argument is tensor]
            inputs = [(position, number) for position, number in inputs if position not in overwritten]
        elif is_view and not is_written:
            inputs = self.viewed(tensor, inputs, arguments)
        made = {"is_view": is_view and not is_written, "is_written": is_view and is_written}
        number = self.add(tensor, address, name, inputs, arguments, **made, **fields)
        shares = shares_of(call.name, call.args, call.kwargs, fields["dim"], tensor, arguments, dict(inputs))
        inherited = [argument for argument in arguments if argument.numel() == tensor.numel() and name in PLACEWISE]
        if not is_view:
            self.origins.make(tensor, number, shares)
            if len(inherited) == len(arguments) == 1:
                self.origins.inherit(tensor, number, arguments[0])
        elif name == "setitem" and is_written:
            self.origins.write(tensor, number, dict(inputs).get(len(arguments) - 1), call.args[1])
        elif is_written and len(inherited) == len(arguments) == 1:
            self.origins.inherit(tensor, number, arguments[0])
        elif is_written:
            for index, source in [(..., number), *shares]:
                self.origins.write(tensor, number, source, index)
        return number

    def record_operation(self, name: str, args: Any, result: Any, written: Sequence[Tensor]) -> None:
        """Record an operation below torch functions: as part of the call in progress, or for itself if no call started it."""
        if self.call is not None:
            self.call.operations.add(name)
            for tensor in written:
                if (memory := memory_of(tensor)) is not None:
                    self.call.written.setdefault(memory, (name.strip("_") in OVERWRITING, tensor.numel()))
            return
        scope = self.running[-1]
        arguments = [t for t in tensors_in(args) if id(t) in self.numbers or memory_of(t) in self.owners]
        inputs = self.inputs(arguments, f"{scope}{SEPARATOR}{name}")
        for tensor in (*tensors_in(result), *written):
            if id(tensor) in self.numbers and not any(tensor is target for target in written):
                continue
            if not inputs:
                self.entered[id(tensor)] = tensor
                continue
            number = self.add(tensor, f"{scope}{SEPARATOR}{name}", name.strip("_"), inputs, arguments)
            self.unreturned.add(number)
            if any(tensor is target for target in written):
                self.origins.write(tensor, number, number)
            elif tensor not in self.origins:
                self.origins.make(tensor, number)

    def record_block(self, name: str, inputs: Any, output: Any) -> None:
        """Record what a piece of the network returns. What no recorded call made counts as made from its inputs."""
        arguments = list(tensors_in(inputs))
        for tensor in tensors_in(output):
            is_recorded = id(tensor) in self.numbers or id(tensor) in self.parameters
            if not is_recorded and (id(tensor) in self.entered or memory_of(tensor) not in self.owners):
                sources = self.inputs(arguments, name)
                number = self.add(tensor, name, "module", sources, arguments)
                if SEPARATOR in name:
                    self.unreturned.add(number)

    def record_applied(self, name: str, inputs: Any, output: Any) -> None:
        """Record what a `torch.autograd.Function` returns."""
        self.record_block(f"{self.running[-1]}{SEPARATOR}{name}", inputs, output)

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
