"""Quantities over the layers of a network at one epoch or along training: gains at merges, limits, steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from unetscope.analysis import neighbours
from unetscope.base import InvalidArgument
from unetscope.plots.information import tick_names
from unetscope.plots.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    LARGE,
    MEDIUM,
    SKY,
    SMALL,
    VERMILLION,
    epochs_on_axis,
    in_style,
    new_axes,
    new_figure,
    series_line,
    shown,
    tidy,
)
from unetscope.table import Estimate, Flow, Quantity, Series, Skip

FURTHER = 0.05  # bits between an estimate and its limit from which an arrow is drawn
_LINES: tuple[tuple[Quantity, str, str], ...] = (
    (Quantity.USABLE_SKIP_GIVEN_UPSAMPLED, BLUE, "the skip adds, I_V(S→Y|U)"),
    (Quantity.USABLE_UPSAMPLED_GIVEN_SKIP, VERMILLION, "the deeper path adds, I_V(U→Y|S)"),
    (Quantity.USABLE_SKIP_GIVEN_POOLED, GREEN, "and to itself pooled, I_V(S→Y|U,↓S)"),
    (Quantity.USABLE_SHARED, FAINT, "both hold, I_V(S;U→Y)"),
)


@in_style
def merge_gains(flow: Flow, *, estimator: str | None = None, figure: Figure | SubFigure | None = None) -> NDArray[Any]:
    """A panel for each skip, the deepest first: bits a pixel that it and the upsampled path add to each other, by epoch.

    Bands are 95 % intervals over held-out images. What both hold is negative where they have more together than separately.
    Returns the panels.

    Raises: InvalidArgument if nothing of the kind was measured, or the flow has no skips.
    """
    if not flow.skips:
        raise InvalidArgument("no merge to plot: the flow names no skips")
    skips = tuple(reversed(flow.skips))
    measured = {series.key.quantity for series in flow.series if estimator in (None, series.key.estimator)}
    lines = [
        line for line in _LINES if line[0] in measured or line[0] != Quantity.USABLE_SKIP_GIVEN_POOLED
    ]  # which linear probes do not measure
    gains = [flow.series_of(quantity, estimator) for quantity, _, _ in lines]
    epochs = gains[0].epochs
    wide = len(skips) > 2
    figure = new_figure(figure, max(1.9 * len(skips) + 0.6, 3.2), 2.9 if wide else 3.3)
    panels = figure.subplots(1, len(skips), sharey=True, squeeze=False)[0]
    for panel, skip in zip(panels, skips, strict=True):
        tidy(panel)
        panel.axhline(0, color=FAINT, linewidth=0.6, label="_zero")
        for series, (_, colour, label) in zip(gains, lines, strict=True):
            _draw_gain(panel, series, skip, colour, label)
        panel.set_title(f"{shown(skip.name, 14)} into layer {shown(skip.merge, 10)}", fontsize=MEDIUM)
        epochs_on_axis(panel, epochs[0], epochs[-1])
    panels[0].set_ylabel("bits a pixel", fontsize=MEDIUM)
    figure.suptitle(f"What each merge joins\n{series_line(gains[0])}", fontsize=LARGE)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(lines) if wide else 1,
        frameon=False,
    )
    return np.asarray(panels)


def _draw_gain(panel: Any, series: Series, skip: Skip, colour: str, label: str) -> None:
    epochs = series.epochs
    low, high = np.array([series.interval(skip.merge, epoch) for epoch in epochs]).T
    panel.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    bits = [series.bits(skip.merge, epoch) for epoch in epochs]
    panel.plot(epochs, bits, color=colour, linewidth=1.1, marker="o", markersize=2.4, label=label)


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
    """The estimate of a quarter, of half and of all images for each layer at one epoch, and its limit for more images.

    The limit has a 95 % interval where the estimate is in its domain; where it is not, or is saturated, an arrow points to
    the limit. An estimate whose curve has not flattened depends on the number of images. None stands for the first series
    measured, and for the last epoch.

    Raises: InvalidArgument, with what was measured, if what is asked for was not.
    """
    quantity = Quantity(quantity)
    series = flow.series_of(quantity, estimator, resolution, labels)
    epoch = series.measured_epoch(epoch)
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
    """The limit of one layer with its interval, or an arrow to a limit without one that differs from the estimate."""
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
    epoch = series.measured_epoch(epoch)
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
