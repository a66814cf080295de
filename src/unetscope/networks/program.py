"""Record a network as a program: the calls of PyTorch's own modules and functions that one forward pass makes, in order.

Closures, hooks, bound methods and lists of weights are Python, which a recording has behind it: what is left are calls and
weights. Sizes stay free (see `traced_sizes`). Whatever Python decides by values of tensors is refused, since a program would
decide alike for every image.
"""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_iter

from unetscope.activations import ScriptedCall, eval_mode, function_name, kept_parameters, trace_calls
from unetscope.base import NetworkError, first_line
from unetscope.networks.ablation import checkpoint_call
from unetscope.networks.program_tensors import ProgramTensors, storage_of
from unetscope.networks.random_draws import refused_draws
from unetscope.networks.traced_sizes import plain

# Functions whose result is Python's and not a tensor: decisions by values.
DECIDING = {
    "__bool__", "__float__", "__int__", "__index__", "__complex__", "__contains__", "__array__", "item", "tolist", "numpy",
    "equal", "allclose", "is_nonzero",
}  # fmt: skip
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


@dataclass
class Program:
    """A recorded network. What its nodes say of themselves stands in their `meta`.

    `address`: of the call, or the module's name. `function`: its plain name. `shape`: of the tensor, absent for others.
    `after`: the nodes that wrote in place to what this one reads. `writes`: whether it writes in place itself.

    modules, attributes: of the recorded network, by the names that the graph has for them. outside: the names of attributes
    that are no parameters or buffers of the network, such as weights in a list or a closure. sizes_escaped: whether Python
    made plain numbers of sizes, so that the program may hold for the example's size alone.
    """

    graph: fx.Graph
    modules: dict[str, nn.Module]
    attributes: dict[str, Tensor]
    outside: tuple[str, ...]
    sizes_escaped: bool

    def at(self, address: str) -> fx.Node:
        """The node of a call, be it made by a module of PyTorch's. Raises: NetworkError if there is none in this mode."""
        module, _, call = address.rpartition(":")
        function, _, number = call.partition("#")
        nodes = [node for node in self.graph.nodes if node.meta.get("address") == address]
        whole = [node for node in self.graph.nodes if (node.op, node.meta.get("address")) == ("call_module", module)]
        if not nodes and all(node.meta["function"] == function for node in whole):
            nodes = whole[int(number or 1) - 1 :]
        if not nodes:
            raise NetworkError(f"no call {address} runs by itself in this mode of the network: ablate it instead")
        return nodes[0]


def place(node: fx.Node) -> str:
    """The call of a node, as refusals name it."""
    return f"{node.meta.get('function', node.name)} ({node.meta.get('address', node.name)})"


def record_program(model: nn.Module, arguments: tuple[Any, ...], *, training: bool) -> Program:
    """The program of a network in one of its modes. The network runs once on the arguments, and is left unchanged.

    Raises: NetworkError if it decides by the values of tensors, or does what no program can say.
    """
    _refuse_network(model)
    recording = _Recording(model)
    placeholders = [recording.placeholder(k, value) for k, value in enumerate(arguments)]
    with eval_mode(model), torch.enable_grad(), ExitStack() as stack:
        stack.enter_context(kept_parameters(model))
        model.train(training)
        frozen = [name for name, module in model.named_modules() if training and not module.training and name]
        stack.enter_context(recording.own_modules(model))
        stack.enter_context(_refused_functions())
        stack.enter_context(_uncached_einops())
        stack.enter_context(refused_draws(model))
        stack.enter_context(trace_calls(model, recording.call))
        try:
            result = model(*placeholders)
        except RuntimeError as error:
            mode = "training" if training else "evaluation"
            raise NetworkError(
                f"the network does not run with gradients in {mode} mode: {first_line(error)}"
            ) from error
    recording.graph.output(recording.output(result))
    recording.graph.output_node().meta["after"] = recording.writers(result)
    recording.graph.output_node().meta["frozen"] = frozen
    return Program(
        recording.graph, recording.modules, recording.attributes, tuple(recording.outside), recording.sizes_escaped
    )


@contextmanager
def _uncached_einops() -> Iterator[None]:
    """Keep einops, if the network uses it, from giving the sizes of an earlier tensor of the same shape."""
    module: Any = sys.modules.get("einops.einops")
    cached, uncached = (getattr(module, f"_reconstruct_from_shape{end}", None) for end in ("", "_uncached"))
    if cached is None or uncached is None:
        yield
        return
    module._reconstruct_from_shape = uncached
    try:
        yield
    finally:
        module._reconstruct_from_shape = cached


@contextmanager
def _refused_functions() -> Iterator[None]:
    """Refuse functions with a backward pass of their own, of which a recording would see the forward pass alone."""
    original = vars(torch.autograd.Function)["apply"]

    def refuse(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if cls.__module__ in {
            "torch.utils.checkpoint",
            "torch.nn.modules._functions",
        }:  # the latter calls backward hooks
            return original.__get__(None, cls)(*args, **kwargs)
        raise NetworkError(
            f"{cls.__name__} is an autograd.Function with a backward pass of its own, which is not recorded: "
            "ablate it instead"
        )

    torch.autograd.Function.apply = classmethod(refuse)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.autograd.Function.apply = original  # type: ignore[method-assign]


class _Recording(ProgramTensors):
    """Collects the nodes of a program while the network runs."""

    # What goes in and out.

    def placeholder(self, position: int, value: Any) -> Any:
        if not isinstance(value, Tensor) and any(isinstance(inner, Tensor) for inner in tree_iter(value)):
            raise NetworkError(
                f"argument {position} of the network is a {type(value).__name__} of tensors, which is not recorded: wrap the "
                "network in a module that takes each tensor by itself"
            )
        node = self.graph.placeholder(f"input_{position}")
        if isinstance(value, Tensor):
            value = value.detach().clone()
            self._register(value, node)
            node.meta.update(address=":input", function="input")
        else:
            node.meta.update(address=":input", function="input", constant=value)
        return value

    def output(self, value: Any) -> Any:
        """A result with nodes in the place of tensors."""
        if isinstance(value, Tensor):
            return self._node(value)
        if is_dataclass(value) and not isinstance(value, type):
            values = {each.name: self.output(getattr(value, each.name)) for each in fields(value)}
            return self.graph.call_function(type(value), (), {k: v for k, v in values.items() if v is not None})
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self.output, value))
        if isinstance(value, list | tuple):
            return type(value)(map(self.output, value))
        if isinstance(value, Mapping):
            return {key: self.output(item) for key, item in value.items()}
        return self._argument(value, "the output")

    # Calls.

    @contextmanager
    def own_modules(self, model: nn.Module) -> Iterator[None]:
        """Within the block, a module of PyTorch's own is one call, which stays right in both modes."""
        names = {module: name for name, module in model.named_modules() if name and _is_whole(module)}
        original = nn.Module.__call__

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if module not in names or self._inner is not None:
                return original(module, *args, **kwargs)
            with torch._C.DisableTorchFunction():  # what the recording itself asks is not recorded
                versions = self._versions(args, kwargs)
            inner: list[str] = []
            self._inner = inner
            try:
                result = original(module, *_plain(args), **_plain(kwargs))
            finally:
                self._inner = None
            if not inner:  # as nn.Identity
                return result
            name = names[module]
            self.modules[name] = module
            function = type(module).__name__ if _is_composite(module) else inner[-1]
            with torch._C.DisableTorchFunction():
                node = self.graph.call_module(name, *self._arguments(args, kwargs, name))
                return self._record(node, result, name, function, (args, kwargs), versions)

        nn.Module.__call__ = call  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            nn.Module.__call__ = original  # type: ignore[method-assign]

    def call(self, address: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """One call of a function of torch."""
        name = function_name(function)
        if self._inner is not None:
            self._inner += [name] * (name not in {"get", "view_as"})  # of backward hooks
            return function(*_plain(args), **_plain(kwargs))
        if (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")) != self._autocast:
            raise NetworkError(
                f"{address} runs under an autocast within the network, which is not recorded: ablate it instead"
            )
        if getattr(function, "__name__", "") in DECIDING:
            decided_by = [value for value in tree_iter(args) if isinstance(value, Tensor) and id(value) in self._nodes]
            if not all(map(self._is_made_of_sizes, decided_by)):
                raise NetworkError(
                    f"the network decides by the values of a tensor ({address}), which no fixed program can: ablate it instead"
                )
            self.sizes_escaped = self.sizes_escaped or bool(decided_by)
        _refuse_call(function, kwargs, address)
        versions = self._versions(args, kwargs)
        result = function(*_plain(args), **_plain(kwargs))
        if not any(isinstance(value, Tensor) for value in tree_iter(result)):
            if result is None and any(tensor._version != version for tensor, version in versions):  # as x[...] = y
                node = self._call_node(function, args, kwargs, address)
                return self._record(node, (), address, name, (args, kwargs), versions) and None
            return self._python_value(result, name, address, function, args, kwargs)
        node = self._call_node(function, args, kwargs, address)
        if not torch.is_grad_enabled() and checkpoint_call() is None:
            result = self._record(node, result, address, name, (args, kwargs), versions)
            return self._detached(result, address)
        return self._record(node, result, address, name, (args, kwargs), versions)

    def _detached(self, result: Any, address: str) -> Any:
        """The result of a call without gradients, as the program computes it with them."""
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and not self._nodes[id(tensor)].meta["writes"]:
                node = self.graph.call_method("detach", (self._nodes[id(tensor)],))
                node.meta.update(self._nodes[id(tensor)].meta, function="detach", address=address + ".detach")
                self._nodes[id(tensor)] = node
        return result

    def _call_node(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], address: str
    ) -> fx.Node:
        arguments, keywords = self._arguments(args, kwargs, address)
        plain_name = getattr(function, "__name__", "")
        if plain_name == "__get__":
            return self.graph.call_function(getattr, (arguments[0], function.__self__.__name__))  # type: ignore[attr-defined]
        is_operator = getattr(function, "__module__", "") == "torch._tensor" and hasattr(
            Tensor, plain_name
        )  # as __pow__
        is_method = hasattr(function, "__objclass__") or is_operator or getattr(Tensor, plain_name, None) is function
        if is_method:
            return self.graph.call_method(plain_name, arguments, keywords)
        return self.graph.call_function(function, arguments, keywords)

    def _python_value(  # noqa: PLR0911 (a rule for each kind of value)
        self, result: Any, name: str, address: str, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """What a call says of a tensor: sizes are traced, kinds are constants, values are refused."""
        tensor = next((value for value in tree_iter((args, dict(kwargs))) if isinstance(value, Tensor)), None)
        if tensor is None:
            return result
        if name == "set":
            raise NetworkError(
                f"the network sets an attribute of a tensor ({address}), which is not recorded: ablate it instead"
            )
        if id(tensor) not in self._nodes:  # a weight, whose size is known
            return result
        source = self._nodes[id(tensor)]
        if isinstance(result, torch.Size):
            return torch.Size([self._size(source, axis, side) for axis, side in enumerate(result)])  # type: ignore[arg-type]
        if name == "size":
            axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
            return self._size(source, axis % tensor.ndim, result)
        if name == "len":
            return self._size(source, 0, result)
        if name in {"numel", "nelement"}:
            sides = [self._size(source, axis, side) for axis, side in enumerate(tensor.shape)]
            return functools.reduce(operator.mul, sides, 1)
        return result

    def _record(
        self, node: fx.Node, result: Any, address: str, name: str, arguments: Any, versions: list[tuple[Tensor, int]]
    ) -> Any:
        written = [tensor for tensor, version in versions if tensor._version != version]
        node.meta.update(address=address, function=name, after=self.writers(arguments), writes=bool(written))
        if isinstance(result, Tensor):
            self._register(result, node)
        else:
            self._register_items(result, node, address, name)
        for tensor in written:
            self._writers.setdefault(storage_of(tensor), []).append(node)
        return result


def _refuse_call(function: Callable[..., Any], kwargs: Mapping[str, Any], address: str) -> None:
    """Refuse a call that no program can hold. Raises: NetworkError."""
    if isinstance(function, ScriptedCall):
        raise NetworkError(f"{address} is scripted, which is not recorded: give the network before scripting")
    if torch.is_grad_enabled() and any(isinstance(value, Tensor) for value in tree_iter(kwargs.get("out"))):
        raise NetworkError(
            f"{address} writes to out=, which has no gradients and so cannot be trained: use what the call returns"
        )


def _is_whole(module: nn.Module) -> bool:
    """Whether a module is PyTorch's own and nothing of somebody's is hung onto it."""
    if not type(module).__module__.startswith(("torch.nn.", "torch.ao.nn.")) or isinstance(module, CONTAINERS):
        return False
    return not any(
        "forward" in vars(each)
        or each._forward_hooks
        or each._forward_pre_hooks
        or nn.utils.parametrize.is_parametrized(each)
        or any(
            getattr(value, "__closure__", None) for name, value in vars(each).items() if name != "_compiled_call_impl"
        )
        for each in module.modules()
    )


def _refuse_network(model: nn.Module) -> None:
    """Refuse a network of which parts compute with quantised weights, or run around it. Raises: NetworkError."""
    if model._forward_hooks or model._forward_pre_hooks:
        raise NetworkError(
            f"{type(model).__name__} itself has forward hooks, which are not recorded: inspect nn.Sequential(network), and "
            "leave parts out of that"
        )
    for name, module in model.named_modules():
        is_quantised = type(module).__module__.startswith(
            ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.")
        )
        if is_quantised and not type(module).__name__.endswith("Functional"):
            raise NetworkError(
                f"{name or 'the network'} ({type(module).__name__}) is quantised and cannot be trained: leave parts out of the "
                "network before it is quantised"
            )


def _is_composite(module: nn.Module) -> bool:
    """Whether a module of PyTorch's is more than one function with its weights, such as an attention or an LSTM."""
    return isinstance(module, nn.RNNBase) or any(True for _ in module.children())


def _plain(values: Any) -> Any:
    """Arguments with plain numbers in the place of traced ones."""
    if isinstance(values, torch.Size):
        return torch.Size([plain(value) for value in values])
    if isinstance(values, slice):
        return slice(*map(plain, (values.start, values.stop, values.step)))
    if isinstance(values, tuple) and hasattr(values, "_fields"):
        return type(values)(*map(_plain, values))
    if isinstance(values, list | tuple):
        return type(values)(map(_plain, values))
    if isinstance(values, dict):
        return {key: _plain(value) for key, value in values.items()}
    return plain(values)
