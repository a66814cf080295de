"""Jobs of a Slurm cluster, sent with submitit.

The run folders, and images that are read from a path, must be on a file system that all machines of the cluster see alike.
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unetscope.base import InvalidArgument, MissingDependency
from unetscope.runs.engines.interface import SECONDS_BETWEEN_LOOKS, STARTS, Look, train_folder

LOGS = "slurm"


@dataclass
class Slurm:
    """Jobs of a Slurm cluster, all sent as one array of which `workers` run at a time (by default as many as Slurm lets).

    Jobs outlive the call: an interrupt ends only the waiting for them. A later call sends those that are not finished
    again, and reports a folder that an older job still trains as in use. Their logs are in the folder `slurm`
    beside those of the variants. minutes: what a job may take before Slurm stops it; it is then queued again and continues.
    cluster: another executor of submitit, such as `"local"`: processes of this machine, all at once. gpus: of a job.
    """

    workers: int | None
    threads: int = 1
    partition: str = ""
    minutes: int = 24 * 60
    cluster: str | None = None
    gpus: int = 0

    def __post_init__(self) -> None:
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise MissingDependency('the Slurm engine needs submitit: pip install "unetscope[slurm]"') from None
        if self.cluster is None and shutil.which("srun") is None:
            raise InvalidArgument("engine 'slurm': no Slurm is found here (no srun on the PATH): use the local engine")

    def run(self, folders: Sequence[Path], look: Look) -> dict[Path, str]:
        """See `Engine.run`."""
        if not folders:
            return {}
        executor = self._executor(folders[0].resolve().parents[1] / LOGS)
        starts, failed = dict.fromkeys(folders, 1), dict[Path, str]()
        running = dict(zip(folders, _sent(executor, folders), strict=True))
        while running:
            killed = []
            for folder, job in [(folder, job) for folder, job in running.items() if job.done()]:
                del running[folder]
                if job.exception() is None:
                    if reason := job.result():
                        failed[folder] = reason
                elif job.state.startswith("CANCELLED"):
                    failed[folder] = "its Slurm job was cancelled"
                elif starts[folder] == STARTS:
                    failed[folder] = f"it was killed {STARTS} times: see {job.paths.stderr}"
                else:
                    killed.append(folder)
                    starts[folder] += 1
            if killed:
                running |= zip(killed, _sent(executor, killed), strict=True)
            look()
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return failed

    def _executor(self, logs: Path) -> Any:
        import submitit

        executor = submitit.AutoExecutor(logs, cluster=self.cluster, slurm_max_num_timeout=STARTS - 1)
        executor.update_parameters(
            name="unetscope",
            cpus_per_task=self.threads,
            gpus_per_node=self.gpus or None,
            timeout_min=self.minutes,
            slurm_array_parallelism=self.workers,
            slurm_partition=self.partition or None,
        )
        return executor


def _sent(executor: Any, folders: Sequence[Path]) -> list[Any]:
    """The jobs that train these folders.

    Raises: InvalidArgument with Slurm's own words if it does not take them.
    """
    from submitit.core.utils import FailedJobError

    try:
        return executor.map_array(_Training(), [str(folder.resolve()) for folder in folders])
    except FailedJobError as refusal:
        raise InvalidArgument(f"Slurm refuses the jobs: {str(refusal).strip().split(chr(10))[-1]}") from None


class _Training:
    """What a job does; Slurm may stop and queue it again."""

    def __call__(self, folder: str) -> str | None:
        """Train a run folder; its error, None if there is none."""
        try:
            return train_folder(folder)
        except Exception as mistake:  # the traceback is for the log
            traceback.print_exc()
            return f"{type(mistake).__name__}: {mistake}"

    def checkpoint(self, folder: str) -> Any:
        """What to queue when Slurm's time is up: the same again, for every finished epoch is on the disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, folder)
