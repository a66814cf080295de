"""How checkpoints are named, for those who need no torch."""

from __future__ import annotations

import re
from pathlib import Path


def checkpoint_name(epoch: int) -> str:
    """The name of the folder of one checkpoint.

    >>> checkpoint_name(10)
    'epoch-00010'
    """
    return f"epoch-{epoch:05d}"


def checkpoint_epochs(folder: Path) -> tuple[int, ...]:
    """The epochs of which a folder has a checkpoint, ascending; none if it is not there.

    >>> checkpoint_epochs(Path("nowhere"))
    ()
    """
    if not folder.is_dir():
        return ()
    names = (re.fullmatch(r"epoch-(\d{5,})", path.name) for path in folder.iterdir())
    return tuple(sorted(int(name[1]) for name in names if name))
