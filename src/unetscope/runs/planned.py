"""The depth that published rules would plan for a run's images, beside its verdicts; from the run's facts alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unetscope.analysis import (
    SEPARABLE_CONTRAST,
    depth_of_field,
    grey_contrast,
    nnunet_plan,
    receptive_field,
    recommended_field,
    structure_sizes,
)
from unetscope.data import GREY_WEIGHTS, SegmentationData

MOST_IMAGES = 1000  # that are looked at for structures, evenly spaced
NNUNET = "nnU-Net's planner"
FIELD = "Receptive-field heuristic"
SOURCES = {
    NNUNET: "Isensee et al., Nature Methods 18:203; nnunetv2, ExperimentPlanner",
    FIELD: "Loos et al., JMI 11(5):054004; recommend_trf",
}


@dataclass(frozen=True)
class PlannedDepth:
    """What a published rule says of the depth. depth: levels below full resolution; None where the rule says nothing."""

    rule: str
    depth: int | None
    text: str

    @property
    def sentence(self) -> str:
        """All of it in a line, with its source."""
        planned = "says nothing" if self.depth is None else f"depth {self.depth}"
        return f"{self.rule}: {planned}: {self.text} ({SOURCES[self.rule]})."

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {**asdict(self), "source": SOURCES[self.rule]}


def structure_facts(data: SegmentationData) -> dict[str, Any]:
    """The structures in the masks of data, as the receptive-field heuristic reads them; or why it is not defined for them."""
    for is_other, reason in (
        (len(data.image_size) != 2, "it is defined for flat images"),
        (data.classes > 2, "it is defined for binary masks"),
        (data.ignore is not None, "it does not say what pixels without a label are"),
        (
            data.images.dtype != np.uint8 or data.channels not in (1, 3),
            "it is defined for grey or colour images of 8 bits",
        ),
    ):
        if is_other:
            return {"undefined": reason}
    rows = np.unique(np.linspace(0, len(data) - 1, min(len(data), MOST_IMAGES)).round().astype(int))
    sizes = [size for row in rows for size in structure_sizes(data.masks[row])]
    contrasts = np.array([grey_contrast(_grey(data.images[row]), data.masks[row]) for row in rows])
    contrasts = contrasts[np.isfinite(contrasts)]
    if not sizes or not contrasts.sum() > 0:
        return {"undefined": "no mask has a structure whose grey levels differ from the rest"}
    return {
        "size": float(np.mean(sizes)),
        "contrast": float(contrasts.mean()),
        "separable share": float((contrasts >= SEPARABLE_CONTRAST).mean()),
    }


def _grey(image: Any) -> Any:
    """The grey levels of an image [1 or 3, height, width] of 8 bits, as OpenCV reads it."""
    return image[0] if len(image) == 1 else np.tensordot(GREY_WEIGHTS, image, axes=1).round()


def planned_depths(facts: Mapping[str, Any]) -> tuple[PlannedDepth, ...]:
    """What each rule plans for the images that a run's facts describe; none if they describe no images.

    >>> images = {"image size": [128, 128], "structures": {"size": 20.4, "contrast": 0.17, "separable share": 0.9}}
    >>> [(planned.rule, planned.depth) for planned in planned_depths({"data": {"train": images}})]
    [("nnU-Net's planner", 5), ('Receptive-field heuristic', 2)]
    """
    data = facts.get("data", {})
    images = data.get("train") or data.get("probe set") or {}
    size = tuple(images.get("image size", ()))
    return (_nnunet(size, images.get("classes", 2)), _field(size, images.get("structures"))) if size else ()


def _nnunet(size: tuple[int, ...], classes: int) -> PlannedDepth:
    if len(size) not in (2, 3):
        return PlannedDepth(NNUNET, None, "it is defined for images of two or three axes")
    plan = nnunet_plan(size, [1.0] * len(size), classes)
    return PlannedDepth(
        NNUNET,
        plan.depth,
        f"{_sides(plan.poolings)} halvings of patches of {_sides(plan.patch)}. It reads the size of the images, and their "
        "spacing, which a run does not keep and is taken as equal; not the masks, and not what a training needs",
    )


def _field(size: tuple[int, ...], structures: Mapping[str, Any] | None) -> PlannedDepth:
    if not structures:
        return PlannedDepth(FIELD, None, "the run was begun by an earlier version, which kept nothing of its masks")
    if "undefined" in structures:
        return PlannedDepth(FIELD, None, structures["undefined"])
    pixels = recommended_field(structures["size"], structures["contrast"], structures["separable share"])
    depth, deepest = depth_of_field(pixels), int(math.log2(min(size)))
    asked = f"structures of {structures['size']:.0f} pixels and a grey contrast of {structures['contrast']:.2f} "
    asked += f"ask for {pixels} pixels"
    if depth > deepest:
        return PlannedDepth(FIELD, None, f"{asked}, more than a U-Net on images of {_sides(size)} can see")
    return PlannedDepth(
        FIELD,
        depth,
        f"{asked}, which this depth sees first ({receptive_field(depth)}). It reads masks and grey levels, and not what a "
        "training needs; the step from pixels to a depth is not in the rule",
    )


def _sides(sizes: tuple[int, ...]) -> str:
    return "×".join(map(str, sizes))
