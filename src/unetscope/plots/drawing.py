"""The network drawn as a U, from its records alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from unetscope.base import InvalidArgument
from unetscope.plots.information import tick_names
from unetscope.plots.style import (
    BLUE,
    GREEN,
    INK,
    LARGE,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    ShownFigure,
    counted,
    in_style,
    shown,
    tracks,
)
from unetscope.table import Layer, Skip

# One unit of the drawing is one point, so that boxes and text keep their proportions.
_SLOT, _STEP, _TALLEST, _LOWEST = 20.0, 52.0, 36.0, 7.0
_TRACK = 9.0  # points between two skips on one level
_FILLS = {
    "encoder": BLUE, "bottom": PURPLE, "upsampled": SKY, "merge": ORANGE, "decoder": GREEN, "output": INK,
    "layer": "#8A8A8A",
}  # fmt: skip
_TEXT = SMALL - 0.5


@dataclass(frozen=True)
class _Box:
    """One layer's rectangle, its centre and size in points."""

    layer: Layer
    x: float
    y: float
    width: float
    height: float

    @property
    def top(self) -> float:
        return self.y + self.height / 2

    @property
    def bottom(self) -> float:
        return self.y - self.height / 2

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2


@in_style
def architecture(layers: Sequence[Layer], skips: Sequence[Skip], *, axes: Axes | None = None) -> Axes:
    """The layers as boxes along a U, one step down for each halving of the image, with skips as arrows to their merges.

    A box is as tall as the layer's image is high (compressed) and as wide as the logarithm of its channels; under it
    stand its number and its channels × height × width. A skip that was taken out is not among `skips` and is absent.

    Source: Fig. 1 of Lee & Bajić 2021.
    Raises: InvalidArgument if there is no layer or a skip starts or ends at a layer that is not there.

    >>> layers = (Layer("1", "conv1", shape=(16, 8, 8)), Layer("2", "down", level=1, shape=(32, 4, 4)),
    ...           Layer("3", "merge", role="merge", parts=("2", "1"), shape=(48, 8, 8)))
    >>> axes = architecture(layers, [Skip("skip1", source="1", upsampled="2", merge="3")])
    >>> [text.get_text() for text in axes.texts if text.get_text().startswith("skip")]
    ['skip1']
    """
    if not layers:
        raise InvalidArgument("layers must hold at least one layer, got none")
    names = {layer.label for layer in layers}
    for skip in skips:
        for end in (skip.source, skip.merge):
            if end not in names:
                raise InvalidArgument(f"skip {skip.name!r} joins layer {end!r}, which is not among the layers")
    boxes = _boxes(layers)
    by_label = {box.layer.label: box for box in boxes}
    axes = _canvas(boxes, skips) if axes is None else axes
    axes.set_axis_off()
    _label_boxes(axes, boxes)
    for box, following in pairwise(boxes):
        _arrow(axes, _path(box, following), "#9A9A9A", 0.7)
    for box in boxes:
        axes.add_patch(
            Rectangle((box.left, box.bottom), box.width, box.height, facecolor=_FILLS[box.layer.role], edgecolor="white",
                      linewidth=0.4, zorder=3)
        )  # fmt: skip
    _draw_skips(axes, skips, by_label)
    _frame(axes, boxes, len(skips))
    axes.set_title(f"Architecture: {counted(len(layers), 'recorded tensor')}, {counted(len(skips), 'skip')}",
                   fontsize=LARGE)  # fmt: skip
    roles = dict.fromkeys(layer.role for layer in layers if layer.role != "layer")
    if roles:
        axes.legend(
            handles=[Patch(facecolor=_FILLS[role], label=role) for role in roles], loc="upper center",
            bbox_to_anchor=(0.5, 0.0), ncols=len(roles), handlelength=1.0, columnspacing=1.4,
        )  # fmt: skip
    return axes


def _boxes(layers: Sequence[Layer]) -> list[_Box]:
    seen = [layer.shape for layer in layers if layer.shape]
    most_channels = max((shape[0] for shape in seen), default=1)
    highest = max((shape[1] for shape in seen if len(shape) > 1), default=1)
    boxes = []
    for place, layer in enumerate(layers):
        share = layer.shape[1] / highest if len(layer.shape) > 1 else 0.5**layer.level
        height = max(_LOWEST, _TALLEST * share**0.6)
        width = 8.0
        if layer.shape:
            width = 3.0 + 11.0 * math.log2(1 + layer.shape[0]) / math.log2(1 + most_channels)
        boxes.append(_Box(layer, _SLOT * place, -_STEP * layer.level, width, height))
    return boxes


def _path(start: _Box, end: _Box) -> list[tuple[float, float]]:
    """Corners of the path of the data: level, down into the next box from above, or up and into it from the left."""
    if end.y < start.y:
        x = end.x - end.width / 4  # beside the way up out of a bottom that is a single box
        return [(start.right, start.y), (x, start.y), (x, end.top)]
    if end.y > start.y:
        x = start.x + start.width / 4
        return [(x, start.top), (x, end.y), (end.left, end.y)]
    return [(start.right, start.y), (end.left, end.y)]


def _arrow(axes: Axes, path: Sequence[tuple[float, float]], colour: str, width: float, gid: str | None = None) -> None:
    x, y = zip(*path[:-1], strict=True)
    axes.plot(x, y, color=colour, linewidth=width, solid_capstyle="butt", zorder=2)
    head: dict[str, Any] = {
        "arrowstyle": "-|>,head_width=0.13,head_length=0.26",
        "shrinkA": 0,
        "shrinkB": 0,
        "color": colour,
    }
    axes.annotate("", path[-1], path[-2], arrowprops={**head, "linewidth": width}, zorder=2, gid=gid)


def _label_boxes(axes: Axes, boxes: Sequence[_Box]) -> None:
    names, upright = tick_names([box.layer.label for box in boxes])
    for box, name in zip(boxes, names, strict=True):
        shape = " × ".join(str(size) for size in box.layer.shape) or "not seen"
        under: dict[str, Any] = {
            "xycoords": "data",
            "textcoords": "offset points",
            "ha": "center",
            "va": "top",
            "fontsize": _TEXT,
        }
        if upright:
            axes.annotate(name.replace("\n", ""), (box.x, box.bottom), (0, -2), weight="bold", color=INK, **under)
            axes.annotate(shape, (box.x, box.bottom), (0, -11), rotation=90, color="#555555", **under)
        else:
            axes.annotate(name, (box.x, box.bottom), (-4, -3), rotation=90, weight="bold", color=INK, **under)
            axes.annotate(shape, (box.x, box.bottom), (4, -3), rotation=90, color="#555555", **under)


def _draw_skips(axes: Axes, skips: Sequence[Skip], boxes: dict[str, _Box]) -> None:
    """Each skip leaves its source upward, crosses above both boxes, and enters its merge from above."""
    for track, skip in zip(_skip_tracks(skips, boxes), skips, strict=True):
        source, merge = boxes[skip.source], boxes[skip.merge]
        above = max(source.top, merge.top) + 8 + _TRACK * track
        start = source.x + min(2.0, source.width / 4)
        _arrow(axes, [(start, source.top), (start, above), (merge.x, above), (merge.x, merge.top)], INK, 1.0)
        axes.text(
            (start + merge.x) / 2, above, shown(skip.name, max(6, int(abs(merge.x - start) / 4.5))), ha="center",
            va="center", fontsize=SMALL, color=INK, zorder=4, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
        )  # fmt: skip


def _skip_tracks(skips: Sequence[Skip], boxes: dict[str, _Box]) -> list[int]:
    """Skips whose level parts would lie on one line get different heights."""
    heights = [max(boxes[skip.source].y, boxes[skip.merge].y) for skip in skips]
    track_of = [0] * len(skips)
    for height in set(heights):
        same = [index for index, skip_height in enumerate(heights) if skip_height == height]
        free_tracks = tracks((boxes[skips[index].source].x, boxes[skips[index].merge].x) for index in same)
        for index, track in zip(same, free_tracks, strict=True):
            track_of[index] = track
    return track_of


def _extent(boxes: Sequence[_Box], skips: int) -> tuple[float, float, float, float]:
    names, upright = tick_names([box.layer.label for box in boxes])
    longest = max(len(name) for name in names) if not upright else 0
    shapes = max(_shape_length(box) for box in boxes)
    below = 12 + max(0.62 * _TEXT * longest, 9 * upright + 0.62 * _TEXT * shapes)
    above = 14 + _TRACK * max(0, skips - 1) * 0.5 if skips else 4
    return (
        min(box.left for box in boxes) - 10,
        max(box.right for box in boxes) + 10,
        min(box.bottom for box in boxes) - below,
        max(box.top for box in boxes) + above,
    )


def _shape_length(box: _Box) -> int:
    return len(" × ".join(str(size) for size in box.layer.shape)) or 8


def _canvas(boxes: Sequence[_Box], skips: Sequence[Skip]) -> Axes:
    left, right, low, high = _extent(boxes, len(skips))
    width, height = max(right - left, 300) / 72, (high - low + 48) / 72
    return ShownFigure(figsize=(width, height), layout="constrained").subplots()


def _frame(axes: Axes, boxes: Sequence[_Box], skips: int) -> None:
    left, right, low, high = _extent(boxes, skips)
    slack = max(0.0, 300 - (right - left)) / 2
    axes.set_xlim(left - slack, right + slack)
    axes.set_ylim(low, high)
