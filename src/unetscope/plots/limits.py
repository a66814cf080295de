"""Where estimates go with the number of images."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes

from unetscope.base.errors import InvalidArgument
from unetscope.plots.selection import select
from unetscope.plots.style import FAINT, INK, LARGE, MEDIUM, SKY, SMALL, VERMILLION, in_style, new_axes, tidy
from unetscope.plots.u import tick_names
from unetscope.table.flow import Flow
from unetscope.table.quantities import Quantity

FURTHER = 0.05  # bits, from which an arrow says that a limit lies elsewhere


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

    The limit has its 95 % interval where the estimate is in its domain; where it is not, or is saturated, an arrow says which
    way it goes. An estimate whose curve has not flattened says how many images there were. What is None stands for the first
    one measured, and the last epoch.

    Raises: InvalidArgument, with what was measured, if what is asked for was not.
    """
    quantity = Quantity(quantity)
    selection = select(flow, quantity, estimator, resolution, labels)
    epoch = selection.epochs[-1] if epoch is None else epoch
    found = [selection.estimates.get((layer.label, epoch)) for layer in flow.layers]
    if not any(e is not None and math.isfinite(e.extrapolated) for e in found):
        raise InvalidArgument(f"no limit of {quantity} by {selection.estimator} at epoch {epoch}")
    names, upright = tick_names([layer.label for layer in flow.layers])
    axes = new_axes(axes, max(0.218 * len(names) + 1.35, 4.2), 2.9)
    tidy(axes)
    places = np.arange(len(found))
    n = max(e.n for e in found if e is not None)
    kind = "training images" if quantity.is_usable else "images"
    for share, colour, name in (
        ("quarter_bits", "#C9DCEB", f"a quarter of the {kind}"),
        ("half_bits", SKY, f"half of the {kind}"),
        ("bits", INK, f"all {kind}"),
    ):
        bits = [math.nan if e is None else getattr(e, share) for e in found]
        axes.plot(places, bits, color=colour, linewidth=1.1, marker="o", markersize=2.6, label=name)
    for place, e in zip(places, found, strict=True):
        if e is None or not math.isfinite(e.extrapolated):
            continue
        if math.isfinite(e.low):
            off = [[max(0.0, e.extrapolated - e.low)], [max(0.0, e.high - e.extrapolated)]]
            axes.errorbar(
                place,
                e.extrapolated,
                off,
                color=VERMILLION,
                fmt="_",
                markersize=4,
                linewidth=0.9,
                capsize=1.5,
                label="_limit",
            )
        elif abs(e.extrapolated - e.bits) > FURTHER:
            up = e.extrapolated > e.bits
            axes.annotate(
                "", (place, e.bits), (0, 9 if up else -9), textcoords="offset points",
                arrowprops={"arrowstyle": "<-", "color": VERMILLION, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 2},
            )  # fmt: skip
    axes.plot([], [], color=VERMILLION, marker="_", linestyle="none", label="limit, 95 %")
    axes.plot(
        [],
        [],
        color=VERMILLION,
        marker=r"$\uparrow$",
        linestyle="none",
        label="goes further than\nan interval could say",
    )
    for ceiling in selection.ceilings:
        axes.axhline(ceiling, color=FAINT, linewidth=0.8, linestyle=(0, (5, 3)), label=f"ceiling of {n} images")
    axes.margins(y=0.09)
    axes.set_xticks(places, names, rotation=0 if upright else 90, fontsize=SMALL)
    axes.set_xlabel("layer, in network order", fontsize=MEDIUM)
    axes.set_ylabel(f"{quantity}, {quantity.unit}", fontsize=MEDIUM)
    axes.set_title(f"{quantity} of fewer and of ever more images, epoch {epoch}\n{selection.text}", fontsize=LARGE)
    axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1.02), borderaxespad=0.0, labelspacing=0.35)
    return axes
