"""Which epochs are marked: measured, with a checkpoint kept.

Epoch e is the network after e epochs of training; epoch 0 is the network before any.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from unetscope.base import InvalidArgument

Schedule = Literal["log", "paper"] | Collection[int]
LOG_DIGITS = (1, 2, 3, 5, 7)
SCHEDULES = ("log", "paper")


def is_marked(schedule: Schedule, epoch: int) -> bool:
    """Whether a schedule marks an epoch, whatever the length of the training.

    `"log"`: 0 and 1, 2, 3, 5, 7 in every decade. `"paper"`: every epoch to 20, every 5th to 100, every 10th to 200, then
    every 100th, which is how the published code of Lee & Bajić (2021) does it. Or a collection of epochs.

    >>> [epoch for epoch in range(60) if is_marked("log", epoch)]
    [0, 1, 2, 3, 5, 7, 10, 20, 30, 50]
    """
    if schedule == "log":
        digits = str(epoch)
        return epoch == 0 or (int(digits[0]) in LOG_DIGITS and not digits[1:].strip("0"))
    if schedule == "paper":
        if epoch > 200:
            return epoch % 100 == 0
        step = 1 if epoch <= 20 else 5 if epoch <= 100 else 10
        return epoch > 0 and epoch % step == 0
    if isinstance(schedule, str):
        raise InvalidArgument(f"marked epochs {schedule!r}: expected {', '.join(SCHEDULES)} or a list of epochs")
    return epoch in schedule


def marked_epochs(schedule: Schedule, last: int) -> tuple[int, ...]:
    """The marked epochs of a training of `last` epochs, ascending; the last epoch is always one of them.

    Raises: InvalidArgument for an unknown schedule or a listed epoch that the training does not reach.

    >>> marked_epochs("log", 100)
    (0, 1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100)
    >>> len(marked_epochs("paper", 10_000))
    144
    """
    if not isinstance(schedule, str) and (beyond := sorted(e for e in schedule if not 0 <= e <= last)):
        raise InvalidArgument(f"marked epoch {beyond[0]} is outside the training: expected 0 to {last}")
    return tuple(epoch for epoch in range(last + 1) if epoch == last or is_marked(schedule, epoch))


def by_thirds(marked: Sequence[int]) -> tuple[int, ...]:
    """Some of the marked epochs, ascending: the last, the latest at a third of it, and so on down to a twentieth.

    >>> by_thirds((0, 1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100))
    (10, 30, 100)
    """
    chosen = [marked[-1]]
    while earlier := [epoch for epoch in marked if max(1, marked[-1] / 20) <= epoch <= chosen[0] / 3]:
        chosen.insert(0, earlier[-1])
    return tuple(chosen)


def log_spaced(epochs: Sequence[int], most: int) -> list[int]:
    """At most this many of the epochs, the first and the last among them, evenly spread by their logarithm.

    >>> log_spaced(range(145), 10)
    [0, 1, 2, 3, 6, 12, 22, 42, 77, 144]
    """
    if len(epochs) <= most:
        return list(epochs)
    after = [epoch for epoch in epochs if epoch > 0]
    first = [epoch for epoch in epochs if epoch == 0]
    targets = np.geomspace(after[0], after[-1], most - len(first))
    return sorted({*first, *(min(after, key=lambda epoch: abs(epoch - target)) for target in targets)})
