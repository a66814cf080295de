"""NIfTI volumes, and folders as nnU-Net lays them out.

nibabel reads NIfTI, an extra: a header is read first, and a volume that claims too much is refused before it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetscope.base.errors import DataError, InvalidArgument, MissingDependency
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
    """Images and masks of a folder as nnU-Net lays it out: dataset.json, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz.

    size: (height, width) or (depth, height, width) in voxels, to which every case is stretched, images linearly, masks by the
    nearest. n: a seeded choice of so many cases. part: `Tr` or `Ts`. standardised: every channel of every image less its mean,
    over its standard deviation, as nnU-Net does for all but CT.

    Source: nnU-Net's documentation, "dataset format". NIfTI files need nibabel: pip install "unetscope[nifti]".
    Raises: DataError for a folder or a file that is none, naming it; MissingDependency without nibabel.
    """
    folder = Path(folder)
    about = _about(folder)
    ending = str(about["file_ending"])
    channels = [int(number) for number in about.get("channel_names", about.get("modality", {"0": ""}))]
    labels = about["labels"]
    if "ignore" in labels:
        raise DataError(f"{printable(str(folder))} marks voxels to ignore, which is not measured: give them a class")
    largest = max(int(one) for value in labels.values() for one in (value if isinstance(value, list) else [value]))
    cases = sorted(path.name.removesuffix(ending) for path in (folder / f"labels{part}").glob(f"*{ending}"))
    if not cases:
        raise DataError(f"{printable(str(folder))} has no *{ending} in labels{part}: is it a data set of nnU-Net?")
    images = [[folder / f"images{part}" / f"{case}_{channel:04d}{ending}" for channel in channels] for case in cases]
    masks = [folder / f"labels{part}" / f"{case}{ending}" for case in cases]
    return _loaded(images, masks, cases, tuple(size), n, standardised, seed, str(folder), max(2, largest + 1))


def load_nifti(
    images: Sequence[str | Path],
    masks: Sequence[str | Path],
    *,
    size: Sequence[int],
    n: int | None = None,
    standardised: bool = True,
    seed: int = 0,
) -> SegmentationData:
    """NIfTI images and their masks, one file each, in the same order; other arguments as of `load_nnunet`.

    A file of four axes is an image of several channels, the last axis.
    Raises: DataError for a file that is none, naming it; MissingDependency without nibabel.
    """
    if len(images) != len(masks):
        raise InvalidArgument(f"{len(images)} images and {len(masks)} masks: expected as many of each")
    paths = [Path(path) for path in masks]
    names = [path.name for path in paths]
    return _loaded(
        [[Path(path)] for path in images], paths, names, tuple(size), n, standardised, seed, "NIfTI files", None
    )


class _Cases:
    """Pairs of image and mask, read when they are asked for."""

    def __init__(
        self, images: Sequence[Sequence[Path]], masks: Sequence[Path], size: tuple[int, ...], standardised: bool
    ):
        self._images, self._masks, self._size, self._standardised = images, masks, size, standardised

    def __len__(self) -> int:
        return len(self._masks)

    def __getitem__(self, row: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
        truth = _read(self._masks[row])
        if truth.ndim != len(self._size):
            raise DataError(
                f"{printable(self._images[row][0].name)} has {truth.ndim} axes: it cannot be stretched to "
                f"{'x'.join(map(str, self._size))}"
            )
        channels = [channel for path in self._images[row] for channel in _channels(path, truth.ndim)]
        for channel in channels:
            if channel.shape != truth.shape:
                raise DataError(
                    f"{printable(self._images[row][0].name)} is {list(channel.shape)}, its mask "
                    f"{printable(self._masks[row].name)} {list(truth.shape)}: expected the same"
                )
        shown = np.stack([_standardised(channel) if self._standardised else channel for channel in channels])
        return np.stack([_resized(one, self._size, 1) for one in shown]).astype(np.float32), _resized(
            truth, self._size, 0
        )


def _loaded(
    images: Sequence[Sequence[Path]],
    masks: Sequence[Path],
    names: Sequence[str],
    size: tuple[int, ...],
    n: int | None,
    standardised: bool,
    seed: int,
    source: str,
    classes: int | None,
) -> SegmentationData:
    if len(size) not in (2, 3) or min(size) < 1:
        raise InvalidArgument(f"size must be (height, width) or (depth, height, width) in voxels, got {size}")
    found = from_dataset(_Cases(images, masks, size, standardised), n, classes=classes, seed=seed, source=source)
    return SegmentationData(
        found.images, found.masks, tuple(names[int(row)] for row in found.names), source, found.classes
    )


def _about(folder: Path) -> dict[str, Any]:
    path = folder / "dataset.json"
    if not path.is_file():
        raise DataError(f"{printable(str(folder))} has no dataset.json: is it a data set of nnU-Net?")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DataError(f"{printable(str(path))} is larger than {MAX_JSON_BYTES} bytes")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(about["labels"], dict) or not str(about.setdefault("file_ending", ".nii.gz")).startswith("."):
            raise TypeError("labels or file_ending is of another kind")
    except (ValueError, KeyError, TypeError) as damage:
        raise DataError(f"{printable(str(path))} cannot be read: {damage}") from None
    return dict(about)


def _channels(path: Path, sides: int) -> list[NDArray[Any]]:
    """The channels of an image file: the last axis, if it has one more than the image."""
    values = _read(path)
    return [values] if values.ndim == sides else list(np.moveaxis(values, -1, 0))


def _read(path: Path) -> NDArray[Any]:
    """The numbers of a file, with its last axes as they are stored."""
    name = printable(path.name)
    if not path.is_file():
        raise DataError(f"{printable(str(path))} does not exist")
    if not path.name.endswith(NIFTI):
        try:
            return decode(path.read_bytes(), name, indexed=True).values
        except Unusable as damage:
            raise DataError(f"{name}: {damage}") from None
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
    except Exception as damage:  # nibabel raises what its parsers do
        raise DataError(f"{name} cannot be read as NIfTI: {(str(damage).splitlines() or ['damaged'])[0]}") from None
    return np.squeeze(np.moveaxis(values, (0, 1, 2), (2, 1, 0)) if values.ndim >= 3 else values.T)


def _standardised(channel: NDArray[Any]) -> NDArray[np.float32]:
    values = channel.astype(np.float32)
    return (values - values.mean()) / max(float(values.std()), 1e-8)


def _resized(values: NDArray[Any], size: tuple[int, ...], order: int) -> NDArray[Any]:
    """Stretched to a size: 1 linearly, 0 by the nearest."""
    if values.shape == size:
        return values
    from scipy.ndimage import zoom

    factors = [wanted / there for wanted, there in zip(size, values.shape, strict=True)]
    return zoom(values, factors, order=order, mode="nearest", grid_mode=True)
