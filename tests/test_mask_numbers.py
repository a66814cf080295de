"""The same numbers, transparency and channels in files of every depth and format are taken for the same."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetscope.base.errors import DataError, InvalidArgument
from unetscope.data import check, checked, load
from unetscope.data.images import decode
from unetscope.data.masks import MaskNumbers, asked_meaning, foreground, seen_meaning

SIZE = (32, 48)
MASK = np.zeros(SIZE, bool)
MASK[4:20, 6:30] = True
UPRIGHT = np.where(MASK, 200, 40).astype(np.uint8)
SCATTERED = (
    np.random.default_rng(0).integers(0, 3, (8, 12)).repeat(4, 0).repeat(4, 1)
)  # three classes in several regions


def tiff(values: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def picture(values: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    image.save(stream, kind, **options)
    return stream.getvalue()


def packed(values: np.ndarray, bits: int) -> bytes:
    """Rows of numbers of fewer than eight bits."""
    spread = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
    return np.packbits(spread.reshape(len(values), -1), axis=1).tobytes()


def small_png(values: np.ndarray, bits: int) -> bytes:
    """A grey PNG of 1, 2 or 4 bits a pixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape
    rows = np.frombuffer(packed(values, bits), np.uint8).reshape(height, -1)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes()))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def small_tiff(values: np.ndarray, bits: int, photometric: int = 1) -> bytes:
    """A grey TIFF of 2 or 4 bits a pixel."""
    height, width = values.shape
    data = packed(values, bits)
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def folder_of(path: Path, masks: dict[str, bytes], image: bytes | None = None) -> Path:
    for name, mask in masks.items():
        for part, data in (("images", image or picture(UPRIGHT)), ("masks", mask)):
            (path / part).mkdir(parents=True, exist_ok=True)
            (path / part / (name if part == "masks" else f"{Path(name).stem}.png")).write_bytes(data)
    return path


# ---- signs and depths

SIGNED = {
    "int8 -1": (np.int8, (0, -1)),
    "int8 -1 and -2": (np.int8, (0, -1, -2)),
    "int8 around 0": (np.int8, (-1, 1)),
    "int8 -128": (np.int8, (0, -128)),
    "int16 -1": (np.int16, (0, -1)),
    "int32 -1": (np.int32, (0, -1)),
}


@pytest.mark.parametrize("kind", SIGNED)
def test_negative_numbers_are_refused_at_every_depth(kind: str) -> None:
    dtype, numbers = SIGNED[kind]
    values = np.full(SIZE, numbers[0], dtype)
    values[MASK] = numbers[-1]
    values[0, : len(numbers)] = numbers
    _, problems = foreground(decode(tiff(values), "m.tif", indexed=True), "m.tif")
    assert [each.kind for each in problems] == ["mask-values"]
    assert f"between {min(numbers)} and" in problems[0].what and "negative numbers mean nothing" in problems[0].what


@pytest.mark.parametrize("largest", [2**31 - 1, 2**31, 2**31 + 5, 2**32 - 2, 2**32 - 1])
def test_large_numbers_of_objects_are_no_negative_ones(largest: int) -> None:
    values = np.where(MASK, largest, 0).astype(np.uint32)
    pixels = decode(tiff(values), "m.tif", indexed=True)
    np.testing.assert_array_equal(pixels.values, values)
    inside, problems = foreground(pixels, "m.tif")
    assert problems == ()
    np.testing.assert_array_equal(inside, MASK)


@pytest.mark.parametrize("least", [-100, -1, 0, 1, 27])
def test_an_image_of_signed_bytes_is_itself_or_refused(tmp_path: Path, least: int) -> None:
    values = np.where(MASK, 100, least).astype(np.int8)
    folder = folder_of(tmp_path, {"a.png": picture(MASK)})
    (folder / "images" / "a.png").unlink()
    (folder / "images" / "a.tif").write_bytes(tiff(values))
    if least < 0:
        with pytest.raises(DataError, match=f"its pixels are int8 between {least} and 100"):
            load(folder, image_size=SIZE)
    else:
        np.testing.assert_array_equal(load(folder, image_size=SIZE).images[0, 0], values)


DEPTHS: dict[str, Callable[[np.ndarray], bytes]] = {
    "PNG of 2 bits": lambda values: small_png(values, 2),
    "PNG of 4 bits": lambda values: small_png(values, 4),
    "TIFF of 4 bits": lambda values: small_tiff(values, 4),
    "TIFF of 4 bits, white is zero": lambda values: small_tiff(values, 4, photometric=0),
    "PNG of 8 bits": lambda values: picture(values.astype(np.uint8)),
    "PNG of 16 bits": lambda values: picture(values.astype(np.uint16)),
    "TIFF of 64 bits": lambda values: tiff(values.astype(np.int64)),
    "fractions of 16 bits": lambda values: tiff(values.astype(np.float16)),
    "fractions of 32 bits": lambda values: tiff(values.astype(np.float32)),
    "fractions of 64 bits": lambda values: tiff(values.astype(np.float64)),
    "greys in colours": lambda values: picture(np.dstack([values.astype(np.uint8)] * 3)),
    "greys in colours and opaque": lambda values: picture(np.dstack([values] * 3 + [np.full(SIZE, 255)]).astype(np.uint8)),
}  # fmt: skip


@pytest.mark.parametrize("kind", DEPTHS)
def test_the_same_numbers_mean_the_same_in_every_file(tmp_path: Path, kind: str) -> None:
    name = "tif" if "TIFF" in kind or "fractions" in kind else "png"
    of_classes = folder_of(tmp_path / "classes", {f"a.{name}": DEPTHS[kind](SCATTERED)})
    assert "class maps of 3 classes, 0 to 2, none ignored (numbers but 0" in str(
        checked(of_classes, image_size=SIZE).masks
    )
    np.testing.assert_array_equal(load(of_classes, image_size=SIZE, classes=3).masks[0], SCATTERED)
    halves = np.where(MASK, 1 + (np.arange(SIZE[1]) > 17), 0)
    of_objects = folder_of(tmp_path / "objects", {f"a.{name}": DEPTHS[kind](halves)})
    assert checked(of_objects, image_size=SIZE).masks.kind == "instances"
    np.testing.assert_array_equal(load(of_objects, image_size=SIZE, masks="instances").masks[0], MASK)


@pytest.mark.parametrize(
    "kind", ["PNG of 2 bits", "PNG of 4 bits", "TIFF of 4 bits", "PNG of 8 bits", "PNG of 16 bits"]
)
def test_white_and_1_are_the_foreground_at_every_depth(tmp_path: Path, kind: str) -> None:
    white = {"PNG of 2 bits": 3, "PNG of 8 bits": 255, "PNG of 16 bits": 65535}.get(kind, 15)
    folder = folder_of(tmp_path, {"a.tif": DEPTHS[kind](MASK * 1), "b.tif": DEPTHS[kind](MASK * white)})
    contents = checked(folder, image_size=SIZE)
    assert contents.masks.kind == "binary" and not contents.problems
    for mask in load(folder, image_size=SIZE).masks:
        np.testing.assert_array_equal(mask, MASK)


NUMBERS_LEFT_OUT = {  # the numbers of objects in one file
    "two left out": (0, 2, 3, 5),
    "one object, and another": (0, 1, 7),
    "the first left out": (0, 2, 3, 4),
    "many objects": (0, *range(1, 90, 2)),
    "up to the last but one": (0, 3, 9, 27, 254),
}


@pytest.mark.parametrize("numbers", NUMBERS_LEFT_OUT.values(), ids=NUMBERS_LEFT_OUT)
def test_numbered_objects_that_are_asked_for_may_leave_numbers_out(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    values = np.resize(np.repeat(numbers, 5), SIZE).astype(np.uint8)
    folder = folder_of(tmp_path, {"a.png": picture(values)})
    np.testing.assert_array_equal(load(folder, image_size=SIZE, masks="instances").masks[0], values != 0)
    assert [each.kind for each in check(folder, image_size=SIZE, masks="instances")] == []
    assert [each.kind for each in check(folder, image_size=SIZE, masks="binary")] == ["mask-values"]


@pytest.mark.parametrize("name", ["antialiased", "blurred", "up to the top"])
def test_soft_outlines_are_no_numbered_objects_though_they_are_asked_for(tmp_path: Path, name: str) -> None:
    outlines = {
        "antialiased": Image.fromarray((MASK * 255).astype(np.uint8)).resize((24, 16), 4).resize(SIZE[::-1], 2),
        "blurred": Image.fromarray((MASK * 240).astype(np.uint8)).resize((24, 16), 4).resize(SIZE[::-1], 2),
        "up to the top": Image.fromarray(np.resize([0, 0, 0, 3, 255], SIZE).astype(np.uint8)),
    }
    folder = folder_of(tmp_path, {"a.png": picture(outlines[name])})
    [refused] = check(folder, image_size=SIZE, masks="instances")
    assert refused.kind == "mask-values" and "neither two values nor numbered objects" in refused.what


# ---- transparency and further channels

OPAQUE, NOTHING, WHITE = np.where(MASK, 255, 0).astype(np.uint8), np.zeros(SIZE, np.uint8), np.full(SIZE, 255, np.uint8)
INDICES = Image.frombytes("P", SIZE[::-1], (~MASK).astype(np.uint8).tobytes())
INDICES.putpalette([255, 0, 0, 10, 20, 30])
TRANSPARENT = {
    "black ink": (np.dstack([NOTHING, OPAQUE]), {}, "its transparency varies and its numbers do not"),
    "white ink": (np.dstack([WHITE, OPAQUE]), {}, "its transparency varies and its numbers do not"),
    "red ink": (np.dstack([WHITE, NOTHING, NOTHING, OPAQUE]), {}, "its transparency varies and its numbers do not"),
    "inverted ink": (np.dstack([255 - OPAQUE, OPAQUE]), {}, "1152 pixels that are not 0 are transparent"),
    "part of it hidden": (
        np.dstack([OPAQUE] * 3 + [WHITE * (np.arange(48) > 20)]),
        {},
        "240 pixels that are not 0 are",
    ),
    "background at 1 of a palette": (INDICES, {"transparency": 1}, "1152 pixels that are not 0 are transparent"),
    "a transparent grey": (WHITE - OPAQUE, {"transparency": 255}, "1152 pixels that are not 0 are transparent"),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_a_mask_that_may_be_drawn_in_transparency_is_refused(tmp_path: Path, kind: str) -> None:
    values, options, text = TRANSPARENT[kind]
    problems = check(folder_of(tmp_path, {"a.png": picture(values, **options)}), image_size=SIZE)
    [of_alpha] = [each for each in problems if each.kind == "mask-transparency"]
    assert text in of_alpha.what and of_alpha.severity == "error" and of_alpha.file == "masks/a.png"
    of_tiff = (
        picture(values.convert("RGBA") if isinstance(values, Image.Image) else values, "TIFF") if not options else b""
    )
    if of_tiff:
        assert [each.kind for each in decode(of_tiff, "a.tif", indexed=True).problems] == ["mask-transparency"]


@pytest.mark.parametrize(
    "values",
    [
        np.dstack([OPAQUE, WHITE]),
        np.dstack([OPAQUE, NOTHING]),
        np.dstack([OPAQUE, OPAQUE]),
        np.dstack([OPAQUE] * 4),
        np.dstack([OPAQUE, OPAQUE // 2 + 100]),
    ],
)
def test_transparency_that_says_nothing_else_is_dropped(tmp_path: Path, values: np.ndarray) -> None:
    folder = folder_of(tmp_path, {"a.png": picture(values)})
    assert not check(folder, image_size=SIZE)
    np.testing.assert_array_equal(load(folder, image_size=SIZE).masks[0], MASK)


BANDS = {"photometric": "minisblack", "planarconfig": "contig"}
INFRARED = {"photometric": "rgb", "extrasamples": ["unspecified"]}
FURTHER = {
    "two greys": (np.dstack([UPRIGHT, NOTHING]), BANDS),
    "two greys of 16 bits": (np.dstack([UPRIGHT, NOTHING]).astype(np.uint16), BANDS),
    "two planes": (np.stack([NOTHING, UPRIGHT]), {"photometric": "minisblack", "planarconfig": "separate"}),
    "four bands": (np.dstack([UPRIGHT] * 4), BANDS),
    "colours and infrared": (np.dstack([UPRIGHT] * 4), INFRARED),
    "colours of 16 bits and infrared": (np.dstack([UPRIGHT] * 4).astype(np.uint16), INFRARED),
}


@pytest.mark.parametrize("kind", FURTHER)
@pytest.mark.parametrize("indexed", [False, True])
def test_channels_that_are_no_transparency_are_not_dropped_silently(kind: str, indexed: bool) -> None:
    values, options = FURTHER[kind]
    [further] = decode(tiff(values, **options), "a.tif", indexed=indexed).problems
    assert further.kind == "extra-channels" and further.severity == "error"
    assert further.what == "1 of its channels is neither grey, colour nor transparency, and not read"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (3, {"photometric": "rgb"}),
        (3, {"photometric": "minisblack", "planarconfig": "contig"}),
        (4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        (4, {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
        (2, {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}),
    ],
)
def test_declared_transparency_and_colours_are_no_further_channels(dtype: type, channels: int, options: dict) -> None:
    values = np.dstack([UPRIGHT] * 3 if channels > 2 else [UPRIGHT])
    values = np.dstack([values, WHITE]) if "extrasamples" in options else values
    pixels = decode(tiff(values.astype(dtype), **options), "a.tif")
    assert pixels.problems == ()
    np.testing.assert_array_equal(pixels.values if channels == 2 else pixels.values[..., 0], UPRIGHT)


# ---- soft outlines

LARGE = MASK.repeat(6, 0).repeat(6, 1)
SHARP = Image.fromarray(np.where(LARGE, 255, 0).astype(np.uint8))
SMOOTH = np.asarray(SHARP.resize((80, 53), Image.Resampling.BILINEAR).resize(SHARP.size, Image.Resampling.BILINEAR))
COMPRESSED = np.asarray(Image.open(io.BytesIO(picture(SHARP, "JPEG", quality=60))))
SOFT = {
    "antialiased": ("a.png", picture(SMOOTH), "mask-values"),
    "antialiased, 16 bits": ("a.png", picture(SMOOTH.astype(np.uint16) * 257), "mask-values"),
    "a JPEG saved as PNG": ("a.png", picture(COMPRESSED), "mask-values"),
    "a JPEG": ("a.jpg", picture(SHARP, "JPEG", quality=60), "jpeg-mask"),
    "a TIFF compressed as JPEG": ("a.tif", picture(SHARP, "TIFF", compression="jpeg", quality=60), "jpeg-mask"),
    "probabilities": ("a.tif", tiff(SMOOTH / np.float32(255)), "mask-values"),
}


@pytest.mark.parametrize("kind", SOFT)
def test_soft_outlines_are_cut_at_half_when_accepted_and_the_problem_says_so(tmp_path: Path, kind: str) -> None:
    name, mask, problem_kind = SOFT[kind]
    folder = folder_of(tmp_path, {name: mask}, picture(LARGE))
    [soft] = check(folder, image_size=LARGE.shape)
    assert soft.kind == problem_kind
    assert soft.kind == "jpeg-mask" or "the foreground is from " in soft.what
    data = load(folder, image_size=LARGE.shape, accept=[problem_kind])
    assert (data.masks[0] == LARGE).mean() > 0.985


@pytest.mark.parametrize("brightness", [1, 2, 5, 40, 100])
def test_a_faint_jpeg_mask_is_a_problem_even_with_two_values(brightness: int) -> None:
    data = picture((LARGE * brightness).astype(np.uint8), "JPEG", quality=95)
    _, problems = foreground(decode(data, "m.jpg", indexed=True), "m.jpg")
    assert [each.kind for each in problems] == ["jpeg-mask"]


# ---- what a whole set means

QUESTIONS = {
    "a class a file": ([MaskNumbers((0, 1)), MaskNumbers((0, 2))], "which is 1, 2 in different files"),
    "three classes a file": ([MaskNumbers((0, number)) for number in (1, 2, 3)], "which is 1, 2, 3 in different files"),
    "mostly black and white": (
        [MaskNumbers((0, 255))] * 2 + [MaskNumbers((0, 1, 2), split=2, counted=2)],
        "2 of 3 files hold 0 and 255, as binary masks do, and others further numbers",
    ),
    "white and objects": (
        [MaskNumbers((0, 65535))] * 3 + [MaskNumbers((0, 1, 2), split=0, counted=2)],
        "3 of 4 files hold 0 and 65535",
    ),
    "many classes": (
        [MaskNumbers((0, 150), split=20, counted=24, is_beyond=True)],
        "numbers go up to 150, and lie in several regions in 83% of cases, as objects do not",
    ),
}


@pytest.mark.parametrize("kind", QUESTIONS)
def test_what_a_set_does_not_tell_is_asked(kind: str) -> None:
    files, sentence = QUESTIONS[kind]
    meaning = seen_meaning(files)
    assert isinstance(meaning, str) and sentence in meaning


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_a_map_of_many_classes_is_not_taken_for_objects(tmp_path: Path, dtype: type) -> None:
    values = np.random.default_rng(0).integers(0, 100, (8, 12)).repeat(4, 0).repeat(4, 1)
    values[:, 24:] = values[:, :24][::-1]
    folder = folder_of(tmp_path, {"a.tif": tiff(values.astype(dtype))})
    with pytest.raises(
        DataError, match=r"binary, instances or classes\? numbers go up to 9\d, and lie in several regions in"
    ):
        load(folder, image_size=SIZE)
    assert load(folder, image_size=SIZE, classes=100, accept=["absent-class"]).classes == 100


@pytest.mark.parametrize("ignore", [0, 1])
@pytest.mark.parametrize("masks", [None, "classes"])
def test_the_background_cannot_be_ignored(masks: str | None, ignore: int) -> None:
    with pytest.raises(InvalidArgument, match=f"ignore must be a value of no class, 2 or more, got {ignore}"):
        asked_meaning(masks, None, ignore)
