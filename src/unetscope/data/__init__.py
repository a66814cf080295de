"""The data room: images and masks from outside, checked, decoded and at one size. Imports errors and files only.

`load`, `check` and `synthetic_nuclei` are the doors; `paper_split` gives the published split of the 2018 Data Science
Bowl, `fetch` downloads it, and `shared_images` finds validation images that were trained on.
"""

from unetscope.data.bbbc038 import paper_split
from unetscope.data.fetch import fetch
from unetscope.data.loading import check, load, shared_images
from unetscope.data.problems import KINDS, Problem
from unetscope.data.segmentation import SegmentationData
from unetscope.data.synthetic import synthetic_nuclei

__all__ = [
    "KINDS",
    "Problem",
    "SegmentationData",
    "check",
    "fetch",
    "load",
    "paper_split",
    "shared_images",
    "synthetic_nuclei",
]
