"""Several processes that measure one network together, as under `torchrun`.

Without a process group, or with one process in it, all of this is what one process does alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from torch import Tensor, distributed

T = TypeVar("T")


def rank() -> int:
    """The number of this process, 0 for one alone."""
    return distributed.get_rank() if world_size() > 1 else 0


def world_size() -> int:
    """How many processes there are.

    >>> world_size()
    1
    """
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def all_reduce(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over all processes, the same bits in each."""
    for tensor in tensors:
        distributed.all_reduce(tensor)


def all_gather(value: T) -> list[T]:
    """The value of every process, in their order; for small things. It goes through pickle between processes of one job."""
    found: list[Any] = [None] * world_size()
    distributed.all_gather_object(found, value)
    return found


def broadcast(value: T) -> T:
    """What the first process says, in all of them."""
    if world_size() == 1:
        return value
    said = [value]
    distributed.broadcast_object_list(said, src=0)
    return said[0]


def own_share(batches: Sequence[Tensor]) -> list[Tensor]:
    """The batches that fall to this process: every so-many-th."""
    return list(batches[rank() :: world_size()])
