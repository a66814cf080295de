"""Load a folder or zip of images and masks: list, decode, check, resize."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetscope.base import DataError, InvalidArgument, StepCallback
from unetscope.data import cache
from unetscope.data.grouping import grouped, shared_groups
from unetscope.data.images import ImageSize, decode, foreground, resize_image, resize_mask, to_image
from unetscope.data.pairs import Pair, find_pairs
from unetscope.data.problems import Problem, Unusable, guard, known_kinds, printable, problem
from unetscope.data.segmentation import GREY_WEIGHTS, SegmentationData
from unetscope.data.sources import EXPECTED, Source, open_source
from unetscope.data.synthetic import synthetic_nuclei

MAX_SIDE = 8192


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    image_size: int | ImageSize = 128,
    channels: int | None = None,
    groups: str | os.PathLike[str] | None = None,
    accept: Collection[str] = (),
    progress: StepCallback | None = None,
) -> SegmentationData:
    r"""The images and masks of a folder or zip, checked, decoded and resized. The result is cached on disk.

    Without a path, the 200 synthetic nuclei images of seed 0 (`synthetic_nuclei`).
    Layouts: images/ and masks/ matched by file stem, or <id>/images/<id>.png with <id>/masks/*.png (one object a
    file); either may lie in a folder of its own. Formats: PNG, TIFF, JPEG; 1, 8 and 16 bit; grey, palette, colour,
    alpha (dropped). Pixels are
    turned as EXIF or TIFF notes it, and a TIFF whose zero is white is inverted.
    Masks: 0 and one other value, or an instance map that numbers the objects 1, 2, ...; indices of a colour palette
    are numbers of objects, and a TIFF's stored numbers count whatever its polarity.

    image_size: pixels, one side or (height, width); images are stretched to it, antialiased. channels: 1, 3, or None
    for 3 if any image has colour. groups: which images belong together, such as those of a patient: a pattern whose
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
    size, accepted = _image_size(image_size), known_kinds(accept)
    _check_channels(channels)
    if path is None:
        return grouped(synthetic_nuclei(image_size=size, channels=channels or 3), groups)
    data, problems, new_entry = _recall_or_read(Path(path), size, channels, progress, follow_links="link" in accepted)
    guard(problems, str(path), accepted)
    if suspect := [p for p in problems if p.severity == "warning" and p.kind not in accepted]:
        more = f"; and {len(suspect) - 1} more: run `unetscope check-data {printable(str(path))}`"
        warnings.warn(f"{suspect[0]}{more if len(suspect) > 1 else ''}", UserWarning, stacklevel=2)
    if data is None:
        raise DataError(f"{printable(str(path))} has no image with a mask that can be used: {EXPECTED}")
    if new_entry:
        cache.remember(new_entry, data, problems)
    return grouped(data, groups)


def _recall_or_read(
    path: Path, size: ImageSize, channels: int | None, progress: StepCallback | None, *, follow_links: bool
) -> tuple[SegmentationData | None, list[Problem], Path | None]:
    """The data and problems at a path, from the cache if possible; and the cache entry to write if they were read."""
    cached = cache.recall_archive(path, size, channels) if path.is_file() else None
    if cached is None:
        with open_source(path, follow_links=follow_links) as source:
            entry = cache.entry_folder(source, size, channels)
            cached = cache.recall(entry, printable(source.path.name)) if entry else None
            if cached is None:
                return *read(source, size, channels, progress), entry
    data, problems = cached
    if progress:
        progress(len(data), len(data))
    return data, problems, None


def read(
    source: Source, size: ImageSize, channels: int | None, progress: StepCallback | None = None
) -> tuple[SegmentationData | None, list[Problem]]:
    """Every pair that can be used, and every problem, sorted by file."""
    pairs, problems = find_pairs(source)
    examples: list[_Example] = []
    done = 0
    # Pillow and zlib release the interpreter lock while they decode, so threads use all cores.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for example, problems_of_pair in pool.map(lambda pair: _read_pair(source, pair, size), pairs):
            problems.extend(problems_of_pair)
            if example:
                examples.append(example)
            done += 1
            if progress:
                progress(done, len(pairs))
    problems += _empty_masks(examples, source)
    problems.sort(key=lambda problem: (problem.file, problem.kind))
    data = _stack(examples, channels, printable(source.path.name)) if examples else None
    return data, problems


def _empty_masks(examples: Sequence[_Example], source: Source) -> list[Problem]:
    """How many masks have no foreground, which is normal for some of them and an error for all."""
    empty = [example.name for example in examples if example.is_empty]
    if not empty:
        return []
    name = printable(source.path.name)
    if len(empty) == len(examples):
        return [problem("all-empty", name, f"no pixel of any of its {len(empty)} masks is foreground")]
    return [problem("empty-mask", name, f"{len(empty)} of {len(examples)} masks are empty, such as that of {empty[0]}")]


@dataclass(frozen=True)
class _Example:
    """One decoded pair at the final size; image: [height, width] or [height, width, 3], uint8 or uint16.

    is_empty: whether the mask had no foreground at its own size.
    """

    name: str
    image: NDArray[np.unsignedinteger]
    mask: NDArray[np.uint8]
    is_empty: bool


def _read_pair(source: Source, pair: Pair, size: ImageSize) -> tuple[_Example | None, list[Problem]]:
    """One pair at the final size, or None if it cannot be used; and all its problems."""
    problems: list[Problem] = []
    image: NDArray[Any] | None = None
    orientation: int | None = None
    try:
        pixels = decode(source.read(pair.image), pair.image)
        image, image_problems = to_image(pixels, pair.image)
        orientation = pixels.orientation
        problems.extend(image_problems)
    except Unusable as unusable:
        problems.append(unusable.problem)
    mask, mask_problems = _read_masks(source, pair, None if image is None else image.shape[:2], orientation)
    problems.extend(mask_problems)
    if image is None or mask is None:
        return None, problems
    small = resize_mask(mask, size)
    if mask.any() and not small.any():
        what = f"the foreground of {int(mask.sum())} pixels is lost at {size[0]}x{size[1]}"
        problems.append(problem("vanished-mask", pair.masks[0], what))
    return _Example(pair.name, resize_image(image, size), small, not mask.any()), problems


def _read_masks(
    source: Source, pair: Pair, size: tuple[int, ...] | None, orientation: int | None
) -> tuple[NDArray[np.bool_] | None, list[Problem]]:
    """The union of the mask files at full size, or None if one of them cannot be used; and their problems."""
    problems: list[Problem] = []
    union: NDArray[np.bool_] | None = None
    usable = True
    for file in pair.masks:
        try:
            pixels = decode(source.read(file), file, indexed=True)
            inside, file_problems = foreground(pixels, file)
        except Unusable as unusable:
            problems.append(unusable.problem)
            usable = False
            continue
        problems.extend(file_problems)
        if orientation not in (None, pixels.orientation):
            what = f"it notes orientation {pixels.orientation}, its image {printable(pair.image)} {orientation}"
            problems.append(problem("orientation", file, f"{what}: which way the mask was drawn is not known"))
        size = size or inside.shape
        if inside.shape != size:
            (h, w), (height, width) = inside.shape, size
            what = f"the mask is {w}x{h}, its image {printable(pair.image)} {width}x{height} pixels"
            problems.append(problem("size-mismatch", file, what))
            usable = False
        elif union is None:
            union = inside
        else:
            union |= inside
    if not usable or union is None:
        return None, problems
    if union.all():
        whole = pair.masks[0] if len(pair.masks) == 1 else pair.masks[0].rpartition("/")[0]
        problems.append(problem("full-mask", whole, "every pixel is foreground"))
    return union, problems


def _stack(examples: list[_Example], channels: int | None, source: str) -> SegmentationData:
    """The examples as one data set, of one bit depth and one number of channels."""
    if channels is None:
        channels = 3 if any(example.image.ndim == 3 for example in examples) else 1
    depth = np.result_type(*{example.image.dtype for example in examples})
    height, width = examples[0].mask.shape
    images = np.empty((len(examples), channels, height, width), depth)
    for row, example in zip(images, examples, strict=True):
        image = example.image if example.image.dtype == depth else example.image * depth.type(257)
        if image.ndim == 3 and channels == 1:
            image = np.rint(image @ np.array(GREY_WEIGHTS)).astype(depth)
        row[:] = np.moveaxis(image, -1, 0) if image.ndim == 3 else image
    masks = np.stack([example.mask for example in examples])
    return SegmentationData(images, masks, tuple(example.name for example in examples), source)


def shared_images(train: SegmentationData, validation: SegmentationData) -> list[Problem]:
    """A "shared-image" problem for every validation image that has the pixels of a training image.

    Grey counts as three equal channels and 8 bit as 16 bit, as in `load`.
    Raises: InvalidArgument if the two parts have different image sizes.

    >>> train = SegmentationData(np.zeros((1, 1, 2, 2), np.uint8), np.zeros((1, 2, 2), np.uint8), ("a",), "zeros")
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
        if (pixels := _pixel_hash(image)) in train_names
    ]


def _pixel_hash(image: NDArray[np.unsignedinteger]) -> bytes:
    wide = image if image.dtype == np.uint16 else image.astype(np.uint16) * np.uint16(257)
    return hashlib.sha256(np.broadcast_to(wide, (3, *wide.shape[1:])).tobytes()).digest()


def check(
    path: str | os.PathLike[str],
    *,
    validation: str | os.PathLike[str] | None = None,
    image_size: int | ImageSize = 128,
    channels: int | None = None,
    groups: str | os.PathLike[str] | None = None,
    accept: Collection[str] = (),
    progress: StepCallback | None = None,
) -> list[Problem]:
    """Every problem of a data set (and of its validation part), errors and warnings, sorted by file.

    Arguments as in `load`; kinds in `accept` are left out. Problems of the validation part carry its name in front.
    Raises: DataError if a path is neither a folder nor a safe zip, or groups cannot be read; InvalidArgument.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [problem.kind for problem in check(folder)]
    ['no-images']
    """
    size, accepted = _image_size(image_size), known_kinds(accept)
    _check_channels(channels)
    with open_source(path, follow_links="link" in accepted) as source:
        train, problems = read(source, size, channels, progress)
    if validation is not None:
        name = Path(validation).name
        with open_source(validation, follow_links="link" in accepted) as source:
            held_out, held_out_problems = read(source, size, channels, progress)
        if train and held_out:
            held_out_problems += shared_images(train, held_out)
            parts = grouped(train, groups), grouped(held_out, groups, is_part=True)
            held_out_problems += shared_groups(*parts)
        problems += [replace(p, file=f"{printable(name)}/{p.file}") for p in held_out_problems]
    elif train:
        grouped(train, groups)
    return [p for p in problems if p.kind not in accepted]


def _image_size(image_size: int | ImageSize) -> ImageSize:
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    is_pair = isinstance(sides, tuple | list) and len(sides) == 2 and all(type(side) is int for side in sides)
    if not is_pair or not all(1 <= side <= MAX_SIDE for side in sides):
        raise InvalidArgument(
            f"image_size must be one side or (height, width) in pixels, each 1 to {MAX_SIDE}, got {image_size!r}"
        )
    return sides[0], sides[1]


def _check_channels(channels: int | None) -> None:
    if channels not in (None, 1, 3):
        raise InvalidArgument(f"channels must be 1, 3 or None (3 if any image has colour), got {channels!r}")
