"""Information planes, a panel for each layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from unetscope.base import InvalidArgument
from unetscope.plots.style import (
    EPOCH_COLOURS,
    FAINT,
    INK,
    LARGE,
    MEDIUM,
    MERGE_BAND,
    SMALL,
    counted,
    epoch_norm,
    epoch_ticks,
    in_style,
    inches_of,
    is_merge,
    new_figure,
    series_line,
    shown,
    tidy,
)
from unetscope.table import Flow, Layer, Quantity, Series, Status


@in_style
def information_plane(
    flow: Flow,
    *,
    estimator: str | None = None,
    resolution: float | None = None,
    labels: str | None = None,
    figure: Figure | SubFigure | None = None,
) -> NDArray[Any]:
    """For each layer a panel with I(X;M) across and I(Y;M) up, both in bits, and a point for each marked epoch.

    Points are joined in the order of the epochs and coloured by them; thin dashed lines are the ceilings; a point is
    hollow where either estimate is saturated. Returns the panels in network order. An estimator, resolution or label scheme
    that is None stands for the first one measured.

    Source: Fig. 3 of Lee & Bajić 2021.
    Raises: InvalidArgument, with what was measured, if what is asked for was not, or if the flow has no layers.

    >>> from unetscope.table.records import Estimate
    >>> rows = [Estimate(0, "1", "I(X;M)", "kde_upper", 1.0, "", 2.0, 0.0, 3.0, 3.0, False, n=8, d=4),
    ...         Estimate(0, "1", "I(Y;M)", "kde_upper", 1.0, "halves", 0.5, 0.0, 1.0, 1.0, False, n=8, d=4)]
    >>> panels = information_plane(Flow((Layer("1", "conv1"),), (), tuple(rows)))
    >>> len(panels), panels[0].get_title()
    (1, '1')
    """
    across = flow.series_of(Quantity.INPUT, estimator, resolution)
    up = flow.series_of(Quantity.LABEL, across.key.estimator, across.key.resolution, labels)
    if not flow.layers:
        raise InvalidArgument("no layer to plot: the flow names none")
    rows, columns = _grid(len(flow.layers))
    note, title = _note(across, up), series_line(up)
    width = max(1.05 * columns + 1.3, inches_of(title, LARGE) + 0.2, inches_of(note, MEDIUM) + 0.2)
    figure = new_figure(figure, width, min(max(0.95 * (width - 1.3) / columns, 1.0), 1.8) * rows + 1.15)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for empty in grid.flat[len(flow.layers) :]:
        empty.remove()
    panels = grid.flatten()[: len(flow.layers)]
    epochs = sorted({*across.epochs, *up.epochs})
    for index, (panel, layer) in enumerate(zip(panels, flow.layers, strict=True)):
        _draw_layer(panel, layer, across, up, epochs)
        panel.tick_params(labelbottom=index + columns >= len(panels), labelleft=index % columns == 0)
    _limits(panels[0], across, up)
    _bar_of_epochs(figure, panels, epochs)
    figure.suptitle(f"Information planes of {counted(len(panels), 'layer')}\n{title}", fontsize=LARGE)
    figure.supxlabel(f"I(X;M), bits\n\n{note}", fontsize=MEDIUM)
    figure.supylabel("I(Y;M), bits", fontsize=MEDIUM)
    return panels


def _grid(count: int) -> tuple[int, int]:
    columns = count if count <= 4 else min(9, math.ceil(math.sqrt(1.6 * count)))
    return math.ceil(count / columns), columns


def _draw_layer(panel: Axes, layer: Layer, across: Series, up: Series, epochs: list[int]) -> None:
    tidy(panel)
    for ceiling in across.ceilings:
        panel.axvline(ceiling, color=FAINT, linewidth=0.6, linestyle=(0, (4, 2)), label="_ceiling", zorder=1)
    for ceiling in up.ceilings:
        panel.axhline(ceiling, color=FAINT, linewidth=0.6, linestyle=(0, (4, 2)), label="_ceiling", zorder=1)
    x = np.array([across.bits(layer.label, epoch) for epoch in epochs])
    y = np.array([up.bits(layer.label, epoch) for epoch in epochs])
    hollow = [
        Status.SATURATED in {across.status(layer.label, epoch), up.status(layer.label, epoch)} for epoch in epochs
    ]
    colours = EPOCH_COLOURS(epoch_norm(epochs)(epochs))
    panel.plot(x, y, color=FAINT, linewidth=0.6, label="_in order of epoch", zorder=2)
    faces = np.where(np.array(hollow)[:, None], 1.0, colours)
    panel.scatter(
        x,
        y,
        s=11,
        c=faces,
        edgecolors=list(map(tuple, colours)),
        linewidths=0.8,
        label="_epochs",
        zorder=3,
        clip_on=False,
    )
    merge = is_merge(layer)
    panel.set_title(
        f"{shown(layer.label, 18 - 8 * merge)}{' (merge)' * merge}",
        fontsize=MEDIUM if len(layer.label) < 9 else SMALL, pad=3, color=INK,
    )  # fmt: skip
    if merge:
        panel.set_facecolor(MERGE_BAND)


def _limits(panel: Axes, across: Series, up: Series) -> None:
    for series, axis, set_limits in ((across, panel.xaxis, panel.set_xlim), (up, panel.yaxis, panel.set_ylim)):
        bits = series.finite_bits
        top = max([*series.ceilings, *bits], default=1.0) or 1.0
        set_limits(min([0.0, *bits]) - 0.05 * top, 1.08 * top)
        axis.set_major_locator(MaxNLocator(3, steps=[1, 2, 4, 5, 10]))


def _bar_of_epochs(figure: Figure | SubFigure, panels: NDArray[Any], epochs: list[int]) -> None:
    norm = epoch_norm(epochs)
    bar = figure.colorbar(
        ScalarMappable(norm, EPOCH_COLOURS),
        ax=list(panels),
        aspect=30,
        pad=0.015,
        fraction=0.05,
        label="training epoch",
    )
    bar.ax.yaxis.set_major_locator(FixedLocator(epoch_ticks(int(norm.vmin or 0), int(norm.vmax or 1))))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch:g}"))
    bar.ax.tick_params(labelsize=SMALL, width=0.6, length=2.5, labelfontfamily="DejaVu Sans")
    bar.outline.set_linewidth(0.6)  # type: ignore[operator]


def _note(across: Series, up: Series) -> str:
    ceilings = ", ".join(s.ceiling_text(ceiling) for s in (across, up) for ceiling in s.ceilings)
    return f"dashed: ceilings {ceilings}   ·   hollow: saturated in either"
