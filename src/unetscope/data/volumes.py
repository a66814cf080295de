"""NIfTI volumes, and folders in nnU-Net's layout or the Decathlon's, as images or volumes with masks of one size."""

from __future__ import annotations

import math
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetscope.base import DataError, InvalidArgument, printable
from unetscope.data.decoding import MAX_FILE_BYTES, decoders_notes
from unetscope.data.grouping import grouped
from unetscope.data.images import decode
from unetscope.data.mask_values import as_whole_numbers, is_black_and_white, numbers_of_mask
from unetscope.data.masks import MaskMeaning, assumed_masks, empty_masks, listed, set_problems
from unetscope.data.nifti import Volume, is_nifti, read_nifti
from unetscope.data.nnunet import Case, find_cases, read_description
from unetscope.data.pairs import SUFFIXES
from unetscope.data.pieces import VOLUME_SIDES, Cutting, VolumeUse, cutting_problems, groups_of_pieces
from unetscope.data.problems import Problem, Unusable, problem, refusal
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
    data, problems = reading.load(
        cases, str(folder), description.classes, description.ignore, len(description.channels)
    )
    if part == "Tr" and description.cases not in (None, len(cases)):
        counts = f"dataset.json says numTraining {description.cases}, {len(cases)} cases are there"
        problems.append(problem("case-count", folder.name, counts))
    return data, problems


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
    source: str = "NIfTI files",
) -> tuple[SegmentationData, list[Problem]]:
    if len(images) != len(masks):
        raise InvalidArgument(f"{len(images)} images and {len(masks)} masks: expected as many of each")
    paths = [Path(mask) for mask in masks]
    cases = [
        Case(name, (Path(image),), mask)
        for name, image, mask in zip(_distinct_names(paths), images, paths, strict=True)
    ]
    return reading.load(cases, source, classes, ignore)


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

    With them every problem of the set, and what its masks mean. None for a folder that is neither.
    Raises: DataError as `load_nnunet` and `load_nifti`; InvalidArgument for a meaning that `dataset.json` contradicts.
    """
    name = printable(folder.name)
    if (folder / "dataset.json").is_file():
        data, problems = _read_nnunet(folder, _Reading(cutting))
        meaning = MaskMeaning("classes", data.classes, data.ignore, "as dataset.json says")
        stands = ((asked.kind, "classes"), (asked.classes, data.classes), (asked.ignore, data.ignore))
        if any(value not in (None, described) for value, described in stands):
            raise InvalidArgument(
                f"{name}: dataset.json describes {meaning}: leave out --masks, --classes and --ignore"
            )
    else:
        if not (pairs := _nifti_pairs(folder)):
            return None
        reading = _Reading(cutting, meaning=asked)
        data, problems = _read_nifti(*pairs, reading, asked.classes, asked.ignore, str(folder))
        why = "" if asked.kind else "the largest value says how many"
        meaning = MaskMeaning("classes", data.classes, data.ignore, why, is_assumed=not asked.kind and data.classes > 2)
        meaning = replace(asked, why="") if asked.kind in ("binary", "instances") else meaning
    if meaning.is_assumed:
        problems.append(assumed_masks(meaning, name))
    if meaning.kind == "classes":
        problems += set_problems(data.names, data.masks, meaning, name)
    has_objects = ((data.masks > 0) & (data.masks != data.ignore)).reshape(len(data), -1).any(axis=1)
    if has_objects.any() or meaning.kind != "classes":
        empty = [each for each, has in zip(data.names, has_objects, strict=True) if not has]
        problems += empty_masks(empty, len(data), name)
    return data, problems, meaning


def _nifti_pairs(folder: Path) -> tuple[list[Path], list[Path]] | None:
    """The images and masks of a folder of NIfTI in images/ and masks/; None if there are none.

    Raises: DataError for a file without its counterpart, two of one name, or a picture among them.
    """
    images, masks = (_volumes_in(folder / role) for role in ("images", "masks"))
    if not images:
        return None
    for files, partners, missing in ((images, masks, "mask in masks"), (masks, images, "image in images")):
        if unpaired := sorted(files.keys() - partners.keys()):
            path = files[unpaired[0]]
            more = f", and {len(unpaired) - 1} more" if len(unpaired) > 1 else ""
            raise DataError(
                f"{printable(folder.name)}: {path.parent.name}/{printable(path.name)} has no {missing}{more}: add what is "
                "missing or remove the other"
            )
    names = sorted(images)
    return [images[name] for name in names], [masks[name] for name in names]


def _volumes_in(folder: Path) -> dict[str, Path]:
    """The NIfTI files of a folder by their names without the ending."""
    paths: dict[str, Path] = {}
    pictures: list[Path] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        if not is_nifti(path):
            pictures += [path] if path.suffix.lower() in SUFFIXES else []
            continue
        if (stem := unicodedata.normalize("NFC", _stem(path))) in paths:
            raise DataError(f"{printable(str(path))} and {printable(paths[stem].name)} are one image: keep one of them")
        paths[stem] = path
    if paths and pictures:
        raise DataError(f"{printable(str(pictures[0]))} lies among NIfTI files: give images of one format in a folder")
    return paths


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
    """How cases are read: which of them, cut so, standardised or as stored, with masks that mean what was asked for."""

    cutting: Cutting
    n: int | None = None
    seed: int = 0
    standardised: bool = True
    check_affines: bool = True
    meaning: MaskMeaning = field(default_factory=MaskMeaning)

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
        cases_read = [cases[row] for row in chosen_rows(len(cases), self.n, self.seed, source)]
        of_case: list[tuple[str, tuple[int, ...]]] = []
        unplaced: list[str] = []
        is_open = classes is None and ignore is None and self.meaning.kind is None
        white: list[str] = []

        def items() -> Iterator[tuple[str, str, Any]]:
            for case in cases_read:
                with decoders_notes():  # of headers that decoders repair
                    volumes, mask, is_placed = self.read(case, channels)
                of_case.append((case.name, mask.shape))
                unplaced.extend([] if is_placed else [case.name])
                if is_open and is_black_and_white(mask):
                    mask = np.minimum(mask, 1)
                    white.append(printable(case.mask.name))
                files = f"{printable(case.images[0].name)} with {printable(case.mask.name)}"
                for name, *item in self._pieces(case.name, volumes, mask, is_alone=len(cases_read) == 1):
                    yield name, f"case {printable(name)} of {source} ({files})", item

        data = stack_items(items(), 0, 1, classes, source, groups=2, ignore=ignore)
        if white and data.classes > 2:
            raise DataError(
                f"{white[0]} holds 0 and 255, other masks of {source} numbers up to {data.classes - 1}: say --ignore 255 if "
                "that has no label, or --masks binary"
            )
        data = replace(data, groups=groups_of_pieces(data.groups))
        problems = cutting_problems(self.cutting, of_case, printable(Path(source).name))
        if unplaced:
            what = f"in {len(unplaced)} of {len(cases_read)} cases, such as {printable(unplaced[0])}, one file has no affine"
            problems.append(
                problem("no-affine", printable(Path(source).name), f"{what}: voxels are taken as they are stored")
            )
        return data, problems

    def read(self, case: Case, channels: int | None) -> tuple[list[NDArray[Any]], NDArray[Any], bool]:
        """The channels [*sides] of a case's image and its mask [*sides], on one grid, as stored.

        And whether either all of its files say where they lie, or none.
        """
        first, *others = volumes = list(map(_volume, case.images))
        if (size := sum(volume.values.nbytes for volume in volumes)) > MAX_CASE_BYTES:
            raise DataError(
                f"case {printable(case.name)} has {size} bytes of voxels in {len(volumes)} files: at most "
                f"{MAX_CASE_BYTES} are read"
            )
        mask_volume = _volume(case.mask, as_mask=True)
        if math.prod(mask_volume.values.shape[3:]) > 1:
            raise DataError(
                f"{mask_volume.file} is {list(mask_volume.values.shape)}: expected one number a voxel, the class; if its last "
                "axis holds the classes, save the argmax"
            )
        is_placed = len({volume.affine is None for volume in (mask_volume, *volumes)}) == 1
        if self.check_affines:
            mask_volume, *others = (volume.on_grid_of(first) for volume in (mask_volume, *others))
        mask = self._labels(mask_volume)
        try:
            self.cutting.check(mask.shape, first.file)
        except Unusable as unusable:
            raise refusal(unusable.problem) from None
        arrays = [channel for volume in (first, *others) for channel in _channels(volume, mask, mask_volume.file)]
        if channels not in (None, len(arrays)):
            raise DataError(f"{first.file} has {len(arrays)} channels, dataset.json {channels}: expected the same")
        return arrays, mask, is_placed

    def _labels(self, volume: Volume) -> NDArray[np.generic]:
        """The numbers of a mask [*sides]; of masks that are binary or number objects, 1 for the foreground."""
        mask = as_whole_numbers(volume.array)
        if self.meaning.kind not in ("binary", "instances"):
            return mask
        values = np.unique(mask)
        if values[0] < 0 or (self.meaning.kind == "binary" and len({0, *values.tolist()}) > 2):
            raise DataError(
                f"{volume.file} holds {listed(values.tolist())}: expected 0 and one other value, or say --masks classes"
            )
        return np.asarray(mask != 0, dtype=np.uint8)

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


def _channels(volume: Volume, mask: NDArray[Any], mask_file: str) -> list[NDArray[Any]]:
    """The channels of an image: the last axis, if it has one more than its mask."""
    values = volume.array
    if values.shape[: mask.ndim] != mask.shape or values.ndim > mask.ndim + 1:
        raise DataError(
            f"{volume.file} is {list(values.shape)}, its mask {mask_file} {list(mask.shape)}: expected the same, or the "
            "channels as the last axis"
        )
    return [values] if values.ndim == mask.ndim else list(np.moveaxis(values, -1, 0))


def _flat(path: Path, *, as_mask: bool) -> Volume:
    """A PNG, TIFF or JPEG as a volume without a place in the world; the pages of a TIFF are its slices."""
    file = printable(path.name)
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise DataError(f"{file} is larger than {MAX_FILE_BYTES // 2**20} MiB, which are read at most")
        pixels = decode(content, file, indexed="exactly" if as_mask else False, are_slices=True)
        values = numbers_of_mask(pixels, file) if as_mask else pixels.values
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})") from None
    except Unusable as unusable:
        raise refusal(unusable.problem) from None
    if errors := [each for each in pixels.problems if each.severity == "error"]:
        raise refusal(errors[0])
    # As NIfTI has it: x first, then y and z, which colours need even if there is one slice.
    has_channels = values.ndim > pixels.sides
    sides = values[None] if has_channels and pixels.sides < VOLUME_SIDES else values
    spatial = sides.ndim - has_channels
    stored = sides.transpose(*reversed(range(spatial)), *range(spatial, sides.ndim))
    return Volume(file, stored, None, noted_orientation=pixels.orientation)


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
