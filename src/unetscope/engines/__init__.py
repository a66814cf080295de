"""Many jobs at once: processes of this machine, Ray, Slurm. Imports errors.

`engine_named` is the door. Ray and Slurm are extras, and imported only by who asks for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from unetscope.engines.interface import Engine, Look
from unetscope.engines.local import Local
from unetscope.errors import InvalidArgument

__all__ = ["Engine", "Local", "Look", "cores", "engine_named"]


def _local(workers: int | None, threads: int) -> Engine:
    return Local(workers or max(1, cores() // threads), threads)


def _ray(workers: int | None, threads: int) -> Engine:
    from unetscope.engines.ray import Ray

    return Ray(workers, threads)


def _slurm(workers: int | None, threads: int) -> Engine:
    from unetscope.engines.slurm import Slurm

    return Slurm(workers, threads)


_ENGINES: dict[str, Callable[[int | None, int], Engine]] = {"local": _local, "ray": _ray, "slurm": _slurm}


def engine_named(name: str, *, workers: int | None = None, threads: int = 1) -> Engine:
    """An engine by name; workers: jobs at a time, by default as many as the cores carry.

    Raises: InvalidArgument for a name that is none, or for numbers that cannot be; MissingDependency without its extra.

    >>> engine_named("local", workers=2)
    Local(workers=2, threads=1)
    """
    if name not in _ENGINES:
        raise InvalidArgument(f"engine {name!r}: expected {', '.join(_ENGINES)}")
    for what, count in (("workers", workers), ("threads", threads)):
        if count is not None and count < 1:
            raise InvalidArgument(f"{what} must be 1 or more, got {count}")
    return _ENGINES[name](workers, threads)


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
