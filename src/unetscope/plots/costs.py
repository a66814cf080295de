"""What smaller networks lose of Dice, retrained or expected, against what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from unetscope.analysis import ExpectedLosses, Verification
from unetscope.base import InvalidArgument
from unetscope.plots.style import FAINT, INK, LARGE, MEDIUM, ORANGE, SMALL, in_style, new_figure, shown, tidy
from unetscope.table import COST_TITLES, DECISION_MARKS, Cost, Decision, Interval, Savings

PANELS = ("multiply_adds", "parameters")
MUTED = 0.4  # the opacity of a variant that another one beats in both
FEWEST_MARGINS, MOST_GAINS = (
    4.0,
    2.5,
)  # the reach of an axis of expected Dice, whose intervals may be far wider than its values
_LETTER = 0.68  # the width of a letter, as a share of the size of the font
_BESIDE = 6.0  # points between a mark and its name
_LINE = 1.2 * SMALL  # the height of a name
_SHIFTS = tuple(shift for up in (1.5, 10.0, 18.5, 27.0) for shift in (up, -_LINE - up))  # upwards, in points
_NEAR = 9.5  # a name that is shifted by more points is joined to its mark
_FEWEST_TICKS, _MOST_TICKS = 3, 7


@dataclass(frozen=True)
class _Point:
    """A smaller network: what it gains of Dice on the whole one, with an interval, and what that decides."""

    name: str
    gain: Interval
    decision: Decision


@dataclass(frozen=True)
class _Mark:
    """One network in a panel: what it costs, what it gains of Dice, and how it is drawn."""

    name: str
    cost: float
    gain: float
    point: _Point | None = None  # None of the whole network


@in_style
def dice_against_cost(
    verification: Verification,
    costs: Mapping[str, Savings],
    *,
    proposed: str = "",
    epoch: int | None = None,
    figure: Figure | SubFigure | None = None,
) -> NDArray[Any]:
    """Every retrained variant's loss of Dice, with its interval: a panel against multiply-adds, and one against parameters.

    The square is the whole network, the ring what the verdicts propose. The line joins the networks that no other one beats,
    with no less Dice at no more cost; the others are pale. The dashed line is the loss that counts as none. A triangle at the
    lower end stands for a variant that lies below, and has no interval because too few of its trainings started.

    costs: of the variants, by name; those without costs are left out. proposed: the name of a variant; of one that has costs
    and was not retrained, a dotted line shows the cost. epoch: the budget, by default the last. Returns the panels.

    Raises: InvalidArgument if there is no retrained variant with costs.

    >>> from unetscope.analysis.trainings import Training
    >>> from unetscope.table import EpochRecord, Variant
    >>> trainings = [Training(name, seed, (EpochRecord(1, 0.1, dice, 0.1, dice, 1.0, 1.0, (dice, dice + 0.01)),), 0.7, {})
    ...              for name, dice in (("model1", 0.9), ("depth1", 0.88)) for seed in (0, 1)]
    >>> variants = (Variant("model1", 2, ()), Variant("depth1", 1, ()))
    >>> verification = Verification(variants, tuple(trainings), None, (1,), 0.02)
    >>> panels = dice_against_cost(verification, {"depth1": Savings(Cost(900, 800, 9, 1.0), Cost(90, 400, 9, 1.0))})
    >>> [text.get_text() for text in panels[1].texts]
    ['whole network', 'depth1']
    """
    rows = [row for row in verification.rows(epoch) if row.variant.name in costs and row.outcome.pairs]
    if not rows:
        raise InvalidArgument("nothing to show: no retrained variant has costs")
    points = [_Point(row.variant.name, row.outcome.difference, row.outcome.decision) for row in rows]
    at = verification.budgets[-1] if epoch is None else epoch
    title = f"Dice against cost after {at} epochs, of every retrained variant"
    return _against_cost(points, costs, verification.margin, title, proposed, figure)


@in_style
def expected_against_cost(
    losses: ExpectedLosses,
    costs: Mapping[str, Savings],
    *,
    proposed: str = "",
    figure: Figure | SubFigure | None = None,
) -> NDArray[Any]:
    """As `dice_against_cost`, of every design of which a loss is expected, with its 90 % interval: before any is retrained.

    Raises: InvalidArgument if no such design has costs.

    >>> from unetscope.table import ExpectedLoss, Interval, Variant
    >>> losses = ExpectedLosses((ExpectedLoss(Variant("depth1", 1, ()), 60, Interval(0.01, -0.02, 0.05)),), 2, (), 0.02)
    >>> panels = expected_against_cost(losses, {"depth1": Savings(Cost(900, 800, 9, 1.0), Cost(90, 400, 9, 1.0))})
    >>> panels[0].get_ylabel()
    'validation Dice, design less whole network'
    """
    points = []
    for each in losses.losses:
        if each.design.name in costs and (expected := losses.of(each.design)) is not None:
            loss = expected.loss
            gain = Interval(-loss.value, -loss.high, -loss.low)
            points.append(_Point(each.design.name, gain, expected.decision(losses.margin)))
    if not points:
        raise InvalidArgument("nothing to show: no design of which a loss is expected has costs")
    title = f"Expected Dice against cost after {losses.losses[0].epoch} epochs"
    reach = max(FEWEST_MARGINS * losses.margin, MOST_GAINS * max(abs(point.gain.value) for point in points))
    panels = _against_cost(points, costs, losses.margin, title, proposed, figure, reach)
    panels[0].set_ylabel("validation Dice, design less whole network", fontsize=MEDIUM)
    return panels


def _against_cost(
    points: Sequence[_Point],
    costs: Mapping[str, Savings],
    margin: float,
    title: str,
    proposed: str,
    figure: Figure | SubFigure | None,
    reach: float = math.inf,
) -> NDArray[Any]:
    """Both panels. reach: of the axis of Dice to either side, past which intervals are cut."""
    figure = new_figure(figure, 8.4, 3.7)
    panels = figure.subplots(1, len(PANELS), sharey=True, squeeze=False)[0]
    whole = costs[points[0].name].whole
    marks = {
        name: [_Mark("whole network", getattr(whole, name), 0.0)]
        + [_Mark(point.name, getattr(costs[point.name].slim, name), point.gain.value, point) for point in points]
        for name in PANELS
    }
    is_drawn = proposed in {point.name for point in points}
    for panel, name in zip(panels, PANELS, strict=True):
        tidy(panel)
        _draw_panel(panel, marks[name], name, proposed, margin, reach)
        if proposed in costs and not is_drawn:
            panel.axvline(getattr(costs[proposed].slim, name), color=ORANGE, linewidth=1.0, linestyle=":")
    panels[0].set_ylabel("validation Dice, variant less whole network", fontsize=MEDIUM)
    figure.suptitle(title, fontsize=LARGE)
    handles = _legend(points, proposed if is_drawn else "", margin)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    root = panels[0].get_figure(root=True)
    assert root is not None
    root.draw_without_rendering()  # names find their places in panels of their last size
    for panel, name in zip(panels, PANELS, strict=True):
        _write_labels(panel, marks[name], proposed, 72 / root.dpi)
    return np.asarray(panels)


def unbeaten(costs: Sequence[float], gains: Sequence[float]) -> list[bool]:
    """Whether no other gives as much or more for as little or less, and more or less in one of them.

    >>> unbeaten([9, 5, 5, 1], [0.0, -0.1, -0.2, -0.3])
    [True, True, False, True]
    """
    pairs = list(zip(costs, gains, strict=True))
    return [not any(cost <= own[0] and gain >= own[1] and (cost, gain) != own for cost, gain in pairs) for own in pairs]


def _draw_panel(panel: Axes, marks: Sequence[_Mark], cost: str, proposed: str, margin: float, reach: float) -> None:
    best = unbeaten([mark.cost for mark in marks], [mark.gain for mark in marks])
    panel.set_xscale("log")
    panel.axhline(0, color=FAINT, linewidth=0.7)
    panel.axhline(-margin, color=INK, linewidth=0.7, linestyle="--")
    frontier = sorted((mark.cost, mark.gain) for mark, is_best in zip(marks, best, strict=True) if is_best)
    panel.plot(*zip(*frontier, strict=True), color="#BDBDBD", linewidth=1.0, drawstyle="steps-post", zorder=1)
    _limit(panel, marks, margin, reach)
    for mark, is_best in zip(marks, best, strict=True):
        _draw_mark(panel, mark, 1.0 if is_best else MUTED, is_proposed=mark.name == proposed)
    about = COST_TITLES[cost]
    panel.set_xlabel(f"{about.title} of one image" if cost != "parameters" else about.title, fontsize=MEDIUM)
    panel.xaxis.set_major_locator(FixedLocator(_ticks(*panel.get_xlim())))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: Cost(round(value), 0, 0, 0.0).text("parameters")))


def _ticks(low: float, high: float) -> list[float]:
    """Round costs between two, few enough to be written beside each other.

    >>> _ticks(6e3, 6e5), _ticks(38, 55)
    ([10000.0, 20000.0, 50000.0, 100000.0, 200000.0, 500000.0], [40.0, 45.0, 50.0, 55.0])
    """
    ticks: list[float] = []
    for steps in ((1.0,), (1.0, 2.0, 5.0), range(1, 10), [step / 2 for step in range(2, 20)]):
        finer = [step * 10.0**power for power in range(16) for step in steps if low <= step * 10.0**power <= high]
        if len(finer) <= _MOST_TICKS or len(ticks) < _FEWEST_TICKS:
            ticks = finer
    return ticks[:: math.ceil(len(ticks) / _MOST_TICKS)] if ticks else [low]


def _draw_mark(panel: Axes, mark: _Mark, opacity: float, *, is_proposed: bool) -> None:
    if mark.point is None:
        panel.plot(mark.cost, mark.gain, "s", color=INK, markersize=6, zorder=4)
        return
    gain, colour = mark.point.gain, _colour(mark.point)
    if _is_below(panel, mark):
        panel.plot(mark.cost, _shown_at(panel, mark), "v", color=colour, markersize=6, alpha=opacity, zorder=3)
        return
    if gain.low == gain.low:
        panel.plot([mark.cost] * 2, [gain.low, gain.high], color=colour, linewidth=1.6, alpha=opacity, zorder=2)
    panel.plot(mark.cost, mark.gain, "o", color=colour, markersize=5, alpha=opacity, zorder=3)
    if is_proposed:
        panel.plot(mark.cost, mark.gain, "o", markersize=11, markerfacecolor="none", markeredgecolor=ORANGE, zorder=5)


def _is_below(panel: Axes, mark: _Mark) -> bool:
    """Whether a mark lies under the panel's axis, at whose end a triangle stands for it."""
    return bool(mark.gain < panel.get_ylim()[0])


def _shown_at(panel: Axes, mark: _Mark) -> float:
    low, high = panel.get_ylim()
    return max(mark.gain, low + 0.02 * (high - low))


def _colour(point: _Point) -> str:
    return FAINT if point.decision == "undecided" else DECISION_MARKS[point.decision].fill


def _limit(panel: Axes, marks: Sequence[_Mark], margin: float, reach: float) -> None:
    """Room for the names beside the outermost marks, and for the intervals.

    Marks without an interval, as of a single pair of seeds, are no evidence, and do not widen the axis where others have one.
    """
    costs = [mark.cost for mark in marks]
    span = max(costs) / min(costs)
    panel.set_xlim(min(costs) / max(1.15, span**0.12), max(costs) * max(1.3, span**0.3))
    differences = [mark.point.gain for mark in marks if mark.point is not None]
    ends = [end for each in differences for end in (each.low, each.high) if end == end]
    ends = [min(max(end, -reach), reach) for end in ends or [mark.gain for mark in marks]] + [-margin, 0.0]
    room = 0.06 * (max(ends) - min(ends))
    panel.set_ylim(min(ends) - room, max(ends) + room)


def _write_labels(panel: Axes, marks: Sequence[_Mark], proposed: str, scale: float) -> None:
    """Each mark's name beside it, where it covers no mark and no other name, as far as there is such a place.

    scale: points a pixel.
    """
    places = [panel.transData.transform((mark.cost, _shown_at(panel, mark))) * scale for mark in marks]
    taken = [(x - 4, x + 4, y - 4, y + 4) for x, y in places]
    left, right = (end * scale for end in (panel.get_window_extent().x0, panel.get_window_extent().x1))
    for mark, (x, y) in sorted(zip(marks, places, strict=True), key=lambda pair: -pair[0].gain):
        text = shown(mark.name, 34) + f" ({mark.gain:+z.2f})" * _is_below(panel, mark)
        width = _LETTER * SMALL * len(text)
        boxes = {
            (side, shift): (*sorted((x + side * _BESIDE, x + side * (_BESIDE + width))), y + shift, y + shift + _LINE)
            for shift in _SHIFTS
            for side in (1, -1)
        }
        free = [
            place
            for place, box in boxes.items()
            if left < box[0] and box[1] < right and not any(_overlap(box, area) for area in taken)
        ]
        side, shift = free[0] if free else (1, _SHIFTS[0])
        taken.append(boxes[side, shift])
        panel.annotate(
            text,
            (mark.cost, _shown_at(panel, mark)),
            (side * _BESIDE, shift),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="bottom",
            fontsize=SMALL,
            color=INK,
            weight="bold" if mark.name == proposed or mark.point is None else "normal",
            arrowprops={"arrowstyle": "-", "color": "#BDBDBD", "linewidth": 0.5} if abs(shift) > _NEAR else None,
            path_effects=[withStroke(linewidth=2, foreground="white")],  # legible across lines
            zorder=6,
        )


def _overlap(box: tuple[float, ...], area: tuple[float, ...]) -> bool:
    """Whether two boxes (left, right, bottom, top) share a place."""
    return box[0] < area[1] and area[0] < box[1] and box[2] < area[3] and area[2] < box[3]


def _legend(points: Sequence[_Point], proposed: str, margin: float) -> list[Line2D]:
    """What the marks mean that are drawn."""
    dots = {_colour(point): point.decision for point in points}
    titles = {"needed": "loss over the margin", "redundant": "loss under the margin", "undecided": "not decided"}
    handles = [Line2D([], [], color=INK, marker="s", linestyle="none", markersize=5, label="whole network")]
    handles += [
        Line2D([], [], color=colour, marker="o", linewidth=1.6, markersize=4, label=titles[decision])
        for colour, decision in dots.items()
    ]
    if proposed:
        handles.append(
            Line2D([], [], marker="o", linestyle="none", markersize=8, markerfacecolor="none", markeredgecolor=ORANGE,
                   label="proposed")
        )  # fmt: skip
    handles.append(Line2D([], [], color="#BDBDBD", label="best for its cost; others are pale"))
    handles.append(Line2D([], [], color=INK, linewidth=0.7, linestyle="--", label=f"margin of {margin:g}"))
    return handles
