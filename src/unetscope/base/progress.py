"""How far a long job is: what it tells, and nobody listening."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Whoever wants to know how far a long job is."""

    def stage(self, name: str, total: int) -> None:
        """A new part of the job begins, of so many steps (0: unknown)."""

    def advance(self, done: int, note: str = "") -> None:
        """So many steps of this part are done."""

    def warn(self, text: str) -> None:
        """Something that does not stop the job but that its owner should know."""


class NoProgress:
    """A progress that says nothing."""

    def stage(self, name: str, total: int) -> None:
        """Say nothing."""

    def advance(self, done: int, note: str = "") -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing."""
