"""State of the process: quiet loggers, preserved random state, and settings that its threads share."""

from __future__ import annotations

import logging
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np


@contextmanager
def preserve_rng() -> Iterator[None]:
    """Restore the random state of Python, NumPy and, if it is loaded, torch after the block.

    So that measuring does not change a training that draws from the same generators.

    >>> random.seed(0)
    >>> expected = random.random()
    >>> random.seed(0)
    >>> with preserve_rng():
    ...     _ = random.random()
    >>> random.random() == expected
    True
    """
    python, numpy = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    cpu = torch.get_rng_state() if torch is not None else None
    devices = torch.cuda.get_rng_state_all() if torch is not None and torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch is not None:
            torch.set_rng_state(cpu)
            if devices:
                torch.cuda.set_rng_state_all(devices)


def seed_all(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch, so that whatever draws weights draws the same ones again.

    >>> seed_all(5)
    >>> first = random.random(), np.random.rand()
    >>> seed_all(5)
    >>> first == (random.random(), np.random.rand())
    True
    """
    import torch  # tables and figures do without

    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def quiet_loggers(*names: str, level: int = logging.WARNING) -> Iterator[None]:
    """Raise the level of these loggers inside the block, so that a command prints its own output only.

    >>> with quiet_loggers("lightning_fabric"):
    ...     logging.getLogger("lightning_fabric").isEnabledFor(logging.INFO)
    False
    """
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, previous in zip(loggers, levels, strict=True):
            logger.setLevel(previous)


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
