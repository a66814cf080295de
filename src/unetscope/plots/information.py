"""Information by layer: U-Plots, and information planes with a panel for each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import Affine2D, ScaledTranslation, Transform, blended_transform_factory
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
    new_axes,
    new_figure,
    point_style,
    series_line,
    shown,
    tidy,
    tracks,
)
from unetscope.table import Flow, Layer, Quantity, Series, Status, connections, log_spaced

_MOST_LINES = 10
_TRACK = 10.0  # points between the brackets of two skips
_SIDES = {
    "encoder": "encoder",
    "bottom": "bottom",
    "upsampled": "decoder",
    "merge": "decoder",
    "decoder": "decoder",
    "output": "decoder",
}


@in_style
def u_plot(
    flow: Flow,
    *,
    quantity: str = Quantity.INPUT,
    estimator: str | None = None,
    resolution: float | None = None,
    labels: str | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Bits against the layers in network order, a line for each marked epoch (about ten of them if there are many).

    The dashed line is the ceiling; hollow points are saturated and cannot be ranked; crosses are out of the
    estimator's domain and describe these images alone; an estimate that is NaN leaves a gap. A tinted band is the 95 %
    interval, where there is one. Grey bands mark the merges; brackets under the axis join the layer that each skip comes
    from to its merge. An estimator, resolution or label scheme that is None stands for the first one measured.

    Source: Fig. 4 of Lee & Bajić 2021.
    Raises: InvalidArgument, with what was measured, if what is asked for was not.

    >>> from unetscope.table.records import Estimate
    >>> layers = (Layer("1", "conv1"), Layer("2", "conv2"))
    >>> rows = [Estimate(0, name, "I(X;M)", "kde_upper", 1.0, "", bits, 0.0, 3.0, 3.0, False, n=8, d=4)
    ...         for name, bits in (("1", 2.0), ("2", 1.0))]
    >>> axes = u_plot(Flow(layers, (), tuple(rows)))
    >>> axes.get_ylabel(), [tick.get_text() for tick in axes.get_xticklabels()]
    ('I(X;M), bits', ['1', '2'])
    """
    quantity = Quantity(quantity)
    series = flow.series_of(quantity, estimator, resolution, labels)
    place = {layer.label: index for index, layer in enumerate(flow.layers)}
    skips = [s for s in flow.skips if s.source in place and s.merge in place]
    joined = connections(flow.layers, skips)
    ends = {skip.name: (place[joined.origin(skip, flow.layers)], place[skip.merge]) for skip in skips}
    depths = tracks(ends.values())
    names, upright = tick_names([layer.label for layer in flow.layers])
    below = _height_of(names, upright) + _TRACK * (max(depths) + 1.3 if depths else 0)
    title = series_line(series)
    width = max(0.218 * len(flow.layers) + 1.35, inches_of(title, LARGE) + 0.6, 4.2)
    axes = new_axes(axes, min(width, 16.0), 2.9 + below / 72)

    tidy(axes)
    _label_layers(axes, names, upright, below)
    epochs = log_spaced(series.epochs, _MOST_LINES)
    _draw_lines(axes, series, [layer.label for layer in flow.layers], epochs)
    draw_ceilings(axes, [series], x=0.5, align="center")
    _mark_merges(axes, flow.layers, place)
    _bracket_skips(axes, ends, depths, len(place), _height_of(names, upright))
    has_sides = _note_sides(axes, flow.layers)
    axes.set_ylabel(f"{quantity}, {quantity.unit}", fontsize=MEDIUM)
    axes.set_title(f"U-Plot of {quantity}\n{title}", fontsize=LARGE, pad=16 if has_sides else 6)
    _legend(axes, series, epochs, merges=any(map(is_merge, flow.layers)))
    return axes


def tick_names(labels: Sequence[str]) -> tuple[list[str], bool]:
    """Layer labels as drawn under an axis, and whether they fit upright: `11up` takes two lines, long ones are turned.

    >>> tick_names(["11up", "11"]), tick_names(["enc1.conv", "dec1.conv"])
    ((['11\\nup', '11'], True), (['enc1.conv', 'dec1.conv'], False))
    """
    stacked = [f"{label[:-2]}\nup" if label.endswith("up") and label[:-2].isdecimal() else label for label in labels]
    if all(len(line) <= 3 for name in stacked for line in name.split("\n")):
        return ["\n".join(shown(line) for line in name.split("\n")) for name in stacked], True
    return [shown(label, longest=18) for label in labels], False


def _label_layers(axes: Axes, names: Sequence[str], upright: bool, below: float) -> None:
    """The names under the axis, and the name of the axis `below` points under it, beneath the brackets of the skips."""
    axes.set_xticks(range(len(names)), names, rotation=0 if upright else 90, fontsize=SMALL)
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.set_xlabel("layer, in network order", fontsize=MEDIUM)
    axes.xaxis.set_label_coords((len(names) - 1) / 2, -below - 2, transform=_points_from(axes, 0))


def _height_of(names: Sequence[str], upright: bool) -> float:
    """Points that the tick labels take under the axis, by the font's usual widths."""
    if upright:
        return 5 + 1.25 * SMALL * max((name.count("\n") + 1 for name in names), default=1)
    return 7 + 0.66 * SMALL * max(len(name) for name in names)


def _draw_lines(axes: Axes, series: Series, layers: Sequence[str], epochs: Sequence[int]) -> None:
    norm = epoch_norm(series.epochs)
    for epoch in epochs:
        colour = EPOCH_COLOURS(norm(epoch))
        bits = np.array([series.bits(layer, epoch) for layer in layers])
        low, high = np.array([series.interval(layer, epoch) for layer in layers]).T
        if np.isfinite(low).any():
            axes.fill_between(range(len(layers)), low, high, color=colour, alpha=0.18, linewidth=0, zorder=2)
        axes.plot(bits, color=colour, linewidth=1.1, label=f"{epoch}", zorder=3)
        statuses = [series.status(layer, epoch) for layer in layers]
        for status in (Status.OK, Status.OUT_OF_DOMAIN, Status.SATURATED):
            of_status = np.array([each is status for each in statuses])
            axes.plot(
                np.where(of_status, bits, np.nan), **point_style(status), markersize=3.4, markeredgewidth=0.9,
                color=colour, label=f"_{status}", zorder=4,
            )  # fmt: skip


def draw_ceilings(axes: Axes, swept: Sequence[Series], *, x: float, align: Literal["center", "right"]) -> None:
    """A dashed line at each ceiling of some series of one quantity, named at x, and a y-axis that holds all their numbers."""
    bits = [number for series in swept for number in series.finite_bits]
    ceilings = sorted({ceiling for series in swept for ceiling in series.ceilings})
    top = max([*ceilings, *bits], default=1.0) or 1.0
    axes.set_ylim(min([0.0, *bits]) - 0.03 * top, 1.13 * top)
    for ceiling in ceilings:
        text = f"ceiling {swept[0].ceiling_text(ceiling)}"
        axes.axhline(ceiling, color=INK, linewidth=0.8, linestyle=(0, (5, 3)), label=f"_{text}", zorder=2)
        axes.annotate(
            text, (x, ceiling), (0, 4), axes.get_yaxis_transform(), "offset points",
            ha=align, va="bottom", fontsize=SMALL, color=INK,
        )  # fmt: skip


def _mark_merges(axes: Axes, layers: Sequence[Layer], place: dict[str, int]) -> None:
    """A band behind each merge, together with the upsampled layer when that stands right before it."""
    for index, layer in enumerate(layers):
        if is_merge(layer):
            before = index - 1 if any(place.get(part) == index - 1 for part in layer.parts) else index
            axes.axvspan(before - 0.5, index + 0.5, color=MERGE_BAND, linewidth=0, label="_merge", zorder=0)


def _points_from(axes: Axes, y: float) -> Transform:
    """x in data, y in points upward from the bottom (y = 0) or the top (y = 1) edge of the axes."""
    edge = ScaledTranslation(0, y, axes.transAxes)  # type: ignore[arg-type]
    points = Affine2D().scale(1 / 72) + _root(axes).dpi_scale_trans + edge
    return blended_transform_factory(axes.transData, points)


def _root(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _bracket_skips(
    axes: Axes, ends: Mapping[str, tuple[int, int]], depths: Sequence[int], layers: int, start: float
) -> None:
    """A bracket under the axis for each skip. ends: by skip, the places of the layer it comes from and of its merge."""
    under = _points_from(axes, 0)
    slot = 72 * _root(axes).get_figwidth() * 0.8 / max(layers, 1)
    for (skip, (left, right)), depth in zip(ends.items(), depths, strict=True):
        y = -start - _TRACK * (depth + 1)
        line: dict[str, Any] = {"color": FAINT, "linewidth": 0.8, "clip_on": False, "transform": under}
        axes.plot([left, left, right, right], [-start, y, y, -start - 1], **line, label=f"_{skip}")
        axes.plot([right], [-start - 1.5], **line, marker="^", markersize=3.2, label="_head")
        longest = max(5, int(abs(right - left) * slot / (0.62 * SMALL)) - 2)
        axes.text(
            (left + right) / 2, y, shown(skip, longest), transform=under, ha="center", va="center",
            fontsize=SMALL, color=INK, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip


def _note_sides(axes: Axes, layers: Sequence[Layer]) -> bool:
    """Encoder, bottom and decoder named above the axes; false if no layer's role is known."""
    over = _points_from(axes, 1)
    has_sides = False
    for side, run in groupby(enumerate(layers), key=lambda pair: _SIDES.get(pair[1].role)):
        places = [index for index, _ in run]
        if side is not None:
            has_sides = True
            ends = (places[0] - 0.35, places[-1] + 0.35)
            axes.plot(ends, (3, 3), color=FAINT, linewidth=1.6, clip_on=False, transform=over, label="_side")
            axes.text(
                sum(ends) / 2, 5.5, side, transform=over, ha="center", va="bottom", fontsize=SMALL, color=INK
            )  # fmt: skip
    return has_sides


def _legend(axes: Axes, series: Series, epochs: Sequence[int], *, merges: bool) -> None:
    lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    statuses = [Status.SATURATED]
    if any(estimate.status is Status.OUT_OF_DOMAIN for estimate in series.estimates.values()):
        statuses.append(Status.OUT_OF_DOMAIN)
    points = [Line2D([], [], **point_style(status), markersize=3.4, color=INK, label=status) for status in statuses]
    handles: list[Artist] = [*lines, *points]
    if merges:
        handles.append(Patch(facecolor=MERGE_BAND, label="merge"))
    measured = len(series.epochs)
    title = "training epoch" if len(epochs) == measured else f"training epoch\n({len(epochs)} of {measured})"
    legend = axes.legend(
        handles=handles, title=title, loc="upper left", bbox_to_anchor=(1.005, 1.02), borderaxespad=0.0,
        handlelength=1.4, labelspacing=0.35,
    )  # fmt: skip
    legend.get_title().set_multialignment("left")


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
