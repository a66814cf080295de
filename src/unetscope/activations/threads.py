"""Several threads of a process: one at a time in a network, and settings of the process that they share.

Hooks, the mode of modules and a replaced `forward` are of the network, not of a thread. Two threads that measure one network
get each other's activations, and what the second puts back is what the first had put there, so the network stays broken.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

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


class Shared:
    """A setting of the process, which is made when the first thread enters and taken back when the last one leaves.

    setting: makes a context in which it holds. Were it taken back by each, a thread that leaves would end it for the others,
    and the last to leave would restore what another had set.
    """

    def __init__(self, setting: Callable[[], AbstractContextManager[None]]) -> None:
        self._setting, self._inside, self._lock = setting, 0, threading.Lock()
        self._context: AbstractContextManager[None] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._context = self._setting()
                self._context.__enter__()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            context = None if self._inside else self._context
            if context is not None:
                self._context = None
                context.__exit__(None, None, None)
