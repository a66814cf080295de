"""Several processes that measure one network together, as under `torchrun`.

Without a process group, a process acts as a group of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from torch import Tensor, distributed

T = TypeVar("T")


def rank() -> int:
    """The number of this process; 0 without a process group."""
    return distributed.get_rank() if world_size() > 1 else 0


def world_size() -> int:
    """How many processes there are.

    >>> world_size()
    1
    """
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def all_reduce(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over all processes, equal to the bit in each."""
    for tensor in tensors:
        distributed.all_reduce(tensor)


def all_gather(value: T) -> list[T]:
    """The value of every process, in order of rank. Values are pickled between the processes of one job: keep them small."""
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def broadcast(value: T) -> T:
    """The value of the process of rank 0, in all processes."""
    if world_size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def own_share(batches: Sequence[Tensor]) -> list[Tensor]:
    """This process's share of the batches: every `world_size()`-th, from its rank on."""
    return list(batches[rank() :: world_size()])
