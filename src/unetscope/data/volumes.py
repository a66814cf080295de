"""NIfTI volumes, and folders in nnU-Net's layout or the Decathlon's, as images with masks of one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetscope.base import DataError, InvalidArgument
from unetscope.data.decoding import MAX_FILE_BYTES, decoders_notes
from unetscope.data.grouping import grouped
from unetscope.data.images import ImageSize, decode
from unetscope.data.masks import MaskMeaning
from unetscope.data.nifti import Volume, is_nifti, read_nifti
from unetscope.data.nnunet import Case, find_cases, read_description
from unetscope.data.problems import Unusable, printable
from unetscope.data.segmentation import SegmentationData, chosen_rows, stack_items


def load_nnunet(
    folder: str | Path,
    *,
    size: Sequence[int],
    n: int | None = None,
    part: str = "Tr",
    standardised: bool = True,
    check_affines: bool = True,
    groups: str | Path | None = None,
    seed: int = 0,
) -> SegmentationData:
    r"""Images and masks of a folder in nnU-Net's layout: dataset.json, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz.

    size: (height, width) or (depth, height, width) in voxels, to which every case is resized: images linearly, masks by the
    nearest voxel. n: a seeded choice of this many cases. part: `Tr` or `Ts`. standardised: subtract the mean of each channel
    of each image and divide by its standard deviation, as nnU-Net does for all images except CT. Voxels of the label
    `"ignore"` of dataset.json count nowhere; labels that join numbers into regions are refused. check_affines: turn the axes
    of masks and further channels as those of the first image, and refuse those that then lie elsewhere. groups: which cases
    belong together, as in `load`, such as `r"(patient\d+)_"` over the names of cases.

    Source: nnU-Net's documentation, "dataset format". NIfTI files need nibabel: pip install "unetscope[nifti]".
    Raises: DataError that names the folder or file that cannot be used; MissingDependency without nibabel.
    """
    folder = Path(folder)
    description = read_description(folder)
    cases = find_cases(folder, part, description)
    volumes = _Volumes(cases, tuple(size), standardised, check_affines, len(description.channels))
    return grouped(volumes.load(n, seed, str(folder), description.classes, description.ignore), groups)


def load_nifti(
    images: Sequence[str | Path],
    masks: Sequence[str | Path],
    *,
    size: Sequence[int],
    n: int | None = None,
    classes: int | None = None,
    ignore: int | None = None,
    standardised: bool = True,
    check_affines: bool = True,
    seed: int = 0,
) -> SegmentationData:
    """NIfTI images and their masks, one file each, in the same order; other arguments as in `load_nnunet`.

    classes: of the masks (default: the largest value plus one, at least two). ignore: the value of voxels without a label.
    In a file with one axis more than its mask, the last axis holds the channels.
    Raises: DataError that names the file that cannot be used; MissingDependency without nibabel.
    """
    if len(images) != len(masks):
        raise InvalidArgument(f"{len(images)} images and {len(masks)} masks: expected as many of each")
    paths = [Path(mask) for mask in masks]
    cases = [
        Case(name, (Path(image),), mask)
        for name, image, mask in zip(_distinct_names(paths), images, paths, strict=True)
    ]
    return _Volumes(cases, tuple(size), standardised, check_affines).load(n, seed, "NIfTI files", classes, ignore)


def load_described(folder: Path, size: ImageSize, asked: MaskMeaning) -> tuple[SegmentationData, MaskMeaning] | None:
    """Flat images of a folder in nnU-Net's layout, or with images/NAME.nii.gz and masks/NAME.nii.gz, and what their masks mean.

    None for a folder that is neither.
    Raises: DataError as `load_nnunet` and `load_nifti`; InvalidArgument for a meaning that `dataset.json` contradicts.
    """
    if (folder / "dataset.json").is_file():
        data = load_nnunet(folder, size=size)
        stated = MaskMeaning("classes", data.classes, data.ignore, "as dataset.json says")
        stands = ((asked.kind, "classes"), (asked.classes, data.classes), (asked.ignore, data.ignore))
        if any(value not in (None, described) for value, described in stands):
            raise InvalidArgument(
                f"{printable(folder.name)}: dataset.json describes {stated}: leave out --masks, --classes and --ignore"
            )
        return data, stated
    files = {role: {_stem(path): path for path in _volumes_in(folder / role)} for role in ("images", "masks")}
    if not files["images"]:
        return None
    if unpaired := sorted(files["images"].keys() ^ files["masks"].keys()):
        raise DataError(f"{printable(unpaired[0])} is not in both of images and masks of {printable(folder.name)}")
    if asked.kind not in (None, "classes"):
        raise InvalidArgument(f"masks in NIfTI hold classes, got masks={asked.kind!r}: leave it out")
    names = sorted(files["images"])
    pairs = ([files[role][name] for name in names] for role in ("images", "masks"))
    data = load_nifti(*pairs, size=size, classes=asked.classes, ignore=asked.ignore)
    return data, MaskMeaning(
        "classes", data.classes, data.ignore, "" if asked.classes else "the largest value says how many"
    )


def _volumes_in(folder: Path) -> list[Path]:
    return (
        [path for path in folder.iterdir() if is_nifti(path) and not path.name.startswith(".")]
        if folder.is_dir()
        else []
    )


def _stem(path: Path) -> str:
    return path.name[: path.name.lower().index(".nii")]


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """The files' names, with the folders above them where names alone are not distinct.

    >>> _distinct_names([Path("a/mask.nii"), Path("b/mask.nii")])
    ['a/mask.nii', 'b/mask.nii']
    """
    parts = [path.parts for path in paths]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    repeated = next(name for place, name in enumerate(names) if name in names[:place])
    raise DataError(f"{printable(repeated)} is given twice: give each image with its mask once")


MAX_CASE_BYTES = 2**30  # of the voxels of all channels, as they are stored


@dataclass(frozen=True)
class _Volumes:
    """Cases, read when they are indexed. channels: how many there have to be, None for as many as there are."""

    cases: Sequence[Case]
    size: tuple[int, ...]
    standardised: bool
    check_affines: bool
    channels: int | None = None

    def load(
        self, n: int | None, seed: int, source: str, classes: int | None, ignore: int | None = None
    ) -> SegmentationData:
        """All cases, or a seeded choice of n, under their names."""
        if len(self.size) not in (2, 3) or min(self.size) < 1:
            raise InvalidArgument(f"size must be (height, width) or (depth, height, width) in voxels, got {self.size}")
        cases = [self.cases[row] for row in chosen_rows(len(self.cases), n, seed, source)]
        items = ((case.name, f"case {printable(case.name)} of {source}", self._quietly(case)) for case in cases)
        return stack_items(items, 0, 1, classes, source, ignore=ignore)

    def _quietly(self, case: Case) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """What `read` gives; what the decoders print of headers that they repair is left out."""
        with decoders_notes():
            return self.read(case)

    def read(self, case: Case) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """The image [channels, *size] and the mask [*size] of a case, on one grid."""
        first, *others = volumes = list(map(_volume, case.images))
        if (size := sum(volume.values.nbytes for volume in volumes)) > MAX_CASE_BYTES:
            raise DataError(
                f"case {printable(case.name)} has {size} bytes of voxels in {len(volumes)} files: at most "
                f"{MAX_CASE_BYTES} are read"
            )
        mask_volume = _volume(case.mask, as_mask=True)
        if self.check_affines:
            mask_volume, *others = (volume.on_grid_of(first) for volume in (mask_volume, *others))
        mask = mask_volume.array
        if mask.ndim != len(self.size):
            raise DataError(
                f"{first.file} has {mask.ndim} axes: it cannot be stretched to {'x'.join(map(str, self.size))}; a run and "
                "check-data take flat images, and volumes are measured in a loop of your own"
            )
        channels = [channel for volume in (first, *others) for channel in _channels(volume.array, mask.ndim)]
        if self.channels not in (None, len(channels)):
            raise DataError(
                f"{first.file} has {len(channels)} channels, dataset.json {self.channels}: expected the same"
            )
        for channel in channels:
            if channel.shape != mask.shape:
                raise DataError(
                    f"{first.file} is {list(channel.shape)}, its mask {mask_volume.file} {list(mask.shape)}: expected the same"
                )
        # One channel after another: at full size there may be no memory for all of them as floats.
        kind = np.float32 if self.standardised else np.result_type(*channels)
        image = np.empty((len(channels), *self.size), np.float32)
        for row, channel in zip(image, channels, strict=True):
            values = _standardise(channel) if self.standardised else channel.astype(kind, copy=False)
            row[:] = _resize(values, self.size, order=1)
        return image, _resize(mask, self.size, order=0)


def _channels(values: NDArray[Any], sides: int) -> list[NDArray[Any]]:
    """The channels of an image: the last axis, if it has one more than its mask."""
    return [values] if values.ndim == sides else list(np.moveaxis(values, -1, 0))


def _flat(path: Path, *, as_mask: bool) -> Volume:
    """A PNG, TIFF or JPEG as a volume without a place in the world."""
    file = printable(path.name)
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise DataError(f"{file} is larger than {MAX_FILE_BYTES // 2**20} MiB, which are read at most")
        pixels = decode(content, file, indexed="exactly" if as_mask else False)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})") from None
    except Unusable as unusable:
        raise DataError(str(unusable)) from None
    # As NIfTI has it: x first, and channels behind a third axis, of length 1.
    values = np.swapaxes(pixels.values, 0, 1)
    return Volume(file, values[:, :, None] if pixels.is_colour else values, None)


def _volume(path: Path, *, as_mask: bool = False) -> Volume:
    if not path.is_file():
        raise DataError(f"{printable(str(path))} does not exist")
    return read_nifti(path) if is_nifti(path) else _flat(path, as_mask=as_mask)


def _standardise(channel: NDArray[Any]) -> NDArray[np.float32]:
    values = channel.astype(np.float32)
    mean, deviation = values.mean(), max(float(values.std()), 1e-8)
    values -= mean
    values /= deviation
    return values


def _resize(values: NDArray[Any], size: tuple[int, ...], order: int) -> NDArray[Any]:
    """Resize an array. order: 1 to interpolate linearly, 0 to take the nearest value."""
    if values.shape == size:
        return values
    from scipy.ndimage import zoom

    factors = [side / side_before for side, side_before in zip(size, values.shape, strict=True)]
    return zoom(values, factors, order=order, mode="nearest", grid_mode=True)
