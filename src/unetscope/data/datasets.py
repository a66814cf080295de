"""Images and masks from any PyTorch dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetscope.base import DataError, InvalidArgument, preserve_rng
from unetscope.data.segmentation import SegmentationData

LARGEST_BYTES = 16 * 2**30  # of all images, which stay in memory because they are measured at every marked epoch
MOST_CHANNELS = 4  # of a one-hot mask; a volume has more slices
MOST_IMPLIED_CLASSES = 64  # with more, masks whose values have gaps are probably no class numbers


@preserve_rng()
def from_dataset(
    dataset: Any,
    n: int | None = None,
    *,
    image: str | int = 0,
    mask: str | int = 1,
    classes: int | None = None,
    seed: int = 0,
    source: str = "",
) -> SegmentationData:
    """The images and masks of any `torch.utils.data.Dataset`, or of any other iterable of items.

    Items are pairs or dictionaries; image, mask: the keys of both in an item, such as `image="image", mask="label"` for MONAI.
    Images: [channels, *sides] or [*sides], as the network's input, so with the dataset's own transforms except random ones.
    Masks: whole numbers [*sides] or [1, *sides]. n: a seeded choice of this many items (default: all); of a stream, the first.
    classes: of the masks (default: the largest value plus one, at least two).

    Raises: DataError that names the item that cannot be used; InvalidArgument for n or classes outside their domain.

    >>> items = [(np.zeros((3, 8, 8), np.float32), np.eye(8)) for _ in range(5)]
    >>> from_dataset(items, 4)
    SegmentationData(4 images of 8x8, 3 channels, from list)
    """
    source = source or type(dataset).__name__
    items = ((f"{number}", f"item {number} of {source}", item) for number, item in _items(dataset, n, seed, source))
    return stack_items(items, image, mask, classes, source)


def stack_items(
    items: Iterable[tuple[str, str, Any]], image: str | int, mask: str | int, classes: int | None, source: str
) -> SegmentationData:
    """Items as one data set. items: the name of each, what an error calls it, and the item itself, as of `from_dataset`."""
    images: list[NDArray[Any]] = []
    masks: list[NDArray[np.uint8]] = []
    names: list[str] = []
    for name, where, item in items:
        pixels, labels = _pair(item, image, mask, where)
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
    stacked = np.stack(masks)
    return SegmentationData(
        np.stack(images), stacked, tuple(names), source, classes or _implied_classes(stacked, source)
    )


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
    if values[-1] >= MOST_IMPLIED_CLASSES and len(values) * 8 <= values[-1]:
        raise DataError(
            f"masks of {source} hold {', '.join(map(str, values[:4]))}{', …' if len(values) > 4 else ''}, which would be "
            f"{values[-1] + 1} classes: say classes=…, or map them to 0, 1, … in the dataset's transforms"
        )
    return max(2, int(masks.max(initial=1)) + 1)


def _array(values: Any) -> NDArray[Any]:
    """Values as an array; tensors with gradients or of a type that NumPy lacks, such as bfloat16, are converted."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    return np.asarray(values)


def _pair(item: Any, image: str | int, mask: str | int, name: str) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """The image [channels, *sides] and the mask [*sides] of an item."""
    if isinstance(item, list) and len(item) == 1 and isinstance(item[0], Mapping):  # MONAI's crops of one image
        item = item[0]
    try:
        pixels, labels = (_array(item[key]) for key in (image, mask))
    except (KeyError, IndexError, TypeError) as missing:
        has = f"keys {', '.join(map(str, item))}" if isinstance(item, Mapping) else f"a {type(item).__name__}"
        raise DataError(f"{name} has no image {image!r} with a mask {mask!r} ({has}): say where they are") from missing
    if labels.ndim > 2 and labels.shape[0] == 1:
        labels = labels[0]
    if pixels.shape == labels.shape and labels.ndim == 3 and labels.shape[0] <= MOST_CHANNELS and _is_binary(labels):
        raise DataError(
            f"{name}: a mask {list(labels.shape)} like its image seems to be one-hot: give the classes, mask.argmax(0)"
        )
    if pixels.ndim == labels.ndim + 2 and pixels.shape[1] == 1:  # a single slice of a volume, as its mask was
        pixels = pixels[:, 0]
    if pixels.ndim == labels.ndim:
        pixels = pixels[None]
    if pixels.shape[1:] != labels.shape or labels.ndim not in (2, 3):
        raise DataError(
            f"{name}: image {list(pixels.shape)} and mask {list(labels.shape)} do not belong together: expected "
            "[channels, *sides] and [*sides] of two or three sides"
        )
    if not (np.isfinite(pixels).all() and np.isfinite(labels).all()):
        raise DataError(f"{name} holds what is no finite number")
    whole = labels.astype(np.int64)
    if (whole != labels).any() or whole.min(initial=0) < 0 or whole.max(initial=0) > 254:
        raise DataError(f"{name}: a mask holds whole numbers from 0 to 254, the classes of its pixels")
    pixels = pixels if pixels.dtype in (np.uint8, np.uint16) else pixels.astype(np.float32)
    return pixels, whole.astype(np.uint8)


def _is_binary(labels: NDArray[Any]) -> bool:
    return set(np.unique(labels)) <= {0, 1}
