"""Choose the layers worth measuring, and label layers and skips.

Layers are numbered as the paper numbers them: whatever has a kernel counts, and a merge takes the number of the upsampled
stream that it joins.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from unetscope.activations import Graph
from unetscope.base import NetworkError
from unetscope.networks.gaps import find_gaps
from unetscope.networks.layer_sources import with_sources
from unetscope.networks.levels import Levels
from unetscope.networks.skip_detection import Join
from unetscope.networks.structure import JOIN_NAMES, WITHIN_LAYER, Detail, Merge, Structure
from unetscope.table import SKIP, Layer, Part, Role, Skip, letters

MOST_KERNELS = 40  # with more, only the ends of stages are measured by default

Entry = tuple[int, int]  # a skip at a merge: the number of the joined tensor, and which of its skips


def describe(name: str, levels: Levels, joins: Sequence[Join], detail: Detail | None) -> Structure:
    """The layers, merges and skips of a network, with their labels.

    Raises: NetworkError if no output has the image's axes.
    """
    kernels = _kernel_outputs(levels, joins)
    if detail is None:
        detail = "kernels" if len(kernels) <= MOST_KERNELS else "stages"
    output = _main_output(name, levels)
    kept = {output, *(kernels if detail == "kernels" else _stage_ends(levels, joins, kernels))}
    for join in joins:
        kept.update((join.number, *join.streams))
    numbers = sorted(kept)
    labels = _labels(levels, numbers, joins, {*kernels, output})
    layers = _layers(levels, numbers, joins, labels, _roles(levels, joins, kernels, output))
    names, merge_labels = _skip_names(levels, joins), _merge_labels(joins, labels)
    merged = {
        join.number: (
            tuple(merge_labels[join.number, k] for k in range(len(join.skips))),
            tuple(labels[stream] for stream in join.streams),
        )
        for join in joins
    }
    skips = [
        Skip(
            names[join.number, k],
            labels[skip.tensor],
            labels[join.upsampled.tensor],
            merge_labels[join.number, k],
        )
        for join in joins
        for k, skip in enumerate(join.skips)
    ]
    skips.sort(key=lambda skip: skip.part)
    merges = tuple(_merge(levels.graph, join, labels, names) for join in joins)
    gaps = find_gaps(levels, joins)
    fed_layers = with_sources(layers, levels.graph, labels, merged)
    return Structure(name, fed_layers, tuple(skips), merges, detail, len(kernels), levels.graph, gaps)


# Which tensors are layers.


def _kernel_outputs(levels: Levels, joins: Sequence[Join]) -> list[int]:
    """For each kernel, the last tensor of its layer: after normalisation, activation and the sum of a residual block."""
    joined = {join.number for join in joins}
    streams = {stream for join in joins for stream in join.streams}
    graph, outputs = levels.graph, set()
    for kernel in graph.nodes:
        if not levels.is_kernel(kernel) or kernel.number not in levels.useful or not levels.is_spatial(kernel.number):
            continue
        last = kernel
        # A stream of a merge ends its layer, even if it is normalised after the merge branches off.
        while last.number not in streams and len(consumers := graph.consumers[last.number]) == 1:
            following = graph[consumers[0]]
            closes_block = following.name == "add" and following.number not in joined
            if following.shape != last.shape or not (following.name in WITHIN_LAYER or closes_block):
                break
            last = following
        outputs.add(last.number)
    return sorted(outputs)


def _stage_ends(levels: Levels, joins: Sequence[Join], kernels: Sequence[int]) -> set[int]:
    """The last kernel output of each stage: one resolution, the same rises, and no merge in between."""
    ends = {}
    for number in kernels:
        merges_before = sum(join.number < number for join in joins)
        ends[levels.rises[number], levels.grid(number), merges_before] = number
    return set(ends.values())


def _main_output(name: str, levels: Levels) -> int:
    """The network's output; of several (deep supervision), the first of the highest resolution.

    If its places were squeezed, flattened or decided on by argmax, it is the tensor before that.
    """
    outputs = []
    for number in levels.graph.outputs:
        node = levels.graph[number]
        while not levels.is_spatial(node.number) and node.inputs:
            node = levels.graph[levels.value_inputs(node)[0]]
        if levels.is_spatial(node.number) and not levels.is_input(node.number):
            outputs.append(node.number)
    if not outputs:
        shapes = " and ".join("×".join(map(str, levels.graph[number].shape)) for number in levels.graph.outputs)
        raise NetworkError(
            f"{name} gives out {shapes}, made from no tensor with a place for every one of the image's: inspect the part of it "
            "that maps images to masks, or a module of a few lines that takes the image first and returns such a tensor"
        )
    return max(outputs, key=lambda number: math.prod(levels.grid(number)))


# Labels.


def _labels(levels: Levels, numbers: Sequence[int], joins: Sequence[Join], counted: Collection[int]) -> dict[int, str]:
    """By tensor, the label of its layer. A concatenation has none, if it is no stream of another merge: its layer is made of
    its streams' layers."""
    by_number = {join.number: join for join in joins}
    streams = {stream for join in joins for stream in join.streams}
    upsampled = {join.upsampled.tensor for join in joins}
    labels: dict[int, str] = {}
    count = 0
    for number in numbers:
        if join := by_number.get(number):
            if number in streams or (join.kind not in {"cat", "write"} and levels.is_spatial(number)):
                labels[number] = _unused(f"{_base_label(join, labels)}{JOIN_NAMES[join.kind]}", labels)
        elif number in upsampled or number in counted:
            count += 1
            labels[number] = f"{count}up" if number in upsampled else f"{count}"
        else:
            labels[number] = _derived_label(levels, number, labels)
    return labels


def _base_label(join: Join, labels: Mapping[int, str]) -> str:
    return labels[join.upsampled.tensor].removesuffix("up")


def _merge_labels(joins: Sequence[Join], labels: Mapping[int, str]) -> dict[Entry, str]:
    """A label for each skip of each merge, with a letter if several join one upsampled stream."""
    by_base: dict[str, list[Entry]] = {}
    for join in joins:
        by_base.setdefault(_base_label(join, labels), []).extend((join.number, k) for k in range(len(join.skips)))
    return {
        place: _unused(base if len(places) == 1 else f"{base}{letters(k)}", labels)
        for base, places in by_base.items()
        for k, place in enumerate(places)
    }


def _unused(base: str, labels: Mapping[int, str]) -> str:
    """A label, with a number if it is taken."""
    return next(label for label in (base, *(f"{base}{k}" for k in range(2, 1000))) if label not in labels.values())


def _derived_label(levels: Levels, number: int, labels: Mapping[int, str]) -> str:
    """The label of a stream that no kernel makes, such as a crop: the layer that it is made from, and the function."""
    source = levels.graph[number]
    while source.number not in labels and source.inputs:
        source = levels.graph[levels.value_inputs(source)[0]]
    return _unused(f"{labels.get(source.number, 'input')}{levels.graph[number].name}", labels)


def _skip_names(levels: Levels, joins: Sequence[Join]) -> dict[Entry, str]:
    """Skips are numbered from the last level of the decoder that one joins, the top one, to the first.

    A level of the decoder begins where its stream rises. If several skips join it before it rises again, they have the number
    of the level, and a letter from the last that joins to the first.
    """
    by_level: dict[int, list[Entry]] = {}
    for join in reversed(joins):
        rise = max(levels.risen(join.upsampled.tensor), default=-join.number)  # around a bottom nothing rises
        by_level.setdefault(rise, []).extend((join.number, k) for k in range(len(join.skips)))
    return {
        place: str(Part(SKIP, level, letters(k) if len(places) > 1 else ""))
        for level, places in enumerate(by_level.values(), start=1)
        for k, place in enumerate(places)
    }


# Layers and merges.


def _layers(
    levels: Levels,
    numbers: Sequence[int],
    joins: Sequence[Join],
    labels: Mapping[int, str],
    roles: Mapping[int, Role],
) -> list[Layer]:
    """The layers in the order in which they run. A merge gives one layer for each skip, and one for a sum of them."""
    by_number, merge_labels = {join.number: join for join in joins}, _merge_labels(joins, labels)
    layers: list[Layer] = []
    for number in numbers:
        if join := by_number.get(number):
            layers += _merge_layers(levels, join, labels, merge_labels)
        if number in labels:
            node, role = levels.graph[number], roles.get(number, "encoder")  # a stream that no kernel makes
            layers.append(Layer(labels[number], node.place, levels.level(number), role, shape=node.shape[1:]))
    return layers


def _roles(levels: Levels, joins: Sequence[Join], kernels: Sequence[int], output: int) -> dict[int, Role]:
    """By tensor, its role. Where several apply, the last one counts."""
    upsampled = {join.upsampled.tensor for join in joins}
    rises = upsampled.union(*map(levels.risen, upsampled))  # a kernel that rises may be padded before the skip joins it
    # Without a merge, the decoder is what has risen.
    decoder = levels.graph.descendants(rises or filter(levels.is_upsampled, kernels))
    deepest = max((levels.level(number) for number in kernels if number not in decoder), default=0)
    roles: dict[int, Role] = {number: "bottom" for number in kernels if levels.level(number) == deepest}
    roles.update((number, "decoder") for number in kernels if number in decoder)
    roles.update((number, "upsampled") for number in upsampled)
    roles[output] = "output"
    roles.update((join.number, "decoder") for join in joins)
    return roles


def _merge_layers(
    levels: Levels, join: Join, labels: Mapping[int, str], merge_labels: Mapping[Entry, str]
) -> list[Layer]:
    """For each skip, the layer of the upsampled stream and the skip together."""
    graph, upsampled = levels.graph, join.upsampled.tensor
    return [
        Layer(
            merge_labels[join.number, k],
            graph[join.number].place,
            levels.level(upsampled),
            "merge",
            (labels[upsampled], labels[skip.tensor]),
            (graph[upsampled].shape[1] + graph[skip.tensor].shape[1], *levels.grid(upsampled)),
        )
        for k, skip in enumerate(join.skips)
    ]


def _merge(graph: Graph, join: Join, labels: Mapping[int, str], names: Mapping[Entry, str]) -> Merge:
    skips = {names[join.number, k]: skip for k, skip in enumerate(join.skips)}
    return Merge(_base_label(join, labels), graph[join.number].address, join.kind, join.number, join.upsampled, skips)
