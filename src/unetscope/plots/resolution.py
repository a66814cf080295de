"""How far the ranking of layers depends on the resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter
from numpy.typing import NDArray

from unetscope.analysis import AGREES, RankStability, layer_rank_stability, three_digits
from unetscope.plots.information import draw_ceilings
from unetscope.plots.style import (
    BLUE,
    EPOCH_COLOURS,
    FAINT,
    INK,
    LARGE,
    MEDIUM,
    MERGE_BAND,
    SMALL,
    in_style,
    inches_of,
    new_figure,
    point_style,
    shown,
    tidy,
)
from unetscope.table import Flow, Quantity, Series, Status, estimator_title, resolution_unit

_MOST_NAMES = 9  # on the bar of layers
_POINT: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 3.2}
_RING: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 7, "markerfacecolor": "none", "linestyle": "none"}


@in_style
def resolution_sweep(
    flow: Flow,
    *,
    quantity: str = Quantity.INPUT,
    estimator: str | None = None,
    labels: str | None = None,
    epoch: int | None = None,
    figure: Figure | SubFigure | None = None,
) -> NDArray[Any]:
    """Above, bits of each layer against the noise variance or the bin size; below, whether layers keep their ranking.

    Above, a line is a layer, coloured by its place in the network; hollow points are saturated, the dashed line is the
    ceiling. Below, Kendall's τ_b compares the ranking of layers with that at the reference, the resolution that distinguishes
    most layers (a ring); a point is absent where it is undefined. The grey line is the share of layers distinguished. The band,
    in both panels, is where the ranking holds. Returns the two panels.

    None and exceptions are as in `unetscope.analysis.layer_rank_stability`.

    >>> from unetscope.table.records import Estimate, Layer
    >>> rows = [Estimate(0, name, "I(X;M)", "kde_upper", size, "", bits / size, 0.0, 3.0, 3.0, False, n=8, d=4)
    ...         for size in (1.0, 2.0) for name, bits in (("1", 2.0), ("2", 1.0), ("3", 1.5))]
    >>> above, below = resolution_sweep(Flow((Layer("1", "a"), Layer("2", "b"), Layer("3", "c")), (), tuple(rows)))
    >>> len(above.get_lines()), below.get_xlabel()
    (7, 'noise variance')
    """
    quantity = Quantity(quantity)
    stability = layer_rank_stability(flow, quantity=quantity, estimator=estimator, labels=labels, epoch=epoch)
    here = flow.select(epoch=stability.epoch)
    swept = [here.series_of(quantity, stability.estimator, row.resolution, stability.labels) for row in stability.at]
    title, unit = estimator_title(stability.estimator), resolution_unit(stability.estimator)
    pieces = [shown(title, 40), f"epoch {stability.epoch}", swept[0].images_text]
    pieces += [f"Y: {shown(stability.labels, 30)}"] if stability.labels else []
    first, second = f"{quantity} of each layer against the {shown(unit)}", " · ".join(pieces)
    layers = [layer.label for layer in flow.layers]

    figure = new_figure(figure, max(5.8, inches_of(max(first, second, key=len), LARGE) + 0.4), 5.4)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.1, 1.0))
    for panel in (above, below):
        tidy(panel)
        _mark_range(panel, stability)
    _draw_bits(above, swept, layers, stability.epoch)
    _draw_agreement(below, stability)
    _bar_of_layers(figure, above, layers)
    above.tick_params(labelbottom=False)
    above.set_ylabel(f"{quantity}, {quantity.unit}", fontsize=MEDIUM)
    below.set_xlabel(shown(unit), fontsize=MEDIUM)
    figure.suptitle(f"{first}\n{second}", fontsize=LARGE)
    figure.legend(handles=_explained(stability), loc="outside lower center", ncols=2, frameon=False)
    return np.array([above, below])


def _mark_range(panel: Axes, stability: RankStability) -> None:
    """The range over which the ranking holds, with a margin of a twentieth of a decade so that a single point is seen too."""
    first, last = stability.at[0].resolution, stability.at[-1].resolution
    panel.set_xscale("log")
    panel.set_xlim(first / 10**0.12, last * 10**0.12)
    sizes = [row.resolution for row in stability.at]
    panel.xaxis.set_major_locator(FixedLocator(decades_or_some(sizes)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda size, _: three_digits(size)))
    panel.xaxis.set_minor_locator(FixedLocator(sizes))
    panel.xaxis.set_minor_formatter(NullFormatter())
    if stability.holds is not None:
        low, high = stability.holds
        panel.axvspan(low / 10**0.05, high * 10**0.05, color=MERGE_BAND, linewidth=0, label="_holds", zorder=0)


def decades_or_some(sizes: Sequence[float], most: int = 8) -> list[float]:
    """Powers of ten among ascending sizes, thinned to `most`; of sizes that span fewer than three of them, some of their own.

    >>> decades_or_some([0.03, 1.0, 40.0]), decades_or_some([0.2, 0.4])
    ([0.1, 1.0, 10.0], [0.2, 0.4])
    """
    powers = range(math.ceil(math.log10(sizes[0]) - 1e-9), math.floor(math.log10(sizes[-1]) + 1e-9) + 1)
    ticks = [10.0**power for power in powers] if len(powers) > 2 else list(sizes)
    return ticks[:: math.ceil(len(ticks) / most)]


def _draw_bits(axes: Axes, swept: Sequence[Series], layers: Sequence[str], epoch: int) -> None:
    sizes = [series.key.resolution for series in swept]
    for place, layer in enumerate(layers):
        colour = EPOCH_COLOURS(place / max(len(layers) - 1, 1))
        bits = np.array([series.bits(layer, epoch) for series in swept])
        saturated = np.array([series.status(layer, epoch) is Status.SATURATED for series in swept])
        axes.plot(sizes, bits, color=colour, linewidth=0.9, label=shown(layer), zorder=3)
        for status, at in ((Status.OK, ~saturated), (Status.SATURATED, saturated)):
            if status is Status.OK or at.any():
                axes.plot(
                    sizes, np.where(at, bits, np.nan), **point_style(status), markersize=2.8, markeredgewidth=0.8,
                    color=colour, label=f"_{status}", zorder=4,
                )  # fmt: skip
    draw_ceilings(axes, swept, x=0.99, align="right")


def _draw_agreement(axes: Axes, stability: RankStability) -> None:
    sizes = [row.resolution for row in stability.at]
    agreement = np.array([row.agreement for row in stability.at])
    reference = [row.resolution == stability.reference for row in stability.at]
    axes.plot(
        sizes,
        [row.apart / stability.layers for row in stability.at],
        color=FAINT,
        linewidth=1.0,
        label="_apart",
        zorder=2,
    )
    axes.axhline(AGREES, color=BLUE, linewidth=0.7, linestyle=(0, (2, 2)), label="_agrees", zorder=2)
    axes.plot(sizes, agreement, **_POINT, linewidth=1.1, label="_agreement", zorder=4)
    axes.plot(sizes, np.where(reference, agreement, np.nan), **_RING, label="_reference", zorder=5)
    axes.set_ylim(min([-0.05, *(float(tau) - 0.1 for tau in agreement if tau < 0)]), 1.12)
    axes.set_ylabel("τ, or share of layers", fontsize=MEDIUM)


def _explained(stability: RankStability) -> list[Artist]:
    """The legend of both panels."""
    holds = "nowhere" if stability.holds is None else " to ".join(dict.fromkeys(map(three_digits, stability.holds)))
    saturated = {**point_style(Status.SATURATED), "markersize": 3.4, "color": INK}
    return [
        Line2D([], [], **_POINT, linewidth=1.1, label="Kendall's τ with the ranking at the ring"),
        Line2D([], [], color=BLUE, linewidth=0.7, linestyle=(0, (2, 2)), label=f"τ = {AGREES:g}"),
        Line2D([], [], color=FAINT, linewidth=1.0, label=f"share of {stability.layers} layers told apart"),
        Line2D([], [], **saturated, label="saturated: at the ceiling"),
        Patch(facecolor=MERGE_BAND, label=f"the ranking holds: {holds}"),
    ]


def _bar_of_layers(figure: Figure | SubFigure, axes: Axes, layers: Sequence[str]) -> None:
    last = max(len(layers) - 1, 1)
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, last), EPOCH_COLOURS), ax=axes, aspect=28, pad=0.02, fraction=0.05
    )
    named = sorted({round(place) for place in np.linspace(0, len(layers) - 1, min(len(layers), _MOST_NAMES))})
    bar.ax.yaxis.set_major_locator(FixedLocator(named))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda place, _: shown(layers[round(place)], 14)))
    bar.ax.invert_yaxis()
    bar.ax.tick_params(labelsize=SMALL, width=0.6, length=2.5)
    bar.set_label("layer, in network order", fontsize=MEDIUM)
    bar.outline.set_linewidth(0.6)  # type: ignore[operator]
