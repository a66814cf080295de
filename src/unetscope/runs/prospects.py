"""What a run will not tell, said before it trains: what would otherwise only show at a measurement or in the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from unetscope.analysis import FEWEST_EPOCHS
from unetscope.base import DataError
from unetscope.data import SegmentationData, across_parts, near_duplicates
from unetscope.measure import probe_limits
from unetscope.table import marked_epochs
from unetscope.training import DataConfig, RunConfig


def prospects(config: RunConfig, train: SegmentationData, validation: SegmentationData) -> tuple[str, ...]:
    """Why there will be no verdict, no interval or one that is too narrow, each with what to do; none if all is well."""
    return (
        *_of_images(config.data, train, validation),
        *_of_large_groups(config.data, train, validation),
        *_of_epochs(config),
        *_of_estimators(config, train, validation),
    )


def _of_images(config: DataConfig, train: SegmentationData, validation: SegmentationData) -> Iterator[str]:
    """Images that look alike without groups make intervals too narrow. Synthetic ones are independent."""
    if config.path is not None and "near-duplicates" not in config.accept:
        yield from map(str, (*near_duplicates(train), *across_parts(train, validation)))


def _of_large_groups(config: DataConfig, train: SegmentationData, validation: SegmentationData) -> Iterator[str]:
    """Groups that no seed holds out, since that would leave the share further off than holding out nothing."""
    if config.validation is not None or not train.groups:
        return
    images = len(train) + len(validation)
    allowed = 2 * config.validation_share * images
    sizes = Counter(train.groups)
    if large := [group for group, size in sizes.items() if size >= allowed and group not in validation.groups]:
        held = sum(sizes[group] for group in large) / images
        groups = len({*train.groups, *validation.groups})
        yield (
            f"{len(large)} of {groups} groups, such as {large[0]} of {sizes[large[0]]} images, will be held out by no seed: "
            f"they are too large for a --validation-share of {config.validation_share:g}. They have {held:.0%} of all images, "
            "and nothing is validated on their like: raise the share, or give --val"
        )


def _of_epochs(config: RunConfig) -> Iterator[str]:
    """A verdict compares epochs."""
    epochs, marked = config.training.epochs, config.measuring.marked
    measured = sum(epoch > 0 for epoch in marked_epochs(marked, epochs))
    if 0 < measured < FEWEST_EPOCHS:
        mend = "mark more with --marked" if epochs >= FEWEST_EPOCHS else "train for more --epochs"
        yield (
            f"there will be no verdict: {measured} epoch of training will be measured, and a verdict needs {FEWEST_EPOCHS}: "
            f"{mend}"
        )


def _of_estimators(config: RunConfig, train: SegmentationData, validation: SegmentationData) -> Iterator[str]:
    """Folds and intervals take so many images, or groups of them."""
    measuring = config.measuring.model_dump()
    more = "with --validation-share or --val" if config.data.validation is None else "in --val"
    if measuring["usable"] or measuring["merge_probes"]:
        for limit in probe_limits(train.probe_set(config.measuring.probe_images), validation):
            part = limit.partition(":")[0]
            yield f"{limit}: {f'hold out more, {more}' if part == 'validation' else 'give more'}; verdicts will stay open"
    if measuring["ksg_components"] and train.groups:
        yield "--ksg gives no number for images in groups, whose nearest neighbours are of their own group: leave it out"


def refuse_untrainable(config: DataConfig, train: SegmentationData, validation: SegmentationData) -> None:
    """Raises: DataError if a part has nothing to tell apart, unless the problem's kind is accepted."""
    of_share = "another --data-seed or --validation-share divides the images otherwise"
    for part, data in (("training", train), ("validation", validation)):
        present = np.unique(data.labels)
        is_accepted = len(present) > 0 and not {"all-empty", "one-class"}.isdisjoint(config.accept)
        if len(present) > 1 or is_accepted:
            continue
        if not len(present):
            what = f"no pixel of the {len(data)} {part} masks has a label"
        elif data.classes == 2 and not present[0]:
            what = f"no pixel of the {len(data)} {part} masks is foreground"
        else:
            what = f"all labelled pixels of the {len(data)} {part} masks are of class {present[0]}"
        raise DataError(f"{what}: {of_share if config.validation is None else 'give others'}")
