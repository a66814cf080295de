"""The structure of a network as it is measured: layers, skips, and the merges where skips join the upsampled path.

Functions are grouped by the names that `activations.tracing` gives their calls.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from unetscope.activations import FOREIGN, SCRIPT, WRITTEN, Graph
from unetscope.base import NetworkError
from unetscope.table import Layer, Skip

JoinKind = Literal[
    "cat", "add", "sub", "mul", "div", "max", "min", "mean", "select", "write", "tile", "attention", "call"
]  # fmt: skip

# Functions that have the weights of a convolution: each makes a layer.
KERNELS = {f"conv{way}{d}d{then}" for way in ("", "_transpose") for d in (1, 2, 3) for then in ("", "_relu")} | {
    "convolution", "deform_conv2d",
}  # fmt: skip

# What a call or a module makes that cannot be looked into, and what came back from another library.
OPAQUE = {"module", SCRIPT, FOREIGN}

# Functions made for upsampling.
RESAMPLING = OPAQUE | {
    *(f"conv_transpose{d}d{then}" for d in (1, 2, 3) for then in ("", "_relu")),
    *(f"max_unpool{d}d" for d in (1, 2, 3)),
    "interpolate", "upsample", "upsample_nearest", "upsample_bilinear", "pixel_shuffle", "grid_sample", "fold",
    "repeat_interleave", "setitem", "copy", WRITTEN,
}  # fmt: skip

# Functions that keep every value and change the axes at most ("get" reads an attribute such as `x.T`).
RESHAPING = {
    "view", "reshape", "permute", "transpose", "movedim", "moveaxis", "contiguous", "clone", "flatten", "unflatten", "swapaxes",
    "squeeze", "unsqueeze", "expand", "get", "detach", "expand_as", "broadcast_to", "view_as", "reshape_as", "unsafe_view",
    "quantize_per_tensor", "dequantize",
}  # fmt: skip

# Functions between a tensor and its upsampling by axes of their own.
UNFOLDING = RESHAPING | {"getitem", "repeat", "tile", "stack"}

# Functions that make places out of a vector.
CREATING_PLACES = RESAMPLING - {"interpolate", "upsample", "upsample_nearest", "upsample_bilinear", "repeat_interleave"} | {
    "view", "reshape", "unflatten", "view_as", "reshape_as",
}  # fmt: skip

# Functions that read values at indices.
READING = {"getitem", "index", "index_select", "gather", "take_along_dim", "take", "masked_select", "select", "narrow"}

# Functions some of whose arguments say only where values are taken from or put.
SELECTING = READING | {
    "where", "scatter", "scatter_add", "setitem", "index_put", "put", "masked_fill", "masked_scatter", "index_add",
    "index_copy", "grid_sample", *(f"max_unpool{d}d" for d in (1, 2, 3)),
}  # fmt: skip

# Functions that move values without computing with them.
REARRANGING = {
    *RESHAPING, "getitem", "pad", "roll", "split", "chunk", "unbind", "cat", "stack", "repeat", "tile", "narrow",
}  # fmt: skip

# Functions whose result is used as a weight between 0 and 1 (or -1 and 1).
GATES = {"sigmoid", "hardsigmoid", "softmax", "tanh", "cosine_similarity"}

# Functions that can reduce an image to a few places.
POOLING = {f"adaptive_{how}_pool{d}d" for how in ("avg", "max") for d in (1, 2, 3)} | {"mean", "amax"}

# Functions that bring several tensors together place by place. Any other function of several streams is a join too, a "call".
JOINS: dict[str, JoinKind] = {
    **dict.fromkeys(("cat", "hstack", "column_stack"), "cat"), **dict.fromkeys(("dstack", "vstack", "row_stack"), "tile"),
    **dict.fromkeys(("add", "sum", "add_relu"), "add"), **dict.fromkeys(("sub", "rsub"), "sub"), "mul": "mul", "div": "div",
    **dict.fromkeys(("maximum", "max", "fmax", "amax"), "max"), **dict.fromkeys(("minimum", "min", "fmin", "amin"), "min"),
    "mean": "mean", "where": "select", "masked_scatter": "select",
    **dict.fromkeys(("setitem", "copy", "index_put", "put", "index_copy", "scatter", WRITTEN), "write"),
    **dict.fromkeys(("slice_scatter", "select_scatter", "diagonal_scatter"), "write"),
    **dict.fromkeys(("matmul", "bmm", "baddbmm", "einsum"), "attention"),
    **dict.fromkeys(("scaled_dot_product_attention", "multi_head_attention_forward"), "attention"),
}  # fmt: skip

# Joins of a stack of tensors along its own axis.
OVER_STACK = {"sum", "mean", "amax", "amin", "max", "min", "prod", "median", "logsumexp"}

# Functions that belong to the layer of the kernel before them: normalisation, activation, dropout, casts.
WITHIN_LAYER = {
    "batch_norm", "instance_norm", "group_norm", "layer_norm", "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu",
    "celu", "gelu", "silu", "mish", "hardtanh", "hardswish", "hardsigmoid", "softplus", "sigmoid", "tanh", "softmax",
    "log_softmax", "dropout", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "contiguous", "to", "float", "type",
    "clone", "clamp",
}  # fmt: skip


Detail = Literal["kernels", "stages"]

JOIN_NAMES: dict[JoinKind, str] = {
    "cat": "concatenation", "add": "sum", "sub": "difference", "mul": "product", "div": "quotient", "max": "maximum",
    "min": "minimum", "mean": "mean", "select": "selection", "write": "assignment", "tile": "tiling", "attention": "attention",
    "call": "function",
}  # fmt: skip
"""By kind of join, the name of what it makes."""


IN_PLACE = (
    -1
)  # the position of a stream into which other calls than the join write, so that it enters through no argument


@dataclass(frozen=True, slots=True)
class Operand:
    """One stream at a join.

    tensor: its number. path: the calls through which it enters the join, from inner to outer, each as (address, position
    among the tensor arguments, or `IN_PLACE`). others: further arguments, in the same form, through which it enters what the
    join chooses or weighs by, such as the condition of a selection.
    """

    tensor: int
    path: tuple[tuple[str, int], ...]
    others: tuple[tuple[str, int], ...] = ()

    @property
    def entries(self) -> tuple[tuple[str, int], ...]:
        """All arguments that stand for the stream."""
        return self.path[0], *self.others


Streams = tuple[Operand, tuple[Operand, ...]]  # at a join, the upsampled stream and the skips


@dataclass(frozen=True, slots=True)
class Merge:
    """A join of skips with the upsampled path.

    label: of the layer. address: of the call (see `activations.tracing`). kind: how the streams are joined. node: the number
    of the joined tensor. upsampled: the stream that was upsampled. skips: the other streams, by name of the skip.
    """

    label: str
    address: str
    kind: JoinKind
    node: int
    upsampled: Operand
    skips: dict[str, Operand]


class GapKind(StrEnum):
    """Why a network is not followed everywhere."""

    UNKNOWN_ORIGIN = "unknown origin"
    NO_OUTPUT = "leads to no output"
    UNUSED_HEAD = "unused head"
    HIDDEN_JOIN = "hidden join"
    GATE_ONLY = "gate only"
    LOST_RISE = "lost rise"
    OTHER_AXES = "other axes"
    OTHER_LAYOUT = "other layout"


@dataclass(frozen=True, slots=True)
class Gap:
    """A place where a network could not be followed, so that layers or skips may be missing.

    place: a module or a call, empty for the network's output. text: what was met there. mend: what to do.
    """

    kind: GapKind
    place: str
    text: str
    mend: str

    @property
    def may_hide_skips(self) -> bool:
        """Whether layers or skips may be missing, which is not so where a result is thrown away."""
        return self.kind is not GapKind.UNUSED_HEAD

    def __str__(self) -> str:
        return f"{self.text}: {self.mend}"


@dataclass(frozen=True)
class Structure:
    """A network as it is measured: layers in the order in which they run, skips from the top one down, and their merges.

    detail: whether `layers` are all that a kernel makes, or only the ends of stages. kernels: how many kernels there are.
    graph: the recorded forward pass. gaps: where the network could not be followed. example: the arguments that it was
    recorded with.
    """

    name: str
    layers: tuple[Layer, ...]
    skips: tuple[Skip, ...]
    merges: tuple[Merge, ...]
    detail: Detail
    kernels: int
    graph: Graph
    gaps: tuple[Gap, ...] = ()
    example: tuple[Any, ...] = field(default=(), repr=False, compare=False)

    @property
    def why_no_merge(self) -> str:
        """The reason why no merge was detected; empty if there is one."""
        if self.merges:
            return ""
        if any(gap.may_hide_skips for gap in self.gaps):
            return "No merge is found, but the network could not be followed everywhere: skips may be missing"
        if not (concatenations := _unfollowed_concatenations(self.graph)):
            return "No skip joins an upsampled path: there is nothing for verdicts to judge"
        return (
            f"No merge is found, but {concatenations} concatenations of tokens or of channels that stand last are not "
            "followed: streams are, as [batch, channels, *sides]. Name layers and skips yourself"
        )

    def __str__(self) -> str:
        lines = [f"{self.name}: {len(self.layers)} layers, {len(self.merges)} merges, {len(self.skips)} skips"]
        for layer in self.layers:
            sides = "×".join(map(str, layer.shape))
            lines.append(f"{layer.label:>8}  {layer.role:<9} {sides:<20} {layer.module}")
        lines += [f"{skip.name:>8}  {skip.source} joins {skip.upsampled} at {skip.merge}" for skip in self.skips]
        lines += [f"   note: {gap}" for gap in self.gaps]
        return "\n".join([*lines, *filter(None, [self.why_no_merge])])

    def merge_of(self, skip: str) -> Merge:
        """The merge that a skip joins. Raises: NetworkError if there is no such skip."""
        for merge in self.merges:
            if skip in merge.skips:
                return merge
        names = ", ".join(skip.name for skip in self.skips) or "none"
        raise NetworkError(f"{self.name} has no skip {skip!r}: there are {names}")

    def stream_of(self, part: str) -> Operand:
        """What a skip or a level carries at its merge. Raises: NetworkError if there is no such part.

        Where several skips join at a level, `level2` is the upsampled stream at the first merge of it that runs, and `level2a`
        that at the merge of `skip2a`.
        """
        if (level := re.fullmatch(r"level([1-9]\d*)([a-z]*)", part)) is None:
            return self.merge_of(part).skips[part]
        if level[2] and (beside := f"skip{level[1]}{level[2]}") in {skip.name for skip in self.skips}:
            return self.merge_of(beside).upsampled
        skips = re.compile(rf"skip{level[1]}[a-z]?")
        for merge in self.merges:  # the first that runs, if there are several at a level
            if not level[2] and any(map(skips.fullmatch, merge.skips)):
                return merge.upsampled
        levels = ", ".join(dict.fromkeys(re.sub(r"skip(\d+)[a-z]?", r"level\1", skip.name) for skip in self.skips))
        raise NetworkError(f"{self.name} has no {part!r}: there are {levels or 'none'}")


def _unfollowed_concatenations(graph: Graph) -> int:
    """How many concatenations along other axes than channels there are: their streams are not told apart."""
    return sum(node.name == "cat" and node.dim not in (0, 1) and len(node.inputs) > 1 for node in graph.nodes)
