"""State of the process: quiet loggers and preserved random state."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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
