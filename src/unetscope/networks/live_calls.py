"""Which calls of a program still lead to its output, and the sizes that they read of what does not."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx, nn

from unetscope.networks.channels import BINARY, CONVOLUTIONS, PER_CHANNEL, POINTWISE
from unetscope.networks.masks import argument, concatenation_axis, tensor_arguments
from unetscope.networks.program import place
from unetscope.networks.program_tensors import hold

SAME_SIDES = POINTWISE | {"batch_norm", "instance_norm", "group_norm", "layer_norm", "prelu", "softmax"}
SIZED = {"view", "reshape"}  # by sizes, -1 for one that follows from the others
MADE = {f"{new}{how}" for new in ("", "new_") for how in ("empty", "zeros", "ones", "full")} | {
    "rand",
    "randn",
}  # by sizes
CUTS = {"split", "chunk", "tensor_split"}  # functions that give back several parts
PRIMES = (101, 103, 107, 109, 113, 127, 131), (137, 139, 149, 151, 157, 163, 167)  # lengths that tell axes apart
POOLS = {f"{how}_pool{d}d" for how in ("max", "avg") for d in (1, 2, 3)}


def remove_dead_calls(graph: fx.Graph, modules: Callable[[str], nn.Module]) -> str:
    """Erase every call that the output does not need. A call that writes in place is needed by whoever reads it later.

    Returns the call whose size is read though it is gone, if this size cannot be computed from others: the program then takes
    images of the example's sides alone.
    """
    lost = ""
    live = _live(graph, (graph.output_node(),), through_sizes=False)
    sizes = _Sizes(graph, modules, live)
    for node in list(graph.nodes):
        if node.target is hold and node.op == "call_function":
            sizes.keep_condition(node)
        elif node in live and _is_size(node) and node.args[0] not in live:
            tensor: Any = node.args[0]
            try:
                size = sizes.of(tensor, node.args[1], node)  # type: ignore[arg-type]
            except UnknownSize:
                lost, size = lost or place(tensor), tensor.meta["shape"][node.args[1]]
            node.replace_all_uses_with(size)
    if lost:
        hold_sides(graph, sizes.sides)
    conditions = [node for node in graph.nodes if node.op == "call_function" and node.target is hold]
    live = _live(graph, (graph.output_node(), *conditions), through_sizes=True)
    for node in reversed(list(graph.nodes)):
        if node not in live and node.op != "placeholder":
            graph.erase_node(node)
    return lost


def hold_sides(graph: fx.Graph, sides: Iterable[int]) -> None:
    """Let a program take images of these sides alone."""
    image = next(iter(graph.nodes))
    for axis, side in enumerate(sides, start=2):
        with graph.inserting_before(_first_call(graph)):
            equal = graph.call_function(operator.eq, (graph.call_method("size", (image, axis)), side))
            graph.call_function(hold, (equal, f"the size along axis {axis} is {side}"))


def _first_call(graph: fx.Graph) -> fx.Node:
    return next(node for node in graph.nodes if node.op != "placeholder")


def ancestors(graph: fx.Graph, nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Whatever some nodes are made from."""
    return _live(graph, nodes, through_sizes=False)


def _is_size(node: fx.Node) -> bool:
    return node.op == "call_method" and node.target == "size"


def _live(graph: fx.Graph, roots: Iterable[fx.Node], *, through_sizes: bool) -> set[fx.Node]:
    live = set(roots)
    for node in reversed(graph.nodes):
        if node in live and (through_sizes or not _is_size(node)):
            live.update(node.all_input_nodes)
            live.update(node.meta.get("after", ()))
    return live


class UnknownSize(Exception):
    """A size of a tensor that is gone cannot be computed from others."""


class _Sizes:
    """Computes sizes of tensors that are gone from those that are there."""

    def __init__(self, graph: fx.Graph, modules: Callable[[str], nn.Module], live: set[fx.Node]) -> None:
        self._graph, self._modules, self._live = graph, modules, live
        self._image = next(iter(graph.nodes))

    @property
    def sides(self) -> tuple[int, ...]:
        """The sides of the example."""
        return self._image.meta["shape"][2:]  # type: ignore[no-any-return]

    def keep_condition(self, condition: fx.Node) -> None:
        """Keep a condition on sizes, computed from what is there, or else hold the program to the example's size."""
        pending, inputs = [condition], set()
        while pending:
            node = pending.pop()
            for source in node.all_input_nodes:
                if _is_size(node):
                    continue
                inputs.add(source)
                pending.append(source)
        gone = [node for node in inputs if _is_size(node) and node.args[0] not in self._live]
        try:
            for node in gone:
                node.replace_all_uses_with(self.of(node.args[0], node.args[1], node))  # type: ignore[arg-type]
        except UnknownSize:
            self._graph.erase_node(condition)
            hold_sides(self._graph, self.sides)

    def of(self, tensor: fx.Node, axis: int, before: fx.Node) -> Any:  # noqa: PLR0911 (a rule for each kind of call)
        """The size of a tensor along an axis, as a node or a number. Raises: UnknownSize if it cannot be computed."""
        shape = tensor.meta["shape"]
        axis %= len(shape)
        if tensor in self._live or tensor.op == "placeholder":
            with self._graph.inserting_before(before):
                return self._graph.call_method("size", (tensor, axis))
        if axis == 0 and shape[0] == self._image.meta["shape"][0]:
            return self.of(self._image, 0, before)
        name, sources = tensor.meta.get("function"), tensor_arguments(tensor)
        same = next(
            (source for source in sources if source.meta["shape"][axis : axis + 1] == shape[axis : axis + 1]), None
        )
        keeps_side = name in SAME_SIDES or (name == "linear" and axis != len(shape) - 1)
        if keeps_side or (name == "cat" and concatenation_axis(tensor) != axis):
            return self.of(sources[0], axis, before)
        if name == "cat":
            sides = [self.of(source, axis, before) for source in sources]
            return functools.reduce(functools.partial(self._compute, before, operator.add), sides)
        if name in BINARY and same is not None:
            return self.of(same, axis, before)
        if name == "pad" or name in PER_CHANNEL | CONVOLUTIONS:
            return self._of_places(tensor, axis, before)
        if name in SIZED and tensor.op == "call_method":
            return self._viewed(tensor, axis, before)
        if name in MADE:
            return self._made(tensor, axis, before)
        if name in CUTS and "part" in tensor.meta:
            return self._cut(tensor, axis, before)
        try:
            return self._moved(tensor, axis, before)
        except UnknownSize:
            if axis == 1 and len(shape) == len(self._image.meta["shape"]):
                return shape[1]  # as channels stand
            raise

    def _of_places(self, tensor: fx.Node, axis: int, before: fx.Node) -> Any:
        """The size of what a call makes that works on the places of an image."""
        name = str(tensor.meta["function"])
        if axis == 1 and name in CONVOLUTIONS:
            return tensor.meta["shape"][1]
        if name == "pad":
            return self._padded(tensor, axis, before)
        if axis < 2:
            return self.of(tensor_arguments(tensor)[0], axis, before)
        if name in {"interpolate", "upsample"}:
            return self._interpolated(tensor, axis, before)
        if tensor.op == "call_module" and (name in CONVOLUTIONS or name in POOLS):
            return self._strided(tensor, axis, before, "transpose" in name)
        if name in POOLS:
            return self._pooled(tensor, axis, before)
        raise UnknownSize

    def _made(self, tensor: fx.Node, axis: int, before: fx.Node) -> Any:
        """The size that a tensor was made with."""
        sizes: Any = tensor.args[str(tensor.meta["function"]).startswith("new_") :] or [tensor.kwargs.get("size")]
        flat = sizes[0] if isinstance(sizes[0], list | tuple) else sizes
        if len(flat) != len(tensor.meta["shape"]):
            raise UnknownSize
        return self._size_again(flat[axis], before)

    def _cut(self, part: fx.Node, axis: int, before: fx.Node) -> Any:
        """The size of a part along an axis that is not cut, or that of channels."""
        call: Any = part.args[0]
        if axis != argument(call, 2, "dim", 0) % len(part.meta["shape"]):
            return self.of(tensor_arguments(call)[0], axis, before)
        if axis != 1:
            raise UnknownSize
        return part.meta["shape"][1]

    def _viewed(self, tensor: fx.Node, axis: int, before: fx.Node) -> Any:
        """The size of a view by sizes: the one that it was given, or what the others leave of the source."""
        source, *sizes = tensor.args
        flat = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes
        if not isinstance(source, fx.Node) or len(flat) != len(tensor.meta["shape"]):
            raise UnknownSize
        if flat[axis] != -1:
            return self._size_again(flat[axis], before)
        multiply = functools.partial(self._compute, before, operator.mul)
        every = [self.of(source, each, before) for each in range(len(source.meta["shape"]))]
        others = [self._size_again(size, before) for each, size in enumerate(flat) if each != axis]
        return self._compute(
            before, operator.floordiv, functools.reduce(multiply, every, 1), functools.reduce(multiply, others, 1)
        )

    def _size_again(self, size: Any, before: fx.Node) -> Any:
        """A size that was computed for a call that is gone, computed of what is there."""
        if not isinstance(size, fx.Node) or size in self._live:
            return size
        if _is_size(size):
            return self.of(size.args[0], size.args[1], before)  # type: ignore[arg-type]
        if size.op != "call_function" or size.kwargs:
            raise UnknownSize
        return self._compute(before, size.target, *(self._size_again(each, before) for each in size.args))  # type: ignore[arg-type]

    def _moved(self, tensor: fx.Node, axis: int, before: fx.Node) -> Any:
        """The size of what a call makes of one tensor. Sides of prime lengths, without values, show of which it is made."""
        sources = tensor_arguments(tensor)
        if (
            len(sources) != 1
            or tensor.all_input_nodes != sources
            or tensor.op == "call_module"
            or "part" in tensor.meta
        ):
            raise UnknownSize
        shape = sources[0].meta["shape"]
        if len(shape) > len(PRIMES[0]):
            raise UnknownSize
        sizes = {self._product_of_sides(tensor, sources[0], axis, primes[: len(shape)]) for primes in PRIMES}
        if len(sizes) != 1:
            raise UnknownSize
        factors, constant = sizes.pop()
        if not factors and constant != tensor.meta["shape"][axis]:
            raise UnknownSize
        multiply = functools.partial(self._compute, before, operator.mul)
        sides = [self.of(sources[0], each, before) for each in factors]
        return functools.reduce(multiply, sides + [constant] * (constant > 1 or not sides))

    def _product_of_sides(
        self, tensor: fx.Node, source: fx.Node, axis: int, primes: tuple[int, ...]
    ) -> tuple[tuple[int, ...], int]:
        """The axes of a source whose sides make a size, and the factor beside them."""
        lengths = [1 if side == 1 else prime for side, prime in zip(source.meta["shape"], primes, strict=True)]
        empty = torch.empty(lengths, dtype=source.meta["dtype"], device="meta")
        args, kwargs = fx.node.map_arg((tensor.args, tensor.kwargs), lambda _source: empty)
        try:
            if tensor.op == "call_method":
                result = getattr(args[0], str(tensor.target))(*args[1:], **kwargs)
            else:
                result = tensor.target(*args, **kwargs)  # type: ignore[operator]
            length = result.shape[axis]
        except Exception as failure:  # whatever a function makes of a shape that is not its own
            raise UnknownSize from failure
        factors = tuple(each for each, side in enumerate(lengths) if side > 1 and length % side == 0)
        return factors, length // math.prod(lengths[each] for each in factors)

    def _compute(self, before: fx.Node, function: Callable[..., Any], *values: Any) -> Any:
        if not any(isinstance(value, fx.Node) for value in values):
            return function(*values)
        with self._graph.inserting_before(before):
            return self._graph.call_function(function, values)

    def _padded(self, tensor: fx.Node, axis: int, before: fx.Node) -> Any:
        padding: Any = argument(tensor, 1, "pad", ())
        pair = len(tensor.meta["shape"]) - 1 - axis
        side = self.of(tensor_arguments(tensor)[0], axis, before)
        for amount in padding[2 * pair : 2 * pair + 2]:
            side = self._compute(before, operator.add, side, amount)
        return side

    def _interpolated(self, tensor: fx.Node, axis: int, before: fx.Node) -> Any:
        if tensor.op == "call_module":
            module = self._modules(str(tensor.target))
            size, scale = getattr(module, "size", None), getattr(module, "scale_factor", None)
        else:
            size, scale = argument(tensor, 1, "size", None), argument(tensor, 2, "scale_factor", None)
        if size is not None:
            return size[axis - 2] if isinstance(size, list | tuple) else size
        factor = scale[axis - 2] if isinstance(scale, list | tuple) else scale
        if not isinstance(factor, int | float) or factor != int(factor):
            raise UnknownSize
        return self._compute(before, operator.mul, self.of(tensor_arguments(tensor)[0], axis, before), int(factor))

    def _strided(self, tensor: fx.Node, axis: int, before: fx.Node, transposed: bool) -> Any:
        module: Any = self._modules(str(tensor.target))
        kernel, stride, padding, dilation = (
            value[axis - 2] if isinstance(value, tuple) else value
            for value in (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1))
        )
        side = self.of(tensor_arguments(tensor)[0], axis, before)
        if padding == "same":
            return side
        padding = 0 if padding == "valid" else padding
        if getattr(module, "ceil_mode", False) or (transposed and len(tensor.args) > 1):
            raise UnknownSize  # it is rounded up
        if transposed:
            output_padding = module.output_padding[axis - 2]
            side = self._compute(before, operator.mul, self._compute(before, operator.sub, side, 1), stride)
            return self._compute(before, operator.add, side, dilation * (kernel - 1) + output_padding + 1 - 2 * padding)
        side = self._compute(before, operator.add, side, 2 * padding - dilation * (kernel - 1) - 1)
        return self._compute(before, operator.add, self._compute(before, operator.floordiv, side, stride), 1)

    def _pooled(self, tensor: fx.Node, axis: int, before: fx.Node) -> Any:
        kernel: Any = argument(tensor, 1, "kernel_size", None)
        stride: Any = argument(tensor, 2, "stride", None) or kernel
        plain = not any(argument(tensor, k, name, 0) for k, name in ((3, "padding"), (5, "ceil_mode")))
        if not plain or argument(tensor, 4, "dilation", 1) not in (1, False) or tensor.kwargs.get("dilation", 1) != 1:
            raise UnknownSize
        kernel, stride = (value[axis - 2] if isinstance(value, list | tuple) else value for value in (kernel, stride))
        side = self._compute(before, operator.sub, self.of(tensor_arguments(tensor)[0], axis, before), kernel)
        return self._compute(before, operator.add, self._compute(before, operator.floordiv, side, stride), 1)
