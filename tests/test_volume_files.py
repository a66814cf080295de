"""Volumes as people have them: turned by their affines, named otherwise, described wrongly, or hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unetscope.base.errors import DataError
from unetscope.data import load_nifti, load_nnunet

nibabel = pytest.importorskip("nibabel", reason="nibabel is an extra")
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform  # noqa: E402

SHAPE = (12, 10, 6)
SIZE = SHAPE[::-1]
MASK = np.zeros(SHAPE, np.uint8)
MASK[2:6, 1:5, 1:3] = 1
AFFINE = np.diag([0.8, 0.8, 2.5, 1.0])
DESCRIPTION = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "x": 1},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}


def turned(values: np.ndarray, affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """The same volume with its axes stored as the codes say, by nibabel alone."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(codes)))
    return apply_orientation(values, turn), affine @ inv_ornt_aff(turn, values.shape)


def save(path: Path, values: np.ndarray, affine: np.ndarray | None = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def data_set(folder: Path, description: Any = DESCRIPTION, cases: int = 3, ending: str = ".nii.gz") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = description if isinstance(description, str) else json.dumps(description)
    (folder / "dataset.json").write_text(text)
    for case in range(cases):
        save(folder / "imagesTr" / f"c{case}_0000{ending}", (MASK * 100).astype(np.int16))
        save(folder / "labelsTr" / f"c{case}{ending}", MASK)
    return folder


def bright_where_masked(data: Any) -> bool:
    return bool(((data.images[:, 0] > 50) == (data.masks > 0)).all())


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "RPI", "ASR", "PIL", "SLA"])
@pytest.mark.parametrize("which", ["image", "mask"])
def test_axes_are_turned_as_the_affines_say(tmp_path: Path, codes: str, which: str) -> None:
    image, mask = ((MASK * 100).astype(np.int16), AFFINE), (MASK, AFFINE)
    image, mask = (turned(*image, codes), mask) if which == "image" else (image, turned(*mask, codes))
    paths = save(tmp_path / "image.nii.gz", *image), save(tmp_path / "mask.nii.gz", *mask)
    data = load_nifti([paths[0]], [paths[1]], size=image[0].shape[::-1], standardised=False)
    assert bright_where_masked(data)


@settings(max_examples=20, deadline=None)
@given(codes=st.sampled_from(["LPS", "RPI", "ASR", "PIL", "SRA"]), seed=st.integers(0, 999))
def test_turning_back_gives_the_volume(codes: str, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("turned")
    values = np.random.default_rng(seed).integers(0, 2, SHAPE).astype(np.uint8)
    image = save(folder / "image.nii", values.astype(np.int16))
    mask = save(folder / "mask.nii", *turned(values, AFFINE, codes))
    data = load_nifti([image], [mask], size=SIZE, standardised=False)
    np.testing.assert_array_equal(data.images[0, 0], data.masks[0])


SHIFTED = AFFINE + np.array([[0, 0, 0, 4.0], [0] * 4, [0] * 4, [0] * 4])
COARSER = AFFINE @ np.diag([1.5, 1, 1, 1])
OBLIQUE = AFFINE @ np.array(
    [[np.cos(0.2), -np.sin(0.2), 0, 0], [np.sin(0.2), np.cos(0.2), 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
)


@pytest.mark.parametrize("affine", [SHIFTED, COARSER, OBLIQUE, np.eye(4), np.diag([0.8, 0.8, 5.0, 1.0])])
def test_a_mask_that_lies_elsewhere_is_refused_by_name(tmp_path: Path, affine: np.ndarray) -> None:
    image, mask = save(tmp_path / "scan.nii", MASK * 100), save(tmp_path / "tumour.nii", MASK, affine)
    with pytest.raises(
        DataError, match=r"tumour.nii lies up to .* mm from scan.nii by their affines, whose voxels are 0.8 mm"
    ):
        load_nifti([image], [mask], size=SIZE)
    assert bright_where_masked(load_nifti([image], [mask], size=SIZE, standardised=False, check_affines=False))


@pytest.mark.parametrize("off", [0, 1e-6, 1e-3, 0.01, 0.04])
def test_rounding_of_a_header_is_no_difference(tmp_path: Path, off: float) -> None:
    near = AFFINE.copy()
    near[:3, 3] += off
    image, mask = save(tmp_path / "scan.nii", MASK * 100), save(tmp_path / "tumour.nii", MASK, near)
    assert bright_where_masked(load_nifti([image], [mask], size=SIZE, standardised=False))


@pytest.mark.parametrize(
    ("labels", "channels"),
    [
        ({"background": 0, "x": 1}, {"0": "CT"}),
        ({"0": "background", "1": "x"}, {"0": "CT"}),
        ({"background": "0", "x": "1"}, {"CT": 0}),
        ({"background": 0, "x": [1]}, ["CT"]),
        ({"0": "background", "1": "x"}, {"CT": "0"}),
    ],
)
def test_labels_and_channels_may_be_named_either_way_round(tmp_path: Path, labels: Any, channels: Any) -> None:
    folder = data_set(tmp_path / "set", {**DESCRIPTION, "labels": labels, "channel_names": channels})
    data = load_nnunet(folder, size=SIZE, standardised=False)
    assert (len(data), data.classes) == (3, 2)
    assert bright_where_masked(data)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in DESCRIPTION.items() if key != name}


@pytest.mark.parametrize(
    ("description", "text"),
    [
        ("", r"dataset.json cannot be read: "),
        ("[" * 100_000, r"dataset.json cannot be read: it is nested too deeply"),
        ("null", r"dataset.json holds null: expected an object with labels and channel_names"),
        ("[]", r"dataset.json holds \[\]: expected an object"),
        (without("labels"), r"labels is null, expected an object such as"),
        ({**DESCRIPTION, "labels": {}}, r"labels is {}, expected an object"),
        ({**DESCRIPTION, "labels": {"x": None}}, r'labels is {"x": null}, expected whole numbers from 0 to 254'),
        ({**DESCRIPTION, "labels": {"x": 1.5}}, r"labels is .*, expected whole numbers"),
        ({**DESCRIPTION, "labels": {"x": True}}, r"labels is .*, expected whole numbers"),
        ('{"labels": {"x": 1e400}}', r"labels is .*Infinity.*, expected whole numbers"),
        ('{"labels": {"x": NaN}}', r"labels is .*NaN.*, expected whole numbers"),
        ({**DESCRIPTION, "labels": {"x": 255}}, r"expected whole numbers from 0 to 254"),
        ({**DESCRIPTION, "channel_names": None}, r"channel_names is null, expected an object"),
        ({**DESCRIPTION, "channel_names": {}}, r"channel_names is {}, expected an object"),
        ({**DESCRIPTION, "file_ending": ".**"}, r'file_ending is "\.\*\*", expected an ending such as .nii.gz'),
        ({**DESCRIPTION, "file_ending": 7}, r"file_ending is 7, expected an ending"),
        ({**DESCRIPTION, "file_ending": "../x"}, r"file_ending is .*, expected an ending"),
    ],
)
def test_a_description_that_cannot_be_is_refused_in_one_line(tmp_path: Path, description: Any, text: str) -> None:
    folder = data_set(tmp_path / "set", description)
    with pytest.raises(DataError, match=text) as refused:
        load_nnunet(folder, size=SIZE)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("labelsTr/c0.nii.gz", "labelsTr/c0.NII.GZ"),
        ("labelsTr/c0.nii.gz", "labelsTr/c0.nii.GZ"),
        ("imagesTr/c0_0000.nii.gz", "imagesTr/c0_0000.NII.GZ"),
        ("imagesTr/c0_0000.nii.gz", "imagesTr/c0.nii.gz"),  # the Decathlon's way
        ("imagesTr/c0_0000.nii.gz", "imagesTr/c0_0000.Nii.gz"),
    ],
)
def test_no_case_is_dropped_for_its_spelling(tmp_path: Path, old: str, new: str) -> None:
    folder = data_set(tmp_path / "set")
    (folder / old).rename(folder / new)
    assert load_nnunet(folder, size=SIZE).names == ("c0", "c1", "c2")


@pytest.mark.parametrize(
    ("gone", "text"),
    [
        ("labelsTr/c1.nii.gz", r"case c1 of imagesTr has no mask \*.nii.gz in labelsTr: add what is missing"),
        ("imagesTr/c1_0000.nii.gz", r"case c1 of labelsTr has no image \*.nii.gz in imagesTr"),
        ("labelsTr", r"has no \*.nii.gz in labelsTr"),
        ("imagesTr", r"case c0 of labelsTr has no image \*.nii.gz in imagesTr, and 2 more"),
        ("dataset.json", r"has no dataset.json"),
    ],
)
def test_every_case_is_paired_both_ways(tmp_path: Path, gone: str, text: str) -> None:
    folder = data_set(tmp_path / "set")
    (folder / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=text):
        load_nnunet(folder, size=SIZE)


def test_a_count_that_does_not_hold_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="dataset.json says numTraining 3, 2 cases are there"):
        load_nnunet(data_set(tmp_path / "set", cases=2), size=SIZE)


@pytest.mark.parametrize("name", ["._c0.nii.gz", ".DS_Store", "._c9.nii.gz", ".c3.nii.gz", "notes.txt"])
def test_what_a_system_added_is_left_aside(tmp_path: Path, name: str) -> None:
    folder = data_set(tmp_path / "set")
    (folder / "labelsTr" / name).write_bytes(b"junk")
    assert len(load_nnunet(folder, size=SIZE)) == 3


def test_one_colour_picture_stands_for_three_channels(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    channels = {"0": "R", "1": "G", "2": "B"}
    (folder / "dataset.json").write_text(json.dumps({**DESCRIPTION, "channel_names": channels, "file_ending": ".png"}))
    mask = MASK[:, :, 1]
    for case in range(3):
        Image.fromarray((mask[..., None] * np.array([200, 100, 50])).astype(np.uint8)).save(
            folder / f"imagesTr/c{case}_0000.png"
        )
        Image.fromarray(mask).save(folder / f"labelsTr/c{case}.png")
    data = load_nnunet(folder, size=mask.shape, standardised=False)
    assert data.images.shape == (3, 3, *mask.shape)
    np.testing.assert_array_equal(data.masks[0], mask)
    np.testing.assert_array_equal(data.images[0, 1], mask * 100)
    Image.fromarray(mask * 9).save(folder / "imagesTr/c1_0000.png")
    with pytest.raises(DataError, match=r"c1_0000.png has 1 channels, dataset.json 3: expected the same"):
        load_nnunet(folder, size=mask.shape)


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.zeros(SHAPE, np.complex64), "scan.nii holds complex numbers: expected one real number a voxel"),
        (np.zeros((4,), np.uint8), r"scan.nii is \[4\] voxels: expected two or three axes"),
        (np.zeros((4, 0, 3), np.uint8), r"scan.nii is \[4, 0, 3\] voxels: expected two or three axes"),
        (
            np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]),
            "scan.nii holds colours: expected one real number a voxel",
        ),
        (np.zeros((2, *SHAPE[1:]), np.uint8), r"tumour.nii is \[12, 10, 6\] voxels .* scan.nii, which is \[2, 10, 6\]"),
    ],
)
def test_what_is_no_volume_is_refused_by_name(tmp_path: Path, image: np.ndarray, text: str) -> None:
    scan, mask = save(tmp_path / "scan.nii", image), save(tmp_path / "tumour.nii", MASK)
    with pytest.raises(DataError, match=text):
        load_nifti([scan], [mask], size=SIZE)


@pytest.mark.parametrize("where", [(0, 4), (40, 8), (108, 4), (280, 16), (340, 4)])
def test_a_damaged_header_is_one_line_or_harmless(tmp_path: Path, where: tuple[int, int]) -> None:
    scan, mask = save(tmp_path / "scan.nii", MASK), save(tmp_path / "tumour.nii", MASK)
    data = bytearray(scan.read_bytes())
    start, length = where
    data[start : start + length] = b"\xff" * length
    scan.write_bytes(bytes(data))
    try:
        data = load_nifti([scan], [mask], size=SIZE, standardised=False)
    except DataError as refused:
        assert "scan.nii" in str(refused) and "\n" not in str(refused)
    else:  # a field that says nothing of the voxels
        np.testing.assert_array_equal(data.images[0, 0], data.masks[0])


def test_a_single_slice_is_a_flat_image(tmp_path: Path) -> None:
    from unetscope.data import from_dataset

    flat = [(np.zeros((2, 1, 8, 8), np.float32), np.eye(8)[None]) for _ in range(3)]
    assert from_dataset(flat).images.shape == (3, 2, 8, 8)
    scan, mask = save(tmp_path / "scan.nii", MASK[..., 1:2] * 100), save(tmp_path / "tumour.nii", MASK[..., 1:2])
    assert load_nifti([scan], [mask], size=SIZE[1:]).images.shape == (1, 1, *SIZE[1:])


def test_an_item_is_named_by_its_case(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "set")
    save(folder / "labelsTr" / "c1.nii.gz", MASK.astype(np.float32) * 0.5)
    with pytest.raises(
        DataError, match=r"case c1 of .*set \(c1_0000.nii.gz with c1.nii.gz\): a mask holds whole numbers from 0 to 254"
    ):
        load_nnunet(folder, size=SIZE)


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    images = [save(tmp_path / case / "scan.nii", MASK * 100) for case in "ab"]
    masks = [save(tmp_path / case / "mask.nii", MASK) for case in "ab"]
    assert load_nifti(images, masks, size=SIZE).names == ("a/mask.nii", "b/mask.nii")
    with pytest.raises(DataError, match=r"a/mask.nii is given twice"):
        load_nifti(images[:1] * 2, masks[:1] * 2, size=SIZE)
