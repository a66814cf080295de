"""NIfTI volumes, and folders in nnU-Net's layout.

NIfTI needs nibabel, an extra. The header is read first, so that a volume that claims too many voxels is refused unread.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetscope.base import DataError, InvalidArgument, MissingDependency, first_line
from unetscope.data.datasets import from_dataset
from unetscope.data.images import decode
from unetscope.data.problems import Unusable, printable
from unetscope.data.segmentation import SegmentationData

MAX_VOXELS = 512 * 10**6
NIFTI = (".nii.gz", ".nii")
MAX_JSON_BYTES = 16 * 2**20


def load_nnunet(
    folder: str | Path,
    *,
    size: Sequence[int],
    n: int | None = None,
    part: str = "Tr",
    standardised: bool = True,
    seed: int = 0,
) -> SegmentationData:
    """Images and masks of a folder in nnU-Net's layout: dataset.json, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz.

    size: (height, width) or (depth, height, width) in voxels, to which every case is resized: images linearly, masks by the
    nearest voxel. n: a seeded choice of this many cases. part: `Tr` or `Ts`. standardised: subtract the mean of each channel
    of each image and divide by its standard deviation, as nnU-Net does for all images except CT.

    Source: nnU-Net's documentation, "dataset format". NIfTI files need nibabel: pip install "unetscope[nifti]".
    Raises: DataError that names the folder or file that cannot be used; MissingDependency without nibabel.
    """
    folder = Path(folder)
    description = _dataset_json(folder)
    ending = str(description["file_ending"])
    channels = [int(number) for number in description.get("channel_names", description.get("modality", {"0": ""}))]
    labels = description["labels"]
    if "ignore" in labels:
        raise DataError(f"{printable(str(folder))} marks voxels to ignore, which is not measured: give them a class")
    regions = [
        value if isinstance(value, list) else [value] for value in labels.values()
    ]  # a region joins several labels
    largest = max(int(label) for region in regions for label in region)
    cases = sorted(path.name.removesuffix(ending) for path in (folder / f"labels{part}").glob(f"*{ending}"))
    if not cases:
        raise DataError(f"{printable(str(folder))} has no *{ending} in labels{part}: is it a data set of nnU-Net?")
    images = [[folder / f"images{part}" / f"{case}_{channel:04d}{ending}" for channel in channels] for case in cases]
    masks = [folder / f"labels{part}" / f"{case}{ending}" for case in cases]
    pairs = _Cases(images, masks, cases, tuple(size), standardised)
    return pairs.load(n, seed, str(folder), max(2, largest + 1))


def load_nifti(
    images: Sequence[str | Path],
    masks: Sequence[str | Path],
    *,
    size: Sequence[int],
    n: int | None = None,
    standardised: bool = True,
    seed: int = 0,
) -> SegmentationData:
    """NIfTI images and their masks, one file each, in the same order; other arguments as in `load_nnunet`.

    In a file with one axis more than its mask, the last axis holds the channels.
    Raises: DataError that names the file that cannot be used; MissingDependency without nibabel.
    """
    if len(images) != len(masks):
        raise InvalidArgument(f"{len(images)} images and {len(masks)} masks: expected as many of each")
    paths = [Path(path) for path in masks]
    names = [path.name for path in paths]
    pairs = _Cases([[Path(path)] for path in images], paths, names, tuple(size), standardised)
    return pairs.load(n, seed, "NIfTI files", None)


@dataclass(frozen=True)
class _Cases:
    """Pairs of image and mask, read when they are indexed. images: of each case, a file a channel (or with all channels)."""

    images: Sequence[Sequence[Path]]
    masks: Sequence[Path]
    names: Sequence[str]
    size: tuple[int, ...]
    standardised: bool

    def load(self, n: int | None, seed: int, source: str, classes: int | None) -> SegmentationData:
        """All cases, or a seeded choice of n, under their names."""
        if len(self.size) not in (2, 3) or min(self.size) < 1:
            raise InvalidArgument(f"size must be (height, width) or (depth, height, width) in voxels, got {self.size}")
        data = from_dataset(self, n, classes=classes, seed=seed, source=source)
        return replace(data, names=tuple(self.names[int(row)] for row in data.names))

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, row: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
        mask = _read(self.masks[row])
        name = printable(self.images[row][0].name)
        if mask.ndim != len(self.size):
            raise DataError(f"{name} has {mask.ndim} axes: it cannot be stretched to {'x'.join(map(str, self.size))}")
        channels = [channel for path in self.images[row] for channel in _channels(path, mask.ndim)]
        for channel in channels:
            if channel.shape != mask.shape:
                raise DataError(
                    f"{name} is {list(channel.shape)}, its mask {printable(self.masks[row].name)} {list(mask.shape)}: "
                    "expected the same"
                )
        image = np.stack([_standardise(channel) if self.standardised else channel for channel in channels])
        resized = [_resize(channel, self.size, order=1) for channel in image]
        return np.stack(resized).astype(np.float32), _resize(mask, self.size, order=0)


def _dataset_json(folder: Path) -> dict[str, Any]:
    path = folder / "dataset.json"
    if not path.is_file():
        raise DataError(f"{printable(str(folder))} has no dataset.json: is it a data set of nnU-Net?")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DataError(f"{printable(str(path))} is larger than {MAX_JSON_BYTES} bytes")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        labels, ending = description["labels"], str(description.setdefault("file_ending", ".nii.gz"))
        if not isinstance(labels, dict) or not ending.startswith("."):
            raise TypeError("labels or file_ending is of another kind")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{printable(str(path))} cannot be read: {error}") from None
    return dict(description)


def _channels(path: Path, sides: int) -> list[NDArray[Any]]:
    """The channels of an image file: the last axis, if it has one more than the image."""
    values = _read(path)
    return [values] if values.ndim == sides else list(np.moveaxis(values, -1, 0))


def _read(path: Path) -> NDArray[Any]:
    """The values of a file, [depth, height, width] or [height, width]; channels of a NIfTI file come last."""
    name = printable(path.name)
    if not path.is_file():
        raise DataError(f"{printable(str(path))} does not exist")
    if not path.name.endswith(NIFTI):
        try:
            return decode(path.read_bytes(), name, indexed=True).values
        except Unusable as unusable:
            raise DataError(f"{name}: {unusable}") from None
    try:
        import nibabel
    except ImportError:
        raise MissingDependency('NIfTI needs nibabel: pip install "unetscope[nifti]"') from None
    try:
        image: Any = nibabel.load(path)  # type: ignore[attr-defined]
        if math.prod(image.shape) > MAX_VOXELS:
            raise DataError(f"{name} claims {math.prod(image.shape)} voxels: at most {MAX_VOXELS} are read")
        values = np.asanyarray(image.dataobj)
    except DataError:
        raise
    except Exception as error:  # nibabel lets any exception of its parsers through
        raise DataError(f"{name} cannot be read as NIfTI: {first_line(error)}") from None
    # NIfTI stores x first, y second, z third.
    return np.squeeze(np.moveaxis(values, (0, 1, 2), (2, 1, 0)) if values.ndim >= 3 else values.T)


def _standardise(channel: NDArray[Any]) -> NDArray[np.float32]:
    values = channel.astype(np.float32)
    return (values - values.mean()) / max(float(values.std()), 1e-8)


def _resize(values: NDArray[Any], size: tuple[int, ...], order: int) -> NDArray[Any]:
    """Resize an array. order: 1 to interpolate linearly, 0 to take the nearest value."""
    if values.shape == size:
        return values
    from scipy.ndimage import zoom

    factors = [side / side_before for side, side_before in zip(size, values.shape, strict=True)]
    return zoom(values, factors, order=order, mode="nearest", grid_mode=True)
