"""The base class of trackers. A further tracker is a subclass of it and an entry in `unetscope.runs.trackers.TRACKERS`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from unetscope.runs.trackers.scalars import CLOCK, Value, spelled

PROJECT = "unetscope"  # the experiment of MLflow and the project of Weights & Biases, unless the user names one

Points = dict[tuple[str, int], float]  # (tag, step): value


class Point(NamedTuple):
    """One value of one curve."""

    step: int
    tag: str
    value: float


@dataclass(frozen=True)
class Session:
    """What a tracker is opened with.

    folder: RUN/tracking/NAME, where its files belong. run_name: the run as people call it. identity: that of the tracker
    that was opened before, empty the first time. points, parameters: everything that the run folder holds now.
    """

    folder: Path
    run_name: str
    identity: Mapping[str, str]
    points: Points
    parameters: Mapping[str, Value]


class Tracker(ABC):
    """The interface that `TrackedRun` uses; `TrackedRun` decides which points are new, and when to begin afresh.

    Steps ascend and a figure's title comes once, from `open` to `close`: what comes late or is replaced opens the run again.

    title: the product's name. packages: the modules that it needs. identity: what finds its run again, known once it is open.
    """

    title: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    identity: Mapping[str, str] = {}

    @staticmethod
    def spell(names: Sequence[str]) -> str:
        """The tag of a scalar or the name of a parameter, without a character that the product refuses."""
        return spelled(names)

    @abstractmethod
    def open(self, session: Session) -> Points | None:
        """Begin afresh in place of an earlier run, and return None; or continue it, and return the points it holds."""

    @abstractmethod
    def log_points(self, points: Sequence[Point]) -> None:
        """Write points, by ascending step, and flush. Called at least once after opening, if only with no points."""

    @abstractmethod
    def log_figure(self, title: str, path: Path, step: int) -> None:
        """Write a PNG file."""

    @abstractmethod
    def log_parameters(self, values: Mapping[str, Value]) -> None:
        """Write the configuration; called once in a run that began afresh."""

    @abstractmethod
    def close(self) -> None:
        """End the writing."""


def stale(held: Points, points: Points) -> bool:
    """Whether a held point differs from that of the run folder, or is none of its points any more."""
    tags = {tag for tag, _ in points} - {CLOCK}
    return any(tag in tags and points.get((tag, step)) != value for (tag, step), value in held.items())
