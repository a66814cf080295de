"""Processes of this machine, several at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unetscope.base import RunFolderError
from unetscope.runs.engines.interface import LOG, SECONDS_BETWEEN_LOOKS, STARTS, Look, last_line


def job_command(folder: Path) -> list[str]:
    """What trains a run folder as long as this process lives.

    -P: no module is taken from the current folder, which may be somebody else's.
    """
    return [sys.executable, "-P", "-m", "unetscope.runs.jobs", "--with-parent", str(folder)]


@dataclass
class Local:
    """Processes of this machine, `workers` at a time; they end when this process does, and lose no finished epoch."""

    workers: int
    threads: int = 1
    _running: dict[Path, subprocess.Popen[bytes]] = field(default_factory=dict, init=False, repr=False)

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
        if (path := folder / LOG).is_symlink() or (path.exists() and not path.is_file()):
            raise RunFolderError(f"{path} is not a file: remove it")  # a link leads outside, a pipe waits for ever
        with path.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 (this package, in this interpreter)
                job_command(folder),
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
