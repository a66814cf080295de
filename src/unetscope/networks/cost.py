"""What a network costs: parameters, and multiply-adds, memory and time for one image.

Counts are exact and equal on every machine. Time is measured on this machine; compare it only as a ratio.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from unetscope.activations import as_input
from unetscope.base import preserve_rng
from unetscope.networks.equality import tensors_of
from unetscope.table import Cost

TIMED_ROUNDS, WARM_UP_ROUNDS = 15, 3
FEWEST_ROUNDS, MOST_SECONDS = 3, 10.0  # rounds that are timed even of a network so slow that all take longer


def costs(models: Sequence[nn.Module], shape: tuple[int, ...]) -> tuple[Cost, ...]:
    """The cost of each network for one image of a shape, (channels, *sides). Timed passes alternate between networks, on one
    thread of a CPU.

    All is of evaluation mode. Multiply-adds are those of convolutions, matrix products and attention; element-wise functions,
    pooling, interpolation and recurrent layers count as none, as do operators that are not PyTorch's own. A tensor takes memory
    from the call that makes it to the last that uses it, however long Python has a name for it. What training keeps
    is what autograd holds for the backward pass: each storage once, without parameters and buffers. All networks are measured
    with their weights in PyTorch's default order: in that of channels last, a network is faster or slower by a third.

    >>> from unetscope.networks.unet import UNet
    >>> big, small = costs([UNet(4, depth=2), UNet(4, depth=2, without=["skip1"])], (3, 16, 16))
    >>> big.parameters - small.parameters, big.multiply_adds - small.multiply_adds     # 4 × 4 × 3 × 3 weights, 16 × 16 places
    (144, 36864)
    """
    image = torch.rand((1, *shape), generator=torch.Generator().manual_seed(0))
    modes = [model.training for model in models]
    try:
        for model in models:
            model.eval()
        images = [as_input(model, image) for model in models]
        with preserve_rng(), _weights_in_default_order(models):
            return tuple(
                Cost(
                    parameters=sum(parameter.numel() for parameter in model.parameters()),
                    multiply_adds=_multiply_adds(model, of_model),
                    activation_bytes=_peak_bytes(model, of_model),
                    training_bytes=kept_bytes(model, of_model),
                    seconds=seconds,
                )
                for model, of_model, seconds in zip(models, images, _shortest_seconds(models, images), strict=True)
            )
    finally:
        for model, training in zip(models, modes, strict=True):
            model.train(training)


@contextmanager
def _weights_in_default_order(models: Sequence[nn.Module]) -> Iterator[None]:
    weights = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
    before = [tensor.data for tensor in weights]
    try:
        for tensor in weights:
            tensor.data = tensor.data.contiguous()
        yield
    finally:
        for tensor, data in zip(weights, before, strict=True):
            tensor.data = data


@contextmanager
def _modules_of_attention_in_parts() -> Iterator[None]:
    """PyTorch's attention modules as the functions that they are made of, and not as one kernel, which hides them."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _multiply_adds(model: nn.Module, image: Tensor) -> int:
    with (
        torch.no_grad(),
        _modules_of_attention_in_parts(),
        sdpa_kernel(SDPBackend.MATH),  # the counter does not know the CPU's kernel of attention
        FlopCounterMode(display=False) as counter,
    ):
        model(image)
    return int(counter.get_total_flops() // 2)


def _peak_bytes(model: nn.Module, image: Tensor) -> int:
    with torch.no_grad(), _modules_of_attention_in_parts(), _Lifetimes(_own_storages(model)) as lifetimes:
        lifetimes.use(image)
        output = tensors_of(model(image))
    lifetimes.use((image, output))  # which the caller holds to the end
    return lifetimes.peak_bytes


def kept_bytes(model: nn.Module, image: Tensor) -> int:
    """The bytes of the storages that autograd keeps of a pass, without those of the network's own tensors.

    image: [1, channels, *sides]. The network is passed in the mode that it is in.

    >>> kept_bytes(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU()), torch.rand(1, 1, 8, 8))    # the image, and what ReLU gives
    768
    """
    own = _own_storages(model)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage()._cdata) not in own:
            kept[storage] = tensor.detach()  # held, so that no later tensor has its address
        return tensor.detach()

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(image)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _own_storages(model: nn.Module) -> set[int]:
    """What names the storages of a network's parameters and buffers, which are no activations."""
    return {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}


class _Lifetimes(TorchDispatchMode):
    """From which call to which each storage is used. Views share their memory, so storages are counted.

    own: storages that do not count.
    """

    def __init__(self, own: set[int]) -> None:
        super().__init__()
        self._own = own
        self._calls = 0
        self._first: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._held: dict[int, torch.UntypedStorage] = {}  # so that no later one has its address

    def use(self, values: Any) -> None:
        """Count the tensors among some values as used by the present call."""
        for tensor in tree_iter(values):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            if (identity := storage._cdata) not in self._own:
                self._held.setdefault(identity, storage)
                self._first.setdefault(identity, self._calls)
                self._last[identity] = self._calls

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self._calls += 1
        self.use((args, kwargs, result))
        return result

    @property
    def peak_bytes(self) -> int:
        """The most bytes that are in use at a time."""
        changes = [0] * (self._calls + 2)
        for identity, storage in self._held.items():
            changes[self._first[identity]] += storage.nbytes()
            changes[self._last[identity] + 1] -= storage.nbytes()
        return max(itertools.accumulate(changes))


@torch.no_grad()
def _shortest_seconds(models: Sequence[nn.Module], images: Sequence[Tensor]) -> list[float]:
    """The shortest time of each network's forward pass, of several rounds that all networks run.

    On one thread, and the shortest, since what else a machine does only adds to a pass: beside two busy processes on two cores
    the ratio of two medians on two threads lay between 0.2 and 4 where the ratio of the shortest, on one, lay at 0.6 to 0.8.
    """
    durations: list[list[float]] = [[] for _ in models]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    begun = time.perf_counter()
    try:
        for turn in range(WARM_UP_ROUNDS + TIMED_ROUNDS):
            if turn >= WARM_UP_ROUNDS + FEWEST_ROUNDS and time.perf_counter() - begun > MOST_SECONDS:
                break
            for model, image, times in zip(models, images, durations, strict=True):
                started = time.perf_counter()
                model(image)
                if image.is_cuda:
                    torch.cuda.synchronize()
                if turn >= WARM_UP_ROUNDS:
                    times.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return list(map(min, durations))
