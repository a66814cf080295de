"""The step of an estimate from each layer to the next, and whether it is more than chance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes

from unetscope.base import InvalidArgument
from unetscope.plots.style import BLUE, FAINT, INK, LARGE, MEDIUM, SMALL, in_style, new_axes, series_line, shown, tidy
from unetscope.table import Flow, Interval, Quantity, Series, difference


@dataclass(frozen=True)
class Neighbours:
    """Two layers that follow each other, and by how many bits the second is above the first; none where one has no number."""

    first: str
    second: str
    step: Interval | None

    @property
    def apart(self) -> bool:
        """Whether the 95 % interval of the difference leaves out zero."""
        return self.step is not None and (self.step.low > 0 or self.step.high < 0)


def neighbours(
    flow: Flow,
    *,
    quantity: str = Quantity.USABLE,
    estimator: str | None = None,
    resolution: float | None = None,
    labels: str | None = None,
    epoch: int | None = None,
) -> list[Neighbours]:
    """The steps from layer to layer at one epoch (by default the last), paired over images; of a merge, after the joining.

    Raises: InvalidArgument, with what was measured, if what is asked for was not.
    """
    quantity = Quantity(quantity)
    series = flow.series_of(quantity, estimator, resolution, labels)
    return _steps(flow, series, _epoch(series, epoch))


def _epoch(series: Series, epoch: int | None) -> int:
    if epoch is not None and epoch not in series.epochs:
        raise InvalidArgument(
            f"epoch {epoch} not measured for {series.key.quantity}: measured are {', '.join(map(str, series.epochs))}"
        )
    return series.epochs[-1] if epoch is None else epoch


def _steps(flow: Flow, series: Series, epoch: int) -> list[Neighbours]:
    numbered = [layer.label for layer in flow.layers if layer.role != "upsampled" or layer.parts]
    steps = []
    for first, second in pairwise(numbered):
        before, after = (series.estimates.get((label, epoch)) for label in (first, second))
        paired = before is not None and after is not None and before.per_image and after.per_image
        steps.append(Neighbours(first, second, difference(after, before) if paired and before and after else None))
    return steps


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
    Raises as `neighbours`.
    """
    quantity = Quantity(quantity)
    series = flow.series_of(quantity, estimator, resolution, labels)
    epoch = _epoch(series, epoch)
    pairs = _steps(flow, series, epoch)
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
