"""How much farther than elsewhere the loss of Dice to expect may be off in a run: of few validation images, and of one whose
Dice jumps from one epoch to the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from unetscope.analysis.expected_losses import BEYOND
from unetscope.analysis.trainings import SCORED_SHARE
from unetscope.table import EpochRecord, effective_groups, group_values

FITTED_ON: Final = 100  # validation images of the networks on which the lines were fitted
LEAST_SPREAD: Final = 0.012  # of losses over images: where the Dice stood still it was 0.006 to 0.014 nevertheless
MOST_EPOCHS: Final = 10  # that are compared: a run of 10,000 epochs is judged at a hundred of them
UNKNOWN: Final = 1.0  # half-width of a loss of which a single image tells
OF_A_STEP: Final = 0.4  # the scale of losses by the Dice's mean step: by this, left-out tasks are the most likely


def error_of_run(records: Sequence[EpochRecord], epoch: int, groups: Sequence[int] = ()) -> float:
    """Half of the 90 % interval by which losses are farther off the lines in this run than in others, in Dice.

    records: of every epoch. epoch: after which a part is judged. groups: of each validation image, if they are in groups.

    >>> records = [EpochRecord(epoch, 0, 0, 0, 0.75 + 0.05 * (epoch % 2), 1) for epoch in range(21)]
    >>> round(error_of_run(records, 20), 3)
    0.043
    """
    return math.hypot(error_over_images(records, epoch, groups), BEYOND * OF_A_STEP * mean_step(records, epoch))


def mean_step(records: Sequence[EpochRecord], epoch: int) -> float:
    """By how much the mean Dice differs from one recorded epoch to the next, over those that a score is of; 0 of a single one.

    Where it jumps, the network that is judged is one of many, and its retrainings are others: what each loses without a part
    differs. docs/verdicts.md tells how often intervals hold.

    >>> mean_step([EpochRecord(epoch, 0, 0, 0, 0.5 + 0.25 * (epoch == 19), 1) for epoch in range(21)], 20)
    0.25
    """
    steps = [
        abs(later.validation_dice - earlier.validation_dice) for earlier, later in pairwise(_compared(records, epoch))
    ]
    finite = [step for step in steps if math.isfinite(step)]
    return sum(finite) / len(finite) if finite else 0.0


def _compared(records: Sequence[EpochRecord], epoch: int) -> list[EpochRecord]:
    """Those of the last tenth of the epochs until this one, ten at most, and the one before; where fewer were recorded, the two
    last ones.
    """
    first = epoch - min(MOST_EPOCHS, max(2, epoch // SCORED_SHARE))
    until = sorted((record for record in records if record.epoch <= epoch), key=lambda record: record.epoch)
    late = [record for record in until if record.epoch >= first]
    return late if len(late) > 1 else until[-2:]


def error_over_images(records: Sequence[EpochRecord], epoch: int, groups: Sequence[int] = ()) -> float:
    """Half of the 90 % interval of the mean loss over few images about that over as many as the lines were fitted on, in Dice.

    It is 0 for as many and more, and if the Dice of single images is not known.

    Over images, the losses of retrained networks vary about as much as the Dice varies from one epoch to the next at the end of
    the training. docs/verdicts.md tells how often intervals hold with it, and without.

    records: of every epoch. epoch: after which a part is judged. groups: of each validation image, if they are in groups.

    >>> dice = (0.8, 0.9, 0.7, 0.6), (0.82, 0.86, 0.74, 0.66)
    >>> records = [EpochRecord(9 + n, 0, 0, 0, 0.75, 1, dice_per_image=of_images) for n, of_images in enumerate(dice)]
    >>> round(error_over_images(records, 10), 3)
    0.05
    """
    by_epoch = [np.asarray(record.dice_per_image) for record in _compared(records, epoch)]
    steps = [later - earlier for earlier, later in pairwise(by_epoch) if len(later) == len(earlier) > 0]
    if not steps:
        return 0.0
    labelled = np.asarray(np.isfinite(steps).all(axis=0))  # an image without a label has no Dice
    values = np.asarray(steps)[:, labelled]
    count = float(values.shape[1])
    if groups and len(groups) == len(labelled):
        of_images = np.asarray(groups)[labelled]
        values = np.array([group_values(step, np.ones(len(step)), of_images) for step in values])
        count = effective_groups(np.unique(of_images, return_counts=True)[1]) if len(of_images) else 0.0
    if values.shape[1] < 2:
        return UNKNOWN
    spread = max(LEAST_SPREAD, float(values.std(axis=1, ddof=1).mean()))
    from scipy.special import stdtrit  # takes a tenth of a second to import

    percentile = float(stdtrit(max(1.0, count - 1), 0.95))  # as the spread is of so few images itself
    return percentile * spread * math.sqrt(max(0.0, 1 / count - 1 / FITTED_ON))
