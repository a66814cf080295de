"""What a run will not tell is said before it trains, in the words of the measurement that would miss it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runs import TINY
from unetscope.base import DataError, InvalidArgument, NoProgress
from unetscope.data import SegmentationData
from unetscope.measure import probe_limits
from unetscope.runs.experiment import prepare, run
from unetscope.runs.images import load_images
from unetscope.runs.prospects import prospects, refuse_untrainable
from unetscope.training import DataConfig, preset_config

RNG = np.random.default_rng(0)


def images(n: int, *, groups: int = 0, classes: int = 2, ignore: int | None = None) -> SegmentationData:
    """Images that look nothing like each other, with every class in each mask."""
    masks = np.tile(np.arange(16, dtype=np.uint8) % classes, (n, 16, 1))
    of_image = tuple(f"patient{i % groups}" for i in range(n)) if groups else ()
    names = tuple(map(str, range(n)))
    pixels = RNG.integers(0, 256, (n, 1, 16, 16), np.uint8)
    return SegmentationData(pixels, masks, names, "made", classes, groups=of_image, ignore=ignore)


def unlabelled(data: SegmentationData, count: int) -> SegmentationData:
    """The same, the first masks without a label."""
    masks = data.masks.copy()
    masks[:count] = 255
    return replace(data, masks=masks, ignore=255)


LIMITS: dict[str, tuple[SegmentationData, SegmentationData, str]] = {
    "three training images": (images(3), images(8), "training: 3 images with labels are too few for probes"),
    "three labelled ones": (unlabelled(images(9), 6), images(8, ignore=255), "training: 3 images with labels are too"),
    "three training groups": (images(12, groups=3), images(12, groups=6), "training: 3 groups of images are too few for pr"),
    "four training groups": (images(12, groups=4), images(12, groups=6), "training: 4 groups of images are too few for an i"),
    "one validation image": (images(8), images(1), "validation: 1 image with labels is too few for an interval"),
    "four validation images": (images(8), images(4), "validation: 4 images with labels are too few for an interval"),
    "four validation groups": (images(30, groups=10), images(12, groups=4), "validation: 4 groups of images are too few"),
    "one large group": (
        images(30, groups=10),
        replace(images(30), groups=("a",) * 20 + tuple("bcdefghijk")),
        "validation: 11 groups of images, of which some are far larger than others, are worth 2.2",
    ),
    "a class that only validation has": (
        replace(images(8), classes=3), images(8, classes=3), "validation: masks have class 2, which no training mask has",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LIMITS)
def test_what_probes_will_lack_is_said_with_what_to_do(kind: str) -> None:
    train, held_out, text = LIMITS[kind]
    (limit,) = probe_limits(train, held_out)
    assert limit.startswith(text)
    (warning,) = prospects(preset_config("quick", {}), train, held_out)
    mend = "hold out more, with --validation-share or --val" if text.startswith("val") else "give more"
    assert warning == f"{limit}: {mend}; verdicts will stay open"
    assert not prospects(
        preset_config("quick", {"measuring.usable": False, "measuring.merge_probes": False}), train, held_out
    )


def test_enough_of_everything_gives_no_warning() -> None:
    assert prospects(preset_config("quick", {}), images(20), images(5)) == ()
    assert prospects(preset_config("quick", {}), images(20, groups=5), images(10, groups=5)) == ()


def of_sizes(*sizes: int) -> SegmentationData:
    groups = tuple(f"patient{group}" for group, size in enumerate(sizes) for _ in range(size))
    return replace(images(sum(sizes)), groups=groups)


LARGE = {  # sizes of groups, the share asked for, and what is said
    "three of nine": (
        (5, 6, 7, 8, 9, 10, 40, 45, 50),
        0.1,
        "3 of 9 groups, such as patient6 of 40 images, will be held out by",
    ),
    "one": ((5, 5, 5, 5, 5, 30), 0.2, "1 of 6 groups, such as patient5 of 30 images, will be held out by no seed"),
    "just too large": (
        (8, 8, 8, 8, 8, 10),
        0.1,
        "1 of 6 groups, such as patient5 of 10 images, will be held out by no seed",
    ),
    "not quite": ((8, 8, 8, 8, 8, 9), 0.1, ""),
    "a larger share": ((5, 6, 7, 8, 9, 10, 40, 45, 50), 0.4, ""),
}


@pytest.mark.parametrize("kind", LARGE)
def test_groups_too_large_to_be_held_out_are_said(kind: str) -> None:
    sizes, share, text = LARGE[kind]
    data, config = of_sizes(*sizes), preset_config("quick", {"data.validation_share": share})
    held_by_some = {group for seed in range(300) for group in data.split(share, seed=seed)[1].groups}
    assert (len(held_by_some) == len(sizes)) == (not text)
    said = [each for each in prospects(config, *data.split(share, seed=0)) if "held out by no seed" in each]
    assert len(said) == bool(text) and all(each.startswith(text) for each in said)
    config = preset_config("quick", {"data.validation_share": share, "data.path": "a", "data.validation": "b"})
    config = config.model_copy(update={"data": config.data.model_copy(update={"accept": ("near-duplicates",)})})
    assert not [each for each in prospects(config, *data.split(share, seed=0)) if "held out by no seed" in each]


EPOCHS: dict[str, tuple[dict[str, Any], str]] = {
    "one marked": ({"measuring.marked": (0, 9), "training.epochs": 9}, "mark more with --marked"),
    "only the last": ({"measuring.marked": (9,), "training.epochs": 9}, "mark more with --marked"),
    "before and last": ({"measuring.marked": (0,), "training.epochs": 2}, "mark more with --marked"),
    "one epoch": ({"training.epochs": 1}, "train for more --epochs"),
    "one of the paper's": ({"training.epochs": 1, "measuring.marked": "paper"}, "train for more --epochs"),
}


@pytest.mark.parametrize("kind", EPOCHS)
def test_one_measured_epoch_gives_no_verdict(kind: str) -> None:
    changed, mend = EPOCHS[kind]
    (warning,) = prospects(preset_config("quick", changed), images(20), images(8))
    assert warning.startswith("there will be no verdict: 1 epoch of training will be measured, and a verdict needs 2")
    assert warning.endswith(mend)


def test_neighbours_within_groups_are_no_estimate() -> None:
    config = preset_config("quick", {"measuring.ksg_components": [2]})
    (warning,) = prospects(config, images(20, groups=5), images(10, groups=5))
    assert warning.startswith("--ksg gives no number for images in groups")
    assert not prospects(config, images(20), images(10))


UNTRAINABLE: dict[str, tuple[SegmentationData, SegmentationData, str]] = {
    "no validation label": (images(8, ignore=255), unlabelled(images(3), 3), "no pixel of the 3 validation masks has a lab"),
    "no training label": (unlabelled(images(3), 3), images(8, ignore=255), "no pixel of the 3 training masks has a label"),
    "validation without foreground": (
        images(8), replace(images(2), masks=np.zeros((2, 16, 16), np.uint8)), "no pixel of the 2 validation masks is fore",
    ),
    "training without foreground": (
        replace(images(4), masks=np.zeros((4, 16, 16), np.uint8)), images(8), "no pixel of the 4 training masks is fore",
    ),
    "one class": (
        images(8, classes=3),
        replace(images(2, classes=3), masks=np.full((2, 16, 16), 2, np.uint8)),
        "all labelled pixels of the 2 validation masks are of class 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNTRAINABLE)
def test_parts_with_nothing_to_tell_apart_are_refused(kind: str) -> None:
    train, validation, text = UNTRAINABLE[kind]
    with pytest.raises(DataError, match=rf"^{text}.*: another --data-seed or --validation-share divides the images"):
        refuse_untrainable(DataConfig(), train, validation)
    with pytest.raises(DataError, match=rf"^{text}.*: give others"):
        refuse_untrainable(DataConfig(path="a", validation="b"), train, validation)
    accepted = DataConfig(accept=("all-empty", "one-class"))
    if "label" in kind:
        with pytest.raises(DataError, match=text):
            refuse_untrainable(accepted, train, validation)
    else:
        refuse_untrainable(accepted, train, validation)


@pytest.mark.long
def test_a_run_warns_before_it_trains_and_keeps_it(tmp_path: Path) -> None:
    warned: list[str] = []

    class Listening(NoProgress):
        def warn(self, text: str) -> None:
            warned.append(text)

    config = preset_config("demo", {**TINY, "training.epochs": 1, "measuring.usable": False})
    folder = run(config, tmp_path / "run", progress=Listening())
    assert folder.facts["warnings"] == warned == list(prospects(config, *load_images(config.data, NoProgress())))


def test_a_set_with_too_few_masks_for_the_usual_clusters_is_measured_with_fewer() -> None:
    usual = preset_config("demo", {**TINY, "measuring.clusters": 64, "measuring.usable": False})
    experiment = prepare(usual)
    (text,) = (warned for warned in experiment.warnings if "clusters" in warned)
    images = len(experiment.scope.probe_set)
    few = f"{images} images have too few distinct masks for 64 clusters"
    assert text == f"{few}: the K-means labels have {max(2, images // 8)} (--clusters chooses)"
    assert next(iter(experiment.scope.classes)) == f"kmeans(k={max(2, images // 8)})"
    with pytest.raises(InvalidArgument, match=f"K = 63 clusters for {images} masks: choose K of at most {images}"):
        prepare(preset_config("demo", {**TINY, "measuring.clusters": 63}))
