"""Stream chosen layers of a frozen network, leaving it as it was.

An exact distance between images needs one layer of all images at once, never all layers: `stream` runs as many forward
passes as it is given, keeps in each only the slices of the activations that this pass is for, and hands them over.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unetscope.activations.activation_buffer import ActivationBuffer
from unetscope.activations.distributed import all_reduce, own_share
from unetscope.activations.inference import as_input, device_of, eval_mode
from unetscope.activations.memory_budget import Passes, Slice
from unetscope.activations.tracing import INPUT, is_address, trace_calls
from unetscope.base.errors import NetworkError, nearest
from unetscope.table.records import Layer


@dataclass(frozen=True)
class Block:
    """The activations of all n images in one slice, [n, stop - start], float32, on the network's device.

    The values of an image stand in the order in which the network keeps them (channels first or last), the same for all.
    """

    slice: Slice
    values: Float[Tensor, "n width"]


class _AllSeen(BaseException):
    """Ends a forward pass once its last wanted layer has been seen; no network's `except Exception` can swallow it."""


def with_shapes(model: nn.Module, layers: Sequence[Layer], example: Tensor) -> tuple[Layer, ...]:
    """The layers with the shape that one image's activation has in each, from one pass of `example` [1, ...].

    Raises: NetworkError if a module does not exist (with the nearest names), does not run, runs more than once, does not
    give one tensor, or if two layers share a label.
    """
    _check_labels(layers)
    captured = [layer for layer in layers if not layer.parts]
    shapes: dict[str, tuple[int, ...]] = {}

    def note(layer: Layer, activation: Tensor) -> None:
        if layer.label in shapes:
            raise NetworkError(
                f"layer {layer.label}: module {layer.module!r} runs more than once in a forward pass; "
                "name modules that run once each"
            )
        shapes[layer.label] = tuple(activation.shape[1:])

    with eval_mode(model), _hooked(model, captured, note):
        model(as_input(model, example))
    for layer in captured:
        if layer.label not in shapes:
            what = "call {!r} was not made" if is_address(layer.module) else "module {!r} did not run"
            raise NetworkError(f"layer {layer.label}: {what.format(layer.module)} in the forward pass")
    parts = {layer.label: layer.parts for layer in layers}

    def shape_of(label: str) -> tuple[int, ...]:
        if not parts[label]:
            return shapes[label]
        channels, *sides = zip(*(shape_of(part) for part in parts[label]), strict=True)
        return (sum(channels), *(side[0] for side in sides))

    return tuple(replace(layer, shape=shape_of(layer.label)) for layer in layers)


def forward_bytes(model: nn.Module, example: Tensor) -> int:
    """What one image, `example` [1, ...], takes inside the network at most: twice the outputs of modules that live at a time.

    Twice, because a convolution may keep a copy in another order, and functions between modules are not seen.
    """
    outputs: list[weakref.ref[Tensor]] = []
    most = 0

    def note(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal most
        if isinstance(output, Tensor):
            outputs.append(weakref.ref(output))
        alive = [tensor.untyped_storage() for reference in outputs if (tensor := reference()) is not None]
        most = max(most, sum({storage.data_ptr(): storage.nbytes() for storage in alive}.values()))

    with eval_mode(model), ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_hook(note).remove)
        model(as_input(model, example))
    return 2 * most


def stream(
    model: nn.Module,
    images: Tensor,
    passes: Passes,
    *,
    batch_size: int,
    activation_buffer: ActivationBuffer | None = None,
    prepare: Callable[[Tensor], Tensor] | None = None,
    share: bool = False,
    on_batch: Callable[[int, int], None] | None = None,
) -> Iterator[Block]:
    """Activations for all images, slice by slice, in the order of the passes, each of which is one run of the network.

    images: [n, channels, height, width]; `prepare` turns a batch of them into what the network reads (by default, they
    are taken as they are). passes: from `memory_budget`. activation_buffer: memory for the values of a pass; those of a
    block are overwritten by the next pass. share: every process of a group runs the network on its share of the images, and
    is given the activations of all.

    The network runs in evaluation mode, in the float type of its weights (float32 is never rounded to fewer digits), without
    gradients; activations are kept in float32. A pass ends after the last layer that it needs. Modes, gradients, buffers
    and random state are as before after every pass, also if it fails. on_batch is told (batches done, batches in all).

    Raises: NetworkError if a layer does not give one activation an image.
    """
    n = len(images)
    activation_buffer = activation_buffer or ActivationBuffer(device_of(model))
    every = torch.arange(n).split(batch_size)
    batches = own_share(every) if share else every
    region = activation_buffer.take(
        n * max((sum(part.stop - part.start for part in slices) for slices in passes), default=0)
    )

    def told(done: int) -> None:
        if on_batch is not None:
            on_batch(number * len(batches) + done, len(passes) * len(batches))

    for number, slices in enumerate(passes):  # noqa: B007 told() reads it
        kept = _Kept(slices, region, n)
        if share:
            kept.whole.zero_()
        layers = [part.layer for part in slices]
        visit(model, images, layers, kept.receive, batches=batches, prepare=prepare, on_batch=told)
        if share:
            all_reduce(kept.whole)  # each image is zero but in one process
        yield from map(Block, slices, kept.buffers)


class _Kept:
    """The slices of one pass, written into a region of memory as the activations appear."""

    def __init__(self, slices: Sequence[Slice], region: Tensor, n: int) -> None:
        sizes = [n * (part.stop - part.start) for part in slices]
        self.whole = region[: sum(sizes)]
        self.buffers = [values.view(n, -1) for values in self.whole.split(sizes)]
        self._places = {part.layer.label: (part, buffer) for part, buffer in zip(slices, self.buffers, strict=True)}
        self._channels_last: dict[str, bool] = {}

    def receive(self, rows: Tensor, layer: Layer, activation: Tensor) -> None:
        part, buffer = self._places[layer.label]
        if self._channels_last.setdefault(layer.label, _is_channels_last(activation)):
            activation = activation.movedim(1, -1)
        first, count = int(rows[0]), len(rows)
        buffer[first : first + count] = activation.reshape(count, -1)[:, part.start : part.stop]


def visit(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[Layer],
    receive: Callable[[Tensor, Layer, Tensor], None],
    *,
    batches: Sequence[Tensor],
    prepare: Callable[[Tensor], Tensor] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> None:
    """Show whole activations to `receive(rows, layer, activation)` as they appear, and keep none.

    batches: the rows of `images` that run through the network together, as indices. `receive` sees an activation before
    whatever comes next may overwrite it. A batch ends after the last of the layers. The network runs as in `stream`,
    whose other arguments these are; on_batch is told the number of batches done.

    Raises: NetworkError if a layer does not give one activation an image.
    """
    seen, rows = 0, torch.arange(0)

    def show(layer: Layer, activation: Tensor) -> None:
        nonlocal seen
        if activation.shape != (len(rows), *layer.shape):
            raise NetworkError(
                f"layer {layer.label}: module {layer.module!r} gives {list(activation.shape)} for {len(rows)} images, "
                f"expected {[len(rows), *layer.shape]}: one activation an image, all of one shape"
            )
        receive(rows, layer, activation)
        seen += 1
        if seen == len(layers):
            raise _AllSeen

    with eval_mode(model), _hooked(model, layers, show):
        for done, rows in enumerate(batches, start=1):
            seen = 0
            batch = images[rows]
            with suppress(_AllSeen):
                model(as_input(model, batch if prepare is None else prepare(batch)))
                raise NetworkError(
                    f"only {seen} of the layers {', '.join(layer.label for layer in layers)} ran for "
                    f"images {int(rows[0])} to {int(rows[-1])}: a layer must run for every image"
                )
            if on_batch is not None:
                on_batch(done)


def _is_channels_last(tensor: Tensor) -> bool:
    """Whether the channels of an image (or volume) are what stands together in memory, so that moving them costs nothing."""
    return tensor.ndim > 3 and not tensor.is_contiguous() and tensor.movedim(1, -1).is_contiguous()


@contextmanager
def _hooked(model: nn.Module, layers: Sequence[Layer], receive: Callable[[Layer, Tensor], None]) -> Iterator[None]:
    """Call `receive(layer, activation)` whenever a layer's module has run, or its call has been made."""
    modules = dict(model.named_modules())
    calls = {layer.module: layer for layer in layers if is_address(layer.module)}

    def told(layer: Layer, output: object) -> None:
        if not isinstance(output, Tensor):
            raise NetworkError(
                f"layer {layer.label}: module {layer.module!r} gives a {type(output).__name__}, expected one tensor; "
                "name a module inside it"
            )
        with torch._C.DisableTorchFunction():  # what is made of it is no call of the network
            receive(layer, output)

    def see(address: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        result = function(*args, **kwargs)
        if address in calls:
            told(calls[address], result)
        return result

    with ExitStack() as stack:
        for layer in layers:
            if layer.module in calls:
                continue
            if layer.module not in modules:
                raise NetworkError(_no_such_module(layer, modules))
            stack.callback(
                modules[layer.module]
                .register_forward_hook(lambda _m, _i, output, layer=layer: told(layer, output))
                .remove
            )
        if whole := calls.pop(INPUT, None):
            stack.callback(model.register_forward_pre_hook(lambda _m, inputs: told(whole, inputs[0])).remove)
        if calls:
            stack.enter_context(trace_calls(model, see))
        yield


def _no_such_module(layer: Layer, modules: Mapping[str, nn.Module]) -> str:
    return f"layer {layer.label}: the network has no module {layer.module!r}; {nearest(layer.module, filter(None, modules))}"


def _check_labels(layers: Sequence[Layer]) -> None:
    counts = Counter(layer.label for layer in layers)
    if repeated := [label for label, count in counts.items() if count > 1]:
        raise NetworkError(f"layer {repeated[0]} is named {counts[repeated[0]]} times; give each layer its own label")
    for layer in layers:
        if missing := [part for part in layer.parts if part not in counts]:
            raise NetworkError(f"layer {layer.label} is made of layer {missing[0]}, which is not among the layers")
