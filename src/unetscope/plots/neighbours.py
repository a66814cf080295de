"""The step of an estimate from each layer to the next."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes

from unetscope.analysis import neighbours
from unetscope.plots.style import BLUE, FAINT, INK, LARGE, MEDIUM, SMALL, in_style, new_axes, series_line, shown, tidy
from unetscope.table import Flow, Quantity


@in_style
def neighbour_steps(
    flow: Flow,
    *,
    quantity: str = Quantity.USABLE,
    estimator: str | None = None,
    resolution: float | None = None,
    labels: str | None = None,
    epoch: int | None = None,
    axes: Axes | None = None,
) -> Axes:
    """The step from each layer to the next with its 95 % interval: filled where it leaves out zero, hollow where not.

    A cross is a step without a number: one of the layers is saturated or otherwise out of the estimator's domain.
    Raises as `unetscope.analysis.neighbours`.
    """
    quantity = Quantity(quantity)
    series = flow.series_of(quantity, estimator, resolution, labels)
    epoch = series.epochs[-1] if epoch is None else epoch
    pairs = neighbours(flow, quantity=quantity, estimator=estimator, resolution=resolution, labels=labels, epoch=epoch)
    axes = new_axes(axes, max(4.2, 0.26 * len(pairs) + 1.1), 2.6)
    tidy(axes)
    axes.axhline(0, color=FAINT, linewidth=0.6)
    for place, pair in enumerate(pairs):
        if pair.step is None:
            axes.plot(place, 0, "x", color=INK, markersize=4, markeredgewidth=0.8)
            continue
        off = [[pair.step.value - pair.step.low], [pair.step.high - pair.step.value]]
        face = BLUE if pair.apart else "white"
        axes.errorbar(
            place, pair.step.value, off, fmt="o", color=BLUE, markerfacecolor=face, markersize=3.6, linewidth=0.9,
            capsize=1.5, capthick=0.7,
        )  # fmt: skip
    names = [f"{shown(pair.first, 8)}→{shown(pair.second, 8)}" for pair in pairs]
    axes.set_xticks(np.arange(len(pairs)), names, rotation=90, fontsize=SMALL)
    axes.set_xlim(-0.7, len(pairs) - 0.3)
    if not any(pair.step is not None and math.isfinite(pair.step.low) for pair in pairs):
        axes.set_ylim(-1, 1)
    axes.set_ylabel(f"step, {quantity.unit}", fontsize=MEDIUM)
    axes.set_xlabel("from layer to layer", fontsize=MEDIUM)
    apart = sum(pair.apart for pair in pairs)
    axes.set_title(
        f"{quantity} tells {apart} of {len(pairs)} neighbouring pairs apart at epoch {epoch}\n{series_line(series)}",
        fontsize=LARGE,
    )
    return axes
