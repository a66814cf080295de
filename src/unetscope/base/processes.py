"""End a process together with its parent."""

from __future__ import annotations

import os
import threading


def end_with_parent() -> None:
    """From now on, end this process when the process at the other end of its standard input ends.

    The parent never writes to that pipe, so that reading returns only when the pipe is closed.
    """
    threading.Thread(target=_exit_at_end_of_input, daemon=True).start()


def _exit_at_end_of_input() -> None:
    os.read(0, 1)  # not through sys.stdin, whose lock would keep a finished process from exiting
    os._exit(3)
