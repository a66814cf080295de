"""A run folder that a tracker shows as long as the run goes on.

The tables of the run folder are the truth, and what a tracker has of them is asked of the tracker, or written anew. So
nothing is written twice, whatever moment a kill comes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from unetscope.base.errors import InvalidArgument, MissingDependency, RunFolderError, UnetscopeError, nearest
from unetscope.base.files import whole_file
from unetscope.runs.folder import RunFolder
from unetscope.runs.trackers.scalars import parameters, scalars
from unetscope.runs.trackers.writers import WRITERS, Opening, Points, Writer, stale

TRACKERS = tuple(WRITERS)
PNG = b"\x89PNG\r\n\x1a\n"

T = TypeVar("T")

_opened: dict[tuple[Path, str], Tracked] = {}


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure that a tracker was given: its PNG file, the epoch up to which it tells, and what was in the file."""

    path: str
    epoch: int
    sha256: str


class Tracked:
    """A run folder whose scalars and figures a tracker shows, as long as the run goes on.

    When it is opened, the tracker is given what the folder holds; `update` gives it what came since. A value that was
    replaced in the folder is replaced in the tracker, all but the seconds of an epoch. Opening the same run again,
    after a kill or its end, goes on with the tracker's run. One process at a time may do so.

    Raises: InvalidArgument for a tracker that there is not, MissingDependency if its package is absent, RunFolderError
    if there is no writing in the folder; while it writes, whatever the tracker itself raises.

    >>> with Tracked(run, "tensorboard") as tracked:                                                 # doctest: +SKIP
    ...     for epoch in range(epochs):
    ...         train_and_measure(epoch)
    ...         tracked.update()
    """

    def __init__(self, run: RunFolder, tracker: str) -> None:
        check_tracker(tracker)
        self.run, self.tracker = run, tracker
        self._tracking = run.path / "tracking"
        self._state = self._tracking / f"{tracker}.json"
        if earlier := _opened.get(self._key):
            earlier.close()
        try:
            self._tracking.mkdir(exist_ok=True)
        except OSError as refused:
            raise RunFolderError(f"{self._tracking} cannot be written ({refused.strerror})") from None
        identity, self._pictures = self._read()
        points = self._points()
        self._writer: Writer | None = None
        self._owed: list[str] = []  # figures that a writer begun afresh is to be given, after what comes before them
        self._begin(points, identity)
        self._write(points)

    @property
    def _key(self) -> tuple[Path, str]:
        return self.run.path.resolve(), self.tracker

    def __enter__(self) -> Tracked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def update(self) -> None:
        """Give the tracker the epochs and estimates that it has not.

        It reads all of the folder: half a second once there are 10,000 epochs and as many estimates.
        """
        self._write(self._points())

    def figures(self, pictures: Mapping[str, str | Path] | None = None) -> None:
        """Give the tracker PNG files by title, by default those of RUN/figures by name; of a title it keeps the last.

        Raises: InvalidArgument if there is no such file, or it is no PNG.
        """
        if pictures is None:
            pictures = {path.stem: path for path in self.run.figures.glob("[!.]*.png")}
        epoch = max((step for _, step in self._open.written), default=0)
        found = {title: self._picture(title, Path(path), epoch) for title, path in sorted(pictures.items())}
        had = self._pictures
        changed = [title for title in found if title not in had or had[title].sha256 != found[title].sha256]
        self._pictures = had | {title: found[title] for title in changed}
        if not self._open.replaces and not had.keys().isdisjoint(changed):
            points = self._points()
            self._again(points)
            self._write(points)
            changed = [] if self._open.fresh else changed
        self._draw(changed)
        self._keep()

    def close(self) -> None:
        """End the writing; what is written stays."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            _opened.pop(self._key, None)
            writer.close()

    @property
    def _open(self) -> Writer:
        if self._writer is None:
            raise InvalidArgument(f"no more is written of {self.run.path}: open it again")
        return self._writer

    def _points(self) -> Points:
        spell = WRITERS[self.tracker].spell
        return {(spell(found.names), found.epoch): found.value for found in scalars(self.run)}

    def _begin(self, points: Points, identity: Mapping[str, str]) -> None:
        """Open a writer; one that holds nothing is given the configuration, and the figures given so far."""
        kind = WRITERS[self.tracker]
        values = {kind.spell(names): value for names, value in parameters(self.run.configuration)}
        try:
            writer = kind(Opening(self._tracking, self.run.path.resolve().name, identity, points, values))
        except ImportError as absent:
            text = f'{kind.title} needs its package: pip install "unetscope[{self.tracker}]"'
            raise MissingDependency(text) from absent
        self._writer, _opened[self._key] = writer, self
        if writer.fresh:
            writer.parameters(values)
            there = {title: about for title, about in self._pictures.items() if (self.run.path / about.path).is_file()}
            self._pictures, self._owed = there, list(there)
        self._keep()

    def _again(self, points: Points) -> None:
        """Close the writer and open one that holds nothing which the run folder does not."""
        identity = self._open.identity
        self._open.close()
        self._begin(points, identity)

    def _write(self, points: Points) -> None:
        writer = self._open
        late = any(place[1] < writer.first for place in points.keys() - writer.written.keys())
        if late or stale(writer.written, points):
            self._again(points)
            writer = self._open
        for step, tag in sorted((step, tag) for tag, step in points.keys() - writer.written.keys()):
            writer.scalar(tag, points[tag, step], step)
        writer.written |= {place: points[place] for place in points.keys() - writer.written.keys()}
        owed, self._owed = self._owed, []
        self._draw(owed)

    def _draw(self, titles: Iterable[str]) -> None:
        for title in titles:
            picture = self._pictures[title]
            self._open.figure(title, self.run.path / picture.path, picture.epoch)
        self._open.flush()

    def _picture(self, title: str, path: Path, epoch: int) -> Picture:
        if not path.is_file():
            raise InvalidArgument(f"figure {title!r}: there is no file {str(path)!r}")
        png = path.read_bytes()
        if not png.startswith(PNG):
            raise InvalidArgument(f"figure {title!r}: {str(path)!r} is no PNG file")
        path, run = path.resolve(), self.run.path.resolve()
        place = path.relative_to(run) if path.is_relative_to(run) else path
        return Picture(place.as_posix(), epoch, hashlib.sha256(png).hexdigest())

    def _read(self) -> tuple[dict[str, str], dict[str, Picture]]:
        if not self._state.is_file():
            return {}, {}
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            return dict(state["identity"]), {title: Picture(**about) for title, about in state["figures"].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as damage:
            raise RunFolderError(f"{self._state} cannot be read ({damage}): delete {self._tracking}") from None

    def _keep(self) -> None:
        figures = {title: asdict(picture) for title, picture in self._pictures.items()}
        with whole_file(self._state) as beside:
            text = json.dumps({"identity": self._open.identity, "figures": figures}, indent=2, ensure_ascii=False)
            beside.write_text(text + "\n", encoding="utf-8")


def track(run: RunFolder, tracker: str, *, figures: Mapping[str, str | Path] | None = None) -> Path:
    """Give a tracker all of a run folder, once or again; returns the folder that the tracker's files are in.

    figures: PNG files by title, by default those of RUN/figures by name. Raises as `Tracked` and its `figures`.

    >>> track(RunFolder(Path("run")), "tensorbord")
    Traceback (most recent call last):
    ...
    unetscope.base.errors.InvalidArgument: tracker must be one of tensorboard, mlflow, wandb, got 'tensorbord': the ...
    """
    with Tracked(run, tracker) as tracked:
        tracked.figures(figures)
    return run.path / "tracking" / tracker


def check_tracker(tracker: str) -> None:
    """Raises: InvalidArgument for a tracker that there is not."""
    if tracker not in TRACKERS:
        raise InvalidArgument(
            f"tracker must be one of {', '.join(TRACKERS)}, got {tracker!r}: {nearest(tracker, TRACKERS)}"
        )


class Follower:
    """Gives a tracker what a training writes, now and then; whatever goes wrong there is told once, and the training goes on.

    tracker: None for none. warn: told of what went wrong. seconds: that pass at least between two times, but for `force`.

    Raises: InvalidArgument for a tracker that there is not, MissingDependency if its package is absent.

    >>> Follower(RunFolder(Path("run")), None, print).update()
    """

    def __init__(
        self, run: RunFolder, tracker: str | None, warn: Callable[[str], None], *, seconds: float = 10.0
    ) -> None:
        self._warn, self._seconds, self._last = warn, seconds, 0.0
        self._tracked = None if tracker is None else self._try(lambda: Tracked(run, tracker))

    def update(self, *, force: bool = False) -> None:
        """Hand on what is new, if the last time is long enough ago."""
        if self._tracked is not None and (force or time.monotonic() - self._last >= self._seconds):
            self._try(self._tracked.update)
            self._last = time.monotonic()

    def close(self) -> None:
        """Hand on the rest."""
        if self._tracked is not None:
            self.update(force=True)
            if self._tracked is not None:
                self._try(self._tracked.close)

    def _try(self, act: Callable[[], T]) -> T | None:
        try:
            return act()
        except UnetscopeError:
            raise
        except Exception as mistake:
            self._tracked = None
            self._warn(f"the tracker is given no more: {mistake}")
            return None
