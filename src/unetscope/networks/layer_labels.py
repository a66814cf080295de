"""Choose the layers worth measuring, and label layers and skips.

Layers are numbered as the paper numbers them: whatever has a kernel counts, and a merge takes the number of the upsampled
stream that it joins.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from unetscope.activations import Graph
from unetscope.base import NetworkError
from unetscope.networks.skip_detection import Join, Levels
from unetscope.networks.structure import JOIN_NAMES, KERNELS, WITHIN_LAYER, Detail, Merge, Structure
from unetscope.table import SKIP, Layer, Part, Role, Skip

MOST_KERNELS = 40  # with more, only the ends of stages are measured by default

SkipNames = dict[tuple[int, int], str]  # by the numbers of the joined tensor and of the skip's


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
    names = _skip_names(joins)
    skips = [
        Skip(names[join.number, skip.tensor], labels[skip.tensor], labels[join.upsampled.tensor], label)
        for join in joins
        for skip, label in zip(join.skips, _merge_labels(join, labels), strict=True)
    ]
    skips.sort(key=lambda skip: skip.part)
    merges = tuple(_merge(levels.graph, join, labels, names) for join in joins)
    return Structure(name, tuple(layers), tuple(skips), merges, detail, len(kernels), levels.graph)


# Which tensors are layers.


def _kernel_outputs(levels: Levels, joins: Sequence[Join]) -> list[int]:
    """For each kernel, the last tensor of its layer: after normalisation, activation and the sum of a residual block."""
    joined = {join.number for join in joins}
    streams = {stream for join in joins for stream in join.streams}
    graph, outputs = levels.graph, set()
    for kernel in graph.nodes:
        if kernel.name not in KERNELS or kernel.number not in levels.useful or not levels.is_spatial(kernel.number):
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
    """The network's output; of several (deep supervision), the first of the highest resolution."""
    outputs = [number for number in levels.graph.outputs if levels.is_spatial(number)]
    if not outputs:
        raise NetworkError(f"{name} gives out no tensor with a place for every one of the image's")
    return max(outputs, key=lambda number: math.prod(levels.grid(number)))


# Labels.


def _labels(levels: Levels, numbers: Sequence[int], joins: Sequence[Join], counted: Collection[int]) -> dict[int, str]:
    """By tensor, the label of its layer. A concatenation has none: its layer is made of its streams' layers."""
    by_number = {join.number: join for join in joins}
    upsampled = {join.upsampled.tensor for join in joins}
    labels: dict[int, str] = {}
    count = 0
    for number in numbers:
        if join := by_number.get(number):
            if join.kind != "cat":
                labels[number] = f"{_base_label(join, labels)}{JOIN_NAMES[join.kind]}"
        elif number in upsampled or number in counted:
            count += 1
            labels[number] = f"{count}up" if number in upsampled else f"{count}"
        else:
            labels[number] = _derived_label(levels, number, labels)
    return labels


def _base_label(join: Join, labels: Mapping[int, str]) -> str:
    return labels[join.upsampled.tensor].removesuffix("up")


def _merge_labels(join: Join, labels: Mapping[int, str]) -> list[str]:
    """A label for each skip of a merge, with a letter if there are several."""
    base = _base_label(join, labels)
    return [base] if len(join.skips) == 1 else [f"{base}{chr(ord('a') + k)}" for k in range(len(join.skips))]


def _derived_label(levels: Levels, number: int, labels: Mapping[int, str]) -> str:
    """The label of a stream that no kernel makes, such as a crop: the layer that it is made from, and the function."""
    source = levels.graph[number]
    while source.number not in labels and source.inputs:
        source = levels.graph[levels.value_inputs(source)[0]]
    base = f"{labels.get(source.number, 'input')}{levels.graph[number].name}"
    return next(label for label in (base, *(f"{base}{k}" for k in range(2, 1000))) if label not in labels.values())


def _skip_names(joins: Sequence[Join]) -> SkipNames:
    """Skips are counted from the last that joins to the first, so that `skip1` is the top one."""
    places = [(join.number, skip.tensor) for join in reversed(joins) for skip in join.skips]
    return {place: str(Part(SKIP, k)) for k, place in enumerate(places, start=1)}


# Layers and merges.


def _layers(
    levels: Levels,
    numbers: Sequence[int],
    joins: Sequence[Join],
    labels: Mapping[int, str],
    roles: Mapping[int, Role],
) -> list[Layer]:
    """The layers in the order in which they run. A merge gives one layer for each skip, and one for a sum of them."""
    by_number = {join.number: join for join in joins}
    layers: list[Layer] = []
    for number in numbers:
        if join := by_number.get(number):
            layers += _merge_layers(levels, join, labels)
        if number in labels:
            node, role = levels.graph[number], roles.get(number, "encoder")  # a stream that no kernel makes
            layers.append(Layer(labels[number], node.place, levels.level(number), role, shape=node.shape[1:]))
    return layers


def _roles(levels: Levels, joins: Sequence[Join], kernels: Sequence[int], output: int) -> dict[int, Role]:
    """By tensor, its role. Where several apply, the last one counts."""
    upsampled = {join.upsampled.tensor for join in joins}
    # Without a merge, the decoder is what has risen.
    decoder = levels.graph.descendants(upsampled or filter(levels.is_upsampled, kernels))
    deepest = max((levels.level(number) for number in kernels if number not in decoder), default=0)
    roles: dict[int, Role] = {number: "bottom" for number in kernels if levels.level(number) == deepest}
    roles.update((number, "decoder") for number in kernels if number in decoder)
    roles.update((number, "upsampled") for number in upsampled)
    roles[output] = "output"
    roles.update((join.number, "decoder") for join in joins)
    return roles


def _merge_layers(levels: Levels, join: Join, labels: Mapping[int, str]) -> list[Layer]:
    """For each skip, the layer of the upsampled stream and the skip together."""
    graph, upsampled = levels.graph, join.upsampled.tensor
    return [
        Layer(
            label,
            graph[join.number].place,
            levels.level(join.number),
            "merge",
            (labels[upsampled], labels[skip.tensor]),
            (graph[upsampled].shape[1] + graph[skip.tensor].shape[1], *levels.grid(join.number)),
        )
        for skip, label in zip(join.skips, _merge_labels(join, labels), strict=True)
    ]


def _merge(graph: Graph, join: Join, labels: Mapping[int, str], names: SkipNames) -> Merge:
    skips = {names[join.number, skip.tensor]: skip for skip in join.skips}
    return Merge(_base_label(join, labels), graph[join.number].address, join.kind, join.number, join.upsampled, skips)
