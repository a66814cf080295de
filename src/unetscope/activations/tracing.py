"""Intercept every torch function that a network calls in a forward pass, by the module that calls it.

Each call has an address, so that a tensor that no module returns can be named: `decoder.block1:cat` is the first `cat` that
the module `decoder.block1` calls itself in a forward pass, `decoder.block1:cat#2` the second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

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
