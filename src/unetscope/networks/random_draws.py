"""Random numbers that a network draws outside of torch, which a recording would hold as they were drawn once."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import nn

from unetscope.base import NetworkError


@contextmanager
def refused_draws(model: nn.Module) -> Iterator[None]:
    """Refuse a network that draws from generators of Python or NumPy within the block, be they global or kept by a module.

    Raises: NetworkError.
    """
    generators = {
        f"{name or type(model).__name__}.{attribute}": value
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, random.Random | np.random.RandomState | np.random.Generator)
    }
    with _python_draws() as drawn_by_python:
        before = {name: repr(_state(generator)) for name, generator in generators.items()}
        numpy = repr(np.random.get_state())
        yield
        drawn_from = [name for name, generator in generators.items() if repr(_state(generator)) != before[name]]
        drawn_from += ["numpy.random"] * (repr(np.random.get_state()) != numpy)
    if drawn_from := [*drawn_by_python, *drawn_from]:
        raise NetworkError(
            f"the network draws random numbers from {', '.join(drawn_from)}, which a recording would hold as they were drawn "
            "once: draw them with torch and compute with them, or ablate it instead"
        )


@contextmanager
def _python_draws() -> Iterator[list[str]]:
    """`["random"]` after the block if the functions of that module were called in it.

    They are those of another generator within the block, since a checker of types (beartype) draws from the usual one.
    """
    drawn: list[str] = []
    usual: Any = random.random.__self__  # type: ignore[attr-defined]
    functions = {name: value for name, value in vars(random).items() if getattr(value, "__self__", None) is usual}
    generator = random.Random()  # noqa: S311 (no secret)
    generator.setstate(usual.getstate())
    state, usual_state = generator.getstate(), usual.getstate()
    try:
        for name in functions:
            setattr(random, name, getattr(generator, name))
        yield drawn
    finally:
        for name, function in functions.items():
            setattr(random, name, function)
        if generator.getstate() != state or (usual.getstate() != usual_state and "beartype" not in sys.modules):
            drawn.append("random")


def _state(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    return generator.bit_generator.state if isinstance(generator, np.random.Generator) else generator.get_state()
