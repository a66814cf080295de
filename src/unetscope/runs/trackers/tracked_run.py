"""Keep a tracker up to date with a run folder.

The tables of the run folder decide. A tracker is asked for its points, or written again from the start, so nothing is written
twice, even if a process is killed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unetscope.base import (
    InvalidArgument,
    MissingDependency,
    RunFolderError,
    UnetscopeError,
    nearest,
    read_json,
    whole_file,
)
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.folder import TRACKING, RunFolder
from unetscope.runs.trackers._mlflow import MLflow
from unetscope.runs.trackers._tensorboard import TensorBoard
from unetscope.runs.trackers._wandb import WeightsAndBiases
from unetscope.runs.trackers.interface import Point, Points, Session, Tracker, parameters, scalars, stale

TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WeightsAndBiases}

_open_runs: dict[tuple[Path, str], TrackedRun] = {}


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that a tracker was given: its PNG file, the last epoch that it shows, and the digest of the file."""

    path: str
    epoch: int
    sha256: str


class TrackedRun:
    """A run folder whose scalars and figures a tracker shows, during the run.

    When it is opened, the tracker gets what the run holds; `update` reads the folder again and adds what is new. A value that
    was replaced in the folder is replaced in the tracker, except the seconds of an epoch. Opening the same run again, after a
    kill or its end, continues the tracker's run. One process at a time may do so.

    Raises: InvalidArgument for an unknown tracker, MissingDependency if its package is not installed, RunFolderError if the
    folder cannot be written; while it writes, the tracker's own errors.

    >>> with TrackedRun(run, "tensorboard") as tracked:                                              # doctest: +SKIP
    ...     for epoch in range(epochs):
    ...         train_and_measure(epoch)
    ...         tracked.update()
    """

    def __init__(self, run: RunFolder | AnalysedRun, tracker: str) -> None:
        check_tracker(tracker)
        self.run, self.tracker = AnalysedRun.of(run), tracker
        self._tracking = run.path / TRACKING
        self._state = self._tracking / f"{tracker}.json"
        if already_open := _open_runs.get(self._key):
            already_open.close()
        try:
            self._tracking.mkdir(exist_ok=True)
        except OSError as refusal:
            raise RunFolderError(f"{self._tracking} cannot be written ({refusal.strerror})") from None
        self._writer: Tracker | None = None
        self._held: Points = {}
        identity, self._figures = self._read_state()
        self._begin(identity)

    @property
    def _key(self) -> tuple[Path, str]:
        return self.run.path.resolve(), self.tracker

    def __enter__(self) -> TrackedRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self) -> None:
        """Give the tracker the epochs and estimates that it does not hold yet.

        It reads all of the folder: half a second for 10,000 epochs and as many estimates.
        """
        self.run = AnalysedRun(self.run.folder)
        points, last = self._points(), max((step for _, step in self._held), default=-1)
        late = any(step < last for _, step in points.keys() - self._held.keys())
        if late or stale(self._held, points):
            self._begin_again()
        else:
            self._log(points)

    def figures(self) -> None:
        """Give the tracker the PNG files of RUN/figures by name; of a figure that was drawn again it keeps the last."""
        epoch = max((step for _, step in self._held), default=0)
        changed = {}
        for path in sorted(self.run.folder.figures.glob("[!.]*.png")):
            sha256, held = hashlib.sha256(path.read_bytes()).hexdigest(), self._figures.get(path.stem)
            if held is None or held.sha256 != sha256:
                changed[path.stem] = Figure(path.relative_to(self.run.path).as_posix(), epoch, sha256)
        replaced = not self._figures.keys().isdisjoint(changed)
        self._figures |= changed
        if not (replaced and self._begin_again()):
            self._log_figures(changed)
        self._write_state()

    def close(self) -> None:
        """End the writing; what is written stays."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            _open_runs.pop(self._key, None)
            writer.close()

    @property
    def _open(self) -> Tracker:
        if self._writer is None:
            raise InvalidArgument(f"no more is written of {self.run.path}: open it again")
        return self._writer

    def _points(self) -> Points:
        spell = TRACKERS[self.tracker].spell
        return {(spell(scalar.names), scalar.epoch): scalar.value for scalar in scalars(self.run.flow, self.run.epochs)}

    def _begin(self, identity: Mapping[str, str]) -> bool:
        """Open a tracker and give it what it does not hold; whether it began afresh, and so was given everything."""
        points, writer = self._points(), TRACKERS[self.tracker]()
        values = {writer.spell(names): value for names, value in parameters(self.run.configuration)}
        try:
            held = writer.open(Session(self._tracking / self.tracker, self.run.name, identity, points, values))
        except ImportError as absent:
            raise _missing(self.tracker) from absent
        self._writer, _open_runs[self._key] = writer, self
        try:
            self._fill(held, points, values)
        except BaseException:
            self.close()
            raise
        return held is None

    def _fill(self, held: Points | None, points: Points, values: Mapping[str, Any]) -> None:
        """Give a tracker that was opened what it does not hold; None if it began afresh."""
        if held is None:
            self._figures = {
                title: figure for title, figure in self._figures.items() if (self.run.path / figure.path).is_file()
            }
        self._held = held or {}
        self._write_state()  # before any point, so that a killed process finds its run again
        if held is None:
            self._open.log_parameters(values)
        self._log(points)
        if held is None:
            self._log_figures(self._figures)

    def _begin_again(self) -> bool:
        """Close the tracker and open one that holds nothing which the run folder does not; whether it began afresh."""
        identity = self._open.identity
        self.close()
        return self._begin(identity)

    def _log(self, points: Points) -> None:
        new = {place: points[place] for place in points.keys() - self._held.keys()}
        self._open.log_points(sorted(Point(step, tag, value) for (tag, step), value in new.items()))
        self._held |= new

    def _log_figures(self, titles: Iterable[str]) -> None:
        for title in titles:
            figure = self._figures[title]
            self._open.log_figure(title, self.run.path / figure.path, figure.epoch)

    def _read_state(self) -> tuple[dict[str, str], dict[str, Figure]]:
        if not self._state.is_file():
            return {}, {}
        try:
            state = read_json(self._state)
            return dict(state["identity"]), {title: Figure(**fields) for title, fields in state["figures"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as damage:
            raise RunFolderError(f"{self._state} cannot be read ({damage}): delete {self._tracking}") from None

    def _write_state(self) -> None:
        figures = {title: asdict(figure) for title, figure in self._figures.items()}
        with whole_file(self._state) as beside:
            state = {"identity": dict(self._open.identity), "figures": figures}
            beside.write_text(json.dumps(state, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def track(run: RunFolder | AnalysedRun, tracker: str) -> Path:
    """Give a tracker a whole run with its figures, once or again; returns the folder that the tracker's files are in.

    Raises: as `TrackedRun`.

    >>> track(RunFolder(Path("run")), "tensorbord")
    Traceback (most recent call last):
    ...
    unetscope.base.errors.InvalidArgument: tracker must be one of tensorboard, mlflow, wandb, got 'tensorbord': the ...
    """
    with TrackedRun(run, tracker) as tracked:
        tracked.figures()
    return run.path / TRACKING / tracker


def check_tracker(tracker: str | None) -> None:
    """Refuse a tracker that cannot be used, before anything is trained; None is no tracker.

    Raises: InvalidArgument for an unknown tracker, MissingDependency if its package is not installed.
    """
    if tracker is None:
        return
    if tracker not in TRACKERS:
        raise InvalidArgument(
            f"tracker must be one of {', '.join(TRACKERS)}, got {tracker!r}: {nearest(tracker, TRACKERS)}"
        )
    if not all(map(_is_installed, TRACKERS[tracker].packages)):
        raise _missing(tracker)


def _is_installed(package: str) -> bool:
    """Whether a package can be imported; a folder of its name, such as `wandb/` beside a run, is none."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def _missing(tracker: str) -> MissingDependency:
    return MissingDependency(f'{TRACKERS[tracker].title} needs its package: pip install "unetscope[{tracker}]"')


class Follower:
    """Updates a tracker from a training, now and then; a tracker that fails is reported once, and the training continues.

    tracker: None for none. warn: called with what went wrong. seconds: the least time between two updates that are not forced.

    Raises: InvalidArgument for an unknown tracker, MissingDependency if its package is not installed.

    >>> Follower(RunFolder(Path("run")), None, print).update()
    """

    def __init__(
        self, run: RunFolder, tracker: str | None, warn: Callable[[str], None], *, seconds: float = 10.0
    ) -> None:
        self._warn, self._seconds, self._last = warn, seconds, 0.0
        self._tracked: TrackedRun | None = None
        if tracker is not None:
            try:
                self._tracked = TrackedRun(run, tracker)
            except UnetscopeError:  # which the user can mend before the training begins
                raise
            except Exception as failure:
                self._give_up(failure)

    def update(self, *, force: bool = False) -> None:
        """Update the tracker if the last update is long enough ago."""
        if self._tracked is not None and (force or time.monotonic() - self._last >= self._seconds):
            self._try(self._tracked.update)
            self._last = time.monotonic()

    def close(self) -> None:
        """Update the tracker once more and end."""
        self.update(force=True)
        if self._tracked is not None:
            self._try(self._tracked.close)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as failure:
            self._give_up(failure)

    def _give_up(self, failure: Exception) -> None:
        tracked, self._tracked = self._tracked, None
        if tracked is not None:
            with suppress(Exception):
                tracked.close()
        self._warn(f"the tracker is given no more: {failure}")
