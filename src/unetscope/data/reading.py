"""Read the pairs of a source: decode, check, cut volumes, resize, and stack them as one data set."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetscope.base import StepCallback, printable
from unetscope.data.decoding import decoders_notes, pair_of_files
from unetscope.data.images import Pixels, decode, to_image
from unetscope.data.masks import (
    MaskMeaning,
    MaskNumbers,
    assumed_masks,
    class_map,
    empty_masks,
    foreground,
    lost_classes,
    mask_numbers,
    seen_meaning,
    set_problems,
)
from unetscope.data.pairs import Pair, find_pairs
from unetscope.data.pieces import Cutting, Piece, cutting_problems, groups_of_pieces, shown
from unetscope.data.problems import Problem, Unusable, problem
from unetscope.data.resizing import resize_classes, resize_image, resize_mask
from unetscope.data.segmentation import GREY_WEIGHTS, SegmentationData, stored_ignore
from unetscope.data.sources import Source

UNREADABLE = {"unreadable", "not-an-image"}


def read(
    source: Source,
    cutting: Cutting,
    channels: int | None,
    asked: MaskMeaning,
    progress: StepCallback | None = None,
) -> tuple[SegmentationData | None, list[Problem], MaskMeaning]:
    """Every pair that can be used, every problem, sorted by file, and what the masks were taken for."""
    pairs, problems = find_pairs(source)
    examples, of_pairs = _read_pairs(source, pairs, cutting, asked, progress)
    meaning: MaskMeaning | str = asked
    if asked.kind is None and examples:
        meaning = _seen_meaning(pairs, examples)
        if isinstance(meaning, MaskMeaning) and meaning.kind == "classes":  # read again, now as what they are
            examples, of_pairs = _read_pairs(source, pairs, cutting, meaning, progress)
    name = printable(source.path.name)
    problems += of_pairs
    if isinstance(meaning, str):
        problems.append(problem("ambiguous-masks", name, f"binary, instances or classes? {meaning}"))
        meaning = MaskMeaning("instances", why="accepted as numbered objects")
    elif meaning.is_assumed and asked.kind is None:
        problems.append(assumed_masks(meaning, name))
    if meaning.kind != "classes":
        problems += empty_masks([example.name for example in examples if example.is_empty], len(examples), name)
    elif examples:
        meaning = meaning.completed([example.mask for example in examples])
        problems += _class_problems(examples, meaning, name)
    problems.sort(key=lambda problem: (problem.file, problem.kind))
    data = _stack(examples, channels, name, meaning) if examples else None
    return data, problems, meaning


def _read_pairs(
    source: Source, pairs: Sequence[Pair], cutting: Cutting, meaning: MaskMeaning, progress: StepCallback | None
) -> tuple[list[_Example], list[Problem]]:
    """The images of every pair that can be used, and the problems of all."""
    examples: list[_Example] = []
    problems: list[Problem] = []
    of_volumes: list[tuple[str, tuple[int, ...]]] = []
    # Pillow and zlib release the interpreter lock while they decode, so threads use all cores.
    with decoders_notes() as notes, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        read_one = pool.map(lambda pair: _read_pair(source, pair, cutting, meaning, is_alone=len(pairs) == 1), pairs)
        for done, (pair, (examples_of_pair, sides, problems_of_pair)) in enumerate(
            zip(pairs, read_one, strict=True), 1
        ):
            problems.extend(problems_of_pair)
            examples.extend(examples_of_pair)
            of_volumes.append((pair.name, sides))
            if progress:
                progress(done, len(pairs))
    problems += cutting_problems(cutting, of_volumes, printable(source.path.name))
    if notes and not any(each.kind in UNREADABLE for each in problems):  # which say the same of the file itself
        more = f", and {len(notes) - 1} times more" if len(notes) > 1 else ""
        noted = f"a decoder notes: {' '.join(notes[0].split())[:100]}{more}"
        problems.append(problem("decoder-notes", printable(source.path.name), noted))
    return examples, problems


def _seen_meaning(pairs: Sequence[Pair], examples: Sequence[_Example]) -> MaskMeaning | str:
    """What the masks mean as a set, or why that cannot be told."""
    if any(len(pair.masks) > 1 for pair in pairs):
        return MaskMeaning("instances", why="an image has several mask files, one for each object")
    return seen_meaning([example.numbers for example in examples if example.numbers is not None])


def _class_problems(examples: Sequence[_Example], meaning: MaskMeaning, name: str) -> list[Problem]:
    """What is wrong with class maps as a set."""
    masks = [example.mask for example in examples]
    return [
        *set_problems([example.name for example in examples], masks, meaning, name),
        *lost_classes([example.classes for example in examples], masks, meaning, name),
    ]


@dataclass(frozen=True)
class _Example:
    """One image at the final size: that of a pair, or a piece of a volume; image: [*sides] or [*sides, 3], uint8 or uint16.

    group: names the volume that it is a piece of. is_empty: whether the mask had no foreground at its own size. classes: of a
    class map, those at its own size. numbers: what those in the file tell, where they are looked at.
    """

    name: str
    group: str
    image: NDArray[np.unsignedinteger]
    mask: NDArray[np.uint8]
    is_empty: bool = False
    classes: tuple[int, ...] = ()
    numbers: MaskNumbers | None = None


def _read_pair(
    source: Source, pair: Pair, cutting: Cutting, meaning: MaskMeaning, *, is_alone: bool
) -> tuple[list[_Example], tuple[int, ...], list[Problem]]:
    """The images of a pair at the final size, none if it cannot be used; its sides in its files; and all its problems."""
    problems: list[Problem] = []
    image: NDArray[Any] | None = None
    orientation: int | None = None
    sides: tuple[int, ...] = ()
    with pair_of_files():
        try:
            pixels = decode(source.read(pair.image), pair.image, are_slices=cutting.takes_pages)
            sides = pixels.values.shape[: pixels.sides]
            cutting.check(sides, pair.image)
            image, image_problems = to_image(pixels, pair.image)
            orientation = pixels.orientation
            problems.extend(image_problems)
        except Unusable as unusable:
            problems.append(unusable.problem)
        masks = _Masks(source, pair, meaning, cutting, None if image is None else sides, orientation)
        by_kind = _class_examples if meaning.kind == "classes" else _union_examples
        pieces = [] if image is None else cutting.pieces(sides, is_alone=is_alone)
        examples = by_kind(image, masks, pieces)
    return examples, sides, [*problems, *masks.problems]


def _class_examples(image: NDArray[Any] | None, masks: _Masks, pieces: Sequence[Piece]) -> list[_Example]:
    """The examples of a class map, none if it cannot be used."""
    classes = masks.class_map()
    if image is None or classes is None:
        return []
    size, name = masks.cutting.size, masks.pair.name
    examples = []
    for piece in pieces:
        part = classes[piece.window]
        present = tuple(np.flatnonzero(np.bincount(part.reshape(-1))).tolist())
        small, mask = resize_image(image[piece.window], size), resize_classes(part, size)
        examples.append(_Example(name + piece.name, name + piece.group, small, mask, classes=present))
    return examples


def _union_examples(image: NDArray[Any] | None, masks: _Masks, pieces: Sequence[Piece]) -> list[_Example]:
    """The examples of a foreground, none if it cannot be used."""
    mask = masks.union()
    if image is None or mask is None:
        return []
    size, name, lost = masks.cutting.size, masks.pair.name, 0
    examples: list[_Example] = []
    for piece in pieces:
        part = mask[piece.window]
        small = resize_mask(part, size)
        lost += int(part.sum()) if not small.any() else 0
        numbers = None if examples else masks.numbers  # once a file
        resized = resize_image(image[piece.window], size)
        examples.append(
            _Example(name + piece.name, name + piece.group, resized, small, not part.any(), numbers=numbers)
        )
    if lost:
        what = f"the foreground of {lost} pixels is lost at {shown(size)}"
        files = masks.pair.masks
        of_all = files[0] if len(files) == 1 else f"the {len(files)} masks in {PurePosixPath(files[0]).parent}"
        masks.problems.append(problem("vanished-mask", of_all, what))
    return examples


class _Masks:
    """The mask files of a pair at full size, with their problems; numbers: of a single file, if its meaning is to be seen."""

    def __init__(
        self,
        source: Source,
        pair: Pair,
        meaning: MaskMeaning,
        cutting: Cutting,
        size: tuple[int, ...] | None,
        orientation: int | None,
    ) -> None:
        self._source, self.pair, self._meaning, self.cutting = source, pair, meaning, cutting
        self._size, self._orientation = size, orientation
        self.problems: list[Problem] = []
        self.numbers: MaskNumbers | None = None

    def union(self) -> NDArray[np.bool_] | None:
        """The foreground of all files together, or None if one of them cannot be used."""
        union: NDArray[np.bool_] | None = None
        usable = True
        for file in self.pair.masks:
            inside = self._read(file, self._foreground)
            if inside is None:
                usable = False
            elif union is None:
                union = inside
            else:
                union |= inside
        if not usable or union is None:
            return None
        if union.all():
            masks = self.pair.masks
            whole = masks[0] if len(masks) == 1 else masks[0].rpartition("/")[0]
            self.problems.append(problem("full-mask", whole, "every pixel is foreground"))
        return union

    def class_map(self) -> NDArray[np.uint8] | None:
        """The class of every pixel, or None if that cannot be known."""
        if len(self.pair.masks) > 1:
            what = f"{len(self.pair.masks)} mask files belong to {printable(self.pair.image)}, a class map is one file"
            self.problems.append(problem("several-masks", self.pair.masks[0], what))
            return None
        return self._read(self.pair.masks[0], self._classes)

    def _read(self, file: str, values_of: Callable[[str], tuple[Pixels, NDArray[Any]]]) -> NDArray[Any] | None:
        """The values of one file, or None if it cannot be used or does not lie on its image."""
        try:
            pixels, values = values_of(file)
        except Unusable as unusable:
            self.problems.append(unusable.problem)
            return None
        image = printable(self.pair.image)
        if self._orientation not in (None, pixels.orientation):
            what = f"it notes orientation {pixels.orientation}, its image {image} {self._orientation}"
            self.problems.append(problem("orientation", file, f"{what}: which way the mask was drawn is not known"))
        self._size = self._size or values.shape
        if values.shape != self._size:
            what = f"the mask is {shown(values.shape[::-1])}, its image {image} {shown(self._size[::-1])} pixels"
            self.problems.append(problem("size-mismatch", file, what))
            return None
        return values

    def _foreground(self, file: str) -> tuple[Pixels, NDArray[Any]]:
        pixels = decode(self._source.read(file), file, indexed=True, are_slices=self.cutting.takes_pages)
        inside, problems = foreground(pixels, file, kind=self._meaning.kind)
        self.problems.extend(problems)
        if self._meaning.kind is None and len(self.pair.masks) == 1:
            self.numbers = mask_numbers(pixels)
        return pixels, inside

    def _classes(self, file: str) -> tuple[Pixels, NDArray[Any]]:
        pixels = decode(self._source.read(file), file, indexed="exactly", are_slices=self.cutting.takes_pages)
        self.problems.extend(pixels.problems)
        return pixels, class_map(pixels, file, self._meaning)


def _stack(examples: list[_Example], channels: int | None, source: str, meaning: MaskMeaning) -> SegmentationData:
    """The examples as one data set, of one bit depth and one number of channels."""
    if channels is None:
        channels = 3 if any(example.image.ndim > example.mask.ndim for example in examples) else 1
    depth = np.result_type(*{example.image.dtype for example in examples})
    images = np.empty((len(examples), channels, *examples[0].mask.shape), depth)
    for row, example in zip(images, examples, strict=True):
        image = example.image if example.image.dtype == depth else example.image * depth.type(257)
        if image.ndim > example.mask.ndim and channels == 1:
            image = np.rint(image @ np.array(GREY_WEIGHTS)).astype(depth)
        row[:] = np.moveaxis(image, -1, 0) if image.ndim > example.mask.ndim else image
    masks = np.stack([example.mask for example in examples])
    names = tuple(example.name for example in examples)
    groups = groups_of_pieces([example.group for example in examples])
    return SegmentationData(images, masks, names, source, meaning.classes or 2, groups, stored_ignore(meaning.ignore))
