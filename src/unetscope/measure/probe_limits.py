"""Why probes of some images will have no number or no interval, known before any network is trained."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from unetscope.data import SegmentationData
from unetscope.measure.probe_data import FOLDS
from unetscope.measure.probing import FEWEST_JUDGED
from unetscope.table import effective_groups, too_few_groups


def probe_limits(train: SegmentationData, held_out: SegmentationData) -> tuple[str, ...]:
    """The reasons that measurements would give for missing numbers and intervals of usable information; none if all is well.

    >>> images, masks = np.zeros((6, 1, 4, 4), np.uint8), np.eye(4, dtype=np.uint8)[None].repeat(6, 0)
    >>> data = SegmentationData(images, masks, tuple("abcdef"), "set", groups=tuple("ppqqrr"))
    >>> probe_limits(data.subset([0, 1, 2, 3]), data.subset([4, 5]))[0]
    'training: 2 groups of images are too few for probes, which are fitted in 4 folds of whole groups'
    """
    return (*_of_training(train), *_of_held_out(held_out), *_of_classes(train, held_out))


def _of_training(train: SegmentationData) -> list[str]:
    labelled = _labelled(train)
    if not train.groups:
        few = f"training: {labelled.sum()} images with labels are too few for probes, which are fitted in {FOLDS} folds"
        return [few] if labelled.sum() < FOLDS else []
    sizes = _group_sizes(train, labelled)
    if len(sizes) < FOLDS:
        are = f"{len(sizes)} group{'s' * (len(sizes) != 1)} of images {'are' if len(sizes) != 1 else 'is'}"
        return [f"training: {are} too few for probes, which are fitted in {FOLDS} folds of whole groups"]
    few = too_few_groups(len(sizes), effective_groups(sizes))
    return [f"training: {few}"] if few else []


def _of_held_out(held_out: SegmentationData) -> list[str]:
    labelled = _labelled(held_out)
    if held_out.groups:
        sizes = _group_sizes(held_out, labelled)
        few = too_few_groups(len(sizes), effective_groups(sizes))
        return [f"validation: {few}"] if few else []
    if (count := int(labelled.sum())) >= FEWEST_JUDGED:
        return []
    are = "1 image with labels is" if count == 1 else f"{count} images with labels are"
    return [f"validation: {are} too few for an interval: it needs {FEWEST_JUDGED}"]


def _of_classes(train: SegmentationData, held_out: SegmentationData) -> list[str]:
    seen, asked = (np.unique(part.labels) for part in (train, held_out))
    if not (unseen := sorted(set(asked.tolist()) - set(seen.tolist()))):
        return []
    named = f"class{'es' * (len(unseen) > 1)} {', '.join(map(str, unseen))}"
    return [f"validation: masks have {named}, which no training mask has: usable information has no interval"]


def _labelled(data: SegmentationData) -> Bool[NDArray[np.bool_], " n"]:
    """Which images have a pixel with a label."""
    if data.ignore is None:
        return np.ones(len(data), dtype=bool)
    return np.asarray((data.masks != data.ignore).reshape(len(data), -1).any(axis=1))


def _group_sizes(data: SegmentationData, labelled: Bool[NDArray[np.bool_], " n"]) -> NDArray[np.int64]:
    return np.unique(np.asarray(data.groups)[labelled], return_counts=True)[1]
