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
    from unetscope.analysis.data_processing import dpi_violations
    from unetscope.analysis.outcomes import Verification
    from unetscope.analysis.rank_stability import ranking
    from unetscope.analysis.verdict import Judgement, judge
    from unetscope.base.errors import UnetscopeError
    from unetscope.data import (
        SegmentationData,
        check,
        fetch,
        from_dataset,
        load,
        load_nifti,
        load_nnunet,
        paper_split,
        synthetic_nuclei,
    )
    from unetscope.estimators.binning import Binning
    from unetscope.estimators.families import Convolutional, Linear
    from unetscope.estimators.kde import KDE
    from unetscope.estimators.ksg import KSG
    from unetscope.estimators.labels import BlockLabels, KMeansLabels
    from unetscope.estimators.mixture import Mixture
    from unetscope.estimators.renyi import Renyi
    from unetscope.measure.scope import Scope
    from unetscope.networks.ablation import silenced, without_skips
    from unetscope.networks.saved import load_model, save_model
    from unetscope.networks.skip_detection import Structure, inspect
    from unetscope.networks.unet import UNet
    from unetscope.runs.folder import RunFolder
    from unetscope.runs.integrations.lightning import UnetscopeCallback
    from unetscope.runs.integrations.monai import UnetscopeHandler
    from unetscope.runs.recorder import Recorder
    from unetscope.runs.slimming import Slim, slim
    from unetscope.runs.trackers import track
    from unetscope.runs.verification import verify
    from unetscope.table.flow import Flow
    from unetscope.table.intervals import Interval, difference
    from unetscope.table.records import EpochRecord, Estimate, Layer, Skip, Verdict
    from unetscope.training.config import TrainingConfig
    from unetscope.training.trainer import Trainer

_ROOMS = {
    "unetscope.networks.ablation": ("silenced", "without_skips"),
    "unetscope.training.config": ("TrainingConfig",),
    "unetscope.data": (
        "SegmentationData",
        "check",
        "fetch",
        "from_dataset",
        "load",
        "load_nifti",
        "load_nnunet",
        "paper_split",
        "synthetic_nuclei",
    ),
    "unetscope.analysis.data_processing": ("dpi_violations",),
    "unetscope.base.errors": ("UnetscopeError",),
    "unetscope.estimators.binning": ("Binning",),
    "unetscope.estimators.families": ("Convolutional", "Linear"),
    "unetscope.estimators.kde": ("KDE",),
    "unetscope.estimators.ksg": ("KSG",),
    "unetscope.estimators.mixture": ("Mixture",),
    "unetscope.estimators.renyi": ("Renyi",),
    "unetscope.runs.integrations.lightning": ("UnetscopeCallback",),
    "unetscope.runs.integrations.monai": ("UnetscopeHandler",),
    "unetscope.table.intervals": ("Interval", "difference"),
    "unetscope.table.flow": ("Flow",),
    "unetscope.estimators.labels": ("BlockLabels", "KMeansLabels"),
    "unetscope.measure.scope": ("Scope",),
    "unetscope.networks.saved": ("load_model", "save_model"),
    "unetscope.analysis.rank_stability": ("ranking",),
    "unetscope.runs.recorder": ("Recorder",),
    "unetscope.table.records": ("EpochRecord", "Estimate", "Layer", "Skip", "Verdict"),
    "unetscope.runs.slimming": ("Slim", "slim"),
    "unetscope.runs.folder": ("RunFolder",),
    "unetscope.networks.skip_detection": ("Structure", "inspect"),
    "unetscope.runs.trackers": ("track",),
    "unetscope.training.trainer": ("Trainer",),
    "unetscope.networks.unet": ("UNet",),
    "unetscope.analysis.verdict": ("Judgement", "judge"),
    "unetscope.analysis.outcomes": ("Verification",),
    "unetscope.runs.verification": ("verify",),
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
