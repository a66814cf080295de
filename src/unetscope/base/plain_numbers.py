"""Numbers that a user hands over, as Python's own: those of NumPy and tensors of no axis are taken like them.

What is neither is refused where it comes in: SQLite keeps a number of NumPy as bytes, and nothing reads those again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from unetscope.base.errors import InvalidArgument

MOST_SHOWN = 60  # characters of a value that is refused
ROUNDING = 1e-6  # a mean of float32 may be so far beyond its largest term


def plain_number(value: Any) -> int | float | None:
    """A number of any library as Python's own; None for what is no number, and for truth values.

    >>> import numpy as np
    >>> plain_number(np.float32(0.5)), plain_number(np.uint8(7)), plain_number(np.array([7])), plain_number(True)
    (0.5, 7, None, None)
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        try:
            value = value.item()
        except RuntimeError:  # a tensor that holds no values, as one on torch's device "meta"
            return None
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    if isinstance(value, Integral):
        return int(value)
    return float(value)


def whole_number(value: Any, name: str, *, least: int, most: int) -> int:
    """A whole number as an int, from Python, NumPy or a tensor of no axis, or of a type for fractions: 1.0 is 1.

    Raises: InvalidArgument for anything else, True and False included, and beyond the bounds.

    >>> import numpy as np
    >>> whole_number(np.int64(3), "epoch", least=0, most=9), whole_number(1.0, "epoch", least=0, most=9)
    (3, 1)
    >>> whole_number(-1, "epoch", least=0, most=9)
    Traceback (most recent call last):
    unetscope.base.errors.InvalidArgument: epoch must be a whole number from 0 to 9, got -1
    """
    number = plain_number(value)
    if number is None or not least <= number <= most or number != int(number):  # NaN is within no bounds
        raise InvalidArgument(f"{name} must be a whole number from {least} to {most}, got {shown(value)}")
    return int(number)


def whole_fields(record: object, *names: str) -> None:
    """Make ints of fields of a frozen record, as `whole_number` does; for its `__post_init__`.

    Raises: InvalidArgument that names the field.
    """
    for name in names:
        value = getattr(record, name)
        number = plain_number(value)
        if number is None or not _is_finite(number) or number != int(number):
            raise InvalidArgument(f"{name} must be a whole number, got {shown(value)}")
        object.__setattr__(record, name, int(number))


def real_number(value: Any, name: str, *, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite number as a float, of the same types; NaN stands for one that is not known. Rounding beyond a bound is cut off.

    Raises: InvalidArgument for anything else, and beyond the bounds.

    >>> import numpy as np
    >>> real_number(np.float32(0.5), "dice", least=0, most=1), real_number(float("nan"), "dice", least=0, most=1)
    (0.5, nan)
    >>> real_number("x", "dice", least=0, most=1)
    Traceback (most recent call last):
    unetscope.base.errors.InvalidArgument: dice must be a number from 0 to 1, or NaN if it is not known, got 'x'
    """
    number = plain_number(value)
    if isinstance(number, float) and math.isnan(number):
        return math.nan
    if number is None or not _is_finite(number) or not least - ROUNDING <= number <= most + ROUNDING:
        raise InvalidArgument(f"{name} must be {_domain(least, most)}, or NaN if it is not known, got {shown(value)}")
    return float(min(max(number, least), most))


def real_numbers(values: Any, name: str, *, least: float = -math.inf, most: float = math.inf) -> tuple[float, ...]:
    """A list, an array or a tensor of such numbers. Raises: InvalidArgument for what is no list, or holds another value.

    >>> import numpy as np
    >>> real_numbers(np.float32([0.5, 1]), "dice_per_class", least=0, most=1)
    (0.5, 1.0)
    """
    if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        raise InvalidArgument(f"{name} must be a list of numbers, got {shown(values)}")
    try:
        members = list(values)
    except TypeError:  # a tensor or an array of no axis
        raise InvalidArgument(f"{name} must be a list of numbers, got {shown(values)}") from None
    return tuple(real_number(value, f"{name}[{place}]", least=least, most=most) for place, value in enumerate(members))


def shown(value: object) -> str:
    """A value as a message quotes it, in one line and not too long.

    >>> shown("a" * 100)[-5:], shown([[0.0],
    ...     [0.0]])
    ("aaa…'", '[[0.0], [0.0]]')
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 2]}…{text[-1]}"


def spelled(place: Iterable[str | int]) -> str:
    r"""A place in nested values as a message names it, in one line and each name not too long.

    >>> spelled(["training", 0, "a\nb"])
    "training.0.'a\\nb'"
    """
    parts = [str(part) for part in place]
    return ".".join(part if part.isprintable() and len(part) <= MOST_SHOWN else shown(part) for part in parts)


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond all floats
        return False


def _domain(least: float, most: float) -> str:
    if math.isfinite(least):
        return f"a number from {least:g} to {most:g}" if math.isfinite(most) else f"a finite number from {least:g} on"
    return "a finite number"
