"""One rule for volumes and nnU-Net's layout, whatever the file: places, numbers, labels, pairs, and what sets hold."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetscope.base.errors import DataError
from unetscope.data import checked, load, load_nifti, load_nnunet

nibabel = pytest.importorskip("nibabel", reason="nibabel is an extra")

SHAPE = (12, 10, 6)
SIZE = SHAPE[::-1]
MASK = np.zeros(SHAPE, np.uint8)
MASK[2:6, 1:5, 1:3] = 1
SCAN = (MASK * 100).astype(np.int16)
FLIPPED = np.diag([-1.0, 1.0, 1.0, 1.0])
FLIPPED[0, 3] = SHAPE[0] - 1
FLAT = MASK[:, :, 1]


def nifti(
    path: Path,
    values: np.ndarray,
    *,
    sform: np.ndarray | None = None,
    qform: np.ndarray | None = None,
    slope: float = 1.0,
    inter: float = 0.0,
) -> Path:
    """A NIfTI file of stored values with these two forms, neither by default, and a scale."""
    image = nibabel.Nifti1Image(values, None)
    for form, affine in ((image.set_sform, sform), (image.set_qform, qform)):
        form(np.eye(4) if affine is None else affine, code=int(affine is not None))
    header = image.header.copy()
    header["scl_slope"], header["scl_inter"], header["vox_offset"], header["magic"] = slope, inter, 352, b"n+1"
    data = header.binaryblock + bytes(4) + values.tobytes("F")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def nnunet(folder: Path, ending: str = ".png", **description: Any) -> Path:
    """A data set of three cases, images and masks to be written by `picture`."""
    stated = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "x": 1}, "file_ending": ending, **description}
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(stated))
    for case in range(3):
        picture(folder / f"imagesTr/c{case}_0000{ending}", FLAT * 200)
        picture(folder / f"labelsTr/c{case}{ending}", FLAT)
    return folder


def picture(path: Path, values: np.ndarray, orientation: int = 1, **options: Any) -> None:
    if path.suffix == ".tif":
        tifffile.imwrite(path, values, **options)
        return
    if orientation > 1:
        options["exif"] = Image.Exif()
        options["exif"][274] = orientation
    Image.fromarray(values).save(path, **options)


# ---- where volumes lie

EYE = np.eye(4)
FORMS = {
    "sform flipped": ((FLIPPED, EYE), (EYE, None)),
    "qform flipped": ((EYE, FLIPPED), (EYE, None)),
    "of the mask": ((EYE, None), (FLIPPED, EYE)),
    "of both": ((EYE, FLIPPED), (EYE, EYE)),
    "axes exchanged": ((EYE[[1, 0, 2, 3]], EYE), (EYE, None)),
}


@pytest.mark.parametrize("kind", FORMS)
def test_forms_of_a_header_that_turn_a_mask_differently_are_refused(tmp_path: Path, kind: str) -> None:
    (sform, qform), (mask_sform, mask_qform) = FORMS[kind]
    scan = nifti(tmp_path / "scan.nii", SCAN, sform=sform, qform=qform)
    mask = nifti(tmp_path / "tumour.nii", MASK, sform=mask_sform, qform=mask_qform)
    with pytest.raises(
        DataError, match=r"the sform and the qform of (scan|tumour).nii turn tumour.nii differently: .* correct"
    ):
        load_nifti([scan], [mask], size=SIZE)
    as_stored = load_nifti([scan], [mask], size=SIZE, standardised=False, check_affines=False)
    np.testing.assert_array_equal(as_stored.images[0, 0] > 0, as_stored.masks[0])


@pytest.mark.parametrize(
    ("sform", "qform"),
    [(FLIPPED, FLIPPED), (EYE, None), (None, FLIPPED), (EYE * [2, 2, 2, 1], EYE), (FLIPPED, FLIPPED * 1.0001)],
)
def test_forms_that_agree_or_stand_alone_are_followed(tmp_path: Path, sform: Any, qform: Any) -> None:
    scan = nifti(tmp_path / "scan.nii", SCAN, sform=sform, qform=qform)
    mask = nifti(tmp_path / "tumour.nii", MASK, sform=sform, qform=qform)
    data = load_nifti([scan], [mask], size=SIZE, standardised=False)
    np.testing.assert_array_equal(data.images[0, 0] > 0, data.masks[0])


@pytest.mark.parametrize("degrees", [44.999999, 45.0, 45.000001, 135.0, 225.0000001])
def test_grids_that_are_one_are_so_at_every_angle(tmp_path: Path, degrees: float) -> None:
    def turned(angle: float) -> np.ndarray:
        affine, radians = np.eye(4), np.deg2rad(angle)
        affine[:2, :2] = [[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]]
        return affine

    scan = nifti(tmp_path / "scan.nii", SCAN, sform=turned(degrees))
    mask = nifti(tmp_path / "tumour.nii", MASK, sform=turned(round(degrees) + 0.0001))
    data = load_nifti([scan], [mask], size=SIZE, standardised=False)
    np.testing.assert_array_equal(data.images[0, 0] > 0, data.masks[0])


@pytest.mark.parametrize("placed", ["scan", "mask", "both", "neither"])
@pytest.mark.parametrize("affine", [EYE, FLIPPED])
def test_a_file_without_an_affine_beside_one_with_it_is_said(tmp_path: Path, placed: str, affine: np.ndarray) -> None:
    scan = nifti(tmp_path / "scan.nii", SCAN, sform=affine if placed in ("scan", "both") else None)
    mask = nifti(tmp_path / "tumour.nii", MASK, sform=affine if placed in ("mask", "both") else None)
    if placed in ("both", "neither"):
        load_nifti([scan], [mask], size=SIZE)
    else:
        with pytest.warns(
            UserWarning, match="in 1 of 1 cases, such as tumour.nii, one file has no affine: voxels are taken"
        ):
            load_nifti([scan], [mask], size=SIZE)


# ---- the numbers of masks


@pytest.mark.parametrize(
    ("stored", "slope", "inter"),
    [(100, 0.01, 0), (10, 0.1, 0), (3, 1 / 3, 0), (255, 1 / 255, 0), (7, 0.2, -0.4), (2, 1, -1)],
)
def test_rounding_by_the_scale_of_a_header_changes_no_class(
    tmp_path: Path, stored: int, slope: float, inter: float
) -> None:
    scan, zero = nifti(tmp_path / "scan.nii", SCAN), round(-inter / slope)
    values = np.where(MASK, stored, zero).astype(np.uint8)
    mask = nifti(tmp_path / "tumour.nii", values, slope=slope, inter=inter)
    np.testing.assert_array_equal(load_nifti([scan], [mask], size=SIZE).masks[0], MASK.T)


@pytest.mark.parametrize("value", [0.5, 0.99, 1.002, 0.0123, 254.5])
def test_what_is_no_rounding_is_refused_with_its_digits(tmp_path: Path, value: float) -> None:
    scan, mask = nifti(tmp_path / "scan.nii", SCAN), nifti(tmp_path / "tumour.nii", MASK * np.float64(value))
    with pytest.raises(DataError, match=f"this one holds {value}$"):
        load_nifti([scan], [mask], size=SIZE)


@pytest.mark.parametrize("shape", [(*SHAPE, 2), (*SHAPE, 1, 2), (*SHAPE[:2], 1, 3), (*SHAPE, 4), (1, *SHAPE[1:], 2)])
def test_a_mask_with_a_channel_a_class_is_refused_by_its_name(tmp_path: Path, shape: tuple[int, ...]) -> None:
    scan = nifti(tmp_path / "scan.nii", np.zeros(shape[:3], np.int16))
    mask = nifti(tmp_path / "tumour.nii", np.zeros(shape, np.uint8))
    size = SIZE if 1 not in shape[:3] else SIZE[1:]
    with pytest.raises(
        DataError, match=r"tumour.nii is \[.*\]: expected one number a voxel, the class; .* save the argmax"
    ):
        load_nifti([scan], [mask], size=size)


# ---- pictures in nnU-Net's layout


def test_pictures_follow_the_rules_of_pictures(tmp_path: Path) -> None:
    for name, mask, options, text in (
        (
            "colours",
            np.dstack([FLAT * 9, FLAT, FLAT]),
            {},
            "c1.png: the mask has 2 colours, and which classes they are is not known: save",
        ),
        (
            "turned",
            FLAT,
            {"orientation": 3},
            "c1.png notes orientation 3, c1_0000.png 1: which way it was drawn is not known",
        ),
        (
            "mirrored",
            FLAT,
            {"orientation": 2},
            "c1.png notes orientation 2, c1_0000.png 1: which way it was drawn is not known",
        ),
    ):
        folder = nnunet(tmp_path / name)
        picture(folder / "labelsTr/c1.png", mask, **options)
        with pytest.raises(DataError, match=text) as refused:
            load_nnunet(folder, size=FLAT.shape)
        assert "--accept" not in str(refused.value)
    for orientation in (4, 6, 8):
        folder = nnunet(tmp_path / f"turned {orientation}")
        picture(folder / "imagesTr/c1_0000.png", FLAT * 200, orientation)
        with pytest.raises(
            DataError, match=f"c1.png notes orientation 1, c1_0000.png {orientation}: which way it was drawn"
        ):
            load_nnunet(folder, size=FLAT.shape)
    folder = nnunet(tmp_path / "jpeg", ending=".jpg")
    with pytest.raises(
        DataError, match=r"c0\.jpg: JPEG compression changes numbers, so that classes are mixed up: save masks as PNG$"
    ):
        load_nnunet(folder, size=FLAT.shape)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("classes", [2, 3])
def test_greys_in_colours_are_classes(tmp_path: Path, channels: int, classes: int) -> None:
    folder = nnunet(tmp_path / "set", labels={"background": 0, **{f"x{label}": label for label in range(1, classes)}})
    labels = FLAT * (classes - 1)
    for case in range(3):
        colours = np.dstack([labels] * 3 + [np.full_like(labels, 255)] * (channels - 3))
        picture(folder / f"labelsTr/c{case}.png", colours)
    np.testing.assert_array_equal(load_nnunet(folder, size=FLAT.shape).masks[0], labels)


@pytest.mark.parametrize(
    ("values", "options", "text"),
    [
        (
            np.dstack([FLAT * 200, FLAT]),
            {"photometric": "minisblack", "planarconfig": "contig"},
            "1 of its channels is neither grey",
        ),
        (
            np.stack([FLAT * 200] * 3),
            {"photometric": "minisblack"},
            r"c1_0000.tif is \[3, 12, 10\], its mask c1.tif \[12, 10\]: expected",
        ),
        (
            FLAT[:-1] * 200,
            {},
            r"c1_0000.tif is \[11, 10\], its mask c1.tif \[12, 10\]: expected the same, or the channels",
        ),
        (
            np.dstack([FLAT * 200] * 3),
            {"photometric": "rgb"},
            "c1_0000.tif has 3 channels, dataset.json 1: expected the same",
        ),
        (
            FLAT * np.complex64(1j),
            {},
            "c1_0000.tif: its pixels are complex numbers: save the image with 8 or 16 bit whole numbers$",
        ),
    ],
)
def test_a_picture_that_does_not_fit_is_refused_by_its_name(
    tmp_path: Path, values: Any, options: Any, text: str
) -> None:
    folder = nnunet(tmp_path / "set", ending=".tif")
    picture(folder / "imagesTr/c1_0000.tif", values, **options)
    with pytest.raises(DataError, match=text):
        load_nnunet(folder, size=FLAT.shape)


# ---- labels, channels and pairs

IGNORES = {
    "by name": {"background": 0, "x": 1, "ignore": 2},
    "by number": {"0": "background", "1": "x", "2": "ignore"},
    "as text": {"background": "0", "x": "1", "ignore": "2"},
    "as a list": {"background": 0, "x": [1], "ignore": [2]},
    "first": {"ignore": 2, "background": 0, "x": 1},
    "by number, first": {"2": "ignore", "0": "background", "1": "x"},
}


@pytest.mark.parametrize("kind", IGNORES)
def test_what_is_ignored_is_so_whichever_way_round_labels_are(tmp_path: Path, kind: str) -> None:
    folder = nnunet(tmp_path / "set", labels=IGNORES[kind])
    labels = FLAT.copy()
    labels[0] = 2
    picture(folder / "labelsTr/c0.png", labels)
    data = load_nnunet(folder, size=FLAT.shape)
    assert (data.classes, data.ignore) == (2, 2)
    np.testing.assert_array_equal(data.masks[0], labels)


@pytest.mark.parametrize(("value", "stored"), [(2, 2), (254, 254), (255, 255), (256, 255), (65535, 255)])
def test_a_byte_and_more_may_be_ignored(tmp_path: Path, value: int, stored: int) -> None:
    folder = nnunet(tmp_path / "set", labels={"background": 0, "x": 1, "ignore": value})
    labels = FLAT.astype(np.uint16)
    labels[0] = value
    picture(folder / "labelsTr/c0.png", labels)
    data = load_nnunet(folder, size=FLAT.shape)
    assert (data.classes, data.ignore, data.masks[0, 0, 0]) == (2, stored, stored)


@pytest.mark.parametrize("wrong", [-1, 65536, 1.5, None, True, "last"])
def test_a_value_that_cannot_be_ignored_is_named(tmp_path: Path, wrong: Any) -> None:
    folder = nnunet(tmp_path / "set", labels={"background": 0, "x": 1, "ignore": wrong})
    with pytest.raises(DataError, match=r"label ignore is .*, expected a whole number up to 65535"):
        load_nnunet(folder, size=FLAT.shape)


@pytest.mark.parametrize("there", [".nii", ".png", ".tif", ".mha", ".nii.gz"])
def test_files_of_another_ending_than_dataset_json_says_are_named(tmp_path: Path, there: str) -> None:
    folder = nnunet(tmp_path / "set", file_ending=".nrrd")
    for part in ("imagesTr", "labelsTr"):
        for path in (folder / part).iterdir():
            path.rename(path.with_name(path.stem + there))
    with pytest.raises(
        DataError, match=rf"no \*.nrrd in labelsTr: it has c0\{there}; give the ending .*, which says .nrrd$"
    ):
        load_nnunet(folder, size=FLAT.shape)


@pytest.mark.parametrize("channel", [1, 2, 3, 7, 9999])
def test_a_channel_that_dataset_json_does_not_name_is_not_dropped(tmp_path: Path, channel: int) -> None:
    folder = nnunet(tmp_path / "set")
    picture(folder / f"imagesTr/c1_{channel:04d}.png", FLAT)
    with pytest.raises(
        DataError, match=f"case c1 has c1_{channel:04d}.png, and dataset.json names no channel {channel}: name it"
    ):
        load_nnunet(folder, size=FLAT.shape)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    folder = nnunet(tmp_path / "set")
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text, encoding="utf-8-sig")
    assert len(load_nnunet(folder, size=FLAT.shape)) == 3


def volumes(folder: Path, *masks: np.ndarray) -> Path:
    """NIfTI in images/ and masks/."""
    for number, mask in enumerate(masks):
        nifti(folder / f"images/v{number}.nii.gz", SCAN)
        nifti(folder / f"masks/v{number}.nii.gz", mask)
    return folder


STRAYS = {
    "two of a name": (
        "images/v0.nii",
        "images/v0.nii.gz and v0.nii are one image|images/v0.nii and v0.nii.gz are one image",
    ),
    "masks of a name": ("masks/v0.nii", "are one image: keep one of them"),
    "no mask": ("images/v7.nii", "images/v7.nii has no mask in masks: add what is missing or remove the other"),
    "no image": ("masks/v7.nii", "masks/v7.nii has no image in images: add what is missing or remove the other"),
    "a picture": ("images/c.png", "images/c.png lies among NIfTI files: give images of one format in a folder"),
    "a picture of a mask": ("masks/c.tif", "masks/c.tif lies among NIfTI files"),
}


@pytest.mark.parametrize("kind", STRAYS)
def test_no_file_of_a_folder_of_volumes_is_left_aside(tmp_path: Path, kind: str) -> None:
    name, text = STRAYS[kind]
    folder = volumes(tmp_path / "set", MASK, MASK)
    (folder / name).write_bytes((folder / "images/v0.nii.gz").read_bytes())
    with pytest.raises(DataError, match=text):
        load(folder, image_size=SIZE, volumes="whole")


# ---- what a set of volumes holds


@pytest.mark.parametrize("top", [1, 255])
@pytest.mark.parametrize("masks", [None, "binary", "instances"])
def test_white_is_the_foreground_of_volumes(tmp_path: Path, top: int, masks: str | None) -> None:
    folder = volumes(tmp_path / "set", MASK * np.uint8(top), MASK * np.uint8(top))
    data = load(folder, image_size=SIZE, volumes="whole", masks=masks, accept=["empty-mask"])
    assert data.classes == 2
    np.testing.assert_array_equal(data.masks[0], MASK.T)


@pytest.mark.parametrize("largest", [2, 3, 5, 31, 62])
def test_volumes_of_several_numbers_are_said_to_be_class_maps(tmp_path: Path, largest: int) -> None:
    folder = volumes(tmp_path / "set", MASK, MASK * np.uint8(largest))
    contents = checked(folder, image_size=SIZE, volumes="whole")
    assert f"class maps of {largest + 1} classes" in str(contents.masks)
    assert [each.kind for each in contents.problems if "absent" not in each.kind] == ["assumed-masks"]
    assert load(folder, image_size=SIZE, volumes="whole", masks="instances").classes == 2
    white = volumes(tmp_path / "white", MASK * np.uint8(255), MASK * np.uint8(largest))
    with pytest.raises(DataError, match=f"v0.nii.gz holds 0 and 255, other masks .* up to {largest}: say --ignore 255"):
        load(white, image_size=SIZE, volumes="whole")
    with pytest.raises(DataError, match="holds 0, 1, 2: expected 0 and one other value, or say --masks classes"):
        load(volumes(tmp_path / "two", MASK + MASK * (SCAN > 0) * (np.arange(12) > 3)[:, None, None].astype(np.uint8)),
             image_size=SIZE, volumes="whole", masks="binary")  # fmt: skip


@pytest.mark.parametrize("use", ["slices", "patches", "whole"])
@pytest.mark.parametrize("empty", [0, 1, 2])
def test_empty_masks_of_volumes_are_counted_and_all_are_refused(tmp_path: Path, use: Any, empty: int) -> None:
    folder = volumes(tmp_path / "set", *[MASK * np.uint8(number >= empty) for number in range(2)])
    size = SIZE[1:] if use == "slices" else SIZE
    found = {each.kind: each for each in checked(folder, image_size=size, volumes=use).problems}
    if empty == 2:
        assert found["one-class"].severity == "error"
        with pytest.raises(DataError, match="its labelled pixels are all of class 0"):
            load(folder, image_size=size, volumes=use)
        return
    count = {"slices": 8 + 2 * empty, "patches": empty, "whole": empty}[use]
    assert ("empty-mask" in found) == (count > 0)
    if count:
        assert found["empty-mask"].what.startswith(
            f"{count} of {12 if use == 'slices' else 2} masks are empty, such as that of v"
        )


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("is_volume", [False, True])
def test_slices_are_turned_as_their_affines_say(tmp_path: Path, axes: tuple[int, ...], is_volume: bool) -> None:
    """A mask of two axes, or of a third of one voxel, that is stored the other way round than its image."""
    turned, affine = np.flip(FLAT, axes).copy(), np.eye(4)
    for axis in axes:
        affine[axis, axis], affine[axis, 3] = -1.0, FLAT.shape[axis] - 1
    scan = nifti(tmp_path / "scan.nii", (FLAT * 100).astype(np.int16), sform=np.eye(4))
    mask = nifti(tmp_path / "mask.nii", turned[..., None] if is_volume else turned, sform=affine)
    loaded = load_nifti([scan], [mask], size=FLAT.shape[::-1], standardised=False)
    assert loaded.masks.any()
    assert ((loaded.images[:, 0] > 0) == (loaded.masks > 0)).all()
    elsewhere = affine.copy()
    elsewhere[0, 3] += 2
    nifti(tmp_path / "mask.nii", turned, sform=elsewhere)
    with pytest.raises(DataError, match=r"mask.nii lies up to 2 mm from scan.nii by their affines"):
        load_nifti([scan], [mask], size=FLAT.shape[::-1], standardised=False)
