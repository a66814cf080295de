"""Dice of a network, and what its skips tell, against how much of them is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from unetscope.base import InvalidArgument
from unetscope.plots.style import CATEGORIES, FAINT, MEDIUM, SMALL, in_style, new_figure, tidy
from unetscope.table import ThinSkip

PLACES = (
    ((0, 5), "center"),
    ((0, -11), "center"),
    ((6, -3), "left"),
)  # of shares beside points of one number, the best first


@in_style
def thin_skip_curves(
    compared: Sequence[ThinSkip], whole: float, *, figure: Figure | SubFigure | None = None
) -> np.ndarray[Any, Any]:
    """Dice against the number of directions that are kept of a skip, a line for each skip, the other skips being whole; and
    below, what so many directions tell of the mask beside the upsampled path, where that is known. Returns the panels.

    The share beside a point is that of the skip's mean square. whole: Dice of the network with all directions.

    Raises: InvalidArgument if nothing is compared.

    >>> from unetscope.table import ThinSkip
    >>> curve = [ThinSkip("skip1", 1, 8, 0.7, 0.61), ThinSkip("skip1", 4, 8, 0.98, 0.82)]
    >>> (panel,) = thin_skip_curves(curve, 0.83)
    >>> [text.get_text() for text in panel.texts]
    ['70%', '98%']
    """
    if not compared:
        raise InvalidArgument("compared must hold at least one thin skip, got none")
    is_told = any(math.isfinite(thin.told) for thin in compared)
    figure = new_figure(figure, 5.0, 5.0 if is_told else 3.3)
    panels = figure.subplots(1 + is_told, 1, sharex=True, squeeze=False, height_ratios=(1.7, 1.0)[: 1 + is_told])[:, 0]
    for panel in panels:
        tidy(panel)
    axes: Axes = panels[0]
    axes.axhline(whole, color=FAINT, linewidth=1.0, linestyle="--", zorder=1, label=f"all directions: {whole:.3f}")
    colours = dict(zip(dict.fromkeys(thin.skip for thin in compared), CATEGORIES * len(compared), strict=False))
    for skip, colour in colours.items():
        curve = sorted((thin for thin in compared if thin.skip == skip), key=lambda thin: thin.kept)
        numbers, dice = [thin.kept for thin in curve], [thin.dice for thin in curve]
        axes.plot(
            numbers, dice, color=colour, marker="o", markersize=4, label=f"{skip}, of {curve[0].channels} channels"
        )
    for number in sorted({thin.kept for thin in compared}):
        at_number = sorted((thin for thin in compared if thin.kept == number), key=lambda thin: -thin.dice)
        for place, thin in zip(PLACES * len(at_number), at_number, strict=False):
            (dx, dy), side = place
            axes.annotate(
                f"{thin.share:.0%}", (thin.kept, thin.dice), (dx, dy), textcoords="offset points", ha=side,
                color=colours[thin.skip], fontsize=SMALL,
            )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sorted({thin.kept for thin in compared})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.margins(x=0.08, y=0.2)
    if is_told:
        axes.tick_params(labelbottom=False)
        _draw_told(panels[1], compared, colours)
    panels[-1].set_xlabel(
        "directions that are kept (beside a point: their share of the skip's mean square)", fontsize=MEDIUM
    )
    axes.set_ylabel("validation Dice, without training on", fontsize=MEDIUM)
    axes.set_title("Thin skips", loc="left")
    axes.legend(fontsize=SMALL, loc="lower right")
    return panels


def _draw_told(axes: Axes, compared: Sequence[ThinSkip], colours: Mapping[str, str]) -> None:
    """Bits against directions, with intervals."""
    for skip, colour in colours.items():
        curve = sorted(
            (thin for thin in compared if thin.skip == skip and math.isfinite(thin.told)), key=lambda thin: thin.kept
        )
        numbers, bits = [thin.kept for thin in curve], [thin.told for thin in curve]
        axes.plot(numbers, bits, color=colour, marker="o", markersize=4)
        axes.vlines(
            numbers, [thin.told_low for thin in curve], [thin.told_high for thin in curve], color=colour, linewidth=1.0
        )
    axes.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
    axes.set_ylabel("told beside the upsampled\npath, bits a pixel", fontsize=MEDIUM)
