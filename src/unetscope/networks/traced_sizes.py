"""Sizes of tensors that know how they were computed, so that a recorded program computes them again for other sizes.

A network's Python code reads sizes, computes with them and decides by them. A traced size is an integer with the value of the
example; what is computed from it is traced too, and each decision by it is noted as a condition of the recording.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, Protocol

from torch import fx


class SizeRecorder(Protocol):
    """What notes computations with sizes and decisions by them. sizes_escaped: whether a plain number was made of one."""

    sizes_escaped: bool

    def computed(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> fx.Node:
        """The node of `function(*arguments)`."""

    def decided(self, comparison: Callable[..., bool], arguments: tuple[Any, ...], outcome: bool) -> None:
        """The network goes on as it does only where `comparison(*arguments)` is `outcome`."""


class TracedSize(int):
    """A size, or an integer computed from sizes. node: that computes it."""

    node: fx.Node
    recorder: SizeRecorder

    def __reduce__(self) -> Any:
        return int, (plain(self),)

    def __deepcopy__(self, _memo: Any) -> int:
        return plain(self)


class TracedRatio(float):
    """A number computed from sizes that need not be whole."""

    node: fx.Node
    recorder: SizeRecorder

    def __reduce__(self) -> Any:
        return float, (plain(self),)

    def __deepcopy__(self, _memo: Any) -> float:
        return plain(self)


def traced(value: Any, node: fx.Node, recorder: SizeRecorder) -> Any:
    """A number that knows its node."""
    number: Any = TracedSize(value) if isinstance(value, int) else TracedRatio(value)
    number.node, number.recorder = node, recorder
    node.meta["value"] = value
    return number


def plain(number: Any) -> Any:
    """The number without its history."""
    if isinstance(number, TracedSize):
        return int.__add__(number, 0)
    return float.__add__(number, 0.0) if isinstance(number, TracedRatio) else number


def _operation(function: Callable[..., Any], base: type, method: str, reflected: bool) -> Callable[..., Any]:
    def compute(self: Any, *operands: Any) -> Any:
        if not all(isinstance(operand, int | float) for operand in operands):
            return getattr(base, method)(self, *operands)
        arguments = (*operands, self) if reflected else (self, *operands)
        value = function(*map(plain, arguments))
        return traced(value, self.recorder.computed(function, arguments), self.recorder)

    return compute


def _comparison(function: Callable[..., bool], base: type, method: str) -> Callable[..., Any]:
    def compare(self: Any, *operands: Any) -> Any:
        if not all(isinstance(operand, int | float) for operand in operands):
            return getattr(base, method)(self, *operands)
        outcome = function(*map(plain, (self, *operands)))
        self.recorder.decided(function, (self, *operands), outcome)
        return outcome

    return compare


def _escape(base: type) -> Callable[[Any], Any]:
    def convert(self: Any) -> Any:
        self.recorder.sizes_escaped = True
        return base(plain(self))

    return convert


def _divided(self: Any, divisor: Any) -> tuple[Any, Any]:
    return self // divisor, self % divisor


_BINARY = ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow")
_BITWISE = ("and", "or", "xor", "lshift", "rshift")
for _class, _base in ((TracedSize, int), (TracedRatio, float)):
    setattr(_class, "__divmod__", _divided)  # noqa: B010 (as those below)
    for _name in _BINARY + _BITWISE * (_base is int):
        _function = getattr(operator, f"{_name}_" if _name in {"and", "or"} else _name)
        setattr(_class, f"__{_name}__", _operation(_function, _base, f"__{_name}__", False))
        setattr(_class, f"__r{_name}__", _operation(_function, _base, f"__r{_name}__", True))
    for _name, _function in (
        ("neg", operator.neg), ("abs", abs), ("round", round), ("ceil", math.ceil), ("floor", math.floor),
    ):  # fmt: skip
        setattr(_class, f"__{_name}__", _operation(_function, _base, f"__{_name}__", False))
    for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(_class, f"__{_name}__", _comparison(getattr(operator, _name), _base, f"__{_name}__"))
    setattr(_class, "__bool__", _comparison(bool, _base, "__bool__"))  # noqa: B010 (as those above)
    setattr(_class, "__hash__", _base.__hash__)  # noqa: B010
    # `int()` and `float()` give plain numbers: whether the program then holds for other sizes is tried.
    setattr(_class, "__int__", _escape(int))  # noqa: B010
    setattr(_class, "__float__", _escape(float))  # noqa: B010
