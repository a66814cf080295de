"""What is worth measuring in anybody's network: its layers, where skips join the upsampled path, and what is carried there.

One forward pass is recorded as a graph of tensors. Going back from a tensor along its makers, the first ones that raised the
resolution are its *rises*. A stream that came up is known by its rises; where it is joined with a stream that shares none of
them, a skip meets the upsampled path. Within a residual block both streams share theirs, so that is no merge.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn

from unetscope.activations.forward_graph import Graph, Node, record_graph
from unetscope.activations.inference import unwrap_model
from unetscope.base.errors import NetworkError, UnetscopeError
from unetscope.base.random_state import preserve_rng
from unetscope.table.records import Layer, Role, Skip

Kind = Literal["cat", "add", "sub", "mul", "max"]
Detail = Literal["kernels", "stages"]

MOST_KERNELS = 40  # layers beyond which only the ends of stages are measured by default
RISE = 1.5  # times the places along an axis: below, it is a crop or a pad
KERNELS = {f"conv{way}{d}d" for way in ("", "_transpose") for d in (1, 2, 3)}
RESAMPLING = {
    *(f"conv_transpose{d}d" for d in (1, 2, 3)),
    *(f"max_unpool{d}d" for d in (1, 2, 3)),
    "interpolate", "upsample", "upsample_nearest", "upsample_bilinear", "pixel_shuffle", "grid_sample", "fold",
    "repeat_interleave", "module",
}  # fmt: skip
RESHAPING = {
    "view", "reshape", "permute", "transpose", "movedim", "moveaxis", "contiguous", "clone", "flatten", "unflatten", "swapaxes",
    "squeeze", "unsqueeze", "expand", "get", "detach",
}  # fmt: skip
REARRANGING = {
    *RESHAPING, "getitem", "pad", "roll", "split", "chunk", "unbind", "cat", "stack", "repeat", "tile", "narrow",
}  # fmt: skip
GATES = {"sigmoid", "hardsigmoid", "softmax", "tanh"}
POOLED = {f"adaptive_{how}_pool{d}d" for how in ("avg", "max") for d in (1, 2, 3)} | {"mean", "amax"}
JOINS: dict[str, Kind] = {"cat": "cat", "add": "add", "sum": "add", "sub": "sub", "mul": "mul", "maximum": "max"}
OUTCOMES: dict[Kind, str] = {
    "cat": "concatenation", "add": "sum", "sub": "difference", "mul": "product", "max": "maximum",
}  # fmt: skip
PLAIN = {
    "batch_norm", "instance_norm", "group_norm", "layer_norm", "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu",
    "celu", "gelu", "silu", "mish", "hardtanh", "hardswish", "hardsigmoid", "softplus", "sigmoid", "tanh", "softmax",
    "log_softmax", "dropout", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "contiguous", "to", "float", "type",
    "clone", "clamp",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operand:
    """One stream at a join: its tensor, and the calls through which it goes there with its place among their tensors."""

    tensor: int
    path: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Merge:
    """Where skips join the upsampled path.

    label: of the layer. address: of the call (see `calls`). kind: how they are joined. upsampled: the stream that came up.
    skips: by name of the skip, its stream.
    """

    label: str
    address: str
    kind: Kind
    node: int
    upsampled: Operand
    skips: dict[str, Operand]


@dataclass(frozen=True)
class Structure:
    """A network as it is measured: layers in the order in which they run, skips from the top one down, and their merges.

    detail: whether `layers` are all that a kernel makes, or the ends of stages only. kernels: how many there are in all.
    graph: the forward pass that all this was read off.
    """

    name: str
    layers: tuple[Layer, ...]
    skips: tuple[Skip, ...]
    merges: tuple[Merge, ...]
    detail: Detail
    kernels: int
    graph: Graph

    @property
    def why_no_merge(self) -> str:
        """If no merge is found: what may be one all the same, or that there is none."""
        if self.merges:
            return ""
        elsewhere = sum(
            node.name == "cat" and node.dim not in (0, 1) and len(node.inputs) > 1 for node in self.graph.nodes
        )
        if elsewhere:
            return (
                f"No merge is found, but {elsewhere} concatenations of tokens or of channels that stand last are not followed: "
                "streams are, as [batch, channels, *sides]. Name layers and skips yourself"
            )
        return "No skip joins an upsampled path: there is nothing for verdicts to judge"

    def __str__(self) -> str:
        lines = [f"{self.name}: {len(self.layers)} layers, {len(self.merges)} merges, {len(self.skips)} skips"]
        lines += [
            f"{layer.label:>8}  {layer.role:<9} {_sides(layer.shape):<20} {layer.module}" for layer in self.layers
        ]
        lines += [f"{skip.name:>8}  {skip.source} joins {skip.upsampled} at {skip.merge}" for skip in self.skips]
        return "\n".join([*lines, *filter(None, [self.why_no_merge])])

    def merge_of(self, skip: str) -> Merge:
        """The merge that a skip goes to. Raises: NetworkError for a skip that there is not."""
        for merge in self.merges:
            if skip in merge.skips:
                return merge
        known = ", ".join(one.name for one in self.skips) or "none"
        raise NetworkError(f"{self.name} has no skip {skip!r}: there are {known}")


@preserve_rng()
def inspect(model: nn.Module, example: Any, *, detail: Detail | None = None) -> Structure:
    """Find the layers worth measuring, every merge of a skip with the upsampled path, and both streams of it.

    model: maps images to masks; it is run once and left as it was. example: what it is given, such as one image
    [1, channels, height, width], or several arguments in a tuple. detail: `kernels` for every tensor that a convolution makes,
    with what follows it up to the next (normalisation, activation, the sum of a residual block); `stages` for the last of these
    before the resolution changes or streams join; by default the former if there are forty or fewer.

    Layers are numbered as the paper numbers them: whatever has a kernel counts, and a merge takes the number of the upsampled
    stream that it joins. `skip1` is the one that joins last, the top one.

    Raises: NetworkError if the network does not run on the example, or makes nothing of it that it gives out.

    >>> from unetscope.networks.unet import UNet
    >>> found = inspect(UNet(2, depth=2), torch.zeros(1, 3, 16, 16))
    >>> [layer.label for layer in found.layers]
    ['1', '2', '3', '4', '5', '6', '7up', '7', '8', '9', '10up', '10', '11', '12', '13']
    >>> [(skip.name, skip.source, skip.merge) for skip in found.skips]
    [('skip1', '2', '10'), ('skip2', '4', '7')]
    """
    given = example[0] if isinstance(example, tuple | list) else example
    if not isinstance(given, torch.Tensor) or given.ndim < 3:
        raise NetworkError("the example must be a tensor [1, channels, ...], one image as the network is given it")
    model = unwrap_model(model)
    try:
        graph = record_graph(model, example)
    except UnetscopeError:
        raise
    except Exception as mistake:
        raise NetworkError(
            f"{type(model).__name__} does not run on an example {list(given.shape)}: {_first_line(mistake)}"
        ) from mistake
    return _Reading(graph, type(model).__name__, given.ndim).structure(detail)


class _Reading:
    """What follows from a graph. Numbers of nodes grow from the input to the output, so one walk settles each question."""

    def __init__(self, graph: Graph, name: str, ndim: int) -> None:
        self.graph, self.name, self.ndim = graph, name, ndim
        self.places = max((self._grid(node) for node in graph.nodes if node.name == "input"), key=math.prod)
        if not graph.outputs:
            raise NetworkError(f"{name} gives out no tensor that can be followed back to its input")

    # The graph, tensor by tensor.

    def _grid(self, node: Node) -> tuple[int, ...]:
        return node.shape[2:]

    def spatial(self, number: int) -> bool:
        """Whether a tensor has an axis for every one of the images."""
        return len(self.graph[number].shape) == self.ndim

    @cached_property
    def gates(self) -> dict[int, int]:
        """By product, which of its operands is only a weight for the other."""
        found = {}
        for node in self.graph.nodes:
            if node.name == "mul" and len(node.inputs) == 2:
                weighing = [number for number in node.inputs if self._weighs(number)]
                if weighing:
                    found[node.number] = weighing[-1]
        return found

    def _weighs(self, number: int) -> bool:
        node = self.graph[number]
        if node.name in GATES:
            return True
        follows = node.name in REARRANGING or node.name in {"interpolate", "add", "mul"}
        return follows and bool(node.inputs) and all(map(self._weighs, node.inputs))

    def value_inputs(self, node: Node) -> tuple[int, ...]:
        """What a tensor is made of, without what only weighs it."""
        if node.number in self.gates:
            return tuple(number for number in node.inputs if number != self.gates[node.number])
        return node.inputs

    @cached_property
    def useful(self) -> frozenset[int]:
        """The tensors of which the output is made, without what only weighs others."""
        found = set(self.graph.outputs)
        for node in reversed(self.graph.nodes):
            if node.number in found:
                found.update(self.value_inputs(node))
        return frozenset(found)

    # Up and down.

    def rises_here(self, node: Node) -> bool:
        """Whether a tensor has a higher resolution than what it is made of."""
        if not node.inputs or not self.spatial(node.number):
            return False
        if node.name in {"view", "reshape", "contiguous", "flatten"}:
            return self._shuffles(node)
        if node.name in REARRANGING or node.name in JOINS or node.name in POOLED:
            return False
        grids = [self._grid(self.graph[number]) for number in node.inputs if self.spatial(number)]
        if not grids:
            return False
        here, before = self._grid(node), max(grids, key=math.prod)
        grown = [one >= RISE * other for one, other in zip(here, before, strict=True)]
        return any(grown) if node.name in RESAMPLING else all(grown)

    def _shuffles(self, node: Node) -> bool:
        """Whether channels become places, as in a sub-pixel convolution, by way of views."""
        before = self.graph[node.inputs[0]]
        while before.name in RESHAPING and before.inputs and not self.spatial(before.number):
            before = self.graph[before.inputs[0]]
        if not self.spatial(before.number) or (before.number == node.inputs[0] and before.name in RESHAPING):
            return False
        here, there = self._grid(node), self._grid(before)
        grown = [one >= RISE * other for one, other in zip(here, there, strict=True)]
        return node.shape[1] < before.shape[1] and any(grown) and all(a >= b for a, b in zip(here, there, strict=True))

    @cached_property
    def rises(self) -> tuple[frozenset[int], ...]:
        """By number, the nearest tensors upstream that rose (itself, if it did), or the input where none did."""
        found: list[frozenset[int]] = []
        for node in self.graph.nodes:
            if node.name == "input" or self.rises_here(node):
                found.append(frozenset({node.number}))
            else:
                found.append(frozenset().union(*(found[number] for number in self.value_inputs(node))))
        return tuple(found)

    def _is_rise(self, number: int) -> bool:
        return self.graph[number].name != "input"

    @cached_property
    def contexts(self) -> frozenset[int]:
        """Rises of what was pooled to a few places: a summary of the image, not a level of the network."""
        found = set()
        for node in self.graph.nodes:
            if node.number in self.rises[node.number] and self._is_rise(node.number):
                before = self.graph[node.inputs[0]]
                while len(before.inputs) == 1 and not self._pools(before) and not self.rises_here(before):
                    before = self.graph[before.inputs[0]]
                if self._pools(before):
                    found.add(node.number)
        return frozenset(found)

    def _pools(self, node: Node) -> bool:
        """Whether a tensor holds a few places' summary of another, and not one of its channels."""
        if node.name not in POOLED or not node.inputs:
            return False
        before = self.graph[node.inputs[0]]
        return not (self.spatial(node.number) and self._grid(node) == self._grid(before))

    # Merges.

    @cached_property
    def merges(self) -> tuple[tuple[Node, Kind, Operand, tuple[Operand, ...]], ...]:
        """Every merge with its upsampled stream and the others, in the order in which they run."""
        found = []
        absorbed: set[int] = set()
        for node in reversed(self.graph.nodes):
            if node.name not in JOINS or node.number in absorbed | self.gates.keys() or node.number not in self.useful:
                continue
            operands = self._operands(node, absorbed)
            if len(operands) > 1 and (parts := self._told_apart(node, operands)) is not None:
                found.append((node, JOINS[node.name], *parts))
        return tuple(reversed(found))

    def _operands(self, node: Node, absorbed: set[int]) -> list[Operand]:
        """The streams that a join brings together, those of joins that only feed it among them."""
        if not self._joins(node):
            return []
        found = []
        for number, place in zip(node.inputs, node.positions, strict=True):
            inner = self.graph[number]
            same = inner.name == "stack" or (JOINS.get(inner.name) == JOINS.get(node.name) and self._joins(inner))
            if same and self.graph.consumers[number] == (node.number,) and self._flattens(inner):
                absorbed.add(number)
                found += [Operand(o.tensor, (*o.path, (node.address, place))) for o in self._operands(inner, absorbed)]
            else:
                found.append(Operand(number, ((node.address, place),)))
        return found

    def _flattens(self, inner: Node) -> bool:
        """Whether an inner join is one with its outer: any concatenation is; a sum, unless it closes a residual block."""
        if inner.name in {"cat", "stack"}:
            return True
        own = [self.rises[number] for number in inner.inputs]
        return len(own) < 2 or not frozenset.intersection(*own)

    def _joins(self, node: Node) -> bool:
        """Whether a tensor brings others together place by place."""
        if node.name == "stack":
            return node.dim is not None
        if node.name == "sum":
            inner = self.graph[node.inputs[0]] if node.inputs else node
            return inner.name == "stack" and inner.dim == node.dim
        if node.name not in JOINS or not self.spatial(node.number) or not node.inputs:
            return False
        if node.name == "cat":
            return node.dim == 1
        return all(self._grid(self.graph[number]) == self._grid(node) for number in node.inputs)

    def _told_apart(self, node: Node, operands: Sequence[Operand]) -> tuple[Operand, tuple[Operand, ...]] | None:
        """The stream that came up last, and those that have not come up with it; None if this is no merge."""
        streams = [one for one in operands if self.spatial(one.tensor) and self.rises[one.tensor]]
        up = [
            one for one in streams if all(self._is_rise(n) and n not in self.contexts for n in self.rises[one.tensor])
        ]
        if up:
            last = max(up, key=lambda one: max(self.rises[one.tensor]))
            others = tuple(one for one in streams if self._apart(node, one, last))
            return (last, others) if others else None
        return self._around_the_bottom(node, streams)

    def _apart(self, node: Node, one: Operand, upsampled: Operand) -> bool:
        mine, other = self.rises[one.tensor], self.rises[upsampled.tensor]
        if mine & other or (mine <= self.contexts and any(map(self._is_rise, mine))):
            return False
        return not (all(map(self._is_rise, mine)) and self._siblings(node, mine, other))

    def _siblings(self, node: Node, mine: Iterable[int], other: Iterable[int]) -> bool:
        """Whether two rises are the two ways through one residual block, which rise from the same stream side by side."""
        sources = [{self.rises[self.graph[n].inputs[0]] for n in group} for group in (mine, other)]
        scopes = {_scope(self.graph[n].address) for n in (*mine, *other)}
        return sources[0] == sources[1] and all(_within(scope, _scope(node.address)) for scope in scopes)

    def _around_the_bottom(self, node: Node, streams: Sequence[Operand]) -> tuple[Operand, tuple[Operand, ...]] | None:
        """A skip around the bottom of a network whose last level does not go down: what is joined goes straight up."""
        if node.name != "cat" or len(streams) != 2:
            return None
        first, second = sorted(streams, key=lambda one: one.tensor)
        goes_up = [number for number in self.graph.consumers[node.number] if self.rises_here(self.graph[number])]
        if not goes_up or self._descends_from_cat(node) or not self._descends(second.tensor, first.tensor):
            return None
        return second, (first,)

    def _descends_from_cat(self, node: Node) -> bool:
        """Whether other concatenations of the same streams stand before: a dense block."""
        seen, todo = set(), list(node.inputs)
        while todo:
            number = todo.pop()
            if number in seen or number in self.rises[number]:
                continue
            seen.add(number)
            before = self.graph[number]
            if before.name == "cat" and before.dim == 1:
                return True
            todo += self.value_inputs(before)
        return False

    def _descends(self, number: int, ancestor: int) -> bool:
        return number in self._made_of({ancestor})

    def _made_of(self, ancestors: Collection[int]) -> set[int]:
        """These tensors, and all that something of them is in."""
        reached = set(ancestors)
        for node in self.graph.nodes:
            if reached.intersection(node.inputs):
                reached.add(node.number)
        return reached

    # Layers.

    def _ends(self) -> dict[int, int]:
        """By kernel, the tensor that its result has become when something else is made of it."""
        joined = {node.number for node, *_ in self.merges}
        streams = {one.tensor for _, _, up, others in self.merges for one in (up, *others)}
        found = {}
        for node in self.graph.nodes:
            if node.name not in KERNELS or node.number not in self.useful or not self.spatial(node.number):
                continue
            end = node
            while end.number not in streams and len(after := self.graph.consumers[end.number]) == 1:
                following = self.graph[after[0]]
                residual = following.name == "add" and following.number not in joined
                if following.shape != end.shape or not (following.name in PLAIN or residual):
                    break
                end = following
            found[node.number] = end.number
        return found

    def structure(self, detail: Detail | None) -> Structure:
        ends = self._ends()
        kernels = sorted(set(ends.values()))
        merges = {node.number: (node, kind, up, others) for node, kind, up, others in self.merges}
        streams = {one.tensor for _, _, up, others in merges.values() for one in (up, *others)}
        if detail is None:
            detail = "kernels" if len(kernels) <= MOST_KERNELS else "stages"
        kept = set(kernels) if detail == "kernels" else self._stages(kernels, streams)
        output = self._output(kernels)
        kept |= streams | {output}
        return self._labelled(sorted(kept | set(merges)), merges, set(kernels), output, detail)

    def _output(self, kernels: Sequence[int]) -> int:
        """What the network gives out: of several outputs the one of the highest resolution."""
        given = [number for number in self.graph.outputs if self.spatial(number)]
        if not given:
            raise NetworkError(f"{self.name} gives out no tensor with a place for every one of the image's")
        return max(given, key=lambda number: (math.prod(self._grid(self.graph[number])), -given.index(number)))

    def _stages(self, kernels: Sequence[int], streams: set[int]) -> set[int]:
        """Of neighbours with one resolution and the same rises, the last."""
        found = {}
        for number in kernels:
            found[self.rises[number], self._grid(self.graph[number]), self._before(number, streams)] = number
        return set(found.values())

    def _before(self, number: int, streams: set[int]) -> int:
        """How many merges stand before a tensor, so that what comes before a merge is told from what comes after."""
        return sum(node.number < number for node, *_ in self.merges)

    def _labelled(
        self, numbers: Sequence[int], merges: dict[int, Any], kernels: set[int], output: int, detail: Detail
    ) -> Structure:
        upsampled = {up.tensor: node for node, (_, _, up, _) in merges.items()}
        risen = self._made_of(upsampled or {n for n in kernels if any(map(self._is_rise, self.rises[n]))})
        deepest = max((self._level(n) for n in kernels - risen), default=0)
        labels: dict[int, str] = {}
        layers: list[Layer] = []
        found: list[Merge] = []
        skips: list[Skip] = []
        count = 0
        names = self._skip_names(merges)
        for number in numbers:
            node = self.graph[number]
            if number in merges:
                _, kind, up, others = merges[number]
                own = labels[up.tensor].removesuffix("up")
                carried = {}
                for place, one in enumerate(others):
                    label = own + ("" if len(others) == 1 else chr(ord("a") + place))
                    parts = (labels[up.tensor], labels[one.tensor])
                    layers.append(self._layer(label, node, "merge", parts, (up.tensor, one.tensor)))
                    name = names[number, one.tensor]
                    skips.append(Skip(name, labels[one.tensor], labels[up.tensor], label))
                    carried[name] = one
                found.append(Merge(own, node.address, kind, number, up, carried))
                if kind != "cat":
                    labels[number] = f"{own}{OUTCOMES[kind]}"
                    layers.append(self._layer(labels[number], node, "decoder"))
                continue
            if number in upsampled or number in kernels or number == output:
                count += 1
                labels[number] = f"{count}up" if number in upsampled else f"{count}"
                role: Role = "upsampled" if number in upsampled else self._role(number, risen, deepest)
                role = "output" if number == output else role
            else:
                labels[number] = self._label_of_carried(number, labels)
                role = "encoder"
            layers.append(self._layer(labels[number], node, role))
        skips.sort(key=lambda skip: int(skip.name.removeprefix("skip")))
        return Structure(self.name, tuple(layers), tuple(skips), tuple(found), detail, len(kernels), self.graph)

    def _label_of_carried(self, number: int, labels: dict[int, str]) -> str:
        """A stream that no kernel makes, such as a crop, by the layer that it is made of."""
        node, source = self.graph[number], self.graph[number]
        while source.number not in labels and source.inputs:
            source = self.graph[self.value_inputs(source)[0]]
        base = f"{labels.get(source.number, 'input')}{node.name}"
        return next(name for name in (base, *(f"{base}{k}" for k in range(2, 1000))) if name not in labels.values())

    def _skip_names(self, merges: dict[int, Any]) -> dict[tuple[int, int], str]:
        """Skips are counted from the last that joins to the first."""
        order = [(node, one.tensor) for node in sorted(merges, reverse=True) for one in merges[node][3]]
        return {place: f"skip{k}" for k, place in enumerate(order, start=1)}

    def _level(self, number: int) -> int:
        """How many times the image has been halved along its most reduced axis."""
        ratios = [whole / here for whole, here in zip(self.places, self._grid(self.graph[number]), strict=True) if here]
        return max(0, round(math.log2(max(ratios, default=1.0))))

    def _role(self, number: int, risen: set[int], deepest: int) -> Role:
        if number in risen:
            return "decoder"
        return "bottom" if self._level(number) == deepest else "encoder"

    def _layer(
        self, label: str, node: Node, role: Role, parts: tuple[str, ...] = (), streams: Sequence[int] = ()
    ) -> Layer:
        shape = node.shape[1:]
        if parts:
            shape = (sum(self.graph[number].shape[1] for number in streams), *self._grid(node))
        return Layer(label, node.place, self._level(node.number), role, parts, shape)


def _scope(address: str) -> str:
    return address.rsplit(":", 1)[0]


def _within(scope: str, block: str) -> bool:
    return bool(block) and (scope == block or scope.startswith(f"{block}."))


def _sides(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _first_line(mistake: Exception) -> str:
    return (str(mistake).strip().splitlines() or [type(mistake).__name__])[0]
