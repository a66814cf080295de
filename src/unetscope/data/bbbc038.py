"""The 2018 Data Science Bowl, stage 1 (BBBC038v1): layout, manifest and the paper's split.

Layout: <id>/images/<id>.png, and <id>/masks/*.png with one nucleus each; their union is the mask.
Source: Caicedo et al., Nature Methods 16, 1247-1253 (2019). Licence: CC0.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Literal

from unetscope.data.pairs import Pair, Placed
from unetscope.data.problems import Problem, printable, problem
from unetscope.data.segmentation import SegmentationData
from unetscope.data.sources import Source

Part = Literal["train", "validation"]


def has_folder_an_image(placed: Iterable[Placed]) -> bool:
    """Whether files have this layout: some image has the name of its folder.

    >>> has_folder_an_image([Placed("set/x1/images/x1.png", "set/x1", "images")])
    True
    """
    return any(p.role == "images" and p.stem == printable(PurePosixPath(p.above).name) for p in placed)


def pair_by_folder(placed: Iterable[Placed]) -> tuple[list[Pair], list[Problem]]:
    """Pair each image with all masks in the folder beside it.

    >>> pair_by_folder([Placed("x1/images/x1.png", "x1", "images"), Placed("x1/masks/1.png", "x1", "masks")])
    ([Pair(name='x1', image='x1/images/x1.png', masks=('x1/masks/1.png',))], [])
    """
    problems: list[Problem] = []
    images: dict[str, str] = {}
    masks: dict[str, list[str]] = {}
    for p in placed:
        if p.role == "masks":
            masks.setdefault(p.above, []).append(p.file)
        elif p.above in images:
            problems.append(problem("several-images", p.file, f"{printable(images[p.above])} is beside it"))
        else:
            images[p.above] = p.file
    pairs: dict[str, Pair] = {}
    for above, image in sorted(images.items()):
        name = printable(PurePosixPath(above).name)
        if above not in masks:
            problems.append(
                problem("image-without-mask", image, f"no file {printable(above)}/masks/*.png belongs to it")
            )
        elif name in pairs:
            problems.append(problem("same-stem", image, f"{printable(pairs[name].image)} has the same name"))
        else:
            pairs[name] = Pair(name, image, tuple(masks[above]))
    for above in sorted(masks.keys() - images.keys()):
        missing = f"no image {printable(above)}/images/{printable(PurePosixPath(above).name)}.png belongs to it"
        problems.append(problem("mask-without-image", masks[above][0], missing))
    return list(pairs.values()), problems


@dataclass(frozen=True)
class Sums:
    """Checksums of an image: SHA-256 of its file, and SHA-256 over the sorted SHA-256 of its mask files."""

    image: str
    masks: str
    part: Part


def sums_of(source: Source, pair: Pair, part: Part) -> Sums:
    """The checksums of an image and its masks.

    Raises: Unusable if a file cannot be read.
    """
    image = hashlib.sha256(source.read(pair.image)).hexdigest()
    masks = sorted(hashlib.sha256(source.read(mask)).hexdigest() for mask in pair.masks)
    return Sums(image, hashlib.sha256("\n".join(masks).encode()).hexdigest(), part)


def read_manifest(data: bytes) -> dict[str, Sums]:
    """By image, its checksums, from the JSON that `scripts/make_manifest.py` writes."""
    parts: Mapping[Part, Mapping[str, list[str]]] = json.loads(data)["parts"]
    return {name: Sums(image, masks, part) for part, sums in parts.items() for name, (image, masks) in sums.items()}


@cache
def manifest() -> Mapping[str, Sums]:
    """The 670 images of stage 1, each with its checksums and its part in the paper's split of 605 and 65.

    >>> [sum(sums.part == part for sums in manifest().values()) for part in ("train", "validation")]
    [605, 65]
    """
    folder = files("unetscope.data")
    packed = folder / "bbbc038_manifest.json.gz"
    return read_manifest(
        gzip.decompress(packed.read_bytes()) if packed.is_file() else (folder / "bbbc038_manifest.json").read_bytes()
    )


def paper_split(data: SegmentationData) -> tuple[SegmentationData, SegmentationData] | None:
    """The paper's training and validation parts; None if `data` has further images or only one part.

    >>> import numpy as np
    >>> names = tuple(manifest())[604:606]
    >>> pair = SegmentationData(np.zeros((2, 1, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8), names, "two nuclei")
    >>> [part.names == (name,) for part, name in zip(paper_split(pair), names)]
    [True, True]
    """
    if not manifest().keys() >= set(data.names):
        return None
    rows: dict[Part, list[int]] = {"train": [], "validation": []}
    for row, name in enumerate(data.names):
        rows[manifest()[name].part].append(row)
    if not (rows["train"] and rows["validation"]):
        return None
    return data.subset(rows["train"]), data.subset(rows["validation"])
