"""The small images that a run keeps for its figures: examples with their predictions, and masks of each class of labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import nn

from unetscope.activations import eval_mode, pixels, to_input
from unetscope.data import SegmentationData
from unetscope.measure import Scope
from unetscope.runs.tables import Picture

EXAMPLE_IMAGES = 5
CLUSTERS_SHOWN, MASKS_SHOWN = 6, 4


def examples_of(validation: SegmentationData) -> SegmentationData:
    """A few validation images from the emptiest to the fullest mask, always the same ones."""
    by_foreground = np.argsort(validation.masks.mean(axis=(1, 2)), kind="stable")
    places = np.linspace(0, len(validation) - 1, min(EXAMPLE_IMAGES, len(validation)) + 2)[1:-1]
    return validation.subset(by_foreground[np.unique(places.round().astype(int))])


def example_pictures(examples: SegmentationData) -> Iterator[Picture]:
    """Images and masks of the examples, as they are kept for the figures."""
    images = (examples.images * (examples.scale * 255)).round().astype(np.uint8)
    for place, name in enumerate(examples.names):
        channels = images[place][[0, 1, 2] if examples.channels >= 3 else [0, 0, 0]]
        yield Picture("image", name, 0, place, np.ascontiguousarray(np.moveaxis(channels, 0, -1)))
        yield Picture("truth", name, 0, place, examples.masks[place] * np.uint8(255))


def prediction_pictures(model: nn.Module, examples: SegmentationData, epoch: int) -> Iterator[Picture]:
    """What a network marks on the examples."""
    device = next(model.parameters()).device
    with eval_mode(model):
        probabilities = model(to_input(pixels(examples).to(device), examples.scale)).cpu().numpy()
    for place, name in enumerate(examples.names):
        yield Picture("prediction", name, epoch, place, (probabilities[place, 0] * 255).round().astype(np.uint8))


def cluster_pictures(scope: Scope) -> Iterator[Picture]:
    """Masks of the largest classes of each label scheme, four of each; the kind is the scheme's name."""
    for name, labels in scope.classes.items():
        classes, counts = np.unique(labels.numpy(), return_counts=True)
        for rank, index in enumerate(np.argsort(-counts, kind="stable")[:CLUSTERS_SHOWN]):
            members = np.flatnonzero(labels.numpy() == classes[index])
            shown = members[np.linspace(0, len(members) - 1, min(MASKS_SHOWN, len(members))).round().astype(int)]
            title = f"class {classes[index]} · {len(members)} image{'s' * (len(members) > 1)}"
            for place, row in enumerate(shown):
                yield Picture(name, title, 0, rank * MASKS_SHOWN + place, scope.probe_set.masks[row] * np.uint8(255))
