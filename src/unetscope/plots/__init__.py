"""Figures of a measurement: architecture, clusters, information planes, U-Plots, gains at merges, sweeps of the resolution,
limits for many images, Dice curves, predicted masks, verdicts and retrained variants. Every function takes and
returns matplotlib axes, selects no backend, opens no window and does not change the global rcParams.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
