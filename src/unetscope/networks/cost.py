"""What a network costs: parameters, and multiply-adds, memory and time for one image.

Counts are exact and equal on every machine. Time is measured on this machine; compare it only as a ratio.
"""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from unetscope.activations import device_of

TIMED_ROUNDS, WARM_UP_ROUNDS = 15, 3


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one forward pass of one image.

    parameters: the size of all of them. multiply_adds: of the pass. activation_bytes: the peak memory of the pass's tensors,
    including the image. seconds: the median of several passes.
    """

    parameters: int
    multiply_adds: int
    activation_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Savings:
    """The costs of a network and of a smaller one."""

    whole: Cost
    slim: Cost

    def as_dict(self) -> dict[str, Any]:
        """Both costs by name, as JSON takes them."""
        return {"whole": asdict(self.whole), "slim": asdict(self.slim)}

    def rows(self) -> list[tuple[str, str]]:
        """Each cost with its title: before, after and the relative change."""
        return [
            (name, f"{_with_prefix(before, unit)} → {_with_prefix(after, unit)} ({after / before - 1:+.0%})")
            for name, unit, before, after in (
                ("parameters", "", self.whole.parameters, self.slim.parameters),
                ("multiply-adds", "", self.whole.multiply_adds, self.slim.multiply_adds),
                ("peak activation memory", "B", self.whole.activation_bytes, self.slim.activation_bytes),
                ("time of a forward pass, here", "s", self.whole.seconds, self.slim.seconds),
            )
        ]


def _with_prefix(value: float, unit: str) -> str:
    """A number with an SI prefix.

    >>> _with_prefix(485817, ""), _with_prefix(688128, "B"), _with_prefix(0.0126, "s")
    ('486 k', '688 kB', '12.6 ms')
    """
    for power, prefix in ((9, "G"), (6, "M"), (3, "k"), (0, ""), (-3, "m"), (-6, "µ")):
        if value >= 10.0**power:
            return f"{value / 10.0**power:.3g} {prefix}{unit}".rstrip()
    return f"{value:g} {unit}".rstrip()


def costs(models: Sequence[nn.Module], shape: tuple[int, ...]) -> tuple[Cost, ...]:
    """The cost of each network for one image of a shape, (channels, height, width). Timed passes alternate between networks.

    >>> from unetscope.networks.unet import UNet
    >>> big, small = costs([UNet(4, depth=2), UNet(4, depth=2, without=["skip1"])], (3, 16, 16))
    >>> big.parameters - small.parameters, big.multiply_adds - small.multiply_adds     # 4 × 4 × 3 × 3 weights, 16 × 16 places
    (144, 36864)
    """
    image = torch.rand((1, *shape), device=device_of(models[0]))
    modes = [model.training for model in models]
    try:
        for model in models:
            model.eval()
        with torch.no_grad():
            return tuple(
                Cost(_parameter_count(model), _multiply_adds(model, image), _peak_bytes(model, image), seconds)
                for model, seconds in zip(models, _median_seconds(models, image), strict=True)
            )
    finally:
        for model, training in zip(models, modes, strict=True):
            model.train(training)


def _parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _multiply_adds(model: nn.Module, image: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops() // 2)


def _peak_bytes(model: nn.Module, image: Tensor) -> int:
    with _LiveMemory() as memory:
        memory.count(image)
        model(image)
    return memory.peak


class _LiveMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive. Views share their memory, so storages are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._storages: set[int] = set()

    def count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        identity, size = storage._cdata, storage.nbytes()
        if identity in self._storages:
            return
        self._storages.add(identity)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._discard, identity, size)

    def _discard(self, identity: int, size: int) -> None:
        self._storages.discard(identity)
        self.bytes -= size

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self.count(tensor)
        return result


def _median_seconds(models: Sequence[nn.Module], image: Tensor) -> list[float]:
    """The median time of each network's forward pass. Every round runs all networks, so that other load affects all alike."""
    durations: list[list[float]] = [[] for _ in models]
    for turn in range(WARM_UP_ROUNDS + TIMED_ROUNDS):
        for model, times in zip(models, durations, strict=True):
            started = time.perf_counter()
            model(image)
            if image.is_cuda:
                torch.cuda.synchronize()
            if turn >= WARM_UP_ROUNDS:
                times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in durations]
