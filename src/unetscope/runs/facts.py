"""The facts about the data that a run folder keeps beside the configuration, and their check when a run is resumed."""

from __future__ import annotations

from typing import Any

from unetscope.base import RunFolderError
from unetscope.data import SegmentationData
from unetscope.runs.folder import RunFolder


def data_facts(data: SegmentationData) -> dict[str, Any]:
    """Where images come from, how many and how large they are, and the fingerprint that names exactly these."""
    return {
        "source": data.source,
        "images": len(data),
        "channels": data.channels,
        "image size": list(data.image_size),
        "foreground share": data.foreground_share,
        "fingerprint": data.fingerprint,
    }


def has_same_data(folder: RunFolder, part: str, data: SegmentationData | None) -> bool:
    """Whether images are those of this part of the run's data; None, whether the run has no such part."""
    facts = folder.facts.get("data", {}).get(part, {})
    return bool(facts.get("fingerprint") == (None if data is None else data.fingerprint))


def refuse_other_data(folder: RunFolder, train: SegmentationData, validation: SegmentationData) -> None:
    """Raises: RunFolderError if these are not the images that the run began with."""
    for part, data in (("train", train), ("validation", validation)):
        if not has_same_data(folder, part, data):
            raise RunFolderError(
                f"the {part} images of {data.source} are not those that {folder.path} was begun with: "
                "bring them back, or choose another --out"
            )
