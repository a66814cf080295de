"""The small images that a run keeps for its figures: examples with their predictions, and masks of each cluster.

Of a volume it is the middle slice, and titles say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from unetscope.activations import eval_mode, pixels, to_input
from unetscope.data import SegmentationData
from unetscope.measure import Scope
from unetscope.runs.tables import Picture
from unetscope.training import OutputReading

EXAMPLE_IMAGES = 5
CLUSTERS_SHOWN, MASKS_SHOWN = 6, 4


def is_class_map(data: SegmentationData) -> bool:
    """Whether pictures of masks hold the numbers of classes, not 0 and 255: for several classes, or pixels to ignore."""
    return data.classes > 2 or data.ignore is not None


def examples_of(validation: SegmentationData) -> SegmentationData:
    """A few validation images from the emptiest to the fullest mask, always the same ones; of class maps, from those with the
    fewest classes to those with the most.
    """
    if is_class_map(validation):
        flat = validation.masks.reshape(len(validation), -1)
        fullness = np.sum([(flat == label).any(axis=1) for label in range(validation.classes)], axis=0)
    else:
        fullness = validation.masks.reshape(len(validation), -1).mean(axis=1)
    by_foreground = np.argsort(fullness, kind="stable")
    places = np.linspace(0, len(validation) - 1, min(EXAMPLE_IMAGES, len(validation)) + 2)[1:-1]
    return validation.subset(by_foreground[np.unique(places.round().astype(int))])


def example_pictures(examples: SegmentationData) -> Iterator[Picture]:
    """Images and masks of the examples, as they are kept for the figures."""
    images = (_shown(examples) * 255).round().astype(np.uint8)
    for place, title in enumerate(_titles(examples)):
        channels = middle_slice(images[place])[[0, 1, 2] if examples.channels >= 3 else [0, 0, 0]]
        yield Picture("image", title, 0, place, np.ascontiguousarray(np.moveaxis(channels, 0, -1)))
        yield Picture("truth", title, 0, place, _mask(examples, place))


def middle_slice(values: NDArray[Any]) -> NDArray[Any]:
    """The slice in the middle of the depth of a volume [channels, depth, height, width]; a flat image is one already.

    >>> middle_slice(np.arange(6).reshape(1, 6, 1, 1)).item()
    3
    """
    return values[:, values.shape[1] // 2] if values.ndim == 4 else values


def _titles(examples: SegmentationData) -> list[str]:
    """The names of images, and which slice of a volume is shown."""
    if len(examples.image_size) != 3:
        return list(examples.names)
    depth = examples.image_size[0]
    return [f"{name}, slice {depth // 2 + 1} of {depth}" for name in examples.names]


def _shown(data: SegmentationData) -> NDArray[np.floating]:
    """Images in [0, 1]; those of floats, which may have any range, from their smallest value to their largest."""
    if data.images.dtype != np.float32:
        return data.images * data.scale
    axes = tuple(range(1, data.images.ndim))
    low, high = data.images.min(axis=axes, keepdims=True), data.images.max(axis=axes, keepdims=True)
    return (data.images - low) / np.maximum(high - low, np.finfo(np.float32).tiny)


def _mask(data: SegmentationData, row: int) -> NDArray[np.uint8]:
    mask = middle_slice(data.masks[row][None])[0]
    return mask if is_class_map(data) else mask * np.uint8(255)


def prediction_pictures(
    model: nn.Module, examples: SegmentationData, epoch: int, reading: OutputReading
) -> Iterator[Picture]:
    """What a network marks on the examples; `reading` makes probabilities of its output."""
    device = next(model.parameters()).device
    with eval_mode(model):
        output = model(to_input(pixels(examples).to(device), examples.scale))
        probabilities = reading(output, examples.image_size).cpu().numpy()
    for place, title in enumerate(_titles(examples)):
        shown = middle_slice(probabilities[place])
        if examples.classes > 2:
            marked = shown.argmax(axis=0).astype(np.uint8)
        elif is_class_map(examples):
            marked = (shown[0] > 0.5).astype(np.uint8)
        else:
            marked = (shown[0] * 255).round().astype(np.uint8)
        yield Picture("prediction", title, epoch, place, marked)


def cluster_pictures(scope: Scope) -> Iterator[Picture]:
    """Masks of the largest clusters of each label scheme, four of each; the kind is the scheme's name."""
    are_volumes = len(scope.probe_set.image_size) == 3
    for name, labels in scope.classes.items():
        numbers, counts = np.unique(labels.numpy(), return_counts=True)
        for rank, index in enumerate(np.argsort(-counts, kind="stable")[:CLUSTERS_SHOWN]):
            members = np.flatnonzero(labels.numpy() == numbers[index])
            shown = members[np.linspace(0, len(members) - 1, min(MASKS_SHOWN, len(members))).round().astype(int)]
            title = f"cluster {numbers[index]} · {len(members)} image{'s' * (len(members) > 1)}"
            title += ", middle slices" * are_volumes
            for place, row in enumerate(shown):
                yield Picture(name, title, 0, rank * MASKS_SHOWN + place, _mask(scope.probe_set, row))
