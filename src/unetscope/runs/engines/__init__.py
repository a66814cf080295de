"""Many jobs at once: processes of this machine, Ray, Slurm.

`engine_named` makes them by name. Ray and Slurm are extras, imported only where they are used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unetscope.base import InvalidArgument, cores, plain_number, shown, whole_number
from unetscope.runs.engines.in_process import InProcess
from unetscope.runs.engines.interface import Engine, Look
from unetscope.runs.engines.local import Local

__all__ = ["Engine", "InProcess", "Local", "Look", "checked_counts", "engine_named", "jobs_at_once"]

MOST_WORKERS, MOST_THREADS = 512, 512


def _local(workers: int | None, threads: int, gpu: bool) -> Engine:
    return Local(jobs_at_once(workers, threads, gpu=gpu), threads)


def jobs_at_once(workers: int | None, threads: int, *, gpu: bool) -> int:
    """How many jobs run at a time on this machine: by default as many as its cores carry, and one where they share a GPU."""
    return workers or (1 if gpu else max(1, cores() // threads))


def _ray(workers: int | None, threads: int, gpu: bool) -> Engine:
    from unetscope.runs.engines.ray import Ray

    return Ray(workers, threads, gpus=int(gpu))


def _slurm(workers: int | None, threads: int, gpu: bool) -> Engine:
    from unetscope.runs.engines.slurm import Slurm

    return Slurm(workers, threads, gpus=int(gpu))


_ENGINES: dict[str, Callable[[int | None, int, bool], Engine]] = {"local": _local, "ray": _ray, "slurm": _slurm}


def checked_counts(workers: Any, threads: Any) -> tuple[int | None, int]:
    """Jobs at a time and the threads of each, as ints.

    Raises: InvalidArgument for numbers that cannot be, or beyond those of `MOST_WORKERS` and `MOST_THREADS`.

    >>> checked_counts(None, 10**12)
    Traceback (most recent call last):
    unetscope.base.errors.InvalidArgument: threads must be at most 512, got 1000000000000
    """
    jobs = None if workers is None else _count(workers, "workers", MOST_WORKERS)
    return jobs, _count(threads, "threads", MOST_THREADS)


def _count(value: Any, what: str, most: int) -> int:
    number = plain_number(value)
    if number is None or not number >= 1:
        raise InvalidArgument(f"{what} must be 1 or more, got {shown(value)}")
    if number > most:
        raise InvalidArgument(f"{what} must be at most {most}, got {shown(value)}")
    return whole_number(value, what, least=1, most=most)


def engine_named(name: str, *, workers: int | None = None, threads: int = 1, gpu: bool = False) -> Engine:
    """An engine by name; workers: jobs at a time, by default as many as the cores carry. gpu: whether every job needs one.

    Ray and Slurm are asked for one GPU a job. Jobs of the local engine share the GPU, so by default it runs one at a time.

    Raises: InvalidArgument for a name that is none, or for numbers that cannot be; MissingDependency without its extra.

    >>> engine_named("local", workers=2)
    Local(workers=2, threads=1)
    """
    if name not in _ENGINES:
        raise InvalidArgument(f"engine {name!r}: expected {', '.join(_ENGINES)}")
    workers, threads = checked_counts(workers, threads)
    return _ENGINES[name](workers, threads, gpu)
