"""Stream the activations of chosen layers, without changing the network.

A distance between images needs one layer of all images, never all layers at once. `stream` therefore runs the network once
a pass and keeps only the slices of activations that the pass asks for.
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

from unetscope.activations.distributed import all_reduce, own_share
from unetscope.activations.inference import as_input, device_of, eval_mode
from unetscope.activations.memory import ActivationBuffer, Passes, Slice
from unetscope.activations.tracing import INPUT, is_address, split_argument, tensors_in, trace_calls
from unetscope.base import NetworkError, StepCallback, nearest
from unetscope.table import Layer


@dataclass(frozen=True)
class Block:
    """The activations of all n images in one slice, [n, stop - start], float32, on the network's device.

    The values of an image stand in the order in which the network keeps them (channels first or last), the same for all.
    """

    slice: Slice
    values: Float[Tensor, "n width"]


class _LastLayerReached(BaseException):
    """Ends a forward pass after its last layer. It is no `Exception`, so that a network's own handlers do not catch it."""


def with_shapes(model: nn.Module, layers: Sequence[Layer], example: Tensor) -> tuple[Layer, ...]:
    """The layers with the shape of one image's activation, from one forward pass of `example` [1, ...].

    Raises: NetworkError if a module does not exist (with the nearest names), does not run, runs more than once or does not
    return one tensor, or if two layers share a label.
    """
    _check_labels(layers)
    captured = [layer for layer in layers if not layer.parts]
    shapes: dict[str, tuple[int, ...]] = {}

    def record_shape(layer: Layer, activation: Tensor) -> None:
        if layer.label in shapes:
            raise NetworkError(
                f"layer {layer.label}: module {layer.module!r} runs more than once in a forward pass; "
                "name modules that run once each"
            )
        shapes[layer.label] = tuple(activation.shape[1:])

    with eval_mode(model), _hooked(model, captured, record_shape):
        model(as_input(model, example))
    for layer in captured:
        if layer.label not in shapes:
            failure = "call {!r} was not made" if is_address(layer.module) else "module {!r} did not run"
            raise NetworkError(f"layer {layer.label}: {failure.format(layer.module)} in the forward pass")
    parts = {layer.label: layer.parts for layer in layers}

    def shape_of(label: str) -> tuple[int, ...]:
        if not parts[label]:
            return shapes[label]
        channels, *sides = zip(*(shape_of(part) for part in parts[label]), strict=True)
        return (sum(channels), *(side[0] for side in sides))

    return tuple(replace(layer, shape=shape_of(layer.label)) for layer in layers)


def forward_bytes(model: nn.Module, example: Tensor) -> int:
    """The memory that one image, `example` [1, ...], needs inside the network: twice the peak of its modules' outputs.

    Twice, because a convolution may keep a copy in another memory format, and hooks do not see functions between modules.
    """
    outputs: list[weakref.ref[Tensor]] = []
    peak = 0

    def update_peak(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal peak
        if isinstance(output, Tensor):
            outputs.append(weakref.ref(output))
        alive = [tensor.untyped_storage() for reference in outputs if (tensor := reference()) is not None]
        peak = max(peak, sum({storage.data_ptr(): storage.nbytes() for storage in alive}.values()))

    with eval_mode(model), ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_hook(update_peak).remove)
        model(as_input(model, example))
    return 2 * peak


def stream(
    model: nn.Module,
    images: Tensor,
    passes: Passes,
    *,
    batch_size: int,
    activation_buffer: ActivationBuffer | None = None,
    prepare: Callable[[Tensor], Tensor] | None = None,
    share: bool = False,
    on_batch: StepCallback | None = None,
) -> Iterator[Block]:
    """The activations of all images, slice by slice, in the order of the passes. Each pass runs the network once.

    images: [n, channels, height, width]; `prepare` turns a batch of them into the network's input (default: unchanged).
    passes: from `memory_budget`. activation_buffer: memory for the values of a pass; the next pass overwrites it. share:
    every process of a group runs the network on its share of the images, and gets the activations of all.

    The network runs in evaluation mode without gradients, in the float type of its weights (float32 in full precision);
    activations are stored in float32. A pass ends after the last layer that it needs. Modes, gradients, buffers and random
    state are restored after every pass, also if it fails. on_batch: called with (batches done, batches in all).

    Raises: NetworkError if a layer does not return one activation an image.
    """
    n = len(images)
    activation_buffer = activation_buffer or ActivationBuffer(device_of(model))
    all_batches = torch.arange(n).split(batch_size)
    batches = own_share(all_batches) if share else all_batches
    region = activation_buffer.take(
        n * max((sum(part.stop - part.start for part in slices) for slices in passes), default=0)
    )

    def report_batch(done: int) -> None:
        if on_batch is not None:
            on_batch(number * len(batches) + done, len(passes) * len(batches))

    for number, slices in enumerate(passes):  # noqa: B007 (report_batch reads it)
        buffers = _PassBuffers(slices, region, n)
        if share:
            buffers.whole.zero_()
        layers = [part.layer for part in slices]
        visit(model, images, layers, buffers.write, batches=batches, prepare=prepare, on_batch=report_batch)
        if share:
            all_reduce(buffers.whole)  # an image's values are zero in all processes but one
        yield from map(Block, slices, buffers.by_slice)


class _PassBuffers:
    """The slices of one pass, one after the other in a region of memory."""

    def __init__(self, slices: Sequence[Slice], region: Tensor, n: int) -> None:
        sizes = [n * (part.stop - part.start) for part in slices]
        self.whole = region[: sum(sizes)]
        self.by_slice = [values.view(n, -1) for values in self.whole.split(sizes)]
        self._by_label = {part.layer.label: (part, buffer) for part, buffer in zip(slices, self.by_slice, strict=True)}
        self._channels_last: dict[str, bool] = {}

    def write(self, rows: Tensor, layer: Layer, activation: Tensor) -> None:
        part, buffer = self._by_label[layer.label]
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
    """Call `receive(rows, layer, activation)` with each whole activation as soon as it exists, and keep none.

    batches: the rows of `images` that run through the network together, as indices. `receive` gets an activation before a
    later in-place function may overwrite it. A batch ends after the last of the layers. The network runs, and the other
    arguments are, as in `stream`; on_batch: called with the number of batches done.

    Raises: NetworkError if a layer does not return one activation an image.
    """
    layers_run, rows = 0, torch.arange(0)

    def check_and_pass_on(layer: Layer, activation: Tensor) -> None:
        nonlocal layers_run
        if activation.shape != (len(rows), *layer.shape):
            raise NetworkError(
                f"layer {layer.label}: module {layer.module!r} gives {list(activation.shape)} for {len(rows)} images, "
                f"expected {[len(rows), *layer.shape]}: one activation an image, all of one shape"
            )
        receive(rows, layer, activation)
        layers_run += 1
        if layers_run == len(layers):
            raise _LastLayerReached

    with eval_mode(model), _hooked(model, layers, check_and_pass_on):
        for done, rows in enumerate(batches, start=1):
            layers_run = 0
            batch = images[rows]
            with suppress(_LastLayerReached):
                model(as_input(model, batch if prepare is None else prepare(batch)))
                raise NetworkError(
                    f"only {layers_run} of the layers {', '.join(layer.label for layer in layers)} ran for "
                    f"images {int(rows[0])} to {int(rows[-1])}: a layer must run for every image"
                )
            if on_batch is not None:
                on_batch(done)


def _is_channels_last(tensor: Tensor) -> bool:
    """Whether an image (or volume) is stored channels last, so that moving its channels to the end copies nothing."""
    return tensor.ndim > 3 and not tensor.is_contiguous() and tensor.movedim(1, -1).is_contiguous()


@contextmanager
def _hooked(model: nn.Module, layers: Sequence[Layer], receive: Callable[[Layer, Tensor], None]) -> Iterator[None]:
    """Within the block, call `receive(layer, activation)` whenever a layer's module has run or its call was made."""
    modules = dict(model.named_modules())
    calls = {layer.module: layer for layer in layers if is_address(layer.module)}
    arguments: dict[str, list[tuple[int, Layer]]] = {}  # by call, with the position of each

    def pass_on(layer: Layer, output: object) -> None:
        if not isinstance(output, Tensor):
            raise NetworkError(
                f"layer {layer.label}: module {layer.module!r} gives a {type(output).__name__}, expected one tensor; "
                "name a module inside it"
            )
        with torch._C.DisableTorchFunction():  # functions that `receive` calls are not the network's
            receive(layer, _real(output))

    def intercept(address: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if address in arguments:
            operands = list(tensors_in((args, dict(kwargs))))
            for position, layer in arguments[address]:
                pass_on(layer, operands[position])
        result = function(*args, **kwargs)
        if address in calls:  # a call that only writes, as an assignment does, gives what it wrote into
            pass_on(calls[address], next(tensors_in(args), None) if result is None else result)
        return result

    with ExitStack() as stack:
        for layer in layers:
            if is_address(layer.module):
                continue
            if layer.module not in modules:
                raise NetworkError(_no_such_module(layer, modules))
            hook = modules[layer.module].register_forward_hook(
                lambda _m, _i, output, layer=layer: pass_on(layer, output)
            )
            stack.callback(hook.remove)
        for place in list(calls):
            address, argument = split_argument(place)
            if argument is not None:
                arguments.setdefault(address, []).append((argument, calls.pop(place)))
        if input_layer := calls.pop(INPUT, None):
            hook = model.register_forward_pre_hook(lambda _m, inputs: pass_on(input_layer, inputs[0]))
            stack.callback(hook.remove)
        if calls or arguments:
            stack.enter_context(trace_calls(model, intercept))
        yield


def _real(activation: Tensor) -> Tensor:
    """An activation as real numbers: a quantised one by its values, a complex one with its imaginary parts as channels."""
    if activation.is_quantized:
        return activation.dequantize()
    return torch.cat([activation.real, activation.imag], dim=1) if activation.is_complex() else activation


def _no_such_module(layer: Layer, modules: Mapping[str, nn.Module]) -> str:
    return f"layer {layer.label}: the network has no module {layer.module!r}; {nearest(layer.module, filter(None, modules))}"


def _check_labels(layers: Sequence[Layer]) -> None:
    counts = Counter(layer.label for layer in layers)
    if repeated := [label for label, count in counts.items() if count > 1]:
        raise NetworkError(f"layer {repeated[0]} is named {counts[repeated[0]]} times; give each layer its own label")
    for layer in layers:
        if missing := [part for part in layer.parts if part not in counts]:
            raise NetworkError(f"layer {layer.label} is made of layer {missing[0]}, which is not among the layers")
