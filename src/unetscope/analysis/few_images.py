"""What a run with few validation images adds to the loss of Dice to expect of a retrained network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from unetscope.analysis.trainings import SCORED_SHARE
from unetscope.table import EpochRecord, effective_groups, group_values

FITTED_ON: Final = 100  # validation images of the networks on which the lines were fitted
LEAST_SPREAD: Final = 0.012  # of losses over images: where the Dice stood still it was 0.006 to 0.014 nevertheless
MOST_EPOCHS: Final = 10  # that are compared: a run of 10,000 epochs is judged at a hundred of them
UNKNOWN: Final = 1.0  # half-width of a loss of which a single image tells


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
    first = epoch - min(MOST_EPOCHS, max(2, epoch // SCORED_SHARE)) + 1
    by_epoch = {record.epoch: np.asarray(record.dice_per_image) for record in records if first <= record.epoch <= epoch}
    steps = [
        by_epoch[later] - by_epoch[later - 1]
        for later in by_epoch
        if later - 1 in by_epoch and len(by_epoch[later]) == len(by_epoch[later - 1]) > 0
    ]
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
