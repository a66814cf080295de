"""State of the process: quiet loggers, preserved random state, an end together with the parent."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
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


class Terminated(SystemExit):
    """A scheduler or a user asked the process to end, with SIGTERM. Its code is that of a process which the signal ends."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class _Termination:
    """Whether SIGTERM has come, and whether it has to wait for what must be finished first."""

    asked = False
    waits = False


def end_at_sigterm() -> None:
    """From now on, raise `Terminated` when SIGTERM comes: at once, or at the end of a block of `finishing`."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(_number: int, _frame: object) -> None:
    _Termination.asked = True
    if not _Termination.waits:
        raise Terminated


@contextmanager
def finishing() -> Iterator[Callable[[], bool]]:
    """Within the block, SIGTERM waits for its end; gives what says whether it has come.

    >>> with finishing() as is_asked_to_end:
    ...     is_asked_to_end()
    False
    """
    _Termination.waits = True
    try:
        yield lambda: _Termination.asked
    finally:
        _Termination.waits = False
    if _Termination.asked:
        raise Terminated


def end_with_parent() -> None:
    """From now on, end this process when the process at the other end of its standard input ends.

    The parent never writes to that pipe, so that reading returns only when the pipe is closed.
    """
    threading.Thread(target=_exit_at_end_of_input, daemon=True).start()


def _exit_at_end_of_input() -> None:
    os.read(0, 1)  # not through sys.stdin, whose lock would keep a finished process from exiting
    os._exit(3)
