"""What every engine does, and what they share.

An engine is given run folders and trains each in a process of its own, as `unetscope.runs.jobs` does. A job that is killed from
outside is started again and goes on; one that says what is wrong with it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

STARTS = 4  # of a job that is killed from outside, before it is given up
SECONDS_BETWEEN_LOOKS = 0.25
LOG = "log.txt"

Look = Callable[[], None]


class Engine(Protocol):
    """Whatever trains run folders, several at a time."""

    def run(self, folders: Sequence[Path], look: Look) -> dict[Path, str]:
        """Train all folders; why each of those that failed did. `look` is called several times a second meanwhile."""


def last_line(folder: Path) -> str:
    """The last thing that a job said."""
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").split("\n") if (folder / LOG).is_file() else []
    said = [line for line in lines if line.strip()]
    return said[-1].removeprefix("unetscope: ") if said else "it said nothing"
