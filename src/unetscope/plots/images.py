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

_ACROSS = 4  # masks in a row of a cluster
_GAP = 0.25  # masks' widths between clusters side by side
_RIGHT, _EXTRA, _MISSED = SKY, YELLOW, VERMILLION


@in_style
def masks_by_cluster(
    clusters: Sequence[tuple[str, Sequence[NDArray[Any]]]], *, figure: Figure | SubFigure | None = None
) -> NDArray[Any]:
    """Example masks of each cluster in rows of four, white where the mask is 1, under the cluster's title.

    Returns the axes of the masks, cluster after cluster.

    Source: Fig. 2 of Lee & Bajić 2021.
    Raises: InvalidArgument if there is no cluster, a cluster is empty, or a mask is not 2-D with values 0 and 1.

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
    figure: Figure | SubFigure | None = None,
) -> NDArray[Any]:
    """For each image a row: the image, its true mask, and its predicted mask at each epoch, with its Dice coefficient.

    A row is a name, an image `[h, w, 3]` uint8, a mask `[h, w]` of 0 and 1, and for each epoch the predicted
    probability `[h, w]` as uint8 (255 is 1). A pixel is predicted where that is above one half. Blue is found, orange
    is predicted but not there, vermillion is missed. Returns the axes, `[rows, 2 + epochs]`.

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
        _check_row(name, image, truth, predicted)
    columns = 2 + len(epochs)
    heading = "Predicted masks during training (probability above one half)"
    width = max(1.02 * columns + 0.2, inches_of(heading, LARGE) + 0.2)
    figure = new_figure(figure, width, 1.2 * len(image_rows) + 0.75)
    grid = figure.subplots(len(image_rows), columns, squeeze=False)
    for line, (name, image, truth, predicted) in zip(grid, image_rows, strict=True):
        _picture(line[0], image)
        line[0].set_ylabel(shown(name, 18), fontsize=SMALL)
        _picture(line[1], truth, cmap="gray", vmin=0, vmax=1)
        for axes, epoch in zip(line[2:], epochs, strict=True):
            if epoch in predicted:
                marked = np.asarray(predicted[epoch]) > 127
                _picture(axes, agreement(np.asarray(truth) == 1, marked))
                axes.set_xlabel(f"Dice {_dice(np.asarray(truth) == 1, marked):.2f}", fontsize=SMALL, labelpad=2)
            else:
                axes.set_axis_off()
                axes.set_box_aspect(np.asarray(truth).shape[0] / np.asarray(truth).shape[1])
                axes.text(0.5, 0.5, "not kept", transform=axes.transAxes, ha="center", va="center", color=INK)
    for axes, title in zip(grid[0], ["image", "true mask", *(f"epoch {epoch}" for epoch in epochs)], strict=True):
        axes.set_title(title, fontsize=MEDIUM, pad=4)
    figure.suptitle(heading, fontsize=LARGE)
    meanings = {"found": _RIGHT, "predicted, not there": _EXTRA, "missed": _MISSED}
    handles = [Patch(facecolor=colour, label=meaning) for meaning, colour in meanings.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=1.0, fontsize=SMALL)
    return np.asarray(grid)


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


def _check_row(name: str, image: NDArray[Any], truth: NDArray[Any], predicted: Mapping[int, NDArray[Any]]) -> None:
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
