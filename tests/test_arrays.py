"""Arrays from outside: whatever their byte order they are the same data; what is no number, or not there, is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import unetscope as us
from unetscope.base import DataError, InvalidArgument
from unetscope.data import SegmentationData
from unetscope.data.arrays import chosen_of

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 60_000, (3, 1, 8, 8)).astype(np.uint16)
MASKS = RNG.integers(0, 2, (3, 8, 8)).astype(np.uint8)
BIG = np.float64(1e300)


def items(images: Any, masks: Any = MASKS) -> SegmentationData:
    return us.from_dataset(list(zip(images, masks, strict=True)))


def data(images: Any = IMAGES, masks: Any = MASKS) -> SegmentationData:
    return SegmentationData(images, masks, ("a", "b", "c"), "made")


@pytest.mark.parametrize("kind", ["u1", "u2", "f4", "f8", "i2", "i4", "u4", "f2"])
@pytest.mark.parametrize("mask_kind", ["u1", "i2", "i8", "f4"])
def test_the_order_of_bytes_changes_nothing(kind: str, mask_kind: str) -> None:
    numbers = IMAGES // 257 if kind in ("u1", "f2", "i2") else IMAGES
    little, big = (items(numbers.astype(f"{order}{kind}"), MASKS.astype(f"{order}{mask_kind}")) for order in ("<", ">"))
    assert little.fingerprint == big.fingerprint
    assert (little.scale, little.images.dtype) == (big.scale, big.images.dtype)
    assert little.images.dtype.isnative


@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_data_of_arrays_have_the_byte_order_of_the_machine(kind: str) -> None:
    little, big = (data(IMAGES.astype(f"{order}{kind}")) for order in ("<", ">"))
    assert little.fingerprint == big.fingerprint
    assert little.images.dtype == big.images.dtype == np.dtype(kind)
    assert torch.from_numpy(big.images).shape == (3, 1, 8, 8)


@given(values=st.lists(st.integers(0, 65_535), min_size=4, max_size=4))
def test_pixels_of_any_byte_order_are_scaled_alike(values: list[int]) -> None:
    pixels, mask = np.array(values, ">u2").reshape(2, 2), np.zeros((2, 2), ">i4")
    taken = us.from_dataset([(pixels, mask)])
    np.testing.assert_allclose(taken.images[0, 0].reshape(-1) * taken.scale, np.array(values) / 65_535, rtol=1e-15)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "complex": (
        lambda: items(IMAGES + 5j),
        "item 0 of list: its image must be real numbers, got complex128: give their magnitude, or a part",
    ),
    "beyond float32": (
        lambda: items(IMAGES + BIG),
        "item 0 of list: its image holds 1e+300, beyond the largest number of float32: scale it in the dataset's transforms",
    ),
    "masked": (
        lambda: items([np.ma.masked_array(image, np.arange(64).reshape(1, 8, 8) < 2) for image in IMAGES]),
        "item 0 of list: its image must have all values, got 2 that are masked: fill them (array.filled), in a mask with "
        "a value to ignore",
    ),
    "masked mask": (
        lambda: items(IMAGES, [np.ma.masked_array(mask, np.arange(64).reshape(8, 8) < 1) for mask in MASKS]),
        "item 0 of list: its mask must have all values, got 1 that is masked: fill them (array.filled), in a mask with "
        "a value to ignore",
    ),
    "objects": (
        lambda: items(IMAGES.astype(object)),
        f"item 0 of list: its image must be numbers, got type object such as {IMAGES[0, 0, 0, 0]}: make numbers of one type of "
        "them (astype)",
    ),
    "texts": (
        lambda: items(IMAGES.astype(str)),
        f"item 0 of list: its image must be numbers, got type <U5 such as np.str_('{IMAGES[0, 0, 0, 0]}'): make numbers of one "
        "type of them (astype)",
    ),
    "rows of several lengths": (
        lambda: us.from_dataset([([[1, 2], [3]], np.zeros((2, 2)))]),
        "item 0 of list: its image cannot be made an array of numbers: setting an array element with a sequence. The requested "
        "array has an inhomogeneous shape after 1 dimensions. The detected shape was (2,) + inhomogeneous part.",
    ),
    "nothing": (
        lambda: us.from_dataset([(None, np.zeros((2, 2)))]),
        "item 0 of list: its image must be numbers, got type object such as None: make numbers of one type of them (astype)",
    ),
    "not finite": (
        lambda: items(np.where(np.equal(IMAGES, IMAGES.max()), np.nan, IMAGES)),
        "holds what is no finite number: nan in its image",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_an_item_that_cannot_be_used_is_named_with_the_mend(kind: str) -> None:
    make, text = REFUSED[kind]
    with pytest.raises(DataError) as wrong:
        make()
    assert text in str(wrong.value)


NOT_DATA: dict[str, tuple[Callable[[], Any], str]] = {
    "complex": (lambda: data(IMAGES + 5j), "images must be real numbers, got complex128"),
    "masked": (lambda: data(np.ma.masked_array(IMAGES, IMAGES > 30_000)), "images must have all values, got "),
    "masked masks": (lambda: data(masks=np.ma.masked_array(MASKS, MASKS > 0)), "masks must have all values, got "),
    "objects": (lambda: data(IMAGES.astype(object)), "images must be numbers, got type object such as"),
    "tensors": (lambda: data(torch.zeros(3, 1, 8, 8)), "images must be a NumPy array, got Tensor: numpy.asarray makes one"),
    "lists": (lambda: data(IMAGES.tolist()), "images must be a NumPy array, got list: numpy.asarray makes one"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NOT_DATA)
def test_arrays_that_are_no_data_are_refused(kind: str) -> None:
    make, text = NOT_DATA[kind]
    with pytest.raises(InvalidArgument) as wrong:
        make()
    assert str(wrong.value).startswith(text)


@given(place=st.integers(0, 3 * 64 - 1), value=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_images_that_are_not_finite_are_named(place: int, value: float) -> None:
    images = IMAGES.astype(np.float32)
    images.reshape(-1)[place] = value
    with pytest.raises(InvalidArgument) as wrong:
        data(images)
    assert str(wrong.value) == f"images must be finite numbers, got a NaN or an infinity in {'abc'[place // 64]}"


def test_masked_arrays_in_which_nothing_is_masked_are_arrays() -> None:
    assert items([np.ma.masked_array(image, False) for image in IMAGES]).fingerprint == items(IMAGES).fingerprint


# Rows.


@given(chosen=st.lists(st.booleans(), min_size=3, max_size=3))
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, tuple])
def test_truth_values_choose_where_they_are_true(kind: Callable[[list[bool]], Any], chosen: list[bool]) -> None:
    assert data().subset(kind(chosen)).names == tuple(
        name for name, is_chosen in zip("abc", chosen, strict=True) if is_chosen
    )


@given(rows=st.permutations([0, -2, 2]))
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda rows: np.array(rows, np.int8), tuple])
def test_numbers_choose_in_their_order(kind: Callable[[list[int]], Any], rows: list[int]) -> None:
    assert data().subset(kind(rows)).names == tuple("abc"[row] for row in rows)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([1.9], "rows must be whole numbers, or one truth value an image, got [1.9]"),
        (["a"], "rows must be whole numbers, or one truth value an image, got ['a']"),
        (1, "rows must be whole numbers, or one truth value an image, got 1"),
        (None, "rows must be whole numbers, or one truth value an image, got None"),
        ([[0, 1]], "rows must be whole numbers, or one truth value an image, got [[0, 1]]"),
        ([True, False], "rows must be 3 truth values, one an image, got 2"),
        (np.ones(4, bool), "rows must be 3 truth values, one an image, got 4"),
        ([0, 3], "rows must be numbers from 0 to 2, got 3"),
        ([-4], "rows must be numbers from 0 to 2, got -4"),
        (np.array([2**63], np.uint64), "rows must be numbers from 0 to 2, got 9223372036854775808"),
    ],
)
def test_rows_that_choose_nothing_are_refused(rows: Any, text: str) -> None:
    with pytest.raises(InvalidArgument) as wrong:
        data().subset(rows)
    assert str(wrong.value) == text


def test_no_rows_are_no_images() -> None:
    assert len(chosen_of([], 3)) == len(data().subset([])) == 0
