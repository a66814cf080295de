"""One rule of orientation, polarity and background at every depth and in every format, for images and masks alike."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from unetscope.base.errors import DataError
from unetscope.data import check, load
from unetscope.data.images import decode
from unetscope.data.masks import foreground

SIZE = (12, 20)
MASK = np.zeros(SIZE, bool)
MASK[2:5, 3:11] = True
UPRIGHT = np.where(MASK, 200, 40).astype(np.uint8)
ORIENTATIONS = range(1, 9)
UNDO = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # which orientation takes another one back


def stored(upright: np.ndarray, orientation: int) -> Image.Image:
    """What a camera stores so that it is shown upright when it is turned as noted: an independent library turns it back."""
    image = Image.fromarray(upright)
    image.getexif()[274] = UNDO[orientation]
    return ImageOps.exif_transpose(image)


def encoded(image: Image.Image, suffix: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    stream = io.BytesIO()
    options = {"jpg": {"format": "JPEG", "quality": 95}, "png": {"format": "PNG"}, "tif": {"format": "TIFF"}}[suffix]
    image.save(stream, exif=exif, **options)
    return stream.getvalue()


def tiff(values: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def folder_of(path: Path, image: bytes, mask: bytes, image_name: str = "a.png", mask_name: str = "a.png") -> Path:
    for name, data in ((f"images/{image_name}", image), (f"masks/{mask_name}", mask)):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def png(values: np.ndarray) -> bytes:
    return encoded(Image.fromarray(values), "png", 1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_pixels_are_turned_as_noted_in_every_format(suffix: str, orientation: int) -> None:
    pixels = decode(encoded(stored(UPRIGHT, orientation), suffix, orientation), f"a.{suffix}")
    assert pixels.orientation == orientation
    assert pixels.values.shape == SIZE
    np.testing.assert_array_equal(pixels.values > 120, MASK)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_pixels_of_sixteen_bits_a_colour_are_turned_too(orientation: int) -> None:
    turned = np.asarray(stored(UPRIGHT, orientation)).astype(np.uint16) * 257
    colours = np.dstack([turned] * 3)
    pixels = decode(tiff(colours, photometric="rgb", extratags=[(274, "H", 1, orientation, True)]), "a.tif")
    assert pixels.orientation == orientation
    np.testing.assert_array_equal(pixels.values[..., 0] > 120 * 257, MASK)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_image_that_is_turned_alone_is_refused(tmp_path: Path, orientation: int) -> None:
    image = encoded(stored(UPRIGHT, orientation), "jpg", orientation)
    folder = folder_of(tmp_path / "set", image, png(MASK * np.uint8(255)), "a.jpg")
    with pytest.raises(
        DataError, match=rf"masks/a.png: it notes orientation 1, its image images/a.jpg {orientation}: which"
    ):
        load(folder)
    data = load(folder, image_size=SIZE, accept=["orientation"])
    assert (data.images[0, 0][MASK] > 120).mean() == 1
    both = folder_of(
        tmp_path / "both", image, encoded(stored(MASK * np.uint8(255), orientation), "png", orientation), "a.jpg"
    )
    np.testing.assert_array_equal(load(both, image_size=SIZE).masks[0], MASK)


@pytest.mark.parametrize("noted", [0, 9, 77, 255, 65535])
def test_a_note_that_means_nothing_turns_nothing(noted: int) -> None:
    exif = Image.Exif()
    exif[274] = noted
    stream = io.BytesIO()
    Image.fromarray(UPRIGHT).save(stream, "PNG", exif=exif)
    pixels = decode(stream.getvalue(), "a.png")
    assert pixels.orientation == 1
    np.testing.assert_array_equal(pixels.values, UPRIGHT)


@pytest.mark.parametrize("photometric", ["miniswhite", "minisblack"])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16"])
def test_the_stored_numbers_of_a_mask_count_at_every_depth(dtype: str, photometric: str) -> None:
    top = 1 if dtype == "bool" else np.iinfo(dtype).max
    values = MASK if dtype == "bool" else (MASK * top).astype(dtype)
    inside, problems = foreground(decode(tiff(values, photometric=photometric), "m.tif", indexed=True), "m.tif")
    assert problems == ()
    np.testing.assert_array_equal(inside, MASK)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16"])
def test_a_larger_number_of_an_image_is_brighter_at_every_depth(dtype: str) -> None:
    top = 1 if dtype == "bool" else np.iinfo(dtype).max
    dark_where_white = MASK if dtype == "bool" else (MASK * top).astype(dtype)
    shown = decode(tiff(dark_where_white, photometric="miniswhite"), "a.tif").values
    as_stored = decode(tiff(dark_where_white, photometric="minisblack"), "a.tif").values
    np.testing.assert_array_equal(shown > shown.mean(), ~MASK)
    np.testing.assert_array_equal(as_stored > as_stored.mean(), MASK)


def palette_png(indices: np.ndarray, colours: list[tuple[int, int, int]]) -> bytes:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette([value for colour in colours for value in colour])
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


RED, GREEN, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 0), (255, 255, 255)


@pytest.mark.parametrize(
    ("indices", "colours"),
    [
        (MASK, [BLACK, RED]),
        (~MASK, [RED, BLACK]),
        (~MASK, [WHITE, BLACK]),
        (np.where(MASK, 0, 2), [RED, GREEN, BLACK]),
        (MASK * 3, [BLACK, RED, GREEN, WHITE]),
    ],
)
def test_black_is_the_background_of_a_palette_wherever_it_stands(indices: np.ndarray, colours: list) -> None:
    inside, problems = foreground(decode(palette_png(indices, colours), "m.png", indexed=True), "m.png")
    assert problems == ()
    np.testing.assert_array_equal(inside, MASK)


@pytest.mark.parametrize("numbers", [(0, -1, -2), (0, -1), (0, -32768), (-1, -2), (-1, 1)])
def test_negative_numbers_of_a_mask_are_a_problem(numbers: tuple[int, ...]) -> None:
    values = np.full(SIZE, numbers[0], np.int16)
    values[MASK] = numbers[-1]
    values[0, : len(numbers)] = numbers
    _, problems = foreground(decode(tiff(values), "m.tif", indexed=True), "m.tif")
    assert [problem.kind for problem in problems] == ["mask-values"]
    assert "negative numbers mean nothing" in problems[0].what


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (250, 250, 20), (0, 0, 255), (255, 128, 200)])
def test_a_coloured_jpeg_mask_is_cut_at_half_when_accepted(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    large = MASK.repeat(8, 0).repeat(8, 1)
    stream = io.BytesIO()
    Image.fromarray((large[..., None] * np.array(colour)).astype(np.uint8)).save(stream, "JPEG", quality=80)
    folder = folder_of(tmp_path, png((large * 255).astype(np.uint8)), stream.getvalue(), mask_name="a.jpg")
    data = load(folder, image_size=large.shape, accept=["mask-colour", "jpeg-mask"])
    assert (data.masks[0] == large).mean() > 0.99


@pytest.mark.parametrize("empty", range(5))
def test_some_empty_masks_are_counted_and_all_are_refused(tmp_path: Path, empty: int) -> None:
    for number in range(4):
        mask = np.zeros(SIZE, np.uint8) if number < empty else (MASK * 255).astype(np.uint8)
        folder_of(tmp_path, png(UPRIGHT), png(mask), f"{number}.png", f"{number}.png")
    if empty == 4:
        with pytest.raises(DataError, match="no pixel of any of its 4 masks is foreground: give masks with objects"):
            load(tmp_path)
    elif empty:
        with pytest.warns(UserWarning, match=f"{empty} of 4 masks are empty, such as that of 0"):
            assert len(load(tmp_path, image_size=16)) == 4
    else:
        assert not check(tmp_path)


@pytest.mark.parametrize("stem", ["é", "ü1", "Å", "한", "ñandú"])
def test_names_that_look_alike_are_one_name(tmp_path: Path, stem: str) -> None:
    composed, apart = (f"{unicodedata.normalize(form, stem)}.png" for form in ("NFC", "NFD"))
    assert composed != apart
    folder = folder_of(tmp_path / "pair", png(UPRIGHT), png((MASK * 255).astype(np.uint8)), composed, apart)
    assert load(folder, image_size=16).names == (unicodedata.normalize("NFC", stem),)
    twice = folder_of(tmp_path / "twice", png(UPRIGHT), png((MASK * 255).astype(np.uint8)), composed, composed)
    (twice / "images" / apart).write_bytes(png(UPRIGHT))
    assert [problem.kind for problem in check(twice)] == ["same-stem"]


@settings(max_examples=40, deadline=None)
@given(
    orientation=st.sampled_from(ORIENTATIONS), suffix=st.sampled_from(["png", "tif"]), seed=st.integers(0, 2**16),
    sides=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)  # fmt: skip
def test_turning_is_what_another_library_does(orientation: int, suffix: str, seed: int, sides: tuple[int, int]) -> None:
    values = np.random.default_rng(seed).integers(0, 256, sides, dtype=np.uint8)
    image = Image.fromarray(values)
    image.getexif()[274] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(values), suffix, orientation), "a").values, expected)
