"""The pictures of a run as the page shows them: probe masks by class, and predicted masks along training."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.tables import Picture
from unetscope.table.schedule import log_spaced

MOST_PICTURE_BYTES = 1_200_000  # of predicted masks: epochs are left out until they fit


@dataclass(frozen=True)
class Example:
    """A validation image, its mask and what the network marked at some epochs."""

    image: Picture
    truth: Picture
    predicted: dict[int, Picture]

    @property
    def pixels(self) -> tuple[str, Any, Any, dict[int, Any]]:
        """Its title, the image, the mask as 0 and 1, and what was marked by epoch, as arrays."""
        marked = {epoch: picture.pixels for epoch, picture in self.predicted.items()}
        return self.image.title, self.image.pixels, self.truth.pixels // 255, marked


def examples(run: AnalysedRun) -> list[Example]:
    """The validation images that a run keeps, from a nearly empty to a full mask."""
    truths = {picture.title: picture for picture in run.pictures("truth")}
    predicted: dict[str, dict[int, Picture]] = {}
    for picture in run.pictures("prediction"):
        predicted.setdefault(picture.title, {})[picture.epoch] = picture
    return [
        Example(image, truths[image.title], predicted[image.title])
        for image in run.pictures("image")
        if image.title in truths and image.title in predicted
    ]


def cluster_data(run: AnalysedRun) -> list[dict[str, Any]]:
    """By label scheme and class, probe masks of it; nothing for a scheme of which no pictures were kept."""
    clusters = []
    for labels in run.flow.labels:
        classes: dict[str, list[str]] = {}
        for picture in run.pictures(labels):
            classes.setdefault(picture.title, []).append(address(picture.pixels))
        if classes:
            clusters.append(
                {"labels": labels, "classes": [{"title": title, "masks": masks} for title, masks in classes.items()]}
            )
    return clusters


def prediction_data(run: AnalysedRun) -> dict[str, Any] | None:
    """Of so many epochs as fit: a long training's are thinned out evenly in their logarithm."""
    rows = examples(run)
    if not rows:
        return None
    epochs = sorted(set.intersection(*(set(row.predicted) for row in rows)))
    addresses = {epoch: [address(row.predicted[epoch].pixels) for row in rows] for epoch in epochs}
    kept = epochs
    while len(kept) > 2 and sum(len(text) for epoch in kept for text in addresses[epoch]) > MOST_PICTURE_BYTES:
        kept = log_spaced(epochs, len(kept) * 3 // 4)
    return {
        "titles": [row.image.title for row in rows],
        "images": [address(row.image.pixels) for row in rows],
        "truths": [address(row.truth.pixels) for row in rows],
        "epochs": kept,
        "predicted": [addresses[epoch] for epoch in kept],
    }


def address(pixels: Any) -> str:
    """A picture as a data address that needs no network."""
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(memory.getvalue()).decode()}"
