"""How a process ends: at a signal, at once or once something is finished, or together with its parent.

The command sets this up before anything else, so that nothing heavy is imported here.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SECONDS_UNTIL_SENT_AGAIN = 0.01


class Terminated(SystemExit):
    """A scheduler or a user asked the process to end, with SIGTERM. Its code is that of a process which the signal ends."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


ENDINGS: dict[int, type[BaseException]] = {signal.SIGTERM: Terminated, signal.SIGINT: KeyboardInterrupt}


class _Asked:
    """The signal that has asked the process to end, and whether SIGTERM has to wait for what must be finished first."""

    by: int | None = None
    waits = False


def end_at_signals() -> None:
    """From now on, raise `Terminated` when SIGTERM comes, at once or at the end of a block of `finishing`.

    No signal is lost. Python prints and forgets an exception that is raised while it runs a callback of a weak reference, a
    finalizer or a callback of ctypes: there the signal is sent again, SIGINT too.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as under nohup
            signal.signal(signal.SIGINT, _end)
        sys.unraisablehook = _send_again_or(sys.unraisablehook)


def end_if_asked() -> None:
    """Raise what a signal asks for, where a library has put an error of its own in its place, as SQLite does.

    Raises: Terminated, after SIGTERM; KeyboardInterrupt, after SIGINT.
    """
    if _Asked.by is not None and not _waits(_Asked.by):
        raise ENDINGS[_Asked.by]


def _end(number: int, _frame: FrameType | None) -> None:
    _Asked.by = number
    end_if_asked()


def _waits(number: int) -> bool:
    return _Asked.waits and number == signal.SIGTERM


def _send_again_or(
    hook: Callable[[sys.UnraisableHookArgs], object],
) -> Callable[[sys.UnraisableHookArgs], None]:
    def send_again(unraisable: sys.UnraisableHookArgs) -> None:
        if _Asked.by is not None and isinstance(unraisable.exc_value, ENDINGS[_Asked.by]):
            # A thread of its own, later: raised in here it would be forgotten too. Not of `threading`, whose locks may be held.
            _thread.start_new_thread(_send_later, (_Asked.by,))
        else:
            hook(unraisable)

    return send_again


def _send_later(number: int) -> None:
    time.sleep(SECONDS_UNTIL_SENT_AGAIN)
    os.kill(os.getpid(), number)


@contextmanager
def finishing() -> Iterator[Callable[[], bool]]:
    """Within the block, SIGTERM waits for its end; gives what says whether it has come.

    >>> with finishing() as is_asked_to_end:
    ...     is_asked_to_end()
    False
    """
    _Asked.waits = True
    try:
        yield lambda: _Asked.by == signal.SIGTERM
    finally:
        _Asked.waits = False
    if _Asked.by == signal.SIGTERM:
        raise Terminated


def end_with_parent() -> None:
    """From now on, end this process when the process at the other end of its standard input ends.

    The parent never writes to that pipe, so that reading returns only when the pipe is closed.
    """
    threading.Thread(target=_exit_at_end_of_input, daemon=True).start()


def _exit_at_end_of_input() -> None:
    os.read(0, 1)  # not through sys.stdin, whose lock would keep a finished process from exiting
    os._exit(3)
