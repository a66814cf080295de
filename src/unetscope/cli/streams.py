"""The standard streams of a process, which may be closed, full or without a reader."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

UNREAD = 128 + 13  # the exit code of a process that SIGPIPE ends


def open_missing_streams() -> None:
    """Open the null device for each standard stream that is closed, so that nothing which is printed there is a mistake.

    Else the next file that is opened, such as the tables of a run, would get the number of the standard error, and a library
    that writes there would write into it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 (it is the process's own)
            setattr(sys, name, stream)
            if stream.fileno() == number:
                os.set_inheritable(number, True)


def flush_output() -> None:
    """Write what is printed and not written yet. Raises: OSError, also where nobody reads it."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def discard_output() -> None:
    """Let what cannot be written go, which Python would try again at the end of the process, and end it with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def is_unread(failure: BaseException | None) -> bool:
    """Whether an error is that nobody reads what was written."""
    return isinstance(failure, OSError) and failure.errno == errno.EPIPE
