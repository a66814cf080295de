"""Dice of a network against how much of its skips is kept."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from unetscope.base import InvalidArgument
from unetscope.plots.style import CATEGORIES, FAINT, MEDIUM, SMALL, in_style, new_axes, tidy
from unetscope.table import ThinSkip

PLACES = (
    ((0, 5), "center"),
    ((0, -11), "center"),
    ((6, -3), "left"),
)  # of shares beside points of one number, the best first


@in_style
def thin_skip_curves(compared: Sequence[ThinSkip], whole: float, *, axes: Axes | None = None) -> Axes:
    """Dice against the number of directions that are kept of a skip, a line for each skip, the other skips being whole.

    The share beside a point is that of the skip's mean square. whole: Dice of the network with all directions.

    Raises: InvalidArgument if nothing is compared.

    >>> from unetscope.table import ThinSkip
    >>> curve = [ThinSkip("skip1", 1, 8, 0.7, 0.61), ThinSkip("skip1", 4, 8, 0.98, 0.82)]
    >>> [text.get_text() for text in thin_skip_curves(curve, 0.83).texts]
    ['70%', '98%']
    """
    if not compared:
        raise InvalidArgument("compared must hold at least one thin skip, got none")
    axes = new_axes(axes, 5.0, 3.3)
    tidy(axes)
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
    axes.set_xlabel("directions that are kept (beside a point: their share of the skip's mean square)", fontsize=MEDIUM)
    axes.set_ylabel("validation Dice, without training on", fontsize=MEDIUM)
    axes.set_title("Thin skips", loc="left")
    axes.legend(fontsize=SMALL, loc="lower right")
    return axes
