"""Class maps: what masks mean, loading, and the value to ignore."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetscope.base import DataError, InvalidArgument
from unetscope.data import SegmentationData, check, checked, from_dataset, load, load_nnunet
from unetscope.data.images import Pixels
from unetscope.data.masks import MaskNumbers, mask_numbers, seen_meaning

CAMVID = Path(__file__).parents[1] / "../shared/data/camvid"
SIDE = 16
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (SIDE, SIDE), np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNETSCOPE_CACHE", str(tmp_path / "cache"))


def encoded(values: Any, ending: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    image.save(stream, ending, **options)
    return stream.getvalue()


def laid(folder: Path, masks: dict[str, bytes | np.ndarray]) -> Path:
    """A folder of grey images with these masks, by file name; arrays as PNG."""
    for name, mask in masks.items():
        for role, data in {
            "images": encoded(GREY),
            "masks": mask if isinstance(mask, bytes) else encoded(mask),
        }.items():
            path = folder / role / (f"{Path(name).stem}.png" if role == "images" else name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return folder


def scattered(*classes: int, side: int = SIDE) -> np.ndarray:
    """A map in which every class lies in several regions."""
    return np.asarray(classes, np.uint8)[np.arange(side * side).reshape(side, side) // 2 % len(classes)]


def objects(count: int) -> np.ndarray:
    """Numbered squares, 0 between them."""
    values = np.zeros((SIDE, SIDE), np.uint8)
    for number in range(count):
        y, x = divmod(number, 5)
        values[3 * y : 3 * y + 2, 3 * x : 3 * x + 2] = number + 1
    return values


# ---- what the numbers of a set mean

SETS: dict[str, tuple[dict[str, Any], str, str]] = {
    "0 and 255": (
        {"a.png": (objects(3) > 0) * np.uint8(255)},
        "binary",
        "no file holds more than 0",
    ),
    "0 and 1": (
        {"a.png": (objects(2) > 0).astype(np.uint8)},
        "binary",
        "no file holds more than 0 and one other value",
    ),
    "numbered objects": (
        {f"{n}.png": objects(n) for n in (2, 3, 5)},
        "instances",
        "100% of the numbers but 0 are one region",
    ),
    "scattered classes": (
        {f"{n}.png": scattered(0, 1, 2) for n in range(3)},
        "classes",
        "several regions in 100% of cases",
    ),
    "classes with gaps": (
        {"a.png": scattered(0, 3), "b.png": scattered(1, 2, 3)},
        "classes",
        "class maps of 4 classes, 0 to 3",
    ),
    "classes and void": ({"a.png": scattered(0, 1, 255), "b.png": scattered(1, 2)}, "classes", "0 to 2, 255 ignored"),
    "many objects": ({"a.tif": b""}, "instances", "numbers go beyond 63"),
}
many = io.BytesIO()
tifffile.imwrite(many, np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE))
SETS["many objects"][0]["a.tif"] = many.getvalue()


@pytest.mark.parametrize("kind", SETS)
def test_the_whole_set_says_what_its_masks_are(tmp_path: Path, kind: str) -> None:
    masks, expected, why = SETS[kind]
    contents = checked(laid(tmp_path / "set", masks), image_size=SIDE)
    assert contents.masks.kind == expected
    assert why in str(contents.masks)
    said = [problem for problem in contents.problems if problem.kind == "assumed-masks"]
    assert len(said) == (expected != "binary" and kind != "many objects")
    assert all("say --masks, --classes and --ignore" in str(problem) for problem in said)
    assert not any(problem.severity == "error" for problem in contents.problems)


ASKED = {
    "one number a file": (
        [(0, 2), (0, 3)],
        0,
        "every file holds 0 and one other value, which is 2, 3 in different files",
    ),
    "gaps": ([(0, 2, 5), (0, 1)], 0, "1 of 2 files leave out some of the numbers 0 to 5"),
    "always as many": ([(0, 1, 2)] * 3, 0, "every file with several numbers holds 0 to 2"),
    "two tops": ([(0, 1, 255, 65535)] * 2, 1, "2 of 2 files leave out some of the numbers 0 to 1"),
    "few of many": ([(0, 1, 60)] * 2, 2, "2 of 2 files leave out some of the numbers 0 to 60"),
}


@pytest.mark.parametrize("kind", ASKED)
def test_what_cannot_be_told_is_asked(tmp_path: Path, kind: str) -> None:
    files, split, sentence = ASKED[kind]
    assert seen_meaning([MaskNumbers(numbers, split) for numbers in files]) == sentence
    if kind == "always as many":
        folder = laid(tmp_path / "set", {f"{n}.png": objects(2) for n in range(3)})
        with pytest.raises(
            DataError, match=r"binary, instances or classes\? every file .* say what they hold: --masks binary"
        ):
            load(folder, image_size=SIDE)
        assert load(folder, image_size=SIDE, masks="instances").classes == 2
        assert load(folder, image_size=SIDE, masks="classes").classes == 3
        assert load(folder, image_size=SIDE, accept=["ambiguous-masks"]).classes == 2


UNDECIDED = {
    "gaps": {"a.png": (0, 2, 5), "b.png": (0, 1)},
    "one number a file": {"a.png": (0, 2), "b.png": (0, 3)},
    "as many and gaps": {f"{n}.png": (0, 1, 3) for n in range(3)},
    "a far number": {"a.png": (0, 1, 60), "b.png": (0, 1, 60)},
    "two tops": {"a.png": (0, 1, 255), "b.png": (0, 1, 2, 255)},
    "full and empty": {"a.png": (0,), "b.png": (2, 4), "c.png": (0, 4)},
}


@pytest.mark.parametrize("kind", UNDECIDED)
def test_while_it_is_asked_what_masks_hold_nothing_else_is_said_of_their_numbers(tmp_path: Path, kind: str) -> None:
    in_regions = {name: np.repeat(values, SIDE * SIDE // len(values) + 1)[: SIDE * SIDE].reshape(SIDE, SIDE)
                  for name, values in UNDECIDED[kind].items()}  # fmt: skip
    folder = laid(tmp_path / "set", {name: values.astype(np.uint8) for name, values in in_regions.items()})
    (folder / "masks" / "lost.png").write_bytes(b"")
    contents = checked(folder, validation=folder, image_size=SIDE, accept=["shared-image"])
    problems = contents.problems
    assert str(contents.masks) == "what they hold is not known"
    assert [each.kind for each in problems if each.file.partition("/")[2] != "masks/lost.png"][-1] == "ambiguous-masks"
    assert {each.kind for each in problems} <= {"ambiguous-masks", "mask-without-image", "not-an-image"}
    (folder / "masks" / "lost.png").unlink()
    with pytest.raises(DataError, match=r"^1 problem in .*: set: binary, instances or classes\? .* --masks binary, "):
        load(folder, image_size=SIDE)
    assert {each.kind for each in check(folder, image_size=SIDE, masks="classes")} <= {"absent-class", "class-values"}


def test_what_is_asked_for_is_not_guessed(tmp_path: Path) -> None:
    folder = laid(tmp_path / "set", {"a.png": objects(3), "b.png": objects(4)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(folder, image_size=SIDE, masks="instances").foreground_share == pytest.approx((12 + 16) / 512)
    with pytest.raises(
        DataError, match=r"masks/a.png: the mask has 4 values, and masks are to be binary: 0 and one other"
    ):
        load(folder, image_size=SIDE, masks="binary")
    assert load(folder, image_size=SIDE, masks="classes").masks.max() == 4


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"masks": "labels"}, "masks must be one of binary, instances, classes, got 'labels'"),
        ({"classes": 1}, "classes must be 2 to 255, got 1"),
        ({"ignore": -1}, "ignore must be 0 to 65535, a value in the masks, got -1"),
        ({"masks": "binary", "ignore": 3}, "masks='binary' have no classes and ignore nothing"),
        ({"classes": 11, "ignore": 4}, "ignore must be a value of no class, 11 or more, got 4"),
    ],
)
def test_arguments_that_do_not_go_together(tmp_path: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        check(laid(tmp_path / "set", {"a.png": scattered(0, 1)}), **options)


# ---- class maps in every format


def small_png(depth: int, row: bytes, width: int) -> bytes:
    """A grey PNG of one row with fewer than 8 bits a pixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, 1, depth, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def palette(values: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(values)
    image.putpalette(colours)
    return image


def as_tiff(values: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


LINE = np.array([[0, 1, 2, 3, 2, 1, 0, 3]], np.uint8)
FORMATS: dict[str, tuple[str, bytes]] = {
    "8 bit PNG": ("a.png", encoded(LINE)),
    "16 bit PNG": ("a.png", encoded(Image.fromarray(LINE.astype(np.uint16)))),
    "2 bit PNG": ("a.png", small_png(2, bytes([0b00011011, 0b10010011]), 8)),
    "4 bit PNG": ("a.png", small_png(4, bytes([0x01, 0x23, 0x21, 0x03]), 8)),
    "palette": ("a.png", encoded(palette(LINE, [9, 0, 0, 0, 99, 0, 0, 0, 255, 1, 1, 2]))),
    "palette, black is class 2": ("a.png", encoded(palette(LINE, [9, 0, 0, 8, 99, 0, 0, 0, 0, 1, 1, 2]))),
    "grey palette": ("a.png", encoded(palette(LINE, [0, 0, 0, 128, 128, 128, 64, 64, 64, 255, 255, 255]))),
    "equal channels": ("a.png", encoded(np.stack([LINE] * 3, axis=-1))),
    "TIFF, zero is white": ("a.tif", as_tiff(LINE, photometric="miniswhite")),
    "16 bit TIFF": ("a.tif", as_tiff(LINE.astype(np.uint16))),
    "32 bit TIFF": ("a.tif", as_tiff(LINE.astype(np.int32))),
    "float TIFF": ("a.tif", as_tiff(LINE.astype(np.float32))),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_stored_numbers_are_the_classes(tmp_path: Path, kind: str) -> None:
    name, data = FORMATS[kind]
    folder = laid(tmp_path / "set", {name: data})
    (folder / "images" / "a.png").write_bytes(encoded(GREY[:1, :8]))
    read = load(folder, image_size=(1, 8), classes=4)
    np.testing.assert_array_equal(read.masks[0], LINE)
    assert read.classes == 4 and read.ignore is None


def test_one_bit_files_are_classes_0_and_1(tmp_path: Path) -> None:
    bits = LINE > 1
    for number, data in enumerate(
        (encoded(bits), as_tiff(bits.astype(np.uint8)), encoded(Image.fromarray(bits), "TIFF"))
    ):
        folder = laid(tmp_path / f"set{number}", {f"a.{'png' if not number else 'tif'}": data})
        (folder / "images" / "a.png").write_bytes(encoded(GREY[:1, :8]))
        np.testing.assert_array_equal(load(folder, image_size=(1, 8), classes=2).masks[0], bits)


REFUSED: dict[str, tuple[str, bytes | np.ndarray, dict[str, Any], str]] = {
    "colours": (
        "a.png",
        encoded(RNG.integers(0, 2, (SIDE, SIDE, 3), np.uint8) * np.uint8(255)),
        {"masks": "classes"},
        "the mask has 8 colours, and which classes they are is not known: save the number of the class of each pixel",
    ),
    "JPEG": ("a.jpg", encoded(scattered(0, 9), "JPEG"), {"classes": 10}, "JPEG compression changes numbers"),
    "too large": (
        "a.png",
        scattered(0, 3, 7, 9),
        {"classes": 3},
        "it holds 3, 7, 9, expected classes 0 to 2: give the number",
    ),
    "no void": (
        "a.png",
        scattered(0, 1, 255),
        {"masks": "classes"},
        "it holds 255: if that is to be ignored, say --ignore 255",
    ),
    "another void": (
        "a.png",
        scattered(0, 1, 255),
        {"classes": 2, "ignore": 9},
        "holds 255, expected classes 0 to 1, and 9 to be",
    ),
    "fractions": (
        "a.tif",
        as_tiff(scattered(0, 1) / np.float32(2)),
        {"classes": 2},
        "it holds 0.5, expected classes 0 to 1",
    ),
    "negative": (
        "a.tif",
        as_tiff(scattered(0, 1).astype(np.int16) - 1),
        {"classes": 2},
        "it holds -1, expected classes",
    ),
    "one class": (
        "a.png",
        scattered(2),
        {"classes": 3},
        "its labelled pixels are all of class 2: give masks of two classes",
    ),
    "nothing": ("a.png", scattered(9), {"classes": 3, "ignore": 9}, "no pixel has a label"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_class_map_is_refused(tmp_path: Path, kind: str) -> None:
    name, mask, options, text = REFUSED[kind]
    problems = check(laid(tmp_path / "set", {name: mask}), image_size=SIDE, **options)
    assert any(text in str(problem) and problem.severity == "error" for problem in problems), problems


def test_one_object_a_file_is_no_class_map(tmp_path: Path) -> None:
    for name, data in {
        "images/x.png": GREY,
        "masks/1.png": scattered(0, 255),
        "masks/2.png": scattered(255, 0),
    }.items():
        path = tmp_path / "set" / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(data))
    assert (
        checked(tmp_path / "set", image_size=SIDE).masks.why == "an image has several mask files, one for each object"
    )
    (refused, *_) = check(tmp_path / "set", image_size=SIDE, classes=2)
    assert "2 mask files belong to x/images/x.png, a class map is one file: join them" in str(refused)


def test_what_is_ignored_is_counted_and_told(tmp_path: Path) -> None:
    masks = {"a.png": scattered(0, 1, 9), "b.png": scattered(9), "c.png": scattered(0, 1)}
    folder = laid(tmp_path / "set", masks)
    texts = "\n".join(map(str, check(folder, image_size=SIDE, classes=4, ignore=9)))
    assert "1 of 3 masks hold nothing but 9 to ignore, such as that of b: they count for nothing" in texts
    assert "no pixel has class 2, 3 of 0 to 3: check the number of classes" in texts
    with pytest.warns(UserWarning, match="no pixel has class"):
        data = load(folder, image_size=SIDE, classes=4, ignore=9)
    assert (data.classes, data.ignore) == (4, 9)
    assert repr(data).startswith("SegmentationData(3 images of 16x16, 1 channels, 4 classes, 9 ignored, from set")
    shares = np.bincount(np.concatenate([m[m != 9] for m in masks.values()]), minlength=4)
    assert data.class_shares == pytest.approx(shares / shares.sum())


def test_classes_that_a_smaller_size_loses_are_told(tmp_path: Path) -> None:
    thin, thick = np.zeros((2, SIDE, SIDE), np.uint8)
    thin[:, 8:], thin[0, 0] = 1, 2
    thick[:, 8:] = 2
    folder = laid(tmp_path / "set", {"a.png": thin, "b.png": thick})
    (lost,) = check(folder, image_size=4, classes=3)
    assert "at 4x4 pixels masks lose classes that they have, most often class 2 (in 1 of 2 masks)" in str(lost)


def test_a_zip_a_folder_and_the_cache_agree(tmp_path: Path) -> None:
    folder = laid(tmp_path / "set", {f"{n}.png": scattered(0, 1, 2, 255) for n in range(3)})
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in folder.rglob("*.png"):
            archive.write(path, path.relative_to(folder))
    whole = [
        load(path, image_size=8, classes=3, ignore=255) for path in (folder, tmp_path / "set.zip", tmp_path / "set.zip")
    ]
    assert len({data.fingerprint for data in whole}) == 1
    assert {(data.classes, data.ignore) for data in whole} == {(3, 255)}
    with pytest.raises(DataError, match="holds 255"):  # the same files, read otherwise
        load(tmp_path / "set.zip", image_size=8, classes=3)
    with pytest.warns(UserWarning, match="taken for class maps of 3 classes, 0 to 2, 255 ignored"):
        assert load(folder, image_size=8).fingerprint == whole[0].fingerprint


# ---- data sets of other libraries


@pytest.mark.parametrize(("ignore", "stored"), [(255, 255), (-1, 255), (-100, 255), (3, 3), (None, None)])
def test_a_dataset_says_what_is_ignored(ignore: int | None, stored: int | None) -> None:
    mask = scattered(0, 1, 2).astype(np.int64)
    if ignore is not None:
        mask[0] = ignore
    data = from_dataset([(GREY[None].astype(np.float32), mask)] * 2, ignore=ignore)
    assert (data.classes, data.ignore) == (3, stored)
    assert (data.masks[:, 0] == (stored if ignore is not None else mask[0])).all()


def test_a_value_that_is_no_class_is_refused() -> None:
    masks = scattered(0, 1, 7)[None]
    with pytest.raises(
        InvalidArgument, match="masks must be uint8 with values 0 to 2, or 9 to be ignored, got uint8 up to 7"
    ):
        SegmentationData(GREY[None, None], masks, ("a",), "here", classes=3, ignore=9)
    with pytest.raises(InvalidArgument, match="ignore must be a value of no class, 8 to 255, got 7"):
        SegmentationData(GREY[None, None], masks, ("a",), "here", classes=8, ignore=7)
    with pytest.raises(DataError, match="whole numbers from 0 to 254, the classes of its pixels, and 9 where"):
        from_dataset([(GREY[None], scattered(0, 1).astype(np.int64) - 5)] * 2, ignore=9)


NNUNET = {
    "ignored last": ({"background": 0, "a": 1, "b": 2, "ignore": 3}, (3, 3), ""),
    "no ignore": ({"background": 0, "a": 1}, (2, None), ""),
    "lists of one": ({"background": 0, "a": [1], "b": [2]}, (3, None), ""),
    "by number": ({"0": "background", "1": "a", "2": "b"}, (3, None), ""),
    "region": ({"background": 0, "whole": [1, 2], "core": 2}, None, r"label whole joins \[1, 2\] into a region"),
    "ignored first": ({"ignore": 0, "a": 1}, None, "label ignore is 0, expected the largest number of all"),
    "ignored between": ({"background": 0, "ignore": 1, "a": 2}, None, "label ignore is 1, expected the largest"),
}


@pytest.mark.parametrize("kind", NNUNET)
def test_labels_of_nnunet(tmp_path: Path, kind: str) -> None:
    labels, expected, text = NNUNET[kind]
    present = range(4) if expected == (3, 3) else range(expected[0]) if expected else range(2)
    for case in ("x", "y"):
        for folder, name, values in (
            ("imagesTr", f"{case}_0000.png", GREY),
            ("labelsTr", f"{case}.png", scattered(*present)),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_bytes(encoded(values))
    description = {"channel_names": {"0": "grey"}, "labels": labels, "numTraining": 2, "file_ending": ".png"}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    if expected is None:
        with pytest.raises(DataError, match=text):
            load_nnunet(tmp_path, size=(SIDE, SIDE))
        return
    data = load_nnunet(tmp_path, size=(SIDE, SIDE))
    assert (data.classes, data.ignore) == expected
    np.testing.assert_array_equal(data.masks[0], scattered(*present))
    assert load(tmp_path, image_size=SIDE).fingerprint == data.fingerprint
    assert str(checked(tmp_path, image_size=SIDE).masks).endswith("(as dataset.json says)")
    with pytest.raises(InvalidArgument, match=r"dataset.json describes class maps of . classes, .*: leave out --masks"):
        load(tmp_path, image_size=SIDE, classes=7)


# ---- street scenes


@pytest.mark.skipif(not CAMVID.is_dir(), reason="../shared/data/camvid is not here")
def test_street_scenes_are_seen_as_classes() -> None:
    contents = checked(CAMVID / "camvid_val.zip", image_size=32)
    assert contents.masks.kind == "classes" and contents.masks.classes == 12
    data = load(CAMVID / "camvid_val.zip", image_size=32, classes=11, ignore=11, accept=["vanished-mask"])
    assert (data.classes, data.ignore, len(data)) == (11, 11, 101)
    assert sum(data.class_shares) == pytest.approx(1)


def test_regions_are_counted_with_their_corners() -> None:
    diagonal = np.eye(4, dtype=np.uint8) * np.uint8(1)
    diagonal[0, 3] = 2
    diagonal[3, 0] = 2
    assert mask_numbers(Pixels(diagonal)) == MaskNumbers((0, 1, 2), split=1, counted=2)
