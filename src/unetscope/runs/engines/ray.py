"""Tasks of a Ray cluster, several at a time.

The run folders, and images that are read from a path, must be on a file system that all machines of the cluster see alike.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unetscope.base import InvalidArgument, MissingDependency, cores
from unetscope.runs.engines.interface import SECONDS_BETWEEN_LOOKS, STARTS, Look, train_folder


@dataclass
class Ray:
    """Tasks of a Ray cluster, `workers` at a time, by default as many as it has processors for.

    The cluster is the one that this process has joined, else the one of RAY_ADDRESS, else one that is started on this
    machine and ends with the call. A task takes `threads` of its processors and `gpus` of its GPUs, so on a cluster without
    a machine that large it waits for one. When the call ends, its tasks end; no finished epoch is lost.
    """

    workers: int | None
    threads: int = 1
    gpus: int = 0

    def __post_init__(self) -> None:
        try:
            import ray  # noqa: F401
        except ImportError:
            raise MissingDependency('the Ray engine needs ray: pip install "unetscope[ray]"') from None

    def run(self, folders: Sequence[Path], look: Look) -> dict[Path, str]:
        """See `Engine.run`."""
        with _cluster(processors=self.threads * (self.workers or max(1, cores() // self.threads))):
            return self._trained(folders, look)

    def _trained(self, folders: Sequence[Path], look: Look) -> dict[Path, str]:
        import ray

        task = ray.remote(
            num_cpus=self.threads,
            num_gpus=self.gpus,
            max_calls=1,  # a process of its own
            max_retries=STARTS - 1,
            retry_exceptions=False,
        )(_train)
        waiting, running, failed = list(folders), dict[Any, Path](), dict[Path, str]()
        try:
            while waiting or running:
                while waiting and (self.workers is None or len(running) < self.workers):
                    folder = waiting.pop(0)
                    running[task.remote(str(folder.resolve()), str(Path.cwd()))] = folder
                for ended in ray.wait(list(running), timeout=SECONDS_BETWEEN_LOOKS)[0]:
                    folder = running.pop(ended)
                    if reason := _reason(ended):
                        failed[folder] = reason
                look()
        finally:
            for task_left in running:
                ray.cancel(task_left, force=True)  # every finished epoch is on the disk
        return failed


@contextmanager
def _cluster(*, processors: int) -> Iterator[None]:
    """The cluster of this process; one that is joined or started for the block is left or ended after it."""
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    own: dict[str, Any] = {"address": "local", "num_cpus": processors, "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **({} if address else own))
    except ConnectionError:
        raise InvalidArgument(
            f"RAY_ADDRESS={address}: no Ray cluster answers there: correct it, or unset it to start one here"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _train(folder: str, started_in: str) -> str | None:
    """The task of a worker. See `train_folder`."""
    if Path(started_in).is_dir():
        os.chdir(started_in)  # images may be named from there, and a worker begins where its cluster was started
    return train_folder(folder)


def _reason(ended: Any) -> str | None:
    """Why a task failed, None if it did not."""
    import ray

    try:
        return ray.get(ended)
    except ray.exceptions.WorkerCrashedError:
        return f"it was killed {STARTS} times"
    except ray.exceptions.RayError as mistake:
        return str(mistake).strip().split("\n")[-1]
