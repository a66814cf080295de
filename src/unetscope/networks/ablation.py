"""Taking skips out of anybody's network: silenced at once, without retraining, or removed for good.

Both change what a join is given, above autograd, so a network can be trained with a skip silenced or removed.
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

from unetscope.activations.inference import as_input, eval_mode, unwrap_model
from unetscope.activations.tracing import function_name, trace_calls
from unetscope.base.errors import InvalidArgument, NetworkError
from unetscope.networks.skip_detection import KERNELS, PLAIN, Operand, Structure

CHECKPOINTS = torch.utils.checkpoint.__file__

How = Literal["zeros", "mean", "shuffled"]
KEEPS_CHANNELS = {"batch_norm", "instance_norm", "prelu"}  # with a weight for each channel
BETWEEN = (PLAIN - {"group_norm", "layer_norm", "softmax", "log_softmax"}) | {
    f"{how}_pool{d}d" for how in ("max", "avg", "adaptive_avg", "adaptive_max") for d in (1, 2, 3)
} | {"interpolate", "upsample", "pad"}  # fmt: skip


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
    """Within the block the network runs without what some of its skips carry: an ablation without retraining.

    how: `zeros`; `mean`, every channel at its mean over `images` (as the network is given them) and all places; `shuffled`,
    each image is given the skip of another one of its batch. The network's own tensors are not changed.

    Raises: NetworkError for a skip that there is not; InvalidArgument for a way that there is not, for `mean` without images,
    and, as it runs, for `shuffled` of a single image.

    >>> from unetscope.networks.skip_detection import inspect
    >>> from unetscope.networks.unet import UNet
    >>> model, x = UNet(2, depth=1), torch.rand(2, 3, 8, 8)
    >>> with ablated(model, inspect(model, x[:1]), "skip1"):
    ...     without = model(x)
    >>> bool((without == model(x)).all())
    False
    """
    if how not in get_args(How):
        raise InvalidArgument(f"silencing by {how!r}: expected {', '.join(get_args(How))}")
    names = [skips] if isinstance(skips, str) else list(skips)
    streams = {name: structure.merge_of(name).skips[name] for name in names}
    if how == "mean" and images is None:
        raise InvalidArgument("silencing by mean needs images to take the means of")
    means = _means(model, streams, images) if images is not None and how == "mean" else {}
    generator = torch.Generator().manual_seed(seed)

    def instead(name: str, stream: Tensor) -> Tensor:
        if how == "zeros":
            return torch.zeros_like(stream)
        if how == "mean":
            return means[name].to(stream).expand_as(stream)
        if len(stream) < 2:
            raise InvalidArgument("silencing by shuffled needs two images or more in a batch")
        return stream[_elsewhere(len(stream), generator).to(stream.device)]

    with _replacing(unwrap_model(model), streams, instead):
        yield model


def _elsewhere(n: int, generator: torch.Generator) -> Tensor:
    """An order in which nothing stands where it stood: a random cycle through all."""
    order = torch.randperm(n, generator=generator)
    found = torch.empty_like(order)
    found[order] = order.roll(1)
    return found


def _means(model: nn.Module, streams: Mapping[str, Operand], images: Tensor) -> dict[str, Tensor]:
    """The mean of each channel of each stream over images and places, [1, channels, 1, ...]."""
    found: dict[str, Tensor] = {}

    def note(name: str, stream: Tensor) -> Tensor:
        places = [axis for axis in range(stream.ndim) if axis != 1]
        found[name] = stream.double().mean(dim=places, keepdim=True)
        return stream

    with eval_mode(model), _replacing(unwrap_model(model), streams, note):
        model(as_input(model, images))
    return found


@contextmanager
def _replacing(
    model: nn.Module, streams: Mapping[str, Operand], instead: Callable[[str, Tensor], Tensor]
) -> Iterator[None]:
    """Give the join of each stream `instead(name, stream)` in its place."""
    at = {stream.path[0]: name for name, stream in streams.items()}
    calls = {address for address, _ in at}

    def see(address: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if address not in calls:
            return function(*args, **kwargs)
        _refuse_checkpointed(address, model)
        place = -1

        def changed(value: Any) -> Any:
            nonlocal place
            if not isinstance(value, Tensor):
                return value
            place += 1
            name = at.get((address, place))
            return value if name is None else instead(name, value)

        args = tuple([changed(one) for one in arg] if isinstance(arg, list | tuple) else changed(arg) for arg in args)
        kwargs = {
            key: [changed(one) for one in arg] if isinstance(arg, list | tuple) else changed(arg)
            for key, arg in kwargs.items()
        }
        return function(*args, **kwargs)

    with trace_calls(model, see):
        yield


def _refuse_checkpointed(address: str, network: nn.Module) -> None:
    """An activation checkpoint computes its part again when gradients are: out of our sight, with the skip.

    Raises: NetworkError for a join within one, where there will be gradients.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == CHECKPOINTS:
            reentrant = frame.f_code.co_name == "forward" and network.training  # it turns gradients off meanwhile
            if torch.is_grad_enabled() or reentrant:
                raise NetworkError(
                    f"the join at {address} is in an activation checkpoint, whose gradients would be those of the network "
                    "with the skip: turn checkpointing off"
                )
        frame = frame.f_back


def without_skips(model: nn.Module, structure: Structure, skips: str | Collection[str]) -> Rewired:
    """A copy of a network that does not join some of its skips any more, and has no weights for them: to be trained, or
    carried on.

    Where a skip was concatenated, whatever reads the concatenation keeps the weights that read the other streams; a sum goes on
    without it. A network with the skip silenced by zeros is the same network, but for the edges and the statistics of
    normalisations in between.

    Raises: NetworkError for a skip that there is not, or whose channels cannot be followed to a convolution.

    >>> from unetscope.networks.skip_detection import inspect
    >>> from unetscope.networks.unet import UNet
    >>> whole, x = UNet(2, depth=2), torch.rand(1, 3, 16, 16)
    >>> smaller = without_skips(whole, inspect(whole, x), ["skip1"])
    >>> [sum(p.numel() for p in one.parameters()) for one in (whole, smaller, UNet(2, depth=2, without=["skip1"]))]
    [1919, 1883, 1883]
    """
    names = [skips] if isinstance(skips, str) else list(dict.fromkeys(skips))
    streams = {name: (merge := structure.merge_of(name), merge.skips[name]) for name in names}
    network = copy.deepcopy(unwrap_model(model))
    lost: dict[int, set[int]] = {}  # by number of the joined tensor, its channels that go
    for merge, stream in streams.values():
        lost.setdefault(merge.node, set())
        if merge.kind == "cat":
            lost[merge.node] |= set(_channels(structure, stream))
    with torch.no_grad():
        for number, channels in lost.items():
            if channels:
                whole = structure.graph[number].shape[1]
                kept = [channel for channel in range(whole) if channel not in channels]
                _shrink(network, structure, number, torch.tensor(kept))
    return Rewired(network, [stream.path[0] for _, stream in streams.values()])


class Rewired(nn.Module):
    """A network some of whose joins leave streams out: `network` is the module itself, with the weights that are left."""

    def __init__(self, network: nn.Module, left_out: Collection[tuple[str, int]]) -> None:
        super().__init__()
        self.network = network
        self.left_out = frozenset(left_out)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As of the network itself."""
        with trace_calls(self.network, self._leave_out):
            return self.network(*args, **kwargs)

    def _leave_out(
        self, address: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        gone = {place for where, place in self.left_out if where == address}
        if not gone:
            return function(*args, **kwargs)
        _refuse_checkpointed(address, self.network)
        tensors = [one for one in tree_iter((args, dict(kwargs))) if isinstance(one, Tensor)]
        left = [one for place, one in enumerate(tensors) if place not in gone]
        if function_name(function) in {"cat", "stack"} and left:
            return function(left, kwargs.get("dim", args[1] if len(args) > 1 else 0))
        if function_name(function) == "cat":  # all of it goes
            return tensors[0][:, :0]
        shape = torch.broadcast_shapes(*(one.shape for one in tensors))  # of a sum, a product or a maximum of two
        if not left:
            return torch.zeros(shape, dtype=tensors[0].dtype, device=tensors[0].device)
        return (-left[0] if function_name(function) == "sub" and gone == {0} else left[0]).expand(shape)


def _channels(structure: Structure, stream: Operand) -> range:
    """Which channels of the joined tensor a stream has."""
    by_address = {node.address: node for node in structure.graph.nodes}
    start = 0
    for address, place in stream.path:
        node = by_address[address]
        before = node.inputs[: node.positions.index(place)]
        start += sum(structure.graph[number].shape[1] for number in before)
    return range(start, start + structure.graph[stream.tensor].shape[1])


def _shrink(network: nn.Module, structure: Structure, number: int, kept: Tensor) -> None:
    """Take from whatever reads a tensor the weights for channels that are not kept."""
    for consumer in structure.graph.consumers[number]:
        node = structure.graph[consumer]
        owner = node.weights[0].rpartition(".")[0] if node.weights else ""
        module = network.get_submodule(owner)
        if node.name in KERNELS and isinstance(module, nn.modules.conv._ConvNd):
            _refuse_shared(structure, consumer, module)
            transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
            if module.groups == 1:
                module.weight = _like(module.weight, module.weight[kept] if transposed else module.weight[:, kept])
                module.in_channels = len(kept)
                continue
            if module.groups == module.in_channels == module.out_channels and not transposed:  # each channel by itself
                module.weight = _like(module.weight, module.weight[kept])
                if module.bias is not None:
                    module.bias = _like(module.bias, module.bias[kept])
                module.in_channels = module.out_channels = module.groups = len(kept)
                _shrink(network, structure, consumer, kept)
                continue
        elif node.name in BETWEEN:
            if node.name in KEEPS_CHANNELS and node.weights:
                _keep(module, kept)
            _shrink(network, structure, consumer, kept)
            continue
        raise NetworkError(
            f"what is joined at {structure.graph[number].place} goes through {node.name} ({node.place}), "
            "so no skip can be removed from it: silence it instead"
        )


def _like(before: Tensor, values: Tensor) -> nn.Parameter:
    """A parameter that is trained if the one before was."""
    return nn.Parameter(values.clone(), requires_grad=before.requires_grad)


def _refuse_shared(structure: Structure, number: int, module: nn.Module) -> None:
    """A module whose weights are made of others, or that is called twice, cannot lose channels for one of its calls."""
    node = structure.graph[number]
    calls = [other for other in structure.graph.nodes if other.weights and other.weights == node.weights]
    why = "is called more than once" if len(calls) > 1 else "has weights that are made of others (a parametrisation)"
    if len(calls) > 1 or "weight" not in dict(module.named_parameters(recurse=False)):
        raise NetworkError(f"{node.place} {why}, so no skip can be removed before it: silence it instead")


def _keep(module: nn.Module, kept: Tensor) -> None:
    """Of a normalisation or an activation with weights, those of some channels."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        if parameter.numel() > 1:
            setattr(module, name, _like(parameter, parameter[kept]))
    for name, buffer in list(module.named_buffers(recurse=False)):
        if buffer.numel() > 1:
            setattr(module, name, buffer[kept])
    if hasattr(module, "num_features"):
        setattr(module, "num_features", len(kept))  # noqa: B010 (mypy takes every attribute for a module)
