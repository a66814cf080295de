"""The figures of the study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibration.study import Outcome
from calibration.sweeps import Sweep
from unetscope.plots.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    MERGE_BAND,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILLION,
    in_style,
    save,
    tidy,
)

NAMES = {
    "kde_upper": ("KDE upper", BLUE),
    "kde_lower": ("KDE lower", SKY),
    "mixture": ("mixture", VERMILLION),
    "binning": ("binning", ORANGE),
    "ksg": ("KSG", GREEN),
    "renyi": ("Rényi index", PURPLE),
    "usable_linear": ("linear probes", INK),
    "usable_convolutional": ("convolutional probes", FAINT),
}
LOWEST = 0.75  # of the shares drawn: what is below is drawn there


@in_style
def coverage(outcomes: Sequence[Outcome], folder: Path) -> None:
    """How often intervals held the truth, one dot an estimate; hollow where most repetitions were refused."""
    judged = [outcome for outcome in outcomes if not math.isnan(outcome.coverage)]
    groups = list(dict.fromkeys(outcome.case.group for outcome in judged))
    figure = Figure(figsize=(6.6, 0.46 * len(groups) + 1.3), layout="constrained")
    axes = figure.subplots()
    tidy(axes)
    axes.axvspan(0.90, 0.99, color=MERGE_BAND, linewidth=0)
    axes.axvline(0.95, color=FAINT, linewidth=0.7)
    random = np.random.default_rng(0)
    for row, group in enumerate(groups):
        for outcome in (each for each in judged if each.case.group == group):
            name, colour = NAMES[outcome.of[0]]
            full, held = outcome.in_domain >= 0.5, outcome.coverage
            axes.plot(
                max(held, LOWEST), row + random.uniform(-0.3, 0.3), marker="o", markersize=3.6, linestyle="none",
                color=colour, markerfacecolor=colour if full else "white", markeredgewidth=0.8, label=name if full else "_",
            )  # fmt: skip
    axes.set_yticks(range(len(groups)), [_wrapped(group) for group in groups], fontsize=SMALL)
    axes.invert_yaxis()
    axes.set_xlim(LOWEST - 0.01, 1.01)
    axes.set_xlabel(
        "share of 95 % intervals that hold the truth (grey: 0.90 to 0.99); hollow: refused more often than not"
    )
    handles, names = axes.get_legend_handles_labels()
    unique = dict(zip(names, handles, strict=True))
    axes.legend(unique.values(), unique, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    _saved(figure, folder, "calibration_coverage")


@in_style
def breaks(sweeps: Sequence[Sweep], folder: Path) -> None:
    """Estimates against the truth along an axis on which they break; hollow where they say so themselves."""
    figure = Figure(figsize=(7.4, 4.9), layout="constrained")
    for panel, sweep in zip(figure.subplots(2, 3).flat, sweeps, strict=True):
        _break(panel, sweep)
    handles = {}
    for panel in figure.axes:
        handles |= {
            str(line.get_label()): line for line in panel.get_lines() if not str(line.get_label()).startswith("_")
        }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles))
    _saved(figure, folder, "calibration_breaks")


def _break(axes: Axes, sweep: Sweep) -> None:
    tidy(axes)
    axes.set_xscale("log")
    axes.plot(sweep.places, sweep.truths, color=INK, linewidth=2.6, alpha=0.25, label="truth", zorder=1)
    if math.isfinite(sweep.ceiling):
        axes.axhline(sweep.ceiling, color=FAINT, linewidth=0.8, linestyle=(0, (5, 3)), label="ceiling log₂ N", zorder=1)
    for estimator, bits in sweep.bits.items():
        name, colour = NAMES[estimator]
        mean, sure = _mean(bits), _mean(sweep.in_domain[estimator]) >= 0.5
        axes.plot(sweep.places, mean, color=colour, linewidth=1.0, zorder=2, label=name)
        for inside, face in ((sure, colour), (~sure, "white")):
            axes.plot(
                np.asarray(sweep.places)[inside], mean[inside], color=colour, marker="o", markersize=3.2, linestyle="none",
                markerfacecolor=face, markeredgewidth=0.8, zorder=3, label="_points",
            )  # fmt: skip
    values = [value for bits in sweep.bits.values() for value in _mean(bits) if math.isfinite(value)]
    top = max(*values, sweep.ceiling if math.isfinite(sweep.ceiling) else 0.0)
    axes.set_ylim(
        min(0.0, *values) - 0.04 * top,
        1.12 * top if max(sweep.truths) > top else max(1.08 * top, 1.08 * max(sweep.truths)),
    )
    axes.set_xticks(sweep.places, [f"{place:g}" for place in sweep.places], fontsize=SMALL - 0.5)
    axes.minorticks_off()
    axes.set_title(sweep.title)
    axes.set_xlabel(sweep.axis)
    axes.set_ylabel(sweep.unit)


def _mean(values: np.ndarray) -> np.ndarray:
    finite = np.isfinite(values)
    return np.where(
        finite.any(axis=0), np.where(finite, values, 0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1), math.nan
    )


@in_style
def skips(outcomes: Sequence[Outcome], folder: Path) -> None:
    """What is found of planted skips, beside what was planted."""
    planted = [outcome for outcome in outcomes if outcome.case.group.startswith("Planted skips")]
    groups = list(dict.fromkeys(outcome.case.group for outcome in planted))
    figure = Figure(figsize=(7.2, 2.7 * len(groups)), layout="constrained")
    for axes, group in zip(np.atleast_1d(figure.subplots(len(groups), 1)), groups, strict=True):
        tidy(axes)
        of_group = [outcome for outcome in planted if outcome.case.group == group]
        kinds = list(dict.fromkeys(_kind(outcome) for outcome in of_group))
        quantities = list(dict.fromkeys(outcome.of[1] for outcome in of_group))
        estimators = list(dict.fromkeys(outcome.of[0] for outcome in of_group))
        for outcome in of_group:
            place = kinds.index(_kind(outcome)) * (len(quantities) + 1) + quantities.index(outcome.of[1])
            name, colour = NAMES[outcome.of[0]]
            beside = (estimators.index(outcome.of[0]) - (len(estimators) - 1) / 2) * 0.3
            if not math.isnan(outcome.truth):
                axes.plot(
                    [place - 0.4, place + 0.4],
                    [outcome.truth] * 2,
                    color=INK,
                    linewidth=2.6,
                    alpha=0.25,
                    label="planted",
                )
            bits = outcome.bits[np.isfinite(outcome.bits)]
            if len(bits):
                axes.errorbar(
                    place + beside, bits.mean(), 2 * bits.std(), color=colour, fmt="o", markersize=3.4, linewidth=0.9,
                    label=name,
                )  # fmt: skip
        axes.axhline(0, color=FAINT, linewidth=0.6)
        axes.set_xticks(
            [kind * (len(quantities) + 1) + quantity for kind in range(len(kinds)) for quantity in range(len(quantities))],
            quantities * len(kinds), rotation=30, ha="right", fontsize=SMALL,
        )  # fmt: skip
        for kind, name in enumerate(kinds):
            axes.text(
                kind * (len(quantities) + 1) + (len(quantities) - 1) / 2, 1.02, name, transform=axes.get_xaxis_transform(),
                ha="center", va="bottom", fontsize=SMALL,
            )  # fmt: skip
        axes.set_title(group, pad=14)
        axes.set_ylabel("bits a pixel" if quantities[0].startswith("I_V") else "bits")
        handles, names = axes.get_legend_handles_labels()
        unique = dict(zip(names, handles, strict=True))
        axes.legend(unique.values(), unique, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    _saved(figure, folder, "calibration_skips")


def _kind(outcome: Outcome) -> str:
    return outcome.case.name.split(", ")[0]


def _wrapped(text: str, width: int = 44) -> str:
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _saved(figure: Figure, folder: Path, name: str) -> None:
    """As PNG alone, which is what the page shows."""
    _, svg = save(figure, folder, name)
    svg.unlink()
