"""Where estimates go with the number of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from unetscope.base import InvalidArgument
from unetscope.plots.style import (
    FAINT,
    INK,
    LARGE,
    MEDIUM,
    SKY,
    SMALL,
    VERMILLION,
    in_style,
    new_axes,
    series_line,
    tidy,
)
from unetscope.plots.u import tick_names
from unetscope.table import Estimate, Flow, Quantity

FURTHER = 0.05  # bits between an estimate and its limit from which an arrow is drawn


@in_style
def image_limits(
    flow: Flow,
    *,
    quantity: str = Quantity.INPUT,
    estimator: str | None = None,
    resolution: float | None = None,
    labels: str | None = None,
    epoch: int | None = None,
    axes: Axes | None = None,
) -> Axes:
    """The estimate of a quarter, of half and of all images for each layer at one epoch, and where it goes with ever more.

    The limit has its 95 % interval where the estimate is in its domain; where it is not, or is saturated, an arrow points
    where it goes. An estimate whose curve has not flattened depends on the number of images. What is None stands for the
    first one measured, and the last epoch.

    Raises: InvalidArgument, with what was measured, if what is asked for was not.
    """
    quantity = Quantity(quantity)
    series = flow.series_of(quantity, estimator, resolution, labels)
    epoch = series.epochs[-1] if epoch is None else epoch
    rows = [series.estimates.get((layer.label, epoch)) for layer in flow.layers]
    if not any(row is not None and math.isfinite(row.extrapolated) for row in rows):
        raise InvalidArgument(f"no limit of {quantity} by {series.key.estimator} at epoch {epoch}")
    names, upright = tick_names([layer.label for layer in flow.layers])
    axes = new_axes(axes, max(0.218 * len(names) + 1.35, 4.2), 2.9)
    tidy(axes)
    _draw_shares(axes, rows, "training images" if quantity.is_usable else "images")
    for place, row in enumerate(rows):
        if row is not None and math.isfinite(row.extrapolated):
            _draw_limit(axes, place, row)
    axes.plot([], [], color=VERMILLION, marker="_", linestyle="none", label="limit, 95 %")
    further = "goes further than\nan interval could say"
    axes.plot([], [], color=VERMILLION, marker=r"$\uparrow$", linestyle="none", label=further)
    n = max(row.n for row in rows if row is not None)
    for ceiling in series.ceilings:
        axes.axhline(ceiling, color=FAINT, linewidth=0.8, linestyle=(0, (5, 3)), label=f"ceiling of {n} images")
    axes.margins(y=0.09)
    axes.set_xticks(np.arange(len(rows)), names, rotation=0 if upright else 90, fontsize=SMALL)
    axes.set_xlabel("layer, in network order", fontsize=MEDIUM)
    axes.set_ylabel(f"{quantity}, {quantity.unit}", fontsize=MEDIUM)
    title = f"{quantity} of fewer and of ever more images, epoch {epoch}\n{series_line(series)}"
    axes.set_title(title, fontsize=LARGE)
    axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1.02), borderaxespad=0.0, labelspacing=0.35)
    return axes


def _draw_shares(axes: Axes, rows: Sequence[Estimate | None], kind: str) -> None:
    """A line each for the estimates of a quarter, of half and of all images."""
    for field, colour, name in (
        ("quarter_bits", "#C9DCEB", f"a quarter of the {kind}"),
        ("half_bits", SKY, f"half of the {kind}"),
        ("bits", INK, f"all {kind}"),
    ):
        bits = [math.nan if row is None else getattr(row, field) for row in rows]
        axes.plot(np.arange(len(rows)), bits, color=colour, linewidth=1.1, marker="o", markersize=2.6, label=name)


def _draw_limit(axes: Axes, place: int, row: Estimate) -> None:
    """The limit of one layer with its interval; without one, an arrow to it if it lies elsewhere."""
    if math.isfinite(row.low):
        off = [[max(0.0, row.extrapolated - row.low)], [max(0.0, row.high - row.extrapolated)]]
        axes.errorbar(
            place, row.extrapolated, off, color=VERMILLION, fmt="_", markersize=4, linewidth=0.9, capsize=1.5,
            label="_limit",
        )  # fmt: skip
    elif abs(row.extrapolated - row.bits) > FURTHER:
        axes.annotate(
            "", (place, row.bits), (0, 9 if row.extrapolated > row.bits else -9), textcoords="offset points",
            arrowprops={"arrowstyle": "<-", "color": VERMILLION, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip
