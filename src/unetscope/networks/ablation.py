"""Ablate the skips of any network while it runs, or remove them for good.

Ablation replaces what a skip carries, above autograd, so that an ablated network can be trained. Removal makes a copy without
the joins and without the weights that read them.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal, get_args

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from unetscope.activations import as_input, eval_mode, function_name, trace_calls, unwrap_model
from unetscope.base import InvalidArgument, NetworkError
from unetscope.networks.structure import KERNELS, WITHIN_LAYER, Operand, Structure

CHECKPOINT_FILE = torch.utils.checkpoint.__file__

How = Literal["zeros", "mean", "shuffled"]

HAS_CHANNEL_WEIGHTS = {"batch_norm", "instance_norm", "prelu"}  # with a weight for each channel

# Functions between a join and the convolution that reads it, which treat each channel by itself.
CHANNELWISE = (WITHIN_LAYER - {"group_norm", "layer_norm", "softmax", "log_softmax"}) | {
    f"{how}_pool{d}d" for how in ("max", "avg", "adaptive_avg", "adaptive_max") for d in (1, 2, 3)
} | {"interpolate", "upsample", "pad"}  # fmt: skip

# Functions that can be computed without one of their streams.
REMOVABLE = {"cat", "stack", "add", "sum", "sub", "mul", "maximum"}


@contextmanager
def ablated(
    model: nn.Module,
    structure: Structure,
    skips: str | Collection[str],
    how: How = "zeros",
    *,
    images: Tensor | None = None,
    seed: int = 0,
) -> Iterator[nn.Module]:
    """Within the block, the network runs without what some of its skips carry.

    how: `zeros`; `mean`, each channel at its mean over `images` (as the network's input) and all places; `shuffled`, each
    image gets the skip of another image of its batch. The network's own tensors are not changed.

    Raises: NetworkError for an unknown skip; InvalidArgument for an unknown `how`, for `mean` without images and, when the
    network runs, for `shuffled` with a single image.

    >>> from unetscope.networks.inspection import inspect
    >>> from unetscope.networks.unet import UNet
    >>> model, x = UNet(2, depth=1), torch.rand(2, 3, 8, 8)
    >>> with ablated(model, inspect(model, x[:1]), "skip1"):
    ...     without = model(x)
    >>> bool((without == model(x)).all())
    False
    """
    if how not in get_args(How):
        raise InvalidArgument(f"ablating by {how!r}: expected {', '.join(get_args(How))}")
    names = [skips] if isinstance(skips, str) else list(skips)
    streams = {name: structure.merge_of(name).skips[name] for name in names}
    if how == "mean" and images is None:
        raise InvalidArgument("ablating by mean needs images to take the means of")
    means = _means(model, streams, images) if images is not None and how == "mean" else {}
    generator = torch.Generator().manual_seed(seed)

    def replacement(name: str, stream: Tensor) -> Tensor:
        if how == "zeros":
            return torch.zeros_like(stream)
        if how == "mean":
            return means[name].to(stream).expand_as(stream)
        if len(stream) < 2:
            raise InvalidArgument("ablating by shuffled needs two images or more in a batch")
        return stream[_derangement(len(stream), generator).to(stream.device)]

    with _replace_streams(unwrap_model(model), streams, replacement):
        yield model


def _derangement(n: int, generator: torch.Generator) -> Tensor:
    """A random cycle through n rows, so that no row keeps its place."""
    order = torch.randperm(n, generator=generator)
    cycle = torch.empty_like(order)
    cycle[order] = order.roll(1)
    return cycle


def _means(model: nn.Module, streams: Mapping[str, Operand], images: Tensor) -> dict[str, Tensor]:
    """The mean of each channel of each stream over images and places, [1, channels, 1, ...]."""
    means: dict[str, Tensor] = {}

    def record_mean(name: str, stream: Tensor) -> Tensor:
        axes = [axis for axis in range(stream.ndim) if axis != 1]
        means[name] = stream.double().mean(dim=axes, keepdim=True)
        return stream

    with eval_mode(model), _replace_streams(unwrap_model(model), streams, record_mean):
        model(as_input(model, images))
    return means


@contextmanager
def _replace_streams(
    model: nn.Module, streams: Mapping[str, Operand], replacement: Callable[[str, Tensor], Tensor]
) -> Iterator[None]:
    """Within the block, the join of each stream gets `replacement(name, stream)` instead of the stream."""
    names = {stream.path[0]: name for name, stream in streams.items()}
    addresses = {address for address, _ in names}

    def intercept(address: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if address not in addresses:
            return function(*args, **kwargs)
        refuse_checkpointed(address, model)
        position = -1  # among the tensor arguments

        def replace(value: Any) -> Any:
            nonlocal position
            if isinstance(value, list | tuple):
                return [replace(item) for item in value]
            if not isinstance(value, Tensor):
                return value
            position += 1
            name = names.get((address, position))
            return value if name is None else replacement(name, value)

        # A loop over positional arguments first, since `Operand.path` counts tensors in that order.
        new_args = [replace(value) for value in args]
        return function(*new_args, **{key: replace(value) for key, value in kwargs.items()})

    with trace_calls(model, intercept):
        yield


def refuse_checkpointed(address: str, network: nn.Module) -> None:
    """Refuse a join within an activation checkpoint if gradients are needed.

    The checkpoint recomputes the join in the backward pass, outside the trace, and so with the skip.
    Raises: NetworkError.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == CHECKPOINT_FILE:
            # The reentrant checkpoint turns gradients off in its forward pass.
            reentrant = frame.f_code.co_name == "forward" and network.training
            if torch.is_grad_enabled() or reentrant:
                raise NetworkError(
                    f"the join at {address} is in an activation checkpoint, whose gradients would be those of the network "
                    "with the skip: turn checkpointing off"
                )
        frame = frame.f_back


def without_skips(model: nn.Module, structure: Structure, skips: str | Collection[str]) -> Rewired:
    """A copy of a network without some of its skips and without the weights that read them, to train or to fine-tune.

    Where a skip was concatenated, whatever reads the concatenation keeps the weights that read the other streams; a sum is
    computed without it. The copy equals the network with the skip ablated by zeros, except at the edges and in the statistics
    of normalisations in between.

    Raises: NetworkError for an unknown skip, or for one whose channels cannot be followed to a convolution.

    >>> from unetscope.networks.inspection import inspect
    >>> from unetscope.networks.unet import UNet
    >>> model, x = UNet(2, depth=2), torch.rand(1, 3, 16, 16)
    >>> smaller = without_skips(model, inspect(model, x), ["skip1"])
    >>> networks = model, smaller, UNet(2, depth=2, without=["skip1"])
    >>> [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    [1919, 1883, 1883]
    """
    names = [skips] if isinstance(skips, str) else list(dict.fromkeys(skips))
    streams = [(merge, merge.skips[name]) for name in names for merge in [structure.merge_of(name)]]
    for name, (merge, _) in zip(names, streams, strict=True):
        if (function := structure.graph[merge.node].name) not in REMOVABLE:
            raise NetworkError(
                f"{name} joins by {function} ({merge.address}), which it cannot be taken out of: ablate it instead"
            )
    network = copy.deepcopy(unwrap_model(model))
    removed: dict[int, set[int]] = {}  # by number of a concatenation, its channels to remove
    for merge, stream in streams:
        if merge.kind == "cat" and (channels := _channels(structure, stream)):
            removed.setdefault(merge.node, set()).update(channels)
    with torch.no_grad():
        for number, unread in removed.items():
            kept = [channel for channel in range(structure.graph[number].shape[1]) if channel not in unread]
            _remove_channels(network, structure, number, torch.tensor(kept))
    return Rewired(network, [stream.path[0] for _, stream in streams])


class Rewired(nn.Module):
    """A network some of whose joins leave streams out. network: the module itself, with the weights that are left.

    left_out: each stream as the address of its join and its position among the tensor arguments.
    """

    def __init__(self, network: nn.Module, left_out: Collection[tuple[str, int]]) -> None:
        super().__init__()
        self.network = network
        self.left_out = frozenset(left_out)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's output."""
        with trace_calls(self.network, self._leave_out):
            return self.network(*args, **kwargs)

    def _leave_out(
        self, address: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        positions = {position for join, position in self.left_out if join == address}
        if not positions:
            return function(*args, **kwargs)
        refuse_checkpointed(address, self.network)
        name = function_name(function)
        tensors = [value for value in tree_iter((args, dict(kwargs))) if isinstance(value, Tensor)]
        kept = [tensor for position, tensor in enumerate(tensors) if position not in positions]
        if name in {"cat", "stack"} and kept:
            return function(kept, kwargs.get("dim", args[1] if len(args) > 1 else 0))
        if name == "cat":  # of no channels
            return tensors[0][:, :0]
        # A sum, difference, product or maximum of two tensors.
        shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
        if not kept:
            return torch.zeros(shape, dtype=tensors[0].dtype, device=tensors[0].device)
        return (-kept[0] if name == "sub" and positions == {0} else kept[0]).expand(shape)


def _channels(structure: Structure, stream: Operand) -> range:
    """The channels of a stream within the tensor that joins it."""
    nodes = {node.address: node for node in structure.graph.nodes}
    start = 0
    for address, position in stream.path:
        node = nodes[address]
        before = node.inputs[: node.positions.index(position)]
        start += sum(structure.graph[number].shape[1] for number in before)
    return range(start, start + structure.graph[stream.tensor].shape[1])


def _remove_channels(network: nn.Module, structure: Structure, number: int, kept: Tensor) -> None:
    """Remove, from every module that reads a tensor, the weights of channels that are not kept.

    Raises: NetworkError if the tensor reaches a function that mixes channels before a convolution reads it.
    """
    for consumer in structure.graph.consumers[number]:
        node = structure.graph[consumer]
        module = network.get_submodule(node.weights[0].rpartition(".")[0] if node.weights else "")
        if node.name in CHANNELWISE:
            if node.name in HAS_CHANNEL_WEIGHTS and node.weights:
                _keep_channels(module, kept)
            _remove_channels(network, structure, consumer, kept)
            continue
        if node.name in KERNELS and isinstance(module, nn.modules.conv._ConvNd):
            _refuse_shared(structure, consumer, module)
            transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
            if module.groups == 1:
                weight = module.weight[kept] if transposed else module.weight[:, kept]
                module.weight = _like(module.weight, weight)
                module.in_channels = len(kept)
                continue
            if module.groups == module.in_channels == module.out_channels and not transposed:  # depthwise
                module.weight = _like(module.weight, module.weight[kept])
                if module.bias is not None:
                    module.bias = _like(module.bias, module.bias[kept])
                module.in_channels = module.out_channels = module.groups = len(kept)
                _remove_channels(network, structure, consumer, kept)
                continue
        raise NetworkError(
            f"what is joined at {structure.graph[number].place} goes through {node.name} ({node.place}), "
            "so no skip can be removed from it: ablate it instead"
        )


def _like(parameter: Tensor, values: Tensor) -> nn.Parameter:
    """A parameter of these values, trained if the given one is."""
    return nn.Parameter(values.clone(), requires_grad=parameter.requires_grad)


def _refuse_shared(structure: Structure, number: int, module: nn.Module) -> None:
    """Refuse a module that is called twice or whose weight is computed: it cannot lose channels for one of its calls.

    Raises: NetworkError.
    """
    node = structure.graph[number]
    calls = sum(bool(call.weights) and call.weights == node.weights for call in structure.graph.nodes)
    reason = "is called more than once" if calls > 1 else "has weights that are made of others (a parametrisation)"
    if calls > 1 or "weight" not in dict(module.named_parameters(recurse=False)):
        raise NetworkError(f"{node.place} {reason}, so no skip can be removed before it: ablate it instead")


def _keep_channels(module: nn.Module, kept: Tensor) -> None:
    """Keep, of a normalisation or an activation with weights, those of some channels."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        if parameter.numel() > 1:
            setattr(module, name, _like(parameter, parameter[kept]))
    for name, buffer in list(module.named_buffers(recurse=False)):
        if buffer.numel() > 1:
            setattr(module, name, buffer[kept])
    if hasattr(module, "num_features"):
        setattr(module, "num_features", len(kept))  # noqa: B010 (mypy takes every attribute for a module)
