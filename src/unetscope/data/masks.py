"""What the numbers in mask files mean: foreground, numbered objects, or classes; asked for, or seen from the whole set.

One file cannot tell: 0, 1, 2 may be two objects or two classes. Over the whole set they differ: an object is one region, and
the largest number is how many there are; a class lies in several regions, and a file may lack some classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from unetscope.base import InvalidArgument
from unetscope.data.images import Pixels
from unetscope.data.mask_values import numbers_of_mask
from unetscope.data.pieces import shown
from unetscope.data.problems import Problem, Unusable, problem
from unetscope.data.segmentation import MOST_CLASSES, MOST_IMPLIED_CLASSES, STORED_IGNORE, stored_ignore

MaskKind = Literal["binary", "instances", "classes"]

LARGEST_VALUE = 65535  # of a mask file
TOPS = (255, LARGEST_VALUE)  # of the range of a byte or two: by habit what is ignored, or the foreground
SPLIT_FROM = 0.3  # of the numbers in files: if so many lie in several regions, they are no objects
FEWEST_FILES = 3  # with several numbers, whose largest number being the same says something
LARGEST_SIDE = 512  # pixels, in which regions are counted
MOST_COUNTED = 24  # of the numbers of a file, evenly spaced, whose regions are counted
FAINTEST = 128  # foreground of a JPEG, which may differ from what was compressed by some greys


@dataclass(frozen=True)
class MaskMeaning:
    """What the numbers in the masks of a set mean.

    kind: `"binary"`: 0 and one other value; `"instances"`: 0 and a number for each object; `"classes"`: a class a pixel. None:
    to be seen from the whole set. classes: how many, None for as many as the numbers say. ignore: the value in the files of
    pixels without a label. why: what it was decided by, empty if it was asked for. is_assumed: whether it could be otherwise,
    so that it is said.
    """

    kind: MaskKind | None = None
    classes: int | None = None
    ignore: int | None = None
    why: str = ""
    is_assumed: bool = False

    def __str__(self) -> str:
        if self.kind is None:
            return "what they hold is not known"
        if self.kind != "classes":
            what = (
                "binary masks: 0 and one other value" if self.kind == "binary" else "numbered objects, 0 between them"
            )
        else:
            ignored = "none ignored" if self.ignore is None else f"{self.ignore} ignored"
            of_classes = "" if self.classes is None else f" of {self.classes} classes, 0 to {self.classes - 1}"
            what = f"class maps{of_classes}, {ignored}"
        return f"{what} ({self.why or 'as asked for'})"

    def completed(self, masks: Sequence[NDArray[np.uint8]]) -> MaskMeaning:
        """The meaning with as many classes as the masks have, if how many was not asked for."""
        if self.classes is not None:
            return self
        stored = stored_ignore(self.ignore)
        largest = max(int(mask[mask != stored].max(initial=1)) for mask in masks)
        return replace(self, classes=largest + 1)


def asked_meaning(masks: str | None, classes: int | None, ignore: int | None) -> MaskMeaning:
    """The meaning that is asked for; with classes or a value to ignore, masks are class maps.

    Raises: InvalidArgument for values that do not go together.

    >>> asked_meaning(None, 11, 11).kind
    'classes'
    """
    kind: MaskKind | None = next((kind for kind in get_args(MaskKind) if kind == masks), None)
    if masks is not None and kind is None:
        raise InvalidArgument(f"masks must be one of {', '.join(get_args(MaskKind))}, got {masks!r}")
    if classes is not None and not 2 <= classes <= MOST_CLASSES:
        raise InvalidArgument(f"classes must be 2 to {MOST_CLASSES}, got {classes}")
    if ignore is not None and not 0 <= ignore <= LARGEST_VALUE:
        raise InvalidArgument(f"ignore must be 0 to {LARGEST_VALUE}, a value in the masks, got {ignore}")
    if classes is None and ignore is None:
        return MaskMeaning(kind)
    if kind not in (None, "classes"):
        raise InvalidArgument(
            f"masks={kind!r} have no classes and ignore nothing: leave out classes and ignore, or give classes"
        )
    if ignore is not None and ignore < (classes or 2):
        raise InvalidArgument(
            f"ignore must be a value of no class, {classes or 2} or more, got {ignore}: number the classes from 0 on and what "
            "is ignored above them"
        )
    return MaskMeaning("classes", classes, ignore)


def class_map(pixels: Pixels, file: str, meaning: MaskMeaning) -> NDArray[np.uint8]:
    """The class of every pixel of a decoded mask, and `stored_ignore` where the file holds the value to ignore.

    Raises: Unusable (colour-coded, jpeg-mask, class-values).

    >>> class_map(Pixels(np.array([[0, 2, 255]], np.uint8)), "a.png", MaskMeaning("classes", 3, 255)).tolist()
    [[0, 2, 255]]
    """
    values = numbers_of_mask(pixels, file)
    ignored = np.zeros(values.shape, dtype=bool) if meaning.ignore is None else values == meaning.ignore
    present = np.unique(values[~ignored])
    if meaning.ignore is None and meaning.classes is None and len(present) > 1 and present[-1] in TOPS:
        raise Unusable(
            "class-values", file, f"it holds {present[-1]}: if that is to be ignored, say --ignore {present[-1]}"
        )
    most = (meaning.classes or min(MOST_CLASSES, LARGEST_VALUE if meaning.ignore is None else meaning.ignore)) - 1
    if wrong := [value for value in present.tolist() if not (0 <= value <= most and value == int(value))]:
        shown = ", ".join(f"{value:g}" for value in wrong[:4]) + (", …" if len(wrong) > 4 else "")
        but = "" if meaning.ignore is None else f", and {meaning.ignore} to be ignored"
        raise Unusable("class-values", file, f"it holds {shown}, expected classes 0 to {most}{but}")
    stored = stored_ignore(meaning.ignore)
    return np.where(ignored, STORED_IGNORE if stored is None else stored, values).astype(np.uint8)


def foreground(
    pixels: Pixels, file: str, *, kind: MaskKind | None = None
) -> tuple[NDArray[np.bool_], tuple[Problem, ...]]:
    """The foreground [*sides] of a decoded mask, and the problems of its values.

    A mask is accepted, v being its set of values, if
    1. v has at most two values, one of them 0: the other is foreground (0/1, 0/255, True/False).
    2. v is whole numbers from 0 on: an instance map, 0 the background and every other number an object. In 8 bits the
       numbers must leave no gap, and in 8 and 16 bits the top of the range (255, 65535) must not be among them:
       antialiased or compressed outlines are many greys with gaps, or reach the top.
    Everything else is a problem. If the user accepts it, every value except 0 is foreground; in a JPEG and in soft outlines
    every value from half of the largest up, since small values are scattered around objects. Whether the mask is empty or full
    is not checked here: a file may hold one of many objects. kind: what masks are said to hold, None if nothing is. The second
    rule does not hold of binary masks; numbered objects may leave numbers out, but for what soft outlines look like.

    >>> mask, problems = foreground(Pixels(np.array([[0, 1], [2, 3]], np.uint8)), "masks/a.png")
    >>> mask.tolist(), problems
    ([[False, True], [True, True]], ())
    """
    values, problems = pixels.values, pixels.problems
    if pixels.is_colour:
        is_grey = bool((values == values[..., :1]).all())
        values = values.max(axis=-1)
        if not is_grey:
            problems = (*problems, problem("mask-colour", file, "the mask has colours, whose meaning is not known"))
            return values >= values.max() / 2 if pixels.lossy and values.any() else values != 0, problems
    low, top = values.min(), values.max()
    inside: NDArray[np.bool_] = values != 0
    is_of_two = low >= 0 and np.count_nonzero(inside) == np.count_nonzero((values == top) & inside)
    if is_of_two and not (pixels.lossy and 0 < top < FAINTEST):
        return inside, problems
    if pixels.lossy:
        count = len(np.unique(values))
        lossy = problem("jpeg-mask", file, f"JPEG compression left {count} grey values around 0 and {top}")
        return values >= top / 2, (*problems, lossy)
    may_have_gaps = kind == "instances" and not _has_soft_outlines(values)
    reason = _not_an_instance_map(values, may_have_gaps=may_have_gaps)
    if kind == "binary":
        reason = f"the mask has {len(np.unique(values))} values, and masks are to be binary: 0 and one other value"
    if not reason:
        return inside, problems
    if _has_soft_outlines(values):
        return values >= top / 2, (
            *problems,
            problem("mask-values", file, f"{reason}; the foreground is from {top / 2:g} on"),
        )
    return inside, (*problems, problem("mask-values", file, reason))


def _has_soft_outlines(values: NDArray[Any]) -> bool:
    """Whether values are greys or fractions between 0 and a foreground: the commonest but 0 is bright, and near the largest."""
    levels, counts = np.unique(values[values != 0], return_counts=True)
    if not len(levels) or not levels[0] > 0:
        return False
    brightest = np.iinfo(values.dtype).max if np.issubdtype(values.dtype, np.integer) else levels[-1]
    return bool(levels[-1] >= brightest / 2 and levels[counts.argmax()] >= 3 / 4 * levels[-1])


def _not_an_instance_map(values: NDArray[Any], *, may_have_gaps: bool) -> str:
    """Why these values do not number objects; empty if they may."""
    levels = np.unique(values)
    summary = f"{len(levels)} values between {levels[0]} and {levels[-1]}"
    is_whole = np.issubdtype(values.dtype, np.integer)
    if not is_whole and not (levels == np.rint(levels)).all():
        return f"the mask has {summary}, not whole numbers"
    if levels[0] < 0:
        return f"the mask has {summary}, and negative numbers mean nothing"
    n_bytes = values.dtype.itemsize if is_whole else 0
    has_gaps = n_bytes == 1 and levels[-1] != np.count_nonzero(levels) and not may_have_gaps
    if has_gaps or levels[-1] == {1: 255, 2: 65535}.get(n_bytes):
        return f"the mask has {summary}: greys of soft outlines, neither two values nor numbered objects"
    return ""


def empty_masks(empty: Sequence[str], count: int, source: str) -> list[Problem]:
    """How many masks of a set have no foreground, which is normal for some of them and an error for all. empty: their names."""
    if not empty:
        return []
    if len(empty) == count:
        return [problem("all-empty", source, f"no pixel of any of its {count} masks is foreground")]
    return [problem("empty-mask", source, f"{len(empty)} of {count} masks are empty, such as that of {empty[0]}")]


def assumed_masks(meaning: MaskMeaning, source: str) -> Problem:
    """What masks were taken for, where it could be otherwise."""
    return problem("assumed-masks", source, f"taken for {meaning}")


@dataclass(frozen=True)
class MaskNumbers:
    """The numbers that a mask file holds, as far as they tell objects from classes.

    counted, split: of how many numbers but 0 the regions were counted, and how many of these lie in several. is_beyond: whether
    the numbers go further than classes do, as those of many objects and the greys of soft outlines.
    """

    numbers: tuple[int, ...] = ()
    split: int = 0
    counted: int = 0
    is_beyond: bool = False

    @property
    def labels(self) -> tuple[int, ...]:
        """The numbers without what is the top of a byte or two."""
        return tuple(number for number in self.numbers if number not in TOPS)

    @property
    def has_several(self) -> bool:
        """Whether it holds more than 0 and one other value."""
        return len({0, *self.numbers}) > 2

    @property
    def is_black_and_white(self) -> bool:
        """Whether it holds the top of a byte or two, and beside it nothing but 0."""
        return len({0, *self.numbers}) == 2 and self.numbers[-1] in TOPS

    @property
    def has_gaps(self) -> bool:
        """Whether a number is left out below the largest."""
        return self.numbers[-1] != len({0, *self.numbers}) - 1


def mask_numbers(pixels: Pixels) -> MaskNumbers | None:
    """What the numbers of a decoded mask tell; None for colours, fractions, negative numbers and a JPEG.

    >>> mask_numbers(Pixels(np.array([[0, 1, 0, 1, 2]], np.uint8)))
    MaskNumbers(numbers=(0, 1, 2), split=1, counted=2, is_beyond=False)
    """
    values = pixels.values
    if pixels.is_colour:
        if not (values == values[..., :1]).all():
            return None
        values = values[..., 0]
    if pixels.lossy or not (values.min() >= 0 and values.max() <= np.iinfo(np.int64).max):
        return None
    whole = values.astype(np.int64)
    if not (whole == values).all():
        return None
    present = np.unique(whole) if values.dtype.itemsize > 1 else np.flatnonzero(np.bincount(whole.reshape(-1)))
    objects = present[(present > 0) & ~np.isin(present, TOPS)]
    is_beyond = bool((objects >= MOST_IMPLIED_CLASSES).any())
    if len({0, *present[-2:].tolist()}) < 3:
        return MaskNumbers(tuple(present.tolist()), is_beyond=is_beyond)
    spaced = objects[:: -(-len(objects) // MOST_COUNTED)] if len(objects) else objects
    split = sum(_in_several_regions(whole, spaced.tolist()))
    if is_beyond:  # the others tell nothing, and may be tens of thousands
        present = present[[0, -1]]
    return MaskNumbers(tuple(present.tolist()), split, len(spaced), is_beyond)


def _in_several_regions(values: NDArray[np.int64], numbers: Sequence[int]) -> Iterator[bool]:
    """Of each number whether it lies in several regions, at a side of at most `LARGEST_SIDE`."""
    from scipy import ndimage

    near = values[tuple(slice(None, None, -(-side // LARGEST_SIDE)) for side in values.shape)]
    touching = np.ones((3,) * near.ndim)  # diagonal neighbours are of one region
    places, of_each = np.unique(near, return_inverse=True)  # find_objects wants small numbers
    boxes = ndimage.find_objects(of_each.reshape(near.shape) + 1)
    for number in numbers:
        place = int(np.searchsorted(places, number))
        if place < len(places) and places[place] == number and (box := boxes[place]) is not None:
            yield bool(ndimage.label(near[box] == number, touching)[1] > 1)


def seen_meaning(files: Sequence[MaskNumbers]) -> MaskMeaning | str:
    """What the numbers of a whole set mean; a sentence if that cannot be told.

    >>> seen_meaning([MaskNumbers((0, 255)), MaskNumbers((0,))]).kind
    'binary'
    >>> print(seen_meaning([MaskNumbers((0, 1, 2, 5), split=3, counted=3), MaskNumbers((0, 2, 255), split=1, counted=1)]))
    class maps of 6 classes, 0 to 5, 255 ignored (numbers but 0 lie in several regions in 100% of cases, as objects do not)
    """
    if any(file.is_beyond for file in files):
        return _of_many(files)
    several = [file for file in files if file.has_several]
    return _of_several(files, several) if several else _of_single_values(files)


def _split_share(files: Sequence[MaskNumbers]) -> float:
    return sum(file.split for file in files) / max(1, sum(file.counted for file in files))


def _of_many(files: Sequence[MaskNumbers]) -> MaskMeaning | str:
    """The meaning of files in which numbers go further than classes do, unless they are those of many classes.

    Greys of soft outlines lie in several regions too; they reach the top of a byte or two.
    """
    largest = max(file.numbers[-1] for file in files if file.numbers)
    if (share := _split_share(files)) > SPLIT_FROM and largest not in TOPS:
        return f"numbers go up to {largest}, and lie in several regions in {share:.0%} of cases, as objects do not"
    return MaskMeaning("instances", why=f"numbers go beyond {MOST_IMPLIED_CLASSES - 1}, further than classes do")


def _of_single_values(files: Sequence[MaskNumbers]) -> MaskMeaning | str:
    """The meaning of files with 0 and one other value each."""
    singles = sorted({number for file in files for number in file.labels if number > 0})
    if len(singles) > 1:
        return f"every file holds 0 and one other value, which is {listed(singles)} in different files"
    return MaskMeaning(
        "binary", why="no file holds more than 0 and one other value" if files else "no file holds numbers"
    )


def _of_several(files: Sequence[MaskNumbers], several: Sequence[MaskNumbers]) -> MaskMeaning | str:
    """The meaning of a set in which some files hold several numbers."""
    labels = sorted({0, *(number for file in files for number in file.labels)})
    tops = sorted({number for file in files for number in file.numbers if number in TOPS})
    share = _split_share(several)
    if (plain := sum(file.is_black_and_white for file in files)) * 2 > len(files):
        return f"{plain} of {len(files)} files hold 0 and {tops[-1]}, as binary masks do, and others further numbers"
    if share > SPLIT_FROM and len(labels) * 2 > labels[-1] and tops in ([], [255]):
        why = f"numbers but 0 lie in several regions in {share:.0%} of cases, as objects do not"
        return MaskMeaning("classes", max(2, labels[-1] + 1), tops[0] if tops else None, why, is_assumed=True)
    if gaps := sum(file.has_gaps for file in several):
        return f"{gaps} of {len(files)} files leave out some of the numbers 0 to {labels[-1]}"
    if len({file.numbers[-1] for file in several}) == 1 and len(several) >= FEWEST_FILES:
        least = min(file.numbers[0] for file in several)
        return f"every file with several numbers holds {least} to {labels[-1]}"
    one_region = f"{1 - share:.0%} of the numbers but 0 are one region each"
    return MaskMeaning("instances", why=f"no file leaves out a number, and {one_region}", is_assumed=True)


def listed(numbers: Sequence[int]) -> str:
    """Some of the numbers, with commas."""
    return ", ".join(map(str, numbers[:4])) + (", …" if len(numbers) > 4 else "")


def set_problems(
    names: Sequence[str], masks: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], meaning: MaskMeaning, source: str
) -> list[Problem]:
    """What is wrong with class maps as a set: nothing to tell apart, images without a label, classes without a pixel.

    masks: at the size that is used.
    """
    stored = stored_ignore(meaning.ignore)
    counts = [np.bincount(mask.reshape(-1), minlength=STORED_IGNORE + 1) for mask in masks]
    labelled = np.stack(counts)[:, : meaning.classes]
    present = labelled.sum(axis=0) > 0
    if present.sum() < 2:
        what = f"its labelled pixels are all of class {present.argmax()}" if present.any() else "no pixel has a label"
        return [problem("one-class", source, what)]
    problems = []
    if len(empty := np.flatnonzero(labelled.sum(axis=1) == 0)):
        what = (
            f"{len(empty)} of {len(names)} masks hold nothing but {stored} to ignore, such as that of {names[empty[0]]}"
        )
        problems.append(problem("unlabelled", source, what))
    if len(absent := np.flatnonzero(~present)):
        what = f"no pixel has class {listed(absent.tolist())} of 0 to {len(present) - 1}"
        problems.append(problem("absent-class", source, what))
    return problems


def lost_classes(
    before: Sequence[tuple[int, ...]], masks: Sequence[NDArray[np.uint8]], meaning: MaskMeaning, source: str
) -> list[Problem]:
    """Classes that masks lose where they are made smaller. before: those of each mask at its own size."""
    lost: dict[int, int] = {}
    for classes, mask in zip(before, masks, strict=True):
        for label in set(classes) - set(np.unique(mask).tolist()) - {stored_ignore(meaning.ignore)}:
            lost[label] = lost.get(label, 0) + 1
    if not lost:
        return []
    label, files = max(lost.items(), key=lambda item: item[1])
    often = f"most often class {label} (in {files} of {len(masks)} masks)"
    what = f"at {shown(masks[0].shape[::-1])} pixels masks lose classes that they have, {often}"
    return [problem("vanished-mask", source, what)]
