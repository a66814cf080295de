"""Leave streams out of the joins of a program."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import fx, nn

from unetscope.base import NetworkError
from unetscope.networks.channels import Following
from unetscope.networks.masks import Mask, argument, concatenation_axis, tensor_arguments
from unetscope.networks.program import Program, place
from unetscope.networks.structure import IN_PLACE, Operand

CONCATENATIONS = {"cat", "hstack", "column_stack"}
Positions = Mapping[fx.Node, Collection[int]]  # by join, the streams that are left out among its tensor arguments


def positions_of(program: Program, streams: Collection[Operand]) -> dict[fx.Node, set[int]]:
    """Where streams enter a program. Raises: NetworkError if a join does not run in this mode."""
    positions: dict[fx.Node, set[int]] = {}
    for address, position in (entry for stream in streams for entry in stream.entries):
        join = program.at(address) if position != IN_PLACE else None
        if join is None or (join.meta["function"] == "setitem" and position == 0):
            raise NetworkError(
                f"what is to be left out is written into in place at {address}: write into a copy of it (clone)"
            )
        positions.setdefault(join, set()).add(position)
    return positions


def silenced(program: Program, positions: Positions) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    """A program with zeros in the place of streams, and its nodes by those of the given one."""
    graph = fx.Graph()
    counterparts: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(program.graph, counterparts))
    for node, counterpart in counterparts.items():
        counterpart.meta = dict(node.meta)
    for join, left_out in positions.items():
        node = counterparts[join]
        with graph.inserting_before(node):
            zeros = {
                position: graph.call_function(torch.zeros_like, (tensor_arguments(node)[position],))
                for position in left_out
            }
        replace_tensors(node, lambda position, tensor, zeros=zeros: zeros.get(position, tensor))  # type: ignore[misc]
    return graph, counterparts


def replace_tensors(node: fx.Node, replacement: Callable[[int, fx.Node], Any]) -> None:
    """Replace tensor arguments of a call, each by its position among them."""
    position = -1

    def replace(values: Any) -> Any:
        nonlocal position
        if isinstance(values, fx.Node) and "shape" in values.meta:
            position += 1
            return replacement(position, values)
        if isinstance(values, list | tuple):
            return type(values)(map(replace, values))
        if isinstance(values, dict):
            return {key: replace(value) for key, value in values.items()}
        return values

    node.args, node.kwargs = replace(node.args), replace(dict(node.kwargs))


class WithoutStreams(Following):
    """Leaves streams out of their joins, and follows the channels that this takes from concatenations."""

    def __init__(self, program: Program, modules: Callable[[str], nn.Module], positions: Positions) -> None:
        super().__init__(program.graph, modules)
        self._positions = positions

    def follow(self) -> None:
        """Edit the joins, and whatever is made of tensors that lost channels.

        Raises: NetworkError for a call that mixes channels that are not zero, or where nothing is left at a join.
        """
        for node in list(self.graph.nodes):
            tensors = tensor_arguments(node)
            gone = {k for k, tensor in enumerate(tensors) if tensor in self.empty}
            if gone and node.op == "call_method" and node.target == "size":
                continue  # as of any tensor that is gone
            positions = gone | set(self._positions.get(node, ()))
            if self._makes_zeros(node, tensors, positions):
                node.meta["join"] = bool(positions - gone)
                self._lose(node, Mask(1, (False,) * node.meta["shape"][1]))
            elif positions:
                self._leave_out(node, positions)
            elif any(source in self.masks for source in node.all_input_nodes):
                self.edit(node)

    def _makes_zeros(self, node: fx.Node, tensors: list[fx.Node], positions: set[int]) -> bool:
        """Whether a call makes nothing but zeros where streams are zero: a product with one, or what keeps zeros."""
        if not positions or len(node.meta.get("shape", ())) < 2 or node.meta["function"] in CONCATENATIONS:
            return False
        if node.meta["function"] == "mul":
            return True
        if len(tensors) > 1 or "part" in node.meta:
            return False
        if node.op == "call_module" and any(True for _ in self.modules(str(node.target)).buffers()):
            return False  # statistics, which running it would change
        zeros = self._run(node, tensors[0], torch.zeros(tensors[0].meta["shape"], dtype=tensors[0].meta["dtype"]))
        return isinstance(zeros, torch.Tensor) and zeros.shape == node.meta["shape"] and not bool(zeros.any())

    def _leave_out(self, node: fx.Node, positions: set[int]) -> None:
        name, tensors = node.meta.get("function"), tensor_arguments(node)
        remaining = [tensor for k, tensor in enumerate(tensors) if k not in positions]
        node.meta["join"] = True
        is_whole_join = len(tensors) > 1 and set(self._positions.get(node, ())) == set(range(len(tensors)))
        if node.op == "output" or is_whole_join:
            raise NetworkError(f"nothing is left at {place(node)}: leave out fewer of the streams that it joins")
        if name in CONCATENATIONS:
            self._shorten(node, tensors, positions)
        elif name == "stack" and self._is_summed(node):
            node.args = (remaining, *node.args[1:])
        elif name in {"add", "sub", "rsub"} and remaining and remaining[0].meta["shape"] == node.meta["shape"]:
            self._drop_term(node, remaining[0], 0 in positions)
        else:
            self._put_zeros(node, remaining, positions)
        if name not in CONCATENATIONS and any(source in self.masks for source in node.all_input_nodes):
            self.edit(node)

    def _shorten(self, node: fx.Node, tensors: list[fx.Node], positions: set[int]) -> None:
        axis = concatenation_axis(node)
        kept: list[bool] = []
        for k, tensor in enumerate(tensors):
            mask = self.masks.get(tensor)
            if mask is not None and mask.axis != axis and k not in positions:
                raise NetworkError(f"{place(node)} joins along another axis than streams before it: ablate it instead")
            whole = mask.kept if mask and k not in positions else (True,) * tensor.meta["shape"][axis]
            kept += [False] * len(whole) if k in positions else whole
        self.masks[node] = Mask(axis, tuple(kept))
        if len(positions) == len(tensors):
            self.empty.add(node)
            return
        values = [tensor for k, tensor in enumerate(tensors) if k not in positions]
        if node.args:
            node.args = (values, *node.args[1:])
        else:
            node.kwargs = {**node.kwargs, "tensors": values}

    def _is_summed(self, node: fx.Node) -> bool:
        axis = argument(node, 1, "dim", 0)
        return all(user.meta.get("function") == "sum" and argument(user, 1, "dim", None) == axis for user in node.users)

    def _drop_term(self, node: fx.Node, term: fx.Node, is_first: bool) -> None:
        """A sum or a difference of two tensors without one of them."""
        alpha, name = node.kwargs.get("alpha", 1), node.meta["function"]
        factor = alpha if is_first else 1
        if name == "sub" and is_first:
            factor = -alpha  # type: ignore[operator]
        if name == "rsub":
            factor = 1 if is_first else -1
        node.op, node.kwargs = "call_method", {}
        node.target, node.args = ("clone", (term,)) if factor == 1 else ("mul", (term, factor))
        node.meta.update(function=str(node.target), writes=False)

    def _put_zeros(self, node: fx.Node, remaining: list[fx.Node], positions: set[int]) -> None:
        """Zeros in the place of a stream, for what does not leave streams apart, such as a maximum."""

        def zeros(position: int, tensor: fx.Node) -> fx.Node:
            if position not in positions:
                return tensor
            alike = [each for each in remaining if all(each.meta[k] == tensor.meta[k] for k in ("shape", "dtype"))]
            with self.graph.inserting_before(node):
                if alike and alike[0] not in self.masks:
                    zero = self.graph.call_function(torch.zeros_like, (alike[0],))
                else:
                    zero = self._zeros_in_place_of(tensor)
            zero.meta.update(shape=tensor.meta["shape"], dtype=tensor.meta["dtype"])
            zero.meta.update(function="zeros_like", address=node.meta["address"], writes=False)
            return zero

        replace_tensors(node, zeros)

    def _zeros_in_place_of(self, tensor: fx.Node) -> fx.Node:
        """Zeros of the sizes of a tensor, which is not computed for them."""
        image = next(iter(self.graph.nodes))
        shape, channels = tensor.meta["shape"], self.masks[tensor].axis if tensor in self.masks else 1
        sizes = [
            side if axis == channels else self.graph.call_method("size", (tensor, axis))
            for axis, side in enumerate(shape)
        ]
        dtype = {} if tensor.meta["dtype"] == image.meta["dtype"] else {"dtype": tensor.meta["dtype"]}
        return self.graph.call_method("new_zeros", (image, sizes), dtype)
