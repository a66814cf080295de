"""Where channels and places stand in each tensor of a network: images, images with channels last, and tokens.

Streams are followed as images [batch, channels, *sides]. Networks of transformers and of state spaces also join streams as
tokens [batch, places, channels] or with channels last, where the axis of channels is another: such joins are not merges that
can be measured, but have to be said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

from unetscope.activations import Node
from unetscope.networks.structure import RESHAPING

if TYPE_CHECKING:
    from unetscope.networks.levels import Levels

KEPT = 0.75  # of the places, what a tensor has at least that was not reduced
JOINING = {"cat", "add", "sub", "mul", "maximum", "max", "stack", "lerp", "where"}


class Layout(Enum):
    """How a tensor of places is laid out. TOKENS: [batch, places, channels]. CHANNELS: [batch, channels, places]."""

    IMAGE = auto()
    LAST = auto()
    TOKENS = auto()
    CHANNELS = auto()
    ELSE = auto()


class Layouts:
    """The layout and the number of places of each tensor of a network."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self._batch = levels.graph[0].shape[0]
        self._axes = next((len(n.shape) for n in levels.graph.nodes if levels.is_spatial(n.number)), 0)
        self.of: list[Layout] = []
        self.places: list[int] = []
        self._origin: list[Layout] = []  # of ELSE, the layout of what it is made from
        for node in levels.graph.nodes:
            sources = [n for n in levels.value_inputs(node) if levels.is_placed(n)]
            layout = self._layout(node, sources)
            origins = [self._origin[n] for n in sources]
            inherited = max((self.places[n] for n in sources), default=0)
            self.of.append(layout)
            self._origin.append(layout if layout is not Layout.ELSE else next(iter(origins), Layout.ELSE))
            self.places.append(_places(node.shape, layout) or inherited)

    def _layout(self, node: Node, sources: Sequence[int]) -> Layout:
        levels, ndim = self._levels, len(node.shape)
        is_image = ndim == self._axes
        if node.name == "input" or levels.is_kernel(node):
            return Layout.IMAGE if is_image else Layout.ELSE
        if not sources or node.shape[:1] != (self._batch,) or (ndim != 3 and not is_image):
            return Layout.ELSE
        alike = [n for n in sources if len(levels.graph[n].shape) == ndim and self.of[n] is not Layout.ELSE]
        if alike and node.name not in RESHAPING:
            return self.of[alike[0]]
        if node.name not in RESHAPING:
            return Layout.ELSE
        source, before = levels.graph[sources[0]], self.of[sources[0]]
        if alike and before is not Layout.ELSE:
            return self._turned(node, source, before)
        origin = self._origin[sources[0]]
        return self._unfolded(node, is_image, _channels(source.shape, before), before, origin)

    @staticmethod
    def _unfolded(node: Node, is_image: bool, channels: int | None, before: Layout, origin: Layout) -> Layout:
        """The layout of a view with another number of axes than what it is made from, which has so many channels."""
        if is_image:
            stands_last = origin in {Layout.LAST, Layout.TOKENS} and channels in {None, node.shape[-1]}
            return Layout.LAST if stands_last else Layout.IMAGE
        if before in {Layout.IMAGE, Layout.LAST} and channels != node.shape[-1]:
            return Layout.CHANNELS
        return Layout.ELSE if origin is Layout.ELSE else Layout.TOKENS

    def _turned(self, node: Node, source: Node, before: Layout) -> Layout:
        """The layout of a view with as many axes."""
        pairs = {
            Layout.IMAGE: (Layout.LAST, (source.shape[0], *source.shape[2:], source.shape[1])),
            Layout.LAST: (Layout.IMAGE, (source.shape[0], source.shape[-1], *source.shape[1:-1])),
            Layout.TOKENS: (Layout.CHANNELS, (source.shape[0], source.shape[-1], *source.shape[1:-1])),
            Layout.CHANNELS: (Layout.TOKENS, (source.shape[0], *source.shape[2:], source.shape[1])),
        }
        turned, shape = pairs[before]
        is_turned = node.shape == shape and node.shape != source.shape  # where all sides are alike, nothing tells
        return turned if is_turned else before

    def joins_elsewhere(self) -> Iterator[Node]:
        """The joins of streams that are no images, of which one is made from the other through fewer places alone."""
        levels = self._levels
        for node in levels.graph.nodes:
            if self.of[node.number] is Layout.IMAGE or node.name not in JOINING or node.number not in levels.useful:
                continue
            streams = {self._before_views(n) for n in node.inputs if levels.is_placed(n)}
            if any(self._is_skip(a, b) for a in streams for b in streams if a < b):
                yield node

    def _before_views(self, number: int) -> int:
        graph = self._levels.graph
        while (node := graph[number]).inputs and node.name in RESHAPING | {"getitem"}:
            source = node.inputs[0]
            is_whole = math.prod(graph[source].shape) == math.prod(node.shape)
            if not is_whole or self.places[source] != self.places[number]:
                break
            number = source
        return number

    def _is_skip(self, kept: int, upsampled: int) -> bool:
        """Whether a tensor leads to a later one of as many places, and only through fewer places."""
        if not KEPT <= self.places[kept] / max(self.places[upsampled], 1) <= 1 / KEPT:
            return False
        reached, pending = {upsampled}, [upsampled]
        is_reduced = False
        while pending:
            for number in self._levels.value_inputs(self._levels.graph[pending.pop()]):
                if number == kept:
                    return False
                if number < kept or number in reached:
                    continue
                if self.places[number] < KEPT * self.places[upsampled]:
                    is_reduced = True
                else:
                    reached.add(number)
                    pending.append(number)
        return is_reduced and upsampled in self._levels.graph.descendants({kept})


def _places(shape: tuple[int, ...], layout: Layout) -> int:
    of_layout = {
        Layout.IMAGE: shape[2:], Layout.LAST: shape[1:-1], Layout.TOKENS: shape[1:2], Layout.CHANNELS: shape[2:3],
    }  # fmt: skip
    return math.prod(of_layout[layout]) if layout in of_layout else 0


def _channels(shape: tuple[int, ...], layout: Layout) -> int | None:
    if layout is Layout.ELSE:
        return None
    return shape[1] if layout in {Layout.IMAGE, Layout.CHANNELS} else shape[-1]
