"""Arrays that a user hands over: of numbers, in the machine's byte order, with every value there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetscope.base import DataError, InvalidArgument, first_line, shown


def array_of(values: Any, name: str) -> NDArray[Any]:
    """Values as such an array; tensors with gradients or of a type that NumPy lacks, such as bfloat16, are converted.

    Raises: InvalidArgument, as `plain_array`, and for what no array can be made of.

    >>> array_of([[1, 2], [3, 4]], "mask").shape
    (2, 2)
    """
    try:
        array = any_array(values)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        NotImplementedError,
    ) as wrong:  # rows of several lengths, a sparse tensor
        raise InvalidArgument(f"{name} cannot be made an array of numbers: {first_line(wrong)}") from None
    return plain_array(array, name)


def any_array(values: Any) -> NDArray[Any]:
    """Values as an array of whatever they are, masked ones with what masks them.

    >>> any_array("patient 1").dtype.kind
    'U'
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    return values if isinstance(values, np.ndarray) else np.asarray(values)


def plain_array(array: Any, name: str) -> NDArray[Any]:
    """An array of real numbers or truth values in the machine's byte order; the same one if it is so already.

    Raises: InvalidArgument for anything else, and for a masked array with values that are masked.

    >>> plain_array(np.array([1, 2], ">u2"), "images").dtype.isnative
    True
    >>> plain_array(np.array([1 + 5j]), "images")
    Traceback (most recent call last):
    unetscope.base.errors.InvalidArgument: images must be real numbers, got complex128: give their magnitude, or a part
    """
    if not isinstance(array, np.ndarray):
        raise InvalidArgument(f"{name} must be a NumPy array, got {type(array).__name__}: numpy.asarray makes one")
    if array.dtype.kind == "c":
        raise InvalidArgument(f"{name} must be real numbers, got {array.dtype}: give their magnitude, or a part")
    if array.dtype.kind not in "biuf":
        first = shown(array.reshape(-1)[0]) if array.size else "nothing"
        raise InvalidArgument(
            f"{name} must be numbers, got type {array.dtype} such as {first}: make numbers of one type of them (astype)"
        )
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            hidden = int(np.ma.count_masked(array))
            raise InvalidArgument(
                f"{name} must have all values, got {hidden} that {'is' if hidden == 1 else 'are'} masked: fill them "
                "(array.filled), in a mask with a value to ignore"
            )
        array = array.data
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def stored_pixels(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    """Pixels as they are kept, uint8, uint16 or float32. name: of their item, for messages.

    Raises: DataError for numbers beyond those of float32.

    >>> stored_pixels(np.array([0.5]), "item 0").dtype
    dtype('float32')
    """
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    with np.errstate(over="ignore"):
        stored = pixels.astype(np.float32)
    if not (finite := np.isfinite(stored)).all():
        raise DataError(
            f"{name}: its image holds {pixels[~finite][0]:.4g}, beyond the largest number of float32: scale it in the "
            "dataset's transforms"
        )
    return stored


def first_not_finite(images: NDArray[Any]) -> int | None:
    """The first row of an array that holds a NaN or an infinity; None if none does. It takes no memory of the array's size.

    >>> first_not_finite(np.array([[1.0], [np.inf]])), first_not_finite(np.array([[1], [2]]))
    (1, None)
    """
    if images.dtype.kind != "f" or not images.size or np.isfinite([images.min(), images.max()]).all():
        return None
    return next(row for row, image in enumerate(images) if not np.isfinite(image).all())


def chosen_of(rows: Any, n: int) -> NDArray[np.int64]:
    """Which of n rows are meant: those of these numbers, in their order, negative ones from the end; or those that are true.

    Raises: InvalidArgument for anything else.

    >>> chosen_of([True, False, True], 3).tolist(), chosen_of([2, -3], 3).tolist()
    ([0, 2], [2, -3])
    """
    chosen = any_array(rows)
    if chosen.ndim != 1 or (chosen.dtype.kind not in "biu" and chosen.size):
        raise InvalidArgument(f"rows must be whole numbers, or one truth value an image, got {shown(rows)}")
    if chosen.dtype.kind == "b":
        if len(chosen) != n:
            raise InvalidArgument(f"rows must be {n} truth values, one an image, got {len(chosen)}")
        return np.flatnonzero(chosen).astype(np.int64)
    if len(beyond := chosen[(chosen >= n) | (chosen.astype(np.float64) < -n)]):
        raise InvalidArgument(f"rows must be numbers from 0 to {n - 1}, got {beyond[0]}")
    return chosen.astype(np.int64)
