"""What a network calls as it runs: every torch function, by the module that calls it.

A tensor that no module gives out has an address all the same: `decoder.block1:cat` is the first `cat` that the module
`decoder.block1` calls itself in a forward pass, `decoder.block1:cat#2` the second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from unetscope.base.errors import NetworkError

SEPARATOR = ":"
INPUT = ":input"  # the address of what the network is given

See = Callable[[str, Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]


def is_address(place: str) -> bool:
    """Whether a name is that of a call rather than of a module.

    >>> is_address("decoder.block1:cat"), is_address("decoder.block1")
    (True, False)
    """
    return SEPARATOR in place


@contextmanager
def trace_calls(model: nn.Module, see: See) -> Iterator[None]:
    """Within the block, whatever torch function the network calls goes through `see(address, function, args, kwargs)`.

    `see` runs the function and returns its result, or whatever else the network is to be given. Gradients flow through what
    it does. Functions that a function of `torch.nn.functional` is made of are not seen apart. Nothing outside the network's
    own forward pass is seen.
    """
    names = {module: name for name, module in model.named_modules() if module is not model}
    if scripted := [name for module, name in names.items() if isinstance(module, torch.jit.ScriptModule)]:
        raise NetworkError(
            f"{scripted[0]} is a scripted module, which cannot be looked into: give the network before scripting"
        )
    running: list[str] = []
    counts: Counter[tuple[str, str]] = Counter()
    own, forward = "forward" in vars(model), model.forward

    def followed(*args: Any, **kwargs: Any) -> Any:  # not a hook: a pass may be ended by what is no Exception
        counts.clear()
        running[:] = [""]
        with _Mode(running, counts, see):
            return forward(*args, **kwargs)

    def entered(module: nn.Module, _inputs: Any) -> None:
        running.append(names[module])

    def left(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        running.pop()

    with ExitStack() as stack:
        for module in names:
            stack.callback(module.register_forward_pre_hook(entered).remove)
            stack.callback(module.register_forward_hook(left, always_call=True).remove)
        vars(model)["forward"] = followed
        try:
            yield
        finally:
            if own:
                vars(model)["forward"] = forward
            else:
                del vars(model)["forward"]


class _Mode(TorchFunctionMode):
    """Counts the calls of each module, and hands them on."""

    def __init__(self, running: list[str], counts: Counter[tuple[str, str]], see: See) -> None:
        super().__init__()
        self._running, self._counts, self._see = running, counts, see

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function_name(function)
        scope = self._running[-1]
        self._counts[scope, name] += 1
        number = self._counts[scope, name]
        address = f"{scope}{SEPARATOR}{name}" + (f"#{number}" if number > 1 else "")
        return self._see(address, function, tuple(args), kwargs or {})


_OPERATORS = {"iadd": "add", "radd": "add", "imul": "mul", "rmul": "mul", "concat": "cat", "concatenate": "cat"}


def function_name(function: Callable[..., Any]) -> str:
    """The plain name of a torch function: `add` for `x + y`, `x += y` and `torch.add`, `get` for an attribute such as `x.T`.

    >>> import torch
    >>> [function_name(one) for one in (torch.Tensor.__iadd__, torch.relu_, torch.concat, torch.Tensor.T.__get__)]
    ['add', 'relu', 'cat', 'get']
    """
    plain = getattr(function, "__name__", type(function).__name__).strip("_")
    return _OPERATORS.get(plain, plain)
