"""Masks and predictions as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from unetscope.base import InvalidArgument
from unetscope.plots.style import (
    INK,
    LARGE,
    MEDIUM,
    SKY,
    SMALL,
    VERMILLION,
    YELLOW,
    in_style,
    inches_of,
    new_figure,
    shown,
)
from unetscope.table import ClassMap

_ACROSS = 4  # masks in a row of a cluster
_GAP = 0.25  # masks' widths between clusters side by side
_RIGHT, _EXTRA, _MISSED = SKY, YELLOW, VERMILLION


@in_style
def masks_by_cluster(
    clusters: Sequence[tuple[str, Sequence[NDArray[Any]]]], *, figure: Figure | SubFigure | None = None
) -> NDArray[Any]:
    """Example masks of each cluster in rows of four, white where the mask is 1, under the cluster's title.

    Masks of several classes are given as pictures, uint8 [h, w, 3].

    Returns the axes of the masks, cluster after cluster.

    Source: Fig. 2 of Lee & Bajić 2021.
    Raises: InvalidArgument if there is no cluster, a cluster is empty, or a mask is neither 2-D with values 0 and 1 nor a
    picture.

    >>> axes = masks_by_cluster([("cluster 12 · 31 images", [np.eye(8, dtype=np.uint8)] * 3)])
    >>> len(axes), axes[0].get_title(loc="left")
    (3, 'cluster 12 · 31 images')
    """
    if not clusters:
        raise InvalidArgument("clusters must hold at least one cluster, got none")
    for title, masks in clusters:
        if not len(masks):
            raise InvalidArgument(f"cluster {title!r} must have at least one mask to show, got none")
        for mask in masks:
            if np.ndim(mask) != 3:
                _check_mask(mask, f"a mask of cluster {title!r}")
    beside = 1 if len(clusters) <= 3 else 2 if len(clusters) <= 16 else 3
    heights = [math.ceil(len(masks) / _ACROSS) for _, masks in clusters]
    lines = [max(heights[start : start + beside]) for start in range(0, len(clusters), beside)]
    figure = new_figure(figure, 3.7 * beside - 0.2, 0.85 * sum(lines) + 0.22 * len(lines) + 0.1)
    widths = [*[1.0] * _ACROSS, _GAP] * beside
    cells = figure.add_gridspec(sum(lines), len(widths) - 1, width_ratios=widths[:-1])
    drawn: list[Axes] = []
    for index, (title, masks) in enumerate(clusters):
        block, column = divmod(index, beside)
        for number, mask in enumerate(masks):
            line, place = divmod(number, _ACROSS)
            cell = cells[sum(lines[:block]) + line, (_ACROSS + 1) * column + place]
            axes = _picture(figure.add_subplot(cell), mask, cmap="gray", vmin=0, vmax=1)
            if number == 0:
                axes.set_title(shown(title, 46), loc="left", fontsize=MEDIUM, pad=3)
            drawn.append(axes)
    return np.array(drawn, dtype=object)


@in_style
def predictions(
    image_rows: Sequence[tuple[str, NDArray[Any], NDArray[Any], Mapping[int, NDArray[Any]]]],
    epochs: Sequence[int],
    *,
    class_map: ClassMap | None = None,
    figure: Figure | SubFigure | None = None,
) -> NDArray[Any]:
    """For each image a row: the image, its true mask, and its predicted mask at each epoch, with its Dice coefficient.

    A row is a name, an image `[h, w, 3]` uint8, a mask `[h, w]` of 0 and 1, and for each epoch the predicted
    probability `[h, w]` as uint8 (255 is 1). A pixel is predicted where that is above one half. Blue is found, orange
    is predicted but not there, vermillion is missed. Returns the axes, `[rows, 2 + epochs]`.

    class_map: for masks and predictions that hold the numbers of classes, uint8: each class has a colour, pixels to ignore are
    white, and the Dice is the mean over the classes that the mask has.

    Source: Fig. 6 of Lee & Bajić 2021.
    Raises: InvalidArgument if there is no row or shapes or values do not fit.

    >>> mask = np.eye(8, dtype=np.uint8)
    >>> row = ("a.png", np.zeros((8, 8, 3), np.uint8), mask, {10: 255 * mask})
    >>> axes = predictions([row], [10])
    >>> axes.shape, axes[0, 2].get_title(), axes[0, 2].get_xlabel()
    ((1, 3), 'epoch 10', 'Dice 1.00')
    """
    if not image_rows:
        raise InvalidArgument("image_rows must hold at least one image, got none")
    for name, image, truth, predicted in image_rows:
        _check_row(name, image, truth, predicted, class_map)
    columns = 2 + len(epochs)
    rule = "probability above one half" if class_map is None else "the likeliest class"
    heading = f"Predicted masks during training ({rule})"
    width = max(1.02 * columns + 0.2, inches_of(heading, LARGE) + 0.2)
    lines = 0 if class_map is None else math.ceil(len(class_map.legend) / _legend_columns(width))
    figure = new_figure(figure, width, 1.2 * len(image_rows) + 0.75 + 0.14 * lines)
    grid = figure.subplots(len(image_rows), columns, squeeze=False)
    for line, (name, image, truth, predicted) in zip(grid, image_rows, strict=True):
        _picture(line[0], image)
        line[0].set_ylabel(shown(name, 18), fontsize=SMALL)
        if class_map is None:
            _picture(line[1], truth, cmap="gray", vmin=0, vmax=1)
        else:
            _picture(line[1], class_map.coloured(truth))
        for axes, epoch in zip(line[2:], epochs, strict=True):
            if epoch in predicted:
                colours, dice = _marked(np.asarray(truth), np.asarray(predicted[epoch]), class_map)
                _picture(axes, colours)
                axes.set_xlabel(f"Dice {dice:.2f}" if dice == dice else "no label", fontsize=SMALL, labelpad=2)
            else:
                axes.set_axis_off()
                axes.set_box_aspect(np.asarray(truth).shape[0] / np.asarray(truth).shape[1])
                axes.text(0.5, 0.5, "not kept", transform=axes.transAxes, ha="center", va="center", color=INK)
    for axes, title in zip(grid[0], ["image", "true mask", *(f"epoch {epoch}" for epoch in epochs)], strict=True):
        axes.set_title(title, fontsize=MEDIUM, pad=4)
    figure.suptitle(heading, fontsize=LARGE)
    _explain(figure, width, class_map)
    return np.asarray(grid)


def _explain(figure: Figure | SubFigure, width: float, class_map: ClassMap | None) -> None:
    """What the colours of predictions mean, under the figure."""
    meanings = {"found": _RIGHT, "predicted, not there": _EXTRA, "missed": _MISSED}
    columns = 3
    if class_map is not None:
        meanings, columns = dict(class_map.legend), _legend_columns(width)
    handles = [
        Patch(facecolor=colour, edgecolor="#888888", linewidth=0.4, label=text) for text, colour in meanings.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=1.0, fontsize=SMALL)


def _legend_columns(width: float) -> int:
    """How many classes stand side by side under a figure of so many inches."""
    return max(2, int(width / 0.75))


def _marked(truth: NDArray[Any], predicted: NDArray[Any], class_map: ClassMap | None) -> tuple[NDArray[Any], float]:
    """A prediction in colours, and its Dice."""
    if class_map is None:
        marked = predicted > 127
        return agreement(truth == 1, marked), _dice(truth == 1, marked)
    labelled = np.ones(truth.shape, dtype=bool) if class_map.ignored is None else truth != class_map.ignored
    shown = class_map.coloured(np.where(labelled, predicted, truth))
    if class_map.classes == 2:
        return shown, _dice(truth == 1, (predicted == 1) & labelled)
    dice = []
    for label in np.unique(truth[labelled]):
        true, marked = truth == label, (predicted == label) & labelled
        dice.append(2 * (true & marked).sum() / (true.sum() + marked.sum()))
    return shown, float(np.mean(dice)) if dice else math.nan


def agreement(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The colour of each pixel of a predicted mask, `[h, w, 3]` in [0, 1]: found, not there, missed, else black."""
    colours = np.zeros((*truth.shape, 3))
    colours[truth & predicted] = to_rgb(_RIGHT)
    colours[~truth & predicted] = to_rgb(_EXTRA)
    colours[truth & ~predicted] = to_rgb(_MISSED)
    return colours


def _dice(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """Dice coefficient of two hard masks, smooth 1."""
    return float((2 * (truth & predicted).sum() + 1) / (truth.sum() + predicted.sum() + 1))


def _picture(axes: Axes, values: NDArray[Any], **shading: Any) -> Axes:
    axes.imshow(values, interpolation="nearest", **shading)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.4, color="#888888")
    return axes


def _check_mask(mask: NDArray[Any], what: str) -> None:
    mask = np.asarray(mask)
    if mask.ndim != 2 or not mask.size:
        raise InvalidArgument(f"{what} must be 2-D and not empty, got shape {mask.shape}")
    if not np.isin(mask, (0, 1)).all():
        raise InvalidArgument(f"{what} must hold 0 and 1 only, got values from {mask.min()} to {mask.max()}")


def _check_row(
    name: str,
    image: NDArray[Any],
    truth: NDArray[Any],
    predicted: Mapping[int, NDArray[Any]],
    class_map: ClassMap | None,
) -> None:
    if class_map is None:
        _check_mask(truth, f"the true mask of {name!r}")
    if image.shape != (*truth.shape, 3) or image.dtype != np.uint8:
        raise InvalidArgument(
            f"the image {name!r} must be uint8 of shape {(*truth.shape, 3)}, as its mask is, "
            f"got {image.dtype} of shape {image.shape}"
        )
    for epoch, probability in predicted.items():
        if probability.shape != truth.shape or probability.dtype != np.uint8:
            raise InvalidArgument(
                f"the prediction for {name!r} at epoch {epoch} must be uint8 of shape {truth.shape}, "
                f"got {probability.dtype} of shape {probability.shape}"
            )
