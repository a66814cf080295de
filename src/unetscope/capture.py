"""Stream chosen layers of a frozen network within a memory budget, leaving it as it was. Imports records and errors.

An exact distance between images needs one layer of all images at once, never all layers: `stream` runs as many forward
passes as the budget forces, keeps in each only the slice of the activations that this pass is for, and hands it over.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

import psutil
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unetscope.errors import InvalidArgument, NetworkError
from unetscope.records import Layer

FEATURES_AT_ONCE = 4096
BYTES_A_VALUE = 4  # activations are kept in float32
LARGEST_DEFAULT_BUDGET = 2 * 2**30

Hook = Callable[[nn.Module, object, object], None]


@dataclass(frozen=True)
class Slice:
    """Values `start` to `stop` of each image's flattened activation in one layer."""

    layer: Layer
    start: int
    stop: int

    @property
    def completes_layer(self) -> bool:
        """Whether no values of the layer come after this slice."""
        return self.stop == self.layer.size


@dataclass(frozen=True)
class Block:
    """The activations of all n images in one slice, [n, stop - start], float32, on the network's device."""

    slice: Slice
    values: Float[Tensor, "n width"]


class _AllSeen(BaseException):
    """Ends a forward pass once its last wanted layer has been seen; no network's `except Exception` can swallow it."""


def default_budget() -> int:
    """A quarter of the free memory, in bytes, and at most 2 GiB."""
    return min(psutil.virtual_memory().available // 4, LARGEST_DEFAULT_BUDGET)


def plan_passes(layers: Sequence[Layer], n: int, budget_bytes: int) -> tuple[tuple[Slice, ...], ...]:
    """Cut the activations of n images, layer after layer, into as few forward passes as the budget allows.

    layers: with their shapes known. A pass is filled to the budget; the layer that overflows it is cut by features, at a
    multiple of FEATURES_AT_ONCE, and goes on in the next one: so whoever works through that many features at a time
    meets the same chunks, and comes to the same bits, under every budget. Layers that are a concatenation of others
    (`parts`) are not captured at all.

    Raises: InvalidArgument if the budget does not hold FEATURES_AT_ONCE values of each image.

    >>> layers = Layer("1", "a", shape=(6000,)), Layer("2", "b", shape=(4000,))
    >>> plan = plan_passes(layers, n=10, budget_bytes=10 * 4 * 9000)
    >>> [[(part.layer.label, part.start, part.stop) for part in one] for one in plan]
    [[('1', 0, 6000)], [('2', 0, 4000)]]
    >>> plan = plan_passes(layers, n=10, budget_bytes=10 * 4 * 5000)
    >>> [[(part.layer.label, part.start, part.stop) for part in one] for one in plan]
    [[('1', 0, 4096)], [('1', 4096, 6000)], [('2', 0, 4000)]]
    """
    room = budget_bytes // (BYTES_A_VALUE * n)
    if room < FEATURES_AT_ONCE:
        least = BYTES_A_VALUE * n * FEATURES_AT_ONCE
        raise InvalidArgument(f"memory_budget must be at least {least} bytes for {n} images, got {budget_bytes}")
    passes: list[list[Slice]] = [[]]
    left = room
    for layer in layers:
        start = 0
        while not layer.parts and start < layer.size:
            rest = layer.size - start
            width = rest if rest <= left else left // FEATURES_AT_ONCE * FEATURES_AT_ONCE
            if width == 0:
                passes.append([])
                left = room
                continue
            passes[-1].append(Slice(layer, start, start + width))
            left -= width
            start += width
    return tuple(tuple(one_pass) for one_pass in passes)


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

    with frozen(model), _hooked(model, captured, note):
        model(_as_input(model, example))
    for layer in captured:
        if layer.label not in shapes:
            raise NetworkError(f"layer {layer.label}: module {layer.module!r} did not run in the forward pass")
    parts = {layer.label: layer.parts for layer in layers}

    def shape_of(label: str) -> tuple[int, ...]:
        if not parts[label]:
            return shapes[label]
        channels, *sides = zip(*(shape_of(part) for part in parts[label]), strict=True)
        return (sum(channels), *(side[0] for side in sides))

    return tuple(replace(layer, shape=shape_of(layer.label)) for layer in layers)


def stream(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[Layer],
    *,
    budget_bytes: int,
    batch_size: int = 16,
    prepare: Callable[[Tensor], Tensor] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Iterator[Block]:
    """Activations of every captured layer for all images, slice by slice, each layer's slices in order.

    images: [n, channels, height, width]; `prepare` turns a batch of them into what the network reads (by default, they
    are taken as they are). layers: with their shapes known (`with_shapes`). The values of a block may be overwritten by
    whoever receives it; its memory is given back when the next block is asked for and nobody holds it.

    The network runs in evaluation mode, in the float type of its weights, without gradients; activations are kept in
    float32. Modes, gradients, buffers and random state are as before after every pass, also if it fails. on_batch is told
    (batches done, batches in all).

    Raises: InvalidArgument if the budget is too small, NetworkError if a layer does not give one activation an image.
    """
    n = len(images)
    passes = plan_passes(layers, n, budget_bytes)
    batches = range(0, n, batch_size)
    for number, slices in enumerate(passes):
        buffers: list[Tensor | None] = [
            torch.empty((n, part.stop - part.start), dtype=torch.float32, device=_device(model)) for part in slices
        ]
        _fill(model, images, slices, buffers, batch_size, prepare, on_batch, (number * len(batches), len(passes)))
        for place, part in enumerate(slices):
            values = buffers[place]
            buffers[place] = None
            assert values is not None
            yield Block(part, values)
            del values


def _fill(
    model: nn.Module,
    images: Tensor,
    slices: Sequence[Slice],
    buffers: Sequence[Tensor | None],
    batch_size: int,
    prepare: Callable[[Tensor], Tensor] | None,
    on_batch: Callable[[int, int], None] | None,
    progress: tuple[int, int],
) -> None:
    """One forward pass over all images, as deep as its slices need, writing each slice into its buffer."""
    places = {part.layer.label: place for place, part in enumerate(slices)}
    first, seen, batch = 0, 0, images[:0]

    def keep(layer: Layer, activation: Tensor) -> None:
        nonlocal seen
        place = places[layer.label]
        part, buffer = slices[place], buffers[place]
        assert buffer is not None
        if activation.shape != (len(batch), *layer.shape):
            raise NetworkError(
                f"layer {layer.label}: module {layer.module!r} gives {list(activation.shape)} for {len(batch)} images, "
                f"expected {[len(batch), *layer.shape]}: one activation an image, all of one shape"
            )
        buffer[first : first + len(activation)] = activation.flatten(1)[:, part.start : part.stop]
        seen += 1
        if seen == len(slices):
            raise _AllSeen

    batches = -(-len(images) // batch_size)
    with frozen(model), _hooked(model, [part.layer for part in slices], keep):
        for index in range(batches):
            first, seen = index * batch_size, 0
            batch = images[first : first + batch_size]
            with suppress(_AllSeen):
                model(_as_input(model, batch if prepare is None else prepare(batch)))
                raise NetworkError(
                    f"only {seen} of the layers {', '.join(places)} ran for images {first} to {first + len(batch) - 1}: "
                    "a layer must run for every image"
                )
            if on_batch is not None:
                on_batch(progress[0] + index + 1, progress[1] * batches)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Run a network in evaluation mode, without gradients or autocast, and put everything back.

    Restored: the training flag of every module, every buffer, and the random state of the CPU and of the network's device.

    >>> model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2)).train()
    >>> with frozen(model):
    ...     model.training, torch.is_grad_enabled()
    (False, False)
    >>> model.training
    True
    """
    device = _device(model)
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        try:
            model.eval()
            yield
        finally:
            for module, training in modes:
                module.training = training
            for module, name, buffer, before in buffers:
                setattr(module, name, buffer)
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


@contextmanager
def _hooked(model: nn.Module, layers: Sequence[Layer], receive: Callable[[Layer, Tensor], None]) -> Iterator[None]:
    """Call `receive(layer, activation)` whenever a layer's module has run."""
    modules = dict(model.named_modules())

    def hook_for(layer: Layer) -> Hook:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if not isinstance(output, Tensor):
                raise NetworkError(
                    f"layer {layer.label}: module {layer.module!r} gives a {type(output).__name__}, expected one tensor; "
                    "name a module inside it"
                )
            receive(layer, output)

        return hook

    with ExitStack() as stack:
        for layer in layers:
            if layer.module not in modules:
                raise NetworkError(_no_such_module(layer, modules))
            stack.callback(modules[layer.module].register_forward_hook(hook_for(layer)).remove)
        yield


def _no_such_module(layer: Layer, modules: dict[str, nn.Module]) -> str:
    nearest = difflib.get_close_matches(layer.module, modules, n=3, cutoff=0.4)
    hint = f"the nearest names are {', '.join(map(repr, nearest))}" if nearest else "see model.named_modules()"
    return f"layer {layer.label}: the network has no module {layer.module!r}; {hint}"


def _check_labels(layers: Sequence[Layer]) -> None:
    counts = Counter(layer.label for layer in layers)
    if repeated := [label for label, count in counts.items() if count > 1]:
        raise NetworkError(f"layer {repeated[0]} is named {counts[repeated[0]]} times; give each layer its own label")
    for layer in layers:
        if missing := [part for part in layer.parts if part not in counts]:
            raise NetworkError(f"layer {layer.label} is made of layer {missing[0]}, which is not among the layers")


def _device(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _as_input(model: nn.Module, batch: Tensor) -> Tensor:
    """The batch on the network's device, in the float type of its weights."""
    weights = (parameter for parameter in model.parameters() if parameter.is_floating_point())
    dtype = next((parameter.dtype for parameter in weights), torch.float32)
    return batch.to(_device(model), dtype=dtype)
