"""Images and masks that somebody else's dataset gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetscope.base.errors import DataError, InvalidArgument
from unetscope.base.random_state import preserve_rng
from unetscope.data.segmentation import SegmentationData

LARGEST_BYTES = 16 * 2**30  # of all images: what is measured again and again has to be held


MOST_CHANNELS = 4  # of an image: of so few slices there is no volume
MOST_CLASSES_UNSAID = 64


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
    """The images and masks of any `torch.utils.data.Dataset`, or of whatever else gives them one by one.

    Items are pairs or dictionaries; image, mask: where in an item they are, such as `image="image", mask="label"` for MONAI.
    Images: [channels, *sides] or [*sides], as the network is given them, so with the dataset's own transforms but random ones.
    Masks: whole numbers [*sides] or [1, *sides]. n: a seeded choice of so many, by default all; of a stream, the first.
    classes: of the masks, by default what they hold, and two at least.

    Raises: DataError for an item that is none, naming it; InvalidArgument for n or classes that cannot be.

    >>> items = [(np.zeros((3, 8, 8), np.float32), np.eye(8)) for _ in range(5)]
    >>> from_dataset(items, 4)
    SegmentationData(4 images of 8x8, 3 channels, from list)
    """
    source = source or type(dataset).__name__
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        there = len(dataset)
        if n is not None and not 2 <= n <= there:
            raise InvalidArgument(f"{n} images: expected 2 to {there}, the size of {source}")
        rows = np.sort(np.random.default_rng(seed).permutation(there)[: there if n is None else n])
        items: Iterator[tuple[int, Any]] = ((int(row), dataset[int(row)]) for row in rows)
    else:
        items = enumerate(islice(dataset, n))
    images: list[NDArray[Any]] = []
    masks: list[NDArray[np.uint8]] = []
    names: list[str] = []
    for number, item in items:
        shown, truth = _pair(item, image, mask, f"item {number} of {source}")
        if images and (shown.shape, shown.dtype) != (images[0].shape, images[0].dtype):
            raise DataError(
                f"item {number} of {source} is {list(shown.shape)} {shown.dtype}, those before {list(images[0].shape)} "
                f"{images[0].dtype}: resize or crop them in the dataset's transforms"
            )
        images.append(shown)
        masks.append(truth)
        names.append(f"{number}")
        if len(images) * shown.nbytes > LARGEST_BYTES:
            raise DataError(f"{source} has more than {LARGEST_BYTES / 2**30:.0f} GiB of images: choose fewer, with n")
    if not images:
        raise DataError(f"{source} gives no image")
    stacked = np.stack(masks)
    values = np.unique(stacked)
    if classes is None and values[-1] >= MOST_CLASSES_UNSAID and len(values) * 8 <= values[-1]:
        raise DataError(
            f"masks of {source} hold {', '.join(map(str, values[:4]))}{', …' if len(values) > 4 else ''}, which would be "
            f"{values[-1] + 1} classes: say classes=…, or map them to 0, 1, … in the dataset's transforms"
        )
    return SegmentationData(
        np.stack(images), stacked, tuple(names), source, classes or max(2, int(stacked.max(initial=1)) + 1)
    )


def _array(values: Any) -> NDArray[Any]:
    """An array of what may be a tensor that has gradients or a type that NumPy lacks."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    return np.asarray(values)


def _pair(item: Any, image: str | int, mask: str | int, what: str) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """The image [channels, *sides] and the mask [*sides] of an item."""
    if isinstance(item, list) and len(item) == 1 and isinstance(item[0], Mapping):  # MONAI's crops of one image
        item = item[0]
    try:
        found, truth = (_array(item[key]) for key in (image, mask))
    except (KeyError, IndexError, TypeError) as missing:
        has = f"keys {', '.join(map(str, item))}" if isinstance(item, Mapping) else f"a {type(item).__name__}"
        raise DataError(f"{what} has no image {image!r} with a mask {mask!r} ({has}): say where they are") from missing
    if truth.ndim > 2 and truth.shape[0] == 1:
        truth = truth[0]
    if (
        found.shape == truth.shape
        and truth.ndim == 3
        and truth.shape[0] <= MOST_CHANNELS
        and set(np.unique(truth)) <= {0, 1}
    ):
        raise DataError(
            f"{what}: a mask {list(truth.shape)} like its image seems to be one-hot: give the classes, mask.argmax(0)"
        )
    if found.ndim == truth.ndim:
        found = found[None]
    if found.shape[1:] != truth.shape or truth.ndim not in (2, 3):
        raise DataError(
            f"{what}: image {list(found.shape)} and mask {list(truth.shape)} do not belong together: expected "
            "[channels, *sides] and [*sides] of two or three sides"
        )
    if not (np.isfinite(found).all() and np.isfinite(truth).all()):
        raise DataError(f"{what} holds what is no finite number")
    labels = truth.astype(np.int64)
    if (labels != truth).any() or labels.min(initial=0) < 0 or labels.max(initial=0) > 254:
        raise DataError(f"{what}: a mask holds whole numbers from 0 to 254, the classes of its pixels")
    kept = found if found.dtype in (np.uint8, np.uint16) else found.astype(np.float32)
    return kept, labels.astype(np.uint8)
