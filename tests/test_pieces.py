"""Volumes that become images of one size: in slices, in patches, or whole, from TIFF, NIfTI and nnU-Net's layout."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import unetscope as us
from unetscope.base.errors import DataError, InvalidArgument
from unetscope.data import check, load, load_nifti
from unetscope.data.pieces import Cutting, slab_starts

RNG = np.random.default_rng(0)
SHAPES = ((8, 16, 16), (12, 16, 24), (9, 20, 16), (8, 16, 16))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNETSCOPE_CACHE", str(tmp_path / "cache"))


def volume(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    mask = (RNG.random(shape) < 0.3).astype(np.uint8)
    return RNG.integers(0, 256, shape, dtype=np.uint8), mask


def stacks(
    folder: Path, shapes: Any = SHAPES, masks: Callable[[np.ndarray], np.ndarray] = lambda mask: mask * 255
) -> Path:
    """Volumes p0_a, p0_b, p1_a, ... of these shapes as TIFF of several pages."""
    for role in ("images", "masks"):
        (folder / role).mkdir(parents=True, exist_ok=True)
    for number, shape in enumerate(shapes):
        image, mask = volume(shape)
        name = f"p{number // 2}_{'ab'[number % 2]}.tif"
        tifffile.imwrite(folder / "images" / name, image, photometric="minisblack")
        tifffile.imwrite(folder / "masks" / name, masks(mask), photometric="minisblack")
    return folder


@pytest.mark.long
@given(st.lists(st.integers(2, 40), min_size=3, max_size=3), st.lists(st.integers(2, 12), min_size=3, max_size=3))
def test_patches_cover_every_voxel_and_lie_within(sides: list[int], size: list[int]) -> None:
    times = np.zeros(sides, int)
    pieces = Cutting.of(size, "patches").pieces(sides)
    for piece in pieces:
        part = times[piece.window]
        assert part.shape == tuple(map(min, sides, size))
        times[piece.window] += 1
    assert times.min() > 0
    assert (
        len({piece.name for piece in pieces})
        == len(pieces)
        == np.prod([-(-a // b) for a, b in zip(sides, size, strict=True)])
    )


@given(st.integers(2, 200), st.integers(2, 30))
def test_slabs_lie_within_and_apart(depth: int, length: int) -> None:
    starts = slab_starts(depth, length)
    assert len(starts) != 1
    assert all(0 <= start <= depth - length for start in starts)
    assert all(later - earlier - length >= max(1, length // 2) - 1 for earlier, later in itertools.pairwise(starts))
    assert bool(starts) == (depth >= 2 * length + max(1, length // 2))


def test_patches_are_windows_of_the_files_and_volumes_are_groups(tmp_path: Path) -> None:
    stacks(tmp_path / "data")
    for _ in range(2):  # read, and recalled from the cache
        data = load(tmp_path / "data", image_size=(8, 16, 16))
        assert set(data.groups) == {"p0_a", "p0_b", "p1_a", "p1_b"}
        assert len(data) == 1 + 2 * 1 * 2 + 2 * 2 * 1 + 1
    for name, group, image, mask in zip(data.names, data.groups, data.images, data.masks, strict=True):
        z, y, x = (int(part[1:]) for part in name.removeprefix(group).split())
        window = np.s_[z : z + 8, y : y + 16, x : x + 16]
        assert (image[0] == tifffile.imread(tmp_path / "data/images" / f"{group}.tif")[window]).all()
        assert (mask * 255 == tifffile.imread(tmp_path / "data/masks" / f"{group}.tif")[window]).all()
    for seed in range(5):
        train, held = data.split(0.4, seed=seed)
        assert not set(train.groups) & set(held.groups)
    joined = load(tmp_path / "data", image_size=(8, 16, 16), groups=r"(p\d)_")
    assert list(joined.groups) == [name[:2] for name in joined.names]
    (tmp_path / "groups.csv").write_text("name,group\np0_a.tif,x\np0_b,y\np1_a,x\np1_b,y\n")
    table = load(tmp_path / "data", image_size=(8, 16, 16), groups=tmp_path / "groups.csv")
    assert {name[3]: group for name, group in zip(table.names, table.groups, strict=True)} == {"a": "x", "b": "y"}


def test_slices_are_the_images_that_pages_are(tmp_path: Path) -> None:
    stacks(tmp_path / "stacks", SHAPES[:2])
    for role in ("images", "masks"):
        (tmp_path / "pages" / role).mkdir(parents=True)
        for path in (tmp_path / "stacks" / role).iterdir():
            for z, page in enumerate(tifffile.imread(path)):
                Image.fromarray(page).save(tmp_path / "pages" / role / f"{path.stem} z{z:02d}.png")
    slices = load(tmp_path / "stacks", image_size=8, volumes="slices", accept=["vanished-mask"])
    pages = load(tmp_path / "pages", image_size=8, accept=["vanished-mask"])
    assert (slices.images == pages.images).all()
    assert (slices.masks == pages.masks).all()
    assert slices.groups == ("p0_a",) * 8 + ("p0_b",) * 12


def test_whole_volumes_are_resampled_and_in_no_group(tmp_path: Path) -> None:
    stacks(tmp_path / "data")
    data = load(tmp_path / "data", image_size=(4, 8, 8), volumes="whole", masks="binary")
    assert (data.images.shape, data.groups) == ((4, 1, 4, 8, 8), ())
    same = load(tmp_path / "data", image_size=(8, 16, 16), volumes="whole")
    assert (same.images[0, 0] == tifffile.imread(tmp_path / "data/images/p0_a.tif")).all()


@pytest.mark.parametrize("kind", ["classes", "instances", "16 bit", "colour"])
def test_stacks_hold_what_images_hold(tmp_path: Path, kind: str) -> None:
    masks = {"classes": lambda mask: mask * 2, "instances": lambda mask: mask * np.uint16(1000)}.get(
        kind, lambda mask: mask
    )
    folder = stacks(tmp_path / "data", masks=masks)
    for path in (folder / "images").iterdir() if kind in ("16 bit", "colour") else ():
        image = tifffile.imread(path)
        wide = image.astype(np.uint16) * 257 if kind == "16 bit" else np.stack([image, image // 2, image], -1)
        tifffile.imwrite(path, wide, photometric="rgb" if kind == "colour" else "minisblack")
    options: dict[str, Any] = {"classes": {"classes": 3}, "instances": {"masks": "instances"}}.get(kind, {})
    if kind == "classes":
        with pytest.warns(UserWarning, match="no pixel has class 1 of 0 to 2"):
            data = load(folder, image_size=(8, 16, 16), **options)
    else:
        data = load(folder, image_size=(8, 16, 16), **options)
    assert data.classes == (3 if kind == "classes" else 2)
    assert data.images.dtype == (np.uint16 if kind == "16 bit" else np.uint8)
    assert data.channels == (3 if kind == "colour" else 1)
    assert data.masks.max() == (2 if kind == "classes" else 1)


def single_page(folder: Path) -> None:
    tifffile.imwrite(folder / "images/p0_a.tif", RNG.integers(0, 9, (16, 16), np.uint8))
    tifffile.imwrite(folder / "masks/p0_a.tif", np.eye(16, dtype=np.uint8))


def pages_of_two_sizes(folder: Path) -> None:
    with tifffile.TiffWriter(folder / "images/p0_a.tif") as writer:
        for side in (16, 18):
            writer.write(np.zeros((side, side), np.uint8), photometric="minisblack")


def flat_mask(folder: Path) -> None:
    tifffile.imwrite(folder / "masks/p0_a.tif", np.eye(16, dtype=np.uint8))


ANSWERS: dict[str, tuple[Callable[[Path], None], dict[str, Any], str]] = {
    "a stack and no word": (lambda _: None, {"image_size": 16}, "8 pages, of which the first is read: .* say --volumes slices"),
    "one page": (single_page, {}, "p0_a.tif: it is a single slice of 16x16 pixels, and the image size 8x16x16 is of volumes"),
    "pages that differ": (pages_of_two_sizes, {}, "its first page is 16x16 uint8, page 2 18x18 uint8: save pages of one size"),
    "a flat mask": (flat_mask, {}, "the mask is 16x16, its image images/p0_a.tif 16x16x8 pixels"),
    "tiny patches": (lambda _: None, {"image_size": (2, 2, 2)}, "would be 256 patches of 2x2x2, more than 50: choose a larger"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_cannot_be_cut_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    change, options, text = ANSWERS[kind]
    monkeypatch.setattr("unetscope.data.pieces.MOST_PIECES", 50)
    folder = stacks(tmp_path / "data", SHAPES[:2])
    change(folder)
    options = {"image_size": (8, 16, 16), **options}
    with pytest.raises(DataError, match=text):
        load(folder, **options)
    assert any(problem.severity == "error" for problem in check(folder, **options))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"image_size": 16, "volumes": "patches"},
            "volumes as patches need an image size of three sides, .* got 16x16",
        ),
        ({"image_size": (8, 8), "volumes": "whole"}, "volumes as whole need an image size of three sides"),
        (
            {"image_size": (4, 8, 8), "volumes": "slices"},
            "volumes as slices need an image size of two sides, .* got 4x8x8",
        ),
        ({"volumes": "cubes"}, "volumes must be one of slices, patches, whole, got 'cubes'"),
        (
            {"image_size": (2, 4, 8, 8)},
            r"image_size must be one side or \(height, width\) .* or \(depth, height, width\)",
        ),
    ],
)
def test_a_use_that_does_not_go_with_the_size_is_refused(tmp_path: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        load(stacks(tmp_path, SHAPES[:1]), **options)


def test_thin_volumes_are_stretched_and_said(tmp_path: Path) -> None:
    folder = stacks(tmp_path / "data", [(8, 16, 16), (5, 16, 16), (8, 12, 16)])
    with pytest.warns(
        UserWarning, match=r"2 of 3 volumes are smaller than 8x16x16 .*, such as p0_b \(5x16x16\), and are stretched"
    ):
        data = load(folder, image_size=(8, 16, 16))
    assert len(data) == 3


def test_a_single_volume_is_cut_into_slabs_with_gaps(tmp_path: Path) -> None:
    folder = stacks(tmp_path / "data", [(20, 16, 32)])
    with pytest.warns(
        UserWarning, match="its only volume is cut along its depth of 20 into 2 slabs of 8 slices with gaps"
    ):
        data = load(folder, image_size=(8, 16, 16))
    assert data.groups == ("p0_a z0",) * 2 + ("p0_a z12",) * 2
    train, held = data.split(0.5)
    assert (len(train), len(held)) == (2, 2)
    with pytest.warns(UserWarning, match="its only volume has 20 slices, too few for two slabs of 10 with a gap"):
        whole = load(folder, image_size=(10, 16, 16))
    with pytest.raises(
        InvalidArgument, match="all 4 images are of the group p0_a, which cannot be split: give at least 2 groups"
    ):
        whole.split(0.5)


def test_nifti_and_nnunet_are_cut_alike(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is an extra")
    files: dict[str, list[Path]] = {"images": [], "masks": []}
    stored = [volume(shape) for shape in SHAPES]
    for number, parts in enumerate(stored):
        for role, values in zip(files, parts, strict=True):
            (tmp_path / "nifti" / role).mkdir(parents=True, exist_ok=True)
            files[role].append(tmp_path / "nifti" / role / f"v{number}.nii.gz")
            nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([1, 1, 4, 1])), files[role][-1])
        for folder, name, values in (("imagesTr", f"v{number}_0000", parts[0]), ("labelsTr", f"v{number}", parts[1])):
            (tmp_path / "nnunet" / folder).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(tmp_path / "nnunet" / folder / f"{name}.tif", values, photometric="minisblack")
    description = {
        "channel_names": {"0": "EM"},
        "labels": {"background": 0, "cell": 1},
        "numTraining": 4,
        "file_ending": ".tif",
    }
    (tmp_path / "nnunet/dataset.json").write_text(json.dumps(description))
    patches = load(tmp_path / "nifti", image_size=(8, 16, 16))
    of_nnunet = load(tmp_path / "nnunet", image_size=(8, 16, 16))
    unchanged = load_nifti(files["images"], files["masks"], size=(8, 16, 16), volumes="patches", standardised=False)
    assert (patches.masks == of_nnunet.masks).all()
    np.testing.assert_allclose(patches.images, of_nnunet.images, atol=1e-6)
    assert [len(data) for data in (patches, of_nnunet, unchanged)] == [10, 10, 10]
    assert (unchanged.images[0, 0] == stored[0][0]).all()
    assert (unchanged.masks[0] == stored[0][1]).all()
    with pytest.warns(UserWarning, match="its 4 volumes are 37 slices along their depth, those of a volume a group"):
        slices = load(tmp_path / "nifti", image_size=(16, 16))
    assert (len(slices), len(set(slices.groups))) == (37, 4)
    assert (slices.masks[3] == stored[0][1][3]).all()
    with pytest.raises(
        DataError, match="it is a single slice of 16x16 pixels, and the image size 8x16x16 is of volumes"
    ):
        flat = tmp_path / "flat.nii.gz"
        nibabel.save(nibabel.Nifti1Image(np.eye(16, dtype=np.uint8)[..., None], np.eye(4)), flat)
        load_nifti([flat], [flat], size=(8, 16, 16))


def test_patches_that_are_empty_in_both_parts_are_not_shared_images(tmp_path: Path) -> None:
    empty = np.zeros((4, 1, 2, 4, 4), np.uint8)
    parts = [
        us.SegmentationData(empty, empty[:, 0], tuple(f"{part}{k}" for k in range(4)), part)
        for part in ("train", "val")
    ]
    assert us.data.shared_images(*parts) == []
