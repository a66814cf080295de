"""How checkpoints are named, for those who need no torch."""

from __future__ import annotations


def checkpoint_name(epoch: int) -> str:
    """The name of the folder of one checkpoint.

    >>> checkpoint_name(10)
    'epoch-00010'
    """
    return f"epoch-{epoch:05d}"
