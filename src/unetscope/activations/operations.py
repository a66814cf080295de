"""Follow what runs below the functions of torch: every operation of ATen, and functions with a gradient of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unetscope.activations.tracing import tensors_in


class Operations(TorchDispatchMode):
    """Calls `record(name, arguments, result, written)` for every operation, with the tensors that it wrote into."""

    def __init__(self, record: Callable[[str, Any, Any, Sequence[Tensor]], None]) -> None:
        super().__init__()
        self._record = record

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            result = function(*args, **kwargs)
            name, positions, keys = _signature(function)
            written = [args[k] for k in positions if k < len(args)] + [kwargs[key] for key in keys if key in kwargs]
            self._record(name, (args, kwargs), result, list(tensors_in(written)))
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
def applied_functions(record: Callable[[str, Any, Any], None]) -> Iterator[None]:
    """Within the block, `record(name, inputs, output)` is called for every `torch.autograd.Function` that is applied."""
    apply: Any = vars(torch.autograd.Function)["apply"]

    def recorded(cls: Any, *args: Any, **kwargs: Any) -> Any:
        result = apply.__get__(None, cls)(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            record(cls.__name__, (args, kwargs), result)
        return result

    function: Any = torch.autograd.Function
    try:
        function.apply = classmethod(recorded)
        yield
    finally:
        function.apply = apply
