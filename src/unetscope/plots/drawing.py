"""The network drawn as a U, from its records alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from unetscope.table import Connection, Connections, Layer, Skip, connections

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
    """The layers as boxes along a U, one step down for each halving of the image, with arrows to what is made from each.

    Black arrows are skips, from the encoder to their merges, through a gate if there is one. If layers do not name their
    sources, grey arrows follow the order of the layers, which the title says.

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
    joined = connections(layers, skips)
    lines = _lines(layers, joined)
    boxes = _boxes(layers, lines)
    by_label = {box.layer.label: box for box in boxes}
    axes = _canvas(boxes, lines) if axes is None else axes
    axes.set_axis_off()
    _label_boxes(axes, boxes)
    for line in lines:
        _draw_line(axes, line, by_label)
    for box in boxes:
        axes.add_patch(
            Rectangle((box.left, box.bottom), box.width, box.height, facecolor=_FILLS[box.layer.role], edgecolor="white",
                      linewidth=0.4, zorder=3)
        )  # fmt: skip
    for join in joined.joins:
        _underline(axes, by_label[join[0]], by_label[join[-1]])
    _frame(axes, boxes, lines)
    note = "" if joined.is_recorded else "\ngrey arrows: the order of the layers; what feeds what is not recorded"
    axes.set_title(f"Architecture: {counted(len(layers), 'recorded tensor')}, {counted(len(skips), 'skip')}{note}",
                   fontsize=LARGE)  # fmt: skip
    roles = dict.fromkeys(layer.role for layer in layers if layer.role != "layer")
    if roles:
        axes.legend(
            handles=[Patch(facecolor=_FILLS[role], label=role) for role in roles], loc="upper center",
            bbox_to_anchor=(0.5, 0.0), ncols=len(roles), handlelength=1.0, columnspacing=1.4,
        )  # fmt: skip
    return axes


@dataclass(frozen=True)
class _Line:
    """A connection as it is drawn.

    skip: whose it is, empty for none. row: the level above whose boxes it passes, None for one that meets no box on its way.
    track: its place among those above one row, the lowest is 0. is_named: whether it carries the skip's name.
    """

    connection: Connection
    skip: str = ""
    row: int | None = None
    track: int = 0
    is_named: bool = False


def _lines(layers: Sequence[Layer], joined: Connections) -> list[_Line]:
    """All connections; skips, and those that would cross a box, pass above the boxes of the upper one of their levels."""
    place = {layer.label: index for index, layer in enumerate(layers)}

    def span(connection: Connection) -> tuple[int, int]:
        start, end = sorted(place[label] for label in connection)
        return start, end

    lines = []
    for skip, way in joined.of_skip.items():
        longest = max(way, key=lambda connection: span(connection)[1] - span(connection)[0])
        for connection in way:
            start, end = span(connection)
            row = min(layers[start].level, layers[end].level)
            is_hop = connection != longest and end - start == 1 and layers[start].level == layers[end].level
            lines.append(_Line(connection, skip, None if is_hop else row, is_named=connection == longest))
    for connection in joined.others:
        start, end = span(connection)
        row = min(layers[start].level, layers[end].level)
        is_free = all(layer.level != row for layer in layers[start + 1 : end])
        lines.append(_Line(connection, row=None if is_free and place[connection[0]] == start else row))
    for row in {line.row for line in lines if line.row is not None}:
        above = [index for index, line in enumerate(lines) if line.row == row]
        spans = [span(lines[index].connection) for index in above]
        free_tracks = tracks((start + 0.1, end - 0.1) for start, end in spans)  # one may end where the next begins
        for index, track in zip(above, free_tracks, strict=True):
            lines[index] = replace(lines[index], track=track)
    return lines


def _boxes(layers: Sequence[Layer], lines: Sequence[_Line]) -> list[_Box]:
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
        tracks_above = sum(_most_tracks(lines, level) for level in range(1, layer.level + 1))
        boxes.append(_Box(layer, _SLOT * place, -_STEP * layer.level - _TRACK * tracks_above, width, height))
    return boxes


def _most_tracks(lines: Sequence[_Line], row: int) -> int:
    """How many tracks beside the lowest one lie above a level."""
    return max((line.track for line in lines if line.row == row), default=0)


def _path(start: _Box, end: _Box) -> list[tuple[float, float]]:
    """Corners of the path of the data: level, down into the next box from above, or up and into it from the left."""
    if end.y < start.y:
        x = end.x - end.width / 4  # beside the way up out of a bottom that is a single box
        return [(start.right, start.y), (x, start.y), (x, end.top)]
    if end.y > start.y:
        x = start.x + start.width / 4
        return [(x, start.top), (x, end.y), (end.left, end.y)]
    return [(start.right, start.y), (end.left, end.y)]


def _path_above(start: _Box, end: _Box, line: _Line, boxes: Iterable[_Box]) -> list[tuple[float, float]]:
    """Corners of a path that leaves its box upward, passes above the boxes of its row, and enters the other from above."""
    top = max(box.top for box in boxes if box.layer.level == line.row)
    height = top + 8 + _TRACK * line.track
    begin = start.x + min(2.0, start.width / 4)
    x = end.x if line.skip else end.x - min(2.0, end.width / 4)
    return [(begin, start.top), (begin, height), (x, height), (x, end.top)]


def _draw_line(axes: Axes, line: _Line, boxes: Mapping[str, _Box]) -> None:
    start, end = (boxes[label] for label in line.connection)
    path = _path(start, end) if line.row is None else _path_above(start, end, line, boxes.values())
    _arrow(axes, path, INK if line.skip else "#9A9A9A", 1.0 if line.skip else 0.7)
    if line.is_named:
        (left, height), (right, _) = path[1:3]
        length = abs(right - left)
        name = shown(line.skip, max(6, int(length / 4.5)))
        is_on_line = length > 0.62 * SMALL * len(name) + 12  # a shorter line would be hidden
        axes.text(
            (left + right) / 2, height + (0 if is_on_line else 1.5), name, ha="center",
            va="center" if is_on_line else "bottom", fontsize=SMALL, color=INK, zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0} if is_on_line else None,
        )  # fmt: skip


def _underline(axes: Axes, first: _Box, last: _Box) -> None:
    """A bar through the layers of one join."""
    axes.plot([first.left, last.right], [first.y, first.y], color=_FILLS["merge"], linewidth=2.0, zorder=2.5)


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
            "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.4},
        }
        if upright:
            axes.annotate(name.replace("\n", ""), (box.x, box.bottom), (0, -2), weight="bold", color=INK, **under)
            axes.annotate(shape, (box.x, box.bottom), (0, -11), rotation=90, color="#555555", **under)
        else:
            axes.annotate(name, (box.x, box.bottom), (-4, -3), rotation=90, weight="bold", color=INK, **under)
            axes.annotate(shape, (box.x, box.bottom), (4, -3), rotation=90, color="#555555", **under)


def _extent(boxes: Sequence[_Box], lines: Sequence[_Line]) -> tuple[float, float, float, float]:
    names, upright = tick_names([box.layer.label for box in boxes])
    longest = max(len(name) for name in names) if not upright else 0
    shapes = max(_shape_length(box) for box in boxes)
    below = 12 + max(0.62 * _TEXT * longest, 9 * upright + 0.62 * _TEXT * shapes)
    top_row = min(box.layer.level for box in boxes)
    above = 18 + _TRACK * _most_tracks(lines, top_row) if any(line.row == top_row for line in lines) else 4
    return (
        min(box.left for box in boxes) - 10,
        max(box.right for box in boxes) + 10,
        min(box.bottom for box in boxes) - below,
        max(box.top for box in boxes) + above,
    )


def _shape_length(box: _Box) -> int:
    return len(" × ".join(str(size) for size in box.layer.shape)) or 8


def _canvas(boxes: Sequence[_Box], lines: Sequence[_Line]) -> Axes:
    left, right, low, high = _extent(boxes, lines)
    width, height = max(right - left, 300) / 72, (high - low + 48) / 72
    return ShownFigure(figsize=(width, height), layout="constrained").subplots()


def _frame(axes: Axes, boxes: Sequence[_Box], lines: Sequence[_Line]) -> None:
    left, right, low, high = _extent(boxes, lines)
    slack = max(0.0, 300 - (right - left)) / 2
    axes.set_xlim(left - slack, right + slack)
    axes.set_ylim(low, high)
