"""The data room: images and masks from outside, checked, decoded and at one size.

`load`, `check` and `synthetic_nuclei` are the doors; `paper_split` gives the published split of the 2018 Data Science
Bowl, `fetch` downloads it, and `shared_images` finds validation images that were trained on. Names are imported when they are
first used: who only holds images needs no decoder.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unetscope.data.bbbc038 import paper_split
    from unetscope.data.datasets import from_dataset
    from unetscope.data.download import fetch
    from unetscope.data.loading import check, load, shared_images
    from unetscope.data.problems import KINDS, Problem
    from unetscope.data.segmentation import SegmentationData
    from unetscope.data.synthetic import synthetic_nuclei
    from unetscope.data.volumes import load_nifti, load_nnunet

_MODULE_OF = {
    "KINDS": "problems",
    "Problem": "problems",
    "SegmentationData": "segmentation",
    "check": "loading",
    "fetch": "download",
    "from_dataset": "datasets",
    "load": "loading",
    "load_nifti": "volumes",
    "load_nnunet": "volumes",
    "paper_split": "bbbc038",
    "shared_images": "loading",
    "synthetic_nuclei": "synthetic",
}

__all__ = [
    "KINDS",
    "Problem",
    "SegmentationData",
    "check",
    "fetch",
    "from_dataset",
    "load",
    "load_nifti",
    "load_nnunet",
    "paper_split",
    "shared_images",
    "synthetic_nuclei",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'unetscope.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"unetscope.data.{_MODULE_OF[name]}"), name)
