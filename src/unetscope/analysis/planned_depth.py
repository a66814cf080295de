"""The depth that published rules plan for a U-Net before any is trained: nnU-Net's planner, and a receptive-field heuristic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

SMALLEST_EDGE = 4  # of nnU-Net's deepest feature map, in pixels
FEATURES, MOST_FEATURES = 32, {2: 512, 3: 320}  # of nnU-Net's stages, by number of axes
# The values that nnU-Net's default plan for 8 GB refers to: of a plan's feature maps, and the batch that they were counted at.
REFERENCE_VALUES, REFERENCE_BATCH = {2: 85_000_000, 3: 560_000_000}, {2: 12, 3: 2}
LARGEST_PATCH = {2: 2048, 3: 256}  # the edge of the isotropic patch that the planner starts from
FEWEST_IMAGES = 2  # in a batch
SEPARABLE_CONTRAST = 0.1  # at and above it, an image can be segmented by its grey levels
SMALL_FIELD = 54  # pixels: the heuristic's field where grey levels nearly decide
DEEPEST = 12


@dataclass(frozen=True)
class NnunetPlan:
    """patch: the size of a training patch. strides: of each stage after the first, by axis. poolings: by axis."""

    patch: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    @property
    def poolings(self) -> tuple[int, ...]:
        """How often each axis is halved."""
        return tuple(sum(stride[axis] == 2 for stride in self.strides) for axis in range(len(self.patch)))

    @property
    def depth(self) -> int:
        """The levels below full resolution."""
        return len(self.strides)


def nnunet_strides(size: Sequence[int], spacing: Sequence[float]) -> tuple[tuple[int, ...], ...]:
    """The strides of each stage after the first of the network that nnU-Net plans for patches of a size.

    Each stage halves (rounding up) every axis with an edge of 8 or more whose spacing is less than twice the finest of these,
    which doubles its spacing. A single axis is halved only from an edge of 12 on.

    Source: nnunetv2, network_topology.get_pool_and_conv_props, with the planner's UNet_featuremap_min_edge_length = 4 and
    without a limit of the number of poolings; Isensee et al., Nature Methods 18:203 (2021).

    >>> nnunet_strides((20, 320), (1.0, 1.0))       # halved together twice; 5 is too small, 80 goes on alone until 10
    ((2, 2), (2, 2), (1, 2), (1, 2), (1, 2))
    """
    edges, steps = list(size), list(spacing)
    strides: list[tuple[int, ...]] = []
    while True:
        large = [axis for axis, edge in enumerate(edges) if edge >= 2 * SMALLEST_EDGE]
        finest = min((steps[axis] for axis in large), default=math.inf)
        halved = {axis for axis in large if steps[axis] / finest < 2}
        if not halved or (len(halved) == 1 and edges[min(halved)] < 3 * SMALLEST_EDGE):
            return tuple(strides)
        strides.append(tuple(2 if axis in halved else 1 for axis in range(len(edges))))
        for axis in halved:
            edges[axis], steps[axis] = math.ceil(edges[axis] / 2), 2 * steps[axis]


def nnunet_plan(size: Sequence[float], spacing: Sequence[float], labels: int = 2) -> NnunetPlan:
    """The patch and the stages of nnU-Net's default configuration (8 GB) for images of a median size.

    The patch begins as isotropic as the spacing allows, no larger than the images, and is padded until its poolings divide it.
    While the feature maps of its network, at a batch of two, exceed the reference, the axis that is the largest beside the
    images loses one step, and the stages are planned anew.

    labels: classes with the background. Source: nnunetv2, ExperimentPlanner.get_plans_for_configuration.

    >>> nnunet_plan((512, 512), (1.0, 1.0)).poolings
    (7, 7)
    >>> plan = nnunet_plan((252, 512, 512), (1.245, 0.785, 0.785))      # the lungs of the Medical Segmentation Decathlon
    >>> plan.patch, plan.poolings
    ((80, 192, 160), (4, 5, 5))
    """
    axes = len(spacing)
    fineness = 1 / np.asarray(spacing, dtype=np.float64)
    start = fineness * (LARGEST_PATCH[axes] ** axes / fineness.prod()) ** (1 / axes)
    patch = [min(round(edge), most) for edge, most in zip(start, size, strict=True)]
    strides = nnunet_strides(patch, spacing)
    patch = _padded(patch, strides)
    while _feature_maps(patch, strides, labels) / REFERENCE_BATCH[axes] * FEWEST_IMAGES > REFERENCE_VALUES[axes]:
        axis = int(np.argsort([edge / most for edge, most in zip(patch, size, strict=True)])[-1])
        smaller = list(patch)
        smaller[axis] -= _divisors(strides, axes)[axis]  # planned for this one, so that no valid size is skipped
        patch[axis] -= _divisors(nnunet_strides(smaller, spacing), axes)[axis]
        strides = nnunet_strides(patch, spacing)
        patch = _padded(patch, strides)
    return NnunetPlan(tuple(patch), strides)


def _divisors(strides: Sequence[Sequence[int]], axes: int) -> list[int]:
    return [math.prod(stride[axis] for stride in strides) for axis in range(axes)]


def _padded(patch: Sequence[float], strides: Sequence[Sequence[int]]) -> list[int]:
    """The next size up that all poolings divide."""
    return [int(math.ceil(edge / by) * by) for edge, by in zip(patch, _divisors(strides, len(patch)), strict=True)]


def _feature_maps(patch: Sequence[int], strides: Sequence[Sequence[int]], labels: int) -> int:
    """The values of all convolutions' outputs: two a stage on either side, one of each upsampling, one of the labels."""
    axes = len(patch)
    sizes = [list(patch)]
    for stride in strides:
        sizes.append([edge // by for edge, by in zip(sizes[-1], stride, strict=True)])
    features = [min(MOST_FEATURES[axes], FEATURES * 2**stage) for stage in range(len(sizes))]
    encoder = sum(2 * channels * math.prod(size) for channels, size in zip(features, sizes, strict=True))
    decoder = sum(3 * channels * math.prod(size) for channels, size in zip(features[:-1], sizes[:-1], strict=True))
    return encoder + decoder + labels * math.prod(sizes[0])


def receptive_field(depth: int, kernel: int = 3) -> int:
    """The theoretical receptive field, in pixels a side, of an output of a U-Net with two convolutions a level and side.

    A window of w places in a decoder grows by 2 (kernel − 1), and reads at most ⌊w/2⌋ + 1 places of the level below; in the
    encoder w places read 2 w, and then 2 (kernel − 1) more.

    Source: Loos et al., JMI 11(5):054004 (2024), whose configurations are named by it.

    >>> [receptive_field(depth) for depth in (3, 4, 5)], receptive_field(3, kernel=2)    # trf100, trf204, trf412, trf54
    ([100, 204, 412], 54)
    """
    grown = 2 * (kernel - 1)
    window = 1
    for _ in range(depth):
        window = (window + grown) // 2 + 1
    window += grown
    for _ in range(depth):
        window = 2 * window + grown
    return window


def recommended_field(structure_size: float, contrast: float, separable_share: float) -> int:
    """The receptive field, in pixels, that the heuristic of Loos et al. recommends.

    If grey levels tell the structures apart in most images, 54 pixels where they barely do (a mean contrast below 0.15), else
    the mean size of a structure. If they do not, that size divided by contrast / 0.1.

    structure_size: the mean of `structure_sizes`. contrast: the mean of `grey_contrast`. separable_share: of the images whose
    contrast is 0.1 or more.

    Source: recommend_trf in recommender-tool/tool.py of github.com/vinloo/u-net-receptive-field-study, of Loos et al., JMI
    11(5):054004 (2024), PMC11520766.

    >>> recommended_field(101, 0.1666, 1.0), recommended_field(187, 0.1496, 1.0), recommended_field(159, 0.0485, 0.0)
    (101, 54, 327)
    """
    pixels = int(structure_size)
    if separable_share > 0.5:
        return SMALL_FIELD if SEPARABLE_CONTRAST < contrast < 1.5 * SEPARABLE_CONTRAST else pixels
    return int(pixels / (contrast / SEPARABLE_CONTRAST))


def depth_of_field(pixels: float) -> int:
    """The shallowest depth whose receptive field reaches so many pixels. This step is not in the published rule.

    >>> depth_of_field(54), depth_of_field(101), depth_of_field(10**9)
    (3, 4, 12)
    """
    return next(depth for depth in count(1) if receptive_field(depth) >= pixels or depth == DEEPEST)
