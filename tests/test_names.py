"""Files by their names: accents in two forms, files that a system added, and layouts that are not read where they lie."""

from __future__ import annotations

import io
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unetscope.data import check, load

STREAM = io.BytesIO()
Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(STREAM, "PNG")
PIXELS = STREAM.getvalue()


def laid(path: Path, *names: str) -> Path:
    """A folder, or a zip if the path ends so, with one small picture under these names."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, PIXELS)
        return path
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(PIXELS)
    return path


@pytest.mark.parametrize("source", ["set", "set.zip"])
@pytest.mark.parametrize("stem", ["é1", "ü", "Å3", "ñandú", "ç_x"])
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_a_folder_an_image_is_found_in_both_forms_of_accents(
    tmp_path: Path, source: str, stem: str, forms: tuple
) -> None:
    folder, image = (unicodedata.normalize(form, stem) for form in forms)
    path = laid(
        tmp_path / source,
        f"{folder}/images/{image}.png",
        f"{folder}/masks/1.png",
        f"{folder}/masks/2.png",
        "b/images/b.png",
        "b/masks/1.png",
    )
    assert check(path, image_size=8) == []
    assert set(load(path, image_size=8).names) == {"b", unicodedata.normalize("NFC", stem)}


@pytest.mark.parametrize("source", ["set", "set.zip"])
@pytest.mark.parametrize(
    "stray",
    [
        "Thumbs.db",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "Desktop.ini",
        "Icon\r",
        ".DS_Store",
        "._a.png",
        "@eaDir/a.png",
    ],
)
def test_files_that_a_system_added_are_left_aside(tmp_path: Path, source: str, stray: str) -> None:
    path = laid(tmp_path / source, "images/a.png", "masks/a.png", f"images/{stray}", f"masks/{stray}")
    assert check(path, image_size=8) == []


ELSEWHERE = {
    "capitals": (
        ("Images/a.png", "Masks/a.png"),
        "there are no images: its 2 files lie in Images, Masks: give a folder or zip",
    ),
    "singular": (("image/a.png", "mask/a.png"), "its 2 files lie in image, mask"),
    "parts inside": (("images/train/a.png", "masks/train/a.png"), "its 2 files lie in images/train, masks/train"),
    "many": ([f"{name}/a.png" for name in "abcde"], "its 5 files lie in a, b, c, d, …"),
    "at the top": (("a.png", "a_mask.png"), "its 2 files lie in ."),
    "nothing": ((), "there are no images: give a folder or zip with images/ and masks/"),
    "an archive": (
        ("images.zip", "readme.txt"),
        "there are no images, but archives such as images.zip: give the zip itself",
    ),
    "nnU-Net below": (
        ("D1/dataset.json", "D1/imagesTr/a.png"),
        "but nnU-Net's layout in D1: give that folder, with its dataset.json",
    ),
    "no dataset.json": (
        ("imagesTr/a.png", "labelsTr/a.png"),
        "but nnU-Net's layout in set: give that folder, with its dataset.json",
    ),
    "Dataset.json": (
        ("Dataset.json", "imagesTr/a.png"),
        "but nnU-Net's layout in set: give that folder, with its dataset.json",
    ),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_source_without_images_is_told_what_it_has(tmp_path: Path, kind: str) -> None:
    names, text = ELSEWHERE[kind]
    (tmp_path / "set").mkdir()
    (none,) = check(laid(tmp_path / "set", *names))
    assert none.kind == "no-images" and text in str(none)


@pytest.mark.parametrize("above", ["", "D1/", "a/b/"])
def test_an_archive_of_nnunet_is_to_be_unpacked(tmp_path: Path, above: str) -> None:
    path = laid(tmp_path / "set.zip", f"{above}dataset.json", f"{above}imagesTr/a_0000.png", f"{above}labelsTr/a.png")
    (none,) = check(path)
    assert f"nnU-Net's layout in {above.rstrip('/') or 'set.zip'}, which is read from a folder: unpack it" in str(none)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.NII.GZ", "a.b.nii", "a.Nii"])
def test_nifti_in_an_archive_is_told_apart(tmp_path: Path, name: str) -> None:
    problems = check(laid(tmp_path / "set.zip", f"images/{name}", "images/b.png", "masks/b.png"), image_size=8)
    assert [each.what for each in problems] == [
        "NIfTI is read from folders alone, in which images and masks are both NIfTI"
    ]
