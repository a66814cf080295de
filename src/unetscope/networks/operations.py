"""Kinds of torch functions, by the names that `activations.tracing` gives their calls."""

from __future__ import annotations

from typing import Literal

JoinKind = Literal["cat", "add", "sub", "mul", "max"]

# Functions that have the weights of a convolution: each makes a layer.
KERNELS = {f"conv{way}{d}d" for way in ("", "_transpose") for d in (1, 2, 3)}

# Functions made for upsampling. "module" stands for a module whose calls cannot be seen.
RESAMPLING = {
    *(f"conv_transpose{d}d" for d in (1, 2, 3)),
    *(f"max_unpool{d}d" for d in (1, 2, 3)),
    "interpolate", "upsample", "upsample_nearest", "upsample_bilinear", "pixel_shuffle", "grid_sample", "fold",
    "repeat_interleave", "module",
}  # fmt: skip

# Functions that keep every value and change the axes at most ("get" reads an attribute such as `x.T`).
RESHAPING = {
    "view", "reshape", "permute", "transpose", "movedim", "moveaxis", "contiguous", "clone", "flatten", "unflatten", "swapaxes",
    "squeeze", "unsqueeze", "expand", "get", "detach",
}  # fmt: skip

# Functions that move values without computing with them.
REARRANGING = {
    *RESHAPING, "getitem", "pad", "roll", "split", "chunk", "unbind", "cat", "stack", "repeat", "tile", "narrow",
}  # fmt: skip

# Functions whose result is used as a weight between 0 and 1 (or -1 and 1).
GATES = {"sigmoid", "hardsigmoid", "softmax", "tanh"}

# Functions that can reduce an image to a few places.
POOLING = {f"adaptive_{how}_pool{d}d" for how in ("avg", "max") for d in (1, 2, 3)} | {"mean", "amax"}

# Functions that bring several tensors together place by place.
JOINS: dict[str, JoinKind] = {"cat": "cat", "add": "add", "sum": "add", "sub": "sub", "mul": "mul", "maximum": "max"}

# Functions that belong to the layer of the kernel before them: normalisation, activation, dropout, casts.
WITHIN_LAYER = {
    "batch_norm", "instance_norm", "group_norm", "layer_norm", "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu",
    "celu", "gelu", "silu", "mish", "hardtanh", "hardswish", "hardsigmoid", "softplus", "sigmoid", "tanh", "softmax",
    "log_softmax", "dropout", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "contiguous", "to", "float", "type",
    "clone", "clamp",
}  # fmt: skip
