"""The pictures of a run's page and figures: examples with their predicted masks, and masks of each class of labels."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from unetscope.runs import AnalysedRun, Picture
from unetscope.table import log_spaced

MOST_PICTURE_BYTES = 1_200_000  # of predicted masks: epochs are left out until they fit


@dataclass(frozen=True)
class Example:
    """A validation image, its mask and the predicted masks at some epochs."""

    image: Picture
    truth: Picture
    predicted: dict[int, Picture]
    is_class_map: bool = False

    @property
    def pixels(self) -> tuple[str, Any, Any, dict[int, Any]]:
        """Its title, the image, the mask as 0 and 1 or as classes, and the predicted mask by epoch, as arrays."""
        marked = {epoch: picture.pixels for epoch, picture in self.predicted.items()}
        truth = self.truth.pixels if self.is_class_map else self.truth.pixels // 255
        return self.image.title, self.image.pixels, truth, marked


def examples(run: AnalysedRun) -> list[Example]:
    """The validation images that a run stores, from a nearly empty to a full mask."""
    truths = {picture.title: picture for picture in run.pictures("truth")}
    predicted: dict[str, dict[int, Picture]] = {}
    for picture in run.pictures("prediction"):
        predicted.setdefault(picture.title, {})[picture.epoch] = picture
    return [
        Example(image, truths[image.title], predicted[image.title], run.class_map is not None)
        for image in run.pictures("image")
        if image.title in truths and image.title in predicted
    ]


def cluster_data(run: AnalysedRun) -> list[dict[str, Any]]:
    """Probe masks by label scheme and class; schemes without stored pictures are left out."""
    clusters = []
    for labels in run.flow.labels:
        classes: dict[str, list[str]] = {}
        for picture in run.pictures(labels):
            classes.setdefault(picture.title, []).append(address(_shown_mask(run, picture.pixels)))
        if classes:
            clusters.append(
                {"labels": labels, "classes": [{"title": title, "masks": masks} for title, masks in classes.items()]}
            )
    return clusters


def prediction_data(run: AnalysedRun) -> dict[str, Any] | None:
    """Predicted masks; the epochs of a long training are thinned evenly in their logarithm until they fit."""
    rows = examples(run)
    if not rows:
        return None
    epochs = sorted(set.intersection(*(set(row.predicted) for row in rows)))
    addresses = {
        epoch: [address(_shown_mask(run, row.predicted[epoch].pixels, row.truth.pixels)) for row in rows]
        for epoch in epochs
    }
    kept = epochs
    while len(kept) > 2 and sum(len(text) for epoch in kept for text in addresses[epoch]) > MOST_PICTURE_BYTES:
        kept = log_spaced(epochs, len(kept) * 3 // 4)
    return {
        "titles": [row.image.title for row in rows],
        "images": [address(row.image.pixels) for row in rows],
        "truths": [address(_shown_mask(run, row.truth.pixels)) for row in rows],
        "note": of_volumes(run, "Of each volume the middle slice is shown."),
        "legend": [] if run.class_map is None else run.class_map.legend,
        "epochs": kept,
        "predicted": [addresses[epoch] for epoch in kept],
    }


def of_volumes(run: AnalysedRun, text: str) -> str:
    """What is said of pictures if the run's images are volumes, else nothing."""
    return text if len(run.facts.get("data", {}).get("train", {}).get("image size", ())) == 3 else ""


def _shown_mask(run: AnalysedRun, mask: Any, truth: Any = None) -> Any:
    """A mask as it is shown: classes in their colours; where the truth is ignored, a prediction is too."""
    if run.class_map is None:
        return mask
    if truth is not None and run.class_map.ignored is not None:
        mask = np.where(truth == run.class_map.ignored, truth, mask)
    return run.class_map.coloured(mask)


def address(pixels: Any) -> str:
    """A picture as a data URL."""
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(memory.getvalue()).decode()}"
