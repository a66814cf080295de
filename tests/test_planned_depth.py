"""The depth that published rules plan: by hand, against the plans and configurations that their authors published."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import unetscope as us
from published import is_installed
from runs import edited_config, made_run
from unetscope.analysis.planned_depth import (
    DEEPEST,
    _feature_maps,
    depth_of_field,
    nnunet_plan,
    nnunet_strides,
    receptive_field,
    recommended_field,
)
from unetscope.analysis.structures import grey_contrast, structure_sizes
from unetscope.base.errors import RunFolderError
from unetscope.networks.unet import UNet
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.planned import planned_depths, structure_facts

# nnU-Net's planner


@pytest.mark.parametrize(
    ("size", "spacing", "poolings"),
    [
        ((128, 128), (1, 1), (5, 5)),  # 128 64 32 16 8 4
        ((48, 48), (1, 1), (3, 3)),  # 48 24 12 6, which is less than 8
        ((7, 7), (1, 1), (0, 0)),
        ((8, 200), (1, 1), (1, 5)),  # the other goes on alone from 100: 50, 25, 13, 7
        ((9, 9), (1, 1), (1, 1)),  # 9 is halved to 5
        ((16, 128, 128), (4, 1, 1), (2, 5, 5)),  # the coarse axis waits until the others are 2 apart from it
        ((40, 8), (1, 1), (2, 1)),  # 40 and 8, then 20, then 10, which is less than 12 and alone
    ],
)
def test_axes_are_halved_as_worked_out_by_hand(
    size: tuple[int, ...], spacing: tuple[float, ...], poolings: tuple[int, ...]
) -> None:
    strides = nnunet_strides(size, spacing)
    assert tuple(sum(stride[axis] == 2 for stride in strides) for axis in range(len(size))) == poolings


# Of nnUNetPlans.json in public repositories: median size, spacing, the patch and the poolings that nnU-Net planned.
PUBLISHED = {
    "angiography, 2-D (HuiLin0220/StenUNet)": ((512, 512), (1.0, 1.0), (512, 512), (7, 7)),
    "kidneys, 2-D (cemmacabales/nnunetv2_3DKidney)": ((512, 467), (0.78515625, 0.81640625), (512, 512), (7, 7)),
    "kidneys, 3-D": ((434.5, 512, 467), (0.91308576, 0.78515625, 0.81640625), (128, 128, 128), (5, 5, 5)),
    "PET-CT, 2-D (NIH-MIP/FDG-PET-CT_AI)": ((400, 400), (2.03642, 2.03642), (448, 448), (6, 6)),
    "PET-CT, 3-D": ((326, 400, 400), (3.0, 2.03642, 2.03642), (128, 128, 128), (5, 5, 5)),
    "PET-CT, 3-D low": ((175, 215, 215), (5.58088, 3.78834, 3.78834), (128, 128, 128), (5, 5, 5)),
    "lungs, 3-D (Usamakhan843)": ((252, 512, 512), (1.24498, 0.78515625, 0.78515625), (80, 192, 160), (4, 5, 5)),
    "lungs, 3-D low": ((132, 267, 267), (2.38551, 1.50444, 1.50444), (80, 192, 160), (4, 5, 5)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_plans_are_those_that_nnunet_published(name: str) -> None:
    size, spacing, patch, poolings = PUBLISHED[name]
    plan = nnunet_plan(size, spacing)
    assert (plan.patch, plan.poolings, plan.depth) == (patch, poolings, max(poolings))


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (32, 64, 64), (20, 96, 96)])
def test_the_memory_of_a_plan_is_counted_as_its_network_counts_it(size: tuple[int, ...]) -> None:
    if not is_installed("dynamic_network_architectures"):
        pytest.skip("dynamic_network_architectures is not installed")
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    plan = nnunet_plan(size, [1.0] * len(size), labels=3)
    stages, most = plan.depth + 1, {2: 512, 3: 320}[len(size)]
    convolution = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[len(size)]
    features = [min(most, 32 * 2**stage) for stage in range(stages)]
    strides = [(1,) * len(size), *plan.strides]
    with torch.device("meta"):
        network = PlainConvUNet(1, stages, features, convolution, 3, strides, 2, 3, [2] * (stages - 1))
    assert _feature_maps(plan.patch, plan.strides, 3) == network.compute_conv_feature_map_size(plan.patch)


@given(st.lists(st.integers(4, 600), min_size=2, max_size=3))
def test_every_axis_keeps_four_pixels_at_the_bottom(size: list[int]) -> None:
    plan = nnunet_plan(size, [1.0] * len(size))
    for edge, halvings in zip(plan.patch, plan.poolings, strict=True):
        assert edge % 2**halvings == 0
        assert edge // 2**halvings >= 4


# The receptive-field heuristic

# Their configurations, by the receptive field that names them: depth and kernel.
CONFIGURATIONS = {54: (3, 2), 100: (3, 3), 146: (3, 4), 204: (4, 3), 298: (4, 4), 412: (5, 3)}


@pytest.mark.parametrize("pixels", CONFIGURATIONS)
def test_receptive_fields_are_those_that_name_the_published_configurations(pixels: int) -> None:
    assert receptive_field(*CONFIGURATIONS[pixels]) == pixels


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_our_network_sees_as_far(depth: int) -> None:
    """Twin: what is not a number in a column of the image makes every output that reads that column no number."""
    width = 32 * 2**depth
    images = torch.zeros(width, 1, 2**depth, width)
    images[torch.arange(width), 0, :, torch.arange(width)] = math.nan
    with torch.no_grad():
        seen = (
            UNet(1, depth, in_channels=1).eval()(images)[:, 0, 0].isnan()
        )  # [column that is none, column of the output]
    assert int(seen.sum(dim=0).max()) == receptive_field(depth)


# Mean structure size and contrast of their data sets, as their notebook RoI_dimensions prints them.
DATASETS = {
    "fetal head": (260, 0.05989, 0.0, 434),  # 260 / 0.5989
    "kidney": (101, 0.16664, 1.0, 101),
    "lungs": (329, 0.13100, 1.0, 54),
    "thyroid": (187, 0.14964, 1.0, 54),
    "nerve": (159, 0.04852, 0.0, 327),  # 159 / 0.4852
    "shapes": (168, 0.19970, 1.0, 168),
}


@pytest.mark.parametrize("name", DATASETS)
def test_the_recommended_field_is_that_of_the_published_rule(name: str) -> None:
    size, contrast, separable, pixels = DATASETS[name]
    assert recommended_field(size, contrast, separable) == pixels


def test_most_images_decide_whether_grey_levels_tell_structures_apart() -> None:
    assert recommended_field(100, 0.2, 0.51) == 100
    assert recommended_field(100, 0.2, 0.5) == 50  # a tie is no majority


@given(st.integers(1, 3000))
def test_the_depth_is_the_shallowest_that_sees_so_far(pixels: int) -> None:
    depth = depth_of_field(pixels)
    assert receptive_field(depth) >= pixels or depth == DEEPEST
    assert depth == 1 or receptive_field(depth - 1) < pixels


def drawn(rows: list[str]) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows], dtype=np.uint8)


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        (["......", ".####.", ".####.", "......"], [4]),
        (["##....", "##....", "....#.", "....#."], [2, 2]),
        (["#.....", ".#....", "..#...", "......"], [3]),  # regions touch at corners
        (["#####.", "#...#.", "#...#.", "#####."], [5, 5]),  # the outline of a hole of 3 × 2 is the pixels around it
        (["......", "......"], []),
        (["######", "######"], [6]),
        (["##.##.", "##.##.", "......", "#####."], [2, 2, 5]),
    ],
    ids=["box", "two", "diagonal", "ring", "empty", "full", "three"],
)
def test_structures_are_as_large_as_their_outlines(rows: list[str], sizes: list[int]) -> None:
    assert sorted(structure_sizes(drawn(rows))) == sorted(sizes)


def test_contrast_is_the_mean_difference_of_shares_in_ten_bins() -> None:
    mask = np.array([[1, 1, 1, 1, 0, 0, 0, 0]])
    # bins of 25.6: inside 3/4 in the last and 1/4 in the first, outside all in the first
    grey = np.array([[255, 250, 240, 3, 3, 3, 3, 3]])
    assert grey_contrast(grey, mask) == pytest.approx((0.75 + 0.75) / 10)
    assert math.isnan(grey_contrast(grey, np.ones_like(mask)))
    assert math.isnan(grey_contrast(grey, np.zeros_like(mask)))


# Of a run's images


def images_of(images: np.ndarray, masks: np.ndarray, **more: Any) -> us.SegmentationData:
    return us.SegmentationData(images, masks, tuple(f"image {row}" for row in range(len(images))), "made", **more)


def squares(channels: int = 1) -> us.SegmentationData:
    """Bright squares of 10 pixels on black."""
    masks = np.zeros((4, 32, 32), np.uint8)
    masks[:, 5:15, 8:18] = 1
    return images_of(np.repeat(masks[:, None] * np.uint8(250), channels, axis=1), masks)


@pytest.mark.parametrize("channels", [1, 3])
def test_structures_of_images_are_told(channels: int) -> None:
    assert structure_facts(squares(channels)) == {"size": 10.0, "contrast": 0.2, "separable share": 1.0}


FLAT = np.zeros((2, 1, 8, 8), np.uint8)
MASKS = np.zeros((2, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (images_of(FLAT[:, :, None], MASKS[:, None]), "it is defined for flat images"),
        (images_of(FLAT[:, :, 0], MASKS[:, 0]), "it is defined for flat images"),
        (images_of(FLAT, MASKS, classes=3), "it is defined for binary masks"),
        (images_of(FLAT, MASKS, ignore=255), "it does not say what pixels without a label are"),
        (images_of(FLAT.astype(np.uint16), MASKS), "it is defined for grey or colour images of 8 bits"),
        (images_of(FLAT.repeat(2, axis=1), MASKS), "it is defined for grey or colour images of 8 bits"),
        (images_of(FLAT, MASKS), "no mask has a structure whose grey levels differ from the rest"),
    ],
    ids=["volume", "signal", "classes", "ignored", "16 bits", "two channels", "empty"],
)
def test_what_the_heuristic_does_not_define_is_said(data: us.SegmentationData, reason: str) -> None:
    structures = structure_facts(data)
    assert structures == {"undefined": reason}
    facts = {"data": {"train": {"image size": [8, 8], "structures": structures}}}
    heuristic = planned_depths(facts)[1]
    assert heuristic.depth is None
    assert heuristic.sentence.startswith(f"Receptive-field heuristic: says nothing: {reason} (Loos et al.")


def test_the_page_and_the_verdict_have_a_sentence_for_each_rule() -> None:
    about = {"image size": [128, 128], "structures": {"size": 101.7, "contrast": 0.17, "separable share": 1.0}}
    planner, heuristic = planned_depths({"data": {"train": about}})
    assert planner.depth == 5
    assert "5×5 halvings of patches of 128×128" in planner.sentence
    assert heuristic.depth == 4  # 100 pixels of depth 3 are fewer than 101
    assert (
        "structures of 102 pixels and a grey contrast of 0.17 ask for 101 pixels, which this depth sees first (204)"
        in (heuristic.sentence)
    )
    assert heuristic.as_dict()["source"] == "Loos et al., JMI 11(5):054004; recommend_trf"


@pytest.mark.parametrize(
    ("about", "rule", "text"),
    [
        ({"image size": [64, 64]}, 1, "the run was begun by an earlier version"),
        (
            {"image size": [16, 16], "structures": {"size": 15.0, "contrast": 0.001, "separable share": 0.0}},
            1,
            "ask for 1500 pixels, more than a U-Net on images of 16×16 can see",
        ),
        ({"image size": [512]}, 0, "it is defined for images of two or three axes"),
    ],
)
def test_a_rule_that_gives_no_depth_says_why(about: dict[str, Any], rule: int, text: str) -> None:
    planned = planned_depths({"data": {"probe set": about}})[rule]
    assert planned.depth is None
    assert text in planned.sentence


def test_a_run_without_images_in_its_facts_plans_nothing() -> None:
    assert planned_depths({}) == ()


@pytest.mark.parametrize(
    "structures", [{"size": 3.0}, {"size": -1, "contrast": 1, "separable share": 1}, {"size": "x"}]
)
def test_damaged_facts_are_refused(tmp_path: Path, structures: dict[str, Any]) -> None:
    run = made_run(tmp_path / "run", [0, 1, 10])
    with edited_config(run.path) as about:
        about["facts"].setdefault("data", {}).setdefault("train", {})["structures"] = structures
    with pytest.raises(RunFolderError, match=r"config\.json: facts\.data\.train\.structures"):
        AnalysedRun.open(run.path)
