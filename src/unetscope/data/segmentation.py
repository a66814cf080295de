"""Images with their masks, decoded, at one resolution; also from any PyTorch dataset.

Pixels stay integers of 8 or 16 bits, so that a data set needs a quarter or half of its float32 size; `SegmentationData.scale`
brings them to [0, 1]. Images that are float32 reach the network unchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetscope.base import DataError, InvalidArgument, preserve_rng, printable
from unetscope.data.arrays import any_array, array_of, chosen_of, first_not_finite, plain_array, stored_pixels
from unetscope.data.splits import rows_held_out

GREY_WEIGHTS = 0.299, 0.587, 0.114  # of red, green and blue (ITU-R BT.601)
LARGEST_BYTES = 16 * 2**30  # of all images, which stay in memory because they are measured at every marked epoch
MOST_CHANNELS = 4  # of a one-hot mask; a volume has more slices
MOST_IMPLIED_CLASSES = 64  # with more, masks whose values have gaps are probably no class numbers
MOST_CLASSES = 255
STORED_IGNORE = 255  # in place of a value that one byte does not hold, such as -100 or 65535


@dataclass(frozen=True, eq=False)
class SegmentationData:
    """n images, volumes or signals, their masks and their names, all at one resolution.

    images: [n, channels, height, width], with a depth before the height, or [n, channels, length], uint8, uint16 or float32.
    masks: [n, height, width] likewise, uint8, 0 … classes − 1, or `ignore` where a pixel has no label. names: one unique name
    an image. source: their origin, for display. classes: 2 for binary masks, of which class 1 is the foreground. groups: of
    each image the patient, section or film that it comes from, none if all images are independent of each other. ignore: a
    value above the classes whose pixels count nowhere: not in a loss, a Dice, a probe or an entropy.
    Arrays of another byte order are turned to the machine's.
    Raises: InvalidArgument if shapes, types or values differ from that, or a name is not unique.

    >>> import numpy as np
    >>> data = SegmentationData(np.zeros((4, 1, 8, 8), np.uint8), np.ones((4, 8, 8), np.uint8), tuple("abcd"), "zeros")
    >>> len(data), data.channels, data.image_size, data.foreground_share
    (4, 1, (8, 8), 1.0)
    """

    images: NDArray[np.unsignedinteger] | NDArray[np.float32]
    masks: NDArray[np.uint8]
    names: tuple[str, ...]
    source: str
    classes: int = 2
    groups: tuple[str, ...] = ()
    ignore: int | None = None

    def __post_init__(self) -> None:
        for part in ("images", "masks"):
            object.__setattr__(self, part, plain_array(getattr(self, part), part))
        n, _, *size = self.images.shape if self.images.ndim > 2 else (0, 0)
        if len(size) not in (1, 2, 3) or self.masks.shape != (n, *size) or len(self.names) != n:
            raise InvalidArgument(
                f"images {self.images.shape}, masks {self.masks.shape} and {len(self.names)} names do not belong together: "
                "expected [n, channels, *sides], [n, *sides] of one to three sides, and n names"
            )
        if self.images.dtype not in (np.uint8, np.uint16, np.float32):
            raise InvalidArgument(f"images must be uint8, uint16 or float32, got {self.images.dtype}")
        if (row := first_not_finite(self.images)) is not None:
            raise InvalidArgument(f"images must be finite numbers, got a NaN or an infinity in {self.names[row]}")
        if not 2 <= self.classes <= MOST_CLASSES:
            raise InvalidArgument(f"classes must be 2 to {MOST_CLASSES}, got {self.classes}")
        if self.ignore is not None and not self.classes <= self.ignore <= STORED_IGNORE:
            raise InvalidArgument(
                f"ignore must be a value of no class, {self.classes} to {STORED_IGNORE}, got {self.ignore}: number the classes "
                "from 0 on and what is ignored above them"
            )
        if self.masks.dtype != np.uint8 or self.labels.max(initial=0) >= self.classes:
            values = "0 and 1" if self.classes == 2 else f"0 to {self.classes - 1}"
            ignored = "" if self.ignore is None else f", or {self.ignore} to be ignored"
            raise InvalidArgument(
                f"masks must be uint8 with values {values}{ignored}, got {self.masks.dtype} up to {self.labels.max()}"
            )
        if len(set(self.names)) != n:
            raise InvalidArgument("names must be unique, one an image")
        if self.groups and len(self.groups) != n:
            raise InvalidArgument(f"{len(self.groups)} groups for {n} images: expected one an image, or none")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        sides = "x".join(map(str, self.image_size))
        classes = "" if self.classes == 2 else f", {self.classes} classes"
        classes += "" if self.ignore is None else f", {self.ignore} ignored"
        groups = f" in {len(set(self.groups))} groups" if self.groups else ""
        return f"SegmentationData({len(self)} images{groups} of {sides}, {self.channels} channels{classes}, from {self.source})"

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return int(self.images.shape[1])

    @property
    def image_size(self) -> tuple[int, ...]:
        """Height and width in pixels; of volumes, depth, height and width; of signals, the length."""
        return tuple(map(int, self.images.shape[2:]))

    @property
    def scale(self) -> float:
        """The factor that brings the stored integers to [0, 1]; 1 for floats."""
        if self.images.dtype == np.float32:
            return 1.0
        return 1.0 / float(np.iinfo(self.images.dtype.name).max)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The classes of all pixels that have one: the masks themselves, or without ignored pixels, flat."""
        return self.masks if self.ignore is None else self.masks[self.masks != self.ignore]

    @property
    def foreground_share(self) -> float:
        """The share of labelled pixels that are not 0; NaN without any."""
        labels = self.labels
        return float((labels > 0).mean()) if labels.size else float("nan")

    @property
    def class_shares(self) -> tuple[float, ...]:
        """The share of labelled pixels that each class has; NaN without any."""
        counts = np.bincount(self.labels.reshape(-1), minlength=self.classes)
        return tuple((counts / counts.sum()).tolist()) if counts.sum() else (float("nan"),) * self.classes

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hex of names, images, masks, groups and what is ignored: equal data have equal fingerprints."""
        description: tuple[object, ...] = (self.images.shape, self.images.dtype.str, self.names)
        description += () if self.ignore is None else (self.ignore,)
        digest = hashlib.sha256(repr(description).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.masks).data)
        if self.groups:  # without any the fingerprint is that of versions which knew none
            digest.update(repr(self.groups).encode())
        return digest.hexdigest()

    @property
    def group_numbers(self) -> NDArray[np.int64] | None:
        """Of each image the number of its group, 0, 1, 2, … in the order in which they occur; None without groups."""
        if not self.groups:
            return None
        numbers = {group: number for number, group in enumerate(dict.fromkeys(self.groups))}
        return np.array([numbers[group] for group in self.groups], dtype=np.int64)

    def subset(self, rows: Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]) -> SegmentationData:
        """The images and masks of these rows, in this order; or those at which an array of one truth value an image is true.

        Raises: InvalidArgument for rows that are no whole numbers, or that are not there, and for more or fewer truth values.
        """
        chosen = chosen_of(rows, len(self))
        return replace(
            self,
            images=self.images[chosen],
            masks=self.masks[chosen],
            names=tuple(self.names[i] for i in chosen),
            groups=tuple(self.groups[i] for i in chosen) if self.groups else (),
        )

    def split(self, validation_share: float = 0.1, *, seed: int = 0) -> tuple[SegmentationData, SegmentationData]:
        """A seeded split into a training and a validation part, with at least one image each; groups stay together.

        Raises: InvalidArgument if the share is not between 0 and 1 or there are fewer than two images, or groups.
        """
        if not 0 < validation_share < 1:
            raise InvalidArgument(f"validation_share must be between 0 and 1, got {validation_share}")
        if len(self) < 2:
            raise InvalidArgument(f"{len(self)} image cannot be split into training and validation: give at least 2")
        if (numbers := self.group_numbers) is not None:
            if len(set(self.groups)) < 2:
                raise InvalidArgument(
                    f"all {len(self)} images are of the group {self.groups[0]}, which cannot be split: give at least 2 groups"
                )
            held = rows_held_out(numbers, validation_share, seed)
            return self.subset(np.flatnonzero(~held)), self.subset(np.flatnonzero(held))
        order = np.random.default_rng(seed).permutation(len(self))
        held_out = min(max(1, round(validation_share * len(self))), len(self) - 1)
        return self.subset(np.sort(order[held_out:])), self.subset(np.sort(order[:held_out]))

    def probe_set(self, n: int | None = None, *, seed: int = 0) -> SegmentationData:
        """The fixed images on which activations are measured: all of them, or a seeded choice of n.

        Raises: InvalidArgument if n is below 2 or larger than the data set.
        """
        if n is None or n == len(self):
            return self
        if not 2 <= n <= len(self):
            raise InvalidArgument(f"probe set of {n} images: expected 2 to {len(self)}, the size of {self.source}")
        return self.subset(np.sort(np.random.default_rng(seed).permutation(len(self))[:n]))


@preserve_rng()
def from_dataset(
    dataset: Any,
    n: int | None = None,
    *,
    image: str | int = 0,
    mask: str | int = 1,
    groups: str | int | None = None,
    classes: int | None = None,
    ignore: int | None = None,
    seed: int = 0,
    source: str = "",
) -> SegmentationData:
    """The images and masks of any `torch.utils.data.Dataset`, or of any other iterable of items.

    Items are pairs or dictionaries; image, mask: the keys of both in an item, such as `image="image", mask="label"` for MONAI.
    groups: the key of what names the patient, section or film that an item comes from, if they are not independent.
    Images: [channels, *sides] or [*sides] of one to three sides, as the network's input, so with the dataset's own transforms
    except random ones.
    Masks: whole numbers [*sides] or [1, *sides]. n: a seeded choice of this many items (default: all); of a stream, the first.
    classes: of the masks (default: the largest value plus one, at least two). ignore: the value of pixels without a label, such
    as 255, −1 or −100; one outside 0 … 255 is stored as 255.

    Raises: DataError that names the item that cannot be used; InvalidArgument for n or classes outside their domain.

    >>> items = [(np.zeros((3, 8, 8), np.float32), np.eye(8)) for _ in range(5)]
    >>> from_dataset(items, 4)
    SegmentationData(4 images of 8x8, 3 channels, from list)
    """
    source = source or type(dataset).__name__
    items = ((f"{number}", f"item {number} of {source}", item) for number, item in _items(dataset, n, seed, source))
    return stack_items(items, image, mask, classes, source, groups, ignore)


def stack_items(
    items: Iterable[tuple[str, str, Any]],
    image: str | int,
    mask: str | int,
    classes: int | None,
    source: str,
    groups: str | int | None = None,
    ignore: int | None = None,
) -> SegmentationData:
    """Items as one data set. items: the name of each, what an error calls it, and the item itself, as of `from_dataset`."""
    images: list[NDArray[Any]] = []
    masks: list[NDArray[np.uint8]] = []
    names: list[str] = []
    of_image: list[str] = []
    for name, number, item in items:
        where = f"{number}{_file_of(item, image)}"
        pixels, labels = _pair(item, image, mask, where, classes or MOST_CLASSES, ignore)
        if groups is not None:
            of_image.append(_group(item, groups, where))
        if images and (pixels.shape, pixels.dtype) != (images[0].shape, images[0].dtype):
            raise DataError(
                f"{where} is {list(pixels.shape)} {pixels.dtype}, those before {list(images[0].shape)} {images[0].dtype}: "
                "resize or crop them in the dataset's transforms"
            )
        images.append(pixels)
        masks.append(labels)
        names.append(name)
        if len(images) * pixels.nbytes > LARGEST_BYTES:
            raise DataError(f"{source} has more than {LARGEST_BYTES / 2**30:.0f} GiB of images: choose fewer, with n")
    if not images:
        raise DataError(f"{source} gives no image")
    stacked, stored = np.stack(masks), stored_ignore(ignore)
    if classes is None:
        classes = _implied_classes(stacked if stored is None else stacked[stacked != stored], source)
    return SegmentationData(
        np.stack(images), stacked, tuple(names), source, classes, groups=tuple(of_image), ignore=stored
    )


def stored_ignore(ignore: int | None) -> int | None:
    """The value that stands for what is ignored in masks of one byte: itself, or 255 where it does not fit."""
    return ignore if ignore is None or 0 <= ignore <= STORED_IGNORE else STORED_IGNORE


def _items(dataset: Any, n: int | None, seed: int, source: str) -> Iterator[tuple[int, Any]]:
    """Items with their numbers: of a dataset with a length, a seeded choice in order; of a stream, the first n."""
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        return enumerate(islice(dataset, n))
    return ((row, dataset[row]) for row in chosen_rows(len(dataset), n, seed, source))


def chosen_rows(size: int, n: int | None, seed: int, source: str) -> list[int]:
    """A seeded choice of n rows, ascending; all without n. Raises: InvalidArgument for more than there are, or one."""
    if n is not None and not 2 <= n <= size:
        raise InvalidArgument(f"{n} images: expected 2 to {size}, the size of {source}")
    return sorted(np.random.default_rng(seed).permutation(size)[: size if n is None else n].tolist())


def _implied_classes(masks: NDArray[np.uint8], source: str) -> int:
    """The number of classes that the values of the masks imply.

    Raises: DataError for large values with many gaps between them, such as 0 and 255.
    """
    values = np.unique(masks)
    if not len(values):
        raise DataError(f"masks of {source} hold nothing but pixels to ignore")
    if values[-1] >= MOST_IMPLIED_CLASSES and len(values) * 8 <= values[-1]:
        raise DataError(
            f"masks of {source} hold {', '.join(map(str, values[:4]))}{', …' if len(values) > 4 else ''}, which would be "
            f"{values[-1] + 1} classes: say classes=…, or map them to 0, 1, … in the dataset's transforms"
        )
    return max(2, int(masks.max(initial=1)) + 1)


def _pair(
    item: Any, image: str | int, mask: str | int, name: str, classes: int, ignore: int | None = None
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """The image [channels, *sides] and the mask [*sides] of an item, with values below `classes`."""
    pixels, labels = _arrays(_whole(item), image, mask, name)
    if labels.shape[:1] == (1,) and (labels.ndim > 2 or pixels.ndim == labels.ndim):
        labels = labels[0]
    if pixels.shape == labels.shape and labels.ndim == 3 and labels.shape[0] <= MOST_CHANNELS and _is_binary(labels):
        raise DataError(
            f"{name}: a mask {list(labels.shape)} like its image seems to be one-hot: give the classes, mask.argmax(0)"
        )
    if pixels.ndim == labels.ndim + 2 and pixels.shape[1] == 1:  # a single slice of a volume, as its mask was
        pixels = pixels[:, 0]
    if pixels.ndim == labels.ndim:
        pixels = pixels[None]
    if pixels.shape[1:] != labels.shape or labels.ndim not in (1, 2, 3):
        raise DataError(
            f"{name}: image {list(pixels.shape)} and mask {list(labels.shape)} do not belong together: expected "
            "[channels, *sides] and [*sides] of one to three sides"
        )
    for part, values in (("image", pixels), ("mask", labels)):
        if not (finite := np.isfinite(values)).all():
            raise DataError(f"{name} holds what is no finite number: {values[~finite][0]} in its {part}")
    whole = labels.astype(np.int64)
    ignored = np.zeros(whole.shape, dtype=bool) if ignore is None else whole == ignore
    for most in (MOST_CLASSES, classes):  # numbers that no mask has, then those of no class
        wrong = np.unique(labels[~ignored & ((whole != labels) | (whole < 0) | (whole >= most))])[:4]
        if len(wrong):
            but = "" if ignore is None else f", and {ignore} where a pixel is ignored"
            raise DataError(
                f"{name}: a mask holds whole numbers from 0 to {most - 1}, the classes of its pixels{but}: this one holds "
                f"{', '.join(f'{value:.9g}' for value in wrong)}"
            )
    stored = stored_ignore(ignore)
    return stored_pixels(pixels, name), (whole if stored is None else np.where(ignored, stored, whole)).astype(np.uint8)


def _arrays(item: Any, image: str | int, mask: str | int, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The image and the mask of an item as they are in it."""
    try:
        pixels, labels = item[image], item[mask]
    except (KeyError, IndexError, TypeError) as missing:
        raise DataError(
            f"{name} has no image {image!r} with a mask {mask!r} ({_has(item)}): say where they are"
        ) from missing
    try:
        return array_of(pixels, "image"), array_of(labels, "mask")
    except InvalidArgument as wrong:
        raise DataError(f"{name}: its {wrong}") from None


def _group(item: Any, key: str | int, where: str) -> str:
    """What names the group of an item: a text, a whole number, or a tensor of one."""
    item = _whole(item)
    try:
        group = item[key]
    except (KeyError, IndexError, TypeError) as missing:
        raise DataError(f"{where} has no group {key!r} ({_has(item)}): say where it is") from missing
    if isinstance(group, str):
        return group
    values = any_array(group)
    if values.size != 1 or values.dtype.kind not in "iuU":
        raise DataError(f"{where}: its group {key!r} is {group!r:.60}: expected a text or a whole number")
    return str(values.reshape(-1)[0])


def _whole(item: Any) -> Any:
    """The item itself, or that of a list of one, as MONAI gives crops of one image."""
    return item[0] if isinstance(item, list) and len(item) == 1 and isinstance(item[0], Mapping) else item


def _file_of(item: Any, image: str | int) -> str:
    """The file that an item's image was read from, in parentheses, where its metadata say so, as MONAI's do."""
    item = _whole(item)
    try:
        file = item[image].meta["filename_or_obj"]
    except (KeyError, IndexError, TypeError, AttributeError):
        return ""
    return f" ({printable(file)})" if isinstance(file, str) else ""


def _has(item: Any) -> str:
    return f"keys {', '.join(map(str, item))}" if isinstance(item, Mapping) else f"a {type(item).__name__}"


def _is_binary(labels: NDArray[Any]) -> bool:
    return set(np.unique(labels)) <= {0, 1}
