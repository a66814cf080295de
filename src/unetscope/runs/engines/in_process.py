"""The process itself, one job after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unetscope.runs.engines.interface import Look, train_folder


class InProcess:
    """Trains one run folder after the other, here: a short training takes less time than a process that begins."""

    def run(self, folders: Sequence[Path], look: Look) -> dict[Path, str]:
        """See `Engine.run`; `look` is called after each training."""
        failed = {}
        for folder in folders:
            if (reason := train_folder(str(folder))) is not None:
                failed[folder] = reason
            look()
        return failed
