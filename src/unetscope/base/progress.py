"""Report the progress of a long job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

StepCallback = Callable[[int, int], None]
"""A function that is called with (steps done, steps in all)."""


class Progress(Protocol):
    """Receives the progress of a job."""

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """A stage begins. total: its number of steps, 0 if unknown. done: those that an earlier job has done."""

    def advance(self, done: int, note: str = "") -> None:
        """This many steps of the stage are done."""

    def warn(self, text: str) -> None:
        """The job continues, but the user should know this."""


class NoProgress:
    """Ignores progress."""

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """Do nothing."""

    def advance(self, done: int, note: str = "") -> None:
        """Do nothing."""

    def warn(self, text: str) -> None:
        """Do nothing."""
