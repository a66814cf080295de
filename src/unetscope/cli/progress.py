"""Progress of a command on the standard error."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from unetscope.base import NoProgress, Progress
from unetscope.cli.terminal import one_line

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Bar | Quiet]:
    """A progress that draws progress on the standard error, or one that passes on warnings alone."""
    if quiet:
        with _warnings_shown_by(silent := Quiet()):
            yield silent
        return
    from rich.console import Console
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
    with RichProgress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
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


class Bar:
    """A progress that draws one progress bar a stage."""

    def __init__(self, progress: RichProgress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def stage(self, name: str, total: int) -> None:
        """A new bar; the one before is full."""
        self._complete()
        self._task = self._progress.add_task(one_line(name), total=total or 1, note="")

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
