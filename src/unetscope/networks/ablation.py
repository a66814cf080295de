"""Ablate skips and levels of any network while it runs: replace what they carry, above autograd, so it can be trained so."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Literal, get_args

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from unetscope.activations import as_input, eval_mode, trace_calls, unwrap_model
from unetscope.base import InvalidArgument, NetworkError
from unetscope.networks.structure import IN_PLACE, Operand, Structure

CHECKPOINT_FILE = torch.utils.checkpoint.__file__

How = Literal["zeros", "mean", "shuffled"]


@contextmanager
def ablated(
    model: nn.Module,
    structure: Structure,
    parts: str | Collection[str],
    how: How = "zeros",
    *,
    images: Tensor | None = None,
    seed: int = 0,
) -> Iterator[nn.Module]:
    """Within the block, the network runs without what some of its skips, or the upsampled paths of some of its levels, carry.

    how: `zeros`; `mean`, each channel at its mean over `images` (as the network's input) and all places; `shuffled`, each
    image gets the stream of another image of its batch. The network's own tensors are not changed.

    Raises: NetworkError for an unknown part; InvalidArgument for an unknown `how`, for `mean` without images and, when the
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
    names = [parts] if isinstance(parts, str) else list(parts)
    streams = {name: structure.stream_of(name) for name in names}
    if how == "mean" and images is None:
        raise InvalidArgument("ablating by mean needs images to take the means of")
    means = _means(model, streams, images) if images is not None and how == "mean" else {}
    generator = torch.Generator().manual_seed(seed)

    def replacement(name: str, stream: Tensor) -> Tensor:
        if how == "zeros":
            return zeros_of(stream)
        if how == "mean":
            return means[name].to(stream).expand_as(stream)
        if len(stream) < 2:
            raise InvalidArgument("ablating by shuffled needs two images or more in a batch")
        return stream[_derangement(len(stream), generator).to(stream.device)]

    with replace_streams(unwrap_model(model), streams, replacement):
        yield model


def zeros_of(stream: Tensor) -> Tensor:
    """Zeros of the shape and type of a stream, be it quantised."""
    if not stream.is_quantized:
        return torch.zeros_like(stream)
    return torch.quantize_per_tensor(torch.zeros(stream.shape), stream.q_scale(), stream.q_zero_point(), stream.dtype)


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

    with eval_mode(model), replace_streams(unwrap_model(model), streams, record_mean):
        model(as_input(model, images))
    return means


@contextmanager
def replace_streams(
    model: nn.Module,
    streams: Mapping[str, Operand],
    replacement: Callable[[str, Tensor], Tensor],
    *,
    gradients: bool = True,
) -> Iterator[None]:
    """Within the block, the join of each stream gets `replacement(name, stream)` instead of the stream.

    gradients: whether there may be a backward pass, so that joins in activation checkpoints are refused.

    Raises: NetworkError for a stream that is written into in place and, when the network runs, for a join that does not.
    """
    _refuse_written(streams)
    names = {entry: name for name, stream in streams.items() for entry in stream.entries}
    addresses = {address for address, _ in names}

    def intercept(address: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if address not in addresses:
            return function(*args, **kwargs)
        missing.discard(address)
        if gradients:
            refuse_checkpointed(address, model)
        position = -1  # among the tensor arguments
        replaced: list[tuple[Tensor, Tensor, int]] = []

        def replace(value: Any) -> Any:
            nonlocal position
            if isinstance(value, list | tuple):
                items = [replace(item) for item in value]
                return items if isinstance(value, list) else tuple(items)  # an index in a list is another index
            if not isinstance(value, Tensor):
                return value
            position += 1
            if (name := names.get((address, position))) is None:
                return value
            stand_in = replacement(name, value)
            if stand_in is not value:
                replaced.append((value, stand_in, stand_in._version))
            return stand_in

        # A loop over positional arguments first, since `Operand.path` counts tensors in that order.
        new_args = [replace(value) for value in args]
        result = function(*new_args, **{key: replace(value) for key, value in kwargs.items()})
        for value, stand_in, version in replaced:
            if stand_in._version != version:  # what the call wrote in place is read as the stream later
                value.copy_(stand_in)
                result = value if result is stand_in else result
        return result

    with trace_calls(model, intercept), _every_join_runs(model, addresses) as missing:
        yield


@contextmanager
def _every_join_runs(model: nn.Module, addresses: Collection[str]) -> Iterator[set[str]]:
    """Within the block a pass in which a join does not run raises NetworkError. It yields the joins that have not run yet."""
    missing: set[str] = set()

    def begin(_module: nn.Module, _inputs: Any) -> None:
        missing.update(addresses)

    def end(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        if missing:
            mode = "training" if model.training else "evaluation"
            raise NetworkError(
                f"the join at {', '.join(sorted(missing))} did not run in this pass in {mode} mode, so that nothing is ablated "
                "there: inspect the network as it runs"
            )

    with ExitStack() as stack:
        stack.callback(model.register_forward_pre_hook(begin).remove)
        stack.callback(model.register_forward_hook(end).remove)
        yield missing


def _refuse_written(streams: Mapping[str, Operand]) -> None:
    """Refuse a stream that enters its join by being written into. Raises: NetworkError."""
    for name, stream in streams.items():
        address, position = stream.path[0]
        if position == IN_PLACE:
            raise NetworkError(
                f"what {name} carries is written into in place at {address}, so that nothing can stand in for it there: write "
                "into a copy of it (clone)"
            )


def refuse_checkpointed(address: str, network: nn.Module) -> None:
    """Refuse a join within an activation checkpoint if gradients are needed.

    The checkpoint recomputes the join in the backward pass, outside the trace, and so with the skip.
    Raises: NetworkError.
    """
    if (checkpoint := checkpoint_call()) is None:
        return
    # The reentrant checkpoint turns gradients off in its forward pass.
    reentrant = checkpoint == "forward" and network.training
    if torch.is_grad_enabled() or reentrant:
        raise NetworkError(
            f"the join at {address} is in an activation checkpoint, whose gradients would be those of the network "
            "with the skip: turn checkpointing off"
        )


def checkpoint_call() -> str | None:
    """The function of an activation checkpoint within which the caller runs, None outside of one."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == CHECKPOINT_FILE:
            return frame.f_code.co_name
        frame = frame.f_back
    return None
