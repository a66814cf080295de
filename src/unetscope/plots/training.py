"""Dice along training, verdicts, and how retrained variants compare with them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from unetscope.analysis import Judgement, Row, Training, Verification
from unetscope.base import InvalidArgument
from unetscope.plots.style import (
    CATEGORIES,
    FAINT,
    INK,
    LARGE,
    MEDIUM,
    SMALL,
    epochs_on_axis,
    in_style,
    new_axes,
    new_figure,
    shown,
    tidy,
)
from unetscope.table import DECISION_MARKS, Decision, EpochRecord, Part, Rule, class_colour

_TITLES: dict[Rule, str] = {"loss": "Loss of Dice", "conditional": "Bits", "plateau": "The paper's rule"}
_LINES = (*CATEGORIES, INK, "#8C6D31")
_BANDED = 2  # trainings that make a band
_FEW = 12  # points of a curve that are each worth a marker


@in_style
def dice_curves(curves: Mapping[str, Sequence[EpochRecord]], *, axes: Axes | None = None) -> Axes:
    """Dice coefficient against the training epoch: train solid, validation dashed, a colour for each network.

    The train figure is a running mean over the epoch, taken while the weights moved; the validation figure is of the
    weights at the end of it. A ring marks the highest validation figure, given in the legend. The axis of epochs is
    logarithmic once a training has a hundred of them.

    Source: Fig. 5 of Lee & Bajić 2021.
    Raises: InvalidArgument if there is no curve or a curve has no epochs.

    >>> record = EpochRecord(1, 0.6, 0.2, 0.5, 0.31, seconds=2.0)
    >>> [text.get_text() for text in dice_curves({"Model 1": [record]}).get_legend().get_texts()][0]
    'Model 1: best 0.310 at epoch 1'
    """
    if not curves:
        raise InvalidArgument("curves must hold at least one network's epochs, got none")
    for name, records in curves.items():
        if not records:
            raise InvalidArgument(f"curves[{name!r}] must hold at least one epoch, got none")
    axes = new_axes(axes, 5.6, 3.3)
    tidy(axes)
    handles = [_draw_curve(axes, name, records, index) for index, (name, records) in enumerate(curves.items())]
    handles.append(Line2D([], [], color=INK, linewidth=1.0, label="train (running mean over the epoch)"))
    handles.append(Line2D([], [], color=INK, linewidth=1.3, linestyle="--", label="validation (end of the epoch)"))
    epochs = [record.epoch for records in curves.values() for record in records]
    epochs_on_axis(axes, min(epochs), max(epochs))
    _finish_dice_axes(axes, "Dice coefficient (1 = perfect)", "Dice coefficient during training", handles)
    return axes


@in_style
def class_dice_curves(records: Sequence[EpochRecord], *, axes: Axes | None = None) -> Axes:
    """Validation Dice of each class against the training epoch, with the last figure in the legend; black is their mean.

    Raises: InvalidArgument if no epoch has a Dice of classes.

    >>> record = EpochRecord(1, 0.6, 0.2, 0.5, 0.4, seconds=2.0, dice_per_class=(0.8, 0.0))
    >>> [text.get_text() for text in class_dice_curves([record]).get_legend().get_texts()]
    ['mean: 0.400', 'class 0: 0.800', 'class 1: 0.000']
    """
    records = sorted((record for record in records if record.dice_per_class), key=lambda record: record.epoch)
    if not records:
        raise InvalidArgument("records must hold the Dice of classes at some epoch, got none: are these binary masks?")
    axes = new_axes(axes, 5.6, max(3.3, 0.4 + 0.17 * len(records[-1].dice_per_class)))
    tidy(axes)
    epochs = [record.epoch for record in records]
    curves = [("mean", INK, [record.validation_dice for record in records])]
    curves += [
        (f"class {label}", class_colour(label), [record.dice_per_class[label] for record in records])
        for label in range(len(records[-1].dice_per_class))
    ]
    handles = []
    for name, colour, values in curves:
        style: Literal["--", "-"] = "--" if name == "mean" else "-"
        marker = "o" * (len(epochs) <= _FEW)
        last = "in no image" if np.isnan(values).all() else f"{values[-1]:.3f}"
        axes.plot(epochs, values, color=colour, linewidth=1.3, linestyle=style, marker=marker, markersize=3)
        handles.append(Line2D([], [], color=colour, linewidth=2.0, linestyle=style, label=f"{name}: {last}"))
    epochs_on_axis(axes, epochs[0], epochs[-1])
    _finish_dice_axes(axes, "validation Dice (1 = perfect)", "Dice of each class during training", handles)
    return axes


def _finish_dice_axes(axes: Axes, ylabel: str, title: str, handles: Sequence[Line2D]) -> None:
    axes.set_ylim(0, 1.02)
    axes.set_ylabel(ylabel, fontsize=MEDIUM)
    axes.set_title(title, fontsize=LARGE)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.5)
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0.0, labelspacing=0.45)


def _draw_curve(axes: Axes, name: str, records: Sequence[EpochRecord], index: int) -> Line2D:
    """Draw one network's two lines and the ring at its best validation figure; returns its line for the legend."""
    records = sorted(records, key=lambda record: record.epoch)
    colour, marker = CATEGORIES[index % len(CATEGORIES)], "os^Dv"[index // len(CATEGORIES) % 5]
    epochs = np.array([record.epoch for record in records])
    train = np.array([record.train_dice_running for record in records])
    validation = np.array([record.validation_dice for record in records])
    point = marker if len(records) <= _FEW or index >= len(CATEGORIES) else ""
    label = shown(name, 40)
    axes.plot(
        epochs, train, color=colour, linewidth=0.9, alpha=0.75, marker=point, markersize=3,
        label=f"{label} train (running mean over the epoch)",
    )  # fmt: skip
    axes.plot(
        epochs, validation, color=colour, linewidth=1.3, linestyle="--", marker=point, markersize=3,
        label=f"{label} validation",
    )  # fmt: skip
    if np.isfinite(validation).any():
        best = int(np.nanargmax(validation))
        axes.plot(
            epochs[best], validation[best], marker="o", markersize=6, markerfacecolor="none", markeredgecolor=colour,
            linestyle="none", label="_best", clip_on=False, zorder=5,
        )  # fmt: skip
        label = f"{label}: best {validation[best]:.3f} at epoch {epochs[best]}"
    return Line2D([], [], color=colour, linewidth=2.0, marker=point, markersize=3, label=label)


@in_style
def verdict_map(judgement: Judgement, *, figure: Figure | SubFigure | None = None) -> NDArray[Any]:
    """A panel for each rule: its decision on every skip and level, a row each, at every marked epoch, a column each.

    Where merges were not probed, the conditional rule says nothing.

    Returns the panels.

    >>> from unetscope.table.flow import Flow
    >>> from unetscope.table.records import Estimate, Layer, Skip
    >>> from unetscope.analysis.verdict import judge
    >>> layers = (Layer("2", "a", 0), Layer("4", "b", 1), Layer("5", "cat", 0, "merge", ("5up", "2")))
    >>> rows = [Estimate(epoch, "5", "I(X;M)", "kde_upper", 1, "", 1, 1, 1, 3, False, 9, 9) for epoch in (1, 10)]
    >>> panels = verdict_map(judge(Flow(layers, (Skip("skip1", "2", "5up", "5"),), tuple(rows))))
    >>> [text.get_text() for text in panels[0].get_yticklabels()]
    ['skip1', 'level1']
    """
    rules = [rule for rule in _TITLES if any(verdict.rule == rule for verdict in judgement.verdicts)]
    parts = {rule: _parts(judgement, rule) for rule in rules}
    epochs = judgement.epochs
    tallest = max(map(len, parts.values()))
    figure = new_figure(figure, max(4.4, 0.9 + len(rules) * (0.33 * len(epochs) + 0.8)), 1.3 + 0.27 * tallest)
    panels = figure.subplots(1, len(rules), squeeze=False)[0]
    for panel, rule in zip(panels, rules, strict=True):
        decisions = {(v.part, v.epoch): v.decision for v in judgement.verdicts if v.rule == rule}
        for row, part in enumerate(parts[rule]):
            for column, epoch in enumerate(epochs):
                if rule == "conditional" and epoch not in judgement.probed_epochs:
                    continue
                _cell(panel, column, row, decisions.get((part, epoch), "undecided"))
        panel.set_xlim(-0.5, len(epochs) - 0.5)
        panel.set_ylim(len(parts[rule]) - 0.5, -0.5)
        panel.set_xticks(range(len(epochs)), list(map(str, epochs)), fontsize=SMALL)
        panel.set_yticks(range(len(parts[rule])), list(map(str, parts[rule])), fontsize=MEDIUM)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        panel.set_xlabel("training epochs", fontsize=MEDIUM)
        panel.set_title(_TITLES[rule], fontsize=MEDIUM)
    handles = [Patch(color=mark.fill, label=f"{mark.letter}  {what}") for what, mark in DECISION_MARKS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle("Which skips and levels a training of so many epochs needs", fontsize=LARGE)
    return np.asarray(panels)


def _parts(judgement: Judgement, rule: Rule) -> list[Part]:
    return sorted({verdict.part for verdict in judgement.verdicts if verdict.rule == rule})


def _cell(panel: Axes, column: int, row: int, decision: Decision) -> None:
    """A square in the colour of a decision, less than the whole cell, so that white separates neighbours."""
    mark = DECISION_MARKS[decision]
    panel.add_patch(Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, facecolor=mark.fill, linewidth=0))
    ink = INK if decision == "undecided" else "white"
    panel.text(column, row, mark.letter, ha="center", va="center", fontsize=SMALL, color=ink)


@in_style
def dice_bands(verification: Verification, *, axes: Axes | None = None) -> Axes:
    """Validation Dice of every variant: the mean over its seeds that are compared, with a band from the worst to the best of
    them.

    Seeds that did not start, or collapsed, are thin dotted lines, and counted in the legend. A dashed line is the Dice that
    the others are to reach, the reference's best less the margin.

    Source: Fig. 5 of Lee & Bajić 2021.
    """
    axes = new_axes(axes, 5.8, 3.5)
    tidy(axes)
    handles = list[Line2D]()
    for index, variant in enumerate(verification.variants):
        trainings = [training for training in verification.of(variant.name) if training.records]
        handles += [_band(axes, variant.name, trainings, _LINES[index % len(_LINES)], index)] if trainings else []
    axes.axhline(verification.target, color=INK, linewidth=0.7, linestyle="--")
    handles.append(Line2D([], [], color=INK, linewidth=0.7, linestyle="--", label=f"target: {verification.target:.3f}"))
    epochs = [record.epoch for training in verification.trainings for record in training.records]
    epochs_on_axis(axes, min(epochs), max(epochs))
    _finish_dice_axes(axes, "validation Dice (1 = perfect)", "Retrained variants: mean and range over seeds", handles)
    return axes


def _band(axes: Axes, name: str, trainings: Sequence[Training], colour: str, index: int) -> Line2D:
    """One variant's curves; returns its line for the legend."""
    style: Literal["-", "-."] = "-" if index < len(_LINES) else "-."
    curves = {
        training.seed: {record.epoch: record.validation_dice for record in training.records} for training in trainings
    }
    started = [curves[training.seed] for training in trainings if training.sound]
    for training in trainings:
        if not training.sound:
            axes.plot(*zip(*curves[training.seed].items(), strict=True), color=colour, linewidth=0.8, linestyle=":")
    if started:
        epochs = sorted(set.union(*(set(curve) for curve in started)))
        values = [[curve[epoch] for curve in started if epoch in curve] for epoch in epochs]
        axes.plot(epochs, [np.mean(of_epoch) for of_epoch in values], color=colour, linewidth=1.4, linestyle=style)
        if len(started) >= _BANDED:
            low, high = [min(of_epoch) for of_epoch in values], [max(of_epoch) for of_epoch in values]
            axes.fill_between(epochs, low, high, color=colour, alpha=0.18, linewidth=0)
    count = f"{len(started)} of {len(trainings)} compared" if len(started) < len(trainings) else f"{len(started)} seeds"
    return Line2D([], [], color=colour, linewidth=2.0, linestyle=style, label=f"{shown(name, 40)}: {count}")


@in_style
def outcomes(verification: Verification, *, epoch: int | None = None, axes: Axes | None = None) -> Axes:
    """Every variant's loss of Dice against the reference, with its interval, beside the verdict on it; misses in red.

    The thin line below is the interval of the loss that was expected.

    epoch: the budget, by default the last.
    Raises: InvalidArgument if nothing but the reference was trained.
    """
    rows = verification.rows(epoch)
    if not rows:
        raise InvalidArgument("nothing to compare: only the reference was trained")
    axes = new_axes(axes, 6.4, 1.2 + 0.3 * len(rows))
    tidy(axes)
    axes.axvline(0, color=FAINT, linewidth=0.7)
    axes.axvline(-verification.margin, color=INK, linewidth=0.7, linestyle="--")
    for place, row in enumerate(rows):
        difference, decision = row.outcome.difference, row.outcome.decision
        colour = FAINT if decision == "undecided" else DECISION_MARKS[decision].fill
        if difference.value != difference.value:
            why = textwrap.fill(shown(row.outcome.text, 180), 66)
            axes.text(
                0.5, place, why, transform=axes.get_yaxis_transform(), fontsize=SMALL, color=INK, ha="center", va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
            )  # fmt: skip
        else:
            if difference.low == difference.low:
                axes.plot([difference.low, difference.high], [place, place], color=colour, linewidth=2)
            axes.plot(difference.value, place, "o", color=colour, markersize=5)
        _write_prediction(axes, row, None, 1.02, place)
        _write_prediction(axes, row, "plateau", 1.26, place)
        if row.expected is not None:
            loss = row.expected.loss
            axes.plot([-loss.high, -loss.low], [place + 0.3] * 2, color=FAINT, linewidth=1)
    for offset, title in zip((1.02, 1.26), ("verdict", "paper's rule"), strict=True):
        axes.text(offset, -0.6, title, transform=axes.get_yaxis_transform(), fontsize=SMALL, va="bottom")
    axes.set_yticks(range(len(rows)), [f"{shown(row.variant.name, 34)}" for row in rows], fontsize=MEDIUM)
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the first variant on top
    reach = [end for row in rows for end in (row.outcome.difference.value,) if end == end]
    axes.set_xlim(min([*reach, -0.1]) * 1.25, max([*reach, 0.0]) + 0.1)
    axes.set_xlabel("validation Dice, variant less reference (dashed: the margin)", fontsize=MEDIUM)
    at = verification.budgets[-1] if epoch is None else epoch
    axes.set_title(f"What leaving parts out costs after {at} epochs", fontsize=LARGE, pad=14)
    return axes


def _write_prediction(axes: Axes, row: Row, rule: Rule | None, offset: float, place: int) -> None:
    """The verdict on a variant, or what a rule said, with a mark if it was right or wrong."""
    decision, agreement = row.decision(rule), row.agreement(rule)
    mark = {"hit": " ✓", "miss": " ✗", "open": ""}[agreement]
    colour = {"hit": INK, "miss": "#C00000", "open": FAINT}[agreement]
    axes.text(
        offset,
        place,
        f"{decision}{mark}",
        transform=axes.get_yaxis_transform(),
        fontsize=MEDIUM,
        va="center",
        color=colour,
        weight="bold" if agreement == "miss" else "normal",
    )
