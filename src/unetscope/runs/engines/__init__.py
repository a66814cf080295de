"""Many jobs at once: processes of this machine, Ray, Slurm.

`engine_named` makes them by name. Ray and Slurm are extras, imported only where they are used.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from unetscope.base import InvalidArgument
from unetscope.runs.engines.in_process import InProcess
from unetscope.runs.engines.interface import Engine, Look
from unetscope.runs.engines.local import Local

__all__ = ["Engine", "InProcess", "Local", "Look", "cores", "engine_named"]


CONTROL_GROUP = Path("/sys/fs/cgroup")


def _local(workers: int | None, threads: int, gpu: bool) -> Engine:
    return Local(workers or (1 if gpu else max(1, cores() // threads)), threads)


def _ray(workers: int | None, threads: int, gpu: bool) -> Engine:
    from unetscope.runs.engines.ray import Ray

    return Ray(workers, threads, gpus=int(gpu))


def _slurm(workers: int | None, threads: int, gpu: bool) -> Engine:
    from unetscope.runs.engines.slurm import Slurm

    return Slurm(workers, threads, gpus=int(gpu))


_ENGINES: dict[str, Callable[[int | None, int, bool], Engine]] = {"local": _local, "ray": _ray, "slurm": _slurm}


def engine_named(name: str, *, workers: int | None = None, threads: int = 1, gpu: bool = False) -> Engine:
    """An engine by name; workers: jobs at a time, by default as many as the cores carry. gpu: whether every job needs one.

    Ray and Slurm are asked for one GPU a job. Jobs of the local engine share the GPU, so by default it runs one at a time.

    Raises: InvalidArgument for a name that is none, or for numbers that cannot be; MissingDependency without its extra.

    >>> engine_named("local", workers=2)
    Local(workers=2, threads=1)
    """
    if name not in _ENGINES:
        raise InvalidArgument(f"engine {name!r}: expected {', '.join(_ENGINES)}")
    for what, count in (("workers", workers), ("threads", threads)):
        if count is not None and count < 1:
            raise InvalidArgument(f"{what} must be 1 or more, got {count}")
    return _ENGINES[name](workers, threads, gpu)


def cores() -> int:
    """The processors that this process may use, of which a container may have fewer than its machine."""
    shown = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([shown, *_quotas()]))


def _quotas() -> Iterator[int]:
    """The processors' worth of time that this process's control group has, for each limit that it has, rounded up."""
    with suppress(OSError, ValueError):  # no such file, or it reads "max"
        quota, period = (CONTROL_GROUP / "cpu.max").read_text().split()
        yield math.ceil(int(quota) / int(period))
    with suppress(OSError, ValueError):
        quota, period = ((CONTROL_GROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:  # -1 for no limit
            yield math.ceil(int(quota) / int(period))
