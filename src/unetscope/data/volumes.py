"""NIfTI volumes, and folders in nnU-Net's layout or the Decathlon's, as images or volumes with masks of one size."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetscope.base import DataError, InvalidArgument
from unetscope.data.decoding import MAX_FILE_BYTES, decoders_notes
from unetscope.data.grouping import grouped
from unetscope.data.images import decode
from unetscope.data.masks import MaskMeaning
from unetscope.data.nifti import Volume, is_nifti, read_nifti
from unetscope.data.nnunet import Case, find_cases, read_description
from unetscope.data.pieces import VOLUME_SIDES, Cutting, VolumeUse, cutting_problems, groups_of_pieces
from unetscope.data.problems import Problem, Unusable, printable
from unetscope.data.segmentation import SegmentationData, chosen_rows, stack_items


def load_nnunet(
    folder: str | Path,
    *,
    size: Sequence[int],
    volumes: VolumeUse | None = None,
    n: int | None = None,
    part: str = "Tr",
    standardised: bool = True,
    check_affines: bool = True,
    groups: str | Path | None = None,
    seed: int = 0,
) -> SegmentationData:
    r"""Images and masks of a folder in nnU-Net's layout: dataset.json, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz.

    size: (height, width) or (depth, height, width) in voxels, to which every case is resized: images linearly, masks by the
    nearest voxel. volumes: `"whole"` (the default for three sides) does this; `"patches"` cuts windows of the size that cover
    a volume, at its own voxels; `"slices"` (the default for two sides) makes an image of each slice. Patches and slices of a
    volume are a group. n: a seeded choice of this many cases. part: `Tr` or `Ts`. standardised: subtract the mean of each
    channel of each image and divide by its standard deviation, as nnU-Net does for all images except CT. Voxels of the label
    `"ignore"` of dataset.json count nowhere; labels that join numbers into regions are refused. check_affines: turn the axes
    of masks and further channels as those of the first image, and refuse those that then lie elsewhere. groups: which cases
    belong together, as in `load`, such as `r"(patient\d+)_"` over the names of cases.

    Source: nnU-Net's documentation, "dataset format". NIfTI files need nibabel: pip install "unetscope[nifti]".
    Raises: DataError that names the folder or file that cannot be used; MissingDependency without nibabel.
    """
    reading = _Reading(_cutting(size, volumes), n, seed, standardised, check_affines)
    return grouped(_warned(*_read_nnunet(Path(folder), reading, part)), groups)


def _read_nnunet(folder: Path, reading: _Reading, part: str = "Tr") -> tuple[SegmentationData, list[Problem]]:
    description = read_description(folder)
    cases = find_cases(folder, part, description)
    return reading.load(cases, str(folder), description.classes, description.ignore, len(description.channels))


def load_nifti(
    images: Sequence[str | Path],
    masks: Sequence[str | Path],
    *,
    size: Sequence[int],
    volumes: VolumeUse | None = None,
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
    reading = _Reading(_cutting(size, volumes), n, seed, standardised, check_affines)
    return _warned(*_read_nifti(images, masks, reading, classes, ignore))


def _read_nifti(
    images: Sequence[str | Path],
    masks: Sequence[str | Path],
    reading: _Reading,
    classes: int | None,
    ignore: int | None,
) -> tuple[SegmentationData, list[Problem]]:
    if len(images) != len(masks):
        raise InvalidArgument(f"{len(images)} images and {len(masks)} masks: expected as many of each")
    paths = [Path(mask) for mask in masks]
    cases = [
        Case(name, (Path(image),), mask)
        for name, image, mask in zip(_distinct_names(paths), images, paths, strict=True)
    ]
    return reading.load(cases, "NIfTI files", classes, ignore)


def _cutting(size: Sequence[int], volumes: VolumeUse | None) -> Cutting:
    if len(size) not in (2, 3) or min(size) < 1:
        raise InvalidArgument(f"size must be (height, width) or (depth, height, width) in voxels, got {tuple(size)}")
    return Cutting.of(size, "whole" if volumes is None and len(size) == VOLUME_SIDES else volumes)


def _warned(data: SegmentationData, problems: Sequence[Problem]) -> SegmentationData:
    for suspect in problems:
        warnings.warn(str(suspect), UserWarning, stacklevel=3)
    return data


def load_described(
    folder: Path, cutting: Cutting, asked: MaskMeaning
) -> tuple[SegmentationData, list[Problem], MaskMeaning] | None:
    """The images of a folder in nnU-Net's layout, or with images/NAME.nii.gz and masks/NAME.nii.gz.

    With them what is to be said of how volumes were cut, and what their masks mean. None for a folder that is neither.
    Raises: DataError as `load_nnunet` and `load_nifti`; InvalidArgument for a meaning that `dataset.json` contradicts.
    """
    if (folder / "dataset.json").is_file():
        data, problems = _read_nnunet(folder, _Reading(cutting))
        stated = MaskMeaning("classes", data.classes, data.ignore, "as dataset.json says")
        stands = ((asked.kind, "classes"), (asked.classes, data.classes), (asked.ignore, data.ignore))
        if any(value not in (None, described) for value, described in stands):
            raise InvalidArgument(
                f"{printable(folder.name)}: dataset.json describes {stated}: leave out --masks, --classes and --ignore"
            )
        return data, problems, stated
    files = {role: {_stem(path): path for path in _volumes_in(folder / role)} for role in ("images", "masks")}
    if not files["images"]:
        return None
    if unpaired := sorted(files["images"].keys() ^ files["masks"].keys()):
        raise DataError(f"{printable(unpaired[0])} is not in both of images and masks of {printable(folder.name)}")
    if asked.kind not in (None, "classes"):
        raise InvalidArgument(f"masks in NIfTI hold classes, got masks={asked.kind!r}: leave it out")
    names = sorted(files["images"])
    images, masks = ([files[role][name] for name in names] for role in ("images", "masks"))
    data, problems = _read_nifti(images, masks, _Reading(cutting), asked.classes, asked.ignore)
    why = "" if asked.classes else "the largest value says how many"
    return data, problems, MaskMeaning("classes", data.classes, data.ignore, why)


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
class _Reading:
    """How cases are read: which of them, cut so, standardised or as stored."""

    cutting: Cutting
    n: int | None = None
    seed: int = 0
    standardised: bool = True
    check_affines: bool = True

    def load(
        self,
        cases: Sequence[Case],
        source: str,
        classes: int | None,
        ignore: int | None = None,
        channels: int | None = None,
    ) -> tuple[SegmentationData, list[Problem]]:
        """All cases, or a seeded choice of n, under their names, and what is to be said of how they were cut.

        channels: how many there have to be, None for as many as there are.
        """
        chosen = [cases[row] for row in chosen_rows(len(cases), self.n, self.seed, source)]
        of_case: list[tuple[str, tuple[int, ...]]] = []

        def items() -> Iterator[tuple[str, str, Any]]:
            for case in chosen:
                with decoders_notes():  # of headers that decoders repair
                    volumes, mask = self.read(case, channels)
                of_case.append((case.name, mask.shape))
                for name, *item in self._pieces(case.name, volumes, mask, is_alone=len(chosen) == 1):
                    yield name, f"case {printable(name)} of {source}", item

        data = stack_items(items(), 0, 1, classes, source, groups=2, ignore=ignore)
        data = replace(data, groups=groups_of_pieces(data.groups))
        return data, cutting_problems(self.cutting, of_case, printable(Path(source).name))

    def read(self, case: Case, channels: int | None) -> tuple[list[NDArray[Any]], NDArray[Any]]:
        """The channels [*sides] of a case's image and its mask [*sides], on one grid, as stored."""
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
        try:
            self.cutting.check(mask.shape, first.file)
        except Unusable as unusable:
            raise DataError(str(unusable)) from None
        arrays = [channel for volume in (first, *others) for channel in _channels(volume.array, mask.ndim)]
        if channels not in (None, len(arrays)):
            raise DataError(f"{first.file} has {len(arrays)} channels, dataset.json {channels}: expected the same")
        for array in arrays:
            if array.shape != mask.shape:
                raise DataError(
                    f"{first.file} is {list(array.shape)}, its mask {mask_volume.file} {list(mask.shape)}: expected the same"
                )
        return arrays, mask

    def _pieces(
        self, name: str, channels: list[NDArray[Any]], mask: NDArray[Any], *, is_alone: bool
    ) -> Iterator[tuple[str, NDArray[np.float32], NDArray[Any], str]]:
        """Of each piece of a case its name, the image [channels, *size], the mask [*size] and the group."""
        size, pieces = self.cutting.size, self.cutting.pieces(mask.shape, is_alone=is_alone)
        images = np.empty((len(pieces), len(channels), *size), np.float32)
        # One channel after another: at full size there may be no memory for all of them as floats.
        kind = np.float32 if self.standardised else np.result_type(*channels)
        for place, channel in enumerate(channels):
            values = _standardise(channel) if self.standardised else channel.astype(kind, copy=False)
            for image, piece in zip(images, pieces, strict=True):
                image[place] = piece.cut(values, size, order=1)
        for image, piece in zip(images, pieces, strict=True):
            yield name + piece.name, image, piece.cut(mask, size, order=0), name + piece.group


def _channels(values: NDArray[Any], sides: int) -> list[NDArray[Any]]:
    """The channels of an image: the last axis, if it has one more than its mask."""
    return [values] if values.ndim == sides else list(np.moveaxis(values, -1, 0))


def _flat(path: Path, *, as_mask: bool) -> Volume:
    """A PNG, TIFF or JPEG as a volume without a place in the world; the pages of a TIFF are its slices."""
    file = printable(path.name)
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise DataError(f"{file} is larger than {MAX_FILE_BYTES // 2**20} MiB, which are read at most")
        pixels = decode(content, file, indexed="exactly" if as_mask else False, are_slices=True)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})") from None
    except Unusable as unusable:
        raise DataError(str(unusable)) from None
    # As NIfTI has it: x first, then y and z, which colours need even if there is one slice.
    sides = pixels.values if pixels.sides == VOLUME_SIDES or not pixels.is_colour else pixels.values[None]
    spatial = sides.ndim - pixels.is_colour
    return Volume(file, sides.transpose(*reversed(range(spatial)), *range(spatial, sides.ndim)), None)


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
