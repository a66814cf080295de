"""The interface of engines, and what they share.

An engine trains each of several run folders in a process of its own, as `unetscope.runs.jobs` does. A job that is killed from
outside is started again and continues; one that fails with an error is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from unetscope.base import UnetscopeError

STARTS = 4  # of a job that is killed from outside, before it is given up
SECONDS_BETWEEN_LOOKS = 0.25
LOG, MOST_BYTES_OF_A_LINE = "log.txt", 2**16

Look = Callable[[], None]


class Engine(Protocol):
    """Trains run folders, several at a time."""

    def run(self, folders: Sequence[Path], look: Look) -> dict[Path, str]:
        """Train all folders; the reason of each that failed. `look` is called several times a second."""


def last_line(folder: Path) -> str:
    """The last line of a job's log: its error, if it ended with one."""
    path, end = folder / LOG, b""
    if path.is_file():
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - MOST_BYTES_OF_A_LINE))
            end = log.read(MOST_BYTES_OF_A_LINE)
    lines = end.decode("utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    return last.removeprefix("unetscope: ")


def train_folder(folder: str) -> str | None:
    """Train a run folder in this process; the error that its owner can mend, None if there is none."""
    from unetscope.runs.jobs import train

    try:
        train(folder)
    except UnetscopeError as mistake:
        return str(mistake)
    return None
