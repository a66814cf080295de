"""See how information flows through a U-Net, which parts of it your task needs, and prove it by retraining.

Names are imported when they are first used, so that `import unetscope` costs next to nothing and tables and figures
never load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from unetscope import plots
    from unetscope.ablation import silenced, without_skips
    from unetscope.config import TrainingConfig
    from unetscope.data import (
        SegmentationData,
        check,
        fetch,
        from_dataset,
        load,
        load_nifti,
        load_nnunet,
        paper_split,
        planted_task,
        synthetic_nuclei,
    )
    from unetscope.descents import dpi_violations
    from unetscope.errors import UnetscopeError
    from unetscope.estimators.binning import Binning
    from unetscope.estimators.families import Convolutional, Linear
    from unetscope.estimators.kde import KDE
    from unetscope.estimators.ksg import KSG
    from unetscope.estimators.mixture import Mixture
    from unetscope.estimators.renyi import Renyi
    from unetscope.flow import Flow
    from unetscope.integrations.lightning import UnetscopeCallback
    from unetscope.integrations.monai import UnetscopeHandler
    from unetscope.intervals import Interval, difference
    from unetscope.labels import BlockLabels, KMeansLabels
    from unetscope.measure import Scope
    from unetscope.models import load_model, save_model
    from unetscope.rankings import ranking
    from unetscope.recorder import Recorder
    from unetscope.records import EpochRecord, Estimate, Layer, Skip, Verdict
    from unetscope.slimming import Slim, slim
    from unetscope.store import RunFolder
    from unetscope.structure import Structure, inspect
    from unetscope.trackers import track
    from unetscope.training import Trainer
    from unetscope.unet import UNet
    from unetscope.verdict import Judgement, judge
    from unetscope.verification import Verification, verify

_ROOMS = {
    "unetscope.ablation": ("silenced", "without_skips"),
    "unetscope.config": ("TrainingConfig",),
    "unetscope.data": (
        "SegmentationData",
        "check",
        "fetch",
        "from_dataset",
        "load",
        "load_nifti",
        "load_nnunet",
        "paper_split",
        "planted_task",
        "synthetic_nuclei",
    ),
    "unetscope.descents": ("dpi_violations",),
    "unetscope.errors": ("UnetscopeError",),
    "unetscope.estimators.binning": ("Binning",),
    "unetscope.estimators.families": ("Convolutional", "Linear"),
    "unetscope.estimators.kde": ("KDE",),
    "unetscope.estimators.ksg": ("KSG",),
    "unetscope.estimators.mixture": ("Mixture",),
    "unetscope.estimators.renyi": ("Renyi",),
    "unetscope.integrations.lightning": ("UnetscopeCallback",),
    "unetscope.integrations.monai": ("UnetscopeHandler",),
    "unetscope.intervals": ("Interval", "difference"),
    "unetscope.flow": ("Flow",),
    "unetscope.labels": ("BlockLabels", "KMeansLabels"),
    "unetscope.measure": ("Scope",),
    "unetscope.models": ("load_model", "save_model"),
    "unetscope.rankings": ("ranking",),
    "unetscope.recorder": ("Recorder",),
    "unetscope.records": ("EpochRecord", "Estimate", "Layer", "Skip", "Verdict"),
    "unetscope.slimming": ("Slim", "slim"),
    "unetscope.store": ("RunFolder",),
    "unetscope.structure": ("Structure", "inspect"),
    "unetscope.trackers": ("track",),
    "unetscope.training": ("Trainer",),
    "unetscope.unet": ("UNet",),
    "unetscope.verdict": ("Judgement", "judge"),
    "unetscope.verification": ("Verification", "verify"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "KDE",
    "KSG",
    "Binning",
    "BlockLabels",
    "Convolutional",
    "EpochRecord",
    "Estimate",
    "Flow",
    "Interval",
    "Judgement",
    "KMeansLabels",
    "Layer",
    "Linear",
    "Mixture",
    "Recorder",
    "Renyi",
    "RunFolder",
    "Scope",
    "SegmentationData",
    "Skip",
    "Slim",
    "Structure",
    "Trainer",
    "TrainingConfig",
    "UNet",
    "UnetscopeCallback",
    "UnetscopeError",
    "UnetscopeHandler",
    "Verdict",
    "Verification",
    "check",
    "difference",
    "dpi_violations",
    "fetch",
    "from_dataset",
    "inspect",
    "judge",
    "load",
    "load_model",
    "load_nifti",
    "load_nnunet",
    "paper_split",
    "planted_task",
    "plots",
    "ranking",
    "save_model",
    "silenced",
    "slim",
    "synthetic_nuclei",
    "track",
    "verify",
    "without_skips",
]


def __getattr__(name: str) -> Any:
    if name == "plots":
        return importlib.import_module("unetscope.plots")
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'unetscope' has no attribute {name!r}")
    return getattr(importlib.import_module(_ROOM_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
