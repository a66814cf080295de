"""Progress of a command on the standard error: bars in a terminal, lines in a file or a pipe."""

from __future__ import annotations

import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from unetscope.base import NoProgress, Progress
from unetscope.cli.terminal import CONTINUED, LOG_WIDTH, one_line

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


@contextmanager
def shown_progress(quiet: bool) -> Iterator[Bar | Lines | Quiet]:
    """Progress on the standard error: bars in a terminal, else lines; or warnings alone."""
    if quiet:
        with _warnings_shown_by(silent := Quiet()):
            yield silent
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        with _warnings_shown_by(lines := Lines(sys.stderr)):
            yield lines
            lines.end()
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(min_width=8, max_width=26, no_wrap=True)),
        BarColumn(bar_width=10),
        TextColumn("{task.completed:g}/{task.total:g}", markup=False, table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(min_width=7)),
        TimeRemainingColumn(compact=True, table_column=Column(min_width=7)),
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
    )
    with RichProgress(*columns, console=console, refresh_per_second=4) as progress:
        bar = Bar(progress)
        with _warnings_shown_by(bar):
            yield bar


@contextmanager
def _warnings_shown_by(progress: Progress) -> Iterator[None]:
    """Warnings of the package are shown by the progress."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_args, **_kwargs: progress.warn(str(message))
        yield


class Quiet(NoProgress):
    """Prints warnings only."""

    def warn(self, text: str) -> None:
        """A warning on the standard error."""
        sys.stderr.write(f"unetscope: {one_line(text)}\n")

    def measure(self, done: int, total: int) -> None:
        """Print nothing."""


class Lines:
    """A progress that writes lines of at most 80 columns: one at the end of a stage, and on the way when time has passed.

    The time between two lines is half a minute, later a fiftieth of what has passed, so that the log of days stays
    short.

    >>> stage = Lines(sys.stdout)
    >>> stage.stage("training", 40)
    >>> stage.advance(40)
    >>> stage.end()
    training 40/40, 0:00 elapsed
    """

    SECONDS_BETWEEN, SHARE_BETWEEN = 30, 1 / 50

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._name, self._done, self._total, self._note = "", 0, 0, ""
        self._done_before = 0
        self._began = self._told = self._clock()

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """The stage before ends, and another begins."""
        self.end()
        self._name, self._done, self._total, self._note = one_line(name), done, total or 1, ""
        self._done_before = done
        self._began = self._told = self._clock()

    def advance(self, done: int, note: str = "") -> None:
        """Write a line if none was written for a while."""
        self._done, self._note = done, one_line(note)
        now = self._clock()
        if now - self._told >= max(self.SECONDS_BETWEEN, self.SHARE_BETWEEN * (now - self._began)):
            self._tell(now)

    def measure(self, done: int, total: int) -> None:
        """The same of a stage whose length is known only now."""
        self._total = total
        self.advance(done)

    def end(self) -> None:
        """Write that the stage is complete."""
        if self._name:
            self._done = self._total
            self._tell(self._clock())
        self._name = ""

    def warn(self, text: str) -> None:
        """A warning in lines of its own."""
        self._write(
            textwrap.fill(f"warning: {one_line(text)}", LOG_WIDTH, break_on_hyphens=False, subsequent_indent=CONTINUED)
        )

    def _tell(self, now: float) -> None:
        self._told = now
        elapsed = now - self._began
        entries = [f"{self._name} {self._done:g}/{self._total:g}", f"{_clock_time(elapsed)} elapsed"]
        if (done_here := self._done - self._done_before) > 0 and self._done < self._total:
            entries.append(f"{_clock_time(elapsed * (self._total - self._done) / done_here)} left")
        line = ", ".join([*entries, *filter(None, [self._note])])
        self._write(line if len(line) <= LOG_WIDTH else f"{line[: LOG_WIDTH - 3]}...")

    def _write(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()  # whoever follows a log sees it now


def _clock_time(seconds: float) -> str:
    """Minutes and seconds, with hours and days where there are some.

    >>> _clock_time(69.7), _clock_time(3_600), _clock_time(90_061)
    ('1:09', '1:00:00', '1 d 1:01:01')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours}:{minutes:02}:{rest:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Bar:
    """A progress that draws one progress bar a stage."""

    def __init__(self, progress: RichProgress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """A new bar; the one before is full."""
        self._complete()
        self._task = self._progress.add_task(one_line(name), total=total or 1, completed=done, note="")

    def advance(self, done: int, note: str = "") -> None:
        """Move the bar of this stage."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, note=one_line(note))

    def measure(self, done: int, total: int) -> None:
        """Move the bar of this stage, whose length is known only now."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=total)

    def warn(self, text: str) -> None:
        """A warning above the bars."""
        self._progress.console.print(f"warning: {one_line(text)}", markup=False, highlight=False)

    def _complete(self) -> None:
        if self._task is not None:
            task = self._progress.tasks[self._progress.task_ids.index(self._task)]
            self._progress.update(self._task, completed=task.total)
