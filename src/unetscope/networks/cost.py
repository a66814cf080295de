"""What a network costs: parameters, multiply-adds, memory and time of one image.

Counts are exact and the same everywhere; time is measured on the machine at hand, and is good for a ratio alone.
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

TIMES, WARM_UP = 15, 3


@dataclass(frozen=True, slots=True)
class Cost:
    """parameters: trained numbers. multiply_adds: of one image. activation_bytes: the most that the tensors of one image's
    forward pass hold at a time, the image among them. seconds: the median of several forward passes of one image.
    """

    parameters: int
    multiply_adds: int
    activation_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Savings:
    """What a smaller network costs beside the whole one."""

    whole: Cost
    slim: Cost

    def as_dict(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {"whole": asdict(self.whole), "slim": asdict(self.slim)}

    def rows(self) -> list[tuple[str, str]]:
        """All of it, for people."""
        return [
            (name, f"{_shown(before, unit)} → {_shown(after, unit)} ({after / before - 1:+.0%})")
            for name, unit, before, after in (
                ("parameters", "", self.whole.parameters, self.slim.parameters),
                ("multiply-adds", "", self.whole.multiply_adds, self.slim.multiply_adds),
                ("peak activation memory", "B", self.whole.activation_bytes, self.slim.activation_bytes),
                ("time of a forward pass, here", "s", self.whole.seconds, self.slim.seconds),
            )
        ]


def _shown(value: float, unit: str) -> str:
    """A number with the prefix that makes it short.

    >>> _shown(485817, ""), _shown(688128, "B"), _shown(0.0126, "s")
    ('486 k', '688 kB', '12.6 ms')
    """
    for power, prefix in ((9, "G"), (6, "M"), (3, "k"), (0, ""), (-3, "m"), (-6, "µ")):
        if value >= 10.0**power:
            return f"{value / 10.0**power:.3g} {prefix}{unit}".rstrip()
    return f"{value:g} {unit}".rstrip()


def costs(models: Sequence[nn.Module], shape: tuple[int, ...]) -> tuple[Cost, ...]:
    """The cost of each network for one image of a shape, (channels, height, width); passes take turns, so that ratios hold.

    >>> from unetscope.networks.unet import UNet
    >>> big, small = costs([UNet(4, depth=2), UNet(4, depth=2, without=["skip1"])], (3, 16, 16))
    >>> big.parameters - small.parameters, big.multiply_adds - small.multiply_adds     # 4 × 4 × 3 × 3 weights, 16 × 16 places
    (144, 36864)
    """
    device = next(models[0].parameters()).device
    image = torch.rand((1, *shape), device=device)
    training = [model.training for model in models]
    try:
        for model in models:
            model.eval()
        with torch.no_grad():
            seconds = _seconds(models, image)
            return tuple(
                Cost(
                    sum(p.numel() for p in model.parameters()), _multiply_adds(model, image), _peak(model, image), taken
                )
                for model, taken in zip(models, seconds, strict=True)
            )
    finally:
        for model, was in zip(models, training, strict=True):
            model.train(was)


def _multiply_adds(model: nn.Module, image: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops() // 2)


def _peak(model: nn.Module, image: Tensor) -> int:
    with _Living() as living:
        living.count(image)
        model(image)
    return living.peak


class _Living(TorchDispatchMode):
    """Counts the bytes of every tensor that lives, from the first operation to the last; views share their memory."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._known: set[int] = set()

    def count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage._cdata, storage.nbytes()
        if place in self._known:
            return
        self._known.add(place)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.bytes -= size

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self.count(tensor)
        return result


def _seconds(models: Sequence[nn.Module], image: Tensor) -> list[float]:
    """The median time of a forward pass of each; every round runs all of them, so a slow moment meets all alike."""
    taken: list[list[float]] = [[] for _ in models]
    for turn in range(WARM_UP + TIMES):
        for model, times in zip(models, taken, strict=True):
            started = time.perf_counter()
            model(image)
            if image.is_cuda:
                torch.cuda.synchronize()
            if turn >= WARM_UP:
                times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in taken]
