"""Intercept every torch function that a network calls in a forward pass, by the module that calls it.

Each call has an address, so that a tensor that no module returns can be named: `decoder.block1:cat` is the first `cat` that
the module `decoder.block1` calls itself in a forward pass, `decoder.block1:cat#2` the second. `decoder.block1:cat@1` is the
second tensor among the arguments of that call, for a tensor that no call returns, such as one that was written into.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, jit, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from unetscope.activations.inference import uncompiled
from unetscope.activations.threads import held
from unetscope.base import NetworkError, Shared

SEPARATOR, ARGUMENT = ":", "@"
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


def argument_place(address: str, position: int) -> str:
    """The place of a tensor among the arguments of a call.

    >>> argument_place("decoder:cat", 1), split_argument("decoder:cat@1"), split_argument("decoder:cat")
    ('decoder:cat@1', ('decoder:cat', 1), ('decoder:cat', None))
    """
    return f"{address}{ARGUMENT}{position}"


def split_argument(place: str) -> tuple[str, int | None]:
    """The address of the call and the position of the argument; None for what the call returns."""
    address, _, position = place.rpartition(ARGUMENT)
    return (address, int(position)) if address and position.isdigit() else (place, None)


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples, dictionaries and dataclasses, in order."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from tensors_in(value)
    elif isinstance(values, list | tuple | set | frozenset):
        for value in values:
            yield from tensors_in(value)
    elif is_dataclass(values) and not isinstance(values, type):
        for field in fields(values):
            yield from tensors_in(getattr(values, field.name, None))
    elif values is not None and not isinstance(values, str | int | float | bool):
        yield from (leaf for leaf in tree_iter(values) if isinstance(leaf, Tensor))


@contextmanager
def trace_calls(model: nn.Module, intercept: Intercept) -> Iterator[list[str]]:
    """Within the block, every torch function that the network calls goes through `intercept(address, function, args, kwargs)`.

    `intercept` runs the function and returns its result, or a replacement for it; gradients flow through what it computes.
    A function of `torch.nn.functional` is one call, whatever it calls itself, and so is a scripted function or module. Calls
    outside the network's forward pass are not intercepted. The value of the block is the names of the modules that run, from
    outer to inner.

    Raises: NetworkError for a scripted network, whose calls cannot be intercepted, and if another thread is measuring it.
    """
    if isinstance(model, jit.ScriptModule):
        raise NetworkError(
            f"{_script_name(model)} is scripted as a whole and cannot be looked into: give the network before scripting"
        )
    names = {
        module: name
        for name, module in model.named_modules()
        if module is not model and not isinstance(module, jit.ScriptModule)
    }
    running: list[str] = []
    counts: Counter[tuple[str, str]] = Counter()

    # Replaces `forward` instead of hooking it: a hook is not called when a BaseException ends the pass.
    def traced_forward(*args: Any, **kwargs: Any) -> Any:
        counts.clear()
        running[:] = [""]
        mode = _InterceptMode(running, counts, intercept)
        with mode, _scripted_calls(mode):
            return forward(*args, **kwargs)

    def enter(module: nn.Module, _inputs: Any) -> None:
        running.append(names[module])

    def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        running.pop()

    with held(model), uncompiled(), ExitStack() as stack:
        has_own_forward, forward = "forward" in vars(model), model.forward
        for module in names:
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        vars(model)["forward"] = traced_forward
        try:
            yield running
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


class ScriptedCall:
    """A call of a scripted function or module, as one function of its tensors, with its name."""

    def __init__(self, script: Any, call: Callable[..., Any]) -> None:
        self._script, self._call = script, call
        self.__name__ = _script_name(script)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result of the script."""
        with torch._C.DisableTorchFunction():
            return self._call(self._script, *args, **kwargs)


def _script_name(script: Any) -> str:
    """The name of a scripted function, or of the class of a scripted module."""
    if isinstance(script, jit.ScriptModule):
        return str(script.original_name)
    owner = getattr(script, "owner", None)
    return str(script.name if owner is None else owner._type().name().rpartition(".")[2])


_modes_of_thread: dict[int, list[_InterceptMode]] = {}  # from the outer to the inner


@contextmanager
def _scripted_calls(mode: _InterceptMode) -> Iterator[None]:
    """Within the block, calls of scripted functions and modules in this thread go through the mode, which torch leaves out."""
    modes = _modes_of_thread.setdefault(threading.get_ident(), [])
    with _SCRIPTED_CALLS_SEEN:
        modes.append(mode)
        try:
            yield
        finally:
            modes.remove(mode)
            if not modes:
                _modes_of_thread.pop(threading.get_ident(), None)


@contextmanager
def _see_scripted_calls() -> Iterator[None]:
    """Within the block, calls of scripted functions and modules go through the modes of the thread that makes them."""

    def seen(call: Callable[..., Any]) -> Callable[..., Any]:
        def call_seen(script: Any, *args: Any, **kwargs: Any) -> Any:
            modes = _modes_of_thread.get(threading.get_ident(), [])
            return _through(tuple(modes), call)(script, *args, **kwargs)

        return call_seen

    classes: tuple[Any, ...] = (torch._C.ScriptFunction, torch._C.ScriptMethod)
    calls = [scripted.__call__ for scripted in classes]
    try:
        for scripted, call in zip(classes, calls, strict=True):
            scripted.__call__ = seen(call)
        yield
    finally:
        for scripted, call in zip(classes, calls, strict=True):
            scripted.__call__ = call


_SCRIPTED_CALLS_SEEN = Shared(_see_scripted_calls)


def _through(modes: tuple[_InterceptMode, ...], call: Callable[..., Any]) -> Callable[..., Any]:
    """The call of a script through these modes, the last of them first."""
    if not modes:
        return call

    def intercepted(script: Any, *args: Any, **kwargs: Any) -> Any:
        return modes[-1].__torch_function__(ScriptedCall(script, _through(modes[:-1], call)), (), args, kwargs)

    return intercepted


_ALIASES = {
    "iadd": "add", "radd": "add", "imul": "mul", "rmul": "mul", "multiply": "mul", "isub": "sub", "subtract": "sub",
    "concat": "cat", "concatenate": "cat", "truediv": "div", "itruediv": "div", "true_divide": "div", "divide": "div",
    "ior": "or", "iand": "and", "ipow": "pow",
}  # fmt: skip


def function_name(function: Callable[..., Any]) -> str:
    """The plain name of a torch function: `add` for `x + y`, `x += y` and `torch.add`, `get` for an attribute such as `x.T`.

    >>> import torch
    >>> [function_name(function) for function in (torch.Tensor.__iadd__, torch.relu_, torch.concat, torch.Tensor.T.__get__)]
    ['add', 'relu', 'cat', 'get']
    """
    plain = getattr(function, "__name__", type(function).__name__).strip("_")
    if isinstance(function, torch._ops.OpOverload):  # whose name ends in that of the overload, as in `add.Tensor`
        plain = plain.split(".")[0].strip("_")
    return _ALIASES.get(plain, plain)
