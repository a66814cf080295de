"""Follow channels that a concatenation no longer has to whatever reads them, and take the weights that read them away.

A call is edited only where what it makes of the channels that stay does not depend on those that went. Whether the latter are
zero, or constant after a normalisation, is not derived but read off the silenced network (see `Read`).
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from unetscope.networks.masks import (
    Mask,
    Read,
    WeightEdit,
    argument,
    concatenation_axis,
    is_made_of_input,
    side_of,
    tensor_arguments,
)
from unetscope.networks.moves import ChannelEdits, MixesChannelsError
from unetscope.networks.program import place
from unetscope.networks.shared_weights import Readers, shares_weights, weight_readers
from unetscope.networks.structure import RESHAPING, WITHIN_LAYER

# Functions of each value by itself.
POINTWISE = (WITHIN_LAYER - {"batch_norm", "instance_norm", "group_norm", "layer_norm", "prelu", "softmax", "log_softmax"}) | {
    "abs", "alpha_dropout", "clamp_max", "clamp_min", "cos", "detach", "dropout1d", "erf", "exp", "neg",
    "feature_alpha_dropout", "hardshrink", "logsigmoid", "pow", "softsign", "sqrt", "square", "sin", "tanhshrink", "threshold",
    "type_as", "double", "half", "bfloat16", "cpu", "cuda", "nan_to_num", "rsub",
}  # fmt: skip
BINARY = {"add", "sub", "mul", "div", "truediv", "true_divide", "maximum", "minimum", "max", "min"}

# Functions of the places of each channel by itself. Channels stand at axis 1.
PER_CHANNEL = {f"{how}_pool{d}d" for how in ("max", "avg", "adaptive_avg", "adaptive_max", "lp") for d in (1, 2, 3)} | {
    "interpolate", "upsample", "upsample_nearest", "upsample_bilinear", "grid_sample",
}  # fmt: skip

# Functions that move values, or average them over places.
MOVING = (RESHAPING - {"expand", "expand_as", "broadcast_to", "view_as", "reshape_as", "quantize_per_tensor", "dequantize"}) | {
    "getitem", "split", "chunk", "unbind", "narrow", "select", "flip", "roll", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "index_select", "mean", "tensor_split", "swapdims", "ravel", "fliplr", "flipud", "rot90", "repeat",
    "repeat_interleave", "tile",
}  # fmt: skip


CONVOLUTIONS = {f"conv{way}{d}d" for way in ("", "_transpose") for d in (1, 2, 3)}

FUNCTION_WEIGHTS = {
    "batch_norm": {"running_mean": 1, "running_var": 2, "weight": 3, "bias": 4},
    "instance_norm": {"running_mean": 1, "running_var": 2, "weight": 3, "bias": 4},
    "group_norm": {"weight": 2, "bias": 3},
    "linear": {"weight": 1},
    "prelu": {"weight": 1},
    **{kernel: {"weight": 1} for kernel in CONVOLUTIONS},
}
"""By function, the positions of its weights among its arguments."""


class Following(ChannelEdits):
    """The edits of one program, call by call."""

    def edit(self, node: fx.Node) -> None:
        """Edit a call that is given tensors that lost channels. Raises: NetworkError if it mixes channels."""
        if node.op == "call_method" and node.target == "size":
            self._keep_size(node)
        elif node.op == "output":
            self._refill_all(node)
        elif "function" in node.meta and not ("part" in node.meta and node.target is operator.getitem):
            self._edit(node)

    def _edit(self, node: fx.Node) -> None:
        name = node.meta["function"]
        masked = [source for source in node.all_input_nodes if source in self.masks]
        rules: list[tuple[bool, Callable[[fx.Node, fx.Node], Mask | None]]] = [
            (name in BINARY or name == "cat", lambda node, _source: self._join(node, name)),
            (name in POINTWISE, lambda _node, source: self.masks[source]),
            (name in PER_CHANNEL or name == "pad", self._per_channel),
            (name in {"batch_norm", "instance_norm"}, self._norm),
            (name == "prelu", self._prelu),
            (name == "group_norm", self._group_norm),
            (name in CONVOLUTIONS, self._kernel),
            (name == "linear", self._linear),
            (name in MOVING, self._move),
        ]
        rule = next((rule for applies, rule in rules if applies), None)
        if (
            rule is None
            or (len(masked) > 1 and name not in BINARY and name != "cat")
            or (node.meta["writes"] and name == "setitem")
        ):
            self._feed_zeros(node)
            return
        if self._is_shared(node):
            self._refill_all(node)
            self.shared.append(place(node))
            return
        try:
            mask = rule(node, masked[0])
        except MixesChannelsError:
            self._feed_zeros(node)
            return
        if mask is not None:
            self.masks[node] = mask

    # Calls that keep channels apart.

    def _per_channel(self, node: fx.Node, source: fx.Node) -> Mask:
        mask = self.masks[source]
        if mask.axis != 1 or argument(node, 0, "input", None) is not source:
            raise MixesChannelsError
        if node.meta["function"] == "pad":
            padding = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad", ())
            if isinstance(padding, fx.Node) or len(padding) // 2 >= len(source.meta["shape"]) - 1:  # type: ignore[arg-type]
                raise MixesChannelsError
        return mask

    def _join(self, node: fx.Node, name: str) -> Mask | None:
        """Streams side by side or place by place, of which some have lost channels."""
        tensors = tensor_arguments(node)
        if name == "cat":
            return self._concatenation(node, tensors)
        if len(tensors) == 1:
            if name in {"max", "min"}:
                raise MixesChannelsError
            return self.masks[tensors[0]]
        masks = {self.masks[tensor] for tensor in tensors if tensor in self.masks}
        mask = next(iter(masks))
        from_end = mask.axis - len(next(t for t in tensors if t in self.masks).meta["shape"])
        beside = [t for t in tensors if t not in self.masks]
        whole = [t for t in beside if side_of(t, from_end) != 1]
        keeps_zeros = name in {"mul", "div", "truediv", "true_divide"}
        # A mean of the image that is subtracted, say, makes of zeros what is another constant for each image.
        if len(masks) > 1 or (not keeps_zeros and (whole or any(map(is_made_of_input, beside)))):
            self._refill_all(node)
            return None
        for tensor in whole:  # a gate, or a scale for each channel
            with self.graph.inserting_before(node):
                node.replace_input_with(
                    tensor, self._selected(tensor, from_end % len(tensor.meta["shape"]), mask.indices)
                )
        return mask

    def _concatenation(self, node: fx.Node, tensors: list[fx.Node]) -> Mask | None:
        axis = concatenation_axis(node)
        masks = [self.masks.get(tensor) for tensor in tensors]
        if all(mask is None or mask.axis == axis for mask in masks):
            kept: list[bool] = []
            for tensor, mask in zip(tensors, masks, strict=True):
                kept += mask.kept if mask else [True] * tensor.meta["shape"][axis]
            return Mask(axis, tuple(kept))
        if len(set(masks)) == 1:
            return masks[0]
        self._refill_all(node)
        return None

    # Calls with weights for channels.

    def _require(self, node: fx.Node, edit: WeightEdit) -> None:
        """Note what a module loses."""
        name = str(node.target)
        self.weights[name] = edit

    def _is_shared(self, node: fx.Node) -> bool:
        """Whether a call is of a module with weights for channels that other calls need as they are."""
        if node.op != "call_module" or node.meta["function"] not in FUNCTION_WEIGHTS:
            return False
        module: Any = self.modules(str(node.target))
        if node.meta["function"] == "prelu" and module.weight.numel() == 1:
            return False  # one number for all channels
        return shares_weights(node, self.modules(""), self._readers)

    @functools.cached_property
    def _readers(self) -> Readers:
        return weight_readers(self.graph, self.modules(""))

    def _weights(self, node: fx.Node, **cuts: tuple[int, list[int]]) -> None:
        """Cut weights that are arguments of a function, while it runs. cuts: by argument, the axis and the indices."""
        names = FUNCTION_WEIGHTS[node.meta["function"]]
        with self.graph.inserting_before(node):
            for name, (axis, indices) in cuts.items():
                position = names[name]
                weight = node.args[position] if len(node.args) > position else node.kwargs.get(name)
                if not isinstance(weight, fx.Node):
                    continue
                cut = self._selected(weight, axis, indices)
                if len(node.args) > position:
                    node.update_arg(position, cut)
                else:
                    node.update_kwarg(name, cut)

    def _norm(self, node: fx.Node, source: fx.Node) -> Mask:
        mask = self.masks[source]
        if mask.axis != 1:
            raise MixesChannelsError
        if node.op == "call_module":
            self._require(node, WeightEdit(outputs=tuple(mask.indices)))
        else:
            if node.meta["function"] == "batch_norm" and argument(node, 5, "training", False):
                raise self._refusal(node, "its running statistics lie outside of a module")
            kept = 0, mask.indices
            self._weights(node, weight=kept, bias=kept, running_mean=kept, running_var=kept)
        return mask

    def _prelu(self, node: fx.Node, source: fx.Node) -> Mask:
        mask = self.masks[source]
        if node.op == "call_module":
            if mask.axis != 1:
                raise MixesChannelsError
            if self.modules(str(node.target)).weight.numel() > 1:  # type: ignore[operator, union-attr]
                self._require(node, WeightEdit(outputs=tuple(mask.indices)))
        elif math.prod(argument(node, 1, "weight", None).meta["shape"]) > 1:
            self._weights(node, weight=(0, mask.indices))
        return mask

    def _group_norm(self, node: fx.Node, source: fx.Node) -> Mask | None:
        mask = self.masks[source]
        is_module = node.op == "call_module"
        groups = self.modules(str(node.target)).num_groups if is_module else argument(node, 1, "num_groups", 1)
        if mask.axis != 1:
            self._feed_zeros(node)
            return None
        of_groups = torch.tensor(mask.kept).reshape(groups, -1)  # type: ignore[arg-type]
        if not bool((of_groups == of_groups[:, :1]).all()):
            self._feed_zeros(node)
            return None
        remaining = int(of_groups[:, 0].sum())
        if is_module:
            self._require(node, WeightEdit(outputs=tuple(mask.indices), groups=remaining))
        else:
            self._weights(node, weight=(0, mask.indices), bias=(0, mask.indices))
            if len(node.args) > 1:
                node.update_arg(1, remaining)
            else:
                node.update_kwarg("num_groups", remaining)
        return mask

    def _linear(self, node: fx.Node, source: fx.Node) -> None:
        mask = self.masks[source]
        if mask.axis != len(source.meta["shape"]) - 1 or argument(node, 0, "input", None) is not source:
            self._feed_zeros(node)
            return
        self.reads.append(Read(node, source, mask, may_be_constant=node.op == "call_module"))
        if node.op == "call_module":
            self._require(node, WeightEdit(inputs=tuple(mask.indices)))
        else:
            self._weights(node, weight=(1, mask.indices))

    def _kernel(self, node: fx.Node, source: fx.Node) -> Mask | None:
        mask, is_module, transposed = self.masks[source], node.op == "call_module", "transpose" in node.meta["function"]
        if mask.axis != 1 or argument(node, 0, "input", None) is not source:
            self._feed_zeros(node)
            return None
        groups = self.modules(str(node.target)).groups if is_module else argument(node, 6, "groups", 1)
        of_groups = torch.tensor(mask.kept).reshape(groups, -1)  # type: ignore[arg-type]
        if groups == 1:
            self.reads.append(Read(node, source, mask, may_be_constant=is_module))
            if is_module:
                self._require(node, WeightEdit(inputs=tuple(mask.indices)))
            else:
                self._weights(node, weight=(0 if transposed else 1, mask.indices))
            return None
        if not is_module or not bool((of_groups == of_groups[:, :1]).all()):
            self._feed_zeros(node)
            return None
        remaining = of_groups[:, 0]
        channels = node.meta["shape"][1]
        kept = remaining.repeat_interleave(channels // len(remaining)).tolist()
        outputs = tuple(index for index, keeps in enumerate(kept) if keeps)
        self._require(node, WeightEdit(tuple(mask.indices), outputs, int(remaining.sum())))
        return Mask(1, tuple(kept))
