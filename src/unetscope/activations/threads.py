"""Several threads of a process: one at a time in a network.

Hooks, the mode of modules and a replaced `forward` are of the network, not of a thread. Two threads that measure one network
get each other's activations, and what the second puts back is what the first had put there, so the network stays broken.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from unetscope.base import NetworkError

_holders: dict[int, int] = {}  # by `id` of a module, which lives as long as it is held, the thread that holds it
_guard = threading.Lock()


@contextmanager
def held(model: nn.Module) -> Iterator[None]:
    """Keep other threads from measuring a network, or one with a module of it, within the block; the same thread may do so.

    Raises: NetworkError, at once, if another thread holds it.

    >>> with held(layer := nn.Linear(2, 2)), held(nn.Sequential(layer)):
    ...     len(_holders)
    2
    >>> len(_holders)
    0
    """
    modules, thread = list(model.modules()), threading.get_ident()
    with _guard:
        if any(_holders.get(id(module), thread) != thread for module in modules):
            raise NetworkError(
                f"{type(model).__name__} is being measured by another thread: wait for it, or give each thread a copy of its "
                "own (copy.deepcopy)"
            )
        taken = [id(module) for module in modules if id(module) not in _holders]
        _holders.update(dict.fromkeys(taken, thread))
    try:
        yield
    finally:
        with _guard:
            for module in taken:
                _holders.pop(module, None)


def _keep_own() -> None:
    """In a process that was forked no other thread goes on, so none of them holds a network."""
    global _guard  # noqa: PLW0603 (a thread that is no more may have it)
    _guard = threading.Lock()
    thread = threading.get_ident()
    for module in [module for module, holder in _holders.items() if holder != thread]:
        del _holders[module]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_own)
