"""Figures of a measurement: architecture, clusters, information planes, U-Plots, gains at merges, sweeps of the resolution,
limits for many images, Dice curves, predicted masks, verdicts and retrained variants. Every function takes and
returns matplotlib axes, selects no backend, opens no window and leaves the global rcParams as they were.
"""

from unetscope.plots.drawing import architecture
from unetscope.plots.images import masks_by_cluster, predictions
from unetscope.plots.information import information_plane
from unetscope.plots.limits import image_limits
from unetscope.plots.merges import merge_gains
from unetscope.plots.neighbours import neighbour_steps, neighbours
from unetscope.plots.resolution import resolution_sweep
from unetscope.plots.style import save
from unetscope.plots.training import dice_curves
from unetscope.plots.u import u_plot
from unetscope.plots.verdicts import dice_bands, outcomes, verdict_map

__all__ = [
    "architecture",
    "dice_bands",
    "dice_curves",
    "image_limits",
    "information_plane",
    "masks_by_cluster",
    "merge_gains",
    "neighbour_steps",
    "neighbours",
    "outcomes",
    "predictions",
    "resolution_sweep",
    "save",
    "u_plot",
    "verdict_map",
]
