"""Figures of a measurement: architecture, clusters, information planes, U-Plots, gains at merges, sweeps of the resolution,
limits for many images, Dice curves, predicted masks, verdicts and retrained variants. Every function takes and
returns matplotlib axes, selects no backend, opens no window and does not change the global rcParams.
"""

from __future__ import annotations

import warnings
from typing import Any

import lazy_loader

_lazy_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "neighbours":
        from unetscope.analysis import neighbours

        warnings.warn(
            "unetscope.plots.neighbours is unetscope.analysis.neighbours now; the old name ends with the next version",
            DeprecationWarning,
            stacklevel=2,
        )
        return neighbours
    return _lazy_name(name)
