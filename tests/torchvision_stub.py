"""There is no torchvision for a torch without CUDA. No network here needs its compiled half, but its import does."""

from __future__ import annotations

import importlib.util

import torch

_kept: list[torch.library.Library] = []


def declare() -> None:
    """Declare what the compiled half of torchvision would, if it is not there."""
    if _kept or importlib.util.find_spec("torchvision") is None or torch.version.cuda:
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
