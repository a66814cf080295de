"""Preserve random state."""

from __future__ import annotations

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
