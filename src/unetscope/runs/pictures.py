"""The small images that a run keeps for its figures: examples with their predictions, and masks of each cluster."""

from __future__ import annotations

from collections.abc import Iterator

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
        present = [validation.masks == label for label in range(validation.classes)]
        fullness = np.sum([where.any(axis=(1, 2)) for where in present], axis=0)
    else:
        fullness = validation.masks.mean(axis=(1, 2))
    by_foreground = np.argsort(fullness, kind="stable")
    places = np.linspace(0, len(validation) - 1, min(EXAMPLE_IMAGES, len(validation)) + 2)[1:-1]
    return validation.subset(by_foreground[np.unique(places.round().astype(int))])


def example_pictures(examples: SegmentationData) -> Iterator[Picture]:
    """Images and masks of the examples, as they are kept for the figures."""
    images = (_shown(examples) * 255).round().astype(np.uint8)
    for place, name in enumerate(examples.names):
        channels = images[place][[0, 1, 2] if examples.channels >= 3 else [0, 0, 0]]
        yield Picture("image", name, 0, place, np.ascontiguousarray(np.moveaxis(channels, 0, -1)))
        yield Picture("truth", name, 0, place, _mask(examples, place))


def _shown(data: SegmentationData) -> NDArray[np.floating]:
    """Images in [0, 1]; those of floats, which may have any range, from their smallest value to their largest."""
    if data.images.dtype != np.float32:
        return data.images * data.scale
    axes = tuple(range(1, data.images.ndim))
    low, high = data.images.min(axis=axes, keepdims=True), data.images.max(axis=axes, keepdims=True)
    return (data.images - low) / np.maximum(high - low, np.finfo(np.float32).tiny)


def _mask(data: SegmentationData, row: int) -> NDArray[np.uint8]:
    return data.masks[row] if is_class_map(data) else data.masks[row] * np.uint8(255)


def prediction_pictures(
    model: nn.Module, examples: SegmentationData, epoch: int, reading: OutputReading
) -> Iterator[Picture]:
    """What a network marks on the examples; `reading` makes probabilities of its output."""
    device = next(model.parameters()).device
    with eval_mode(model):
        output = model(to_input(pixels(examples).to(device), examples.scale))
        probabilities = reading(output, examples.image_size).cpu().numpy()
    for place, name in enumerate(examples.names):
        if examples.classes > 2:
            marked = probabilities[place].argmax(axis=0).astype(np.uint8)
        elif is_class_map(examples):
            marked = (probabilities[place, 0] > 0.5).astype(np.uint8)
        else:
            marked = (probabilities[place, 0] * 255).round().astype(np.uint8)
        yield Picture("prediction", name, epoch, place, marked)


def cluster_pictures(scope: Scope) -> Iterator[Picture]:
    """Masks of the largest clusters of each label scheme, four of each; the kind is the scheme's name."""
    for name, labels in scope.classes.items():
        numbers, counts = np.unique(labels.numpy(), return_counts=True)
        for rank, index in enumerate(np.argsort(-counts, kind="stable")[:CLUSTERS_SHOWN]):
            members = np.flatnonzero(labels.numpy() == numbers[index])
            shown = members[np.linspace(0, len(members) - 1, min(MASKS_SHOWN, len(members))).round().astype(int)]
            title = f"cluster {numbers[index]} · {len(members)} image{'s' * (len(members) > 1)}"
            for place, row in enumerate(shown):
                yield Picture(name, title, 0, rank * MASKS_SHOWN + place, _mask(scope.probe_set, row))
