"""The images of a run, as its configuration says where they are and how they are held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unetscope.base import Progress
from unetscope.data import (
    SegmentationData,
    grouped,
    guard,
    load,
    paper_split,
    shared_groups,
    shared_images,
    synthetic_nuclei,
)
from unetscope.training import DataConfig


def load_images(config: DataConfig, progress: Progress) -> tuple[SegmentationData, SegmentationData]:
    """Training and validation images: from two paths, from one by the paper's split or a seeded share, or synthetic."""
    if config.path is None:
        progress.stage("synthetic images", 0)
        data = synthetic_nuclei(config.synthetic_images, seed=config.seed, image_size=config.sides)
        data = grouped(data, config.groups)
        return data.split(config.validation_share, seed=config.seed)

    def read(path: str, **options: Any) -> SegmentationData:
        progress.stage(f"reading {Path(path).name}", 0)
        return load(path, image_size=config.sides, volumes=config.volumes, accept=config.accept, **options)

    data = grouped(read(config.path, masks=config.masks, classes=config.classes, ignore=config.ignore), config.groups)
    if config.validation is None:
        of_paper = None if data.groups else paper_split(data)  # groups that are given come before the paper's split
        train, validation = of_paper or data.split(config.validation_share, seed=config.seed)
    else:
        train, read_as = data, _meaning(config, data)
        validation = read(config.validation, channels=data.channels, **read_as)
        validation = grouped(validation, config.groups, is_part=True)
    # Without groups given, those of both parts are the names of volumes, which may be called alike.
    shared = [*shared_images(train, validation), *(shared_groups(train, validation) if config.groups else ())]
    guard(shared, config.validation or config.path, config.accept)
    return train, validation


def _meaning(config: DataConfig, train: SegmentationData) -> dict[str, Any]:
    """What validation masks hold: what those of the training images were taken for."""
    if train.classes == 2 and train.ignore is None:
        return {"masks": config.masks, "classes": config.classes}
    ignore = config.ignore if config.masks or config.classes or config.ignore else train.ignore
    return {"masks": "classes", "classes": train.classes, "ignore": ignore}
