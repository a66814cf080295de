"""How a process ends: at SIGTERM, at once or once something is finished, or together with its parent.

The command sets this up before anything else, so that nothing heavy is imported here.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
