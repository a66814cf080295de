"""What each merge joins, along training."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from unetscope.base import InvalidArgument
from unetscope.plots.style import (
    BLUE,
    FAINT,
    GREEN,
    LARGE,
    MEDIUM,
    VERMILLION,
    epochs_on_axis,
    in_style,
    new_figure,
    series_line,
    shown,
    tidy,
)
from unetscope.table import Flow, Quantity, Series, Skip

_LINES: tuple[tuple[Quantity, str, str], ...] = (
    (Quantity.USABLE_SKIP_GIVEN_UPSAMPLED, BLUE, "the skip adds, I_V(S→Y|U)"),
    (Quantity.USABLE_UPSAMPLED_GIVEN_SKIP, VERMILLION, "the deeper path adds, I_V(U→Y|S)"),
    (Quantity.USABLE_SKIP_GIVEN_POOLED, GREEN, "and to itself pooled, I_V(S→Y|U,↓S)"),
    (Quantity.USABLE_SHARED, FAINT, "both hold, I_V(S;U→Y)"),
)


@in_style
def merge_gains(flow: Flow, *, estimator: str | None = None, figure: Figure | SubFigure | None = None) -> NDArray[Any]:
    """A panel for each skip, the deepest first: bits a pixel that it and the upsampled path add to each other, by epoch.

    Bands are 95 % intervals over held-out images. What both hold is negative where they tell more together than apart.
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
            _draw(panel, series, skip, colour, label)
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


def _draw(panel: Any, series: Series, skip: Skip, colour: str, label: str) -> None:
    epochs = series.epochs
    low, high = np.array([series.interval(skip.merge, epoch) for epoch in epochs]).T
    panel.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    bits = [series.bits(skip.merge, epoch) for epoch in epochs]
    panel.plot(epochs, bits, color=colour, linewidth=1.1, marker="o", markersize=2.4, label=label)
