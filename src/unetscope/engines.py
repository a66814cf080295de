"""Many jobs at once: processes of this machine, Ray, Slurm. Imports errors and store.

An engine is given run folders and trains each in a process of its own, as `unetscope.jobs` does. A job that is killed is
started again and goes on; one that says what is wrong with it is not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from unetscope.errors import InvalidArgument

STARTS = 4  # of a job that is killed from outside, before it is given up
SECONDS_BETWEEN_LOOKS = 0.25
LOG = "log.txt"

Look = Callable[[], None]


class Engine(Protocol):
    """Whatever trains run folders, several at a time."""

    def run(self, folders: Sequence[Path], look: Look) -> dict[Path, str]:
        """Train all folders; why each of those that failed did. `look` is called several times a second meanwhile."""


@dataclass
class Local:
    """Processes of this machine, `workers` at a time; they end when this process does, and lose no finished epoch."""

    workers: int
    threads: int = 1
    _running: dict[Path, subprocess.Popen[bytes]] = field(default_factory=dict, init=False)

    def run(self, folders: Sequence[Path], look: Look) -> dict[Path, str]:
        """See `Engine.run`."""
        waiting, starts, failed = list(folders), dict.fromkeys(folders, 0), dict[Path, str]()
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self.workers:
                    folder = waiting.pop(0)
                    starts[folder] += 1
                    self._running[folder] = self._started(folder)
                for folder, process in list(self._running.items()):
                    if (code := process.poll()) is None:
                        continue
                    self._release(folder)
                    if code in (1, 2):
                        failed[folder] = last_line(folder)
                    elif code and starts[folder] == STARTS:
                        failed[folder] = f"it was killed {STARTS} times: see {folder / LOG}"
                    elif code:
                        waiting.append(folder)
                look()
                time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            for folder, process in list(self._running.items()):
                process.kill()  # every finished epoch is on the disk
                process.wait()
                self._release(folder)
        return failed

    def _started(self, folder: Path) -> subprocess.Popen[bytes]:
        threads = str(self.threads)
        with (folder / LOG).open("ab") as log:
            return subprocess.Popen(  # noqa: S603 (this package, in this interpreter)
                [sys.executable, "-m", "unetscope.jobs", "--with-parent", str(folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
                start_new_session=True,  # an interrupt is for this process, which then ends its jobs
            )

    def _release(self, folder: Path) -> None:
        process = self._running.pop(folder)
        assert process.stdin is not None
        process.stdin.close()


def last_line(folder: Path) -> str:
    """The last thing that a job said."""
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").split("\n") if (folder / LOG).is_file() else []
    said = [line for line in lines if line.strip()]
    return said[-1].removeprefix("unetscope: ") if said else "it said nothing"


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def engine_named(name: str, workers: int | None, threads: int) -> Engine:
    """An engine by name, with as many workers as the cores carry if none are asked for.

    Raises: InvalidArgument for a name that is none.
    """
    if name != "local":
        raise InvalidArgument(f"engine {name!r}: expected local, ray or slurm")
    return Local(workers or max(1, cores() // threads), threads)
