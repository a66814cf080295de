"""How well networks learnt, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from unetscope.base import InvalidArgument
from unetscope.plots.style import CATEGORIES, INK, LARGE, MEDIUM, epochs_on_axis, in_style, new_axes, shown, tidy
from unetscope.table import EpochRecord

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
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("Dice coefficient (1 = perfect)", fontsize=MEDIUM)
    axes.set_title("Dice coefficient during training", fontsize=LARGE)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.5)
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0.0, labelspacing=0.45)
    return axes


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
