"""What each layer of a network is made from, with no other layer between: read off the recorded graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from unetscope.activations import Graph
from unetscope.table import Layer

# A merge: the labels of its layers, one for each skip, and the labels of the streams that it joins.
MergeLabels = tuple[tuple[str, ...], tuple[str, ...]]


def with_sources(
    layers: Sequence[Layer], graph: Graph, labels: Mapping[int, str], merges: Mapping[int, MergeLabels]
) -> tuple[Layer, ...]:
    """The layers with their sources.

    labels: by tensor, the label of its layer. merges: by joined tensor. A layer of a merge is made from its parts; what is made
    from the joined tensor comes after all layers of the merge, or after the layer of the sum if there is one.
    """
    made_from: dict[str, tuple[str, ...]] = {}
    nearest: list[tuple[str, ...]] = []  # by tensor, the layers that what is made from it comes after
    for node in graph.nodes:
        before = tuple(_in_turn(nearest[number] for number in node.inputs if number < node.number))
        if node.number in merges:
            joined, streams = merges[node.number]
            before = *joined, *(label for label in before if label not in streams)
        if label := labels.get(node.number):
            made_from[label] = before
        nearest.append((label,) if label else before)
    place = {layer.label: index for index, layer in enumerate(layers)}
    return tuple(
        replace(layer, sources=layer.parts or tuple(sorted(made_from[layer.label], key=place.__getitem__)))
        for layer in layers
    )


def _in_turn(labels: Iterable[Sequence[str]]) -> Iterable[str]:
    return dict.fromkeys(label for several in labels for label in several)
