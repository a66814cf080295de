"""The figures of docs/paper.md, after those of the paper; epochs are the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from paper_protocol import MODELS, PAPER_RATE, WINDOW, Model, Protocol, trials_of_models

from unetscope import plots
from unetscope.plots.style import CATEGORIES, LARGE, MEDIUM, in_style, new_axes, tidy
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.folder import RunFolder
from unetscope.table.flow import Flow

SHOWN: Final = (1, 10, 100, 500, 1000, 2000, 5000, 10_000)  # epochs of the paper's Fig. 4
SHOWN_MASKS: Final = (1000, 2000, 5000, 10_000)  # and of its Fig. 6
WITH_MASKS: Final = ("model1", "model2", "model3")
FIGURES: Final[Mapping[str, str]] = {
    "plane": "Fig. 3, information planes",
    "input": "Fig. 4 left, U-Plot of I(X;M)",
    "output": "Fig. 4 right, U-Plot of I(Y;M)",
    "dice": "Fig. 5, Dice of the models",
    **{f"masks_{name}": f"Fig. 6, masks predicted by Model {name[-1]}" for name in WITH_MASKS},
}
AT_BEST: Final = {"Models 1 and 2 at their best": (2000, 3000), "Model 3 catches up": (7800, 8200)}  # in the paper


def draw_run(protocol: Protocol, folder: Path) -> None:
    """The paper's Figs. 3 to 5 of a run, as PNG."""
    few = at_epochs(protocol.flow, SHOWN)
    drawn = {
        "plane": plots.information_plane(protocol.flow),
        "input": plots.u_plot(few, quantity="I(X;M)"),
        "output": plots.u_plot(few, quantity="I(Y;M)"),
        "dice": dice_of(
            {f"Model {name[-1]}": protocol.models[name] for name in MODELS if name in protocol.models}, windows=AT_BEST
        ),
    }
    for name, axes in drawn.items():
        _save(axes, folder, f"paper_{protocol.name}_{name}")


def at_epochs(flow: Flow, wanted: Sequence[int]) -> Flow:
    """The estimates of the measured epochs next to these."""
    chosen = {min(flow.epochs, key=lambda epoch: abs(epoch - each)) for each in wanted}
    return replace(flow, estimates=tuple(row for row in flow.estimates if row.epoch in chosen))


def draw_rates(slow: Protocol, fast: Protocol, folder: Path) -> None:
    """Model 1 at two learning rates, as far as both go."""
    curves = {f"learning rate {each.rate:g}": each.models[MODELS[0]] for each in (slow, fast)}
    until = min(model.last for model in curves.values())
    _save(dice_of(curves, until=until), folder, f"paper_rates_{slow.name}_{fast.name}")


@in_style
def dice_of(
    curves: Mapping[str, Model], *, windows: Mapping[str, tuple[int, int]] | None = None, until: int | None = None
) -> Axes:
    """Dice against the epoch, thick in validation and thin in training, as medians; windows of epochs are tinted and named."""
    axes = new_axes(None, 6.4, 3.3)
    tidy(axes)
    last = until or max(model.last for model in curves.values())
    for name, (low, high) in (windows or {}).items():
        if low < last:
            axes.axvspan(low, high, color="#DDE7F0", linewidth=0)
            axes.text(
                (low + high) / 2, 1.03, f"paper: {name}", fontsize=MEDIUM - 1, ha="center", va="bottom", color="#555555"
            )
    for index, (name, model) in enumerate(curves.items()):
        colour, within = CATEGORIES[index], model.epochs <= last
        axes.plot(model.epochs[within], model.medians(model.training)[within], color=colour, linewidth=0.7, alpha=0.8)
        axes.plot(model.epochs[within], model.dice[within], color=colour, linewidth=1.6, label=name)
    axes.plot([], [], color="#444444", linewidth=0.7, label="thin: training")
    axes.set(xlim=(0, last), ylim=(0, 1), xlabel="epoch of the paper: learning rate × epochs / 0.001")
    axes.set_ylabel(f"mean Dice, median over {WINDOW} epochs", fontsize=MEDIUM)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.5)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
    axes.title.set_fontsize(LARGE)
    return axes


def draw_masks(run: Path, folder: Path) -> list[str]:
    """What Models 1 to 3 predict of some images along their training, as PNG; the models that have kept it."""
    analysed, drawn = AnalysedRun.open(run), []
    scale = analysed.configuration["training"]["learning_rate"] / PAPER_RATE
    trials = trials_of_models(analysed)
    for name in WITH_MASKS:
        rows = _predictions(RunFolder.open(trials[name].path)) if name in trials else []
        shown = [epoch for epoch in (round(each / scale) for each in SHOWN_MASKS) if rows and epoch in rows[0][3]]
        if shown:
            _save(plots.predictions(rows, shown), folder, f"paper_{run.name}_masks_{name}")
            drawn.append(name)
    return drawn


def _predictions(
    folder: RunFolder,
) -> list[tuple[str, NDArray[np.uint8], NDArray[np.uint8], dict[int, NDArray[np.uint8]]]]:
    """Of some images their pixels, their masks, and the masks that were predicted, by epoch."""
    truths = {picture.title: picture.pixels // 255 for picture in folder.pictures("truth")}
    predicted: dict[str, dict[int, NDArray[np.uint8]]] = {}
    for picture in folder.pictures("prediction"):
        predicted.setdefault(picture.title, {})[picture.epoch] = picture.pixels
    return [
        (image.title, image.pixels, truths[image.title], predicted.get(image.title, {}))
        for image in folder.pictures("image")
    ]


def _save(axes: object, folder: Path, name: str) -> None:
    figure = np.asarray(axes).flat[0].get_figure(root=True)
    plots.save(figure, folder, name)
    (folder / f"{name}.svg").unlink()
