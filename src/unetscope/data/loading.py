"""Load a folder or zip of images and masks: list, decode, check, resize."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetscope.base import DataError, InvalidArgument, StepCallback, printable
from unetscope.data import cache
from unetscope.data.grouping import grouped, shared_groups
from unetscope.data.images import ImageSize
from unetscope.data.likeness import across_parts, near_duplicates
from unetscope.data.masks import MaskKind, MaskMeaning, asked_meaning
from unetscope.data.pieces import Cutting, VolumeUse
from unetscope.data.problems import Problem, check_command, guard, known_kinds, problem, without_accepted
from unetscope.data.reading import read
from unetscope.data.segmentation import SegmentationData
from unetscope.data.sources import EXPECTED, open_source
from unetscope.data.synthetic import synthetic_nuclei
from unetscope.data.volumes import load_described

SIDE, MAX_SIDE = 128, 8192


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    image_size: int | ImageSize = SIDE,
    volumes: VolumeUse | None = None,
    channels: int | None = None,
    groups: str | os.PathLike[str] | None = None,
    masks: MaskKind | None = None,
    classes: int | None = None,
    ignore: int | None = None,
    accept: Collection[str] = (),
    progress: StepCallback | None = None,
) -> SegmentationData:
    r"""The images and masks of a folder or zip, checked, decoded and resized. The result is cached on disk.

    Without a path, the 200 synthetic nuclei images of seed 0 (`synthetic_nuclei`).
    Layouts: images/ and masks/ matched by file stem, or <id>/images/<id>.png with <id>/masks/*.png (one object a
    file); either may lie in a folder of its own; or a folder of flat images in nnU-Net's layout, whose dataset.json says what
    masks hold, or of NIfTI in images/ and masks/. Formats: PNG, TIFF, JPEG; 1, 8 and 16 bit; grey, palette, colour,
    alpha (dropped). Pixels are turned as EXIF or TIFF notes it, and a TIFF whose zero is white is inverted.
    Masks: 0 and one other value, an instance map that numbers the objects 1, 2, ..., or a class map; indices of a colour
    palette are numbers, and a TIFF's stored numbers count whatever its polarity.

    image_size: pixels, one side or (height, width); images are stretched to it, antialiased. Or (depth, height, width) of
    volumes, in NIfTI or as TIFF of several pages. volumes: `"slices"` (default for two sides) makes an image of each slice
    along the depth, `"patches"` (default for three) cuts windows of the image size that cover a volume, and `"whole"` resamples
    it; slices and patches of a volume are a group, which groups may join. A TIFF of several pages is a volume only if
    this or image_size says so. channels: 1, 3, or None
    for 3 if any image has colour. masks: what their numbers mean: `"binary"`, `"instances"` (foreground, both of them) or
    `"classes"`; None for what the whole set looks like, with a warning unless it is binary. classes, ignore: of class maps, how
    many (default: the largest number plus one) and the value of pixels without a label; class maps are resized to the nearest
    pixel. groups: which images belong together, such as those of a patient: a pattern whose
    parentheses capture the group in the name of a file, such as `r"patient(\d+)"`, or a table .csv with the columns name and
    group. accept: kinds of problems that do not stop loading; a pair that cannot be used is then left out. progress: called
    with (images done, images in all).
    Images are uint8 if every file is 8 bit, else uint16 (8-bit values times 257).
    Warns of suspect but usable files. Raises: DataError for any problem that is not accepted; InvalidArgument.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, image in {"images": Image.new("L", (8, 8), 7), "masks": Image.linear_gradient("L").point(
    ...             lambda grey: 255 * (grey > 127)).resize((8, 8), 0)}.items():
    ...         Path(folder, name).mkdir()
    ...         image.save(Path(folder, name, "a.png"))
    ...     data = load(folder, image_size=4)
    >>> data.names, data.images.shape, data.foreground_share
    (('a',), (1, 1, 4, 4), 0.5)
    """
    cutting, accepted = Cutting.of(_image_size(image_size), volumes), known_kinds(accept)
    asked = asked_meaning(masks, classes, ignore)
    options = _options(image_size, volumes=volumes, masks=masks, classes=classes, ignore=ignore, accept=accept)
    if path is not None and (described := load_described(Path(path), cutting, asked)):
        guard(described[1], str(path), accepted, options=options)
        _warn_of([p for p in described[1] if p.severity == "warning" and p.kind not in accepted], Path(path), options)
        return grouped(described[0], groups)
    _check_channels(channels)
    if path is None:
        return grouped(synthetic_nuclei(image_size=cutting.size, channels=channels or 3), groups)
    data, problems, new_entry = _recall_or_read(
        Path(path), cutting, channels, asked, progress, follow_links="link" in accepted
    )
    guard(problems, str(path), accepted, options=options)
    _warn_of([p for p in problems if p.severity == "warning" and p.kind not in accepted], Path(path), options)
    if data is None:
        raise DataError(f"{printable(str(path))} has no image with a mask that can be used: {EXPECTED}")
    if new_entry:
        cache.remember(new_entry, data, problems)
    return grouped(data, groups)


def _options(image_size: int | ImageSize, *, accept: Collection[str], **named: object) -> str:
    """Words for `check-data` that read a set as `load` was told to.

    >>> _options((64, 48), accept=["full-mask"], masks="classes", classes=3, ignore=None)
    ' --image-size 64x48 --masks classes --classes 3 --accept full-mask'
    """
    size = "x".join(map(str, (image_size,) if isinstance(image_size, int) else image_size))
    given = [
        *([("image-size", size)] if image_size not in (SIDE, (SIDE, SIDE)) else []),
        *((name, value) for name, value in named.items() if value is not None),
        *(("accept", kind) for kind in accept),
    ]
    return "".join(f" --{name} {value}" for name, value in given)


def _warn_of(suspect: Sequence[Problem], path: Path, options: str) -> None:
    """Warn of the first of these problems, with the number of further ones."""
    if suspect:
        more = f"; and {len(suspect) - 1} more: run `{check_command(str(path), options)}`"
        warnings.warn(f"{suspect[0]}{more if len(suspect) > 1 else ''}", UserWarning, stacklevel=3)


def _recall_or_read(
    path: Path,
    cutting: Cutting,
    channels: int | None,
    asked: MaskMeaning,
    progress: StepCallback | None,
    *,
    follow_links: bool,
) -> tuple[SegmentationData | None, list[Problem], Path | None]:
    """The data and problems at a path, from the cache if possible; and the cache entry to write if they were read."""
    cached = cache.recall_archive(path, cutting, channels, asked) if path.is_file() else None
    if cached is None:
        with open_source(path, follow_links=follow_links) as source:
            entry = cache.entry_folder(source, cutting, channels, asked)
            cached = cache.recall(entry, printable(source.path.name)) if entry else None
            if cached is None:
                data, problems, _ = read(source, cutting, channels, asked, progress)
                return data, problems, entry
    data, problems = cached
    if progress:
        progress(len(data), len(data))
    return data, problems, None


def shared_images(train: SegmentationData, validation: SegmentationData) -> list[Problem]:
    """A "shared-image" problem for every validation image that has the pixels of a training image.

    Grey counts as three equal channels and 8 bit as 16 bit, as in `load`. An image of one value, as the background of volumes
    is, tells nothing and is not shared.
    Raises: InvalidArgument if the two parts have different image sizes.

    >>> train = SegmentationData(np.eye(2, dtype=np.uint8)[None, None], np.zeros((1, 2, 2), np.uint8), ("a",), "an eye")
    >>> [str(problem) for problem in shared_images(train, replace(train, names=("b",)))]
    ['b: its pixels are those of the training image a: keep it in one of the two parts, or --accept shared-image']
    """
    if train.image_size != validation.image_size:
        raise InvalidArgument(
            f"train and validation must have one image size to be compared, got {train.image_size} and "
            f"{validation.image_size}: load both at the same image_size"
        )
    train_names = {_pixel_hash(image): name for image, name in zip(train.images, train.names, strict=True)}
    return [
        problem("shared-image", name, f"its pixels are those of the training image {train_names[pixels]}")
        for image, name in zip(validation.images, validation.names, strict=True)
        if (pixels := _pixel_hash(image)) in train_names and image.min() < image.max()
    ]


def _pixel_hash(image: NDArray[np.unsignedinteger]) -> bytes:
    wide = image.astype(np.uint16) * np.uint16(257) if image.dtype == np.uint8 else image
    if len(wide) not in (1, 3):
        return hashlib.sha256(wide.tobytes()).digest()
    return hashlib.sha256(np.broadcast_to(wide, (3, *wide.shape[1:])).tobytes()).digest()


@dataclass(frozen=True)
class Checked:
    """What a data set holds. problems: errors and warnings, sorted by file. masks: what they were taken for.

    groups: how many images each has, none if all images are independent of each other.
    """

    problems: tuple[Problem, ...]
    masks: MaskMeaning
    groups: Mapping[str, int] = field(default_factory=dict)


def checked(
    path: str | os.PathLike[str],
    *,
    validation: str | os.PathLike[str] | None = None,
    image_size: int | ImageSize = 128,
    volumes: str | None = None,
    channels: int | None = None,
    groups: str | os.PathLike[str] | None = None,
    masks: str | None = None,
    classes: int | None = None,
    ignore: int | None = None,
    accept: Collection[str] = (),
    progress: StepCallback | None = None,
) -> Checked:
    """Every problem of a data set (and of its validation part), and what its masks were taken for.

    Arguments as in `load`; kinds in `accept` are left out. Problems of the validation part, whose masks are taken for the same,
    carry its name in front.
    Raises: DataError if a path is neither a folder nor a safe zip, or groups cannot be read; InvalidArgument.
    """
    cutting, accepted = Cutting.of(_image_size(image_size), volumes), known_kinds(accept)
    _check_channels(channels)
    asked = asked_meaning(masks, classes, ignore)
    train, problems, meaning = _read_part(path, cutting, channels, asked, progress, follow_links="link" in accepted)
    if validation is not None:
        name = Path(validation).name
        asked = replace(meaning, is_assumed=False)
        read_validation = _read_part(validation, cutting, channels, asked, progress, follow_links="link" in accepted)
        held_out, held_out_problems, _ = read_validation
        if train and held_out:
            held_out_problems += shared_images(train, held_out)
            parts = grouped(train, groups), grouped(held_out, groups, is_part=True)
            held_out_problems += [*(shared_groups(*parts) if groups else ()), *across_parts(*parts)]
        shown = printable(name)
        problems += [replace(p, file=shown if p.file == shown else f"{shown}/{p.file}") for p in held_out_problems]
    sizes: Counter[str] = Counter()
    if train:
        problems += near_duplicates(in_groups := grouped(train, groups))
        sizes.update(in_groups.groups)
    left = without_accepted(problems, accepted)
    is_asked = any(problem.kind == "ambiguous-masks" for problem in left)
    return Checked(tuple(left), MaskMeaning() if is_asked else meaning, dict(sizes))


def _read_part(
    path: str | os.PathLike[str],
    cutting: Cutting,
    channels: int | None,
    asked: MaskMeaning,
    progress: StepCallback | None,
    *,
    follow_links: bool,
) -> tuple[SegmentationData | None, list[Problem], MaskMeaning]:
    """The data, problems and meaning of the masks at a path."""
    if described := load_described(Path(path), cutting, asked):
        return described
    with open_source(path, follow_links=follow_links) as source:
        return read(source, cutting, channels, asked, progress)


def check(path: str | os.PathLike[str], **options: Any) -> list[Problem]:
    """Every problem of a data set (and of its validation part), errors and warnings, sorted by file.

    Arguments and Raises as of `checked`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [problem.kind for problem in check(folder)]
    ['no-images']
    """
    return list(checked(path, **options).problems)


def _image_size(image_size: int | ImageSize) -> ImageSize:
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    are_sides = isinstance(sides, tuple | list) and len(sides) in (2, 3) and all(type(side) is int for side in sides)
    if not are_sides or not all(1 <= side <= MAX_SIDE for side in sides):
        raise InvalidArgument(
            f"image_size must be one side or (height, width) in pixels, each 1 to {MAX_SIDE}, or (depth, height, width) of "
            f"volumes, got {image_size!r}"
        )
    return tuple(sides)


def _check_channels(channels: int | None) -> None:
    if channels not in (None, 1, 3):
        raise InvalidArgument(f"channels must be 1, 3 or None (3 if any image has colour), got {channels!r}")
