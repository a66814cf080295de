"""See how information flows through a U-Net, which parts of it your task needs, and prove it by retraining.

The names are listed in `__init__.pyi`, and each is imported when it is first used: `import unetscope` costs next to nothing,
and tables and figures never load torch.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import lazy_loader

__version__ = "0.2.0"

_lazy_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Names of version 0.1 that moved or were renamed: they go on for one version.
_MOVED = {
    "BlockLabels": "estimators.BlockLabels",
    "Convolutional": "estimators.Convolutional",
    "EpochRecord": "table.EpochRecord",
    "Estimate": "table.Estimate",
    "Interval": "table.Interval",
    "Judgement": "analysis.Judgement",
    "KSG": "estimators.KSG",
    "Layer": "table.Layer",
    "Linear": "estimators.Linear",
    "Mixture": "estimators.Mixture",
    "Renyi": "estimators.Renyi",
    "Skip": "table.Skip",
    "Slim": "runs.Slim",
    "Structure": "networks.Structure",
    "Verdict": "table.Verdict",
    "Verification": "analysis.Verification",
    "check": "data.check",
    "difference": "table.difference",
    "dpi_violations": "analysis.dpi_violations",
    "fetch": "data.fetch",
    "load_nifti": "data.load_nifti",
    "load_nnunet": "data.load_nnunet",
    "paper_split": "data.paper_split",
    "ranking": "analysis.layer_rank_stability",
    "save_model": "networks.save_model",
    "silenced": "networks.ablated",
    "track": "runs.track",
}


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        package, _, moved = _MOVED[name].rpartition(".")
        warnings.warn(
            f"unetscope.{name} is unetscope.{_MOVED[name]} now; the old name ends with the next version",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(importlib.import_module(f"unetscope.{package}"), moved)
    if name == "planted_task":
        raise AttributeError("unetscope.planted_task is in calibration/planted.py of the repository now")
    return _lazy_name(name)
