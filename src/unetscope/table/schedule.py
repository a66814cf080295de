"""Which epochs are marked: measured, with a checkpoint kept.

Epoch e is the network after e epochs of training; epoch 0 is the network before any.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import Any, Literal, SupportsInt

import numpy as np

from unetscope.base import InvalidArgument, shown, whole_number

Schedule = Literal["log", "paper"] | Collection[int]
Epochs = Iterable[SupportsInt]
"""Numbers of epochs, in a list, an array, a tensor or an iterator."""
LOG_DIGITS = (1, 2, 3, 5, 7)
SCHEDULES = ("log", "paper")
MOST_EPOCHS = 10**7  # the largest number of an epoch
MOST_LISTED = 10**6  # epochs of a schedule


def epoch_number(epoch: Any) -> int:
    """An epoch as an int, whatever library its number is of. Raises: InvalidArgument for what is no epoch.

    >>> epoch_number(np.int64(3)), epoch_number(1.0)
    (3, 1)
    """
    return whole_number(epoch, "epoch", least=0, most=MOST_EPOCHS)


def listed_epochs(
    epochs: Any, name: str = "marked epochs", *, least: int = 0, most: int = MOST_EPOCHS
) -> Collection[int]:
    """Epochs of a list, an array, an iterator, which is used up, or a range. name: what a message calls them. least, most: of a
    number that is taken.

    Raises: InvalidArgument for what lists no epochs, or more than a million.

    >>> sorted(listed_epochs(np.arange(0, 9, 3)))
    [0, 3, 6]
    """
    if isinstance(epochs, range):  # however long
        return epochs
    if isinstance(epochs, str | bytes) or not isinstance(epochs, Iterable):
        raise InvalidArgument(f"{name} {shown(epochs)}: expected {', '.join(SCHEDULES)} or a list of epochs")
    try:
        listed = list(islice(epochs, MOST_LISTED + 1))
    except TypeError:  # an array or a tensor of no axis
        raise InvalidArgument(f"{name} {shown(epochs)}: expected a list of epochs") from None
    if len(listed) > MOST_LISTED:
        raise InvalidArgument(f"{name} are more than {MOST_LISTED}: give a range, such as range(0, 10_000_000, 10)")
    return frozenset(whole_number(epoch, name, least=least, most=most) for epoch in listed)


def chosen_schedule(schedule: Any) -> Schedule:
    """A schedule that can be asked again and again: a name, or the epochs that are listed.

    Raises: InvalidArgument for a name that is no schedule's, and as `listed_epochs`.
    """
    return schedule if isinstance(schedule, str) and schedule in SCHEDULES else listed_epochs(schedule)  # type: ignore[return-value]


def is_marked(schedule: Schedule, epoch: int) -> bool:
    """Whether a schedule marks an epoch, whatever the length of the training.

    `"log"`: 0 and 1, 2, 3, 5, 7 in every decade. `"paper"`: every epoch to 20, every 5th to 100, every 10th to 200, then
    every 100th, which is how the published code of Lee & Bajić (2021) does it. Or a collection of epochs.

    Raises: InvalidArgument for what is no schedule, and for an epoch that is no whole number from 0 on.

    >>> [epoch for epoch in range(60) if is_marked("log", epoch)]
    [0, 1, 2, 3, 5, 7, 10, 20, 30, 50]
    """
    epoch = epoch_number(epoch)
    if isinstance(schedule, str) and schedule == "log":
        digits = str(epoch)
        return epoch == 0 or (int(digits[0]) in LOG_DIGITS and not digits[1:].strip("0"))
    if isinstance(schedule, str) and schedule == "paper":
        if epoch > 200:
            return epoch % 100 == 0
        step = 1 if epoch <= 20 else 5 if epoch <= 100 else 10
        return epoch > 0 and epoch % step == 0
    if isinstance(schedule, str) or not isinstance(schedule, Collection):
        schedule = chosen_schedule(schedule)
    return epoch in schedule


def marked_epochs(schedule: Schedule, last: int) -> tuple[int, ...]:
    """The marked epochs of a training of `last` epochs, ascending; the last epoch is always one of them.

    Raises: InvalidArgument for an unknown schedule or a listed epoch that the training does not reach.

    >>> marked_epochs("log", 100)
    (0, 1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100)
    >>> len(marked_epochs("paper", 10_000))
    144
    """
    last = epoch_number(last)
    if isinstance(schedule, str):
        schedule = chosen_schedule(schedule)
    else:
        schedule = listed_epochs(schedule, least=-(2**63), most=2**63)
        if beyond := sorted(e for e in (min(schedule, default=0), max(schedule, default=0)) if not 0 <= e <= last):
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
