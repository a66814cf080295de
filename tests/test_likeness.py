"""Images that look alike are told, once, with the mend; the split does not change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unetscope as us
from unetscope.base import NoProgress
from unetscope.data import across_parts, near_duplicates
from unetscope.data.likeness import likeness
from unetscope.runs.images import load_images
from unetscope.runs.prospects import prospects
from unetscope.training import DataConfig, RunConfig


def films(count: int, frames: int, *, noise: float = 6.0, seed: int = 0) -> us.SegmentationData:
    """Frames of films: a scene each, with noise and another brightness in every frame."""
    rng = np.random.default_rng(seed)
    scenes = np.kron(rng.uniform(60, 180, (count, 8, 8)), np.ones((4, 4)))
    shape = (count, frames, 32, 32)
    pixels = scenes[:, None] + noise * rng.normal(size=shape) + rng.uniform(-30, 30, (count, frames, 1, 1))
    images = np.clip(pixels, 0, 255).astype(np.uint8).reshape(-1, 1, 32, 32)
    masks = np.zeros((len(images), 32, 32), np.uint8)
    masks[:, :16] = 1
    names = tuple(f"f{film}_{frame}" for film in range(count) for frame in range(frames))
    return us.SegmentationData(images, masks, names, "films")


def test_frames_of_films_look_alike_and_independent_images_do_not() -> None:
    alike = likeness(films(5, 4))
    assert alike is not None and alike.count == 20 and alike.pair[0][:2] == alike.pair[1][:2]
    assert likeness(films(40, 1)) is None
    assert (
        likeness(replace(films(5, 4), images=np.full((20, 1, 32, 32), 7, np.uint8))) is None
    )  # flat ones tell nothing
    assert near_duplicates(us.synthetic_nuclei(60, image_size=32)) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_kind_of_pixel_is_compared(dtype: type) -> None:
    data = films(4, 3)
    scale = 257 if dtype is np.uint16 else 1
    stored = data.images.astype(dtype) * dtype(scale)
    alike = likeness(replace(data, images=np.repeat(stored, 3, axis=1)))
    assert alike is not None and alike.count == 12


def test_volumes_are_compared() -> None:
    data = films(4, 3)
    volume = np.repeat(data.images[:, :, None], 4, axis=2)
    alike = likeness(us.SegmentationData(volume, np.repeat(data.masks[:, None], 4, axis=1), data.names, "volumes"))
    assert alike is not None and alike.count == 12


TURNS = {
    "flipped": lambda pixels: pixels[..., ::-1],
    "upside down": lambda pixels: pixels[..., ::-1, :],
    "half a turn": lambda pixels: pixels[..., ::-1, ::-1],
    "a quarter": lambda pixels: np.rot90(pixels, 1, (-2, -1)),
    "three quarters": lambda pixels: np.rot90(pixels, 3, (-2, -1)),
    "transposed": lambda pixels: np.swapaxes(pixels, -2, -1),
    "the other transposed": lambda pixels: np.rot90(np.swapaxes(pixels, -2, -1), 2, (-2, -1)),
}


@pytest.mark.parametrize("kind", TURNS)
def test_copies_that_are_turned_or_flipped_look_alike(kind: str) -> None:
    data = films(12, 1)
    copies = replace(
        data, images=np.ascontiguousarray(TURNS[kind](data.images)), names=tuple(f"copy of {n}" for n in data.names)
    )
    (across,) = across_parts(data, copies)
    assert across.what.startswith("12 of 12 validation images look like a training image, such as copy of f")
    assert across.what.endswith("(correlation 1.00, turned or flipped)")
    joined = (np.concatenate([data.images, copies.images]), np.concatenate([data.masks] * 2), data.names + copies.names)
    (within,) = near_duplicates(us.SegmentationData(*joined, "films"))
    assert within.what.startswith("24 of 24 images look like another")


@pytest.mark.parametrize("seed", range(5))
def test_an_image_that_is_its_own_mirror_image_looks_like_no_other(seed: int) -> None:
    data = films(12, 1, seed=seed)
    half = np.maximum(data.images, data.images[..., ::-1])
    assert near_duplicates(replace(data, images=np.maximum(half, half[..., ::-1, :]))) == []


def test_one_warning_names_a_pair_and_the_mend() -> None:
    data = films(5, 4)
    (within,) = near_duplicates(data)
    assert within.severity == "warning" and within.what.startswith("20 of 20 images look like another, such as f")
    assert "--groups" in within.mend and within.mend.endswith("or --accept near-duplicates")
    train, validation = data.split(0.3)
    (across,) = across_parts(train, validation)
    assert across.what.startswith("6 of 6 validation images look like a training image")
    in_groups = replace(data, groups=tuple(name[:2] for name in data.names))
    assert near_duplicates(in_groups) == [] and across_parts(*in_groups.split(0.3)) == []


def folder_of(data: us.SegmentationData, folder: Path) -> Path:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for name, image, mask in zip(data.names, data.images, data.masks, strict=True):
        Image.fromarray(image[0]).save(folder / "images" / f"{name}.png")
        Image.fromarray(mask * 255).save(folder / "masks" / f"{name}.png")
    return folder


def test_check_and_run_tell_and_change_nothing(tmp_path: Path) -> None:
    path = folder_of(films(6, 4), tmp_path / "films")
    assert [problem.kind for problem in us.data.check(path, image_size=32)] == ["near-duplicates"]
    assert us.data.check(path, image_size=32, groups=r"(f\d)_") == []
    assert us.data.check(path, image_size=32, accept=("near-duplicates",)) == []
    config = DataConfig(path=str(path), image_size=32, validation_share=0.25)
    parts = load_images(config, NoProgress())
    told = prospects(RunConfig(data=config), *parts)
    assert len(told) == 2 and "validation images look like a training image" in told[1]
    assert parts[1].names == us.load(path, image_size=32).split(0.25)[1].names
    assert prospects(RunConfig(data=config.model_copy(update={"accept": ("near-duplicates",)})), *parts) == ()
    grouped = config.model_copy(update={"groups": r"(f\d)_"})
    (few,) = prospects(RunConfig(data=grouped), *load_images(grouped, NoProgress()))
    assert few.startswith("validation: 1 group of images is too few for an interval: it needs 5: hold out more")
