"""The outputs of a program: which is the main one, and which go."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx, nn


def main_output(graph: fx.Graph, evaluating: fx.Graph) -> fx.Node:
    """The first output of the highest resolution in evaluation mode; in training mode, the output of the same call."""
    image = next(iter(graph.nodes))
    leaves = output_leaves(graph)
    if graph is not evaluating:
        main = main_output(evaluating, evaluating)
        for leaf in leaves:
            if (leaf.meta.get("address"), leaf.meta.get("part")) == (main.meta.get("address"), main.meta.get("part")):
                return leaf
    images = [leaf for leaf in leaves if len(leaf.meta.get("shape", ())) == len(image.meta["shape"])] or leaves
    return max(images, key=lambda leaf: torch.Size(leaf.meta.get("shape", ())[2:]).numel())


def output_leaves(graph: fx.Graph) -> list[fx.Node]:
    """The tensors of a program's output, in order. A stack of them, as for deep supervision, is taken apart."""
    result = graph.output_node().args[0]
    if (
        isinstance(result, fx.Node)
        and result.meta.get("function") == "stack"
        and isinstance(result.args[0], list | tuple)
    ):
        return [each for each in result.args[0] if isinstance(each, fx.Node)]
    return graph.output_node().all_input_nodes if not isinstance(result, fx.Node) else _structured(result)


def _structured(node: fx.Node) -> list[fx.Node]:
    """The tensors of an output object."""
    return [node] if "shape" in node.meta else list(node.all_input_nodes)


def keep_outputs(graph: fx.Graph, kept: Collection[int]) -> None:
    """Keep some of a program's outputs, by their order."""
    leaves = output_leaves(graph)
    names = {leaf for index, leaf in enumerate(leaves) if index in kept}

    def reduce(values: Any) -> Any:
        if isinstance(values, list | tuple):
            return type(values)([reduce(value) for value in values if not isinstance(value, fx.Node) or value in names])
        if isinstance(values, dict):
            return {
                key: reduce(value) for key, value in values.items() if not isinstance(value, fx.Node) or value in names
            }
        return values

    output = graph.output_node()
    result = output.args[0]
    if isinstance(result, fx.Node):
        result.args, result.kwargs = reduce(result.args), reduce(dict(result.kwargs))
    else:
        output.args = (reduce(result),)


def simplify(graph: fx.Graph, modules: Any) -> None:
    """Erase copies that only convolutions of PyTorch's read."""
    for node in list(graph.nodes):
        is_single = (
            node.meta.get("function") == "cat"
            and node.args
            and isinstance(node.args[0], list)
            and len(node.args[0]) == 1
        )
        is_copy = node.op == "call_method" and node.target == "clone" and node.meta.get("join")
        if not (is_single or is_copy) or not node.users:
            continue
        if all(
            user.op == "call_module" and isinstance(modules(user.target), nn.modules.conv._ConvNd)
            for user in node.users
        ):
            node.replace_all_uses_with(node.args[0][0] if is_single else node.args[0])
            graph.erase_node(node)
